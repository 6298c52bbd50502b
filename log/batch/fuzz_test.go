package batch

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// goldens returns the golden files below 4 KiB, the seeds of every fuzz target.
func goldens(f *testing.F) [][]byte {
	f.Helper()
	names, err := filepath.Glob("testdata/golden/*.bin")
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden batches: %v", err)
	}
	var out [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 4<<10 {
			out = append(out, b)
		}
	}
	return out
}

const fuzzMaxBytes = 1 << 20

// FuzzValidate checks, for any bytes, once as they are and once given the
// magic, length and checksum of a batch, that
//   - Validate does not panic,
//   - what it lets in iterates to the end, with the same count, size, latest
//     timestamp and offsets 0, 1, 2 and so on, once a log append time bit is cleared,
//     and passes CheckCRC,
//   - and builds again to a batch with the same records.
func FuzzValidate(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b)
	}
	for codec := range Codec(len(codecNames)) {
		f.Add(build(f, 30, codec))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		validated(t, b)
		if len(b) < HeaderBytes {
			return
		}
		b = edit(b, func(b []byte) []byte { b[16] = Magic; return b })
		if !validated(t, b) {
			// Let it through the header, to try what the payload does.
			n := binary.BigEndian.Uint32(b[countAt:])
			validated(t, edit(b, func(b []byte) []byte {
				b[attrsAt], b[attrsAt+1] = 0, b[attrsAt+1]&7
				putProducer(b, NoProducer)
				binary.BigEndian.PutUint32(b[deltaAt:], n-1)
				return b
			}))
		}
	})
}

func validated(t *testing.T, b []byte) bool {
	t.Helper()
	before := bytes.Clone(b)
	s, err := Validate(b, Limits{MaxDecompressedBytes: fuzzMaxBytes})
	if !bytes.Equal(b, before) {
		t.Fatal("Validate changed its input")
	}
	if err != nil {
		return false
	}
	if s.RecordBytes > fuzzMaxBytes {
		t.Fatalf("%d bytes of records, limit %d", s.RecordBytes, fuzzMaxBytes)
	}
	if err := CheckCRC(b); err != nil {
		t.Fatalf("valid, but CheckCRC = %v", err)
	}
	if s.Attributes.LogAppendTime() { // as the broker appends it
		b = before
		SetCreateTime(b, s.LatestTimestamp)
	}
	rs := records(t, b)
	var w Builder
	w.Reset()
	w.SetProducer(s.Producer, s.Attributes.Transactional())
	latest := int64(-1)
	for i, r := range rs {
		if r.Offset != s.BaseOffset+int64(i) {
			t.Fatalf("record %d at offset %d from %d", i, r.Offset, s.BaseOffset)
		}
		latest = max(latest, r.Timestamp)
		var hs []RecordHeader
		for _, h := range r.Headers {
			hs = append(hs, RecordHeader{h[0], h[1]})
		}
		if err := w.Append(r.Timestamp, r.Key, r.Value, hs); err != nil {
			t.Fatalf("valid record %d does not append: %v", i, err)
		}
	}
	if len(rs) != int(s.Records) || latest != s.LatestTimestamp {
		t.Fatalf("%d records up to %d iterated, %d up to %d validated", len(rs), latest, s.Records, s.LatestTimestamp)
	}
	again, err := w.Build(nil, None, DefaultLevel)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	if _, err := Validate(again, Limits{MaxBatchBytes: 64 << 20, MaxDecompressedBytes: fuzzMaxBytes}); err != nil {
		t.Fatalf("valid, but built again it is not: %v", err)
	}
	back := records(t, again)
	for i := range rs {
		rs[i].Offset = int64(i)
		if rs[i].String() != back[i].String() {
			t.Fatalf("record %d is %v, built again %v", i, rs[i], back[i])
		}
	}
	return true
}

