package replication

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// transferTick is how often a transfer looks whether everything has arrived.
const transferTick = 5 * time.Millisecond

// Transfer hands the leadership over to the voter that is furthest, and returns
// when this replica leads no more. While it is under way, at most until ctx ends
// and an election timeout more, what is proposed waits; it goes on if the
// transfer fails, and is answered with ErrNotLeader if it succeeds.
//
// It returns ErrNotLeader if this replica does not lead, or if there is nobody
// to hand over to.
func (r *Replica[R]) Transfer(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}: // nothing is handed to Raft: it would drop it
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopCtx.Done():
		return ErrStopped
	}
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	to, err := r.awaitHeir(ctx, term)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	r.mu.Lock()
	stopped := r.stopCtx.Err() != nil
	if !stopped {
		r.group.Go(func() {
			done <- r.raft.LeadershipTransferToServer(raft.ServerID(to.String()), raft.ServerAddress(to.String())).Error()
		})
	}
	r.mu.Unlock()
	if stopped {
		return ErrStopped
	}
	select {
	case err = <-done:
	case <-r.stopCtx.Done():
		return ErrStopped
	}
	if err != nil {
		return fmt.Errorf("replication: shard %d: transfer to %s: %w", r.opt.Shard, to, err)
	}
	// Raft has stepped down, and says so to watch, too: what waits for its turn
	// must not overtake that, or it would be handed to a follower.
	r.loseTerm(term)
	return nil
}

// awaitHeir waits until everything that was proposed is applied, and a voter has
// all of the log.
func (r *Replica[R]) awaitHeir(ctx context.Context, term uint64) (ReplicaID, error) {
	tick := time.NewTicker(transferTick)
	defer tick.Stop()
	for {
		r.mu.Lock()
		idle, leads := len(r.inflight) == 0, r.term == term
		r.mu.Unlock()
		to, match, ok := r.peers.nextLeader()
		switch {
		case !leads || !ok:
			return to, ErrNotLeader
		case idle && match >= r.raft.LastIndex():
			return to, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return to, ctx.Err()
		case <-r.stopCtx.Done():
			return to, ErrStopped
		}
	}
}
