package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// transferTick is how often a transfer looks whether everything has arrived.
const transferTick = 5 * time.Millisecond

// transferPatience is how long a named heir may take for its last entries, while
// nothing else is handed to Raft.
const transferPatience = electionTimeout

var (
	// ErrNotVoter reports a leadership that was to go to a node which has no voter
	// of the shard. Nothing was done.
	ErrNotVoter = errors.New("replication: not a voter")

	// ErrHeirLags reports a leadership that was to go to a voter which does not
	// answer, or lacks too much of the log. The leader has stayed the leader.
	ErrHeirLags = errors.New("replication: the voter is not ready to lead")
)

// Transfer hands the leadership over to the voter that is furthest, and returns
// when this replica leads no more. While it is under way, at most until ctx ends
// and an election timeout more, what is proposed waits; it goes on if the
// transfer fails, and is answered with ErrNotLeader if it succeeds.
//
// It returns ErrNotLeader if this replica does not lead, or if there is nobody
// to hand over to.
func (r *Replica[R]) Transfer(ctx context.Context) error {
	return r.transfer(ctx, r.peers.nextLeader)
}

// TransferTo hands the leadership over to the voter on a node, as Transfer does,
// and returns nil at once if that is this replica. A voter that is to lead has to
// answer, and to lack at most lagEntries of the log; the last ones of them it is
// waited for, for an election timeout at most.
//
// It returns ErrNotLeader if this replica does not lead; ErrNotVoter or
// ErrHeirLags, wrapped with what is missing, if the node cannot take over: then
// nothing has changed. When it returns nil some voter has begun a new term, in
// all likelihood that one: who leads, Leader says once it is known.
func (r *Replica[R]) TransferTo(ctx context.Context, node int32, lagEntries uint64) error {
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	if node == r.opt.ID.Node {
		return nil
	}
	ready := func() error {
		id, match, behind, ok := r.peers.voterOn(node, term)
		last := r.store.log.last()
		switch {
		case !ok:
			return fmt.Errorf("%w: node %d has no voter of shard %d", ErrNotVoter, node, r.opt.Shard)
		case behind:
			return fmt.Errorf("%w: node %d has to catch up: the leader's log does not reach back to what it has", ErrHeirLags, node)
		case match+lagEntries < last:
			return fmt.Errorf("%w: node %d lacks %d entries of shard %d, at most %d are waited for",
				ErrHeirLags, node, last-match, r.opt.Shard, lagEntries)
		}
		probing, cancel := context.WithTimeout(ctx, transferPatience)
		defer cancel()
		if _, err := r.opt.Transport.Probe(probing, id); err != nil {
			return fmt.Errorf("%w: node %d does not answer: %w", ErrHeirLags, node, err)
		}
		return nil
	}
	if err := ready(); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, transferPatience)
	defer cancel()
	err := r.transfer(waiting, func() (ReplicaID, uint64, bool) {
		id, match, _, ok := r.peers.voterOn(node, term)
		return id, match, ok
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return fmt.Errorf("%w: node %d has not taken the last entries of shard %d within %s", ErrHeirLags, node, r.opt.Shard, transferPatience)
	}
	return err
}

// transfer hands the leadership over to the voter that heir names, which has so
// much of the log.
func (r *Replica[R]) transfer(ctx context.Context, heir func() (id ReplicaID, match uint64, ok bool)) error {
	// Nothing is handed to Raft meanwhile: it would drop it.
	if err := r.take(ctx, r.turn); err != nil {
		return err
	}
	defer func() { <-r.turn }()
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	to, err := r.awaitHeir(ctx, term, heir)
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

// awaitHeir waits until everything that was proposed is applied, and the heir has
// all of the log.
func (r *Replica[R]) awaitHeir(ctx context.Context, term uint64, heir func() (ReplicaID, uint64, bool)) (ReplicaID, error) {
	tick := time.NewTicker(transferTick)
	defer tick.Stop()
	for {
		r.mu.Lock()
		idle, leads := len(r.inflight) == 0, r.term == term
		r.mu.Unlock()
		to, match, ok := heir()
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

// take waits for a token of a channel, which the caller gives back.
func (r *Replica[R]) take(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopCtx.Done():
		return ErrStopped
	}
}
