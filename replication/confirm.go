package replication

import (
	"context"
	"errors"
	"sync"
)

// ErrNotConfirmed reports that a majority of the voters did not say in time that
// this replica leads. Nothing was read; a retry, here or elsewhere, is safe.
var ErrNotConfirmed = errors.New("replication: leadership could not be confirmed")

// confirmer asks the voters whether the leader's term is still theirs, once for
// all who want to know (R19).
type confirmer struct {
	mu      sync.Mutex
	waiting []chan error // 1-buffered, of those that came since the last round began
	running bool
}

// Confirm returns nil if this replica leads the shard, in term, at a moment
// after the call: a majority of the voters has said so, asked after the call.
// What was applied here by then is all that was acknowledged before the call.
// Else it returns ErrNotLeader, ErrNotConfirmed, ErrStopped or ctx's error.
//
// The only voter need not ask.
func (r *Replica[R]) Confirm(ctx context.Context) (term uint64, err error) {
	term = r.ready.Load()
	if term == 0 {
		return 0, ErrNotLeader
	}
	if others, voter := votersOf(r.latest(), r.opt.ID); voter && len(others) == 0 {
		return term, nil
	}
	done := make(chan error, 1)
	c := &r.confirmer
	r.mu.Lock() // Close waits for the rounds that are under way
	if r.stopCtx.Err() != nil {
		r.mu.Unlock()
		return 0, ErrStopped
	}
	c.mu.Lock()
	c.waiting = append(c.waiting, done)
	if !c.running {
		c.running = true
		r.group.Go(r.confirmAll)
	}
	c.mu.Unlock()
	r.mu.Unlock()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && r.ready.Load() != term {
		err = ErrNotLeader
	}
	return term, err
}

// confirmAll runs rounds until nobody waits.
func (r *Replica[R]) confirmAll() {
	c := &r.confirmer
	for {
		c.mu.Lock()
		round := c.waiting
		c.waiting = nil
		c.running = len(round) > 0
		c.mu.Unlock()
		if len(round) == 0 {
			return
		}
		err := r.confirmOnce()
		for _, done := range round {
			done <- err
		}
	}
}

// confirmOnce asks all voters at once, and returns when a majority has agreed or
// cannot any more.
func (r *Replica[R]) confirmOnce() error {
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	// Of the newest configuration, as Raft counts them: another leader is elected by
	// one of them at least.
	others, voter := votersOf(r.latest(), r.opt.ID)
	agreed := 0
	need := (len(others)+1)/2 + 1
	if !voter {
		need = len(others)/2 + 1
	} else if r.raft.CurrentTerm() == term {
		agreed++
	}
	type answer struct {
		term uint64
		err  error
	}
	answers := make(chan answer, len(others))
	ctx, cancel := context.WithCancel(r.stopCtx)
	defer cancel()
	for _, id := range others {
		r.group.Go(func() {
			t, err := r.opt.Transport.Probe(ctx, id)
			answers <- answer{t, err}
		})
	}
	for left := len(others); agreed < need; left-- {
		if agreed+left < need {
			return ErrNotConfirmed
		}
		a := <-answers
		switch {
		case a.err != nil:
		case a.term > term:
			return ErrNotLeader
		case a.term == term:
			agreed++
		}
	}
	return nil
}
