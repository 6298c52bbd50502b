package client

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// maxStreamParts is how many partitions one request about a stream has, so that
// it fits in the smallest frame that a server may announce. A stream of more is
// made by several.
const maxStreamParts = 1000

// maxWindowBytes is the most that a server takes.
const maxWindowBytes = 1 << 30

// stream is what a Consumer reads from one node: a stream of the protocol, on
// one connection. It is given up with the connection.
//
// Credit: the server may have sent granted bytes. What was received and is not
// yet taken by Poll or Records is held, so granted - consumed bounds what is,
// and it is kept at window. Guarded by Consumer.mu, like the cursors.
type stream struct {
	node    int32
	link    *link
	id      uint32
	since   time.Time
	parts   map[streamKey]*cursor
	window  uint64
	granted uint64
	ended   bool

	consumed uint64 // of the payload: taken, or dropped

	// What the server is to be told in the next step.
	removed map[streamKey]struct{}
	uneven  map[*cursor]struct{} // hold more, or less, than they should
}

// streamKey is a partition as deliveries name it.
type streamKey struct {
	id        TopicID
	partition int32
}

// changes is what one step tells a stream.
type changes struct {
	st       *stream
	isNew    bool
	credit   uint64 // to begin with
	set      []question
	req      *pb.ChangeStreamRequest
	creditTo uint64 // 0: no more credit yet
}

// streams reports whether a node is read by streams.
func (co *Consumer) streams(node int32) bool {
	return !co.cfg.FetchOnly && !co.fetchOnly[node]
}

// joinLocked makes a cursor part of its node's stream.
func (co *Consumer) joinLocked(q question, node int32, now time.Time) {
	st := co.byStream[node]
	if st == nil {
		l := co.c.nodeLink(node)
		if l == nil {
			co.failedLocked(q, fmt.Errorf("%w: node %d is gone", ErrConnection, node))
			poke(co.wake)
			return
		}
		st = &stream{
			node: node, link: l, id: l.nextStream.Add(1), since: now, parts: make(map[streamKey]*cursor),
			removed: make(map[streamKey]struct{}), uneven: make(map[*cursor]struct{}),
		}
		co.byStream[node] = st
		co.fresh[st] = true
		co.shareLocked()
		st.granted = st.window
	}
	cur := q.cursor
	cur.st, cur.throttled = st, false
	co.generations++
	cur.generation = co.generations
	st.parts[cur.key()] = cur
	delete(st.removed, cur.key()) // setting it anew removes it, too
	co.joined[st] = append(co.joined[st], q)
}

// shareLocked divides what may be held between the streams.
func (co *Consumer) shareLocked() {
	for _, st := range co.byStream {
		st.window = uint64(min(max(co.cfg.MaxPrefetchedBytes/len(co.byStream), 1), maxWindowBytes))
	}
}

func (cur *cursor) key() streamKey { return streamKey{cur.id, cur.partition} }

// leaveLocked takes a cursor out of its stream, if it is in one. What is under
// way is dropped when it comes.
func (co *Consumer) leaveLocked(cur *cursor) {
	st := cur.st
	if st == nil {
		return
	}
	cur.st = nil
	delete(st.parts, cur.key())
	delete(st.uneven, cur)
	st.removed[cur.key()] = struct{}{}
	co.joined[st] = slices.DeleteFunc(co.joined[st], func(q question) bool { return q.cursor == cur })
	poke(co.wake)
}

// heldMostLocked is what one partition may hold before it is paused: its share
// of the stream's window, so that one which nobody polls leaves room for others.
func (co *Consumer) heldMostLocked(st *stream) int {
	return max(co.cfg.MaxPartitionBytes, int(st.window)/max(len(st.parts), 1))
}

// evenLocked notes a cursor that holds too much, or little enough again.
func (co *Consumer) evenLocked(cur *cursor) {
	if st := cur.st; st != nil {
		most := co.heldMostLocked(st)
		if !cur.throttled && cur.held > most || cur.throttled && cur.held <= most/2 {
			st.uneven[cur] = struct{}{}
		}
	}
}

