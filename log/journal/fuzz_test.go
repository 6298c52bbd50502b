package journal

import (
	"bytes"
	"errors"
	"path"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// FuzzScan puts any bytes anywhere into a journal and checks that Open
//   - does not panic,
//   - says where it is corrupt, or opens a journal that reads and takes appends,
//   - opens the same logs the second time.
func FuzzScan(f *testing.F) {
	var d disk
	var seed uint32
	f.Add(uint8(0), uint16(0), []byte(nil), false)
	f.Add(uint8(0), uint16(headerBytes), make([]byte, 200), true)
	f.Add(uint8(1), uint16(headerBytes+88), []byte("\xff\xff\xff\xff"), false)
	f.Add(uint8(0), uint16(headerBytes), (&recordHeader{lsn: 1, order: 1, kind: kindEntry, index: 9, payloadCRC: payloadCRC(nil, nil)}).encode(nil, 0), true)

	f.Fuzz(func(t *testing.T, slot uint8, off uint16, patch []byte, sign bool) {
		if d == nil {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem(1)
				j, _ := twoShards(t, mem)
				seed = j.files[0].seed
				mustClose(t, j)
				d = diskOf(t, mem)
			})
		}
		name := fileName(uint32(slot % 2))
		b := bytes.Clone(d[name])
		if off = off % minFileBytes; sign && off >= headerBytes && len(patch) >= recordHeaderBytes {
			// A checksum that fits lets the fuzzer past it.
			if h, _ := decodeRecordHeader(patch, 0); h.kind <= kindMark {
				patch = append(h.encode(nil, seed), patch[recordHeaderBytes:]...)
			}
		}
		copy(b[off:], patch)
		if sign && off < headerBytes {
			sealBlock(b[:blockBytes])
			sealBlock(b[blockBytes:headerBytes])
		}
		mem := vfs.NewMem(1)
		for n, content := range d {
			if n == name {
				content = b
			}
			if err := errors.Join(vfs.MkdirAllSync(mem, testDir), vfs.WriteFile(mem, path.Join(testDir, n), content)); err != nil {
				t.Fatal(err)
			}
		}
		in, err := Inspect(mem, testDir, InspectOptions{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		j, err := Open(mem, testDir, small())
		if (err == nil) != (in.OpenErr == nil) {
			t.Fatalf("Open = %v, Inspect says %v", err, in.OpenErr)
		}
		if err != nil {
			var ce *CorruptError
			if !errors.As(err, &ce) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Open = %v", err)
			}
			return
		}
		logs := make(map[shardKey][]Record)
		for _, info := range j.Shards() {
			s := j.shards[shardKey{info.ID, info.Incarnation}]
			if logs[s.key], err = contents(s); err != nil {
				t.Fatal(err)
			}
			rec := newRecord(info.Last+1, 3, 40, 9)
			if info.Last+1 == 0 {
				continue
			}
			if err := s.Append([]Record{rec}); err != nil {
				t.Fatal(err)
			}
			logs[s.key] = append(logs[s.key], rec)
		}
		mustClose(t, j)
		j = mustOpen(t, mem, small())
		defer j.Close()
		for key, want := range logs {
			if s := j.shards[key]; s == nil {
				t.Fatalf("log %+v is gone", key)
			} else {
				wantLog(t, s, want)
			}
		}
	})
}

// FuzzDecodeRing checks that what decodes encodes to the same bytes, but for
// what is reserved, and survives no one-bit change.
func FuzzDecodeRing(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add(make([]byte, ringBytes), uint16(1))
	f.Add(ring{slots: 3, fileBytes: minFileBytes}.encode(), uint16(77))
	f.Fuzz(func(t *testing.T, b []byte, bit uint16) {
		r, err := decodeRing(b)
		if err != nil {
			return
		}
		if again, err := decodeRing(r.encode()); err != nil || again != r {
			t.Fatalf("%+v encodes to what decodes to %+v, %v", r, again, err)
		}
		hurt := bytes.Clone(b)
		i := int(bit) % (8 * len(hurt))
		hurt[i/8] ^= 1 << (i % 8)
		if _, err := decodeRing(hurt); err == nil {
			t.Fatalf("bit %d flipped, yet it decodes", i)
		}
	})
}

// FuzzRecordHeader checks that what decodes encodes to the same bytes, and that
// no header survives a one-bit change or another salt.
func FuzzRecordHeader(f *testing.F) {
	f.Add(make([]byte, recordHeaderBytes), uint32(0), uint16(0))
	f.Add((&recordHeader{lsn: 7, order: 3, synced: 6, kind: kindEntry, payloadBytes: 9, extBytes: 9, raftType: 2}).encode(nil, 5), uint32(5), uint16(99))

	f.Fuzz(func(t *testing.T, b []byte, seed uint32, bit uint16) {
		if len(b) < recordHeaderBytes {
			return
		}
		b = b[:recordHeaderBytes]
		h, ok := decodeRecordHeader(b, seed)
		if !ok {
			return
		}
		if got := h.encode(nil, seed); !bytes.Equal(got, b) {
			t.Fatalf("encodes to %x, was %x", got, b)
		}
		if _, ok := decodeRecordHeader(b, seed+1); ok {
			t.Fatal("intact under another salt")
		}
		hurt := bytes.Clone(b)
		i := int(bit) % (8 * len(hurt))
		hurt[i/8] ^= 1 << (i % 8)
		if _, ok := decodeRecordHeader(hurt, seed); ok {
			t.Fatalf("bit %d flipped, yet it decodes", i)
		}
	})
}
