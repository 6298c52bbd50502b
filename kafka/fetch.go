package kafka

import (
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
)

const (
	// maxFetchWait bounds how long a fetch is parked.
	maxFetchWait = 5 * time.Minute

	// maxFetchBytes is the most that one fetch answers, beside a single batch:
	// Kafka's fetch.max.bytes of brokers.
	maxFetchBytes = 55 << 20
)

// fetching is one Fetch under way.
type fetching struct {
	*request
	m        *fetchRequest
	session  *session // that it goes on with; nil: none
	epoch    int32    // of the session's next request
	begins   bool     // it begins a session, if there is room
	want     []wanted // in the order of the answer
	asked    []int    // of want, what the broker is asked for
	parts    []broker.FetchPart
	diverged bool // some partition did, which does not wait for others
}

// wanted is a partition that is to be fetched, and its answer as far as it is
// known.
type wanted struct {
	fetched
	id   broker.TopicID
	from int64
}

// fetch decodes a Fetch and asks the broker, which answers at once or parks it.
func (c *conn) fetch(q *request) error {
	f := &fetching{request: q}
	var err error
	f.m, err = decodeFetch(q.version, q.body)
	code := errcode.None
	switch {
	case errors.Is(err, errCrowded) && q.version >= fetchSessionVersion: // older ones have no error of the whole answer
		c.log.Info("a Fetch is refused", "err", err, "client", q.peer.clientID)
		code = errcode.InvalidRequest
	case err != nil:
		return fmt.Errorf("kafka: Fetch version %d: %w", q.version, err)
	}
	if err == nil && f.m.replica < 0 {
		f.m.rack = q.s.broker.KnownRack(f.m.rack) // a long one is not kept while it waits
	}
	q.recycle() // f.m aliases nothing, and the fetch may wait for long
	if code == errcode.None {
		if code, err = f.choose(); err != nil {
			return err
		}
	}
	if code != errcode.None {
		q.s.meter.Error(q.api.place, code)
		f.send(f.delivery(&fetchResponse{code: code}, nil))
		return nil
	}
	f.ask()
	return nil
}

// choose finds out which partitions are wanted: those of the request, or of the
// session that it goes on with (KIP-227). It takes memory for them first, for
// which it may wait; an error is the connection's end.
func (f *fetching) choose() (errcode.Code, error) {
	m, byID, sessions := f.m, f.version >= topicIDVersion, f.s.sessions
	if m.replica >= 0 || m.isolation != readUncommitted && m.isolation != readCommitted || m.sessionEpoch == initialEpoch || m.sessionEpoch == finalEpoch {
		if err := f.claimFetch(f.request, len(m.parts)); err != nil {
			return errcode.None, err
		}
	}
	if m.replica >= 0 {
		f.wantAll(errcode.Errorf(errcode.TopicAuthorizationFailed, "replica %d: replicas do not fetch from the clients' port", m.replica))
		return errcode.None, nil
	}
	if m.isolation != readUncommitted && m.isolation != readCommitted {
		f.wantAll(errcode.Errorf(errcode.InvalidRequest, "isolation level %d; give 0 or 1", m.isolation))
		return errcode.None, nil
	}
	if m.sessionEpoch == initialEpoch || m.sessionEpoch == finalEpoch {
		if m.sessionID != noSession {
			sessions.end(m.sessionID)
		}
		f.begins = m.sessionEpoch == initialEpoch
		f.wantAll(nil)
		return errcode.None, nil
	}
	s, code := sessions.use(m, byID)
	if code != errcode.None {
		return code, nil
	}
	f.epoch = s.epoch
	if len(s.parts) > 0 { // else it has ended
		f.session = s
	}
	parts := len(s.parts)
	s.mu.Unlock() // not held while it waits
	if err := f.claimFetch(f.request, parts); err != nil {
		return errcode.None, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.overtaken(s) {
		return errcode.InvalidFetchSessionEpoch, nil
	}
	resolve := resolver{request: f.request}
	f.grow(len(s.parts))
	for e := s.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*sessionPart)
		f.add(&resolve, p.key, fetchPart{leaderEpoch: p.leaderEpoch, fetchedEpoch: p.fetchedEpoch, offset: p.offset, maxBytes: p.maxBytes}, nil)
	}
	return errcode.None, nil
}

// overtaken reports whether another request of the session has begun meanwhile.
// The caller holds s.mu.
func (f *fetching) overtaken(s *session) bool { return s.epoch != f.epoch }

// wantAll wants the partitions of the request, each once: what is asked last of
// one holds. refused, if it is not nil, is their answer.
func (f *fetching) wantAll(refused *errcode.Error) {
	parts := f.m.parts
	number := numbered(f.m.topics, func(t *topicRef) topicRef { return *t })
	latest := make(map[partRef]int, len(parts))
	for i := range parts {
		latest[partRef{number[parts[i].topic], parts[i].index}] = i
	}
	resolve := resolver{request: f.request}
	f.grow(len(latest))
	for i := range parts {
		p := partRef{number[parts[i].topic], parts[i].index}
		if at, ok := latest[p]; ok {
			delete(latest, p)
			f.add(&resolve, sessionKey{f.m.topics[p.topic], p.index}, parts[at], refused)
		}
	}
}

