package broker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/replication"
)

// TestNeedsBytes holds an answer to the bytes that are written down.
func TestNeedsBytes(t *testing.T) {
	t.Parallel()
	if got, want := hex.EncodeToString(appendNeeds(nil, []shardNeed{{0, needNothing}, {258, needReplica}})), "01000000"+"0000000002"+"0201000001"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzNeeds gives any bytes to what reads an answer: it does not panic, refuses by
// name, and takes one form only.
func FuzzNeeds(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(appendNeeds(nil, nil))
	f.Add(appendNeeds(nil, []shardNeed{{0, needNothing}, {1, needReplica}, {7, needUnknown}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		needs, err := decodeNeeds(b)
		if err != nil && !errors.Is(err, errWithout) {
			t.Fatalf("decodeNeeds(%x) = %v", b, err)
		}
		if again := appendNeeds(nil, needs); err == nil && !bytes.Equal(again, b) {
			t.Fatalf("%x reads as what is written %x", b, again)
		}
	})
}

// TestNeeds lists shards that can do without a replica on node 1, and such that cannot.
func TestNeeds(t *testing.T) {
	t.Parallel()
	member := func(node int32, voter bool, match uint64) replication.Member {
		return replication.Member{ID: replication.ReplicaID{Node: node, Incarnation: 1}, Voter: voter, Match: match}
	}
	for _, tt := range []struct {
		name    string
		members []replication.Member
		want    bool
	}{
		{"the other two have all", []replication.Member{member(1, true, 10), member(2, true, 10), member(3, true, 11)}, false},
		{"one of them lacks an entry", []replication.Member{member(1, true, 10), member(2, true, 10), member(3, true, 9)}, true},
		{"its copy is the only one", []replication.Member{member(1, true, 10)}, true},
		{"one of two", []replication.Member{member(1, true, 10), member(2, true, 10)}, true},
		{"the third does not vote", []replication.Member{member(1, true, 10), member(2, true, 10), member(3, false, 10)}, true},
		{"three of five", []replication.Member{member(1, true, 10), member(2, true, 10), member(3, true, 10), member(4, true, 10), member(5, true, 0)}, false},
		{"two of five", []replication.Member{member(1, true, 10), member(2, true, 10), member(3, true, 10), member(4, true, 0), member(5, true, 0)}, true},
		{"it is replaced already", []replication.Member{member(2, true, 10), member(3, true, 10)}, false},
	} {
		if got := needs(tt.members, 1, 10); got != tt.want {
			t.Errorf("%s: needed %t, want %t", tt.name, got, tt.want)
		}
	}
}

// TestWithoutError holds what is said of the shards that stand in the way.
func TestWithoutError(t *testing.T) {
	t.Parallel()
	if err := withoutError(map[replication.ShardID]needState{0: needNothing, 3: needNothing}, []string{"node 2 does not answer"}); err != nil {
		t.Errorf("nothing is needed: %v", err)
	}
	err := withoutError(map[replication.ShardID]needState{0: needUnknown, 3: needReplica}, []string{"node 2 does not answer"})
	for _, want := range []string{"nobody else leads the metadata", "the other replicas of shard 3 do not have all of it yet", "node 2 does not answer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestWithout asks the nodes that are left whether they can do without one: together
// they can, and one of them alone cannot.
func TestWithout(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		boss := tr.controller()
		var others []*rig
		for _, r := range tr.rigs {
			if r != boss {
				others = append(others, r)
			}
		}
		lost := others[0]
		tr.cutOff(lost, true)
		tr.rest(10 * time.Second)
		ask := func(r *rig) map[replication.ShardID]needState {
			b, err := r.Answer(t.Context(), lost.NodeID(), MethodWithout, []byte{withoutFormat})
			if err != nil {
				t.Fatal(err)
			}
			list, err := decodeNeeds(b)
			if err != nil {
				t.Fatal(err)
			}
			states := make(map[replication.ShardID]needState)
			for _, n := range list {
				states[n.shard] = n.state
			}
			return states
		}
		got := ask(boss)
		for id, state := range ask(others[1]) {
			got[id] = max(got[id], state)
		}
		want := map[replication.ShardID]needState{0: needNothing}
		for id := range boss.carried() {
			want[id] = needNothing
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("with two of three up (-want +got):\n%s", d)
		}
		// A leader that nobody hears speaks for nobody, whatever it still thinks.
		tr.cutOff(boss, true)
		for id, state := range ask(boss) {
			if state == needNothing {
				t.Errorf("a node that is cut off says that shard %d can do without another one", id)
			}
		}
		if _, err := boss.Answer(t.Context(), lost.NodeID(), MethodWithout, []byte{9}); !errors.Is(err, errWithout) {
			t.Errorf("a question of another format: %v", err)
		}
	})
}
