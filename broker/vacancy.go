package broker

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
)

const (
	// vacancyPatience is for how long after a node was lost an answer that names
	// leaders waits for those that come after it.
	vacancyPatience = time.Second

	// vacancyTick is how often it is looked whether they are there.
	vacancyTick = 10 * time.Millisecond

	// maxVacancyWaits is how many requests may wait at a time. The others are
	// answered as if there were nothing to wait for.
	maxVacancyWaits = 256
)

// losses remembers when the way to a node broke last: while it is gone since a
// moment ago, its shards are about to have other leaders.
//
// A node that was never reached is not lost, so one that has just started has
// nothing to wait for. Its time is monotonic, as failover's is.
type losses struct {
	mu      sync.Mutex
	reached map[int32]bool
	at      map[int32]time.Time
}

func newLosses() *losses {
	return &losses{reached: make(map[int32]bool), at: make(map[int32]time.Time)}
}

// note looks at the ways to some nodes, and reports whether one of them was lost
// less than vacancyPatience ago.
func (l *losses) note(now time.Time, nodes iter.Seq[int32], connected func(node int32) bool) (lostOne bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for node := range nodes {
		is := connected(node)
		if l.reached[node] && !is {
			l.at[node] = now // it stays on record when it is back: its shards may have no leader yet
		}
		l.reached[node] = is
		lostOne = lostOne || l.recentLocked(now, node)
	}
	return lostOne
}

// recent reports whether a node was lost less than vacancyPatience ago.
func (l *losses) recent(now time.Time, node int32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recentLocked(now, node)
}

func (l *losses) recentLocked(now time.Time, node int32) bool {
	at, lost := l.at[node]
	return lost && now.Sub(at) < vacancyPatience
}

// AwaitLeaders waits until the nodes that lead shards of the topics, as this one knows,
// have given a sign of life, and then while a shard is about to have another leader:
// one of its nodes was lost less than a second ago, no node that is there is known
// to lead it, and this node reaches a majority of its replicas. It returns when
// there are leaders, when that second is over, when ctx ends or the broker stops;
// and at once if that many wait already. A node that is there and silent is waited for
// aliveTimeout, or twice that.
//
// It is for answers to clients that ask who leads because a connection broke. Some
// of them ask once in several seconds, so one that is told of the lost node, or of
// none, stands still for that long, while the next leader is there in a moment. They
// may come before the node that they ask has heard that the other is gone.
func (b *Broker) AwaitLeaders(ctx context.Context, topics iter.Seq[Topic]) {
	b.awaitLeaders(ctx, shardsOf(topics))
}

// awaitLeaders is AwaitLeaders for shards, which it takes away from the map.
func (b *Broker) awaitLeaders(ctx context.Context, shards map[metadata.ShardID]bool) {
	if b.opt.Cluster == nil || b.opt.Cluster.Peers == nil {
		return
	}
	select {
	case b.vacancyWaits <- struct{}{}:
		defer func() { <-b.vacancyWaits }()
	default:
		return
	}
	var here []*dataShard
	for id, s := range b.carried() {
		if shards[metadata.ShardID(id)] {
			here = append(here, s)
		}
	}
	if !b.awaitHandovers(ctx, here) || !b.awaitSigns(ctx, shards) || !b.noteLosses(time.Now()) {
		return
	}
	b.failover.look() // the way to a node that stands still has not broken: it is silent
	tick := time.NewTicker(vacancyTick)
	defer tick.Stop()
	for {
		for shard := range shards {
			if !b.vacant(shard) {
				delete(shards, shard)
			}
		}
		if len(shards) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-b.stopping.Done():
			return
		}
	}
}

// awaitSigns waits for a sign of life of each other node that leads one of the shards
// and is taken to be there. It reports false when ctx ended or the broker stops.
func (b *Broker) awaitSigns(ctx context.Context, shards map[metadata.ShardID]bool) bool {
	signs := make(map[int32]<-chan struct{})
	for shard := range shards {
		leader, _, ok := b.shardLeaderOf(replication.ShardID(shard))
		if ok && leader != b.opt.NodeID && signs[leader] == nil && b.reaches(leader) {
			signs[leader] = b.alive.of(leader)
		}
	}
	for _, given := range signs {
		select {
		case <-given:
		case <-ctx.Done():
			return false
		case <-b.stopping.Done():
			return false
		}
	}
	return true
}

// shardsOf returns the shards that partitions of some topics are in.
func shardsOf(topics iter.Seq[Topic]) map[metadata.ShardID]bool {
	shards := make(map[metadata.ShardID]bool)
	for t := range topics {
		for _, shard := range t.assignment {
			shards[shard] = true
		}
	}
	return shards
}

// vacant reports whether a shard is about to have another leader; see AwaitLeaders.
func (b *Broker) vacant(shard metadata.ShardID) bool {
	s := b.image().Shard(shard)
	if s == nil {
		return false
	}
	if leader, _, ok := b.shardLeaderOf(replication.ShardID(shard)); ok && b.reaches(leader) {
		return false
	}
	now, lost, reached := time.Now(), false, 0
	for _, node := range s.Replicas {
		lost = lost || b.failover.lost.recent(now, int32(node))
		if b.reaches(int32(node)) {
			reached++
		}
	}
	return lost && reached > len(s.Replicas)/2
}

// noteLosses looks at the ways to the other nodes, and reports whether one of them
// was lost a moment ago. Who asks may have noticed before failover.run does.
func (b *Broker) noteLosses(now time.Time) bool {
	return b.failover.lost.note(now, b.otherNodes(), b.opt.Cluster.Peers.Connected)
}

// otherNodes walks the cluster's nodes but this one. A founder may come twice: it is
// there before the metadata lists it.
func (b *Broker) otherNodes() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for _, f := range b.opt.Cluster.Founders {
			if f.ID != b.opt.NodeID && !yield(f.ID) {
				return
			}
		}
		for n := range b.image().Nodes() {
			if id := int32(n.ID); id != b.opt.NodeID && !yield(id) {
				return
			}
		}
	}
}

// reaches reports whether there is a way to a node, which may be this one.
func (b *Broker) reaches(node int32) bool {
	return node == b.opt.NodeID || b.opt.Cluster.Peers.Connected(node)
}