// changesLocked returns what the streams are to be told.
func (co *Consumer) changesLocked() (all []changes) {
	for _, node := range slices.Sorted(maps.Keys(co.byStream)) {
		st := co.byStream[node]
		c := changes{st: st, isNew: co.fresh[st], credit: st.granted, set: co.joined[st], req: &pb.ChangeStreamRequest{Stream: st.id}}
		for k := range st.removed {
			c.req.Remove = append(c.req.Remove, &pb.PartitionRef{TopicId: k.id[:], Partition: k.partition})
		}
		setNow := make(map[*cursor]bool, len(c.set))
		for _, q := range c.set {
			setNow[q.cursor] = true
		}
		for cur := range st.uneven {
			ref := &pb.PartitionRef{TopicId: cur.id[:], Partition: cur.partition}
			switch most := co.heldMostLocked(st); {
			case setNow[cur]:
			case !cur.throttled && cur.held > most:
				cur.throttled = true
				c.req.Pause = append(c.req.Pause, ref)
			case cur.throttled && cur.held <= most/2:
				cur.throttled = false
				c.req.Resume = append(c.req.Resume, ref)
			}
		}
		if due := st.consumed + st.window; due >= st.granted+max(st.window/4, 1) {
			st.granted, c.creditTo = due, due
		}
		clear(st.removed)
		clear(st.uneven)
		delete(co.joined, st)
		delete(co.fresh, st)
		if c.isNew || len(c.set)+len(c.req.Remove)+len(c.req.Pause)+len(c.req.Resume) > 0 || c.creditTo > 0 {
			all = append(all, c)
		}
	}
	return all
}

// tell sends the changes of a stream.
func (co *Consumer) tell(c changes) {
	st := c.st
	parts := make([]*pb.StreamPart, len(c.set))
	for i, q := range c.set {
		parts[i] = &pb.StreamPart{
			TopicId: q.t.id[:], Partition: q.partition, Offset: q.offset,
			LeaderEpoch: q.t.leaders[q.partition].epoch, Generation: q.generation,
		}
	}
	ended := func(a answer) {
		if a.err != nil {
			co.streamEnded(st, a.err)
		}
	}
	if c.isNew {
		var first []*pb.StreamPart
		first, parts = cut(parts, maxStreamParts)
		st.link.submit(&call{
			kind: frame.KindSubscribe, feature: frame.FeatureStream,
			req: &pb.SubscribeRequest{
				Stream: st.id, CreditBytes: c.credit, Parts: first,
				MaxBytes: uint32(co.cfg.MaxFetchBytes), MaxPartitionBytes: uint32(co.cfg.MaxPartitionBytes),
			},
			resp: new(pb.SubscribeResponse),
			opens: &push{
				id:        st.id,
				delivered: func(m *pb.Deliver, payload []byte) error { return co.delivered(st, m, payload) },
				ended:     func(err error) { co.streamEnded(st, err) },
			},
			done: ended,
		})
	}
	for len(parts)+len(c.req.Remove)+len(c.req.Pause)+len(c.req.Resume) > 0 {
		// Room for a quarter of each, so that the whole fits.
		const most = maxStreamParts / 4
		req := &pb.ChangeStreamRequest{Stream: st.id}
		req.Set, parts = cut(parts, most)
		req.Remove, c.req.Remove = cut(c.req.Remove, most)
		req.Pause, c.req.Pause = cut(c.req.Pause, most)
		req.Resume, c.req.Resume = cut(c.req.Resume, most)
		st.link.submit(&call{
			kind: frame.KindChangeStream, req: req, resp: new(pb.ChangeStreamResponse), done: ended,
			moved: func(img *image) bool {
				return slices.ContainsFunc(req.Remove, func(ref *pb.PartitionRef) bool { return img.left(st.node, ref) })
			},
		})
	}
	if c.creditTo > 0 {
		st.link.submit(&call{
			kind: frame.KindCredit, req: &pb.Credit{Stream: st.id, TotalBytes: c.creditTo},
			done: func(answer) {}, // a connection that breaks ends the stream
		})
	}
}

// left reports whether another node than that leads a partition. A stream that
// has lost one and hears nothing of its node ends.
func (img *image) left(node int32, ref *pb.PartitionRef) bool {
	for _, t := range img.topics {
		if t.err == nil && bytes.Equal(t.id[:], ref.TopicId) && int(ref.Partition) < len(t.leaders) {
			now := t.leaders[ref.Partition].node
			_, known := img.nodes[now]
			return known && now != node
		}
	}
	return false
}

