package consumergroup

import (
	"cmp"
	"container/heap"
	"time"
)

// timer calls fire once its time has come. It is moved on by every heartbeat, so
// that must cost nothing: the heap is told only of a time that is earlier, and a
// later one is looked at when the earlier would have come.
type timer struct {
	fire func()
	due  time.Time // when to fire
	at   time.Time // Invariant: in the heap, at <= due
	seq  uint64    // of those with the same time, the one that was set first fires first
	pos  int       // in the heap; -1: not set
}

func newTimer(fire func()) *timer { return &timer{fire: fire, pos: -1} }

// timers is a heap by at.
type timers struct {
	heap []*timer
	seq  uint64
}

// set has t fire at due, and not when it was to before.
func (ts *timers) set(t *timer, due time.Time) {
	t.due = due
	switch {
	case t.pos < 0:
		ts.seq++
		t.at, t.seq = due, ts.seq
		heap.Push(ts, t)
	case due.Before(t.at):
		t.at = due
		heap.Fix(ts, t.pos)
	}
}

// stop takes t out.
func (ts *timers) stop(t *timer) {
	if t.pos >= 0 {
		heap.Remove(ts, t.pos)
	}
}

// next returns a time at or before which nothing fires, and whether anything will.
func (ts *timers) next() (time.Time, bool) {
	if len(ts.heap) == 0 {
		return time.Time{}, false
	}
	return ts.heap[0].at, true
}

// pop takes out and returns a timer that is due, or nil.
func (ts *timers) pop(now time.Time) *timer {
	for len(ts.heap) > 0 && !ts.heap[0].at.After(now) {
		t := ts.heap[0]
		if !t.due.After(now) {
			heap.Pop(ts)
			return t
		}
		t.at = t.due
		heap.Fix(ts, 0)
	}
	return nil
}

// Len, Less, Swap, Push and Pop are heap.Interface.
func (ts *timers) Len() int { return len(ts.heap) }

// Less orders by time.
func (ts *timers) Less(i, j int) bool {
	a, b := ts.heap[i], ts.heap[j]
	return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.seq, b.seq)) < 0
}

// Swap exchanges two.
func (ts *timers) Swap(i, j int) {
	ts.heap[i], ts.heap[j] = ts.heap[j], ts.heap[i]
	ts.heap[i].pos, ts.heap[j].pos = i, j
}

// Push appends a *timer.
func (ts *timers) Push(x any) {
	t := x.(*timer)
	t.pos = len(ts.heap)
	ts.heap = append(ts.heap, t)
}

// Pop takes the last out.
func (ts *timers) Pop() any {
	last := len(ts.heap) - 1
	t := ts.heap[last]
	t.pos, ts.heap[last] = -1, nil
	ts.heap = ts.heap[:last]
	return t
}
