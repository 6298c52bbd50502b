package broker

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodFit asks a node whether it would lead a shard; see encodeMandate. The
// answer is empty, or why not.
const methodFit transport.Method = 18

const (
	// balanceLooks is how many looks in a row have to find a node ready before a
	// leadership goes to it: one that comes and goes gets none.
	balanceLooks = 2

	// balanceTimeout bounds the transfer of one leadership.
	balanceTimeout = 5 * time.Second
)

// balance brings leaderships of data shards to where the metadata wants them: each
// node is to lead its share, also when others have led in its place for a while.
// Each leader does so for its own shards, one after the other, by a transfer
// that clients hardly notice, to a voter that is connected, lacks little of the
// log, and says that it would lead.
//
// Who leads the metadata does not matter for load, and stays.
type balance struct {
	b     *Broker
	ready map[replication.ShardID]int // looks in a row that found the wanted leader ready
	moved atomic.Uint64
}

func newBalance(b *Broker) *balance {
	return &balance{b: b, ready: make(map[replication.ShardID]int)}
}

// run looks at each interval until the broker stops.
func (l *balance) run() {
	ticker := time.NewTicker(l.b.opt.BalanceInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			l.look()
		case <-l.b.stopping.Done():
			return
		}
	}
}

// look looks at each shard that this node leads and another is to lead.
func (l *balance) look() {
	if l.b.refusal() != nil {
		return // leaderships go away otherwise
	}
	var due []*dataShard
	for id, s := range l.b.carried() {
		switch to := l.b.wantedLeader(id); {
		case s.replica.Leading() == 0 || to < 0 || to == l.b.opt.NodeID || !l.caughtUp(s, to):
			delete(l.ready, id)
		default:
			if l.ready[id]++; l.ready[id] >= balanceLooks {
				due = append(due, s)
			}
		}
	}
	slices.SortFunc(due, func(a, b *dataShard) int { return int(a.id) - int(b.id) })
	for _, s := range due {
		to := l.b.wantedLeader(s.id)
		if err := l.move(s, to); err != nil {
			delete(l.ready, s.id)
			if l.b.stopping.Err() == nil {
				l.b.opt.Log.Info("a leadership stays where it is for now", "shard", s.id, "wanted_node", to, "err", err)
			}
			continue
		}
		l.moved.Add(1)
		l.b.opt.Log.Info("a leadership was brought back to its node", "shard", s.id, "node", to)
	}
}

// wantedLeader returns the node that is to lead a data shard, -1 if none is named:
// in turn, so that each leads its share.
func (b *Broker) wantedLeader(shard replication.ShardID) int32 {
	s := b.image().Shard(metadata.ShardID(shard))
	if s == nil || len(s.Replicas) == 0 {
		return -1
	}
	return int32(s.Preferred())
}

// caughtUp reports whether a node has a voter of a shard that this one leads, is
// connected, and lacks little of the log.
func (l *balance) caughtUp(s *dataShard, node int32) bool {
	p := s.replica.Progress()
	return p.Leading && l.b.opt.Cluster.Peers.Connected(node) && slices.ContainsFunc(p.Members, func(m replication.Member) bool {
		return m.ID.Node == node && m.Voter && !m.Behind && m.Match > 0 && m.Match+maxLagEntries >= p.Last
	})
}

// move hands a leadership over to a node that would have it.
func (l *balance) move(s *dataShard, to int32) error {
	ctx, cancel := context.WithTimeout(l.b.stopping, balanceTimeout)
	defer cancel()
	m := mandate{shard: s.id, replica: replication.ReplicaID{Node: to}, term: s.replica.Leading()}
	if err := l.b.asksFit(ctx, m); err != nil {
		return err
	}
	return s.replica.TransferTo(ctx, to, maxLagEntries)
}

// answerFit answers methodFit.
func (b *Broker) answerFit(payload []byte) ([]byte, error) {
	m, err := decodeMandate(payload)
	if err != nil {
		return nil, err
	}
	return nil, b.fitToLead(m.shard)
}

// fitToLead returns nil if this node would lead a shard for good, and otherwise why
// not.
func (b *Broker) fitToLead(shard replication.ShardID) error {
	if err := b.roomToLead(shard); err != nil {
		return err
	}
	if b.relief.recently() {
		return fmt.Errorf("the disk of node %d was nearly full a moment ago", b.opt.NodeID)
	}
	return nil
}
