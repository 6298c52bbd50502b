package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
)

// reseal gives a changed frame a right checksum.
func reseal(b []byte) {
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

func TestDecodeFrame(t *testing.T) {
	t.Parallel()
	ok := appendFrame(nil, frame{index: 9, durable: 8, kind: kindEntry, payload: []byte("payload")})
	// change alters a copy of ok and gives it a right checksum again.
	change := func(alter func(b []byte)) []byte {
		b := bytes.Clone(ok)
		alter(b)
		reseal(b)
		return b
	}
	flip := func(i int) []byte {
		b := bytes.Clone(ok)
		b[i] ^= 0x10
		return b
	}
	tests := []struct {
		name string
		in   []byte
		want error // nil: decodes to the original
	}{
		{name: "intact", in: ok},
		{name: "empty", in: nil, want: errDamaged},
		{name: "header cut off", in: ok[:headerBytes-1], want: errDamaged},
		{name: "end cut off", in: ok[:len(ok)-1], want: errDamaged},
		{name: "zeros", in: make([]byte, 64), want: errDamaged},
		{name: "flipped checksum", in: flip(0), want: errDamaged},
		{name: "flipped index", in: flip(8), want: errDamaged},
		{name: "flipped payload", in: flip(headerBytes), want: errDamaged},
		{name: "flipped end", in: flip(len(ok) - 1), want: errDamaged},
		{name: "wrong length", in: change(func(b []byte) { b[4]++ }), want: errDamaged},
		{name: "reserved used", in: change(func(b []byte) { b[24] = 1 }), want: errDamaged},
		{name: "zero kind", in: change(func(b []byte) { b[27] = 0 }), want: errDamaged},
		{name: "no end mark", in: change(func(b []byte) { b[len(b)-1] = 0 }), want: errDamaged},
		{name: "durable before written", in: change(func(b []byte) { b[16] = 10 }), want: errDamaged},
		{name: "newer version", in: change(func(b []byte) { b[26]++ }), want: ErrVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := decodeFrame(tt.in)
			if !errors.Is(err, tt.want) {
				t.Fatalf("decodeFrame(%x) error = %v, want %v", tt.in, err, tt.want)
			}
			if err == nil && (f.index != 9 || f.durable != 8 || f.kind != kindEntry || string(f.payload) != "payload") {
				t.Errorf("decodeFrame = %+v", f)
			}
		})
	}
}

// FuzzDecodeFrame checks, for any bytes at all, that
//   - decodeFrame does not panic, nor what decodes the payload,
//   - what decodes re-encodes to the same bytes (the encoding is canonical),
//   - no frame survives a one-bit change.
func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(nil), uint16(0))
	f.Add(make([]byte, 64), uint16(7))
	f.Add(appendFrame(nil, frame{index: 1, kind: kindEntry, payload: encodeEntry(entry(1, 2, 30))}), uint16(3))
	f.Add(appendFrame(nil, frame{index: 1, kind: kindVote, payload: make([]byte, voteBytes+3)}), uint16(90))
	f.Add(appendFrame(nil, frame{index: 5, durable: 5, kind: kindDelete, payload: make([]byte, 4)}), uint16(2000))

	f.Fuzz(func(t *testing.T, in []byte, bit uint16) {
		fr, err := decodeFrame(in)
		if err != nil {
			return
		}
		if got := appendFrame(nil, fr); !bytes.Equal(got, in) {
			t.Fatalf("re-encoded %x, want %x", got, in)
		}
		if e, err := decodeEntry(fr); err == nil && !bytes.Equal(encodeEntry(e), fr.payload) {
			t.Fatalf("entry re-encoded %x, want %x", encodeEntry(e), fr.payload)
		}
		if c, err := decodeChange(fr); err == nil {
			if it := encodeChange(c); it.kind != fr.kind || !bytes.Equal(it.payload, fr.payload) {
				t.Fatalf("change re-encoded %x, want %x", it.payload, fr.payload)
			}
		}
		hurt := bytes.Clone(in)
		i := int(bit) % (8 * len(hurt))
		hurt[i/8] ^= 1 << (i % 8)
		if _, err := decodeFrame(hurt); err == nil {
			t.Fatalf("bit %d of %x flipped, yet it decodes", i, in)
		}
	})
}

// BenchmarkAppendFrame reuses its destination, so allocs/op must stay 0.
func BenchmarkAppendFrame(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("payload=%dB", size), func(b *testing.B) {
			f := frame{index: 7, durable: 7, kind: kindEntry, payload: bytes.Repeat([]byte{0xa5}, size)}
			dst := make([]byte, 0, frameBytes+size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				dst = appendFrame(dst[:0], f)
			}
		})
	}
}
