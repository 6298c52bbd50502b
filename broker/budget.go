package broker

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// yieldGrace is how long a holder that yields is left alone: who is asked to give
// way comes back at once, and would be asked again.
const yieldGrace = 100 * time.Millisecond

// Budget bounds bytes in memory: requests on their way in, or answers on their
// way out. Who finds no room waits, in order of arrival.
type Budget struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	wanted  int64          // by waiters, together
	waiters []budgetWaiter // first come, first served

	yields list.List   // of *Yield: those that were not asked yet, the oldest first
	asked  int64       // by those that were, and are not over
	timer  *time.Timer // of when the oldest may be asked; nil: there was none yet
}

// Yield is bytes of a Budget whose holder gives them back early if others wait for
// them.
type Yield struct {
	b     *Budget
	bytes int64
	hurry func()
	since time.Time
	place *list.Element // in Budget.yields; nil: it was asked, or is over
	asked bool
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
	b.mu.Lock()
	if len(b.waiters) == 0 && b.fitsLocked(n) {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := budgetWaiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.wanted += n
	hurry := b.askLocked()
	b.mu.Unlock()
	callAll(hurry)
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
			b.wanted -= n
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

// Yield says that n of the bytes that the caller holds can be had for the asking:
// hurry, which is called when others wait for more than will be free, makes it
// give them back soon. It is called once at most, from any goroutine, not sooner
// than 100 ms from now, and must wait for nothing; those who have held theirs for
// longest are asked first, and no more of them than it takes. The caller ends the
// Yield when it has given the bytes back.
func (b *Budget) Yield(n int64, hurry func()) *Yield {
	y := &Yield{b: b, bytes: n, hurry: hurry, since: time.Now()}
	b.mu.Lock()
	y.place = b.yields.PushBack(y)
	others := b.askLocked()
	b.mu.Unlock()
	callAll(others)
	return y
}

// End ends y, which may be nil, or over.
func (y *Yield) End() {
	if y == nil {
		return
	}
	y.b.mu.Lock()
	if y.place != nil {
		y.b.yields.Remove(y.place)
		y.place = nil
	}
	if y.asked {
		y.b.asked -= y.bytes
		y.asked = false
	}
	hurry := y.b.askLocked() // it may have given back less than was asked for
	y.b.mu.Unlock()
	callAll(hurry)
}

// askLocked returns what makes holders give way, if others wait for more than is
// free or asked for. If it is too early for that, it sees to it that they are asked
// later.
func (b *Budget) askLocked() (hurry []func()) {
	for len(b.waiters) > 0 && b.wanted > b.limit-b.used+b.asked && b.yields.Len() > 0 {
		y := b.yields.Front().Value.(*Yield)
		if early := yieldGrace - time.Since(y.since); early > 0 {
			if b.timer == nil {
				b.timer = time.AfterFunc(early, b.ask)
			} else {
				b.timer.Reset(early)
			}
			break
		}
		b.yields.Remove(y.place)
		y.place, y.asked = nil, true
		b.asked += y.bytes
		hurry = append(hurry, y.hurry)
	}
	return hurry
}

// ask asks those who could not be asked before.
func (b *Budget) ask() {
	b.mu.Lock()
	hurry := b.askLocked()
	b.mu.Unlock()
	callAll(hurry)
}

func callAll(all []func()) {
	for _, call := range all {
		call()
	}
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
		b.wanted -= b.waiters[0].n
		close(b.waiters[0].ready)
		b.waiters = b.waiters[1:]
	}
}
