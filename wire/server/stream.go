package server

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Limits of streams, as docs/protocol.md gives them.
const (
	// maxStreams bounds the open streams of a connection.
	maxStreams = 64

	// maxStreamPartitions bounds the partitions of all streams of a connection.
	maxStreamPartitions = 50_000

	// maxCreditBytes bounds what a stream may be owed at a time.
	maxCreditBytes = 1 << 30

	// defaultDeliverBytes and maxDeliverBytes are of one Deliver, beside a
	// single larger batch.
	defaultDeliverBytes = 1 << 20
	maxDeliverBytes     = 8 << 20
)

// stream is one open stream of a connection. Its fields are guarded by
// streams.mu.
type stream struct {
	id                uint32
	from              *broker.Stream
	maxBytes          int
	maxPartitionBytes int
	partitions        int

	granted uint64 // by the client, in all
	sent    uint64 // may exceed granted by less than one batch
	begun   bool   // the answer of Subscribe is on its way, before all that is delivered
	ready   bool   // from has something, or failed is set
	queued  bool   // in streams.runnable
	failed  *errcode.Error
}

// streams are those of a connection. The writer takes one delivery after
// another from them, one stream after another, when it has no answers to
// write; so what is not yet being written is in no memory but the store's.
type streams struct {
	c    *conn
	wake chan struct{} // 1-buffered: runnable is not empty

	mu         sync.Mutex
	byID       map[uint32]*stream
	runnable   []*stream // first come, first served
	partitions int
	ended      bool
}

func newStreams(c *conn) *streams {
	return &streams{c: c, wake: make(chan struct{}, 1), byID: make(map[uint32]*stream)}
}

// subscribe opens a stream and answers.
func (q *request) subscribe(m *pb.SubscribeRequest) {
	parts, err := streamParts(m.Parts)
	if err != nil {
		q.fail(err)
		return
	}
	ss := q.streams
	// What one Deliver reads fits in a frame, with a first batch that is larger:
	// see New.
	room := max(q.s.opt.MaxFrameBytes-frame.HandshakeMaxBytes-frame.DefaultMaxHeaderBytes, 1)
	st := &stream{id: m.Stream, granted: m.CreditBytes}
	st.maxBytes = min(orDefault(m.MaxBytes, defaultDeliverBytes, maxDeliverBytes), room,
		delivery.MostBytes(q.s.opt.Answers))
	st.maxPartitionBytes = orDefault(m.MaxPartitionBytes, st.maxBytes, st.maxBytes)
	if err := ss.open(st, m.CreditBytes); err != nil {
		q.fail(err)
		return
	}
	if err := ss.change(st, broker.StreamChange{Set: parts}); err != nil {
		ss.close(st.id)
		q.fail(err)
		return
	}
	q.send(answer{kind: q.Kind, flags: frame.FlagResponse, id: q.CorrelationID, header: &pb.SubscribeResponse{}, opens: st})
}

// orDefault returns v, none for 0, and at most most.
func orDefault(v uint32, none, most int) int {
	if v == 0 {
		return none
	}
	return int(min(int64(v), int64(most)))
}

func streamParts(in []*pb.StreamPart) ([]broker.StreamPart, error) {
	out := make([]broker.StreamPart, len(in))
	for i, p := range in {
		id, err := topicID(p.TopicId)
		if err != nil {
			return nil, err
		}
		out[i] = broker.StreamPart{
			Topic: id, Index: p.Partition, Offset: p.Offset, Epoch: p.LeaderEpoch, Generation: p.Generation, Paused: p.Paused,
		}
	}
	return out, nil
}

func partitionRefs(in []*pb.PartitionRef) ([]broker.PartitionRef, error) {
	out := make([]broker.PartitionRef, len(in))
	for i, p := range in {
		id, err := topicID(p.TopicId)
		if err != nil {
			return nil, err
		}
		out[i] = broker.PartitionRef{Topic: id, Index: p.Partition}
	}
	return out, nil
}

// changeStream changes a stream's partitions and answers.
func (q *request) changeStream(m *pb.ChangeStreamRequest) {
	var c broker.StreamChange
	var err error
	if c.Set, err = streamParts(m.Set); err == nil {
		if c.Remove, err = partitionRefs(m.Remove); err == nil {
			if c.Pause, err = partitionRefs(m.Pause); err == nil {
				c.Resume, err = partitionRefs(m.Resume)
			}
		}
	}
	if err != nil {
		q.fail(err)
		return
	}
	st := q.streams.find(m.Stream)
	if st == nil {
		q.fail(noStream(m.Stream))
		return
	}
	if err := q.streams.change(st, c); err != nil {
		q.fail(err)
		return
	}
	q.reply(&pb.ChangeStreamResponse{})
}

