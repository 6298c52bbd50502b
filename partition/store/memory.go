package store

import (
	"context"
	"sync/atomic"
)

// batchOverheadBytes is what a batch in a tail costs beside its bytes.
const batchOverheadBytes = 64

// Pin counts a buffer that several batches share, a Raft entry, once: its
// bytes are used until the entry's owner and every batch of it have let go.
type Pin struct {
	st    *Store
	bytes int64
	refs  atomic.Int64
}

// Pin counts a buffer of that many bytes as used, and returns the owner's hold
// on it. The owner gives it to Append with each batch of the buffer, and calls
// Release once when all are appended.
func (st *Store) Pin(bytes int) *Pin {
	p := &Pin{st: st, bytes: int64(bytes)}
	p.refs.Store(1)
	st.use(p.bytes)
	return p
}

// Release lets go of the buffer. Safe for concurrent use.
func (p *Pin) Release() {
	switch n := p.refs.Add(-1); {
	case n == 0:
		p.st.use(-p.bytes)
	case n < 0:
		panic("store: pin released twice")
	}
}

// MemoryUsed returns the bytes of the entry buffers that tails pin, whole even
// if one small batch of them is left, and a constant for every batch. Chunks
// are not in it: the reader's budget bounds what it holds.
func (st *Store) MemoryUsed() int64 { return st.memory.Load() }

// admission is a waiting Admit.
type admission struct {
	bytes int64
	done  chan error // 1-buffered
}

// Admit waits until n more bytes fit into the memory budget, or nothing is
// used, or ctx ends. Proposers call it before they propose; those that wait are
// admitted in order. It reserves nothing: bytes are counted from Append on, so
// what is proposed but not yet applied comes on top, and is bounded where it is
// proposed.
//
// It returns ctx's error, ErrClosed, or an error matching ErrFailed.
func (st *Store) Admit(ctx context.Context, n int64) error {
	st.mu.Lock()
	switch {
	case st.failed != nil || st.closed:
		st.mu.Unlock()
		return st.usable()
	case len(st.admitting) == 0 && st.fits(n):
		st.mu.Unlock()
		return nil
	}
	a := &admission{bytes: n, done: make(chan error, 1)}
	st.admitting = append(st.admitting, a)
	ready := st.admitLocked() // room may have come since fits
	st.mu.Unlock()
	answer(ready)
	st.signal()
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		st.mu.Lock()
		for i, other := range st.admitting {
			if other == a {
				st.admitting = append(st.admitting[:i:i], st.admitting[i+1:]...)
				break
			}
		}
		ready := st.admitLocked() // a held up those behind it
		st.mu.Unlock()
		answer(ready)
		return ctx.Err()
	}
}

// TryAdmit is Admit for who does not wait: it reports whether the bytes fit now.
func (st *Store) TryAdmit(n int64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.failed == nil && !st.closed && len(st.admitting) == 0 && st.fits(n)
}

func (st *Store) fits(n int64) bool {
	used := st.memory.Load()
	return used <= 0 || used+n <= st.opt.MemoryBytes
}

// use accounts for n bytes more or, if negative, less.
func (st *Store) use(n int64) {
	used := st.memory.Add(n)
	if n > 0 {
		if used > st.flushMark() {
			st.signal()
		}
		return
	}
	st.mu.Lock()
	ready := st.admitLocked()
	st.mu.Unlock()
	answer(ready)
}

// flushMark is the used memory above which the flusher hurries: before the
// budget is spent and proposers wait.
func (st *Store) flushMark() int64 { return st.opt.MemoryBytes / 4 * 3 }

// admitLocked takes those off the queue who may pass.
func (st *Store) admitLocked() (ready []*admission) {
	promised := int64(0)
	for len(st.admitting) > 0 && st.fits(promised+st.admitting[0].bytes) {
		promised += st.admitting[0].bytes
		ready = append(ready, st.admitting[0])
		st.admitting = st.admitting[1:]
	}
	return ready
}

func answer(ready []*admission) {
	for _, a := range ready {
		a.done <- nil
	}
}
