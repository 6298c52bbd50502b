package control

import (
	"bytes"
	"errors"
	"testing"
)

func acceptAll(frame) error { return nil }

// records1 returns the bytes of a segment that begins at record 1, and where
// each record ends. durable[i] is what record i+1 says.
func records1(payloadBytes int, durable ...uint64) (data []byte, ends []int) {
	for i, d := range durable {
		f := frame{index: uint64(i + 1), durable: d, kind: kindEntry, payload: bytes.Repeat([]byte{0xa5}, payloadBytes)}
		data = appendRecord(data, appendFrame(nil, f))
		ends = append(ends, len(data))
	}
	return data, ends
}

// lose zeroes the sectors that overlap [lo, hi) as a power cut may, but for
// what lies below keep, which was synced.
func lose(data []byte, keep, lo, hi int) {
	lo = max(keep, lo-lo%sectorBytes)
	hi = min(len(data), hi+sectorBytes-hi%sectorBytes)
	clear(data[lo:hi])
}

func TestScan(t *testing.T) {
	t.Parallel()
	one := []uint64{1, 2, 3, 4}   // each record synced before the next was written
	batch := []uint64{1, 2, 2, 2} // records 2, 3 and 4 written together
	tests := []struct {
		name    string
		durable []uint64
		hurt    func(data []byte, ends []int) []byte
		sealed  bool // not the last segment
		want    error
		records int
	}{
		{name: "intact", durable: one, records: 4},
		{name: "cut in the last", durable: one, records: 3,
			hurt: func(d []byte, ends []int) []byte { return d[:ends[3]-5] }},
		{name: "cut in the last, sealed", durable: one, sealed: true, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { return d[:ends[3]-5] }},
		{name: "last lost", durable: one, records: 3,
			hurt: func(d []byte, ends []int) []byte { lose(d, ends[2], ends[2], ends[3]); return d }},
		{name: "zeros behind", durable: one, records: 4,
			hurt: func(d []byte, ends []int) []byte { return append(d, make([]byte, 64)...) }},
		{name: "first sector of an unsynced batch lost", durable: batch, records: 1,
			hurt: func(d []byte, ends []int) []byte { lose(d, ends[0], ends[0], ends[0]+1); return d }},
		{name: "middle of an unsynced batch lost", durable: batch, records: 2,
			hurt: func(d []byte, ends []int) []byte { lose(d, ends[0], ends[1]+300, ends[1]+301); return d }},
		{name: "synced record lost", durable: one, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { lose(d, ends[0], ends[0]+300, ends[0]+301); return d }},
		{name: "flip in a synced record", durable: one, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { d[ends[1]+40] ^= 1; return d }},
		{name: "flip in an unsynced batch", durable: batch, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { d[ends[1]+40] ^= 1; return d }},
		{name: "flip in the last", durable: one, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { d[ends[2]+40] ^= 1; return d }},
		{name: "overlong size", durable: one, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { return append(d, bytes.Repeat([]byte{0xff}, 64)...) }},
		{name: "record twice", durable: one, want: ErrCorrupt,
			hurt: func(d []byte, ends []int) []byte { return append(d, d[ends[2]:]...) }},
		{name: "newer version", durable: one, want: ErrVersion,
			hurt: func(d []byte, ends []int) []byte {
				fr := appendFrame(nil, frame{index: 5, durable: 5, kind: kindEntry})
				fr[26]++
				reseal(fr)
				return appendRecord(d, fr)
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data, ends := records1(700, tt.durable...)
			if tt.hurt != nil {
				data = tt.hurt(data, ends)
			}
			s := segment{first: 1, data: data}
			err := s.scan("f", !tt.sealed, acceptAll)
			if !errors.Is(err, tt.want) {
				t.Fatalf("scan = %v, want %v", err, tt.want)
			}
			if err == nil && len(s.ends) != tt.records {
				t.Errorf("%d records, want %d", len(s.ends), tt.records)
			}
		})
	}
}

// FuzzScan checks, for any bytes, that the tail repair does not panic, that
// what it keeps is intact by itself, and that it drops nothing from an intact
// log which is followed by those bytes or cut among its own.
func FuzzScan(f *testing.F) {
	good, _ := records1(20, 1, 2, 2)
	f.Add([]byte(nil), uint16(0))
	f.Add(good, uint16(60))
	f.Add(make([]byte, 64), uint16(1000))
	f.Add(append(bytes.Clone(good), 0xff, 0xff), uint16(5))

	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		s := segment{first: 1, data: in}
		if s.scan("f", true, acceptAll) == nil {
			again := segment{first: 1, data: in[:s.intact]}
			if err := again.scan("f", false, acceptAll); err != nil || len(again.ends) != len(s.ends) {
				t.Fatalf("what was kept of %x: %d records of %d, %v", in, len(again.ends), len(s.ends), err)
			}
		}
		data, ends := records1(20, 1, 2, 2)
		s = segment{first: 1, data: append(bytes.Clone(data), in...)}
		if err := s.scan("f", true, acceptAll); err == nil && len(s.ends) < len(ends) {
			t.Fatalf("%x behind a log of %d records left %d", in, len(ends), len(s.ends))
		}
		s = segment{first: 1, data: data[:int(cut)%len(data)]}
		if err := s.scan("f", true, acceptAll); err != nil {
			t.Fatalf("cut at %d: %v", len(s.data), err)
		}
	})
}
