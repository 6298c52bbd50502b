package frame

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/flotilla-log/flotilla/wire/pb"
)

func TestCapacity(t *testing.T) {
	t.Parallel()
	const least, most = 1 << minPooledBits, 1 << maxPooledBits
	for _, n := range []int{0, 1, least, most + 1} {
		if got := capacity(n); got != n {
			t.Errorf("a buffer of %d bytes for %d", got, n)
		}
	}
	last := 0
	for n := least + 1; n <= most; n += 1 + n/1000 {
		size := capacity(n)
		if size < n || size-n > n/sizeSteps || size < last || size > most || capacity(size) != size {
			t.Fatalf("%d bytes take a buffer of %d, whose own is %d, and less takes %d", n, size, capacity(size), last)
		}
		last = size
	}
	if last != most {
		t.Errorf("the largest buffer holds %d, want %d", last, most)
	}
}

// TestBuffers reads payloads of about a size into the buffer that was lent
// before.
func TestBuffers(t *testing.T) {
	t.Parallel()
	b := Buffers{watched: true} // the collector has no say
	var first []byte
	for _, n := range []int{700_000, 600_000, 400_000, 700_000} {
		payload := bytes.Repeat([]byte{0xa5}, n)
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
		got, err := r.Payload(b.Take(p.PayloadBytes))
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if first == nil {
			first = got
		}
		if &first[0] != &got[0] {
			t.Errorf("%d bytes were not read into the buffer that was free", n)
		}
		if b.Give(got); b.Take(10) != nil {
			t.Error("lent a small buffer")
		}
	}
}

// TestBuffersFit takes the free buffer that fits best, and none that wastes more
// than half of it.
func TestBuffersFit(t *testing.T) {
	t.Parallel()
	const kib = 1 << 10
	b := Buffers{watched: true} // the collector has no say
	for _, n := range []int{1024, 128, 512, 256} {
		b.Give(make([]byte, n*kib))
	}
	b.Give(make([]byte, 100*kib+1)) // of no size that one has
	b.Give(make([]byte, kib))
	b.Give(make([]byte, 32<<20))
	b.Give(nil)
	for _, tt := range []struct{ n, want int }{
		{1100 * kib, 0},      // larger than all
		{65 * kib, 128},      //
		{65 * kib, 0},        // 256 KiB would be more than twice
		{200 * kib, 256},     //
		{400 * kib, 512},     //
		{512*kib + 1, 1024},  //
		{512 * kib, 0},       // none is left
		{64 * kib, 0},        // too small to be kept
		{16<<20 + 1, 0},      // too large
		{1024 * kib * 10, 0}, //
	} {
		if got := cap(b.Take(tt.n)); got != tt.want*kib {
			t.Errorf("%d bytes: a buffer of %d, want %d", tt.n, got, tt.want*kib)
		}
	}
	if b.bytes != 0 || len(b.free) != 0 {
		t.Errorf("%d bytes are free in %d buffers, want none", b.bytes, len(b.free))
	}
}

// TestBuffersBound: what nobody uses is bounded, and the oldest of it goes.
func TestBuffersBound(t *testing.T) {
	t.Parallel()
	b := Buffers{watched: true}
	old := make([]byte, 0, 128<<10)
	b.Give(old)
	for range 2 * maxFreeBytes >> 20 {
		b.Give(make([]byte, 0, 1<<20))
	}
	if b.bytes != maxFreeBytes || len(b.free) != maxFreeBytes>>20 {
		t.Errorf("%d bytes are free in %d buffers, want %d in buffers of 1 MiB", b.bytes, len(b.free), maxFreeBytes)
	}
	if b.Take(128<<10) != nil {
		t.Error("the oldest is still there")
	}
	b.Give(make([]byte, 0, 16<<20))
	if b.bytes != maxFreeBytes || len(b.free) != 1+16 {
		t.Errorf("%d bytes are free in %d buffers, want one of 16 MiB and 16 of 1 MiB", b.bytes, len(b.free))
	}
}

// TestBuffersIdle: what nobody takes goes back to the garbage collector.
func TestBuffersIdle(t *testing.T) {
	t.Parallel()
	var b Buffers
	free := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.free)
	}
	b.Give(b.Take(1 << 20))
	b.Give(make([]byte, 0, 1<<20))
	b.cycle()
	if free() != 1 {
		t.Fatal("a buffer was let go of in a cycle in which one was asked for")
	}
	for free() > 0 { // by the watch over the collector
		runtime.GC()
		runtime.Gosched()
	}
	b.Give(make([]byte, 0, 1<<20))
	for free() > 0 { // and again
		runtime.GC()
		runtime.Gosched()
	}
}
