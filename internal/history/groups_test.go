package history

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestGroupsOfTheModel: what a correct coordinator does is not held against it.
func TestGroupsOfTheModel(t *testing.T) {
	t.Parallel()
	var ops [Steady + 1]int
	for seed := range uint64(300) {
		r := groupRun(seed, 200)
		if report := Check(r.h, r.opt); report.Err() != nil {
			t.Fatalf("seed %d: %s", seed, report)
		}
		for _, op := range r.h {
			ops[op.F]++
		}
	}
	for f := Assigned; f <= Steady; f++ {
		if ops[f] < 200 {
			t.Errorf("%d events of %s: too few to show anything", ops[f], f)
		}
	}
}

// groupMutator is a mutator of a run of a group.
type groupMutator struct {
	name  string
	kind  Kind
	plant func(m *groupMutable) bool
	with  []Kind // what the same bug may rightly show as well
}

var groupMutators = []groupMutator{
	{name: "given to two at one epoch", kind: TwoOwners, plant: giveTwice, with: []Kind{FencedCommit}},
	{name: "given before it was revoked", kind: TwoOwners, plant: revokeLate, with: []Kind{NeedlessRebalance}},
	{name: "commit of who was fenced", kind: FencedCommit, plant: commitFenced, with: []Kind{TwoOwners}},
	{name: "commit below the committed offset", kind: CommitBack, plant: commitBack},
	{name: "commit lost", kind: LostCommit, plant: loseCommit},
	{name: "set offset lost", kind: LostCommit, plant: loseSet},
	{name: "offset that nobody committed", kind: PhantomCommit, plant: inventCommit, with: []Kind{LostCommit, CommitBack}},
	{name: "offset beyond the end", kind: CommitBeyondEnd, plant: commitBeyond},
	{name: "record that nobody was given", kind: Unconsumed, plant: dropConsumed},
	{name: "record of a partition that is given up", kind: UnownedPoll, plant: pollUnowned},
	{name: "moved without a cause", kind: NeedlessRebalance, plant: moveSteady},
	{name: "a member skips a record", kind: PollSkip, plant: skipConsumed, with: []Kind{Unconsumed}},
	{name: "a member is given a record again", kind: NonmonotonicPoll, plant: repeatConsumed},
}

// TestPlantedGroupBugs is TestPlantedBugs for groups.
func TestPlantedGroupBugs(t *testing.T) {
	t.Parallel()
	const enough = 15
	for _, gm := range groupMutators {
		t.Run(gm.name, func(t *testing.T) {
			t.Parallel()
			planted := 0
			for seed := uint64(0); planted < enough; seed++ {
				if seed == 1000 {
					t.Fatalf("planted only %d times in %d runs", planted, seed)
				}
				m := newGroupMutable(groupRun(seed, 150))
				if gm.plant(m) {
					planted++
					checkPlanted(t, mutator{kind: gm.kind, with: gm.with}, m.run)
				}
			}
		})
	}
}

// groupMutable is a run of a group whose history is its own copy.
type groupMutable struct {
	run
	rng *rand.Rand
}

func newGroupMutable(r run) *groupMutable {
	m := &groupMutable{run: r, rng: rand.New(rand.NewPCG(r.seed, 0xbadc0de))}
	m.h = slices.Clone(r.h)
	for i := range m.h {
		m.h[i].Mops = slices.Clone(m.h[i].Mops)
		for j := range m.h[i].Mops {
			m.h[i].Mops[j].Records = slices.Clone(m.h[i].Mops[j].Records)
		}
	}
	return m
}

// pick returns the place of an event of a function and type that ok accepts, or -1.
func (m *groupMutable) pick(f F, of Type, ok func(i int, op *Op) bool) int {
	var fit []int
	for i := range m.h {
		if op := &m.h[i]; op.F == f && op.Type == of && (ok == nil || ok(i, op)) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return -1
	}
	return fit[m.rng.IntN(len(fit))]
}

// insert puts an operation that takes no time before the event i.
func (m *groupMutable) insert(i int, op Op) {
	op.ID = 1 << 40
	answer := op
	op.Type, answer.Type = Invoke, OK
	m.h = slices.Insert(m.h, i, op, answer)
}

// next returns the first event from i on that ok accepts, or -1.
func (m *groupMutable) next(i int, ok func(op *Op) bool) int {
	for ; i < len(m.h); i++ {
		if ok(&m.h[i]) {
			return i
		}
	}
	return -1
}

// committed returns what the group has committed of a key when event i comes, as far
// as is known for certain, or NoOffset.
func (m *groupMutable) committed(i int, k Key) int64 {
	for i--; i >= 0; i-- {
		if op := &m.h[i]; op.F == FetchOffsets && op.Type == OK && op.Mops[0].Key == k {
			return op.Mops[0].From
		}
	}
	return NoOffset
}

// TestLateCommit: a commit whose answer nobody waited for may come after the next one,
// and set the group back. One that was answered may not, and one that was not sent yet.
func TestLateCommit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		first  Type  // of the commit of offset 5; the next one, of 7, is answered
		told   int64 // at the end
		later  int64 // that is committed by who was told; 0: nothing
		counts map[Kind]int
	}{
		{name: "it came", first: Info, told: 5},
		{name: "it came, and the next member goes on from there", first: Info, told: 5, later: 6},
		{name: "it did not come", first: Info, told: 7},
		{name: "another one was lost", first: Info, told: 4, counts: map[Kind]int{LostCommit: 1, PhantomCommit: 1}},
		{name: "it was answered", first: OK, told: 5, counts: map[Kind]int{LostCommit: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := new(script)
			s.send(1, 0, 10, 11, 12, 13, 14, 15, 16, 17)
			commit := func(offset int64, as Type) {
				member := "a"
				if offset == tt.later {
					member = "b"
				}
				s.id++
				op := s.add(Op{ID: s.id, Process: 2, F: Commit, In: &Membership{Group: "g", Member: member, Epoch: 1}, Mops: []Mop{{Key: key, From: offset}}}, Invoke)
				s.add(op, as)
			}
			commit(5, tt.first)
			commit(7, OK)
			s.id++
			op := s.add(Op{ID: s.id, Process: 3, F: FetchOffsets, In: &Membership{Group: "g"}}, Invoke)
			op.Mops = []Mop{{Key: key, From: tt.told}}
			s.add(op, OK)
			if tt.later > 0 {
				commit(tt.later, OK)
			}
			report := Check(s.h, Options{Idempotent: true, Assigned: true})
			for _, kind := range []Kind{LostCommit, CommitBack, PhantomCommit} {
				if got := report.Counts[kind]; got != tt.counts[kind] {
					t.Errorf("%s: %d, want %d\n%s", kind, got, tt.counts[kind], report)
				}
			}
		})
	}
}