// FuzzIterator checks that an Iterator, which also reads what Validate would
// refuse, neither panics nor returns more records than the batch may have, nor
// offsets that do not rise; and that Split and CheckCRC do not panic.
func FuzzIterator(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var it Iterator
		for len(b) > 0 {
			first, rest, err := Split(b)
			if err != nil {
				return
			}
			if len(first)+len(rest) != len(b) {
				t.Fatalf("Split of %d bytes gives %d and %d", len(b), len(first), len(rest))
			}
			b = rest
			_ = CheckCRC(first)
			if it.Reset(first, fuzzMaxBytes) != nil {
				continue
			}
			h := it.Header()
			n, last := int32(0), int64(-1)
			for r, ok := it.Next(); ok; r, ok = it.Next() {
				if delta := r.Offset - h.BaseOffset; delta <= last || delta > int64(h.LastOffsetDelta) {
					t.Fatalf("offset delta %d after %d, at most %d", delta, last, h.LastOffsetDelta)
				} else {
					last = delta
				}
				headers := 0
				for range r.Headers.All() {
					headers++
				}
				if headers != r.Headers.Len() {
					t.Fatalf("%d headers of %d", headers, r.Headers.Len())
				}
				n++
			}
			if n > h.Records || it.Err() == nil && n != h.Records {
				t.Fatalf("%d records of %d, and %v", n, h.Records, it.Err())
			}
		}
	})
}

// FuzzDecompress checks that no codec panics, or gives more than its limit,
// and that what it read can be written and read again.
func FuzzDecompress(f *testing.F) {
	for _, b := range goldens(f) {
		if len(b) > HeaderBytes {
			f.Add(b[HeaderBytes:])
		}
	}
	for codec := Gzip; codec <= Zstd; codec++ {
		b, err := compress(nil, pattern(3000), codec, DefaultLevel)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	long := []byte("\x28\xb5\x2f\xfd\x00\x38") // a window of 128 KiB, and more than is decoded in one piece
	for range wholeBytes/zstdBlockBytes + 1 {
		long = append(long, 0x02, 0x00, 0x10, 'x') // 128 KiB of one byte
	}
	f.Add(append(long, 0x01, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for codec := Gzip; codec <= Zstd; codec++ {
			roundTrip(t, b, codec)
		}
	})
}

// FuzzSnappy does the same behind Snappy's framing, which random bytes seldom
// begin with, and for a bare block.
func FuzzSnappy(f *testing.F) {
	f.Add(compressSnappy(nil, make([]byte, snappyBlockBytes+9))[snappyHeaderBytes:])
	f.Add(append([]byte("\x00\x00\x00\x03\x01\x00a"), snappyHeader...))
	f.Add([]byte("\xff\xff\xff\xff\x0f\x00a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip(t, append(bytes.Clone(snappyHeader), b...), Snappy)
		roundTrip(t, b, Snappy)
	})
}

// inPieces is decompress by an unfolder.
func inPieces(b []byte, codec Codec) (out []byte, err error) {
	var u unfolder
	if err := u.open(b, codec, fuzzMaxBytes, nil, 0); err != nil {
		return nil, err
	}
	defer u.close()
	for {
		piece, err := u.next()
		if err != nil {
			return out, atEnd(err)
		}
		out = append(out, piece...)
	}
}

func roundTrip(t *testing.T, b []byte, codec Codec) {
	t.Helper()
	out, err := decompress(nil, b, codec, fuzzMaxBytes)
	if pieces, pieceErr := inPieces(b, codec); (err == nil) != (pieceErr == nil) || err == nil && !bytes.Equal(pieces, out) {
		t.Fatalf("%s: %d bytes and %v at once, %d and %v in pieces", codec, len(out), err, len(pieces), pieceErr)
	}
	if err != nil {
		return
	}
	if len(out) > fuzzMaxBytes {
		t.Fatalf("%s: %d bytes, limit %d", codec, len(out), fuzzMaxBytes)
	}
	packed, err := compress(nil, out, codec, DefaultLevel)
	if err != nil {
		t.Fatalf("%s: compress: %v", codec, err)
	}
	back, err := decompress(nil, packed, codec, fuzzMaxBytes)
	if err != nil || !bytes.Equal(out, back) {
		t.Fatalf("%s: %d bytes came back as %d, and %v", codec, len(out), len(back), err)
	}
}
