package broker

import (
	"container/heap"
	"math"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
)

const (
	// defaultRetentionInterval is Kafka's log.retention.check.interval.ms.
	defaultRetentionInterval = 5 * time.Minute

	// growthDelay is how soon a partition that grew is looked at for its size:
	// what grows without pause is looked at once in that time.
	growthDelay = time.Second

	// retentionDelay is how long after a start nothing is deleted, as in Kafka.
	retentionDelay = 30 * time.Second

	// futureMargin is how far in the future a timestamp is that a clock which is
	// a little ahead does not explain.
	futureMargin = time.Hour

	// futureInterval is the time between two lines of the log about such.
	futureInterval = 10 * time.Minute

	// whenItGrows stands for the due time of a partition with a limit of size.
	whenItGrows = 100 * 365 * 24 * time.Hour
)

// retention moves log starts as the topics' configs say: by time and by size.
// The leader of a partition decides, and the move is a command in its shard's
// log, like any other.
//
// A partition is looked at when it comes, when its topic changes, after it grew
// if it has a limit of size, and when its oldest extent will have expired. What
// is not due costs nothing. Within the first seconds of a node it does nothing.
type retention struct {
	b        *Broker
	interval time.Duration
	wake     chan struct{} // 1-buffered: something is due earlier, or the metadata changed

	mu     sync.Mutex
	byKey  map[partitionKey]*retained
	queue  retainQueue // those that have a due time
	seen   uint64      // metadata index up to which topics were looked at
	change bool        // there may be newer ones

	// The newest line about timestamps of the future, and how many partitions
	// have had none since; run's alone.
	warned   time.Time
	unwarned int
}

// retained is a partition that retention will look at.
//
// Invariant: it is in byKey and, at place, in queue.
type retained struct {
	key   partitionKey
	due   time.Time
	sized bool // has a limit of size: growth makes it due
	place int
}

func newRetention(b *Broker, interval time.Duration) *retention {
	if interval <= 0 {
		interval = defaultRetentionInterval
	}
	return &retention{b: b, interval: interval, wake: make(chan struct{}, 1), byKey: make(map[partitionKey]*retained)}
}

func (r *retention) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// look makes a partition due now. It does not block.
func (r *retention) look(key partitionKey) { r.schedule(key, r.b.opt.Now(), false) }

// changed says that the metadata may have moved. It does not block.
func (r *retention) changed() {
	r.mu.Lock()
	r.change = true
	r.mu.Unlock()
	r.signal()
}

// grew says that a partition's files grew. It does not block.
func (r *retention) grew(key partitionKey) {
	r.mu.Lock()
	e := r.byKey[key]
	sized := e != nil && e.sized
	r.mu.Unlock()
	switch now := r.b.opt.Now(); {
	case sized:
		r.schedule(key, now.Add(growthDelay), true)
	case e == nil:
		r.schedule(key, now.Truncate(r.interval).Add(r.interval), false)
	}
}

// schedule makes a partition due at a time, unless it is due earlier.
func (r *retention) schedule(key partitionKey, due time.Time, sized bool) {
	r.mu.Lock()
	e := r.byKey[key]
	switch {
	case e == nil:
		e = &retained{key: key, due: due, sized: sized}
		r.byKey[key] = e
		heap.Push(&r.queue, e)
	case due.Before(e.due):
		e.due = due
		heap.Fix(&r.queue, e.place)
	}
	first := r.queue[0] == e
	r.mu.Unlock()
	if first {
		r.signal()
	}
}

// run looks at what is due, for as long as the broker runs.
func (r *retention) run() {
	timer := time.NewTimer(min(retentionDelay, r.interval))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.b.stopping.Done():
		return
	}
	for {
		timer.Reset(r.pass(r.b.opt.Now()))
		select {
		case <-r.wake:
		case <-timer.C:
		case <-r.b.stopping.Done():
			return
		}
	}
}

// pass looks at all that is due at now, and returns how long until there is
// more.
func (r *retention) pass(now time.Time) time.Duration {
	r.lookAtChanged()
	for r.b.stopping.Err() == nil {
		key, wait := r.next(now)
		if wait > 0 {
			return wait
		}
		if next, sized := r.judge(key, now); !next.IsZero() {
			r.schedule(key, next, sized)
		}
	}
	return r.interval
}

