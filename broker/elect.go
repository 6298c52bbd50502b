package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodElect asks the node that leads a shard to hand it over to the node that a
// mandate names; see encodeMandate. The answer is a forwarded, without more than
// its error.
const methodElect transport.Method = 20

// Shard returns the shard that carries a partition of the topic, and whether the
// topic has that partition.
func (t *Topic) Shard(index int32) (shard uint32, ok bool) {
	if index < 0 || int(index) >= len(t.assignment) {
		return 0, false
	}
	return uint32(t.assignment[index]), true
}

// ElectPreferred has a data shard, with all partitions that it carries, led by the
// node that is to lead it. Whoever leads it hands it over, as TransferShard does,
// and the node has to be ready, as it has when leaderships are balanced: so what
// clients notice is a new leader at the most.
//
// ELECTION_NOT_NEEDED says that the node leads it already, and
// PREFERRED_LEADER_NOT_AVAILABLE why it cannot: nothing has changed then. After
// REQUEST_TIMED_OUT the leadership may have gone over, or may yet.
func (b *Broker) ElectPreferred(ctx context.Context, shard uint32) error {
	for wait := firstForward; ; wait = min(2*wait, lastForward) {
		err := b.electOnce(ctx, shardID(shard))
		if errcode.Of(err) != errcode.NotLeaderOrFollower {
			return err
		}
		select { // another one leads, and this node has yet to hear of it
		case <-time.After(wait):
		case <-ctx.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "who leads shard %d was not found in time: %v", shard, err)
		case <-b.stopping.Done():
			return errcode.Errorf(errcode.RequestTimedOut, "the node is stopping")
		}
	}
}

// electOnce is ElectPreferred, but for NOT_LEADER_OR_FOLLOWER, with which nothing
// was done.
func (b *Broker) electOnce(ctx context.Context, shard replication.ShardID) error {
	to := b.wantedLeader(shard)
	leader, _, known := b.shardLeaderOf(shard)
	m := mandate{shard: shard, replica: replication.ReplicaID{Node: to}}
	switch {
	case to < 0:
		return notPreferred(shard, to, errors.New("the shard has no replicas"))
	case !known:
		return notPreferred(shard, to, errors.New("nobody leads it now, to hand it over"))
	case leader == to:
		return errcode.Errorf(errcode.ElectionNotNeeded, "node %d leads shard %d already", to, shard)
	case leader == b.opt.NodeID:
		return b.electHere(ctx, m)
	}
	ctx, cancel := context.WithTimeout(ctx, balanceTimeout+forwardAnswer)
	defer cancel()
	raw, err := b.opt.Cluster.Peers.Call(ctx, leader, methodElect, encodeMandate(m))
	switch {
	case ctx.Err() != nil:
		return errcode.Errorf(errcode.RequestTimedOut, "node %d, which leads shard %d, has not answered in time", leader, shard)
	case err != nil:
		return notPreferred(shard, to, fmt.Errorf("node %d, which is to hand it over: %w", leader, err))
	}
	out, err := decodeForwarded(raw)
	if err == nil && out.err != nil {
		err = out.err
	}
	return err
}

// notPreferred is why a node that is to lead a shard cannot.
func notPreferred(shard replication.ShardID, node int32, why error) *errcode.Error {
	return errcode.Errorf(errcode.PreferredLeaderNotAvailable, "node %d does not lead shard %d for now: %v", node, shard, why)
}

// answerElect answers methodElect.
func (b *Broker) answerElect(ctx context.Context, payload []byte) ([]byte, error) {
	m, err := decodeMandate(payload)
	if err != nil {
		return nil, err
	}
	out := forwarded{producerID: -1, leader: -1}
	if err := b.electHere(ctx, m); err != nil {
		out.err = CodeOf(err)
	}
	return out.append(nil), nil
}

// electHere hands a shard that this node leads over to a node that would lead it.
func (b *Broker) electHere(ctx context.Context, m mandate) error {
	ctx, cancel := context.WithTimeout(ctx, balanceTimeout)
	defer cancel()
	to := m.replica.Node
	s := b.carried()[m.shard]
	if s == nil || b.image().Shard(metadata.ShardID(m.shard)) == nil {
		return errcode.Errorf(errcode.NotLeaderOrFollower, "node %d has no shard %d", b.opt.NodeID, m.shard)
	}
	if m.term = s.replica.Leading(); m.term == 0 {
		return errcode.Errorf(errcode.NotLeaderOrFollower, "node %d does not lead shard %d", b.opt.NodeID, m.shard)
	}
	if to != b.opt.NodeID {
		if err := b.asksFit(ctx, m); err != nil {
			return notPreferred(m.shard, to, err)
		}
	}
	leader, _, err := b.TransferShard(ctx, uint32(m.shard), to)
	switch errcode.Of(err) {
	case errcode.InvalidReplicaAssignment, errcode.EligibleLeadersNotAvailable:
		return notPreferred(m.shard, to, err)
	}
	if err == nil && leader != to {
		return notPreferred(m.shard, to, fmt.Errorf("node %d has won the election", leader))
	}
	return err
}

// asksFit asks the node that a mandate names whether it would lead its shard.
func (b *Broker) asksFit(ctx context.Context, m mandate) error {
	if !b.opt.Cluster.Peers.Connected(m.replica.Node) {
		return errors.New("it is not connected")
	}
	_, err := b.opt.Cluster.Peers.Call(ctx, m.replica.Node, methodFit, encodeMandate(m))
	return err
}
