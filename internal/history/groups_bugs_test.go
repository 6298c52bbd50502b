package history

import "slices"

// moved picks a move of a partition: its Revoked by one member, and the Assigned of
// the next one. It returns -1 if ok accepts none.
func (m *groupMutable) moved(ok func(revoked, assigned int) bool) (revoked, assigned int) {
	revoked = m.pick(Revoked, Invoke, func(i int, op *Op) bool {
		assigned := m.givenAfter(i)
		return assigned >= 0 && m.h[assigned].Process != op.Process && ok(i, assigned)
	})
	if revoked < 0 {
		return -1, -1
	}
	return revoked, m.givenAfter(revoked)
}

func (m *groupMutable) givenAfter(revoked int) int {
	k := m.h[revoked].Mops[0].Key
	return m.next(revoked, func(op *Op) bool { return op.F == Assigned && op.Type == Invoke && op.Mops[0].Key == k })
}

// giveTwice gives a partition to another member as well.
func giveTwice(m *groupMutable) bool {
	i := m.pick(Assigned, Invoke, nil)
	other := m.pick(Subscribe, Invoke, func(j int, op *Op) bool { return j < i && op.Process != m.h[i].Process })
	if other < 0 {
		return false
	}
	op := m.h[i]
	op.Process, op.In = m.h[other].Process, &Membership{"g", m.h[other].In.Member, m.h[i].In.Epoch}
	op.Mops = []Mop{{Key: op.Mops[0].Key, From: NoOffset}}
	m.insert(i+2, op)
	return true
}

// revokeLate has a member give a partition up only after another one got it, and
// after a commit of it was taken: it was not lost.
func revokeLate(m *groupMutable) bool {
	revoked, assigned := m.moved(func(revoked, assigned int) bool { return m.commitAfter(revoked, assigned) >= 0 })
	if revoked < 0 {
		return false
	}
	until := m.commitAfter(revoked, assigned)
	pair := slices.Clone(m.h[revoked : revoked+2])
	m.h = slices.Insert(m.h, until+1, pair...)
	m.h = slices.Delete(m.h, revoked, revoked+2)
	return true
}

// commitAfter returns the event at which a commit was taken, after a partition was
// given to another member, of the one that had revoked it; -1 if something happens to
// that one before.
func (m *groupMutable) commitAfter(revoked, assigned int) int {
	a := m.h[revoked]
	commit := m.next(assigned+2, func(op *Op) bool { return op.F == Commit && op.Type == Invoke && op.Process == a.Process })
	if commit < 0 {
		return -1
	}
	done := m.next(commit+1, func(op *Op) bool { return op.ID == m.h[commit].ID })
	other := m.next(revoked+2, func(op *Op) bool {
		return op.Process == a.Process && (op.F == Crash || op.F == Lost || op.F == Assigned && op.Mops[0].Key == a.Mops[0].Key)
	})
	if done < 0 || m.h[done].Type != OK || other >= 0 && other < done {
		return -1
	}
	return done
}

// commitFenced takes a commit of the member that had a partition before.
func commitFenced(m *groupMutable) bool {
	revoked, assigned := m.moved(func(_, assigned int) bool {
		return m.committed(assigned, m.h[assigned].Mops[0].Key) > 0
	})
	if revoked < 0 {
		return false
	}
	a, k := m.h[revoked], m.h[assigned].Mops[0].Key
	m.insert(assigned+2, Op{Process: a.Process, F: Commit, In: a.In, Mops: []Mop{{Key: k, From: m.committed(assigned, k)}}})
	return true
}

// commitBack takes a commit of an offset below the one that is committed.
func commitBack(m *groupMutable) bool {
	i := m.pick(Commit, OK, func(i int, op *Op) bool { return op.Mops[0].From > 1 && !m.unanswered(op, i) })
	if i < 0 {
		return false
	}
	op := m.h[i]
	op.Mops = []Mop{{Key: op.Mops[0].Key, From: op.Mops[0].From - 1}}
	m.insert(i+1, op)
	return true
}

// unanswered reports whether a commit of op's partition by another member, before the
// event i, was never answered: it may come late, and set the group back.
func (m *groupMutable) unanswered(op *Op, i int) bool {
	return slices.ContainsFunc(m.h[:i], func(other Op) bool {
		return other.F == Commit && other.Type == Info && other.Mops[0].Key == op.Mops[0].Key && other.In.Member != op.In.Member
	})
}

// loseCommit tells an offset below one that was acknowledged before.
func loseCommit(m *groupMutable) bool {
	i := m.pick(FetchOffsets, OK, func(_ int, op *Op) bool { return op.In.Member == "" && op.Mops[0].From > 0 })
	if i < 0 {
		return false
	}
	k, told := m.h[i].Mops[0].Key, m.h[i].Mops[0].From
	known := false // for certain, and not set since
	for j := range i {
		switch op := &m.h[j]; {
		case op.Mops == nil || op.Mops[0].Key != k:
		case op.F == SetOffsets:
			known = false
		case op.F == Commit && op.Type == OK && op.Mops[0].From == told:
			known = true
		}
	}
	m.h[i].Mops[0].From = NoOffset
	return known
}

// committing reports that somebody has begun to commit a key, and has no answer when
// event i comes.
func (m *groupMutable) committing(i int, k Key) bool {
	return slices.ContainsFunc(m.h[:i], func(op Op) bool {
		if op.F != Commit || op.Type != Invoke || op.Mops[0].Key != k {
			return false
		}
		done := m.next(0, func(o *Op) bool { return o.ID == op.ID && o.Type != Invoke })
		return done < 0 || done > i || m.h[done].Type == Info
	})
}

