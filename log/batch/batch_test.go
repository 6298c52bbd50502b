package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// build makes a client's batch of n small records.
func build(t testing.TB, n int, codec Codec) []byte {
	t.Helper()
	var w Builder
	w.Reset()
	for i := range n {
		headers := []RecordHeader{{Key: []byte("h"), Value: []byte{byte(i)}}}
		if err := w.Append(1_700_000_000_000+int64(i), []byte("key"), []byte("some value"), headers); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	b, err := w.Build(nil, codec, DefaultLevel)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return b
}

// edit changes a copy of b, and gives it the length and checksum of a batch
// that was meant to be so.
func edit(b []byte, change func(b []byte) []byte) []byte {
	out := change(bytes.Clone(b))
	putLength(out)
	putCRC(out)
	return out
}

func TestParseHeader(t *testing.T) {
	t.Parallel()
	ok := build(t, 3, None)
	set := func(at int, v byte) []byte {
		b := bytes.Clone(ok)
		b[at] = v
		return b
	}
	length := func(n int32) []byte {
		b := bytes.Clone(ok)
		binary.BigEndian.PutUint32(b[8:], uint32(n))
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"whole", ok, nil},
		{"header alone", ok[:HeaderBytes], nil},
		{"header cut off", ok[:HeaderBytes-1], ErrShort},
		{"empty", nil, ErrShort},
		{"message set, format 1", set(16, 1), ErrMagic},
		{"newer format", set(16, 3), ErrMagic},
		{"zeros", make([]byte, 100), ErrMagic},
		{"length below a header", length(48), ErrCorrupt},
		{"negative length", length(-1), ErrCorrupt},
		{"greatest length", length(math.MaxInt32), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseHeader(tt.in); !errors.Is(err, tt.want) {
				t.Errorf("ParseHeader = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	a, b := build(t, 1, None), build(t, 2, Gzip)
	run := append(bytes.Clone(a), b...)
	for cut := range len(run) + 1 {
		var got [][]byte
		rest := run[:cut]
		var err error
		for {
			var first []byte
			if first, rest, err = Split(rest); err != nil {
				break
			}
			got = append(got, first)
		}
		if !errors.Is(err, ErrShort) {
			t.Fatalf("cut at %d: Split ends with %v, want ErrShort", cut, err)
		}
		var want [][]byte
		switch {
		case cut == len(run):
			want = [][]byte{a, b}
		case cut >= len(a):
			want = [][]byte{a}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
		}
	}
}

// TestCheckCRCFlips flips each bit of a batch: none may go unseen outside the
// prefix, and inside it only those of length may be seen at all.
func TestCheckCRCFlips(t *testing.T) {
	t.Parallel()
	ok := build(t, 3, None)
	if err := CheckCRC(ok); err != nil {
		t.Fatalf("CheckCRC of an intact batch: %v", err)
	}
	for bit := range 8 * len(ok) {
		b := bytes.Clone(ok)
		at := bit / 8
		b[at] ^= 1 << (bit % 8)
		err := CheckCRC(b)
		prefix := at < 8 || at >= 12 && at < PrefixBytes
		if prefix != (err == nil) {
			t.Errorf("bit %d of byte %d flipped: CheckCRC = %v", bit%8, at, err)
		}
	}
	if err := CheckCRC(append(bytes.Clone(ok), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("CheckCRC with a byte too many = %v, want ErrCorrupt", err)
	}
	for cut := range ok {
		if err := CheckCRC(ok[:cut]); !errors.Is(err, ErrShort) {
			t.Fatalf("CheckCRC of %d bytes = %v, want ErrShort", cut, err)
		}
	}
}

func TestPutPrefix(t *testing.T) {
	t.Parallel()
	b := build(t, 3, LZ4)
	h, err := ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	PutPrefix(b[:PrefixBytes], 1<<40, h.Length, 9)
	got, err := ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	h.BaseOffset, h.LeaderEpoch = 1<<40, 9
	if diff := cmp.Diff(h, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if err := CheckCRC(b); err != nil {
		t.Errorf("CheckCRC after PutPrefix: %v", err)
	}
	if rs := records(t, b); rs[2].Offset != 1<<40+2 {
		t.Errorf("last record at offset %d, want %d", rs[2].Offset, int64(1<<40+2))
	}
}

// TestSetters wants each setter to change its own fields, and the checksum.
func TestSetters(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		set  func(b []byte)
		want func(h *Header)
	}{
		{"producer", func(b []byte) { SetProducer(b, Producer{7, 2, 30}) },
			func(h *Header) { h.Producer = Producer{ID: 7, Epoch: 2, Sequence: 30} }},
		{"max timestamp", func(b []byte) { SetCreateTime(b, 55) },
			func(h *Header) { h.MaxTimestamp = 55 }},
		{"log append time", func(b []byte) { SetLogAppendTime(b, 56) },
			func(h *Header) { h.MaxTimestamp, h.Attributes = 56, h.Attributes|logAppendTimeBit }},
		{"create time after log append time", func(b []byte) { SetLogAppendTime(b, 56); SetCreateTime(b, 57) },
			func(h *Header) { h.MaxTimestamp = 57 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := build(t, 3, Snappy)
			want, err := ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			tt.set(b)
			if err := CheckCRC(b); err != nil {
				t.Errorf("CheckCRC: %v", err)
			}
			got, err := ParseHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			want.CRC = got.CRC
			tt.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLastSequenceWraps(t *testing.T) {
	t.Parallel()
	tests := []struct{ base, delta, want int32 }{
		{0, 0, 0},
		{5, 9, 14},
		{math.MaxInt32, 0, math.MaxInt32},
		{math.MaxInt32, 1, 0},
		{math.MaxInt32 - 3, 10, 6},
		{math.MaxInt32, math.MaxInt32, math.MaxInt32 - 1},
	}
	for _, tt := range tests {
		h := Header{Producer: Producer{Sequence: tt.base}, LastOffsetDelta: tt.delta}
		if got := h.LastSequence(); got != tt.want {
			t.Errorf("LastSequence from %d, %d further = %d, want %d", tt.base, tt.delta, got, tt.want)
		}
	}
}

func TestBuilderErrors(t *testing.T) {
	t.Parallel()
	var w Builder
	w.Reset()
	if _, err := w.Build(nil, None, 0); !errors.Is(err, ErrEmpty) {
		t.Errorf("Build without records = %v, want ErrEmpty", err)
	}
	if err := w.Append(-2, nil, nil, nil); !errors.Is(err, ErrTimestamp) || w.Len() != 0 {
		t.Errorf("Append at -2 = %v with %d records, want ErrTimestamp with none", err, w.Len())
	}
	if err := w.Append(-1, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	for codec, level := range map[Codec]int{Gzip: 10, LZ4: 18, Zstd: 23} {
		for _, level := range []int{level, math.MinInt32} {
			if b, err := w.Build([]byte("x"), codec, level); !errors.Is(err, ErrLevel) || string(b) != "x" {
				t.Errorf("Build with %s level %d = %q, %v, want ErrLevel", codec, level, b, err)
			}
		}
	}
	if _, err := w.Build(nil, 5, 0); !errors.Is(err, ErrCodec) {
		t.Errorf("Build with codec 5 = %v, want ErrCodec", err)
	}
}

func TestRecompress(t *testing.T) {
	t.Parallel()
	for from := range Codec(len(codecNames)) {
		in := build(t, 100, from)
		SetProducer(in, Producer{9, 1, 4})
		want := records(t, in)
		for to := range Codec(len(codecNames)) {
			out, err := Recompress([]byte("x"), in, to, DefaultLevel, Limits{})
			if err != nil {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			s, err := Validate(out[1:], Limits{})
			if err != nil {
				t.Fatalf("%s to %s: Validate: %v", from, to, err)
			}
			if s.Attributes.Codec() != to || s.Producer != (Producer{9, 1, 4}) {
				t.Errorf("%s to %s: header %+v", from, to, s.Header)
			}
			if diff := cmp.Diff(want, records(t, out[1:])); diff != "" {
				t.Errorf("%s to %s (-want +got):\n%s", from, to, diff)
			}
		}
		if _, err := Recompress(nil, in, Zstd, DefaultLevel, Limits{MaxDecompressedBytes: 100}); from != None && !errors.Is(err, ErrTooLarge) {
			t.Errorf("Recompress from %s with a limit of 100 bytes = %v, want ErrTooLarge", from, err)
		}
	}
}

func TestParseCodec(t *testing.T) {
	t.Parallel()
	for c := range Codec(len(codecNames)) {
		if got, err := ParseCodec(c.String()); got != c || err != nil {
			t.Errorf("ParseCodec(%q) = %v, %v", c, got, err)
		}
	}
	if _, err := ParseCodec("producer"); !errors.Is(err, ErrCodec) {
		t.Errorf(`ParseCodec("producer") = %v, want ErrCodec`, err)
	}
	if got := Codec(6).String(); got != "codec(6)" {
		t.Errorf("String of 6 = %q", got)
	}
}
