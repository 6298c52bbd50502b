package history

import (
	"cmp"
	"fmt"
	"slices"
)

// partition is everything that happened to one key, in all incarnations of
// its topic.
type partition struct {
	key         Key
	sends       []send          // in the order of their invocation
	bySendValue map[int64]int32 // into sends
	polled      int             // records read, those not judged included

	// reads is in the order of events until resolve, which leaves out what
	// cannot be judged and sorts it by incarnation, offset, value and event.
	reads []read

	starts    []start
	floors    []floor // of starts, in the order in which they were told
	deletions []deletion
	bounds    map[int32]*bounds // by incarnation, made when needed
}

// needed returns the offset from which on somebody should have read the records
// of an incarnation, as they were there for as long as somebody read.
func (c *checker) needed(p *partition, incarnation int32) int64 {
	return c.mayStart(p, incarnation, c.lastRead)
}

// send is one value sent.
type send struct {
	value int64
	ack   int64 // offset acknowledged, or NoOffset

	// low and high are the lowest and highest offset at which the value was
	// read, or NoOffset.
	low, high int64

	invoked   int32 // event
	acked     int32 // event of the first OK, or never
	firstRead int32 // event, or never
	session   int32 // producer
	lo, hi    int32 // incarnations that it may have landed in
	failed    bool
}

// position is where the send lies in the log, as far as the history tells.
func (s *send) position() int64 {
	if s.low != NoOffset {
		return s.low
	}
	return s.ack
}

// read is one record read once.
type read struct {
	offset, value int64
	event         int32
	send          int32 // into partition.sends, or none
	lo, hi        int32 // incarnations that it may come from; equal after resolve
}

func (a read) compare(b read) int {
	return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.offset, b.offset),
		cmp.Compare(a.value, b.value), cmp.Compare(a.event, b.event))
}

// resolve settles which incarnation each send and read belongs to, reports
// the reads that nothing can explain, and drops those that stay ambiguous.
func (c *checker) resolve(p *partition) {
	l := c.lives[p.key.Topic]
	for i := range p.sends {
		s := &p.sends[i]
		s.lo, s.hi = l.span(s.invoked, s.acked)
	}
	for i := range p.reads {
		c.attribute(p, &p.reads[i])
	}
	kept := p.reads[:0]
	for _, r := range p.reads {
		if r.send != none {
			// A read that can come from either incarnation comes from the one
			// that its value was sent to, once other reads have settled that.
			s := &p.sends[r.send]
			r.lo, r.hi = max(r.lo, s.lo), min(r.hi, s.hi)
		}
		if r.lo == r.hi {
			kept = append(kept, r)
		}
	}
	p.reads = kept
	slices.SortFunc(p.reads, read.compare)
}

// attribute reports r if its value cannot have been there to be read, and else
// lets it narrow down where its send landed.
func (c *checker) attribute(p *partition, r *read) {
	report := func(k Kind, detail string, events ...int) {
		c.report.add(Anomaly{
			Kind: k, Key: p.key, Values: []int64{r.value}, Offsets: []int64{r.offset},
			Events: append(events, int(r.event)), Detail: detail,
		})
	}
	if r.send == none {
		if si, ok := p.bySendValue[r.value]; ok {
			report(Phantom, "read before it was sent", int(p.sends[si].invoked))
		} else if r.value == Garbled {
			report(Phantom, "read bytes that are no value")
		} else {
			report(Phantom, "read, but never sent")
		}
		return
	}
	s := &p.sends[r.send]
	first := s.firstRead == never
	s.firstRead = min(s.firstRead, r.event)
	if s.failed && first {
		report(G1a, "read, though its send failed", int(c.mate[s.invoked]))
	}
	switch {
	case s.hi < r.lo:
		report(StaleTopic, "sent to a deleted incarnation of the topic", int(s.invoked))
	case s.lo <= r.lo && r.lo == r.hi:
		s.lo, s.hi = r.lo, r.lo
	}
}

