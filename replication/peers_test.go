package replication

import (
	"testing"

	"github.com/hashicorp/raft"
)

// TestCaughtUp: who lacks more than a little, who has to catch up from records,
// and who was not heard of in this term is not caught up.
func TestCaughtUp(t *testing.T) {
	t.Parallel()
	ids := []ReplicaID{{Node: 1, Incarnation: 1}, {Node: 2, Incarnation: 2}, {Node: 3, Incarnation: 3}}
	p := newPeers(ids[0])
	p.voters = ids
	has := func(id ReplicaID, term, index uint64) {
		p.appended(id, &raft.AppendEntriesRequest{Term: term, PrevLogEntry: index}, &raft.AppendEntriesResponse{Success: true})
	}
	want := func(what string, term, last uint64, n int) {
		t.Helper()
		if got, voters := p.caughtUp(term, last, 10); got != n || voters != 3 {
			t.Errorf("%s: %d of %d, want %d of 3", what, got, voters, n)
		}
	}
	want("alone", 1, 100, 1)
	has(ids[1], 1, 90)
	want("one a little behind", 1, 100, 2)
	want("one too far behind", 1, 101, 1)
	has(ids[1], 1, 101)
	has(ids[2], 1, 101)
	want("all", 1, 101, 3)
	p.lags(ids[2], 200)
	want("one that has to catch up", 1, 101, 2)
	want("in a term of which nothing is known", 2, 101, 1)
}
