package assign

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// kafkaGroup is a line of testdata/kafka/groups.jsonl. Topics are numbers there.
type kafkaGroup struct {
	Topics  []int32 // partitions; 0: the topic is not there
	Members []struct {
		ID, Instance string
		Subscribed   []int
		Current      map[int][]int32
		Uniform      map[int][]int32
		Range        map[int][]int32
	}
}

func topicID(t int) (id record.TopicID) {
	id[7], id[14], id[15] = 1, byte(t>>8), byte(t)
	return id
}

// partitions returns an assignment in the order that a Func has.
func partitions(byTopic map[int][]int32) (out []record.TopicPartitions) {
	for _, t := range slices.Sorted(maps.Keys(byTopic)) {
		out = append(out, record.TopicPartitions{TopicID: topicID(t), Partitions: byTopic[t]})
	}
	return out
}

// kafkaGroups returns the groups that Kafka has assigned.
func kafkaGroups(tb testing.TB) (out []kafkaGroup) {
	b, err := os.ReadFile("testdata/kafka/groups.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var g kafkaGroup
		if err := json.Unmarshal([]byte(line), &g); err != nil {
			tb.Fatal(err)
		}
		out = append(out, g)
	}
	return out
}

// input returns what the assignors are given.
func (g *kafkaGroup) input() (topics []Topic, members []Member) {
	for t, n := range g.Topics {
		if n > 0 {
			topics = append(topics, Topic{ID: topicID(t), Partitions: n})
		}
	}
	for _, m := range g.Members {
		member := Member{ID: m.ID, InstanceID: m.Instance, Target: partitions(m.Current)}
		for _, t := range m.Subscribed {
			member.Topics = append(member.Topics, topicID(t))
		}
		members = append(members, member)
	}
	return topics, members
}

// loads returns how many partitions each member has, the most first: the less
// even an assignment, the greater they are.
func loads(assignment [][]record.TopicPartitions) (out []int) {
	for _, a := range assignment {
		n := 0
		for _, tp := range a {
			n += len(tp.Partitions)
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b int) int { return b - a })
	return out
}

// moves counts the partitions that a member has lost to another one.
func moves(members []Member, assignment [][]record.TopicPartitions) (n int) {
	had := make(map[record.TopicID]map[int32]int)
	for m, member := range members {
		for _, tp := range member.Target {
			for _, p := range tp.Partitions {
				if had[tp.TopicID] == nil {
					had[tp.TopicID] = make(map[int32]int)
				}
				had[tp.TopicID][p] = m
			}
		}
	}
	for m, a := range assignment {
		for _, tp := range a {
			for _, p := range tp.Partitions {
				if before, ok := had[tp.TopicID][p]; ok && before != m {
					n++
				}
			}
		}
	}
	return n
}

// TestAgainstKafka assigns the groups that Kafka's own classes have assigned:
// ranges are the same; uniform is at least as even, and where it is as even it
// moves no more, in the sum of all as in each group.
func TestAgainstKafka(t *testing.T) {
	t.Parallel()
	groups := kafkaGroups(t)
	if len(groups) < 400 {
		t.Fatalf("%d groups", len(groups))
	}
	ours, theirs, better := 0, 0, 0
	for i, g := range groups {
		topics, members := g.input()
		var kafkaUniform, kafkaRange [][]record.TopicPartitions
		for _, m := range g.Members {
			kafkaUniform = append(kafkaUniform, partitions(m.Uniform))
			kafkaRange = append(kafkaRange, partitions(m.Range))
		}
		if diff := cmp.Diff(kafkaRange, Range(topics, members), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("line %d: range (-kafka +got):\n%s", i+1, diff)
		}
		got := Uniform(topics, members)
		check(t, fmt.Sprintf("line %d", i+1), topics, members, got)
		switch slices.Compare(loads(got), loads(kafkaUniform)) {
		case 1:
			t.Errorf("line %d: loads %v, Kafka's %v", i+1, loads(got), loads(kafkaUniform))
		case -1:
			better++
		case 0:
			a, b := moves(members, got), moves(members, kafkaUniform)
			ours, theirs = ours+a, theirs+b
			if a > b {
				t.Errorf("line %d: %d moves, Kafka's %d", i+1, a, b)
			}
		}
	}
	t.Logf("%d groups: %d more even than Kafka's; in the others %d moves, Kafka's %d", len(groups), better, ours, theirs)
}

