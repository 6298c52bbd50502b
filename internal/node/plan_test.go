package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/replication"
)

// three is the plan of nodes 1, 2 and 3 whose directories are a, b and c.
const three = founders("1=000000000000000a,2=000000000000000b,3=000000000000000c")

func at(node int32, edit func(*standing)) standing {
	s := standing{Format: 1, ClusterID: "c", NodeID: node, Incarnation: hexNumber(9 + node), Nodes: []int32{1, 2, 3}}
	if edit != nil {
		edit(&s)
	}
	return s
}

func planned(s *standing)   { s.Founders, s.Shards = three, 4 }
func isFounded(s *standing) { s.Founders, s.Shards, s.Founded = three, 4, true }

// TestDecide lists what a node does for what the two others reply.
func TestDecide(t *testing.T) {
	t.Parallel()
	away := errors.New("nobody is there")
	tests := []struct {
		name string
		own  standing
		a, b standing // of the other two, by id; a zero one does not answer
		want string   // record, found, or what it waits for
	}{
		{"all fresh", at(1, nil), at(2, nil), at(3, nil), "record"},
		{"all fresh, not the lowest", at(2, nil), at(1, nil), at(3, nil), "node 1, which has the lowest id, makes the plan"},
		{"one away", at(1, nil), at(2, nil), standing{}, "node 3 does not answer: nobody is there"},
		{"recorded by itself alone", at(1, planned), at(2, nil), at(3, nil), "the other nodes are recording the plan"},
		{"recorded by some", at(1, planned), at(2, planned), at(3, nil), "the other nodes are recording the plan"},
		{"recorded by the others", at(3, nil), at(1, planned), at(2, planned), "record"},
		{"recorded by all", at(1, planned), at(2, planned), at(3, planned), "found"},
		{"recorded, and one away", at(1, planned), at(2, planned), standing{}, "node 3 does not answer"},
		{"founded, and one away", at(1, planned), at(2, isFounded), standing{}, "found"},
		{"founded, and fresh", at(1, nil), at(2, isFounded), standing{}, "record"},
		{
			"it lost its directory", at(1, func(s *standing) { s.Incarnation = 0x77 }), at(2, isFounded), at(3, isFounded),
			"rejoin",
		},
		{
			"it lost its directory before the cluster was founded", at(1, func(s *standing) { s.Incarnation = 0x77 }), at(2, planned), at(3, planned),
			"node 1 lost its directory: the cluster's plan, which node 2 knows, has it with the directory of incarnation 000000000000000a, and it came with a fresh one, 0000000000000077",
		},
		{
			"it was alone in a directory of that id", at(1, func(s *standing) { s.Incarnation, s.Alone = 0x77, true }), at(2, isFounded), at(3, isFounded),
			"node 1 lost its directory",
		},
		{
			"another lost its directory", at(1, planned), at(2, func(s *standing) { s.Incarnation = 0x77 }), at(3, planned),
			"node 2 lost its directory: the cluster's plan, which node 1 knows",
		},
		{
			"another cluster", at(1, nil), at(2, func(s *standing) { s.ClusterID = "other" }), at(3, nil),
			`node 2 is of cluster "other", and node 1 of cluster "c"; give both the same cluster.id`,
		},
		{
			"another list", at(1, nil), at(2, nil), at(3, func(s *standing) { s.Nodes = []int32{1, 3} }),
			"cluster.nodes lists nodes 1, 3 at node 3, and nodes 1, 2, 3 at node 1; give all nodes the same list",
		},
		{
			"another id", at(1, nil), at(1, nil), at(3, nil),
			"where node 2 is said to be, node 1 answers; check cluster.nodes and node.id of both",
		},
		{
			"of another version", at(1, nil), at(2, func(s *standing) { s.Level = 1 }), at(3, nil),
			"node 2 knows feature levels up to 1, and node 1 up to 0; run one version on all nodes",
		},
		{
			"one was alone", at(1, nil), at(2, func(s *standing) { s.Alone = true }), at(3, nil),
			"node 2 has served alone from its directory; give it an empty one",
		},
		{
			"in no plan", at(1, nil), at(2, func(s *standing) {
				s.Founders, s.Shards = "2=000000000000000b,3=000000000000000c", 4
			}), standing{},
			"the cluster was founded with nodes 2, 3, as node 2 says, and node 1 is none of them",
		},
		{
			"another plan", at(1, planned), at(2, func(s *standing) {
				s.Founders, s.Shards = "1=0000000000000077,2=000000000000000b,3=000000000000000c", 4
			}), standing{},
			"node 2 has the plan of another cluster (1=0000000000000077",
		},
		{
			"another plan, of more shards", at(1, planned), at(2, func(s *standing) { s.Founders, s.Shards = three, 8 }), standing{},
			"node 2 has the plan of another cluster",
		},
	}
	for _, tt := range tests {
		replies := make(map[int32]reply)
		others := slices.DeleteFunc([]int32{1, 2, 3}, func(id int32) bool { return id == tt.own.NodeID })
		for i, s := range []standing{tt.a, tt.b} {
			r := reply{standing: s}
			if s.NodeID == 0 {
				r.err = away
			}
			replies[others[i]] = r
		}
		s := decide(&tt.own, 4, replies)
		var got string
		switch {
		case s.record.founders != "":
			got = "record"
			if s.record.founders != three || s.record.shards != 4 || s.record.clusterID != "c" {
				t.Errorf("%s: records %+v", tt.name, s.record)
			}
		case s.rejoin.founders != "":
			got = "rejoin"
		case s.found:
			got = "found"
		default:
			got = strings.Join(s.wait, "; ")
		}
		if !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestPlanReplica: a founder's directory has the replicas that the plan begins with,
// and every other directory of the node others.
func TestPlanReplica(t *testing.T) {
	t.Parallel()
	p := plan{"c", 4, three}
	seen := make(map[replication.ReplicaID]string)
	for shard := range replication.ShardID(5) {
		voters := p.voters(shard)
		for node := range int32(3) {
			founder := uint64(p.founders.incarnation(node + 1))
			if got := p.replica(shard, node+1, founder); got != voters[node] {
				t.Errorf("shard %d: the founder's directory of node %d has %s, want %s", shard, node+1, got, voters[node])
			}
			for _, directory := range []uint64{founder, founder + 1, 0x77} {
				id, is := p.replica(shard, node+1, directory), fmt.Sprintf("shard %d of directory %x", shard, directory)
				if was := seen[id]; was != "" || id.Node != node+1 || id.Incarnation == 0 {
					t.Errorf("%s is %s, which is %s already", is, id, was)
				}
				seen[id] = is
			}
		}
	}
}

// TestPlanVoters: replicas of different plans, shards or nodes never have the
// same name, and all nodes give them the same.
func TestPlanVoters(t *testing.T) {
	t.Parallel()
	p := plan{"c", 4, three}
	seen := make(map[uint64]string)
	for _, other := range []plan{p, {"c2", 4, three}, {"c", 5, three}, {"c", 4, "1=000000000000000a,2=000000000000000b,3=000000000000000d"}} {
		for shard := range replication.ShardID(5) {
			ids := other.voters(shard)
			if len(ids) != 3 || !slices.Equal(ids, other.voters(shard)) {
				t.Fatalf("%+v, shard %d: voters %v", other, shard, ids)
			}
			for i, id := range ids {
				if id.Node != int32(i+1) || id.Incarnation == 0 {
					t.Errorf("%+v, shard %d: voter %v", other, shard, id)
				}
				if was := seen[id.Incarnation]; was != "" {
					t.Errorf("%+v, shard %d: voter %v is one of %s, too", other, shard, id, was)
				}
				seen[id.Incarnation] = other.clusterID + " " + string(other.founders)
			}
		}
	}
}

// FuzzStanding gives any bytes, and any line under a checksum that fits, to what
// reads a node's standing and a list of founders: nothing panics, what is refused
// is refused by name, and what decodes is written as it was read.
func FuzzStanding(f *testing.F) {
	f.Add([]byte(nil))
	for _, edit := range []func(*standing){nil, planned, isFounded, func(s *standing) { s.Alone = true }} {
		body, _ := Unseal(at(1, edit).encode())
		f.Add(body)
	}
	f.Add([]byte(three))
	f.Add([]byte("1=0b,2=000000000000000b"))
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, in := range [][]byte{b, Seal(bytes.Clone(b))} {
			s, err := decodeStanding(in)
			if err != nil {
				if !errors.Is(err, errStanding) {
					t.Fatalf("decodeStanding(%q) = %v", in, err)
				}
				continue
			}
			again, err := decodeStanding(s.encode())
			if err != nil || !bytes.Equal(again.encode(), s.encode()) {
				t.Fatalf("%+v is written as what reads as %+v, %v", s, again, err)
			}
			own := at(1, nil)
			own.takes(&s)
			decide(&own, 4, map[int32]reply{2: {standing: s}})
		}
		all, err := parseFounders(string(b))
		if err != nil && !errors.Is(err, errFounders) {
			t.Fatalf("parseFounders(%q) = %v", b, err)
		}
		if err == nil && foundersOf(all) != founders(b) {
			t.Fatalf("%q reads as %v", b, all)
		}
	})
}
