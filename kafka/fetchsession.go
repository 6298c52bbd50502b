package kafka

import (
	"container/list"
	"encoding/binary"
	"io"
	"math"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Session ids and epochs with a meaning of their own (KIP-227).
const (
	noSession    = 0  // as an id: none
	initialEpoch = 0  // as an epoch: begin a session
	finalEpoch   = -1 // as an epoch: end the session, and begin none
)

const (
	// sessionEviction is how long a session is safe from others that want its
	// place: since it began, or since it was used, as Kafka's
	// min.incremental.fetch.session.eviction.ms.
	sessionEviction = 2 * time.Minute

	// sessionPartitions is how many partitions all sessions hold together, for
	// each session that there may be. Kafka has no such bound.
	sessionPartitions = 1000

	// sessionPartBytes is what a partition of a session takes, with the longest
	// name of a topic, and sessionShare which part of Options.Requests, beside it,
	// all of them may.
	sessionPartBytes = 512
	sessionShare     = 4
)

// session is what one client fetches: it sends only what changes, and is
// answered only what changed. Its partitions are in the order in which they are
// read; one that had records goes to the end.
type session struct {
	id   int32
	byID bool // its topics are named by id

	mu    sync.Mutex
	epoch int32 // of the next request
	parts map[sessionKey]*list.Element
	order list.List // of *sessionPart

	// Guarded by sessions.mu.
	began, used time.Time
	counted     int           // of sessions.partitions
	place       *list.Element // in sessions.byUse
	gone        bool
}

// sessionKey names a partition in a session.
type sessionKey struct {
	topic topicRef
	index int32
}

// sessionPart is a partition of a session: what the client wants of it, and what
// it was told last.
type sessionPart struct {
	key          sessionKey
	leaderEpoch  int32
	fetchedEpoch int32
	maxBytes     int32
	offset       int64

	highWatermark int64
	logStart      int64
}

// set makes p what the request asks for.
func (p *sessionPart) set(from *fetchPart) {
	p.leaderEpoch, p.fetchedEpoch, p.offset, p.maxBytes = from.leaderEpoch, from.fetchedEpoch, from.offset, from.maxBytes
}

// put adds a partition at the end, or changes it where it is.
func (s *session) put(key sessionKey, from *fetchPart) {
	if len(key.topic.name) > broker.MaxTopicNameBytes {
		return // no topic has such a name, and a session would keep it
	}
	e := s.parts[key]
	if e == nil {
		e = s.order.PushBack(&sessionPart{key: key, highWatermark: -1, logStart: -1})
		s.parts[key] = e
	}
	e.Value.(*sessionPart).set(from)
}

// change applies what a request adds, changes and forgets.
func (s *session) change(m *fetchRequest) {
	for i := range m.parts {
		p := &m.parts[i]
		s.put(sessionKey{m.topics[p.topic], p.index}, p)
	}
	for _, f := range m.forgotten {
		key := sessionKey{m.forgottenTopics[f.topic], f.index}
		if e := s.parts[key]; e != nil {
			delete(s.parts, key)
			s.order.Remove(e)
		}
	}
}

// told takes note of what a partition is answered, and reports whether the
// client has to be told.
func (s *session) told(f *fetched) bool {
	e := s.parts[sessionKey{f.topic, f.index}]
	if e == nil {
		return true // forgotten meanwhile, by a request that was not to be answered yet
	}
	p := e.Value.(*sessionPart)
	news := f.bytes > 0 || f.code != 0 || f.diverges || f.elsewhere || p.highWatermark != f.highWatermark || p.logStart != f.logStart
	p.highWatermark, p.logStart = f.highWatermark, f.logStart
	if f.code != 0 {
		p.highWatermark = -1 // so that the first answer without the error is told
	}
	if f.bytes > 0 {
		s.order.MoveToBack(e)
	}
	return news
}

// nextEpoch is the epoch after one; after the last it begins again.
func nextEpoch(epoch int32) int32 {
	if epoch == math.MaxInt32 {
		return 1
	}
	return epoch + 1
}

// sessions are those of a node: not of a connection, which a session may
// outlive. Their number is bounded, and so is that of their partitions; a client
// that finds no room goes on without one.
type sessions struct {
	mu         sync.Mutex
	rand       io.Reader
	now        func() time.Time
	most       int // sessions
	mostParts  int // partitions of all, together
	byID       map[int32]*session
	byUse      list.List // of *session, the one not used for the longest time first
	partitions int       // of all, together
	evicted    uint64
}

func newSessions(most int, memoryBytes int64, rand io.Reader, now func() time.Time) *sessions {
	mostParts := int(min(int64(most)*sessionPartitions, memoryBytes/sessionPartBytes))
	return &sessions{most: most, mostParts: mostParts, rand: rand, now: now, byID: make(map[int32]*session)}
}

// SessionStats says what the fetch sessions of a node are.
type SessionStats struct {
	Sessions, Limit int
	Partitions      int    // of all of them
	Evicted         uint64 // since the start, to make room for others
}

func (ss *sessions) stats() SessionStats {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return SessionStats{Sessions: len(ss.byID), Limit: ss.most, Partitions: ss.partitions, Evicted: ss.evicted}
}

// use returns the session that a request goes on with, changed as it says, or
// the code for which there is none. The caller holds session.mu then, while it
// reads what to fetch.
func (ss *sessions) use(m *fetchRequest, byID bool) (*session, errcode.Code) {
	ss.mu.Lock()
	s := ss.byID[m.sessionID]
	ss.mu.Unlock()
	if s == nil {
		return nil, errcode.FetchSessionIDNotFound
	}
	s.mu.Lock()
	used := false
	defer func() { // after a panic too
		if !used {
			s.mu.Unlock()
		}
	}()
	switch {
	case s.epoch != m.sessionEpoch:
		return nil, errcode.InvalidFetchSessionEpoch
	case s.byID != byID:
		return nil, errcode.FetchSessionTopicIDError
	}
	s.change(m)
	if len(s.parts) > maxFetchParts {
		ss.end(s.id)
		return nil, errcode.InvalidRequest
	}
	if !ss.touch(s, len(s.parts)) {
		return nil, errcode.FetchSessionIDNotFound
	}
	s.epoch = nextEpoch(s.epoch)
	used = true
	return s, errcode.None
}

// touch notes that a session was used and has n partitions now. One without any,
// or with more than fit, ends; touch returns false for the latter, and for one
// that has ended already.
func (ss *sessions) touch(s *session, n int) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s.gone {
		return false
	}
	fits := n <= s.counted || ss.partitions-s.counted+n <= ss.mostParts
	if !fits || n == 0 {
		ss.removeLocked(s)
		return fits
	}
	ss.partitions += n - s.counted
	s.counted, s.used = n, ss.now()
	ss.byUse.MoveToBack(s.place)
	return true
}