// cut returns the first of s, most at most, and the rest.
func cut[T any](s []T, most int) (first, rest []T) {
	n := min(len(s), most)
	return s[:n:n], s[n:]
}

// unsubscribe ends a stream that is not needed any more.
func (st *stream) unsubscribe() {
	st.link.submit(&call{
		kind: frame.KindUnsubscribe, req: &pb.UnsubscribeRequest{Stream: st.id}, resp: new(pb.UnsubscribeResponse),
		closes: st.id, done: func(answer) {},
	})
}

// delivered takes a delivery, on the connection's reading goroutine. Its error
// ends the connection.
func (co *Consumer) delivered(st *stream, m *pb.Deliver, payload []byte) error {
	var sum int64
	for _, p := range m.Parts {
		if len(p.TopicId) != len(TopicID{}) || p.Error != nil && p.Length > 0 {
			return fmt.Errorf("%w: delivery %v", ErrProtocol, p)
		}
		sum += int64(p.Length)
	}
	if sum != int64(len(payload)) {
		return fmt.Errorf("%w: parts of %d bytes in a delivery of %d", ErrProtocol, sum, len(payload))
	}
	if m.Error != nil {
		co.streamEnded(st, fromServer(m.Error))
		return nil
	}
	type misled struct {
		question
		id  TopicID
		err error
	}
	var moved []misled
	co.mu.Lock()
	for _, p := range m.Parts {
		data := payload[:p.Length:p.Length]
		payload = payload[p.Length:]
		id := TopicID(p.TopicId)
		cur := st.parts[streamKey{id, p.Partition}]
		if cur == nil || cur.generation != p.Generation || st.ended {
			st.consumed += uint64(len(data)) // of before a Seek, or a Pause
			continue
		}
		q := question{cursor: cur, epoch: cur.epoch, offset: cur.fetch}
		if p.Error == nil {
			co.fetchedLocked(q, p.HighWatermark, p.LogStartOffset, data)
			continue
		}
		cur.st = nil // it has left the stream
		delete(st.parts, cur.key())
		delete(st.uneven, cur)
		err := fromServer(p.Error)
		co.failedLocked(q, err)
		if movesAway(err) {
			moved = append(moved, misled{q, id, err})
		}
	}
	co.mu.Unlock()
	for _, mv := range moved {
		co.misled(mv.question, mv.id, st.node, mv.err)
	}
	poke(co.wake)
	return nil
}

// streamEnded gives a stream up: its partitions go on elsewhere, each from the
// offset after what was delivered. It may be called more than once.
func (co *Consumer) streamEnded(st *stream, err error) {
	code, _ := CodeOf(err)
	co.mu.Lock()
	if st.ended {
		co.mu.Unlock()
		return
	}
	st.ended = true
	if co.byStream[st.node] == st {
		delete(co.byStream, st.node)
		co.shareLocked()
	}
	delete(co.joined, st)
	delete(co.fresh, st)
	noStreams := errors.Is(err, errNoFeature) || code == errcode.PolicyViolation || code == errcode.ThrottlingQuotaExceeded
	if noStreams {
		co.fetchOnly[st.node] = true
	}
	now := co.c.cfg.Now()
	lasted := now.Sub(st.since) > 2*co.c.cfg.BackoffMax
	backoff := time.Duration(-1)
	for _, cur := range st.parts {
		cur.st = nil
		if lasted {
			cur.failures = 0
		}
		switch {
		case noStreams || errors.Is(err, ErrClosed):
		case code == errcode.ResourceNotFound || retriable(err):
			cur.failures++
			if backoff < 0 {
				backoff = co.c.backoff(cur.failures)
			}
			cur.retryAt = now.Add(backoff)
		default:
			co.reportLocked(cur, err)
		}
	}
	co.rescan = true
	co.mu.Unlock()
	if code != errcode.None {
		st.unsubscribe() // it may be there without us
	}
	if movesAway(err) {
		poke(co.c.meta.refresh)
	}
	poke(co.wake)
}
