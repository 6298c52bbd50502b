package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
)

// TestSessions is one script: what the leader of the metadata decides as time goes by.
func TestSessions(t *testing.T) {
	t.Parallel()
	state := metadata.New()
	index := uint64(0)
	apply := func(c metadata.Command) {
		t.Helper()
		index++
		if r, err := state.Apply(index, 1, metadata.Append(nil, 1, c)); err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
	}
	for id := range metadata.NodeID(3) {
		apply(metadata.RegisterNode{ID: id + 1, Incarnation: uint64(id + 11)})
	}
	began := time.Unix(1000, 0)
	var heard heard
	s := sessions{self: 1, timeout: 9 * time.Second}
	steps := []struct {
		why   string
		at    int // seconds
		term  uint64
		hears []metadata.NodeID
		want  string // node, + fenced, - unfenced
	}{
		{"it does not lead", 0, 0, nil, ""},
		{"silence counts from when it leads", 3, 5, nil, ""},
		{"one is heard", 6, 5, []metadata.NodeID{2}, ""},
		{"the session is not over", 9, 5, nil, ""},
		{"to the second", 12, 5, nil, ""},
		{"the other one has never been heard", 13, 5, nil, "+3"},
		{"and is fenced once", 14, 5, nil, ""},
		{"the one was heard 9 s ago", 15, 5, nil, ""},
		{"and 10", 16, 5, nil, "+2"},
		{"contact ends it", 17, 5, []metadata.NodeID{3}, "-3"},
		{"after a pause all silence is its own", 100, 5, nil, ""},
		{"and what is fenced stays so", 102, 5, nil, ""},
		{"until it is heard", 104, 5, []metadata.NodeID{2}, "-2"},
		{"a new term begins anew", 106, 6, nil, ""},
		{"for all", 109, 6, nil, ""}, {"for all", 112, 6, nil, ""}, {"for all", 115, 6, nil, ""},
		{"and ends", 116, 6, nil, "+2 +3"},
	}
	for _, step := range steps {
		now := began.Add(time.Duration(step.at) * time.Second)
		for _, id := range step.hears {
			heard.note(id, now)
		}
		var got []string
		for _, c := range s.decide(state.Image(), step.term, now, heard.last) {
			sign := "-"
			if c.Fenced {
				sign = "+"
			}
			got = append(got, fmt.Sprint(sign, c.ID))
			apply(c)
		}
		if text := strings.Join(got, " "); text != step.want {
			t.Errorf("at %d s, %s: %q, want %q", step.at, step.why, text, step.want)
		}
	}
}

// TestFencing: a node that is cut off is fenced after its session, and all who are in
// contact say the same of it; nothing new is placed on it; it is back as soon as it
// is heard.
func TestFencing(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.createWith("t", 3, 3)
		tr.createWith("one", 3, 1)
		// Its leader cannot be the one: who leads after it knows nothing of a node that it
		// has never heard.
		leader := tr.rigs[0].leaders(topic)[0].Node
		away := tr.rigs[slices.IndexFunc(tr.rigs[:], func(r *rig) bool {
			return r.Broker.meta.Leading() == 0 && r.NodeID() != leader
		})]
		says := func(when string, known, inSync []int32, offline []int32) {
			t.Helper()
			for _, r := range tr.rigs {
				if r == away && offline != nil {
					continue // it cannot know
				}
				var ids []int32
				for _, n := range r.Nodes(ClientListener) {
					ids = append(ids, n.ID)
				}
				if d := cmp.Diff(known, ids); d != "" {
					t.Errorf("%s, nodes that node %d says differ (-want +got):\n%s", when, r.NodeID(), d)
				}
				seen, missing := r.TopicByID(topic.ID)
				if missing != nil {
					t.Fatal(missing)
				}
				p := r.leaders(seen)[0]
				if !slices.Equal(p.InSync, inSync) || !slices.Equal(p.Offline, offline) || len(p.Replicas) != 3 {
					t.Errorf("%s, node %d says that of %v in sync are %v, offline %v; want %v and %v", when, r.NodeID(), p.Replicas, p.InSync, p.Offline, inSync, offline)
				}
			}
		}
		all := []int32{1, 2, 3}
		rest := slices.DeleteFunc(slices.Clone(all), func(id int32) bool { return id == away.NodeID() })
		says("at first", all, all, nil)
		tr.cutOff(away, true)
		tr.rest(defaultSessionTimeout - 2*contactInterval)
		says("in its session", all, all, nil)
		tr.rest(4 * contactInterval)
		says("after it", rest, rest, []int32{away.NodeID()})
		one := tr.createWith("elsewhere", 6, 1)
		two := tr.createWith("new", 4, 2)
		for i, p := range append(tr.controller().leaders(one), tr.controller().leaders(two)...) {
			if slices.Contains(p.Replicas, away.NodeID()) {
				t.Errorf("partition %d, on %v, was placed on the node that is fenced", i, p.Replicas)
			}
		}
		for _, shard := range tr.controller().image().Carried(metadata.NodeID(away.NodeID())) {
			if len(shard.Replicas) == 2 {
				t.Errorf("shard %d, on %v, was made on the node that is fenced", shard.ID, shard.Replicas)
			}
		}
		tr.cutOff(away, false)
		tr.rest(5 * contactInterval)
		says("back", all, all, nil)
	})
}

// A majority of a shard's replicas has to be in contact for a partition to go there,
// unless there is no such shard.
func TestUsable(t *testing.T) {
	t.Parallel()
	state := metadata.New()
	for i, c := range []metadata.Command{
		metadata.RegisterNode{ID: 1, Incarnation: 11}, metadata.RegisterNode{ID: 2, Incarnation: 21}, metadata.RegisterNode{ID: 3, Incarnation: 31},
		metadata.CreateShard{ID: 1, Replicas: []metadata.NodeID{1, 2, 3}}, metadata.CreateShard{ID: 2, Replicas: []metadata.NodeID{1, 2}},
		metadata.CreateShard{ID: 3, Replicas: []metadata.NodeID{1}}, metadata.CreateShard{ID: 4, Replicas: []metadata.NodeID{3}},
		metadata.FenceNode{ID: 3, Incarnation: 31, Fenced: true}, metadata.FenceNode{ID: 2, Incarnation: 21, Fenced: true},
	} {
		if r, err := state.Apply(uint64(i+1), 1, metadata.Append(nil, 1, c)); err != nil || r.Err() != nil {
			t.Fatal(err, r.Err())
		}
	}
	im := state.Image()
	loads := func(ids ...metadata.ShardID) (ls []metadata.Load) {
		for _, id := range ids {
			ls = append(ls, metadata.Load{Shard: id})
		}
		return ls
	}
	for _, tt := range [][2][]metadata.Load{
		{loads(1, 2, 3, 4), loads(3)},
		{loads(1, 2), loads(1, 2)}, // none can be written to
		{loads(4, 9), loads(9)},    // the last is to be made
	} {
		if d := cmp.Diff(tt[1], usable(im, tt[0])); d != "" {
			t.Errorf("of %v: differs (-want +got):\n%s", tt[0], d)
		}
	}
}
