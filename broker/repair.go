package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

const (
	// repairRetry is when to look again at what could not be repaired. The pause
	// doubles, since a try reads the whole segment, up to lastRepairRetry.
	repairRetry     = 2 * time.Second
	lastRepairRetry = time.Minute

	// handOverRetry is how long a replica with damage that leads again waits until
	// it hands the leadership over once more: the others may be damaged too.
	handOverRetry = 30 * time.Second
)

// repairs brings back what is damaged of this node's data shards: a replica that
// knows of damage hands the leadership of its shard over, if somebody can take it,
// and asks the other replicas for the batches. One range at a time; there is one
// goroutine, which rests while nothing is damaged.
type repairs struct {
	b    *Broker
	wake chan struct{} // 1-buffered: damage was found, or a shard is led

	// The goroutine's.
	handed map[replication.ShardID]time.Time // when a leadership was last handed over
	failed map[failedRepair]failure
	ill    map[replication.ShardID]illness

	tries       atomic.Uint64
	done, bytes atomic.Uint64 // segments repaired, and what came from others for them

	healed, unhealed atomic.Uint64 // partitions that were in quarantine, and tries that came to nothing
}

// failedRepair names a range that could not be repaired.
type failedRepair struct {
	key  partitionKey
	from int64
}

// failure is what came of the tries to repair a range.
type failure struct {
	text  string // was said
	pause time.Duration
	until time.Time // no other try before
}

func newRepairs(b *Broker) *repairs {
	return &repairs{
		b: b, wake: make(chan struct{}, 1),
		handed: make(map[replication.ShardID]time.Time), failed: make(map[failedRepair]failure), ill: make(map[replication.ShardID]illness),
	}
}

// kick has the shards looked at soon. It does not block.
func (r *repairs) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// found is told of damage, where it was met.
func (r *repairs) found(s *dataShard, d store.Damage) {
	r.b.opt.Log.Error("a range of a partition is damaged; reads of it fail until it is repaired",
		"shard", s.id, "topic_id", partition.TopicID(d.TopicID).String(), "partition", d.Index, "from", d.From, "to", d.To, "err", d.Err)
	r.kick()
}

// run repairs for as long as the broker runs.
func (r *repairs) run() {
	ctx := r.b.stopping
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if !r.pass(ctx) {
			timer.Reset(repairRetry)
		}
	}
}

// pass looks at all shards once. It reports whether nothing is left to do.
func (r *repairs) pass(ctx context.Context) (whole bool) {
	whole = true
	for _, s := range r.b.carriedInOrder() {
		damaged := s.store.Damaged()
		if len(damaged) == 0 && s.sound() == nil {
			continue
		}
		r.handOver(ctx, s)
		whole = r.heal(ctx, s) && whole // else once more, later
		for _, d := range damaged {
			if ctx.Err() != nil {
				return true
			}
			if r.b.opt.Now().Before(r.failed[nameOf(d)].until) {
				continue
			}
			r.report(s, d, r.repair(ctx, s, d))
		}
		whole = whole && len(s.store.Damaged()) == 0
	}
	if whole {
		clear(r.failed)
	}
	return whole
}

// handOver hands the leadership of a shard over, if this replica has it and has
// not just tried.
func (r *repairs) handOver(ctx context.Context, s *dataShard) {
	now := r.b.opt.Now()
	if r.b.opt.Cluster == nil || s.replica.Leading() == 0 || now.Sub(r.handed[s.id]) < handOverRetry {
		return
	}
	r.handed[s.id] = now
	var errs []error
	for _, m := range heirsOf(s.replica.Progress()) {
		err := r.b.balance.move(s, m.ID.Node)
		if err == nil {
			r.b.opt.Log.Info("the leadership of a shard of which something is damaged or in quarantine here was handed over", "shard", s.id, "node", m.ID.Node)
			return
		}
		errs = append(errs, err)
	}
	if ctx.Err() == nil {
		r.b.opt.Log.Warn("a shard of which something is damaged or in quarantine here is led on: nobody else could take it over", "shard", s.id, "err", errors.Join(errs...))
	}
}

// hurt reports whether a range of a shard is known to be damaged on this node, or a
// partition in quarantine: it leads the shard only if nobody else can.
func (b *Broker) hurt(shard replication.ShardID) bool {
	s := b.carried()[shard]
	return s != nil && (len(s.store.Damaged()) > 0 || s.sound() != nil)
}

// sound returns why the replica's state, or its newest checkpoint, is not what its
// entries say, if so: a partition in quarantine is as it was before the command that
// panicked. Who took it for the partition's state would give its offsets to other
// records.
func (s *dataShard) sound() error {
	if n := s.quarantined.Load(); n > 0 {
		return fmt.Errorf("%d partitions of shard %d are in quarantine here; another replica has to lead", n, s.id)
	}
	if s.unsettled.Load() {
		return fmt.Errorf("partitions of shard %d were in quarantine here, and no checkpoint has what they are now; another replica has to lead", s.id)
	}
	return nil
}

