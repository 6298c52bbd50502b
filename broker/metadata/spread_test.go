package metadata

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// nodesOn returns nodes 1 to len(racks) on racks.
func nodesOn(racks ...string) (nodes []*Node) {
	for i, rack := range racks {
		nodes = append(nodes, &Node{ID: NodeID(i + 1), Incarnation: uint64(i + 1), Rack: rack})
	}
	return nodes
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		racks           []string
		factor, perNode int
		want            string // leader:replicas
	}{
		{"none wanted", []string{"", ""}, 0, 1, ""},
		{"more than there are nodes", []string{"", ""}, 3, 1, ""},
		{"one each", []string{"", "", ""}, 1, 2, "1:[1] 2:[2] 3:[3] 1:[1] 2:[2] 3:[3]"},
		{"a leader's shards have different followers", []string{"", "", ""}, 2, 2, "1:[1 2] 2:[2 3] 3:[1 3] 1:[1 3] 2:[1 2] 3:[2 3]"},
		{"all", []string{"", ""}, 2, 1, "1:[1 2] 2:[1 2]"},
		{"across racks", []string{"a", "a", "b", "b"}, 2, 1, "1:[1 3] 2:[2 4] 3:[1 3] 4:[2 4]"},
		{"one rack is none", []string{"a", "a", "a"}, 2, 1, "1:[1 2] 2:[2 3] 3:[1 3]"},
		{"more replicas than racks", []string{"a", "a", "b"}, 3, 1, "1:[1 2 3] 2:[1 2 3] 3:[1 2 3]"},
	} {
		got := ""
		for i, s := range Spread(nodesOn(tt.racks...), nil, tt.factor, tt.perNode) {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprintf("%d:%v", s.Preferred, s.Replicas)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: differs (-want +got):\n%s", tt.name, d)
		}
	}
}

// TestSpreadEvenly: whatever the cluster, each node leads the same number of
// shards; replicas are on as many racks as there are, or as they are; and with
// racks of one size no node carries more than another but for two replicas.
func TestSpreadEvenly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		racks, size := rapid.IntRange(1, 4).Draw(t, "racks"), rapid.IntRange(1, 4).Draw(t, "size")
		uneven := rapid.IntRange(0, 2).Draw(t, "more nodes on the first rack")
		perNode := rapid.IntRange(1, 5).Draw(t, "per node")
		var names []string
		for i := range racks * size {
			names = append(names, fmt.Sprint("r", i%racks))
		}
		for range uneven {
			names = append(names, "r0")
		}
		nodes := nodesOn(names...)
		factor := rapid.IntRange(1, len(nodes)).Draw(t, "factor")
		shards := Spread(nodes, nil, factor, perNode)
		if len(shards) != perNode*len(nodes) {
			t.Fatalf("%d shards", len(shards))
		}
		leads, carries := make([]int, len(nodes)), make([]int, len(nodes))
		for _, s := range shards {
			leads[s.Preferred-1]++
			on := map[string]int{}
			for _, id := range s.Replicas {
				carries[id-1]++
				on[names[id-1]]++
			}
			if len(s.Replicas) != factor || !slices.IsSorted(s.Replicas) || len(slices.Compact(slices.Clone(s.Replicas))) != factor || !slices.Contains(s.Replicas, s.Preferred) {
				t.Fatalf("shard %+v", s)
			}
			if len(on) != min(racks, factor) {
				t.Fatalf("shard %+v is on %d racks of %d", s, len(on), racks)
			}
		}
		if slices.Min(leads) != perNode || slices.Max(leads) != perNode {
			t.Fatalf("led: %v", leads)
		}
		if uneven == 0 && slices.Max(carries)-slices.Min(carries) > 2 {
			t.Fatalf("replicas: %v", carries)
		}
	})
}

// TestSpreadBeside: a node that carries no shards of a factor gets to lead as many as
// the others do; who has enough is left alone, and is chosen to follow the less the more
// it carries.
func TestSpreadBeside(t *testing.T) {
	t.Parallel()
	have := func(shards ...[]NodeID) (all []*Shard) {
		for i, replicas := range shards {
			all = append(all, &Shard{ID: ShardID(i + 1), Replicas: replicas})
		}
		return all
	}
	three := []NodeID{1, 2, 3}
	for _, tt := range []struct {
		name          string
		have          []*Shard
		nodes, factor int
		perNode       int
		want          string
	}{
		{"enough", have(three, three, three), 3, 3, 1, ""},
		{"a fourth node", have(three, three, three), 4, 3, 1, "4:[1 2 4]"},
		{"two each", have(three, three, three, three, three, three), 4, 3, 2, "4:[1 2 4] 4:[1 3 4]"},
		{"who carries least follows", have([]NodeID{1, 2}, []NodeID{1, 2}, []NodeID{1, 3}), 4, 2, 1, "4:[3 4]"},
		{"two at once", have(three, three, three), 5, 3, 1, "4:[1 4 5] 5:[2 4 5]"},
		{"part of a share", have([]NodeID{1}, []NodeID{2}, []NodeID{1}), 2, 1, 2, "2:[2]"},
		{"a node that may get none does not count", have([]NodeID{1, 9}), 2, 2, 1, "2:[1 2]"},
	} {
		got := ""
		for i, s := range Spread(nodesOn(make([]string, tt.nodes)...), tt.have, tt.factor, tt.perNode) {
			if i > 0 {
				got += " "
			}
			got += fmt.Sprintf("%d:%v", s.Preferred, s.Replicas)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: differs (-want +got):\n%s", tt.name, d)
		}
	}
}

// A shard says who is to lead it, whether it was there from the begin or not, and
// also when its replicas have changed.
func TestPreferred(t *testing.T) {
	t.Parallel()
	m := sample(t)
	m.apply(RegisterNode{3, 31, 0, "", nil, 3})
	m.apply(SetShardReplicas{9, []NodeID{1, 3}})
	im := m.s.Image()
	for id, want := range map[ShardID]NodeID{7: 1, 8: 2, 9: 1} {
		if got := im.Shard(id).Preferred(); got != want {
			t.Errorf("shard %d: node %d, want %d", id, got, want)
		}
	}
	if got := (&Shard{ID: 1}).Preferred(); got != -1 {
		t.Errorf("without replicas: node %d", got)
	}
	if next := im.NextShard(); next != 10 {
		t.Errorf("the next shard is %d, want 10", next)
	}
	if next := New().Image().NextShard(); next != 1 {
		t.Errorf("the first shard is %d", next)
	}
}
