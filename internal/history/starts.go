package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Retention says what a topic's configs allow to be deleted by itself. Where
// they change, it holds what the loosest of them allow.
type Retention struct {
	// Age is how old the records that go are at least, by the times at which
	// their sends were invoked; negative: none goes by age.
	Age time.Duration

	// Records is how many are left at least after the log start moved for the
	// log's size; negative: it never does. Judged only with Options.Idempotent.
	Records int
}

// clockGrain is how far a timestamp, in whole milliseconds, may lie before the
// event that it belongs to.
const clockGrain = time.Millisecond

// start is a log start offset that an answer told of.
type start struct {
	offset      int64
	asked, told int32 // events: it held at some moment between
	incarnation int32
}

// floor is the highest log start offset that was told of by an event, in the
// incarnation that it was told of.
type floor struct {
	start
	by int32
}

// deletion is a DeleteRecords that may have moved a log start.
type deletion struct {
	before int64 // NoOffset: whatever was there
	asked  int32
	lo, hi int32 // incarnations that it may have come to
}

func (d *deletion) in(incarnation int32) bool { return d.lo <= incarnation && incarnation <= d.hi }

// deleting registers the DeleteRecords invoked at event i.
func (c *checker) deleting(i int32) {
	op, done := &c.h[i], int32(never)
	if mate := c.mate[i]; mate != none {
		if c.h[mate].Type == Fail {
			return
		}
		if c.h[mate].Type == OK {
			done = mate
		}
	}
	for _, m := range op.Mops {
		lo, hi := c.lives[m.Key.Topic].span(i, done)
		p := c.partition(m.Key)
		p.deletions = append(p.deletions, deletion{before: m.From, asked: i, lo: lo, hi: hi})
	}
}

// deleted checks the answer at event i to a DeleteRecords, which tells log
// starts too.
func (c *checker) deleted(i int32) {
	inv := c.mate[i]
	for _, asked := range c.h[inv].Mops {
		n := slices.IndexFunc(c.h[i].Mops, func(m Mop) bool { return m.Key == asked.Key })
		if n < 0 {
			continue
		}
		told, want := c.h[i].Mops[n].From, asked.From
		if want == NoOffset {
			want = c.partition(asked.Key).ackedBefore(c.lives[asked.Key.Topic], inv, i)
		}
		if told < want {
			c.report.add(Anomaly{
				Kind: Undeleted, Key: asked.Key, Offsets: []int64{want, told}, Events: []int{int(inv), int(i)},
				Detail: fmt.Sprintf("records below offset %d were deleted, and the log starts at %d", want, told),
			})
		}
	}
	c.started(i)
}

// ackedBefore returns one more than the highest offset acknowledged before
// event inv, in the one incarnation that the events up to i belong to.
func (p *partition) ackedBefore(l *lives, inv, i int32) (end int64) {
	lo, hi := l.span(inv, i)
	for j := range p.sends {
		s := &p.sends[j]
		if first, last := l.span(s.invoked, s.acked); s.acked < inv && first == lo && last == lo && lo == hi {
			end = max(end, s.ack+1)
		}
	}
	return end
}

// started registers the log starts that the answer at event i told of, and
// checks them against those told of before they were asked for.
func (c *checker) started(i int32) {
	inv := c.mate[i]
	for _, m := range c.h[i].Mops {
		lo, hi := c.lives[m.Key.Topic].span(inv, i)
		if lo != hi {
			continue
		}
		p := c.partition(m.Key)
		s := start{offset: m.From, asked: inv, told: i, incarnation: lo}
		if known, ok := p.known(inv, lo, hi); ok && known.offset > s.offset {
			c.report.add(Anomaly{
				Kind: StartBack, Key: p.key, Offsets: []int64{known.offset, s.offset}, Events: []int{int(known.told), int(i)},
				Detail: fmt.Sprintf("the log started at %d, and afterwards at %d", known.offset, s.offset),
			})
		}
		p.starts = append(p.starts, s)
		top := floor{start: s, by: i}
		if n := len(p.floors); n > 0 && p.floors[n-1].incarnation == lo && p.floors[n-1].offset >= s.offset {
			top.start = p.floors[n-1].start
		}
		p.floors = append(p.floors, top)
	}
}

// known returns the highest log start that was told of before event i, to
// something that belongs to one incarnation.
func (p *partition) known(i, lo, hi int32) (start, bool) {
	n, _ := slices.BinarySearchFunc(p.floors, i, func(f floor, i int32) int { return cmp.Compare(f.by, i) })
	if n == 0 || lo != hi || p.floors[n-1].incarnation != lo {
		return start{}, false
	}
	return p.floors[n-1].start, true
}

// below reports an offset that is read, or given to a record, at event i though
// a log start above it was told of before since.
func (c *checker) below(p *partition, r Record, since, i int32, detail string) {
	lo, hi := c.lives[p.key.Topic].span(since, i)
	if known, ok := p.known(since, lo, hi); ok && r.Offset >= 0 && r.Offset < known.offset {
		c.report.add(Anomaly{
			Kind: BelowStart, Key: p.key, Values: []int64{r.Value}, Offsets: []int64{r.Offset, known.offset},
			Events: []int{int(known.told), int(since), int(i)}, Detail: detail,
		})
	}
}

