package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// A replica with a partition in quarantine is healed by the others (R5). What panicked
// here and not there is not done again: the batches that the partition lacks are pulled,
// the state of the whole shard is fetched, as of an index behind the panic, and it takes
// the place of this replica's while both follow the log (see succession). When a
// checkpoint has it, the quarantine is over, durably. Clients are served by the other
// replicas meanwhile.
//
// A command that panics on every replica leaves nobody to fetch from: each asks again
// after a pause that grows, which costs a few small calls.

const (
	// healPause is how long to wait after a first try to heal a shard until the next,
	// whatever came of it; it doubles up to lastHealPause, since what panics anew each
	// time is fetched anew each time. healForget later it counts as a first try again.
	healPause     = 2 * time.Second
	lastHealPause = 5 * time.Minute
	healForget    = time.Hour

	// maxHealRounds is how many states in a row are fetched because the log went on by
	// more than is kept, or a partition was deleted.
	maxHealRounds = 8
)

// illness is what came of the tries to heal a shard.
type illness struct {
	text  string // was said
	pause time.Duration
	until time.Time // no other try before
}

// heal has a shard of which something is in quarantine here healed by the others, if it
// is time for that. It reports whether nothing is left to do for now.
func (r *repairs) heal(ctx context.Context, s *dataShard) (done bool) {
	switch {
	case s.sound() == nil:
		return true
	case r.b.opt.Cluster == nil:
		return s.replica.Leading() == 0 // as long as it leads, somebody may come to take over
	case s.unsettled.Load():
		return r.settle(ctx, s)
	case s.replica.Leading() != 0: // whoever is sound has been asked to take over
		return false
	}
	now, ill := r.b.opt.Now(), r.ill[s.id]
	if now.Before(ill.until) {
		return false
	}
	if now.Sub(ill.until) > healForget {
		ill = illness{}
	}
	err := r.healFromOthers(ctx, s)
	if ctx.Err() != nil {
		return false
	}
	was := ill.text
	ill.text, ill.pause = "", min(max(2*ill.pause, healPause), lastHealPause)
	ill.until = r.b.opt.Now().Add(ill.pause)
	if err != nil {
		ill.text = err.Error()
		r.unhealed.Add(1)
	}
	r.ill[s.id] = ill
	if err != nil && was != ill.text {
		r.b.opt.Log.Warn("a partition in quarantine could not be healed by the other replicas; trying again, with growing pauses", "shard", s.id, "err", err)
	}
	return err == nil && r.settle(ctx, s)
}

// settle has a checkpoint taken of a state that came from another replica, for which
// this one has to have applied an entry behind its newest checkpoint.
func (r *repairs) settle(ctx context.Context, s *dataShard) (done bool) {
	err := s.replica.Checkpoint()
	if err == nil && s.unsettled.Load() {
		err = r.askEntry(ctx, s)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, replication.ErrStopped) {
		r.b.opt.Log.Debug("a healed replica has no checkpoint yet", "shard", s.id, "err", err)
	}
	return !s.unsettled.Load() && s.sound() == nil
}

// askEntry has the leader commit an entry behind what is applied here.
func (r *repairs) askEntry(ctx context.Context, s *dataShard) error {
	if s.replica.Leading() != 0 {
		return r.b.AskStateHash(ctx, uint32(s.id))
	}
	leader, ok := s.replica.Leader()
	if !ok {
		return errors.New("the shard has no leader")
	}
	_, err := r.b.askState(ctx, leader.Node, &stateRequest{what: stateEntry, shard: s.id, index: s.replica.Applied()})
	return err
}

// healFromOthers tries the other replicas, one after the other.
func (r *repairs) healFromOthers(ctx context.Context, s *dataShard) error {
	began := r.b.opt.Now()
	var errs []error
	for _, node := range r.sources(s) {
		healed, bytes, err := r.healFrom(ctx, s, node)
		if err == nil {
			r.healed.Add(uint64(healed))
			r.b.opt.Log.Info("partitions in quarantine are healed: the state of another replica has taken the place of this one's",
				"shard", s.id, "partitions", healed, "from_node", node, "bytes", bytes, "took", r.b.opt.Now().Sub(began))
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("the shard has no other replica"))
	}
	return fmt.Errorf("%w: %w", errNoSource, errors.Join(errs...))
}