// lookAtChanged makes the partitions of changed topics due.
func (r *retention) lookAtChanged() {
	r.mu.Lock()
	change, seen := r.change, r.seen
	r.change = false
	r.mu.Unlock()
	if !change {
		return
	}
	im := r.b.image()
	for t := range im.Topics() {
		for i := range t.Assignment {
			if t.UpdatedAt > seen {
				r.look(partitionKey{partition.TopicID(t.ID), int32(i)})
			}
		}
	}
	r.mu.Lock()
	r.seen = im.Index()
	r.mu.Unlock()
}

// next takes a partition that is due at now off the queue, or returns how long
// there is none.
func (r *retention) next(now time.Time) (partitionKey, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return partitionKey{}, r.interval
	}
	if wait := r.queue[0].due.Sub(now); wait > 0 {
		return partitionKey{}, wait
	}
	e := heap.Pop(&r.queue).(*retained)
	delete(r.byKey, e.key)
	return e.key, 0
}

// judge looks at one partition, proposes its next log start, and returns when
// to look again, the zero time standing for when it grows, and whether it has a limit of
// size.
func (r *retention) judge(key partitionKey, now time.Time) (time.Time, bool) {
	p := r.b.dir.find(key.topic, key.index)
	t := r.b.image().TopicByID(metadata.TopicID(key.topic))
	if p == nil || t == nil || p.quarantined() {
		return time.Time{}, false // deleted, or not here yet: it is looked at when it comes
	}
	policy := store.Retention{
		MS:    metadata.ConfigInt64(t.Configs, metadata.ConfigRetentionMS),
		Bytes: metadata.ConfigInt64(t.Configs, metadata.ConfigRetentionBytes),
	}
	if metadata.ConfigValue(t.Configs, metadata.ConfigCleanupPolicy) != metadata.CleanupDelete {
		policy = store.Retention{MS: -1, Bytes: -1}
	}
	bySize := policy.Bytes >= 0
	p.shard.store.SetSegmentMS(uint32(p.number), metadata.ConfigInt64(t.Configs, metadata.ConfigSegmentMS))
	if p.epoch() < 0 {
		return now.Add(r.interval), bySize // the leader decides
	}
	found, err := p.shard.store.Retain(uint32(p.number), policy, now.UnixMilli())
	if err != nil {
		return time.Time{}, false // deleted meanwhile
	}
	if found.LogStart > found.Present {
		r.b.opt.Log.Debug("retention", "topic", t.Name, "partition", key.index, "log_start", found.LogStart, "was", found.Present)
		r.b.proposeLogStart(p, found.LogStart, func(res partition.Result, err error) {
			if err != nil { // the next leader decides anew, and so do we
				r.schedule(key, r.b.opt.Now().Add(r.interval), bySize)
			}
			r.b.removed.byRetention.Add(uint64(res.Removed))
		})
	}
	if found.FutureMS > now.Add(futureMargin).UnixMilli() {
		r.warnFuture(t.Name, key.index, found.FutureMS, now)
	}
	switch {
	case found.DueMS == math.MaxInt64 && bySize:
		return now.Add(whenItGrows), bySize
	case found.DueMS == math.MaxInt64:
		return time.Time{}, false // when it grows
	}
	// At the first multiple of the interval after it is due, so that many go at
	// once.
	return time.UnixMilli(found.DueMS).Truncate(r.interval).Add(r.interval), bySize
}

// warnFuture says that a partition keeps its records for as long as one of them
// claims to be from the future: somebody who waits for retention to free the
// disk should know.
func (r *retention) warnFuture(topic string, index int32, ms int64, now time.Time) {
	if !r.warned.IsZero() && now.Sub(r.warned) < futureInterval {
		r.unwarned++
		return
	}
	r.b.opt.Log.Warn("retention.ms keeps records because of a timestamp in the future; correct the producer's clock, and have what is too much deleted with DeleteRecords, retention.bytes, or message.timestamp.type=LogAppendTime for what comes",
		"topic", topic, "partition", index, "timestamp", time.UnixMilli(ms).UTC(), "other_partitions_since_the_last_line", r.unwarned)
	r.warned, r.unwarned = now, 0
}

// retainQueue is a heap of partitions, by due time.
type retainQueue []*retained

func (q retainQueue) Len() int           { return len(q) }
func (q retainQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q retainQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

func (q *retainQueue) Push(x any) {
	e := x.(*retained)
	e.place = len(*q)
	*q = append(*q, e)
}

func (q *retainQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
