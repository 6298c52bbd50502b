package history

import (
	"math"
	"slices"
)

func acked(s *sentValue) bool { return s.outcome == OK }

func appendTwice(m *mutable) bool {
	s := m.pick(m.readable)
	if s == nil {
		return false
	}
	m.appendRead(s.key, s.value)
	return true
}

// disagree gives one final reader a value of unknown outcome that is nowhere
// else, in the place of another.
func disagree(m *mutable) bool {
	s := m.pick(m.readable)
	if s == nil {
		return false
	}
	other := m.pick(func(o *sentValue) bool { return o.key == s.key && o.copies == 0 && o.outcome == Info })
	// An order that this value would break is another bug.
	if other == nil || m.landsOutOfOrder(other, s.offset) {
		return false
	}
	m.eachRead(s.key, func(op *Op, rec *Record) bool {
		if op.Process == m.finals[0] && rec.Offset == s.offset {
			rec.Value = other.value
		}
		return true
	})
	return true
}

// landsOutOfOrder reports whether s, placed at an offset, would contradict the
// order of time or of its process.
func (m *mutable) landsOutOfOrder(s *sentValue, offset int64) bool {
	for _, o := range m.sent {
		if o.key != s.key || o.offset < 0 {
			continue
		}
		if o.offset >= offset && ((o.outcome == OK && o.done < s.invoked) || (o.process == s.process && o.invoked <= s.invoked)) {
			return true
		}
		if o.offset <= offset && o.process == s.process && o.invoked >= s.invoked {
			return true
		}
	}
	return false
}

func ackAgain(m *mutable) bool {
	s := m.pick(acked)
	if s == nil {
		return false
	}
	op := m.h[s.done]
	op.Mops = []Mop{op.Mops[0].At(s.ack + 1000)}
	m.h = append(m.h, op)
	return true
}

// ackTogether cuts the last two values, acknowledges them at one offset.
func ackTogether(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool {
		next := m.at(s.key, s.offset+1)
		return s.copies == 1 && acked(s) && s.offset >= m.logs[s.key].start &&
			s.offset == m.end(s.key)-2 && next != nil && acked(next)
	})
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool { return rec.Offset < s.offset })
	last := m.at(s.key, s.offset+1)
	m.eachAck(s.key, func(rec *Record) {
		if rec.Value == last.value {
			rec.Offset = s.offset
		}
	})
	return true
}

// overwrite replaces an acknowledged value by one of unknown outcome, for all.
func overwrite(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return m.readable(s) && acked(s) })
	if s == nil {
		return false
	}
	other := m.pick(func(o *sentValue) bool { return o.key == s.key && o.copies == 0 && o.outcome == Info })
	if other == nil || other.invoked > s.invoked || m.landsOutOfOrder(other, s.offset) {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool {
		if rec.Offset == s.offset {
			rec.Value = other.value
		}
		return true
	})
	return true
}

func readFailed(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return s.outcome == Fail })
	if s == nil || m.landsOutOfOrder(s, m.end(s.key)) {
		return false
	}
	m.appendRead(s.key, s.value)
	return true
}

func dropAcked(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return m.readable(s) && acked(s) })
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool { return rec.Offset != s.offset })
	return true
}

func cutTail(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool {
		return s.copies == 1 && acked(s) && s.offset >= m.logs[s.key].start && s.offset >= m.end(s.key)-3
	})
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool { return rec.Offset < s.offset })
	return true
}

// neighbours picks two values at successive offsets that ok accepts.
func (m *mutable) neighbours(ok func(a, b *sentValue) bool) (a, b *sentValue) {
	a = m.pick(func(s *sentValue) bool {
		next := m.at(s.key, s.offset+1)
		return m.readable(s) && next != nil && ok(s, next)
	})
	if a == nil {
		return nil, nil
	}
	return a, m.at(a.key, a.offset+1)
}

func (m *mutable) swapNeighbours(ok func(a, b *sentValue) bool) bool {
	a, b := m.neighbours(func(a, b *sentValue) bool {
		return ok(a, b) && a.read > b.invoked && b.read > a.invoked // else it is a phantom
	})
	if a == nil {
		return false
	}
	m.swap(a, b)
	return true
}

func (m *mutable) crashedBetween(a, b *sentValue) bool {
	return slices.ContainsFunc(m.h[a.invoked:b.invoked], func(op Op) bool { return op.F == Crash && op.Process == a.process })
}