func (q *request) unsubscribe(m *pb.UnsubscribeRequest) {
	if !q.streams.close(m.Stream) {
		q.fail(noStream(m.Stream))
		return
	}
	q.reply(&pb.UnsubscribeResponse{})
}

func noStream(id uint32) error {
	return errcode.Errorf(errcode.ResourceNotFound, "no stream %d is open on this connection", id)
}

// credit lets a stream send more. A stream that is not there may have ended
// while the credit was under way.
func (q *request) credit(m *pb.Credit) {
	q.streams.grant(m.Stream, m.TotalBytes)
	q.send(answer{})
}

// open registers a stream that does not run yet.
func (ss *streams) open(st *stream, credit uint64) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	switch {
	case st.id == 0:
		return errcode.Errorf(errcode.InvalidRequest, "stream 0; give a number from 1 on")
	case ss.byID[st.id] != nil:
		return errcode.Errorf(errcode.InvalidRequest, "stream %d is open on this connection", st.id)
	case credit > maxCreditBytes:
		return errcode.Errorf(errcode.InvalidRequest, "a credit of %d bytes; a stream may be owed %d", credit, maxCreditBytes)
	case len(ss.byID) >= maxStreams:
		return errcode.Errorf(errcode.PolicyViolation, "%d streams are open on this connection, which is the limit; end one of them", maxStreams)
	case ss.ended:
		return errcode.Errorf(errcode.NetworkException, "the connection is closing")
	}
	st.from = ss.c.s.opt.Broker.NewStream(func() { ss.run(st) })
	ss.byID[st.id] = st
	ss.c.s.open.take(1)
	return nil
}

// change changes a stream's partitions, and counts them. Only the connection's
// reading goroutine calls it.
func (ss *streams) change(st *stream, c broker.StreamChange) error {
	node := &ss.c.s.followed
	most := int64(len(c.Set))
	if !node.take(most) {
		return errcode.Errorf(errcode.ThrottlingQuotaExceeded,
			"the streams of this node follow as many partitions as they may, %d", node.limit)
	}
	defer func() { // after a panic too
		now := st.from.Partitions() // those that left by an error are not counted any more
		ss.mu.Lock()
		was := st.partitions
		if ss.byID[st.id] != st { // ended meanwhile
			now = was
		}
		st.partitions = now
		ss.partitions += now - was
		ss.mu.Unlock()
		node.give(most - int64(now-was))
	}()
	ss.mu.Lock()
	room := maxStreamPartitions - ss.partitions + st.partitions
	ss.mu.Unlock()
	return st.from.Change(c, room)
}

// tally counts something that a node has a limit for.
type tally struct {
	limit int64
	used  atomic.Int64
}

func (t *tally) take(n int64) bool {
	if t.used.Add(n) > t.limit {
		t.used.Add(-n)
		return false
	}
	return true
}

func (t *tally) give(n int64) { t.used.Add(-n) }

func (ss *streams) find(id uint32) *stream {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.byID[id]
}

// close ends a stream: nothing of it is read any more. It reports whether it
// was open.
func (ss *streams) close(id uint32) bool {
	ss.mu.Lock()
	st := ss.byID[id]
	if st == nil {
		ss.mu.Unlock()
		return false
	}
	ss.forgetLocked(st)
	ss.mu.Unlock()
	st.from.Close()
	return true
}

func (ss *streams) forgetLocked(st *stream) {
	delete(ss.byID, st.id)
	ss.c.s.open.give(1)
	ss.partitions -= st.partitions
	ss.c.s.followed.give(int64(st.partitions))
	st.partitions = 0
}

// end closes all streams, for good.
func (ss *streams) end() {
	ss.mu.Lock()
	ss.ended = true
	all := slices.Collect(maps.Values(ss.byID))
	for _, st := range all {
		ss.forgetLocked(st)
	}
	ss.runnable = nil
	ss.mu.Unlock()
	for _, st := range all {
		st.from.Close()
	}
}