// mayStart returns the highest offset at which the log of an incarnation may
// have started by event i: not above what anybody was told who asked later, as
// it never goes back; nor above what by then was to be deleted, told of, or, as
// far as retention goes, anything.
func (c *checker) mayStart(p *partition, incarnation, i int32) int64 {
	if len(p.starts) == 0 && len(p.deletions) == 0 && !c.retains(p.key) {
		return c.opt.LogStart[p.key]
	}
	if p.bounds == nil {
		p.bounds = make(map[int32]*bounds)
	}
	b := p.bounds[incarnation]
	if b == nil {
		b = c.bounds(p, incarnation)
		p.bounds[incarnation] = b
	}
	at := func(list []bound) int {
		n, _ := slices.BinarySearchFunc(list, i, func(b bound, i int32) int { return cmp.Compare(b.event, i) })
		return n
	}
	most := c.opt.LogStart[p.key]
	if c.retains(p.key) {
		most = math.MaxInt64
	} else if n := at(b.asked); n > 0 {
		most = max(most, b.asked[n-1].offset)
	}
	if n := at(b.told); n < len(b.told) {
		most = min(most, b.told[n].offset)
	}
	return max(most, c.opt.LogStart[p.key])
}

func (c *checker) retains(k Key) bool {
	_, ok := c.opt.Retention[k.Topic]
	return ok
}

// bound is an offset that counts from an event on, or up to it.
type bound struct {
	event  int32
	offset int64
}

// bounds are those of one incarnation's log start.
type bounds struct {
	asked []bound // the greatest that was asked or told of up to an event
	told  []bound // the least that was told to those who asked from an event on
}

func (c *checker) bounds(p *partition, incarnation int32) *bounds {
	b := new(bounds)
	for i := range p.deletions {
		if d := &p.deletions[i]; d.in(incarnation) {
			offset := d.before
			if offset == NoOffset {
				offset = math.MaxInt64
			}
			b.asked = append(b.asked, bound{d.asked, offset})
		}
	}
	for _, s := range p.starts {
		if s.incarnation == incarnation {
			b.asked = append(b.asked, bound{s.asked, s.offset})
			b.told = append(b.told, bound{s.asked, s.offset})
		}
	}
	order := func(a, b bound) int { return cmp.Compare(a.event, b.event) }
	slices.SortFunc(b.asked, order)
	slices.SortFunc(b.told, order)
	for i := 1; i < len(b.asked); i++ {
		b.asked[i].offset = max(b.asked[i].offset, b.asked[i-1].offset)
	}
	for i := len(b.told) - 2; i >= 0; i-- {
		b.told[i].offset = min(b.told[i].offset, b.told[i+1].offset)
	}
	return b
}

// startsExplained checks that nothing moved a log start but what may: each is an
// offset that a DeleteRecords named, or one that retention could come to.
func (c *checker) startsExplained(p *partition) {
	reported := make(map[int64]bool)
	for i := range p.starts {
		s := &p.starts[i]
		if s.offset <= c.opt.LogStart[p.key] || reported[s.offset] {
			continue
		}
		why := "nobody deleted records below it"
		if slices.ContainsFunc(p.deletions, func(d deletion) bool {
			return d.in(s.incarnation) && d.asked < s.told && (d.before == s.offset || d.before == NoOffset)
		}) {
			continue
		}
		if r, ok := c.opt.Retention[p.key.Topic]; ok {
			if c.aged(p, s, r) || c.outgrown(p, s, r) {
				continue
			}
			why += ", and retention could not come to it"
		}
		reported[s.offset] = true
		c.report.add(Anomaly{
			Kind: UnexplainedStart, Key: p.key, Offsets: []int64{s.offset}, Events: []int{int(s.asked), int(s.told)},
			Detail: fmt.Sprintf("the log starts at %d: %s", s.offset, why),
		})
	}
}

// aged reports whether the last record below a log start may have been old
// enough to go.
func (c *checker) aged(p *partition, s *start, r Retention) bool {
	if r.Age < 0 {
		return false
	}
	for i := range p.sends {
		last := &p.sends[i]
		if last.lo == s.incarnation && last.hi == s.incarnation && last.position() == s.offset-1 {
			return c.h[s.told].At-c.h[last.invoked].At >= r.Age-clockGrain
		}
	}
	return true // nobody knows of one
}

// outgrown reports whether what may have been in the log above a log start is
// enough for what is below to go.
func (c *checker) outgrown(p *partition, s *start, r Retention) bool {
	if r.Records < 0 {
		return false
	}
	n := 0
	for i := range p.sends {
		above := &p.sends[i]
		in := above.lo <= s.incarnation && s.incarnation <= above.hi
		if at := above.position(); in && !above.failed && above.invoked < s.told && (at == NoOffset || at >= s.offset) {
			n++
		}
	}
	return n >= r.Records || !c.opt.Idempotent
}
