package history

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// none is the position of an event that is not in the history.
const none = -1

// Options says what the clients and topics of a history were like.
type Options struct {
	// Idempotent: producers deduplicate their retries and keep their order,
	// however many of their sends are in flight. A process has one producer
	// until it crashes.
	Idempotent bool

	// Assigned: processes that recorded neither Assign nor Subscribe read
	// assigned partitions. The others are taken as they recorded.
	Assigned bool

	// Final: the history ends with polls from the start up to the end of
	// every key, so a value that is missing by then is missing for good.
	Final bool

	// Holes: offsets may hold no record, as with transactions.
	Holes bool

	// LogStart gives each key's log start offset at the end, if not 0; what
	// lies below need not be readable. It is for histories that do not record
	// what moved it, or where it was.
	LogStart map[Key]int64

	// Retention has the topics that lose records without being asked, by name.
	// Their records are missed only where LogStarts, asked for after they were
	// read, show that they were still to be there.
	Retention map[string]Retention

	// Groups has, by name, the topics of which each group is to have consumed every
	// record by the end: at least once, from where the log starts.
	Groups map[string][]string

	// Keep is how many anomalies of each kind are kept with their evidence;
	// 0 means 10.
	Keep int

	off map[Kind]bool // see Report.off
}

// Check reports every anomaly of h. It trusts nothing about h: any events in
// any order give a report, if need be with Malformed anomalies.
//
// What it cannot judge, it lets pass. A send of unknown outcome may appear or
// not; an operation that may belong to either of two incarnations of a topic
// is not held against either. Losses are judged against the highest offset
// that anyone read, so some reader must have started at the log's start. What
// a DeleteRecords or retention may have deleted by then need not be read, but
// is held against nobody only as far as it may: what answers told of log starts
// bounds it, so ask for them after the last polls. Compacted topics cannot be
// checked.
//
// Of a group all commits have to be recorded, and all that its members are told of
// partitions. A member that does not know that it was lost is held against nobody.
//
// It needs about 250 bytes of memory for each value sent and 32 for each
// record read, beside h.
func Check(h History, opt Options) *Report {
	if opt.Keep <= 0 {
		opt.Keep = 10
	}
	c := &checker{
		h: h, opt: opt,
		partitions: make(map[Key]*partition),
		processes:  make(map[int32]*process),
		report: &Report{
			Counts: make(map[Kind]int), Ops: make(map[F]Outcomes), Events: len(h),
			keep: opt.Keep, off: opt.off,
		},
	}
	if len(h) >= never {
		panic("history: more events than an int32 counts")
	}
	c.pair()
	c.lives = c.topicLives()
	c.size()
	c.collect()
	for _, p := range c.order {
		c.resolve(p)
		c.judge(p)
	}
	c.pollOrder()
	c.judgeGroups()
	c.summarise()
	return c.report
}

type checker struct {
	h      History
	opt    Options
	report *Report

	mate       []int32 // the position of an event's completion or invocation, or none
	lives      map[string]*lives
	partitions map[Key]*partition
	order      []*partition // as first met, so that reports are repeatable
	processes  map[int32]*process
	sessions   int32
	lastRead   int32 // event: nobody polled, or was about to, after it
	lags       []time.Duration
}

// process is what collect knows of one process at the event it has reached.
type process struct {
	session int32 // its producer: a new one after each crash
	since   int32 // event from which its consumer can have fetched
}

// pair fills c.mate. A later completion of an operation points at the
// invocation too, which points at the first.
func (c *checker) pair() {
	c.mate = make([]int32, len(c.h))
	invoked := make(map[int64]int32, len(c.h)/2)
	for i := range c.h {
		op := &c.h[i]
		c.mate[i] = none
		if op.Type == Invoke {
			if _, twice := invoked[op.ID]; twice {
				c.malformed(i, "two invocations with one id")
			}
			invoked[op.ID] = int32(i)
			continue
		}
		inv, ok := invoked[op.ID]
		if !ok || c.h[inv].F != op.F || c.h[inv].Process != op.Process {
			c.malformed(i, "completion without its invocation")
			continue
		}
		c.mate[i] = inv
		if first := c.mate[inv]; first == none {
			c.mate[inv] = int32(i)
		} else if op.F != Send || (c.h[first].Type == Fail) != (op.Type == Fail) {
			c.malformed(i, "second completion", int(first))
		}
	}
}

func (c *checker) malformed(event int, detail string, more ...int) {
	c.report.add(Anomaly{Kind: Malformed, Events: append(more, event), Detail: detail})
}

// size makes the partitions, each as large as it will get: growing a million
// sends step by step would take twice the memory.
func (c *checker) size() {
	sends := make(map[Key]int)
	for i := range c.h {
		op := &c.h[i]
		for _, m := range op.Mops {
			switch {
			case op.F == Send && op.Type == Invoke:
				c.partition(m.Key)
				sends[m.Key] += len(m.Records)
			case op.F == Poll && op.Type == OK && c.mate[i] != none:
				c.partition(m.Key).polled += len(m.Records)
			}
		}
	}
	for _, p := range c.order {
		p.sends = make([]send, 0, sends[p.key])
		p.bySendValue = make(map[int64]int32, sends[p.key])
		p.reads = make([]read, 0, p.polled)
	}
}

