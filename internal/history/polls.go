package history

import "fmt"

// consumer is what pollOrder knows of a process at the event it has reached.
type consumer struct {
	assigned bool
	held     map[Key]bool // of a member of a group; nil: it is none
	since    int32        // event of its last Assign, Subscribe or Crash
	next     map[Key]cursor
}

// cursor is where a consumer of a key must go on.
type cursor struct {
	offset int64
	event  int32 // that set it
}

// pollOrder reads the history again, now that it is known which offsets hold
// something, and follows each consumer through its keys.
func (c *checker) pollOrder() {
	consumers := make(map[int32]*consumer)
	for i := range c.h {
		op := &c.h[i]
		co := consumers[op.Process]
		if co == nil {
			co = &consumer{assigned: c.opt.Assigned, next: make(map[Key]cursor)}
			consumers[op.Process] = co
		}
		switch {
		case op.F == Poll && op.Type == OK && c.mate[i] != none:
			for _, m := range op.Mops {
				c.follow(co, m, int32(i))
			}
		case op.Type == Invoke && (op.F == Assigned || op.F == Revoked || op.F == Lost):
			co.moved(op, int32(i))
		case op.F == Poll && op.Type == Info:
			clear(co.next) // it may have moved without telling
		case op.Type == Invoke && (op.F == Assign || op.F == Subscribe || op.F == Crash):
			co.restart(op, int32(i))
		}
	}
}

func (co *consumer) restart(op *Op, i int32) {
	co.since = i
	clear(co.next)
	co.held = nil
	switch op.F {
	case Subscribe:
		co.assigned = false
		if op.In != nil {
			co.held = make(map[Key]bool)
		}
	case Assign:
		co.assigned = true
		for _, m := range op.Mops {
			if m.From != NoOffset {
				co.next[m.Key] = cursor{offset: m.From, event: i}
			}
		}
	}
}

// moved takes note of partitions that come to a member of a group, or go.
func (co *consumer) moved(op *Op, i int32) {
	for _, m := range op.Mops {
		delete(co.next, m.Key)
		delete(co.held, m.Key)
		if op.F != Assigned || co.held == nil {
			continue
		}
		co.held[m.Key] = true
		if m.From != NoOffset {
			co.next[m.Key] = cursor{offset: m.From, event: i}
		}
	}
}

// follow checks the records that one poll, completed at event i, returned of
// one key, against each other and, for an assigned consumer, and a member of a
// group that has it, against the position that it had.
func (c *checker) follow(co *consumer, m Mop, i int32) {
	incarnation, last := c.lives[m.Key.Topic].span(co.since, i)
	if incarnation != last {
		delete(co.next, m.Key) // offsets may have started again at 0 meanwhile
		return
	}
	at, known := co.next[m.Key]
	known = known && (co.assigned || co.held[m.Key])
	if co.held != nil && !co.held[m.Key] && len(m.Records) > 0 {
		c.report.add(Anomaly{
			Kind: UnownedPoll, Key: m.Key, Offsets: []int64{m.Records[0].Offset}, Events: []int{int(i)},
			Detail: fmt.Sprintf("given to a member of group %q that does not have the partition", c.h[i].In.name()),
		})
	}
	skip, back := PollSkip, NonmonotonicPoll
	for _, r := range m.Records {
		if r.Offset < 0 {
			continue // polled has reported it
		}
		if known && r.Offset != at.offset {
			c.jumped(jump{key: m.Key, incarnation: incarnation, at: at, to: r, event: i, skip: skip, back: back})
		}
		at = cursor{offset: r.Offset + 1, event: i}
		known, skip, back = true, IntPollSkip, IntNonmonotonicPoll
	}
	if known {
		co.next[m.Key] = at
	}
}

// jump is a record given to a consumer that was elsewhere.
type jump struct {
	key         Key
	incarnation int32
	at          cursor
	to          Record
	event       int32
	skip, back  Kind // what to call it
}

// jumped reports j, unless it is over a gap that is there for everyone, which
// holes and acks judge.
func (c *checker) jumped(j jump) {
	a := Anomaly{
		Kind: j.back, Key: j.key, Values: []int64{j.to.Value}, Offsets: []int64{j.at.offset, j.to.Offset},
		Events: []int{int(j.at.event), int(j.event)}, Detail: fmt.Sprintf("at offset %d, was given %d", j.at.offset, j.to.Offset),
	}
	if j.to.Offset > j.at.offset {
		missed := from(c.partition(j.key).within(j.incarnation), max(j.at.offset, c.mayStart(c.partition(j.key), j.incarnation, j.event)))
		if len(missed) == 0 || missed[0].offset >= j.to.Offset {
			return
		}
		a.Kind = j.skip
		a.Detail += fmt.Sprintf("; someone read %d", missed[0].offset)
		a.Events = append(a.Events, int(missed[0].event))
	}
	c.report.add(a)
}
