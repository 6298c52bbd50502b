package kafka

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// readsOf reads what it has in pieces of up to some bytes, and notes how it was asked.
type readsOf struct {
	rest  []byte
	most  int
	asked []int
}

func (r *readsOf) Read(b []byte) (int, error) {
	r.asked = append(r.asked, len(b))
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.rest[:min(r.most, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

// FuzzArrivals reads a stream in pieces, whatever the pieces that it comes in.
func FuzzArrivals(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(1, seed))
		stream := make([]byte, 64<<10)
		for i := range stream {
			stream[i] = byte(rnd.Uint32())
		}
		already, most := rnd.IntN(8), 1+rnd.IntN(3*readBufferBytes)
		var from io.Reader = &readsOf{rest: stream[already:], most: most}
		if rnd.IntN(2) == 0 {
			from = iotest.DataErrReader(from) // the end comes with the last bytes
		}
		a := newArrivals(from, stream[:already])
		var got []byte
		for {
			if rnd.IntN(3) == 0 {
				if err := a.wait(); err == nil && a.buffered() == 0 {
					t.Fatal("nothing to take after a wait")
				}
			}
			b := make([]byte, rnd.IntN(2*readBufferBytes))
			n, err := a.Read(b)
			got = append(got, b[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("%d bytes, want the %d of the stream: pieces of %d, %d already read", len(got), len(stream), most, already)
		}
	})
}

// TestArrivalsMemory: a connection with small requests has a small buffer for good, and
// one that fills it gets the larger one after two reads.
func TestArrivalsMemory(t *testing.T) {
	take := func(a *arrivals, n int) {
		t.Helper()
		if _, err := io.ReadFull(a, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	idle := newArrivals(&readsOf{rest: make([]byte, 64<<10), most: 100}, []byte("1234"))
	take(idle, 4)
	for range 100 {
		take(idle, 100)
	}
	if len(idle.buf) != idleBufferBytes {
		t.Errorf("a buffer of %d bytes after small requests, want %d", len(idle.buf), idleBufferBytes)
	}
	from := &readsOf{rest: make([]byte, 64<<10), most: 64 << 10}
	busy := newArrivals(from, nil)
	for range 3 * idleBufferBytes / 8 {
		take(busy, 8)
	}
	if len(busy.buf) != readBufferBytes || len(from.asked) != 3 {
		t.Errorf("a buffer of %d bytes after reads for %v, want one of %d in the third", len(busy.buf), from.asked, readBufferBytes)
	}
	take(busy, busy.buffered())
	take(busy, 8<<10)
	if got := from.asked[len(from.asked)-1]; got != 8<<10 {
		t.Errorf("a large request is read %d bytes at a time, want past the buffer", got)
	}
}

// endsOnce says once that it is at its end, with its bytes.
type endsOnce struct {
	bytes []byte
	reads int
}

func (e *endsOnce) Read(b []byte) (int, error) {
	if e.reads++; e.reads > 1 {
		return 0, nil
	}
	return copy(b, e.bytes), io.EOF
}

// TestArrivalsEnd: an end that comes with bytes is told after them, without another read.
func TestArrivalsEnd(t *testing.T) {
	from := &endsOnce{bytes: []byte("last")}
	a := newArrivals(from, nil)
	got := make([]byte, 4)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "last" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := a.wait(); !errors.Is(err, io.EOF) {
		t.Errorf("the end with the last bytes: %v after %d reads, want %v", err, from.reads, io.EOF)
	}
}

// TestArrivalsWithoutProgress: a connection whose reads bring nothing, and no error, is no loop.
func TestArrivalsWithoutProgress(t *testing.T) {
	from := &endsOnce{reads: 1}
	if err := newArrivals(from, nil).wait(); !errors.Is(err, io.ErrNoProgress) || from.reads > 2*maxEmptyReads {
		t.Errorf("%v after %d reads, want %v", err, from.reads, io.ErrNoProgress)
	}
}