// judge runs the checks of one key that look at the log, not at who read it.
func (c *checker) judge(p *partition) {
	for rest := p.reads; len(rest) > 0; {
		incarnation := rest[0].lo
		reads := p.within(incarnation)
		rest = rest[len(reads):]
		c.offsets(p, reads)
		if incarnation == c.lives[p.key.Topic].final() {
			c.holes(p, incarnation, reads)
		}
	}
	c.startsExplained(p)
	c.duplicates(p)
	c.acks(p)
	c.sessionOrder(p)
	c.realtimeOrder(p)
}

// within returns the reads of one incarnation, sorted by offset.
func (p *partition) within(incarnation int32) []read {
	at := func(i int32) int {
		n, _ := slices.BinarySearchFunc(p.reads, i, func(r read, i int32) int { return cmp.Compare(r.lo, i) })
		return n
	}
	return p.reads[at(incarnation):at(incarnation+1)]
}

// from returns the reads at or above an offset.
func from(reads []read, offset int64) []read {
	n, _ := slices.BinarySearchFunc(reads, offset, func(r read, o int64) int { return cmp.Compare(r.offset, o) })
	return reads[n:]
}

// offsets checks that readers of one incarnation agree, and notes in the sends
// where they were read.
func (c *checker) offsets(p *partition, reads []read) {
	last := NoOffset // the offset reported last
	for i := range reads {
		r := &reads[i]
		if i > 0 && reads[i-1].offset == r.offset && reads[i-1].value != r.value && last != r.offset {
			last = r.offset
			c.report.add(Anomaly{
				Kind: InconsistentOffsets, Key: p.key, Values: []int64{reads[i-1].value, r.value},
				Offsets: []int64{r.offset}, Events: []int{int(reads[i-1].event), int(r.event)},
				Detail: "two values read at one offset",
			})
		}
		if r.send == none {
			continue
		}
		if s := &p.sends[r.send]; s.low == NoOffset {
			s.low, s.high = r.offset, r.offset
		} else {
			s.high = max(s.high, r.offset)
		}
	}
}

// holes reports the gaps between the offsets read, except those that are
// nothing but acknowledged values, which acks reports as lost.
func (c *checker) holes(p *partition, incarnation int32, reads []read) {
	if c.opt.Holes {
		return
	}
	var acked []int64 // offsets in gaps, built when there is a first gap
	next := c.needed(p, incarnation)
	for i := range reads {
		r := &reads[i]
		if r.offset > next {
			if acked == nil {
				acked = p.ackedOffsets(r.lo)
			}
			lo, _ := slices.BinarySearch(acked, next)
			hi, _ := slices.BinarySearch(acked, r.offset)
			if gap := r.offset - next; int64(hi-lo) < gap {
				c.report.add(Anomaly{
					Kind: LostOffset, Key: p.key, Offsets: []int64{next, r.offset}, Events: []int{int(r.event)},
					Detail: fmt.Sprintf("nobody read offsets [%d, %d), %d of them acknowledged", next, r.offset, hi-lo),
				})
			}
		}
		next = max(next, r.offset+1)
	}
}

// ackedOffsets returns the distinct offsets that sends to an incarnation were
// acknowledged at, in order.
func (p *partition) ackedOffsets(incarnation int32) []int64 {
	acked := []int64{}
	for i := range p.sends {
		if s := &p.sends[i]; s.lo == incarnation && s.hi == incarnation && s.ack != NoOffset {
			acked = append(acked, s.ack)
		}
	}
	slices.Sort(acked)
	return slices.Compact(acked)
}

func (c *checker) duplicates(p *partition) {
	if !c.opt.Idempotent {
		return
	}
	for i := range p.sends {
		s := &p.sends[i]
		if s.low == s.high {
			continue
		}
		a := Anomaly{
			Kind: Duplicate, Key: p.key, Values: []int64{s.value}, Offsets: []int64{s.low, s.high},
			Detail: "one value at two offsets",
		}
		if c.report.wants(Duplicate) {
			for _, r := range p.reads {
				if r.send == int32(i) && len(a.Events) < c.opt.Keep {
					a.Events = append(a.Events, int(r.event))
				}
			}
		}
		c.report.add(a)
	}
}
