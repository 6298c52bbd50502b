package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// retryAfter is when the reconciler tries again what could not be proposed.
const retryAfter = time.Second

// bootstrap registers the nodes and makes the shards that the cluster begins
// with. It may be repeated: what is there already stays, and what a node of a
// cluster has said of itself.
func (b *Broker) bootstrap(ctx context.Context) error {
	var commands []metadata.Command
	if b.image().ClusterID() == "" {
		// A fresh cluster; one that is there stays at its level until somebody
		// raises it.
		commands = append(commands, metadata.SetFeatureLevel{Level: b.opt.FeatureLevel})
	}
	commands = append(commands, metadata.SetClusterID{ClusterID: b.opt.ClusterID})
	nodes, err := b.founders()
	if err != nil {
		return err
	}
	var ids []metadata.NodeID
	for _, n := range nodes {
		commands = append(commands, n)
		ids = append(ids, n.ID)
	}
	slices.Sort(ids)
	for id := range b.opt.Shards {
		commands = append(commands, metadata.CreateShard{ID: metadata.ShardID(id + 1), Replicas: ids})
	}
	for _, c := range commands {
		if b.known(c) {
			continue
		}
		if _, err := b.proposeMeta(ctx, c); err != nil && errcode.Of(err) != errcode.DuplicateResource {
			return fmt.Errorf("broker: bootstrap: %w", err)
		}
	}
	return nil
}

// known reports whether a bootstrap command would change nothing, so that a
// restart writes nothing.
func (b *Broker) known(c metadata.Command) bool {
	im := b.image()
	switch c := c.(type) {
	case metadata.SetFeatureLevel:
		return im.FeatureLevel() == c.Level
	case metadata.SetClusterID:
		return im.ClusterID() == c.ClusterID
	case metadata.CreateShard:
		return im.Shard(c.ID) != nil
	case metadata.RegisterNode:
		n := im.Node(c.ID)
		return n != nil && (b.opt.Cluster != nil || registered(n, c))
	}
	return false
}

// reconciler makes the partitions of the shards that this node leads what the
// metadata says.
type reconciler struct {
	b    *Broker
	wake chan struct{} // 1-buffered
}

func newReconciler(b *Broker) *reconciler {
	return &reconciler{b: b, wake: make(chan struct{}, 1)}
}

// kick asks for a pass: metadata or leadership has changed. It does not block.
func (r *reconciler) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reconciler) run() {
	for {
		select {
		case <-r.wake:
		case <-r.b.stopping.Done():
			return
		}
		err := r.settle(r.b.stopping, r.wake)
		if errors.Is(err, replication.ErrStopped) {
			return // OnFailed was told why
		}
		if err != nil && r.b.stopping.Err() == nil {
			r.b.opt.Log.Warn("partitions could not be made what the metadata says; trying again", "err", err)
			time.AfterFunc(retryAfter, r.kick)
		}
	}
}

// settle makes one pass, and returns when what it proposed is applied. What
// waits for room when giveUp is ready is taken back, for the next pass: there may
// be a deletion to propose, which makes room.
func (r *reconciler) settle(ctx context.Context, giveUp <-chan struct{}) error {
	alone := r.b.opt.Cluster == nil
	leads := r.b.meta.Leading() != 0
	if alone && !leads {
		return nil // a later change of that kicks
	}
	if err := r.b.recordLevel(r.b.image().FeatureLevel()); err != nil {
		return err
	}
	var errs []error // what one shard refuses does not hold up the others
	if leads && !alone {
		errs = append(errs, r.b.bootstrap(ctx))
	}
	im := r.b.image()
	// What makes room comes first, in every shard: the rest of any of them may
	// wait for it.
	lacking := make(map[*dataShard]*lack)
	for _, s := range r.b.carried() {
		l := &lack{term: s.replica.Leading()}
		if l.term == 0 {
			continue
		}
		for _, c := range r.b.missing(im, s) {
			if _, frees := c.(partition.DeletePartition); frees {
				l.deletions = append(l.deletions, c)
			} else {
				l.rest = append(l.rest, c)
			}
		}
		errs = append(errs, l.note(r.proposeAll(ctx, giveUp, s, l.deletions)))
		lacking[s] = l
	}
	for s, l := range lacking {
		errs = append(errs, r.raise(ctx, giveUp, im, s), l.note(r.proposeAll(ctx, giveUp, s, l.rest)))
		if !l.left {
			s.complete, s.completeIn = im, l.term
		}
	}
	if alone {
		errs = append(errs, r.bury(ctx, im))
	}
	return errors.Join(errs...)
}

// lack is what a shard lacked at the begin of a pass.
type lack struct {
	term            uint64 // that its leader was in
	deletions, rest []any
	left            bool // some of it is not applied
}

// note takes what came of some of it, and returns what went wrong. That they were
// taken back is left to the next pass, which was asked for.
func (l *lack) note(err error) error {
	l.left = l.left || err != nil
	if errors.Is(err, errGivenUp) {
		return nil
	}
	return err
}

// errGivenUp reports commands that were taken back, for the next pass.
var errGivenUp = errors.New("broker: proposals that waited for room were taken back")