// collect reads the history once, in order, into partitions.
func (c *checker) collect() {
	for i := range c.h {
		op := &c.h[i]
		c.count(int32(i))
		if op.F == Poll || op.F == Assign {
			c.lastRead = int32(i)
		}
		if op.Type != Invoke && c.mate[i] == none {
			continue
		}
		switch {
		case op.F == Send && op.Type == Invoke:
			c.invoked(int32(i))
		case op.F == Send:
			c.completed(int32(i))
		case op.F == Poll && op.Type == OK:
			c.polled(int32(i))
		case op.F == DeleteRecords && op.Type == Invoke:
			c.deleting(int32(i))
		case op.F == DeleteRecords && op.Type == OK:
			c.deleted(int32(i))
		case op.F == LogStarts && op.Type == OK:
			c.started(int32(i))
		case op.Type == Invoke && (op.F == Assign || op.F == Subscribe || op.F == Crash):
			c.process(op.Process).since = int32(i)
			if op.F == Crash {
				c.process(op.Process).session = c.newSession()
			}
		}
	}
}

func (c *checker) count(i int32) {
	op := &c.h[i]
	n := c.report.Ops[op.F]
	switch op.Type {
	case Invoke:
		if c.mate[i] == none {
			n.Open++
		}
	case OK:
		n.OK++
	case Fail:
		n.Fail++
	case Info:
		n.Info++
	}
	c.report.Ops[op.F] = n
}

func (c *checker) process(id int32) *process {
	p := c.processes[id]
	if p == nil {
		p = &process{session: c.newSession()}
		c.processes[id] = p
	}
	return p
}

func (c *checker) newSession() int32 {
	c.sessions++
	return c.sessions
}

func (c *checker) partition(k Key) *partition {
	p := c.partitions[k]
	if p == nil {
		p = &partition{key: k}
		c.partitions[k] = p
		c.order = append(c.order, p)
	}
	return p
}

// invoked registers the values of the send invoked at event i.
func (c *checker) invoked(i int32) {
	op := &c.h[i]
	session := c.process(op.Process).session
	for _, m := range op.Mops {
		p := c.partition(m.Key)
		for _, r := range m.Records {
			if _, twice := p.bySendValue[r.Value]; twice || r.Value == Garbled {
				c.malformed(int(i), fmt.Sprintf("value %d sent twice, or not allowed", r.Value))
				continue
			}
			p.bySendValue[r.Value] = int32(len(p.sends))
			p.sends = append(p.sends, send{
				value: r.Value, ack: NoOffset, low: NoOffset, high: NoOffset,
				invoked: i, acked: never, firstRead: never, session: session,
			})
		}
	}
}

// completed applies the completion at event i to the values of its send. OK
// tells only of the records that it lists.
func (c *checker) completed(i int32) {
	op, inv := &c.h[i], c.mate[i]
	mops := op.Mops
	if op.Type != OK {
		mops = c.h[inv].Mops
	}
	for _, m := range mops {
		p := c.partition(m.Key)
		for _, r := range m.Records {
			si, ok := p.bySendValue[r.Value]
			if !ok || p.sends[si].invoked != inv {
				c.malformed(int(i), fmt.Sprintf("completes value %d, which its invocation did not send", r.Value), int(inv))
				continue
			}
			s := &p.sends[si]
			switch {
			case op.Type == Fail:
				s.failed = true
			case op.Type == OK && r.Offset < NoOffset:
				c.report.add(Anomaly{
					Kind: AckMismatch, Key: p.key, Values: []int64{s.value}, Offsets: []int64{r.Offset},
					Events: []int{int(inv), int(i)}, Detail: "acknowledged at a negative offset",
				})
			case op.Type == OK && s.acked == never:
				s.acked, s.ack = i, r.Offset
				c.below(p, r, inv, i, "acknowledged below where the log started when it was sent")
			case op.Type == OK && s.ack != r.Offset:
				c.report.add(Anomaly{
					Kind: InconsistentOffsets, Key: p.key, Values: []int64{s.value}, Offsets: []int64{s.ack, r.Offset},
					Events: []int{int(s.acked), int(i)}, Detail: "acknowledged at two offsets",
				})
			}
		}
	}
}

// polled registers the records that the poll completed at event i returned. A
// value not sent by now stays unknown, even if it is sent later.
func (c *checker) polled(i int32) {
	op := &c.h[i]
	since := c.process(op.Process).since
	for _, m := range op.Mops {
		p := c.partition(m.Key)
		lo, hi := c.lives[m.Key.Topic].span(since, i)
		for _, r := range m.Records {
			if r.Offset < 0 {
				c.report.add(Anomaly{
					Kind: Phantom, Key: p.key, Values: []int64{r.Value}, Offsets: []int64{r.Offset},
					Events: []int{int(i)}, Detail: "read at a negative offset",
				})
				continue
			}
			si, ok := p.bySendValue[r.Value]
			if !ok {
				si = none
			}
			c.below(p, r, since, i, "read below where the log started before its reader")
			p.reads = append(p.reads, read{offset: r.Offset, value: r.Value, event: i, send: si, lo: lo, hi: hi})
		}
	}
}

// summarise fills the counts of the report that belong to no check.
func (c *checker) summarise() {
	r := c.report
	r.Keys = len(c.order)
	for _, p := range c.order {
		r.Sent += len(p.sends)
		r.Reads += p.polled
		for i := range p.sends {
			s := &p.sends[i]
			if s.acked != never {
				r.Acked++
			}
			if s.firstRead != never {
				r.Distinct++
			}
			if s.acked != never && s.firstRead != never {
				c.lags = append(c.lags, max(0, c.h[s.firstRead].At-c.h[s.acked].At))
			}
		}
	}
	if n := len(c.lags); n > 0 {
		slices.Sort(c.lags)
		at := func(q float64) time.Duration { return c.lags[int(math.Ceil(q*float64(n)))-1] }
		r.Lag = Lag{P50: at(0.5), P99: at(0.99), Max: c.lags[n-1]}
	}
}
