package history

import (
	"cmp"
	"slices"
)

// landed reports whether it is known where in the log the send lies.
func (s *send) landed() bool { return s.lo == s.hi && s.position() != NoOffset }

// sessionOrder checks that the values of each producer lie in the log in the
// order in which it sent them.
func (c *checker) sessionOrder(p *partition) {
	if !c.opt.Idempotent {
		return
	}
	type stream struct{ session, incarnation int32 }
	last := make(map[stream]int32) // the send furthest up the log so far
	for i := range p.sends {
		s := &p.sends[i]
		if !s.landed() {
			continue
		}
		of := stream{s.session, s.lo}
		j, ok := last[of]
		if !ok || p.sends[j].position() <= s.position() {
			last[of] = int32(i)
			continue
		}
		kind := NonmonotonicSend
		if p.sends[j].invoked == s.invoked {
			kind = IntNonmonotonicSend
		}
		c.misordered(kind, p, &p.sends[j], s, "sent first, lies above")
	}
}

// realtimeOrder checks that no send lies below one that was acknowledged
// before it was invoked. It walks the log downwards and remembers the earliest
// acknowledgement above, of all processes and of each.
func (c *checker) realtimeOrder(p *partition) {
	var log []*send
	for i := range p.sends {
		if s := &p.sends[i]; s.landed() {
			log = append(log, s)
		}
	}
	slices.SortFunc(log, func(a, b *send) int {
		return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(b.position(), a.position()), cmp.Compare(b.invoked, a.invoked))
	})
	var earliest *send
	own := make(map[int32]*send)
	for i, s := range log {
		if i > 0 && log[i-1].lo != s.lo {
			earliest = nil
			clear(own)
		}
		process := c.h[s.invoked].Process
		mine := own[process]
		switch {
		case mine != nil && mine.acked < s.invoked:
			if !c.opt.Idempotent || mine.session != s.session { // else sessionOrder has it
				c.misordered(NonmonotonicSend, p, mine, s, "acknowledged before the other was sent, lies above")
			}
		case earliest != nil && earliest.acked < s.invoked:
			c.misordered(RealtimeSend, p, earliest, s, "acknowledged before the other was sent, lies above")
		}
		if earliest == nil || s.acked < earliest.acked {
			earliest = s
		}
		if mine == nil || s.acked < mine.acked {
			own[process] = s
		}
	}
}

// misordered reports that before, which must lie below after, lies above it.
func (c *checker) misordered(k Kind, p *partition, before, after *send, detail string) {
	a := Anomaly{
		Kind: k, Key: p.key, Values: []int64{before.value, after.value},
		Offsets: []int64{before.position(), after.position()},
		Events:  []int{int(before.invoked), int(after.invoked)}, Detail: detail,
	}
	if before.acked != never {
		a.Events = slices.Insert(a.Events, 1, int(before.acked))
	}
	c.report.add(a)
}