// loseSet tells what was committed before somebody set the offset to more.
func loseSet(m *groupMutable) bool {
	i := m.pick(SetOffsets, OK, func(i int, op *Op) bool { return op.Mops[0].From > 0 && !m.committing(i, op.Mops[0].Key) })
	if i < 0 {
		return false
	}
	m.insert(i+1, Op{Process: 5, F: FetchOffsets, In: &Membership{Group: "g"}, Mops: []Mop{{Key: m.h[i].Mops[0].Key, From: NoOffset}}})
	return true
}

// inventCommit tells an offset that nobody has committed.
func inventCommit(m *groupMutable) bool {
	i := m.pick(FetchOffsets, OK, func(_ int, op *Op) bool { return op.In.Member == "" })
	if i < 0 {
		return false
	}
	told := &m.h[i].Mops[0]
	for told.From++; told.From <= int64(len(m.logs[told.Key].values)); told.From++ {
		if !slices.ContainsFunc(m.h[:i], func(op Op) bool {
			return (op.F == Commit || op.F == SetOffsets) && op.Mops[0].Key == told.Key && op.Mops[0].From == told.From
		}) {
			return true
		}
	}
	return false
}

// commitBeyond commits what does not exist.
func commitBeyond(m *groupMutable) bool {
	i := m.pick(Commit, OK, nil)
	if i < 0 {
		return false
	}
	op := m.h[i]
	k := op.Mops[0].Key
	op.Mops = []Mop{{Key: k, From: int64(len(m.logs[k].values)) + 5}}
	op.F, op.In = FetchOffsets, &Membership{Group: "g"}
	m.insert(len(m.h), op)
	m.h[len(m.h)-1].ID, m.h[len(m.h)-2].ID = 1<<41, 1<<41
	op.F = SetOffsets
	m.insert(len(m.h)-2, op)
	return true
}

// eachConsumed lets f change what members were given in each poll of a key.
func (m *groupMutable) eachConsumed(k Key, f func(mop *Mop)) {
	for i := range m.h {
		if op := &m.h[i]; op.F == Poll && op.Type == OK && op.In != nil && op.Mops[0].Key == k {
			f(&op.Mops[0])
		}
	}
}

// dropConsumed gives the last record of a partition to nobody.
func dropConsumed(m *groupMutable) bool {
	k := Key{stable, m.rng.Int32N(3)}
	last := int64(len(m.logs[k].values)) - 1
	m.eachConsumed(k, func(mop *Mop) {
		mop.Records = slices.DeleteFunc(mop.Records, func(r Record) bool { return r.Offset == last })
	})
	return true
}

// pollUnowned gives a member a record of what it has given up.
func pollUnowned(m *groupMutable) bool {
	i := m.pick(Revoked, Invoke, func(_ int, op *Op) bool { return m.committed(len(m.h), op.Mops[0].Key) > 0 })
	if i < 0 {
		return false
	}
	k := m.h[i].Mops[0].Key
	first := m.next(0, func(op *Op) bool { return op.F == Send && op.Mops[0].Key == k })
	if first < 0 || first > i {
		return false
	}
	m.insert(i+2, Op{Process: m.h[i].Process, F: Poll, In: m.h[i].In, Mops: []Mop{Values(k, m.logs[k].values[0]).At(0)}})
	return true
}

// moveSteady has a member give a partition up and get it again, though nothing was to
// move.
func moveSteady(m *groupMutable) bool {
	i := m.pick(Steady, Invoke, nil)
	if i < 0 {
		return false
	}
	for j := i; j >= 0; j-- {
		if op := m.h[j]; op.F == Assigned && op.Type == Invoke {
			if at := m.next(j+2, func(o *Op) bool { return o.Process == op.Process && (o.F == Crash || o.F == Lost || o.F == Revoked) }); at >= 0 && at < i {
				return false
			}
			op.Mops = []Mop{{Key: op.Mops[0].Key, From: NoOffset}}
			m.insert(i+1, op)
			return true
		}
	}
	return false
}

// consumedTwice picks two polls in a row of a member, of one partition that it has.
func (m *groupMutable) consumedTwice() (a, b *Mop) {
	i := m.pick(Poll, OK, func(i int, op *Op) bool { return op.In != nil && m.secondPoll(i) >= 0 })
	if i < 0 {
		return nil, nil
	}
	return &m.h[i].Mops[0], &m.h[m.secondPoll(i)].Mops[0]
}

func (m *groupMutable) secondPoll(i int) int {
	op := &m.h[i]
	k := op.Mops[0].Key
	next := m.next(i+1, func(o *Op) bool {
		return o.Process == op.Process && (o.F == Crash || o.F != Commit && o.Mops != nil && o.Mops[0].Key == k)
	})
	if next < 0 || m.h[next].F != Poll || m.h[next].Type != OK {
		return -1
	}
	return next
}

// skipConsumed drops the first record of a member's second poll.
func skipConsumed(m *groupMutable) bool {
	a, b := m.consumedTwice()
	if a == nil || len(b.Records) < 2 {
		return false
	}
	b.Records = b.Records[1:]
	return true
}

// repeatConsumed gives a member the last record of a poll again in the next.
func repeatConsumed(m *groupMutable) bool {
	a, b := m.consumedTwice()
	if a == nil {
		return false
	}
	b.Records = slices.Insert(b.Records, 0, a.Records[len(a.Records)-1])
	return true
}