// soundAt returns why the checkpoint at an index must not be given to other replicas.
func (s *dataShard) soundAt(index uint64) error {
	if err := s.sound(); err != nil {
		return err
	}
	if from := s.soundFrom.Load(); index < from {
		return fmt.Errorf("partitions of shard %d were in quarantine here until the checkpoint at index %d", s.id, from)
	}
	return nil
}

func nameOf(d store.Damage) failedRepair {
	return failedRepair{partitionKey{d.TopicID, d.Index}, d.From}
}

// report says what came of a repair, once, and when the next try is due.
func (r *repairs) report(s *dataShard, d store.Damage, err error) {
	of := nameOf(d)
	if err == nil {
		delete(r.failed, of)
		return
	}
	if r.b.stopping.Err() != nil {
		return
	}
	was := r.failed[of]
	now := failure{text: err.Error(), pause: min(max(2*was.pause, repairRetry), lastRepairRetry)}
	now.until = r.b.opt.Now().Add(now.pause)
	r.failed[of] = now
	if was.text == now.text {
		return
	}
	r.b.opt.Log.Warn("a damaged range could not be repaired; trying again",
		"shard", s.id, "topic_id", partition.TopicID(d.TopicID).String(), "partition", d.Index, "from", d.From, "to", d.To, "err", err)
}

// repair repairs the segment that d begins in. Nil says that something was
// repaired, or need not be.
func (r *repairs) repair(ctx context.Context, s *dataShard, d store.Damage) error {
	r.tries.Add(1)
	rate := r.b.pulls
	job, err := s.store.BeginRepair(d, s.machine.epochHistory(partition.Number(d.Key)), func(n int64) error { return rate.spend(ctx, int(n)) })
	if errors.Is(err, store.ErrMoot) {
		return nil
	}
	if err != nil {
		return err
	}
	pulled := 0
	for err == nil {
		var from, to int64
		var more bool
		if from, to, more, err = job.Wanted(); err != nil || !more {
			break
		}
		var n int
		if n, err = r.pull(ctx, s, job, pullRequest{
			shard: s.id, index: s.replica.Applied(), topic: d.TopicID, part: d.Index, maxBytes: pullBytes, offset: from, end: to,
		}); err == nil {
			pulled += n
			err = rate.spend(ctx, n)
		}
	}
	if err == nil {
		err = job.Finish()
	}
	err = errors.Join(err, job.Close())
	if errors.Is(err, store.ErrMoot) {
		return nil
	}
	if err != nil {
		return err
	}
	r.done.Add(1)
	r.bytes.Add(uint64(pulled))
	r.b.opt.Log.Info("a damaged range is repaired", "shard", s.id, "topic_id", partition.TopicID(d.TopicID).String(), "partition", d.Index,
		"from", d.From, "to", job.Next(), "bytes_from_others", pulled, "bytes_kept", job.Local())
	return nil
}

// pull asks the other replicas of a shard, one after the other, for what a repair
// wants next.
func (r *repairs) pull(ctx context.Context, s *dataShard, job *store.Repair, request pullRequest) (n int, err error) {
	p := s.replica.Progress()
	members := slices.DeleteFunc(p.Members, func(m replication.Member) bool { return m.ID.Node == r.b.opt.NodeID })
	slices.SortStableFunc(members, func(a, b replication.Member) int { // the leader first
		switch {
		case !p.HasLeader || a.ID == b.ID:
			return 0
		case a.ID == p.Leader:
			return -1
		case b.ID == p.Leader:
			return 1
		}
		return 0
	})
	release, err := r.b.holdPull(ctx, r.b.pulls.taken)
	if err != nil {
		return 0, context.Cause(ctx)
	}
	defer release()
	var errs []error
	for _, m := range members {
		before := job.Next()
		a, err := r.b.pull(ctx, m.ID.Node, &request)
		switch {
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		case err != nil:
		case a.what != pullBatches:
			err = fmt.Errorf("%w, node %d: it does not have offset %d any more, nor will this one soon", errSource, m.ID.Node, before)
		default:
			if err = job.Append(a.batches); err == nil && job.Next() > before {
				return len(a.batches), nil
			}
			if err != nil && !errors.Is(err, store.ErrPulled) {
				return 0, err
			}
			err = fmt.Errorf("%w, node %d: nothing of use from offset %d on: %w", errSource, m.ID.Node, before, err)
		}
		errs = append(errs, err)
	}
	if len(members) == 0 {
		errs = append(errs, errors.New("the shard has no other replica"))
	}
	return 0, fmt.Errorf("%w: %w", errNoSource, errors.Join(errs...))
}

// epochHistory is the epoch history of a partition, as the store takes it.
func (m *machine) epochHistory(n partition.Number) (all []store.Epoch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.state.Partition(n); !ok {
		return nil
	}
	for _, e := range m.state.Epochs(n) {
		all = append(all, store.Epoch{Epoch: e.Epoch, Start: e.Start})
	}
	return all
}

// damaged returns how many ranges of this node's data shards are known to be
// damaged, and the first.
func (b *Broker) damaged() (ranges int, first store.Damage) {
	for _, s := range b.carriedInOrder() {
		all := s.store.Damaged()
		if ranges == 0 && len(all) > 0 {
			first = all[0]
		}
		ranges += len(all)
	}
	return ranges, first
}