// single accepts sends of one value, whose neighbours are no part of them.
func (m *mutable) single(s *sentValue) bool { return len(m.h[s.invoked].Mops[0].Records) == 1 }

func swapSends(m *mutable) bool {
	return m.swapNeighbours(func(a, b *sentValue) bool {
		return a.process == b.process && acked(a) && a.done < b.invoked && m.single(a) && m.single(b)
	})
}

func swapPipelined(m *mutable) bool {
	return m.swapNeighbours(func(a, b *sentValue) bool {
		return a.process == b.process && a.invoked < b.invoked && (!acked(a) || a.done > b.invoked) &&
			m.single(a) && m.single(b) && !m.crashedBetween(a, b)
	})
}

func swapAcrossCrash(m *mutable) bool {
	return m.swapNeighbours(func(a, b *sentValue) bool {
		return a.process == b.process && acked(a) && a.done < b.invoked && m.crashedBetween(a, b)
	})
}

func reverseBatch(m *mutable) bool {
	return m.swapNeighbours(func(a, b *sentValue) bool { return a.invoked == b.invoked })
}

func swapProcesses(m *mutable) bool {
	return m.swapNeighbours(func(a, b *sentValue) bool {
		return a.process != b.process && acked(a) && a.done < b.invoked && m.single(a) && m.single(b)
	})
}

// skipBetweenPolls drops the last record of a poll that another one follows.
func skipBetweenPolls(m *mutable) bool {
	_, mop := m.polled(func(i int, mop *Mop) bool {
		n := len(mop.Records)
		if n < 2 {
			return false
		}
		next := m.nextPoll(i, mop)
		lost := mop.Records[n-1].Offset
		return next != nil && next.Records[0].Offset == lost+1 && lost >= m.logs[mop.Key].start && m.readElsewhere(i, mop.Key, lost)
	})
	if mop == nil {
		return false
	}
	mop.Records = mop.Records[:len(mop.Records)-1]
	return true
}

// skipAtStart drops the first record that the last reader was given.
func skipAtStart(m *mutable) bool {
	last := m.finals[len(m.finals)-1]
	_, mop := m.polled(func(i int, mop *Mop) bool {
		return m.h[i].Process == last && len(mop.Records) > 1 && mop.Records[0].Offset == m.logs[mop.Key].start
	})
	if mop == nil {
		return false
	}
	mop.Records = mop.Records[1:]
	return true
}

// repeatPoll gives the last record of a poll again in the next.
func repeatPoll(m *mutable) bool {
	i, mop := m.polled(func(i int, mop *Mop) bool {
		return len(mop.Records) > 0 && m.nextPoll(i, mop) != nil
	})
	if mop == nil {
		return false
	}
	next := m.nextPoll(i, mop)
	next.Records = slices.Insert(next.Records, 0, mop.Records[len(mop.Records)-1])
	return true
}

// raiseStart lets a reader that was assigned from 0 have asked for more.
func raiseStart(m *mutable) bool {
	last := m.finals[len(m.finals)-1]
	for i := range m.h {
		op := &m.h[i]
		if op.F != Assign || op.Type != Invoke || op.Process != last {
			continue
		}
		for j := range op.Mops {
			k := op.Mops[j].Key
			if l := m.logs[k]; k.Topic == stable && l.start < m.end(k) {
				op.Mops[j].From = l.start + 1
				return true
			}
		}
	}
	return false
}

func skipInsidePoll(m *mutable) bool {
	_, mop := m.polled(func(i int, mop *Mop) bool {
		return len(mop.Records) > 2 && mop.Records[1].Offset >= m.logs[mop.Key].start && m.readElsewhere(i, mop.Key, mop.Records[1].Offset)
	})
	if mop == nil {
		return false
	}
	mop.Records = slices.Delete(mop.Records, 1, 2)
	return true
}

func repeatInsidePoll(m *mutable) bool {
	_, mop := m.polled(func(_ int, mop *Mop) bool { return len(mop.Records) > 0 })
	if mop == nil {
		return false
	}
	mop.Records = slices.Insert(mop.Records, 1, mop.Records[0])
	return true
}

func inventValue(m *mutable) bool {
	m.appendRead(Key{stable, 0}, math.MaxInt64)
	return true
}

func garbleAppended(m *mutable) bool {
	m.appendRead(Key{stable, 1}, Garbled)
	return true
}

