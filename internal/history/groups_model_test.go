package history

import (
	"math/rand/v2"
	"slices"
	"time"
)

// groupModel is a correct coordinator of one group with its members, moved a step at a
// time by one seed. It gives each partition to one member, takes it back or loses the
// member without a word, and takes commits of who has the partition.
type groupModel struct {
	run
	rng       *rand.Rand
	now       time.Time
	rec       *Recorder
	keys      []Key
	nextValue int64
	process   int32
	epoch     int32
	owner     map[Key]*modelMember
	committed map[Key]int64
	members   []*modelMember
	steady    *Op // under way: nothing is to move
}

// modelMember is a member as it sees itself.
type modelMember struct {
	process int32
	id      string
	fenced  bool // the group has lost it, and it does not know
	epochs  map[Key]int32
	next    map[Key]int64 // of what it takes for its own: where it goes on
	commit  *Op           // under way
}

func (m *modelMember) in(epoch int32) *Membership { return &Membership{"g", m.id, epoch} }

// groupRun plays steps steps of a correct run of a group.
func groupRun(seed uint64, steps int) run {
	m := &groupModel{
		rng: rand.New(rand.NewPCG(seed, 0x960b)), now: time.Unix(1e9, 0), process: 100,
		owner: make(map[Key]*modelMember), committed: make(map[Key]int64),
	}
	m.rec = NewRecorder(func() time.Time { return m.now })
	m.seed = seed
	m.opt = Options{Idempotent: true, Assigned: true, Final: true, Groups: map[string][]string{"g": {stable}}}
	m.logs = make(map[Key]*modelLog)
	for p := range int32(3) {
		k := Key{stable, p}
		m.keys = append(m.keys, k)
		m.logs[k], m.committed[k] = new(modelLog), NoOffset
	}
	for range 3 {
		m.join()
	}
	for _, k := range m.keys {
		m.give(k, m.any())
	}
	for range steps {
		m.now = m.now.Add(time.Millisecond)
		m.step()
	}
	m.finish()
	return m.run
}

func (m *groupModel) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *groupModel) any() *modelMember { return m.members[m.rng.IntN(len(m.members))] }

func (m *groupModel) step() {
	k := m.keys[m.rng.IntN(len(m.keys))]
	switch n := m.rng.IntN(100); {
	case n < 30:
		m.send(k)
	case n < 60:
		m.poll(m.any(), k, 1+m.rng.IntN(4))
	case n < 80:
		m.goOnCommitting(m.any(), k)
	case n < 86:
		m.fetch("", 5, k)
	case n < 88:
		m.turnSteady()
	case m.steady != nil:
	case n < 93:
		m.move(k)
	case n < 96:
		m.lose()
	case n < 98:
		m.crash()
	default:
		m.set(k)
	}
}

func (m *groupModel) send(k Key) {
	m.nextValue++
	op := m.rec.Invoke(Op{Process: 1, F: Send, Mops: []Mop{Values(k, m.nextValue)}})
	l := m.logs[k]
	op.Mops = []Mop{op.Mops[0].At(int64(len(l.values)))}
	l.values = append(l.values, m.nextValue)
	m.rec.Complete(op, OK)
}

func (m *groupModel) join() {
	m.process++
	mm := &modelMember{process: m.process, id: string(rune('a' + m.process - 100)), epochs: make(map[Key]int32), next: make(map[Key]int64)}
	m.members = append(m.members, mm)
	m.rec.Note(Op{Process: mm.process, F: Subscribe, In: mm.in(0)})
}

// give gives a partition to a member, which begins where the group is.
func (m *groupModel) give(k Key, to *modelMember) {
	m.epoch++
	m.owner[k] = to
	to.epochs[k] = m.epoch
	to.next[k] = max(0, m.fetch(to.id, to.process, k))
	from := NoOffset
	if m.chance(50) {
		from = to.next[k]
	}
	m.rec.Note(Op{Process: to.process, F: Assigned, In: to.in(m.epoch), Mops: []Mop{{Key: k, From: from}}})
}

func (m *groupModel) fetch(member string, process int32, k Key) int64 {
	op := m.rec.Invoke(Op{Process: process, F: FetchOffsets, In: &Membership{"g", member, 0}, Mops: []Mop{{Key: k}}})
	op.Mops = []Mop{{Key: k, From: m.committed[k]}}
	m.rec.Complete(op, OK)
	return m.committed[k]
}

// giveUp has a member give a partition up, with what it was about to commit.
func (m *groupModel) giveUp(k Key) {
	a := m.owner[k]
	m.endCommit(a)
	delete(a.next, k)
	m.rec.Note(Op{Process: a.process, F: Revoked, In: a.in(a.epochs[k]), Mops: []Mop{{Key: k}}})
}

func (m *groupModel) move(k Key) {
	to := m.any()
	if to != m.owner[k] && !to.fenced {
		m.giveUp(k)
		m.give(k, to)
	}
}

