package history

import "fmt"

// acks checks what was acknowledged against what was read.
func (c *checker) acks(p *partition) {
	type place struct {
		incarnation int32
		offset      int64
	}
	unread := make(map[place]int32) // acknowledged, but nobody read there; into sends
	for i := range p.sends {
		s := &p.sends[i]
		if s.acked == never || s.lo != s.hi || (s.low == s.ack && s.low != NoOffset) {
			continue
		}
		v := c.verdict(p, s)
		at := place{s.lo, s.ack}
		if other, taken := unread[at]; taken {
			v.report(InconsistentOffsets, "two values acknowledged at one offset", int(p.sends[other].acked))
		} else if !v.agree() && s.low == NoOffset && s.ack != NoOffset {
			unread[at] = int32(i)
		}
		if v.final && s.low == NoOffset {
			v.lost()
		}
	}
}

// verdict judges one acknowledged send whose value was not simply read where
// the acknowledgement said.
type verdict struct {
	c     *checker
	p     *partition
	s     *send
	there []read // of the send's incarnation, from the acknowledged offset on
	end   int64  // above the highest offset read of that incarnation
	final bool   // the history ends with that incarnation
}

func (c *checker) verdict(p *partition, s *send) verdict {
	v := verdict{c: c, p: p, s: s, final: s.lo == c.lives[p.key.Topic].final()}
	reads := p.within(s.lo)
	if n := len(reads); n > 0 {
		v.end = reads[n-1].offset + 1
	}
	v.there = from(reads, s.ack)
	return v
}

func (v verdict) report(k Kind, detail string, events ...int) {
	a := Anomaly{
		Kind: k, Key: v.p.key, Values: []int64{v.s.value}, Offsets: []int64{v.s.ack},
		Events: append(events, int(v.s.invoked), int(v.s.acked)), Detail: detail,
	}
	if v.s.low != NoOffset {
		a.Offsets = append(a.Offsets, v.s.low)
	}
	v.c.report.add(a)
}

// agree compares the acknowledgement with what was read at its offset, and
// returns false if nothing was.
func (v verdict) agree() bool {
	var other *read
	for i := range v.there {
		r := &v.there[i]
		if r.offset != v.s.ack {
			break
		}
		if r.value == v.s.value {
			return true
		}
		other = r
	}
	switch {
	case v.s.ack == NoOffset:
	case v.s.low != NoOffset && (v.c.opt.Idempotent || other != nil || v.readable()):
		v.report(AckMismatch, fmt.Sprintf("acknowledged at offset %d, read at %d", v.s.ack, v.s.low))
	case v.s.low == NoOffset && other != nil:
		v.report(InconsistentOffsets, fmt.Sprintf("acknowledged where value %d was read", other.value), int(other.event))
	}
	return other != nil
}

// readable reports whether someone should have read the acknowledged offset: in
// an incarnation that is gone, readers may not have started low enough.
// Without idempotence a value may lie in the log twice, with the acknowledged
// copy above what was read so far, or below the log start.
func (v verdict) readable() bool {
	return v.final && v.s.ack >= v.c.needed(v.p, v.s.lo) && v.s.ack < v.end
}

// lost reports a value that was acknowledged and never read.
func (v verdict) lost() {
	switch {
	case v.s.ack != NoOffset && v.s.ack < v.c.needed(v.p, v.s.lo):
	case v.s.ack == NoOffset && v.c.needed(v.p, v.s.lo) > v.c.opt.LogStart[v.p.key]: // it may have lain below
	case v.readable():
		v.report(LostWrite, fmt.Sprintf("acknowledged, never read, though offset %d was", v.end-1))
	case v.c.opt.Final:
		v.report(Unseen, "acknowledged, not read by the end of the final polls")
	}
}
