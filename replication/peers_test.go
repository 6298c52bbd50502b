package replication

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestInSync: a voter is in sync that had all of the log, as it was then, at some
// moment of the last half minute, however much is on its way to it; and not one
// that is silent, that comes to lack more and more, that has to catch up from
// records, or that was not heard of in this term.
func TestInSync(t *testing.T) {
	t.Parallel()
	const lag = 30 * time.Second
	ids := []ReplicaID{{Node: 1, Incarnation: 1}, {Node: 2, Incarnation: 2}, {Node: 3, Incarnation: 3}}
	p := newPeers(ids[0])
	p.voters = ids
	began := time.Unix(1_000_000, 0)
	now, last, term := began, uint64(100), uint64(1)
	answer := func(id ReplicaID, index uint64) {
		req, resp := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: index}, &raft.AppendEntriesResponse{Success: true}
		p.appended(id, req, resp)
		p.seen(id, req, resp, now, last)
	}
	want := func(what string, n int) {
		t.Helper()
		if all, voters := p.inSync(nil, term, now.Add(-lag)); len(all) != n || voters != 3 {
			t.Errorf("%s, %v from the beginning: %d of %d in sync, want %d of 3", what, now.Sub(began), len(all), voters, n)
		}
	}
	want("alone", 1)
	answer(ids[1], 0) // a heartbeat of one that nothing is known of
	want("after a heartbeat", 1)
	answer(ids[1], 100)
	want("one that is there", 2)
	last = 1_000_000
	now = now.Add(lag)
	want("half a minute after it was there last", 2)
	now = now.Add(1)
	want("half a minute and more after it was there last", 1)

	answer(ids[1], 101) // of 1,000,000, which it is to reach
	want("one that lacks much", 1)
	for range 60 { // a hundred answers a second, each of which lacks a second's records
		for range 100 {
			last += 10
			now = now.Add(10 * time.Millisecond)
			answer(ids[1], last-1000)
		}
	}
	want("one that is never at the end", 2)
	for match, seconds := last-1000, 0; seconds < 120; seconds++ { // it takes half of what comes
		last, match, now = last+1000, match+500, now.Add(time.Second)
		answer(ids[1], match)
		if seconds == 10 {
			want("one that comes to lack more", 2)
		}
	}
	want("one that lacks what came in a minute", 1)

	now, last = now.Add(time.Hour), last+1000
	answer(ids[1], last)
	answer(ids[2], last)
	want("all", 3)
	for range 10 { // an hour without records
		now = now.Add(6 * time.Minute)
		answer(ids[1], 0)
	}
	want("one that answers heartbeats, and one that does not", 2)
	answer(ids[2], 0)
	want("both", 3)
	req := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: last}
	now = now.Add(time.Minute)
	p.seen(ids[1], req, &raft.AppendEntriesResponse{}, now, last)
	answer(ids[2], 0)
	want("one that refuses", 2)
	p.lags(ids[2], last+5)
	want("one that has to catch up from records", 1)
	answer(ids[2], last)
	p.seen(ids[2], &raft.AppendEntriesRequest{Term: term + 1}, &raft.AppendEntriesResponse{Success: true}, now, last)
	term++
	want("in a term of which nothing is known", 1)
	answer(ids[1], last)
	term--
	want("in a term that is over", 1)
}