// check fails unless each partition of a topic that somebody subscribes to is
// there once, with a subscriber, in order, and no path makes the group more even.
func check(t *testing.T, what string, topics []Topic, members []Member, got [][]record.TopicPartitions) {
	t.Helper()
	whole(t, what, topics, members, got)
	if a, b := uneven(members, got); a >= 0 {
		t.Errorf("%s: member %d has two more than %d, and could give it one: %v", what, a, b, loads(got))
	}
}

func whole(t *testing.T, what string, topics []Topic, members []Member, got [][]record.TopicPartitions) {
	t.Helper()
	if len(got) != len(members) {
		t.Fatalf("%s: %d assignments for %d members", what, len(got), len(members))
	}
	type key struct {
		id record.TopicID
		p  int32
	}
	seen := make(map[key]bool)
	for m, a := range got {
		for i, tp := range a {
			if !slices.Contains(members[m].Topics, tp.TopicID) {
				t.Errorf("%s: member %d has a topic that it does not subscribe to", what, m)
			}
			if i > 0 && slices.Compare(a[i-1].TopicID[:], tp.TopicID[:]) >= 0 || !slices.IsSorted(tp.Partitions) || len(tp.Partitions) == 0 {
				t.Errorf("%s: member %d: not in order: %v", what, m, a)
			}
			for _, p := range tp.Partitions {
				if seen[key{tp.TopicID, p}] {
					t.Errorf("%s: a partition twice", what)
				}
				seen[key{tp.TopicID, p}] = true
			}
		}
	}
	want := 0
	for _, topic := range topics {
		if slices.ContainsFunc(members, func(m Member) bool { return slices.Contains(m.Topics, topic.ID) }) {
			want += int(topic.Partitions)
			for p := range topic.Partitions {
				if !seen[key{topic.ID, p}] {
					t.Errorf("%s: partition %d of a topic is with nobody", what, p)
				}
			}
		}
	}
	if len(seen) != want {
		t.Errorf("%s: %d partitions, want %d", what, len(seen), want)
	}
}

// uneven looks for a chain of gifts that makes the group more even, by closing
// who can give to whom over all members; it knows nothing of how the assignment
// came about. -1: there is none.
func uneven(members []Member, got [][]record.TopicPartitions) (from, to int) {
	n := len(members)
	reach := make([][]bool, n)
	load := make([]int, n)
	for a := range n {
		reach[a] = make([]bool, n)
		for _, tp := range got[a] {
			load[a] += len(tp.Partitions)
			for b := range n {
				reach[a][b] = reach[a][b] || slices.Contains(members[b].Topics, tp.TopicID)
			}
		}
	}
	for k := range n {
		for a := range n {
			for b := range n {
				reach[a][b] = reach[a][b] || reach[a][k] && reach[k][b]
			}
		}
	}
	for a := range n {
		for b := range n {
			if reach[a][b] && load[a] >= load[b]+2 {
				return a, b
			}
		}
	}
	return -1, -1
}

// world is a group that changes.
type world struct {
	rng         *rand.Rand
	homogeneous bool
	topics      []Topic
	members     []Member
	next        int
}

func (w *world) join() {
	m := Member{ID: fmt.Sprintf("m%d-%d", w.rng.IntN(1000), w.next)}
	if w.rng.IntN(4) == 0 {
		m.InstanceID = fmt.Sprintf("i%d-%d", w.rng.IntN(1000), w.next)
	}
	w.next++
	w.subscribe(&m)
	w.members = append(w.members, m)
}

func (w *world) subscribe(m *Member) {
	m.Topics = nil
	for _, topic := range w.topics {
		if w.homogeneous || w.rng.IntN(3) > 0 {
			m.Topics = append(m.Topics, topic.ID)
		}
	}
}

// partitions returns how many there are.
func (w *world) partitions() (n int) {
	for _, t := range w.topics {
		n += int(t.Partitions)
	}
	return n
}

func newWorld(seed uint64, homogeneous bool) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 848)), homogeneous: homogeneous}
	for t := range 1 + w.rng.IntN(6) {
		w.topics = append(w.topics, Topic{ID: topicID(t), Partitions: int32(w.rng.IntN(12))})
	}
	for range w.rng.IntN(8) {
		w.join()
	}
	return w
}