func (f *fetching) grow(n int) {
	f.want, f.asked, f.parts = make([]wanted, 0, n), make([]int, 0, n), make([]broker.FetchPart, 0, n)
}

// add adds a partition to what is wanted. What the broker need not be asked for
// has its answer already, and the others wait all the same.
func (f *fetching) add(resolve *resolver, key sessionKey, p fetchPart, refused *errcode.Error) {
	w := wanted{fetched: fetched{topic: key.topic, index: key.index, highWatermark: -1, logStart: -1}, from: p.offset}
	e := refused
	if e == nil {
		if w.id, e = resolve.topic(key.topic); e == nil {
			e = f.s.broker.HasPartition(w.id, key.index)
		}
	}
	if e != nil {
		f.failed(&w.fetched, e)
		w.emptyAborted = true // as Kafka's answer that no log gave
		f.want = append(f.want, w)
		return
	}
	if p.fetchedEpoch >= 0 && f.diverges(&w, p, &resolve.confirmed) {
		f.want = append(f.want, w)
		return
	}
	f.asked = append(f.asked, len(f.want))
	f.parts = append(f.parts, broker.FetchPart{
		Topic: w.id, Index: key.index, Offset: p.offset, MaxBytes: int(max(p.maxBytes, 0)), Epoch: p.leaderEpoch,
	})
	f.want = append(f.want, w)
}

// diverges reports that the client's last record is not in the log, and makes
// where they part the answer (KIP-595).
func (f *fetching) diverges(w *wanted, p fetchPart, confirmed *broker.Confirmed) bool {
	d, parted, e := f.s.broker.Diverges(broker.FetchedPart{
		Topic: w.id, Index: w.index, Offset: p.offset, Epoch: p.fetchedEpoch, Current: p.leaderEpoch, Rack: f.m.rack,
	}, confirmed)
	switch {
	case e != nil && (e.Code == errcode.OffsetOutOfRange || e.Code == errcode.OffsetNotAvailable):
		f.failed(&w.fetched, e)
	case e != nil || !parted:
		return false // what else there is to say, reading says
	default:
		w.diverges, w.divergingAt = true, epochEnd{epoch: d.Epoch, end: d.End}
		w.highWatermark, w.logStart = d.HighWatermark, d.LogStart
	}
	f.diverged = true
	return true
}

// resolver looks up the topics of one request. Partitions of one topic follow on
// each other, mostly.
type resolver struct {
	*request
	last topicRef
	id   broker.TopicID
	err  *errcode.Error
	some bool

	confirmed broker.Confirmed
}

func (r *resolver) topic(t topicRef) (broker.TopicID, *errcode.Error) {
	if r.version >= topicIDVersion {
		return t.id, nil
	}
	if !r.some || r.last != t {
		r.some, r.last = true, t
		r.id, r.err = r.s.broker.TopicIDOf(t.name)
	}
	return r.id, r.err
}

// ask asks the broker for what is wanted and not yet answered.
func (f *fetching) ask() {
	if len(f.parts) == 0 {
		f.respond(nil)
		return
	}
	req := broker.FetchRequest{
		MaxWait:  min(time.Duration(f.m.maxWaitMS)*time.Millisecond, maxFetchWait),
		MinBytes: int(min(f.m.minBytes, maxFetchBytes)),
		MaxBytes: int(min(max(f.m.maxBytes, 0), maxFetchBytes)),
		Parts:    f.parts,
		Rack:     f.m.rack,

		Held: []broker.Held{{Of: f.from, Bytes: f.held}, {Of: f.taking, Bytes: f.held}, {Of: f.fetchFrom, Bytes: f.fetchHeld}, {Of: f.conn.fetches, Bytes: f.fetchHeld}},
	}
	req.MaxBytes = min(req.MaxBytes, delivery.MostBytes(f.s.opt.Answers))
	if req.MinBytes <= 0 || f.diverged {
		req.MaxWait = 0
	}
	req.Panicked = func(p any) {
		f.polls.Remove(&f.poll)
		f.fail(p)
	}
	f.polls.Add(&f.poll, f.s.broker.Fetch(req, func(results []broker.FetchResult) {
		defer f.survive() // it is the broker's goroutine
		f.polls.Remove(&f.poll)
		f.respond(results)
	}))
	if f.inTurn && f.hurried != f.hurries.Load() {
		f.polls.Hurry() // it was not among those who were to answer
	}
}

