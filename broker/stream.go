package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition/store"
)

// Bounds on one Stream.Next.
const (
	maxStreamResults = 1000   // partitions answered
	maxStreamLooks   = 10_000 // partitions looked at
)

// StreamPart is where a stream begins, or goes on, in a partition.
type StreamPart struct {
	Topic      TopicID
	Index      int32
	Offset     int64
	Epoch      int32  // newest leader epoch that the client knows, -1: none
	Generation uint32 // returned with each result
	Paused     bool
}

// PartitionRef names a partition.
type PartitionRef struct {
	Topic TopicID
	Index int32
}

// StreamResult is what came of one partition: batches from offset From on, the
// next one beginning at Next, or an error, with which the partition has left
// the stream. The receiver owns the chunks, and releases them.
type StreamResult struct {
	Topic      TopicID
	Index      int32
	Generation uint32 // of the StreamPart that is answered
	From, Next int64
	FetchResult
}

// Stream follows many partitions, of which those that have something to read
// wait in a queue. It has no goroutine. A partition that has nothing costs no
// more than its entry, and one that moves is queued in constant time, however
// many there are.
//
// All methods are safe for concurrent use, but only one goroutine calls Next.
type Stream struct {
	b     *Broker
	ready func()

	mu     sync.Mutex
	parts  map[partitionKey]*followed
	queue  fifo // some may have left, or be paused
	closed bool
}

// fifo is a queue, first come, first served.
type fifo struct {
	all  []*followed
	head int // of all, whose earlier places are free
}

func (q *fifo) len() int         { return len(q.all) - q.head }
func (q *fifo) push(f *followed) { q.all = append(q.all, f) }

// pop removes the first; there must be one.
func (q *fifo) pop() *followed {
	f := q.all[q.head]
	q.all[q.head] = nil
	switch q.head++; {
	case q.head == len(q.all):
		*q = fifo{} // a queue that was long once is not kept
	case q.head > 1024 && q.head > len(q.all)/2:
		q.all, q.head = append([]*followed(nil), q.all[q.head:]...), 0
	}
	return f
}

// unpop makes f, which was popped, the first again.
func (q *fifo) unpop(f *followed) {
	if q.head == 0 {
		q.all = append([]*followed{nil}, q.all...)
		q.head = 1
	}
	q.head--
	q.all[q.head] = f
}

// followed is a partition of a stream. Its fields are guarded by Stream.mu.
type followed struct {
	key        partitionKey
	offset     int64
	epoch      int32
	generation uint32
	paused     bool
	queued     bool // in queue: not more than once
	gone       bool
	watch      *store.Watch // nil: the partition is not here
}

// NewStream returns a stream of no partitions. ready is called whenever the
// queue is no longer empty: from any goroutine, that of Apply too, so it must
// be short, wait for nothing, and not call the stream. The caller closes it.
func (b *Broker) NewStream(ready func()) *Stream {
	return &Stream{b: b, ready: ready, parts: make(map[partitionKey]*followed)}
}

// Close forgets the partitions. Results that Next has returned stay valid.
func (s *Stream) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, f := range s.parts {
		s.dropLocked(f)
	}
	s.queue = fifo{}
}

// StreamChange changes the partitions of a stream.
type StreamChange struct {
	Set                   []StreamPart
	Remove, Pause, Resume []PartitionRef
}

// Change makes all of a change, in the order of its fields, or nothing: an
// error is INVALID_REQUEST. most bounds the partitions of the stream after it;
// above that the error is POLICY_VIOLATION. Partitions to be removed, paused or
// resumed that are not there are passed over: they may have left by themselves.
func (s *Stream) Change(c StreamChange, most int) error {
	wake, err := s.change(c, most)
	if wake {
		s.ready()
	}
	return err
}

// change is Change, and reports whether there is something to read now that
// nobody was told of.
func (s *Stream) change(c StreamChange, most int) (wake bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock() // after a panic too
	idle := s.queue.len() == 0
	if err := s.checkLocked(c, most); err != nil || s.closed {
		return false, err
	}
	for _, p := range c.Set {
		s.setLocked(p)
	}
	for _, ref := range c.Remove {
		if f := s.parts[partitionKey{ref.Topic, ref.Index}]; f != nil {
			s.dropLocked(f)
		}
	}
	for _, ref := range c.Pause {
		if f := s.parts[partitionKey{ref.Topic, ref.Index}]; f != nil {
			f.paused = true
		}
	}
	for _, ref := range c.Resume {
		if f := s.parts[partitionKey{ref.Topic, ref.Index}]; f != nil && f.paused {
			f.paused = false
			s.queueLocked(f)
		}
	}
	return idle && s.queue.len() > 0, nil
}