// others gives away what a member has, who knows nothing of it.
func (m *groupModel) others(from *modelMember) {
	for _, k := range m.keys {
		for m.owner[k] == from {
			if to := m.any(); to != from && !to.fenced {
				m.give(k, to)
			}
		}
	}
}

// lose has the group lose a member, or a lost one hear of it.
func (m *groupModel) lose() {
	a := m.any()
	fenced := slices.IndexFunc(m.members, func(o *modelMember) bool { return o.fenced })
	switch {
	case fenced < 0:
		a.fenced = true
		m.others(a)
	case a.fenced:
		m.hears(a)
	}
}

func (m *groupModel) hears(a *modelMember) {
	m.endCommit(a)
	op := Op{Process: a.process, F: Lost, In: a.in(0)}
	for _, k := range m.keys {
		if _, ok := a.next[k]; ok {
			op.Mops = append(op.Mops, Mop{Key: k})
		}
	}
	m.rec.Note(op)
	clear(a.next)
	a.fenced = false
}

func (m *groupModel) crash() {
	a := m.any()
	if a.commit != nil {
		m.land(a, m.chance(50))
		m.rec.Complete(*a.commit, Info)
	}
	m.rec.Note(Op{Process: a.process, F: Crash})
	m.members = slices.DeleteFunc(m.members, func(o *modelMember) bool { return o == a })
	m.join()
	for _, o := range m.members {
		if o.fenced {
			m.hears(o)
		}
	}
	m.others(a)
}

func (m *groupModel) poll(a *modelMember, k Key, most int) bool {
	next, ok := a.next[k]
	l := m.logs[k]
	to := min(next+int64(most), int64(len(l.values)))
	if !ok || next >= to {
		return false
	}
	op := m.rec.Invoke(Op{Process: a.process, F: Poll, In: a.in(0)})
	op.Mops = []Mop{Values(k, l.values[next:to]...).At(next)}
	m.rec.Complete(op, OK)
	a.next[k] = to
	return true
}

// goOnCommitting begins a member's commit, or ends it.
func (m *groupModel) goOnCommitting(a *modelMember, k Key) {
	if a.commit != nil {
		m.endCommit(a)
		return
	}
	if next, ok := a.next[k]; ok && next > 0 {
		op := m.rec.Invoke(Op{Process: a.process, F: Commit, In: a.in(a.epochs[k]), Mops: []Mop{{Key: k, From: next}}})
		a.commit = &op
	}
}

func (m *groupModel) endCommit(a *modelMember) {
	if a.commit == nil {
		return
	}
	op := *a.commit
	switch taken := m.land(a, true); {
	case m.chance(10):
		m.rec.Complete(op, Info)
	case taken:
		m.rec.Complete(op, OK)
	default:
		m.rec.Complete(op, Fail)
	}
	a.commit = nil
}

// land has a commit arrive, if it does, and reports whether it is taken.
func (m *groupModel) land(a *modelMember, arrives bool) bool {
	at := a.commit.Mops[0]
	if !arrives || a.fenced || m.owner[at.Key] != a {
		return false
	}
	m.committed[at.Key] = at.From
	return true
}

func (m *groupModel) turnSteady() {
	if m.steady == nil {
		op := m.rec.Invoke(Op{Process: 2, F: Steady, In: &Membership{Group: "g"}})
		m.steady = &op
		return
	}
	m.rec.Complete(*m.steady, OK)
	m.steady = nil
}

// set sets an offset back, while nobody has the partition.
func (m *groupModel) set(k Key) {
	if m.committed[k] < 1 || slices.ContainsFunc(m.members, func(o *modelMember) bool { return o.fenced }) {
		return
	}
	m.giveUp(k)
	op := m.rec.Invoke(Op{Process: 3, F: SetOffsets, In: &Membership{Group: "g"}, Mops: []Mop{{Key: k, From: m.rng.Int64N(m.committed[k])}}})
	m.committed[k] = op.Mops[0].From
	m.rec.Complete(op, OK)
	m.give(k, m.any())
}

// finish lets the group consume all, and polls everything from outside.
func (m *groupModel) finish() {
	if m.steady != nil {
		m.turnSteady()
	}
	for _, a := range m.members {
		if a.fenced {
			m.hears(a)
		}
	}
	for _, k := range m.keys {
		m.send(k)
		m.send(k)
		a := m.owner[k]
		for m.poll(a, k, 5) {
		}
		m.endCommit(a)
		m.goOnCommitting(a, k)
		m.endCommit(a)
		m.fetch("", 5, k)
	}
	op := Op{Process: 30, F: Assign}
	for _, k := range m.keys {
		op.Mops = append(op.Mops, Mop{Key: k})
	}
	m.rec.Complete(m.rec.Invoke(op), OK)
	op = m.rec.Invoke(Op{Process: 30, F: Poll})
	for _, k := range m.keys {
		op.Mops = append(op.Mops, Values(k, m.logs[k].values...).At(0))
	}
	m.rec.Complete(op, OK)
	m.h = m.rec.History()
}
