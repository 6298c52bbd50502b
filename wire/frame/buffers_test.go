package frame

import (
	"bytes"
	"testing"

	"github.com/flotilla-log/flotilla/wire/pb"
)

func TestBufferClasses(t *testing.T) {
	t.Parallel()
	const least, most = 1 << minPooledBits, 1 << maxPooledBits
	for _, n := range []int{0, 1, least, most + 1} {
		if c := classOf(n); c >= 0 {
			t.Errorf("%d bytes are in class %d", n, c)
		}
		if got := payloadCapacity(n); got != n {
			t.Errorf("a buffer of %d bytes for %d", got, n)
		}
	}
	last := -1
	for n := least + 1; n <= most; n += 1 + n/1000 {
		c := classOf(n)
		if c < last || c > last+1 || c >= len(Buffers{}.classes) {
			t.Fatalf("%d bytes are in class %d, and less in %d", n, c, last)
		}
		last = c
		size := classBytes(c)
		if size < n || size-n > n/classSteps || classOf(size) != c {
			t.Fatalf("%d bytes take a buffer of %d (class %d, its own %d)", n, size, c, classOf(size))
		}
	}
	if classOf(most) != len(Buffers{}.classes)-1 || classBytes(classOf(most)) != most {
		t.Errorf("the largest class holds %d", classBytes(len(Buffers{}.classes)-1))
	}
}

// TestBuffers reads a payload into a buffer that was lent before. Whether a pool
// still has what it was given is its own affair, so that is not asserted.
func TestBuffers(t *testing.T) {
	t.Parallel()
	const n = 700_000
	payload := bytes.Repeat([]byte{0xa5}, n)
	var b Buffers
	for range 3 {
		var stream bytes.Buffer
		lim := Limits{MaxFrameBytes: 1 << 20, MaxHeaderBytes: 1 << 10}
		w := NewWriter(&stream)
		w.SetLimits(lim)
		err := w.Queue(KindProduce, 0, 1, &pb.ProduceRequest{}, Part{Bytes: payload})
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(&stream)
		r.SetLimits(lim)
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		buf := b.Take(p.PayloadBytes)
		if buf != nil && (len(buf) != 0 || cap(buf) < n) {
			t.Fatalf("lent a buffer of length %d, capacity %d", len(buf), cap(buf))
		}
		got, err := r.Payload(buf)
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if cap(got) != payloadCapacity(n) {
			t.Errorf("a buffer of capacity %d, want %d: it cannot be lent again", cap(got), payloadCapacity(n))
		}
		if buf != nil && &buf[:1][0] != &got[0] {
			t.Error("the lent buffer was not used")
		}
		b.Give(got)
	}
	b.Give(make([]byte, 700_001)) // not of a class
	b.Give(nil)
	if buf := b.Take(700_001); buf != nil && cap(buf) != payloadCapacity(700_001) {
		t.Errorf("lent a buffer of capacity %d", cap(buf))
	}
	if b.Take(10) != nil {
		t.Error("lent a small buffer")
	}
}