// grant raises a stream's credit to total bytes. A credit that falls, or is
// above the limit, ends the stream: there is no response to refuse it in.
func (ss *streams) grant(id uint32, total uint64) {
	ss.mu.Lock()
	st := ss.byID[id]
	if st == nil || st.failed != nil {
		ss.mu.Unlock()
		return
	}
	switch {
	case total < st.granted:
		st.failed = errcode.Errorf(errcode.InvalidRequest, "a credit of %d bytes in all, after one of %d", total, st.granted)
	case total > st.sent && total-st.sent > maxCreditBytes:
		st.failed = errcode.Errorf(errcode.InvalidRequest, "a credit of %d bytes with %d sent; a stream may be owed %d", total, st.sent, maxCreditBytes)
	default:
		st.granted = total
	}
	if st.failed != nil {
		st.ready = true
	}
	ss.queueLocked(st)
	ss.mu.Unlock()
}

// begin lets a stream deliver. Only the connection's writing goroutine calls it,
// with the answer of Subscribe behind it: the answer comes before the first
// delivery. If the reading goroutine did it, however late, the writing one could
// have written the answers that there were, and take the delivery next.
func (ss *streams) begin(st *stream) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	st.begun = true
	ss.queueLocked(st)
}

// run lets a stream have its turn: there is something to deliver. It is called
// where partitions move, so it waits for nothing.
func (ss *streams) run(st *stream) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	st.ready = true
	ss.queueLocked(st)
}

// queueLocked queues a stream that can deliver: one that has something and may
// send it.
func (ss *streams) queueLocked(st *stream) {
	if st.queued || !st.begun || !st.ready || st.failed == nil && st.sent >= st.granted || ss.byID[st.id] != st {
		return
	}
	st.queued = true
	ss.runnable = append(ss.runnable, st)
	ss.pokeLocked()
}

func (ss *streams) pokeLocked() {
	select {
	case ss.wake <- struct{}{}:
	default:
	}
}

// next reads what is delivered next, with its header; nil if there is nothing.
// Only the connection's writing goroutine calls it.
func (ss *streams) next() (m *pb.Deliver, d *delivery.Delivery) {
	whole := false
	defer func() {
		if !whole && d != nil { // a panic
			d.Release()
		}
	}()
	for {
		st, credit := ss.take()
		if st == nil {
			whole = true
			return nil, nil
		}
		if st.failed != nil {
			ss.close(st.id)
			ss.c.s.meter.Error(deliverPlace, st.failed.Code)
			return &pb.Deliver{Stream: st.id, Error: pbError(st.failed)}, delivery.New(&ss.c.peer, nil, nil, nil)
		}
		results, more := st.from.Next(int(min(credit, uint64(st.maxBytes))), st.maxPartitionBytes)
		d = delivery.New(&ss.c.peer, results, nil, &ss.c.s.pushing)
		ss.mu.Lock()
		st.sent += uint64(d.Len())
		st.ready = st.ready || more // ready, if it was called since take
		ss.queueLocked(st)
		if len(ss.runnable) > 0 {
			ss.pokeLocked()
		}
		ss.mu.Unlock()
		if len(results) > 0 {
			m = ss.header(st.id, results)
			whole = true
			return m, d
		}
	}
}

// header is that of the Deliver frame of what was read.
func (ss *streams) header(stream uint32, results []broker.StreamResult) *pb.Deliver {
	s := ss.c.s
	m := &pb.Deliver{Stream: stream, Parts: make([]*pb.DeliverPart, len(results))}
	for i := range results {
		r := &results[i]
		r.Sent()
		if r.Err != nil {
			s.meter.Error(deliverPlace, r.Err.Code)
		}
		m.Parts[i] = &pb.DeliverPart{
			TopicId: r.Topic[:], Partition: r.Index, Generation: r.Generation, Error: ss.c.partitionError(r.Err, r.Topic, r.Index),
			HighWatermark: r.HighWatermark, LogStartOffset: r.LogStart, Length: uint32(r.Bytes()),
		}
	}
	return m
}

// take removes the first runnable stream and returns what it may send.
func (ss *streams) take() (st *stream, credit uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for len(ss.runnable) > 0 {
		st = ss.runnable[0]
		ss.runnable[0] = nil
		ss.runnable = ss.runnable[1:]
		st.queued, st.ready = false, false // what comes from here on queues it again
		if ss.byID[st.id] == st {
			return st, max(st.granted, st.sent) - st.sent
		}
	}
	ss.runnable = nil
	return nil, 0
}