// sources lists the nodes of the other replicas of a shard, the leader's first.
func (r *repairs) sources(s *dataShard) (nodes []int32) {
	p := s.replica.Progress()
	if p.HasLeader && p.Leader.Node != r.b.opt.NodeID {
		nodes = append(nodes, p.Leader.Node)
	}
	for _, m := range p.Members {
		if m.ID.Node != r.b.opt.NodeID && !slices.Contains(nodes, m.ID.Node) {
			nodes = append(nodes, m.ID.Node)
		}
	}
	return nodes
}

// healFrom fetches from one node, and again as long as this replica is overtaken by
// what is committed meanwhile: each time there is less to fetch.
func (r *repairs) healFrom(ctx context.Context, s *dataShard, node int32) (healed, bytes int, err error) {
	for range maxHealRounds {
		h := s.machine.begin()
		if h == nil {
			return healed, bytes, nil // deleted meanwhile
		}
		var n int
		n, err = r.round(ctx, s, h, node)
		s.machine.end()
		bytes += n
		if err == nil {
			return len(h.numbers), bytes, nil
		}
		if !errors.Is(err, errOvertaken) {
			return 0, bytes, err
		}
	}
	return 0, bytes, err
}

// round fetches the state of a node, and what the partitions in quarantine lack of it,
// and has it take its place.
func (r *repairs) round(ctx context.Context, s *dataShard, h *succession, node int32) (bytes int, err error) {
	state, bytes, err := r.fetchState(ctx, s.id, node, h.from)
	if err != nil {
		return bytes, err
	}
	for _, n := range h.numbers {
		v, ok := state.Partition(n)
		if !ok {
			continue // it is deleted there
		}
		pulled, err := r.graft(ctx, s, h, node, state.Index(), restoredPart(state, v))
		bytes += pulled
		if err != nil {
			return bytes, err
		}
	}
	return bytes, s.machine.succeed(ctx, h, state)
}

// graft pulls what a partition in quarantine lacks of another replica's state.
func (r *repairs) graft(ctx context.Context, s *dataShard, h *succession, node int32, index uint64, of store.Restored) (pulled int, err error) {
	var g *store.Graft
	if err := s.machine.graft(h, func() (err error) { g, err = s.store.Graft(of); return err }); err != nil {
		return 0, err
	}
	// take has the store take something. What it has is written first, if need be, and
	// then: its memory is for what clients send.
	take := func(what func() error) error {
		err := s.machine.graft(h, what)
		if errors.Is(err, store.ErrTail) {
			if err = g.Flush(); err == nil {
				err = s.machine.graft(h, what)
			}
		}
		if err != nil {
			return err
		}
		return g.Flush()
	}
	for !g.Done() {
		n, err := r.graftChunk(ctx, g, node, pullRequest{
			shard: s.id, index: index, topic: of.TopicID, part: of.Index, maxBytes: pullBytes, offset: g.Next(), end: of.End,
		}, take)
		pulled += n
		if err != nil {
			return pulled, err
		}
		if err := r.b.pulls.spend(ctx, n); err != nil {
			return pulled, err
		}
	}
	return pulled, take(g.Finish)
}

// graftChunk pulls the next batches.
func (r *repairs) graftChunk(ctx context.Context, g *store.Graft, node int32, request pullRequest, take func(func() error) error) (n int, err error) {
	release, err := r.b.holdPull(ctx, r.b.pulls.taken)
	if err != nil {
		return 0, context.Cause(ctx)
	}
	defer release()
	a, err := r.b.pull(ctx, node, &request)
	switch {
	case err != nil:
		return 0, err
	case a.what != pullBatches: // by an entry behind the state: a later one says so
		return 0, fmt.Errorf("%w: node %d does not have offset %d of partition %d of %v any more", errOvertaken, node, request.offset, request.part, partition.TopicID(request.topic))
	}
	before := g.Next()
	if err := take(func() error { return g.Append(a.batches) }); err != nil {
		return len(a.batches), err
	}
	if g.Next() == before {
		return len(a.batches), fmt.Errorf("%w, node %d: it gives nothing from offset %d on", errSource, node, before)
	}
	return len(a.batches), nil
}