// missing lists the commands that shard s lacks. A partition goes only for a
// tombstone of its topic id (R17), which is never taken back: metadata that is
// behind may make a partition of a topic that is deleted, and deletes it again
// when it has caught up. That is why tombstones stay for good while there are
// other nodes: see bury.
//
// It looks at what changed since the newest image of which nothing was missing
// in this term: that of another leader may have been more than it applied.
func (b *Broker) missing(im *metadata.Image, s *dataShard) []any {
	var commands []any
	limits := *s.limits.Load()
	if limits.MaxProducers = uint32(b.opt.Limits.Producers); limits != *s.limits.Load() {
		commands = append(commands, limits) // what this leader was set to holds
	}
	term, since := s.replica.Leading(), s.complete
	if term != s.completeIn {
		since = nil
	}
	for t := range im.TopicsSince(since) {
		for i, shard := range t.Assignment {
			if replication.ShardID(shard) != s.id {
				continue
			}
			id, index, config := partition.TopicID(t.ID), int32(i), partitionConfig(t)
			switch p := b.dir.find(id, index); {
			case p == nil:
				commands = append(commands, partition.CreatePartition{
					TopicID: id, Index: index, MetadataIndex: t.PartitionIndex(index), Config: config,
				})
			case p.stamp < t.UpdatedAt && p.config != config && !p.quarantined():
				commands = append(commands, partition.SetPartitionConfig{
					TopicID: id, Index: index, MetadataIndex: t.UpdatedAt, Config: config,
				})
			}
		}
	}
	for tomb := range im.TombstonesSince(since) {
		for i := range tomb.Partitions {
			if p := b.dir.find(partition.TopicID(tomb.ID), i); p != nil && p.shard == s {
				commands = append(commands, partition.DeletePartition{
					TopicID: p.key.topic, Index: p.key.index, MetadataIndex: tomb.DeletedAt,
				})
			}
		}
	}
	if len(commands) == 0 {
		s.complete, s.completeIn = im, term
	}
	return commands
}

// proposeAll proposes commands to a shard and waits for all of them: see settle.
// If some were taken back, and nothing else went wrong, it returns errGivenUp.
func (r *reconciler) proposeAll(ctx context.Context, giveUp <-chan struct{}, s *dataShard, commands []any) error {
	if len(commands) == 0 {
		return nil
	}
	results := make(chan error, len(commands))
	proposals := make([]*produceProposal, len(commands))
	for i, c := range commands {
		_, frees := c.(partition.DeletePartition)
		listed := 0
		if e, ok := c.(partition.ExpireProducers); ok {
			listed = e.Bytes()
		}
		proposals[i] = &produceProposal{
			Command: c, CommandBytes: listed, Urgent: frees,
			Done: func(res partition.Result, err error) {
				if err == nil {
					err = res.Err()
				}
				results <- err
			},
		}
	}
	if err := s.replica.Propose(proposals...); err != nil {
		return err
	}
	var errs []error
	var cancelled error
	for left := len(commands); left > 0; {
		select {
		case err := <-results:
			errs = append(errs, err)
			left--
		case <-giveUp:
			giveUp = nil
			r.kick()
			for _, p := range proposals {
				if s.replica.Cancel(p) {
					left--
					cancelled = errGivenUp
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return cancelled
}

// bury removes the orphaned directories of deleted topics, and then the
// tombstones of topics of which nothing is left. It is for a node that is alone:
// of the others it does not know what is left.
func (r *reconciler) bury(ctx context.Context, im *metadata.Image) error {
	orphans := make(map[metadata.TopicID]bool)
	for _, o := range r.b.opt.Store.Orphans() {
		id := metadata.TopicID(o.TopicID)
		if im.Tombstone(id) == nil {
			orphans[id] = true
			continue
		}
		if err := r.b.opt.Store.RemoveOrphan(store.Orphan{TopicID: o.TopicID, Index: o.Index}); err != nil {
			return err
		}
	}
	synced := false
	for tomb := range im.Tombstones() {
		if r.b.disk.state().Low {
			return nil // a tombstone takes little, and its purge would take more
		}
		if orphans[tomb.ID] || !r.b.gone(tomb) {
			continue
		}
		if !synced {
			if err := r.b.opt.Store.SyncNames(); err != nil {
				return err
			}
			synced = true
		}
		if _, err := r.b.proposeMeta(ctx, metadata.PurgeTombstone{ID: tomb.ID}); err != nil && errcode.Of(err) != errcode.ResourceNotFound {
			return err
		}
	}
	return nil
}

// gone reports whether nothing of a deleted topic is left, or can come back with
// an older checkpoint or after a power cut: no partition was deleted since this
// node started, and at its start none was there. So a tombstone outlives the
// process that deletes.
func (b *Broker) gone(tomb *metadata.Tombstone) bool {
	if b.dir.deletedSinceStart(partition.TopicID(tomb.ID)) {
		return false
	}
	for i := range tomb.Partitions {
		if b.dir.find(partition.TopicID(tomb.ID), i) != nil {
			return false
		}
	}
	return true
}
