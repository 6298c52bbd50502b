package broker

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/partition"
)

// partitionKey names a partition across the cluster.
type partitionKey struct {
	topic partition.TopicID
	index int32
}

// placed is a partition that a shard of this node carries.
type placed struct {
	key       partitionKey
	shard     *dataShard
	number    partition.Number
	baseEpoch int32
	config    partition.Config
	stamp     uint64 // metadata index of its newest config

	// quarantine is the index of the entry that put it into quarantine on this
	// replica (R5), or 0.
	quarantine uint64
	traffic    *topicCounters

	policy atomic.Pointer[policy] // a cache: see Broker.policy
}

func (p *placed) quarantined() bool { return p.quarantine != 0 }

// epoch returns the partition's leader epoch if this node leads its shard, else
// -1 (R16).
func (p *placed) epoch() int32 {
	term := p.shard.replica.Leading()
	if term == 0 {
		return -1
	}
	return p.baseEpoch + int32(term)
}

// directory finds the partitions of this node's shards. The machines of the
// shards write it as they apply; everybody reads it.
type directory struct {
	mu       sync.RWMutex
	byKey    map[partitionKey]*placed       // values are replaced, never changed
	deleted  map[partition.TopicID]struct{} // topics that lost partitions since the start
	awaiting map[partitionKey][]chan struct{}

	topics    map[partition.TopicID]*topicCounters // at most maxTopics
	others    topicCounters                        // of the topics that are not in it
	maxTopics int
}

// newDirectory returns a directory that counts the traffic of maxTopics topics,
// and of all others together.
func newDirectory(maxTopics int) *directory {
	return &directory{
		byKey:    make(map[partitionKey]*placed),
		deleted:  make(map[partition.TopicID]struct{}),
		awaiting: make(map[partitionKey][]chan struct{}),

		topics: make(map[partition.TopicID]*topicCounters), maxTopics: maxTopics,
	}
}

func (d *directory) find(topic partition.TopicID, index int32) *placed {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.byKey[partitionKey{topic, index}]
}

// count returns how many partitions there are.
func (d *directory) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.byKey)
}

// put enters p, and gives it its topic's counters.
func (d *directory) put(p *placed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before := d.byKey[p.key]; before != nil {
		p.traffic = before.traffic
	} else {
		p.traffic = d.topicOf(p.key.topic)
	}
	d.byKey[p.key] = p
	d.wakeLocked(p.key)
}

func (d *directory) remove(k partitionKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.byKey[k]; p != nil {
		d.leave(k.topic, p.traffic)
	}
	delete(d.byKey, k)
	d.deleted[k.topic] = struct{}{}
	d.wakeLocked(k)
}

func (d *directory) deletedSinceStart(topic partition.TopicID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ok := d.deleted[topic]
	return ok
}

func (d *directory) wakeLocked(k partitionKey) {
	for _, ch := range d.awaiting[k] {
		close(ch)
	}
	delete(d.awaiting, k)
}

// changed returns a channel that is closed when partition k comes or goes, and
// what stops that; or nil if it is as wanted already.
func (d *directory) changed(k partitionKey, wantPresent bool) (ch chan struct{}, stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, present := d.byKey[k]; present == wantPresent {
		return nil, nil
	}
	ch = make(chan struct{})
	d.awaiting[k] = append(d.awaiting[k], ch)
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		left := slices.DeleteFunc(d.awaiting[k], func(c chan struct{}) bool { return c == ch })
		if d.awaiting[k] = left; len(left) == 0 {
			delete(d.awaiting, k)
		}
	}
}