// begin begins a session of what a full request asks for, in whose answer parts
// are told, and returns its id: none if there is no room.
func (ss *sessions) begin(m *fetchRequest, byID bool, told []fetched) int32 {
	if len(told) > ss.mostParts {
		return noSession
	}
	s := &session{byID: byID, epoch: nextEpoch(initialEpoch), parts: make(map[sessionKey]*list.Element, len(told))}
	s.change(m)
	for i := range told {
		s.told(&told[i])
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.began, s.counted = ss.now(), len(s.parts)
	s.used = s.began
	for len(ss.byID) >= ss.most || ss.partitions+s.counted > ss.mostParts {
		if !ss.evictLocked(s) {
			return noSession
		}
	}
	if s.id = ss.freeIDLocked(); s.id == noSession {
		return noSession
	}
	ss.byID[s.id] = s
	ss.partitions += s.counted
	s.place = ss.byUse.PushBack(s)
	return s.id
}

// freeIDLocked draws an id that cannot be guessed; noSession if chance fails.
func (ss *sessions) freeIDLocked() int32 {
	for {
		var b [4]byte
		if _, err := io.ReadFull(ss.rand, b[:]); err != nil {
			return noSession
		}
		if id := int32(binary.BigEndian.Uint32(b[:]) & math.MaxInt32); id != noSession && ss.byID[id] == nil {
			return id
		}
	}
}

// evictLocked ends a session for a newer one: the one that was not used for the
// longest time, if that is long; or else the smallest of those that are no longer
// young, if the new one is larger.
func (ss *sessions) evictLocked(s *session) bool {
	front := ss.byUse.Front()
	if front == nil {
		return false
	}
	if oldest := front.Value.(*session); s.began.Sub(oldest.used) > sessionEviction {
		ss.evicted++
		ss.removeLocked(oldest)
		return true
	}
	var least *session
	for e := front; e != nil; e = e.Next() {
		if o := e.Value.(*session); s.began.Sub(o.began) > sessionEviction && (least == nil || o.counted < least.counted) {
			least = o
		}
	}
	if least == nil || least.counted >= s.counted {
		return false
	}
	ss.evicted++
	ss.removeLocked(least)
	return true
}

// end ends the session of an id, if there is one.
func (ss *sessions) end(id int32) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if s := ss.byID[id]; s != nil {
		ss.removeLocked(s)
	}
}

func (ss *sessions) removeLocked(s *session) {
	s.gone = true
	delete(ss.byID, s.id)
	ss.partitions -= s.counted
	ss.byUse.Remove(s.place)
}