// assign gives the members what f says, and checks that f neither depends on the
// order in which it is told nor changes what it is told.
func (w *world) assign(t *testing.T, what string, f Func) [][]record.TopicPartitions {
	t.Helper()
	before := fmt.Sprint(w.topics, w.members)
	got := f(w.topics, w.members)
	if after := fmt.Sprint(w.topics, w.members); after != before {
		t.Fatalf("%s: the input changed: %s, now %s", what, before, after)
	}
	topics, order := slices.Clone(w.topics), w.rng.Perm(len(w.members))
	slices.Reverse(topics)
	members := make([]Member, len(order))
	for i, m := range order {
		members[i] = w.members[m]
	}
	for i, a := range f(topics, members) {
		if !Equal(a, got[order[i]]) {
			t.Errorf("%s: another answer in another order: %v, %v", what, a, got[order[i]])
		}
	}
	return got
}

func (w *world) settle(got [][]record.TopicPartitions) {
	for m := range w.members {
		w.members[m].Target = got[m]
	}
}

// TestUniform lets groups change, and holds every assignment against what is
// promised: whole, even, the same in any order, and still when nothing changes.
func TestUniform(t *testing.T) {
	t.Parallel()
	for seed := range uint64(150) {
		w := newWorld(seed, seed%2 == 0)
		for step := range 12 {
			what := fmt.Sprintf("seed %d step %d", seed, step)
			got := w.assign(t, what, Uniform)
			check(t, what, w.topics, w.members, got)
			if l := loads(got); w.homogeneous && len(l) > 0 && l[0]-l[len(l)-1] > 1 {
				t.Errorf("%s: loads %v", what, l)
			}
			w.settle(got)
			if again := Uniform(w.topics, w.members); moves(w.members, again) != 0 {
				t.Errorf("%s: partitions move in a group that has not changed", what)
			}
			switch n := w.rng.IntN(5); {
			case n < 2 || len(w.members) == 0:
				w.join()
			case n == 2:
				i := w.rng.IntN(len(w.members))
				w.members = slices.Delete(w.members, i, i+1)
			case n == 3:
				w.topics[w.rng.IntN(len(w.topics))].Partitions += int32(w.rng.IntN(4))
			default:
				w.subscribe(&w.members[w.rng.IntN(len(w.members))])
			}
		}
	}
}

// TestUniformMovesLittle counts what moves in a group in which all subscribe to
// the same: a member that joins gets its share, one that leaves takes nothing of
// what the others have, and a topic that grows moves nothing.
func TestUniformMovesLittle(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		w := newWorld(seed, true)
		w.join()
		w.settle(Uniform(w.topics, w.members))
		for range 6 {
			w.join()
			got := Uniform(w.topics, w.members)
			if n, most := moves(w.members, got), w.partitions()/len(w.members); n > most {
				t.Errorf("seed %d: %d of %d partitions moved as member %d joined", seed, n, w.partitions(), len(w.members))
			}
			w.settle(got)
		}
		for len(w.members) > 1 {
			i := w.rng.IntN(len(w.members))
			w.members = slices.Delete(w.members, i, i+1)
			got := Uniform(w.topics, w.members)
			if n := moves(w.members, got); n != 0 {
				t.Errorf("seed %d: %d partitions of others moved as a member left", seed, n)
			}
			w.settle(got)
		}
		w.join()
		w.settle(Uniform(w.topics, w.members))
		w.topics[0].Partitions += 5
		if n := moves(w.members, Uniform(w.topics, w.members)); n > 0 {
			t.Errorf("seed %d: %d partitions moved as a topic grew", seed, n)
		}
	}
}

// TestUniformPath is a group that only a path of two moves makes even: a and c
// share no topic.
func TestUniformPath(t *testing.T) {
	t.Parallel()
	topics := []Topic{{topicID(0), 3}, {topicID(1), 3}}
	members := []Member{
		{ID: "a", Topics: []record.TopicID{topicID(0)}, Target: partitions(map[int][]int32{0: {0, 1, 2}})},
		{ID: "b", Topics: []record.TopicID{topicID(0), topicID(1)}, Target: partitions(map[int][]int32{1: {0, 1}})},
		{ID: "c", Topics: []record.TopicID{topicID(1)}, Target: partitions(map[int][]int32{1: {2}})},
	}
	got := Uniform(topics, members)
	if l := loads(got); !slices.Equal(l, []int{2, 2, 2}) {
		t.Errorf("loads %v, want 2 each", l)
	}
	if n := moves(members, got); n != 2 {
		t.Errorf("%d moves, want 2", n)
	}
}

