package frame

import (
	"math/bits"
	"runtime"
	"slices"
	"sync"
)

const (
	// Buffers from 64 KiB to 16 MiB are kept, made in sizes an eighth of a doubling
	// apart. Smaller ones cost little to make, and larger ones are rare.
	minPooledBits = 16
	maxPooledBits = 24
	sizeSteps     = 8

	// maxFreeBytes is how much memory that nobody uses is kept.
	maxFreeBytes = 32 << 20
)

// Buffers lends payload buffers, so that large ones are not made, cleared and
// mapped anew for each frame. It keeps at most 32 MiB that nobody uses, those
// given last, and lets go of them when a whole cycle of the garbage collector
// saw none taken. The zero value is ready; safe for concurrent use.
//
// A sync.Pool does not do: it forgets what two cycles have not seen, and a log
// server has several of those a second.
type Buffers struct {
	mu      sync.Mutex
	free    [][]byte // empty; those given last are the last
	bytes   int      // of free
	taken   bool     // one since the last cycle
	watched bool     // cycles are
}

// Take returns a buffer for Reader.Payload of n bytes: an empty one whose
// capacity is at least n, and at most twice that, or nil if none is free.
func (b *Buffers) Take(n int) []byte {
	if !pooled(n) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = true
	best := -1
	for i, buf := range b.free {
		if c := cap(buf); c >= n && c <= 2*n && (best < 0 || c <= cap(b.free[best])) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	buf := b.free[best]
	b.free = slices.Delete(b.free, best, best+1)
	b.bytes -= cap(buf)
	return buf
}

// Give lends buf to others: the caller must not use it any more, nor anything
// that aliases it. With the race detector its bytes are overwritten, so that who
// does so all the same reads garbage, or is reported. A buffer that no Reader
// made may be given, and is ignored if it is of a size that none has.
func (b *Buffers) Give(buf []byte) {
	poison(buf)
	if !pooled(cap(buf)) || capacity(cap(buf)) != cap(buf) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += cap(buf)
	b.free = append(b.free, buf[:0])
	drop := 0
	for ; b.bytes > maxFreeBytes; drop++ {
		b.bytes -= cap(b.free[drop])
	}
	b.free = slices.Delete(b.free, 0, drop)
	b.watch()
}

// watch sees to it that the next cycle of the garbage collector is noticed.
func (b *Buffers) watch() {
	if b.watched {
		return
	}
	b.watched = true
	runtime.AddCleanup(new([tickBytes]byte), (*Buffers).cycle, b)
}

// tickBytes is the size of an object that is garbage from the start: large enough
// to lie in no block with others, which might keep it.
const tickBytes = 64

// cycle lets go of everything that is free if none was taken since the last.
func (b *Buffers) cycle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watched = false
	if !b.taken {
		b.free, b.bytes = nil, 0
		return
	}
	b.taken = false
	b.watch()
}

// pooled reports whether buffers of n bytes are kept.
func pooled(n int) bool { return n > 1<<minPooledBits && n <= 1<<maxPooledBits }

// Grow returns a larger buffer for n bytes with what buf holds: four times as
// large, and of first bytes at the least, until it holds them all. So a sender
// pays with bytes for every byte allocated, and what holds all of them can be
// given to a Buffers.
func Grow(buf []byte, n, first int) []byte {
	return append(make([]byte, 0, min(capacity(n), max(first, 4*len(buf)))), buf...)
}

// capacity is that of a new buffer for n bytes: at most an eighth more, so that it
// can be lent again for others.
func capacity(n int) int {
	if !pooled(n) {
		return n
	}
	power := bits.Len(uint(n-1)) - 1 // 1<<power < n <= 2<<power
	step := 1 << power / sizeSteps
	return 1<<power + (n-1<<power+step-1)/step*step
}