func corruptValue(m *mutable) bool {
	s := m.pick(m.readable)
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool {
		if rec.Offset == s.offset {
			rec.Value ^= 1 << 40
		}
		return true
	})
	// The acknowledgement contradicts what is read there, unless there is none.
	return !acked(s)
}

// readFuture moves the first poll of a value before the value's invocation.
func readFuture(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return s.key.Partition == 0 && m.readable(s) && s.invoked > 0 })
	if s == nil {
		return false
	}
	id := int64(1 << 41)
	m.h = slices.Insert(m.h, s.invoked,
		Op{ID: id, Process: 99, Type: Invoke, F: Poll},
		Op{ID: id, Process: 99, Type: OK, F: Poll, Mops: []Mop{Values(s.key, s.value).At(s.offset)}})
	return true
}

func negativeOffset(m *mutable) bool {
	s := m.pick(m.readable)
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool {
		if rec.Offset == s.offset {
			rec.Offset = -2
		}
		return true
	})
	return true
}

func wrongAck(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool {
		return acked(s) && s.copies == 1 && m.readable(s) && s.offset > m.logs[s.key].start
	})
	if s == nil {
		return false
	}
	m.eachAck(s.key, func(rec *Record) {
		if rec.Value == s.value {
			rec.Offset--
		}
	})
	return true
}

func negativeAck(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return acked(s) && s.copies == 1 })
	if s == nil {
		return false
	}
	m.eachAck(s.key, func(rec *Record) {
		if rec.Value == s.value {
			rec.Offset = math.MinInt64
		}
	})
	return true
}

func dropUnacked(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return m.readable(s) && !acked(s) })
	if s == nil {
		return false
	}
	m.eachRead(s.key, func(_ *Op, rec *Record) bool { return rec.Offset != s.offset })
	return true
}

// shiftOffsets lets the log take an offset without a record, for every client.
func shiftOffsets(m *mutable) bool {
	s := m.pick(m.readable)
	if s == nil {
		return false
	}
	m.eachAck(s.key, func(rec *Record) {
		if rec.Offset >= s.offset {
			rec.Offset++
		}
	})
	m.eachRead(s.key, func(_ *Op, rec *Record) bool {
		if rec.Offset >= s.offset {
			rec.Offset++
		}
		return true
	})
	return true
}

// readStale shows the last reader a value acknowledged before its topic was
// deleted and made again.
func readStale(m *mutable) bool {
	deleted := -1
	open := make(map[int64]int)
	for i, op := range m.h {
		switch {
		case op.F == DeleteTopic && op.Type == Invoke:
			open[op.ID] = i
		case op.F == DeleteTopic:
			deleted = open[op.ID]
		}
	}
	for v, s := range m.sent {
		if s.key.Topic == fleeting && acked(s) && s.done < deleted && s.copies == 0 {
			m.appendRead(s.key, v)
			return true
		}
	}
	return false
}

func orphan(m *mutable) bool {
	i := slices.IndexFunc(m.h, func(op Op) bool { return op.F == Poll && op.Type == Info })
	if i < 0 {
		return false
	}
	m.h[i].ID = 1 << 42
	return true
}

func sendTwice(m *mutable) bool {
	s := m.pick(func(*sentValue) bool { return true })
	if s == nil {
		return false
	}
	op := m.h[s.invoked]
	op.ID = 1 << 42
	m.h = append(m.h, op)
	return true
}

func assignTwice(m *mutable) bool {
	i := slices.IndexFunc(m.h, func(op Op) bool { return op.F == Assign && op.Type == OK })
	m.h = append(m.h, m.h[i])
	return true
}

func failedThenUnknown(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return s.outcome == Fail })
	if s == nil {
		return false
	}
	op := m.h[s.done]
	op.Type = Info
	m.h = append(m.h, op)
	return true
}

func ackOther(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool { return acked(s) && m.single(s) })
	if s == nil {
		return false
	}
	op := m.h[s.done]
	op.Mops = []Mop{Values(s.key, s.value+1<<40).At(s.ack)}
	m.h = append(m.h, op)
	return true
}

func reuseID(m *mutable) bool {
	i := slices.IndexFunc(m.h, func(op Op) bool { return op.F == Assign && op.Type == Invoke })
	m.h = append(m.h, m.h[i])
	return true
}
