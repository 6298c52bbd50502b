package broker

import (
	"context"
	"sync"
)

// Budget bounds bytes in memory: requests on their way in, or answers on their
// way out. Who finds no room waits, in order of arrival.
type Budget struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	waiters []budgetWaiter // first come, first served
}

type budgetWaiter struct {
	n     int64
	ready chan struct{}
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Acquire takes n bytes, or waits for them until ctx ends. One taker may exceed
// the limit when nobody else holds anything, so that no request is too large
// ever to be served.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	return b.AcquireInLine(ctx, n, nil)
}

// AcquireInLine is Acquire. If it has to wait, it calls inLine, if that is not
// nil, once it is counted by Waiting.
func (b *Budget) AcquireInLine(ctx context.Context, n int64, inLine func()) error {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.fitsLocked(n) {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := budgetWaiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	if inLine != nil {
		inLine()
	}
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiters {
		if b.waiters[i].ready == w.ready {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.admitLocked() // it may have held back smaller ones
			return ctx.Err()
		}
	}
	return nil // admitted while ctx ended: the caller has it
}

// TryAcquire takes n bytes if that needs no waiting, and reports whether it did.
func (b *Budget) TryAcquire(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) > 0 || !b.fitsLocked(n) {
		return false
	}
	b.used += n
	return true
}

// Release gives n bytes back.
func (b *Budget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used -= n; b.used < 0 {
		panic("broker: budget released twice")
	}
	b.admitLocked()
}

// Limit returns the bytes that there are.
func (b *Budget) Limit() int64 { return b.limit }

// Waiting returns how many wait for room.
func (b *Budget) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters)
}

// Used returns the bytes that are taken.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func (b *Budget) fitsLocked(n int64) bool { return b.used == 0 || b.used+n <= b.limit }

func (b *Budget) admitLocked() {
	for len(b.waiters) > 0 && b.fitsLocked(b.waiters[0].n) {
		b.used += b.waiters[0].n
		close(b.waiters[0].ready)
		b.waiters = b.waiters[1:]
	}
}