// checkLocked refuses a change that contradicts itself or the stream.
func (s *Stream) checkLocked(c StreamChange, most int) error {
	seen := make(map[partitionKey]bool, len(c.Set)+len(c.Remove)+len(c.Pause)+len(c.Resume))
	once := func(topic TopicID, index int32) error {
		k := partitionKey{topic, index}
		if seen[k] {
			return errcode.Errorf(errcode.InvalidRequest, "partition %d of topic %x stands twice in one change", index, topic)
		}
		seen[k] = true
		return nil
	}
	after := len(s.parts)
	for _, p := range c.Set {
		if err := once(p.Topic, p.Index); err != nil {
			return err
		}
		switch f := s.parts[partitionKey{p.Topic, p.Index}]; {
		case f == nil:
			after++
		case p.Generation <= f.generation:
			return errcode.Errorf(errcode.InvalidRequest, "partition %d of topic %x has generation %d; give a higher one than %d",
				p.Index, p.Topic, f.generation, p.Generation)
		}
	}
	for _, refs := range [][]PartitionRef{c.Remove, c.Pause, c.Resume} {
		for _, ref := range refs {
			if err := once(ref.Topic, ref.Index); err != nil {
				return err
			}
		}
	}
	for _, ref := range c.Remove {
		if s.parts[partitionKey{ref.Topic, ref.Index}] != nil {
			after--
		}
	}
	if after > most {
		return errcode.Errorf(errcode.PolicyViolation, "a stream of %d partitions; there is room for %d on this connection", after, most)
	}
	return nil
}

// setLocked adds a partition, or lets it go on elsewhere.
func (s *Stream) setLocked(part StreamPart) {
	k := partitionKey{part.Topic, part.Index}
	if old := s.parts[k]; old != nil {
		s.dropLocked(old)
	}
	f := &followed{key: k, offset: part.Offset, epoch: part.Epoch, generation: part.Generation, paused: part.Paused}
	s.parts[k] = f
	s.watchLocked(f)
	s.queueLocked(f)
}

// watchLocked asks to be told when a partition moves, if it is here. It is
// looked at after this, so nothing is missed.
func (s *Stream) watchLocked(f *followed) {
	if p := s.b.dir.find(f.key.topic, f.key.index); p != nil {
		f.watch, _, _ = p.shard.store.Watch(uint32(p.number), func(uint32) { s.moved(f) }) // an error is the next look's
	}
}

// dropLocked forgets a partition. It stays in queue, to be passed over.
func (s *Stream) dropLocked(f *followed) {
	f.gone = true
	if f.watch != nil {
		f.watch.Stop()
	}
	delete(s.parts, f.key)
}

// moved queues a partition whose end has moved, that was deleted, or whose leader has
// changed (see dataShard.turned). It runs where that happens.
func (s *Stream) moved(f *followed) {
	s.mu.Lock()
	wake := s.queueLocked(f)
	s.mu.Unlock()
	if wake {
		s.ready()
	}
}

// queueLocked queues a partition and reports whether it is the first.
func (s *Stream) queueLocked(f *followed) (first bool) {
	if f.gone || f.paused || f.queued {
		return false
	}
	f.queued = true
	s.queue.push(f)
	return s.queue.len() == 1
}

// Partitions returns how many partitions the stream has.
func (s *Stream) Partitions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parts)
}

