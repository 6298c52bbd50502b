package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/replication"
)

const (
	// handoverPatience is for how long an answer that this node does not lead a shard
	// waits for who does, from when nobody is known to.
	handoverPatience = time.Second

	// handoverTick is how often it is looked whether somebody is.
	handoverTick = 2 * time.Millisecond
)

// handovers are the shards that this node carries and knows no leader of that serves,
// since a moment ago. Between two leaders an answer can say who does not lead, but not
// who does, and one that was elected and does not serve yet can name nobody but itself.
// A client that is refused so waits before its next try, or asks for metadata first,
// which some do once in several seconds, while the next leader is there in a moment.
type handovers struct {
	mu sync.Mutex
	of map[replication.ShardID]*handover
}

// handover is the time between two leaders of a shard.
type handover struct {
	term uint64          // the newest that the replica knew when it began
	over context.Context // ends when there is a leader, or none was heard of for handoverPatience
}

// handover returns a context that ends when this node knows who leads a shard; nil if
// it does, or has not for handoverPatience. Then the next term is waited for again.
func (b *Broker) handover(s *dataShard) context.Context {
	if b.opt.Cluster == nil {
		return nil
	}
	b.handovers.mu.Lock()
	defer b.handovers.mu.Unlock()
	if _, _, known := b.shardLeaderOf(s.id); known {
		return nil
	}
	term, h := s.replica.Term(), b.handovers.of[s.id]
	if h == nil || h.over.Err() != nil && h.term != term {
		over, end := context.WithTimeout(b.stopping, handoverPatience)
		h = &handover{term: term, over: over}
		b.handovers.of[s.id] = h
		b.watchHandover(s.id, over, end)
	}
	if h.over.Err() != nil {
		return nil
	}
	return h.over
}

// watchHandover ends a handover when it is over.
func (b *Broker) watchHandover(shard replication.ShardID, over context.Context, end context.CancelFunc) {
	time.AfterFunc(handoverTick, func() {
		if over.Err() != nil {
			end()
			return
		}
		if _, _, known := b.shardLeaderOf(shard); !known {
			b.watchHandover(shard, over, end)
			return
		}
		b.handovers.mu.Lock()
		delete(b.handovers.of, shard)
		b.handovers.mu.Unlock()
		end()
	})
}

// handoversOf returns the contexts of those shards for which handover has one.
func (b *Broker) handoversOf(shards []*dataShard) (begun []context.Context) {
	for _, s := range shards {
		if over := b.handover(s); over != nil {
			begun = append(begun, over)
		}
	}
	return begun
}

// afterHandovers calls then when this node knows who leads each of the shards, or has
// not for handoverPatience: at once, or, having waited, in a goroutine of its own.
func (b *Broker) afterHandovers(shards []*dataShard, then func(waited bool)) {
	afterAll(b.handoversOf(shards), false, then)
}

// afterAll calls then when contexts have ended.
func afterAll(all []context.Context, waited bool, then func(waited bool)) {
	if len(all) == 0 {
		then(waited)
		return
	}
	context.AfterFunc(all[0], func() { afterAll(all[1:], true, then) })
}

// awaitHandovers waits while nobody is known to lead the shards, as handover has it, and
// until ctx ends at most. It reports whether neither that has ended nor the broker stops.
func (b *Broker) awaitHandovers(ctx context.Context, shards []*dataShard) bool {
	for _, over := range b.handoversOf(shards) {
		select {
		case <-over.Done():
		case <-ctx.Done():
			return false
		}
	}
	return b.stopping.Err() == nil
}

// unled adds the shard of a partition that is here, unless this node leads it.
func (b *Broker) unled(shards []*dataShard, topic TopicID, index int32) []*dataShard {
	if p := b.dir.find(topic, index); p != nil && p.epoch() < 0 {
		return with(shards, p.shard)
	}
	return shards
}

// with adds a shard to others, once.
func with(shards []*dataShard, s *dataShard) []*dataShard {
	if slices.Contains(shards, s) {
		return shards
	}
	return append(shards, s)
}
