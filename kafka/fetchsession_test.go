package kafka

import (
	"container/list"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// fetchOf is a request for the first n partitions of a topic.
func fetchOf(topic string, n int) *fetchRequest {
	m := &fetchRequest{topics: []topicRef{{name: topic}}}
	for i := range n {
		m.parts = append(m.parts, fetchPart{partRef: partRef{0, int32(i)}, leaderEpoch: -1, fetchedEpoch: -1})
	}
	return m
}

// newTestSessions returns sessions whose clock the test moves.
func newTestSessions(most int) (*sessions, *time.Time) {
	now := time.Unix(1000, 0)
	return newSessions(most, 1<<30, rand.Reader, func() time.Time { return now }), &now
}

func (ss *sessions) goOn(id, epoch int32) errcode.Code {
	s, code := ss.use(&fetchRequest{sessionID: id, sessionEpoch: epoch}, false)
	if s != nil {
		s.mu.Unlock()
	}
	return code
}

// TestSessionKeepsNoLongNames: no topic has such a name, and there are sessions
// for ever.
func TestSessionKeepsNoLongNames(t *testing.T) {
	t.Parallel()
	ss, _ := newTestSessions(2)
	id := ss.begin(fetchOf(strings.Repeat("n", 250), 5), false, nil)
	if s := ss.byID[id]; s == nil || len(s.parts) != 0 || s.order.Len() != 0 || ss.partitions != 0 {
		t.Errorf("session %d keeps a name of 250 bytes", id)
	}
	id = ss.begin(fetchOf(strings.Repeat("n", 249), 5), false, nil)
	if s := ss.byID[id]; s == nil || len(s.parts) != 5 || ss.partitions != 5 {
		t.Errorf("session %d does not keep a name of 249 bytes", id)
	}
}

// TestSessionEviction: a full cache keeps the sessions that are young or in use,
// and the larger ones of the others.
func TestSessionEviction(t *testing.T) {
	t.Parallel()
	ss, now := newTestSessions(2)
	a, b := ss.begin(fetchOf("a", 5), false, nil), ss.begin(fetchOf("b", 3), false, nil)
	if a == noSession || b == noSession || a == b {
		t.Fatalf("sessions %d and %d", a, b)
	}
	if id := ss.begin(fetchOf("c", 100), false, nil); id != noSession {
		t.Errorf("both are young, and one has made room for %d", id)
	}
	*now = now.Add(sessionEviction + time.Second)
	if code := ss.goOn(a, 1); code != 0 {
		t.Fatal(code)
	}
	c := ss.begin(fetchOf("c", 1), false, nil) // b was not used for long
	if c == noSession {
		t.Fatal("an unused session made no room")
	}
	if code := ss.goOn(b, 1); code != errcode.FetchSessionIDNotFound {
		t.Errorf("the unused session: %v", code)
	}
	if code := ss.goOn(a, 2); code != 0 {
		t.Errorf("the one in use: %v", code)
	}
	if id := ss.begin(fetchOf("d", 5), false, nil); id != noSession {
		t.Error("an old session in use made room for one that is not larger")
	}
	d := ss.begin(fetchOf("d", 6), false, nil)
	if d == noSession {
		t.Error("an old session made no room for a larger one")
	}
	if code := ss.goOn(a, 3); code != errcode.FetchSessionIDNotFound {
		t.Errorf("the smaller session: %v", code)
	}
	want := SessionStats{Sessions: 2, Limit: 2, Partitions: 7, Evicted: 2}
	if got := ss.stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestSessionPartitions: sessions together hold no more partitions than their
// number allows, whether they begin with them or take them later.
func TestSessionPartitions(t *testing.T) {
	t.Parallel()
	ss, _ := newTestSessions(2)
	if id := ss.begin(fetchOf("a", 2*sessionPartitions+1), false, make([]fetched, 2*sessionPartitions+1)); id != noSession {
		t.Error("a session of more partitions than all may have")
	}
	a := ss.begin(fetchOf("a", 2*sessionPartitions-10), false, nil)
	b := ss.begin(fetchOf("b", 10), false, nil)
	if a == noSession || b == noSession {
		t.Fatal("no room for what is allowed")
	}
	more := fetchOf("b", 11)
	more.sessionID, more.sessionEpoch = b, 1
	if _, code := ss.use(more, false); code != errcode.FetchSessionIDNotFound {
		t.Errorf("a session that grew too large: %v", code)
	}
	if got, want := ss.stats(), (SessionStats{Sessions: 1, Limit: 2, Partitions: 2*sessionPartitions - 10}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestSessionTakesTurns: a partition that had records goes behind those that had
// none, so that all are read though an answer has no room for all.
func TestSessionTakesTurns(t *testing.T) {
	t.Parallel()
	s := &session{parts: make(map[sessionKey]*list.Element)}
	s.change(fetchOf("a", 3))
	order := func() (out []int32) {
		for e := s.order.Front(); e != nil; e = e.Next() {
			out = append(out, e.Value.(*sessionPart).key.index)
		}
		return out
	}
	for _, step := range []struct {
		index int32
		bytes int64
		want  [3]int32
	}{{0, 1, [3]int32{1, 2, 0}}, {2, 1, [3]int32{1, 0, 2}}, {0, 0, [3]int32{1, 0, 2}}, {1, 5, [3]int32{0, 2, 1}}} {
		s.told(&fetched{topic: topicRef{name: "a"}, index: step.index, bytes: step.bytes})
		if got := order(); [3]int32(got) != step.want {
			t.Errorf("after %d with %d bytes: %v, want %v", step.index, step.bytes, got, step.want)
		}
	}
	s.change(&fetchRequest{forgottenTopics: []topicRef{{name: "a"}}, forgotten: []partRef{{0, 2}, {0, 7}}})
	if got := order(); len(got) != 2 || got[0] != 0 || got[1] != 1 || s.order.Back().Value.(*sessionPart).key.index != 1 {
		t.Errorf("after one was forgotten: %v", got)
	}
}

func TestNextEpoch(t *testing.T) {
	t.Parallel()
	for _, tt := range [][2]int32{{0, 1}, {1, 2}, {1<<31 - 2, 1<<31 - 1}, {1<<31 - 1, 1}} {
		if got := nextEpoch(tt[0]); got != tt[1] {
			t.Errorf("after %d: %d, want %d", tt[0], got, tt[1])
		}
	}
}

// TestSessionsMemory: the partitions of all sessions are no more than there is
// memory for, whatever the number of sessions; what finds none goes on without.
func TestSessionsMemory(t *testing.T) {
	t.Parallel()
	ss := newSessions(1000, 3*sessionPartBytes, rand.Reader, time.Now)
	begin := func(parts int) int32 {
		return ss.begin(fetchOf("a", parts), false, make([]fetched, parts))
	}
	if begin(4) != noSession || begin(2) == noSession || begin(2) != noSession || begin(1) == noSession {
		t.Errorf("%+v, where three partitions have memory", ss.stats())
	}
}