// Next reads from those partitions that have something, each in its turn and
// at most maxPartitionBytes of it, until there are maxBytes of them all. The
// first batch may exceed both. A partition that has more waits for its next
// turn behind the others.
//
// more says that some still wait: they are looked at by the next Next, and
// ready is not called for them.
func (s *Stream) Next(maxBytes, maxPartitionBytes int) (results []StreamResult, more bool) {
	whole := false
	defer func() {
		for i := range results {
			if !whole { // a panic
				results[i].Release()
			}
		}
	}()
	left := maxBytes
	var confirmed Confirmed
	for range maxStreamLooks {
		if left <= 0 || len(results) >= maxStreamResults {
			break
		}
		f, part := s.take()
		if f == nil {
			break
		}
		results = append(results, StreamResult{Topic: part.Topic, Index: part.Index, From: part.Offset, Next: part.Offset})
		res := &results[len(results)-1]
		s.b.readPart(&res.FetchResult, &part, "", &confirmed, int64(min(left, maxPartitionBytes)), left == maxBytes)
		if n := len(res.Chunks); n > 0 {
			res.Next = res.Chunks[n-1].End
		}
		if s.settle(f, res, left < maxBytes) {
			left -= int(res.Bytes())
			continue
		}
		blocked := left < maxBytes && res.blocked()
		results = results[:len(results)-1]
		if blocked {
			break // it is the first of the next Next
		}
	}
	whole = true
	s.mu.Lock()
	defer s.mu.Unlock()
	return results, s.queue.len() > 0
}

// awaitsLeader reports whether a partition is to be looked at again, as this node does
// not lead it and does not know who does: that comes in a moment.
func (s *Stream) awaitsLeader(f *followed, err *errcode.Error) bool {
	if err.Code != errcode.NotLeaderOrFollower {
		return false
	}
	p := s.b.dir.find(f.key.topic, f.key.index)
	if p == nil {
		return false
	}
	over := s.b.handover(p.shard)
	if over == nil {
		return false
	}
	context.AfterFunc(over, func() { s.moved(f) })
	return true
}

// take removes the first of the queue that is to be read. The partition's own
// place is copied, since it may be set anew while it is read.
func (s *Stream) take() (*followed, FetchPart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queue.len() > 0 {
		f := s.queue.pop()
		f.queued = false // before it is read: what moves from here on is read again
		if !f.gone && !f.paused {
			return f, FetchPart{Topic: f.key.topic, Index: f.key.index, Offset: f.offset, Epoch: f.epoch}
		}
	}
	return nil, FetchPart{}
}

// blocked says that there was something to read, and no room for it.
func (r *StreamResult) blocked() bool {
	return r.Err == nil && len(r.Chunks) == 0 && r.From < r.HighWatermark
}

// settle takes note of what was read, and reports whether it is to be
// delivered. If not, it gives the chunks back.
func (s *Stream) settle(f *followed, r *StreamResult, others bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Generation = f.generation
	switch {
	case f.gone: // removed, or set anew, meanwhile
		r.Release()
		return false
	case r.Err != nil && s.awaitsLeader(f, r.Err):
		return false
	case r.Err != nil:
		s.dropLocked(f)
		return true
	}
	f.offset = r.Next
	if f.watch == nil { // it has come since it was set
		s.watchLocked(f)
		defer s.queueLocked(f)
	}
	if r.blocked() && others && !f.queued && !f.paused {
		f.queued = true
		s.queue.unpop(f)
		return false
	}
	if r.Next < r.HighWatermark {
		s.queueLocked(f)
	}
	return len(r.Chunks) > 0
}

// Reload reads the batches of [From, Next) again, after Release: from wherever
// they lie by now. What was read before is what comes now, or it is an error:
// the partition was deleted, or its log start or its cleaner has passed them.
func (b *Broker) Reload(r *StreamResult, bytes int64) error {
	p := b.dir.find(r.Topic, r.Index)
	if p == nil {
		return b.absent(r.Topic, r.Index)
	}
	for offset, left := r.From, bytes; offset < r.Next; {
		c, err := p.shard.store.Read(uint32(p.number), offset, int(left), true)
		if err != nil {
			r.Release()
			return err
		}
		r.Chunks = append(r.Chunks, c)
		if c.Bytes == 0 || c.Bytes > left || c.End > r.Next {
			break
		}
		offset, left = c.End, left-c.Bytes
	}
	if n := len(r.Chunks); r.FetchResult.Bytes() != bytes || n == 0 || r.Chunks[n-1].End != r.Next {
		r.Release()
		return fmt.Errorf("broker: records from offset %d to %d changed while they were delivered", r.From, r.Next)
	}
	return nil
}