// respond answers with what was read, whose chunks it owns.
func (f *fetching) respond(results []broker.FetchResult) {
	owned := results // until a delivery owns them
	defer func() {   // after a panic too
		for i := range owned {
			owned[i].Release()
		}
	}()
	leaders := f.leaders()
	for i := range results {
		w, r := &f.want[f.asked[i]], &results[i]
		w.highWatermark, w.logStart, w.bytes = r.HighWatermark, r.LogStart, r.Bytes()
		w.elsewhere, w.readFrom = r.Elsewhere, r.ReadFrom
		if r.Err == nil {
			r.Sent()
			w.emptyAborted = f.m.isolation == readCommitted
			continue
		}
		f.failed(&w.fetched, r.Err)
		if r.Following && w.code == errcode.OffsetOutOfRange {
			w.logStart = r.LogStart // below it, so that the client asks the leader (KIP-392)
		}
		if w.code == errcode.NotLeaderOrFollower || w.code == errcode.FencedLeaderEpoch {
			w.leader, w.hasLeader = leaders.of(w.id, w.index)
		}
	}
	resp := &fetchResponse{parts: make([]fetched, len(f.want)), nodes: leaders.nodes}
	for i := range f.want {
		resp.parts[i] = f.want[i].fetched
	}
	read := make([]broker.StreamResult, len(f.want))
	for i := range results {
		w := &f.want[f.asked[i]]
		read[f.asked[i]] = streamResult(w, &results[i])
	}
	switch {
	case f.begins:
		resp.sessionID = f.s.sessions.begin(f.m, f.version >= topicIDVersion, resp.parts)
	case f.session != nil:
		read = f.onlyNews(resp, read)
	}
	a := f.delivery(resp, read)
	if read != nil {
		owned = nil
	}
	f.send(a)
}

// streamResult is what was read of a partition, as a delivery may read it again.
func streamResult(w *wanted, r *broker.FetchResult) broker.StreamResult {
	s := broker.StreamResult{Topic: w.id, Index: w.index, From: w.from, FetchResult: *r}
	if n := len(r.Chunks); n > 0 {
		s.Next = r.Chunks[n-1].End
	}
	return s
}

// onlyNews leaves in the answer what the session's client was not told yet. If
// another request of the session has begun meanwhile, which no client does that
// waits for its answers, the answer is an error, and nothing of what was read.
func (f *fetching) onlyNews(resp *fetchResponse, read []broker.StreamResult) []broker.StreamResult {
	s := f.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.overtaken(s) {
		f.s.meter.Error(f.api.place, errcode.InvalidFetchSessionEpoch)
		*resp = fetchResponse{code: errcode.InvalidFetchSessionEpoch}
		return nil
	}
	resp.sessionID = s.id
	n := 0
	for i := range resp.parts {
		if s.told(&resp.parts[i]) {
			resp.parts[n], read[n] = resp.parts[i], read[i]
			n++
		}
	}
	resp.parts = resp.parts[:n]
	return read[:n]
}

// failed makes p the answer for a partition with an error.
func (f *fetching) failed(p *fetched, e *errcode.Error) {
	e = f.named(e)
	p.code = fetchCode(e.Code)
	p.highWatermark, p.logStart, p.bytes = -1, -1, 0
	f.s.meter.Error(f.api.place, p.code)
}

// fetchCode is a code as consumers know it. Some of them, the Java client for
// one, take a code that Kafka's brokers never give here for a bug of their own,
// and end.
func fetchCode(c errcode.Code) errcode.Code {
	switch c {
	case errcode.LeaderNotAvailable: // it is being created, or the node is behind
		return errcode.NotLeaderOrFollower
	case errcode.None, errcode.OffsetOutOfRange, errcode.CorruptMessage, errcode.UnknownTopicOrPartition, errcode.NotLeaderOrFollower,
		errcode.ReplicaNotAvailable, errcode.TopicAuthorizationFailed, errcode.KafkaStorageError, errcode.FencedLeaderEpoch,
		errcode.UnknownLeaderEpoch, errcode.OffsetNotAvailable, errcode.UnknownTopicID, errcode.InconsistentTopicID:
		return c
	}
	return errcode.UnknownServer
}

// delivery is a response, and the batches that were read for its parts, which it
// owns.
func (f *fetching) delivery(resp *fetchResponse, read []broker.StreamResult) answer {
	heads := resp.heads(f.version)
	return answer{body: fetchBody{delivery.New(&f.deliveries, read, heads, nil)}}
}

// fetchBody is the answer to a Fetch: all of it is one delivery.
type fetchBody struct{ *delivery.Delivery }

// Parts implements body.
func (b fetchBody) Parts() ([]frame.Part, error) {
	whole, err := b.Prepare()
	switch {
	case err != nil:
		return nil, err
	case whole != nil:
		return []frame.Part{{Bytes: whole}}, nil
	}
	return []frame.Part{{Source: b.Delivery}}, nil
}
