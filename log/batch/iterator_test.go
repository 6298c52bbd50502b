package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func TestIteratorErrors(t *testing.T) {
	t.Parallel()
	be := binary.BigEndian
	ok := build(t, 3, None)
	lastDelta := func(n int32) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint32(b[deltaAt:], uint32(n)); return b }
	}
	count := func(n int32) func([]byte) []byte {
		return func(b []byte) []byte { be.PutUint32(b[countAt:], uint32(n)); return b }
	}
	first := handmade{keyLength: -1, valueLength: -1}
	tests := []struct {
		name string
		in   []byte
		read int // records before the error
		want error
	}{
		{"intact", ok, 3, nil},
		{"cut off", ok[:len(ok)-1], 0, ErrShort},
		{"bytes behind", append(bytes.Clone(ok), 0), 0, ErrCorrupt},
		{"another format", edit(ok, func(b []byte) []byte { b[16] = 1; return b }), 0, ErrMagic},
		{"unknown codec", edit(ok, func(b []byte) []byte { b[attrsAt+1] = 6; return b }), 0, ErrCodec},
		{"count too great", edit(ok, count(4)), 3, ErrInvalid},
		{"count beyond reason", edit(ok, count(1<<30)), 0, ErrInvalid},
		{"count negative", edit(ok, count(-1)), 0, ErrInvalid},
		{"count too small", edit(ok, count(2)), 2, ErrInvalid},
		{"count zero", edit(ok, count(0)), 0, ErrInvalid},
		{"gap at the end", edit(ok, lastDelta(9)), 3, nil},
		{"beyond the last", edit(ok, lastDelta(1)), 2, ErrInvalid},
		{"offset repeated", batchOf(t, 2, first.appendTo(first.appendTo(nil)), None), 1, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var it Iterator
			rerr := it.Reset(tt.in, 0)
			read := 0
			for _, ok := it.Next(); ok; _, ok = it.Next() {
				read++
			}
			if !errors.Is(it.Err(), tt.want) || read != tt.read {
				t.Errorf("%d records and %v, want %d and %v", read, it.Err(), tt.read, tt.want)
			}
			if rerr != nil && !errors.Is(it.Err(), rerr) {
				t.Errorf("Reset = %v, Err = %v", rerr, it.Err())
			}
			if _, ok := it.Next(); ok {
				t.Error("Next after the end returned a record")
			}
		})
	}
}

// TestIteratorReuse walks batches of every codec with one Iterator: what an
// earlier batch left behind must not show.
func TestIteratorReuse(t *testing.T) {
	t.Parallel()
	var it Iterator
	for round := range 3 {
		for codec := range Codec(len(codecNames)) {
			n := 1 + (7*round+5*int(codec))%20
			if err := it.Reset(build(t, n, codec), 0); err != nil {
				t.Fatalf("%s: Reset: %v", codec, err)
			}
			got := 0
			for r, ok := it.Next(); ok; r, ok = it.Next() {
				if r.Offset != int64(got) || string(r.Value) != "some value" || r.Headers.Len() != 1 {
					t.Fatalf("%s: record %d is %+v", codec, got, r)
				}
				for h := range r.Headers.All() {
					if string(h.Key) != "h" || !bytes.Equal(h.Value, []byte{byte(got)}) {
						t.Fatalf("%s: record %d has header %q", codec, got, h)
					}
				}
				got++
			}
			if it.Err() != nil || got != n {
				t.Fatalf("%s: %d records and %v, want %d", codec, got, it.Err(), n)
			}
			if err := it.Reset(nil, 0); !errors.Is(err, ErrShort) {
				t.Fatalf("Reset of nothing = %v, want ErrShort", err)
			}
		}
	}
}

// TestAliases wants the bytes of a record cut to their capacity: an append to
// a key must not reach the value behind it.
func TestAliases(t *testing.T) {
	t.Parallel()
	b := build(t, 2, None)
	before := bytes.Clone(b)
	var it Iterator
	if err := it.Reset(b, 0); err != nil {
		t.Fatal(err)
	}
	for r, ok := it.Next(); ok; r, ok = it.Next() {
		_ = append(r.Key, "overrun"...)
		_ = append(r.Value, "overrun"...)
		for h := range r.Headers.All() {
			_ = append(h.Key, "overrun"...)
		}
	}
	if !bytes.Equal(b, before) {
		t.Error("an append to a record's bytes changed the batch")
	}
}

// TestAllocs holds the steady state of the hot paths to no allocation, per
// record and per batch. It runs alone: others would fill and drain the pools.
func TestAllocs(t *testing.T) {
	for codec := range Codec(len(codecNames)) {
		b := build(t, 1000, codec)
		var it Iterator
		walk := func() {
			if err := it.Reset(b, 0); err != nil {
				t.Fatal(err)
			}
			n := 0
			for r, ok := it.Next(); ok; r, ok = it.Next() {
				for h := range r.Headers.All() {
					n += len(h.Key)
				}
			}
			if n != 1000 || it.Err() != nil {
				t.Fatalf("%d headers and %v", n, it.Err())
			}
		}
		if got := testing.AllocsPerRun(20, walk); got > allocsPerBatch(codec) {
			t.Errorf("%s: %v allocations for a walk over 1000 records", codec, got)
		}
		validate := func() {
			if _, err := Validate(b, Limits{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := testing.AllocsPerRun(20, validate); got > allocsPerBatch(codec) {
			t.Errorf("%s: %v allocations to validate 1000 records", codec, got)
		}
	}
}

// allocsPerBatch leaves room for what a collection in between takes from the
// pools: nothing on average. The race detector empties pools at random.
func allocsPerBatch(c Codec) float64 {
	if raceEnabled && c != None {
		return 100
	}
	return 0
}