// TestUniformDistrustsTargets gives members targets that cannot be.
func TestUniformDistrustsTargets(t *testing.T) {
	t.Parallel()
	topics := []Topic{{topicID(0), 4}}
	all := []record.TopicID{topicID(0), topicID(9)}
	members := []Member{
		{ID: "a", Topics: all, Target: []record.TopicPartitions{
			{TopicID: topicID(0), Partitions: []int32{3, 0, 0, 4, -1}},
			{TopicID: topicID(9), Partitions: []int32{0}},
		}},
		{ID: "b", Topics: append(all, topicID(0)), Target: partitions(map[int][]int32{0: {0, 1}})},
	}
	got := Uniform(topics, members)
	want := [][]record.TopicPartitions{partitions(map[int][]int32{0: {0, 3}}), partitions(map[int][]int32{0: {1, 2}})}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRange holds ranges against what is promised of them in groups of any kind.
func TestRange(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		w := newWorld(seed, seed%2 == 0)
		what := fmt.Sprintf("seed %d", seed)
		got := w.assign(t, what, Range)
		whole(t, what, w.topics, w.members, got)
		for m, a := range got {
			for _, tp := range a {
				if n := len(tp.Partitions); int(tp.Partitions[n-1]-tp.Partitions[0]) != n-1 {
					t.Errorf("%s: member %d has %v, which is no range", what, m, tp.Partitions)
				}
			}
		}
	}
}

// TestRangeStatic shows that a static member keeps its place under a new id, and
// that topics that are alike are cut alike.
func TestRangeStatic(t *testing.T) {
	t.Parallel()
	topics := []Topic{{topicID(0), 5}, {topicID(1), 5}}
	all := []record.TopicID{topicID(0), topicID(1)}
	members := []Member{{ID: "b", Topics: all}, {ID: "a", InstanceID: "2", Topics: all}, {ID: "z", InstanceID: "1", Topics: all}}
	want := [][]record.TopicPartitions{
		partitions(map[int][]int32{0: {4}, 1: {4}}),
		partitions(map[int][]int32{0: {2, 3}, 1: {2, 3}}),
		partitions(map[int][]int32{0: {0, 1}, 1: {0, 1}}),
	}
	for _, id := range []string{"z", "a0"} {
		members[2].ID = id
		if diff := cmp.Diff(want, Range(topics, members)); diff != "" {
			t.Errorf("the first member is called %s (-want +got):\n%s", id, diff)
		}
	}
}

func TestByName(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		if ByName(name) == nil {
			t.Errorf("%s is in the list, and there is no such assignor", name)
		}
	}
	if ByName("sticky") != nil {
		t.Error("there is an assignor that is not in the list")
	}
}

// BenchmarkAssign gives the time to assign 1,000 partitions to 500 members: at
// first, when one more joins, and when nothing has changed.
func BenchmarkAssign(b *testing.B) {
	for _, bb := range []struct {
		name    string
		f       Func
		topics  int
		mixed   bool
		atFirst bool
	}{
		{"range/topics=10", Range, 10, false, true},
		{"uniform/topics=1/first", Uniform, 1, false, true},
		{"uniform/topics=1/join", Uniform, 1, false, false},
		{"uniform/topics=100/first", Uniform, 100, false, true},
		{"uniform/topics=100/join", Uniform, 100, false, false},
		{"uniform/topics=100/mixed/first", Uniform, 100, true, true},
		{"uniform/topics=100/mixed/join", Uniform, 100, true, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			w := world{rng: rng, homogeneous: !bb.mixed}
			for t := range bb.topics {
				w.topics = append(w.topics, Topic{topicID(t), int32(1000 / bb.topics)})
			}
			for range 500 {
				w.join()
			}
			if !bb.atFirst {
				w.settle(bb.f(w.topics, w.members))
				w.join()
			}
			b.ReportAllocs()
			for b.Loop() {
				bb.f(w.topics, w.members)
			}
		})
	}
}
