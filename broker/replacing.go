package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
)

// A shard's replica on a node is that of the node's registered directory. Where it is
// another one, the directory was lost and a fresh one has taken its place: the
// shard's leader replaces the one replica by the other, step by step. Each step is
// taken from what the shard's configuration says, so whoever leads next goes on from
// there.

const (
	replaceTick = time.Second     // between two looks at the members
	replaceStep = 5 * time.Second // that a step may take
)

// changeable is a replica, whatever its shard carries.
type changeable interface {
	Leading() uint64
	Progress() replication.Progress
	AddLearner(ctx context.Context, id replication.ReplicaID) error
	Promotable(ctx context.Context, id replication.ReplicaID, lagEntries uint64) error
	Promote(ctx context.Context, id replication.ReplicaID, lagEntries uint64) error
	Remove(ctx context.Context, id replication.ReplicaID) error
}

var _ changeable = (*replication.Replica[int])(nil)

// memberStep is what a shard's leader does next about a node's replica.
type memberStep uint8

const (
	stepNone    memberStep = iota
	stepAdd                // the new one, without a vote
	stepAwait              // it has caught up, then stepRemove and stepPromote
	stepRemove             // the old one
	stepPromote            // the new one
)

// nextStep says what to do about a node of which want is to be the shard's only
// replica, and which one is to go, if one is. It does nothing about a node that has
// no replica of the shard.
func nextStep(members []replication.Member, want replication.ReplicaID) (step memberStep, old replication.ReplicaID) {
	var stale []replication.Member
	has, votes := false, false
	for _, m := range members {
		switch {
		case m.ID == want:
			has, votes = true, m.Voter
		case m.ID.Node == want.Node:
			stale = append(stale, m)
		}
	}
	if i := slices.IndexFunc(stale, func(m replication.Member) bool { return !m.Voter }); i >= 0 {
		return stepRemove, stale[i].ID // one that was lost before it had caught up
	}
	switch {
	case len(stale) > 0 && !has:
		return stepAdd, old
	case len(stale) > 0 && !votes:
		return stepAwait, stale[0].ID
	case len(stale) > 0:
		return stepRemove, stale[0].ID
	case has && !votes:
		return stepPromote, old
	}
	return stepNone, old
}

// nextLearnerStep says what to do about a node of which want is to be the shard's only
// replica, without a vote, and which one is to go, if one is.
func nextLearnerStep(members []replication.Member, want replication.ReplicaID) (step memberStep, old replication.ReplicaID) {
	has := false
	for _, m := range members {
		switch {
		case m.ID == want:
			has = true
		case m.ID.Node == want.Node:
			return stepRemove, m.ID
		}
	}
	if !has {
		return stepAdd, old
	}
	return stepNone, old
}

// runReplacing makes the members of the shards that this node leads what the
// metadata says, for as long as the node runs.
func (b *Broker) runReplacing() {
	said := make(map[replication.ShardID]string)
	tick := time.NewTicker(replaceTick)
	defer tick.Stop()
	for {
		b.replaceIn(replication.MetadataShard, b.meta, said)
		for id, s := range b.carried() {
			b.replaceIn(id, s.replica, said)
		}
		select {
		case <-tick.C:
		case <-b.stopping.Done():
			return
		}
	}
}

// replaceIn takes the next step in a shard that this node leads, and says what keeps
// it from that, once.
func (b *Broker) replaceIn(shard replication.ShardID, r changeable, said map[replication.ShardID]string) {
	if r.Leading() == 0 {
		delete(said, shard)
		return
	}
	ctx, cancel := context.WithTimeout(b.stopping, replaceStep)
	defer cancel()
	err := b.replaceMembers(ctx, shard, r)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != said[shard] && b.stopping.Err() == nil {
		b.opt.Log.Info("a replica is being replaced, and the next step has to wait", "shard", shard, "why", text)
	}
	said[shard] = text
}

func (b *Broker) replaceMembers(ctx context.Context, shard replication.ShardID, r changeable) error {
	im := b.image()
	members := r.Progress().Members
	var errs []error
	for _, node := range b.membersIn(im, shard) {
		n := im.Node(metadata.NodeID(node))
		if n == nil {
			continue
		}
		want := b.replicaOf(shard, node, n.Incarnation)
		step, old := nextStep(members, want)
		if shard == replication.MetadataShard && !b.founder(node) {
			step, old = nextLearnerStep(members, want)
		}
		if step == stepNone {
			continue
		}
		// What this node knows may be old, and the replica that it takes for the new
		// one be the old one.
		now, err := b.registeredNow(ctx, node)
		if err == nil && now == n.Incarnation {
			err = b.takeStep(ctx, shard, r, step, old, want)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// membersIn lists the nodes that are to have a replica of a shard: of the metadata all,
// and the founders alone vote.
func (b *Broker) membersIn(im *metadata.Image, shard replication.ShardID) (nodes []int32) {
	if shard == replication.MetadataShard {
		return b.NodeIDs()
	}
	if s := im.Shard(metadata.ShardID(shard)); s != nil {
		for _, id := range s.Replicas {
			nodes = append(nodes, int32(id))
		}
	}
	return nodes
}

// takeStep takes a step, and the ones after it that need not wait.
func (b *Broker) takeStep(ctx context.Context, shard replication.ShardID, r changeable, step memberStep, old, want replication.ReplicaID) error {
	log := b.opt.Log.With("shard", shard, "node", want.Node, "replica", want)
	if step == stepAdd {
		if err := r.AddLearner(ctx, want); err != nil {
			return fmt.Errorf("%s is to become a learner: %w", want, err)
		}
		log.Info("a replica of a fresh directory gets the shard's records; if it is to vote, it does when it has caught up")
		return nil
	}
	if step == stepAwait {
		if err := r.Promotable(ctx, want, maxLagEntries); err != nil {
			return fmt.Errorf("%s is to catch up: %w", want, err)
		}
	}
	if step == stepAwait || step == stepRemove {
		if err := r.Remove(ctx, old); err != nil {
			return fmt.Errorf("%s is to be no member any more: %w", old, err)
		}
		log.Info("the replica of a lost directory is no member any more", "lost", old)
	}
	if step == stepAwait || step == stepPromote {
		if err := r.Promote(ctx, want, maxLagEntries); err != nil {
			return fmt.Errorf("%s is to become a voter: %w", want, err)
		}
		b.replacements.Add(1)
		log.Info("a replica was replaced: the one of the fresh directory votes")
	}
	return nil
}
