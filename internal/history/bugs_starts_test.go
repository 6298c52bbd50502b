package history

import (
	"math"
	"slices"
)

// answers returns the events of stable keys that told of a log start, in order.
func (m *mutable) answers(f F) (events []int) {
	for i := range m.h {
		op := &m.h[i]
		if op.Type == OK && (op.F == DeleteRecords || op.F == LogStarts) && (f == 0 || f == op.F) && op.Mops[0].Key.Topic == stable {
			events = append(events, i)
		}
	}
	return events
}

// invocation returns what the event i completes.
func (m *mutable) invocation(i int) *Op {
	n := slices.IndexFunc(m.h, func(op Op) bool { return op.Type == Invoke && op.ID == m.h[i].ID })
	return &m.h[n]
}

// named reports whether a DeleteRecords asked for an offset of k.
func (m *mutable) named(k Key, offset int64) bool {
	return slices.ContainsFunc(m.h, func(op Op) bool {
		return op.F == DeleteRecords && op.Type == Invoke && op.Mops[0].Key == k &&
			(op.Mops[0].From == offset || op.Mops[0].From == NoOffset)
	})
}

// startAgain lets a log start where it did when it was new.
func startAgain(m *mutable) bool {
	all := m.answers(0)
	i := slices.IndexFunc(all, func(i int) bool { return m.h[i].Mops[0].From > 0 })
	if i < 0 {
		return false
	}
	k := m.h[all[i]].Mops[0].Key
	m.h = append(m.h,
		Op{ID: 1 << 42, Process: 22, Type: Invoke, F: LogStarts},
		Op{ID: 1 << 42, Process: 22, Type: OK, F: LogStarts, Mops: []Mop{{Key: k}}})
	return true
}

// finalStart changes the last log start that was told of, where to may.
func (m *mutable) finalStart(to func(l *modelLog, k Key) int64) bool {
	all := m.answers(LogStarts)
	slices.Reverse(all)
	for _, i := range all[:min(2, len(all))] {
		k := m.h[i].Mops[0].Key
		l := m.logs[k]
		if offset := to(l, k); offset > l.start && offset <= int64(len(l.values)) && !m.named(k, offset) {
			m.h[i].Mops = []Mop{{Key: k, From: offset}}
			return true
		}
	}
	return false
}

// startAhead lets a log start above what anybody deleted.
func startAhead(m *mutable) bool {
	return m.opt.Retention == nil && m.starts() && m.finalStart(func(l *modelLog, _ Key) int64 { return l.start + 1 })
}

// takeNewest lets retention delete everything there is.
func takeNewest(m *mutable) bool {
	r, ok := m.opt.Retention[stable]
	return ok && r.Records > 0 && m.finalStart(func(l *modelLog, k Key) int64 {
		unknown := 0 // may lie above
		for _, s := range m.sent {
			if s.key == k && !acked(s) && s.outcome != Fail {
				unknown++
			}
		}
		if unknown >= r.Records {
			return -1
		}
		return int64(len(l.values))
	})
}

// takeYoung lets retention delete what was sent a moment ago.
func takeYoung(m *mutable) bool {
	r, ok := m.opt.Retention[stable]
	return ok && r.Age > 0 && m.finalStart(func(l *modelLog, k Key) int64 {
		end := int64(len(l.values))
		last := m.at(k, end-1)
		if last == nil || !acked(last) || m.h[len(m.h)-1].At-m.h[last.invoked].At > r.Age/2 {
			return -1
		}
		return end
	})
}

// starts reports whether the history has what moved log starts.
func (m *mutable) starts() bool { return m.seed%4 != 0 }

// readDeleted gives a final reader the record below a log start that was told
// of before it began.
func readDeleted(m *mutable) bool {
	last := m.finals[len(m.finals)-1]
	began := slices.IndexFunc(m.h, func(op Op) bool { return op.Process == last && op.F == Assign && op.Type == Invoke })
	_, mop := m.polled(func(i int, mop *Mop) bool {
		l := m.logs[mop.Key]
		if m.h[i].Process != last || len(mop.Records) == 0 || mop.Records[0].Offset != l.start || l.start == 0 {
			return false
		}
		s := m.sent[l.values[l.start-1]]
		return s != nil && s.copies == 1 && slices.ContainsFunc(m.answers(0), func(i int) bool {
			return i < began && m.h[i].Mops[0].Key == mop.Key && m.h[i].Mops[0].From == l.start
		})
	})
	if mop == nil {
		return false
	}
	l := m.logs[mop.Key]
	mop.Records = slices.Insert(mop.Records, 0, Record{Offset: l.start - 1, Value: l.values[l.start-1]})
	return true
}

// appendDeleted acknowledges a value below a log start that was told of before
// it was sent.
func appendDeleted(m *mutable) bool {
	s := m.pick(func(s *sentValue) bool {
		return acked(s) && s.copies == 1 && m.single(s) && slices.ContainsFunc(m.answers(0), func(i int) bool {
			return i < s.invoked && m.h[i].Mops[0].Key == s.key && m.h[i].Mops[0].From > 0
		})
	})
	if s == nil {
		return false
	}
	m.eachAck(s.key, func(rec *Record) {
		if rec.Value == s.value {
			rec.Offset = 0
		}
	})
	return true
}

// deleteLess answers a DeleteRecords with a log start below what it asked for.
func deleteLess(m *mutable) bool {
	for _, i := range m.answers(DeleteRecords) {
		k, before := m.h[i].Mops[0].Key, m.invocation(i).Mops[0].From
		if before > 0 && before < math.MaxInt64 {
			m.h[i].Mops = []Mop{{Key: k, From: before - 1}}
			return true
		}
	}
	return false
}
