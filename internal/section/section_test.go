package section

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var sample = []Section{
	{Kind: 1, Version: 1, Mandatory: true, Payload: []byte("header")},
	{Kind: 7, Version: 3, Payload: []byte{}},
	{Kind: 2, Version: 1, Mandatory: true, Payload: bytes.Repeat([]byte{0xa5}, 300)},
}

func encode(t testing.TB, sections ...Section) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, s := range sections {
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// readAll returns the lists of b.
func readAll(b []byte) (lists [][]Section, err error) {
	r := NewReader(bytes.NewReader(b))
	for {
		more, err := r.More()
		if err != nil || !more {
			return lists, err
		}
		var list []Section
		for {
			s, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return lists, err
			}
			s.Payload = bytes.Clone(s.Payload)
			list = append(list, s)
		}
		lists = append(lists, list)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	b := append(encode(t, sample...), encode(t)...)
	b = append(b, encode(t, sample[2])...)
	got, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Section{sample, nil, sample[2:]}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("lists differ (-want +got):\n%s", d)
	}
}

// TestCut cuts a list at every byte: between sections too, no cut may pass for
// a whole list.
func TestCut(t *testing.T) {
	t.Parallel()
	b := encode(t, sample...)
	for cut := 1; cut < len(b); cut++ {
		if _, err := readAll(b[:cut]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: error = %v, want ErrDamaged", cut, len(b), err)
		}
	}
}

func TestFlip(t *testing.T) {
	t.Parallel()
	b := encode(t, sample...)
	for bit := range 8 * len(b) {
		hurt := bytes.Clone(b)
		hurt[bit/8] ^= 1 << (bit % 8)
		if _, err := readAll(hurt); !errors.Is(err, ErrDamaged) {
			t.Errorf("bit %d flipped: error = %v, want ErrDamaged", bit, err)
		}
	}
}

// TestForged gives sections a good CRC and a bad form.
func TestForged(t *testing.T) {
	t.Parallel()
	forge := func(change func(h []byte)) []byte {
		b := encode(t, sample[0])
		first := b[:HeaderBytes+len(sample[0].Payload)]
		change(first)
		binary.LittleEndian.PutUint32(first, crc32.Checksum(first[4:], castagnoli))
		return b
	}
	tests := []struct {
		name   string
		change func(h []byte)
	}{
		{"unknown flag", func(h []byte) { h[8] |= 2 }},
		{"reserved byte", func(h []byte) { h[10] = 1 }},
		{"kind 0", func(h []byte) { h[4] = 0 }},
		{"end with a long payload", func(h []byte) { h[4], h[5] = 0xff, 0xff }},
		{"length above the limit", func(h []byte) { binary.LittleEndian.PutUint32(h[12:], MaxPayloadBytes+1) }},
	}
	for _, tt := range tests {
		if _, err := readAll(forge(tt.change)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error = %v, want ErrDamaged", tt.name, err)
		}
	}

	// A list that lost a section as a whole.
	b := encode(t, sample...)
	b = b[HeaderBytes+len(sample[0].Payload):]
	if _, err := readAll(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("first section missing: error = %v, want ErrDamaged", err)
	}
}

// A header that lies about its length must not cost the memory that it claims.
func TestLyingLength(t *testing.T) {
	h := make([]byte, HeaderBytes)
	h[4] = 1
	binary.LittleEndian.PutUint32(h[12:], MaxPayloadBytes)
	r := NewReader(bytes.NewReader(h))
	if _, err := r.Next(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("error = %v, want ErrDamaged", err)
	}
	if got := r.buf.Cap(); got > 1<<20 {
		t.Errorf("buffer of %d bytes for an empty payload", got)
	}
}

type failAfter struct{ n int }

var errFull = errors.New("full")

func (w *failAfter) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	whole := len(encode(t, sample[0]))
	for n := range whole {
		w := NewWriter(&failAfter{n: n})
		err := w.Write(sample[0])
		if closeErr := w.Close(); err == nil {
			err = closeErr
		}
		if !errors.Is(err, errFull) || !errors.Is(w.Close(), errFull) {
			t.Fatalf("after %d bytes: error = %v, want it latched", n, err)
		}
	}
	large := Section{Kind: 1, Payload: make([]byte, MaxPayloadBytes+1)}
	if err := NewWriter(io.Discard).Write(large); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error = %v, want ErrTooLarge", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(encode(f, sample...))
	f.Add(encode(f))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := readAll(b)
		if err != nil {
			return
		}
		var again []byte
		for _, list := range lists {
			again = append(again, encode(t, list...)...)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("re-encoded %x, want %x", again, b)
		}
	})
}
