package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-log/flotilla/log/batch"
)

// FuzzOpen opens any bytes as data and index, cut to any end. Whatever they
// are, and also with every checksum made right, as nobody but an enemy would,
//   - Open, reads and Verify do not panic and end,
//   - what Open could not take as intact it says,
//   - what is left takes appends and is read back by the next Open.
func FuzzOpen(f *testing.F) {
	dir := filepath.Join("testdata", "golden", "v1")
	data, err := os.ReadFile(filepath.Join(dir, DataName(1000)))
	if err != nil {
		f.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, IndexName(1000)))
	if err != nil {
		f.Fatal(err)
	}
	fx := newFixture(f, 0)
	fx.append(10, 20, 5000)
	fx.append(30)
	own, ownIndex := read(f, fx.mem, fx.seg.Name()), read(f, fx.mem, fx.seg.indexName())
	f.Add(data, index, int64(1007), false)
	f.Add(own, ownIndex, int64(7), false)
	f.Add(own, ownIndex, int64(3), false)
	f.Add(own, ownIndex, int64(7), true)
	f.Add(own, []byte(nil), int64(7), false)
	f.Add(own[:len(own)-3], ownIndex, int64(7), false)
	f.Add(own[:HeaderBytes], ownIndex[:indexHeaderBytes], int64(0), false)
	f.Add([]byte(nil), []byte(nil), int64(0), false)

	f.Fuzz(func(t *testing.T, data, index []byte, end int64, forge bool) {
		end = max(end, 1)
		if forge {
			data, index = bytes.Clone(data), bytes.Clone(index)
			forgeData(data)
			forgeIndex(data, index)
		}
		mem := place(t, data, index)
		s, err := reopen(mem, 0, end)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("Open = %v", err)
			}
			return
		}
		if s.End() > end {
			t.Fatalf("End = %d, cut to %d", s.End(), end)
		}
		if s.End() < end && s.Damage() == nil && !s.Sealed() {
			t.Fatalf("End = %d, want %d, and no damage", s.End(), end)
		}
		for off, n := s.Base(), 0; off < s.End() && n < 100; n++ {
			r, err := s.Range(off, 4000)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("Range(%d) = %v", off, err)
				}
				break
			}
			if r.End <= off || r.Pos < HeaderBytes || r.Pos+r.Bytes > s.Bytes() {
				t.Fatalf("Range(%d) = [%d, %d) to offset %d", off, r.Pos, r.Pos+r.Bytes, r.End)
			}
			off = r.End
			r.Release()
		}
		verified := s.Verify()
		if verified != nil && !errors.Is(verified, ErrCorrupt) {
			t.Fatalf("Verify = %v", verified)
		}
		if s.Sealed() || end > 1<<40 {
			return
		}
		b := makeBatch(t, s.End(), 1, 10)
		if err := s.Append([]Batch{b}); err != nil {
			t.Fatal(err)
		}
		again, err := reopen(mem, 0, b.End())
		if err != nil || verified == nil && (again.Damage() != nil || again.End() != b.End()) {
			t.Fatalf("second Open: %v, %v", err, again.Damage())
		}
	})
}

// forgeData makes the checksums of a data file right, as far as it has batches.
func forgeData(b []byte) {
	if len(b) < HeaderBytes {
		return
	}
	binary.LittleEndian.PutUint32(b[headerCRCAt:], checksum(0, b[:headerCRCAt]))
	for b = b[HeaderBytes:]; len(b) >= batch.HeaderBytes; {
		n := 12 + int(int32(binary.BigEndian.Uint32(b[8:])))
		if n < batch.HeaderBytes || n > len(b) {
			return
		}
		binary.BigEndian.PutUint32(b[17:], checksum(0, b[21:n]))
		b = b[n:]
	}
}

// forgeIndex does the same for an index file, and binds it to the data file.
func forgeIndex(data, b []byte) {
	h, err := parseHeader(data)
	if err != nil || len(b) < indexHeaderBytes {
		return
	}
	copy(b, appendIndexHeader(nil, h))
	for b = b[indexHeaderBytes:]; len(b) >= blockBytes; {
		n := blockBytes + int(binary.LittleEndian.Uint16(b[4:]))*entryBytes
		if n > len(b) {
			return
		}
		binary.LittleEndian.PutUint32(b, checksum(0, b[4:n]))
		b = b[n:]
	}
}

// FuzzParseBlock: a block that decodes re-encodes to the same bytes, and no
// one-bit change survives.
func FuzzParseBlock(f *testing.F) {
	from := startState(5)
	to := state{end: 9, size: 700, maxTS: 12, sum: 77}
	f.Add(appendBlock(nil, 0, from, to, []entry{{rel: 0, pos: HeaderBytes, maxTS: 3}}), uint16(3))
	f.Add(appendBlock(nil, blockSealed, to, to, nil), uint16(300))
	f.Add([]byte(nil), uint16(0))
	f.Fuzz(func(t *testing.T, in []byte, bit uint16) {
		blk, n, err := parseBlock(in)
		if err != nil {
			return
		}
		var es []entry
		for i := range blk.len() {
			es = append(es, blk.entry(i))
		}
		// The reserved bytes are under the checksum, and zero as written.
		got := appendBlock(nil, blk.flags, blk.start, blk.end, es)
		if copy(got[36:40], in[36:40]); string(got[4:]) != string(in[4:n]) {
			t.Fatalf("re-encoded %x, want %x", got, in[:n])
		}
		in = bytes.Clone(in)
		i := int(bit) % (8 * n)
		in[i/8] ^= 1 << (i % 8)
		if _, _, err := parseBlock(in); err == nil && i/8 != 4 && i/8 != 5 {
			t.Fatalf("bit %d flipped, yet it decodes", i)
		}
	})
}
