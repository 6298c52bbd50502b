package coordinator

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
)

const (
	maxTurn    = 256    // requests that are decided before anything else is looked at
	maxBacklog = 10_000 // likewise, before the time is

	// maxExtendBytes bounds the records of a proposal that others are added to: each
	// time all of them are encoded again.
	maxExtendBytes = 4 << 10
)

// decider is the Coordinator of a Runner, and what it has decided and is not done with.
// It is for who has the turn: the Runner's goroutine, one that has proposed or asked the
// majority, or one that asks.
type decider struct {
	r   *Runner
	opt *Options

	turn   sync.Mutex    // for all below
	over   bool          // nothing is decided or answered any more
	err    error         // why, if not by Stop
	failed chan struct{} // closed with err

	c    *consumergroup.Coordinator // nil: it loads
	out  consumergroup.Decision     // of one call, reused
	now  time.Time
	load time.Duration

	// armed is when the Runner's goroutine looks at the latest; zero: it need not, or
	// there is no room for decisions.
	armed time.Time

	deciding *call                         // that is decided just now, and not answered
	waiting  map[consumergroup.Token]*call // decided or held, and not answered
	token    consumergroup.Token           // the last

	// Records are counted as they are decided: a reply is due once done reaches what
	// decided was after its call.
	decided, done uint64
	records       []record.Record // decided, and not proposed
	behindBytes   int             // of records and proposing

	number    uint64          // of the last decision that is applied
	proposing []record.Record // under way; nil: nothing is
	unknown   bool            // what came of a proposal is not known

	// Invariant: in parked, after does not fall.
	parked []parked
	reads  reads
}

// parked is a reply that waits.
type parked struct {
	after uint64 // records that are to be applied
	reply consumergroup.Reply
}

// reads are replies that wait for a majority's word.
type reads struct {
	next   []parked // for the one to be asked for next
	asked  []parked // for the one that is asked for
	asking bool
	late   []parked // have it, and wait for records
}

// run loads the state, and then decides what is queued and what the time alone
// decides, until Stop, or until it is over.
func (d *decider) run() {
	defer func() {
		if p := recover(); p != nil {
			d.step(func() { d.end(panicked(p)) })
		}
	}()
	began := d.opt.Now()
	var state *consumergroup.Groups
	err := d.opt.Log.Groups(func(g *consumergroup.Groups) { state = g.Clone() })
	d.step(func() {
		if err == nil {
			d.c, err = consumergroup.NewCoordinator(d.tick(), state, d.opt.Groups)
		}
		if err != nil {
			d.end(err)
			return
		}
		d.load = d.opt.Now().Sub(began)
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.r.ctx.Done():
			return
		case <-d.failed:
			return
		case <-d.arm(timer):
			// What has come before a session ends may keep it.
			d.step(func() {
				if d.drain(maxBacklog) {
					d.c.Tick(d.tick(), &d.out)
					d.decide()
				}
			})
		case <-d.r.wake:
			d.step(func() {
				d.hear()
				d.drain(maxTurn)
			})
		}
	}
}

// arm sets the timer to when the time decides something, and returns its channel; nil:
// nothing, or there is no room for decisions.
func (d *decider) arm(timer *time.Timer) <-chan time.Time {
	d.turn.Lock()
	defer d.turn.Unlock()
	d.armed = time.Time{}
	if d.over || !d.open() {
		return nil
	}
	next, ok := d.c.Next()
	if !ok {
		return nil
	}
	d.armed = next
	timer.Reset(next.Sub(d.opt.Now()))
	return timer.C
}

// step has f done in its turn, and what follows from it.
func (d *decider) step(f func()) {
	d.turn.Lock()
	defer d.turn.Unlock()
	defer d.survive()
	f()
	d.goOn()
}

// here decides c in the goroutine that asks, if it is nobody else's turn, nothing is
// queued before it, and there is room. It reports whether it has.
func (d *decider) here(c *call) (decided bool) {
	if !d.turn.TryLock() {
		return false
	}
	defer d.turn.Unlock()
	if d.over || d.c == nil || len(d.r.calls) > 0 || !d.open() {
		return false
	}
	defer d.survive()
	decided = d.take(c)
	d.goOn()
	return decided
}

// survive is deferred in a turn. A panic ends it all: nobody has the turn after it, who
// would decide on what is half done.
func (d *decider) survive() {
	if p := recover(); p != nil {
		d.end(panicked(p))
	}
}

func panicked(p any) error { return fmt.Errorf("%w: %v\n%s", ErrPanicked, p, debug.Stack()) }

// goOn does what follows from what was decided, or applied.
func (d *decider) goOn() {
	if d.over {
		return
	}
	if len(d.records) > 0 {
		d.propose()
	}
	d.confirm()
	d.pass()
}

// pass leaves to the Runner's goroutine what is its: what is queued, and a time that is
// earlier than the one that it waits for.
func (d *decider) pass() {
	if !d.open() {
		return
	}
	next, ok := d.c.Next()
	if len(d.r.calls) > 0 || ok && (d.armed.IsZero() || next.Before(d.armed)) {
		d.r.rouse()
	}
}

// end has nothing decided or answered from here on. What fails after Stop does so for
// that reason.
func (d *decider) end(err error) {
	if d.over {
		return
	}
	if d.r.ctx.Err() != nil {
		err = nil
	}
	d.over, d.err = true, err
	if err != nil {
		close(d.failed)
	}
}

// tick returns the time, which does not go back.
func (d *decider) tick() time.Time {
	if now := d.opt.Now(); now.After(d.now) {
		d.now = now
	}
	return d.now
}

// open reports whether there is room for more decisions.
func (d *decider) open() bool {
	return d.behindBytes <= d.opt.MaxBehindBytes && d.parkedReplies() < d.opt.MaxParked
}

func (d *decider) parkedReplies() int {
	return len(d.parked) + len(d.reads.next) + len(d.reads.asked) + len(d.reads.late)
}

// drain decides what is queued, up to a number of requests, and reports whether there is
// room for more decisions.
func (d *decider) drain(most int) bool {
	for range most {
		if d.over || !d.open() {
			return false
		}
		select {
		case c := <-d.r.calls:
			d.take(c)
		default:
			return true
		}
	}
	return d.open()
}

// take decides one request, and reports whether it has.
func (d *decider) take(c *call) bool {
	d.hear() // what was told before the request came is known when it is decided
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return false
	}
	d.token++
	c.token = d.token
	d.deciding = c
	decided := c.ask(d.c, d.tick(), c.token, &d.out)
	d.decide()
	if decided && d.deciding != nil {
		if c.answer == nil {
			c.answer = make(chan any, 1)
		}
		d.waiting[c.token] = c
	}
	d.deciding = nil
	return decided
}

// hear takes the news.
func (d *decider) hear() {
	if d.over || !d.r.told.Load() {
		return
	}
	d.r.mu.Lock()
	d.r.told.Store(false)
	n := d.r.news
	d.r.news = news{}
	d.r.mu.Unlock()
	if n.topics != nil {
		d.c.TopicsChanged(d.tick(), n.topics, &d.out)
		d.decide()
	}
	if len(n.deleted) > 0 {
		d.c.TopicsDeleted(d.tick(), n.deleted, &d.out)
		d.decide()
	}
	for _, c := range n.left {
		if d.waiting[c.token] != c {
			continue // it was answered, or not taken yet
		}
		delete(d.waiting, c.token)
		d.c.Gone(d.tick(), c.token, &d.out)
		d.decide()
	}
}

// decide gathers what a call has decided.
func (d *decider) decide() {
	for _, rec := range d.out.Records {
		d.records = append(d.records, rec)
		d.behindBytes += bytesOf(rec)
	}
	d.decided += uint64(len(d.out.Records))
	for _, reply := range d.out.Replies {
		p := parked{after: d.decided, reply: reply}
		switch {
		case d.out.Reads:
			d.reads.next = append(d.reads.next, p)
		case p.after == d.done:
			d.answer(reply)
		default:
			d.parked = append(d.parked, p)
		}
	}
	d.out.Reset()
}

// recordOverheadBytes is more than a record takes in a batch beside its key and value.
const recordOverheadBytes = 24

func bytesOf(r record.Record) int { return len(r.Key) + len(r.Value) + recordOverheadBytes }

// propose proposes what was gathered; or adds it to the proposal that is under way, if
// that waits still.
func (d *decider) propose() {
	number := d.number + 1
	if d.proposing != nil {
		n := d.fit(d.proposing, min(d.opt.MaxProposalBytes, maxExtendBytes))
		if n == 0 {
			return
		}
		if rs := slices.Concat(d.proposing, d.records[:n]); d.opt.Log.Extend(d.opt.Term, number, rs) {
			d.proposing = rs
			d.taken(n)
		}
		return
	}
	n := max(d.fit(nil, d.opt.MaxProposalBytes), 1)
	rs := d.records[:n:n]
	d.proposing = rs
	d.taken(n)
	d.r.proposers.Go(func() {
		err := d.opt.Log.Propose(d.r.ctx, d.opt.Term, number, rs)
		d.step(func() { d.applied(err) })
	})
}

// fit returns how many of the records that were gathered make no more than so many
// bytes with others.
func (d *decider) fit(with []record.Record, bytes int) (n int) {
	for _, r := range with {
		bytes -= bytesOf(r)
	}
	for _, r := range d.records {
		if bytes -= bytesOf(r); bytes < 0 {
			break
		}
		n++
	}
	return n
}

// taken takes n records out of those that were gathered.
func (d *decider) taken(n int) {
	if d.records = d.records[n:]; len(d.records) == 0 {
		d.records = nil
	}
}

// applied takes what came of the proposal that was under way.
func (d *decider) applied(err error) {
	rs := d.proposing
	d.proposing = nil
	if err != nil {
		d.unknown = !errors.Is(err, ErrRefused)
		d.end(err)
		return
	}
	d.number++
	d.done += uint64(len(rs))
	d.opt.OnApplied(len(rs))
	for _, rec := range rs {
		d.behindBytes -= bytesOf(rec)
	}
	if !d.over {
		d.release()
	}
}

// release answers what is due as more records are applied.
func (d *decider) release() {
	n := 0
	for n < len(d.parked) && d.parked[n].after <= d.done {
		d.answer(d.parked[n].reply)
		n++
	}
	d.parked = slices.Delete(d.parked, 0, n)
	d.reads.late = slices.DeleteFunc(d.reads.late, func(p parked) bool {
		if p.after <= d.done {
			d.answer(p.reply)
			return true
		}
		return false
	})
}

// confirm asks the majority for those who wait for its word, unless it is asked already.
func (d *decider) confirm() {
	if d.reads.asking || len(d.reads.next) == 0 {
		return
	}
	d.reads.asked, d.reads.next = d.reads.next, d.reads.asked[:0]
	d.reads.asking = true
	d.r.group.Go(func() {
		err := d.opt.Log.Confirm(d.r.ctx, d.opt.Term)
		d.step(func() { d.confirmed(err) })
	})
}

// confirmed takes the majority's word. Without it, those who have waited for it are
// refused: there may be another coordinator.
func (d *decider) confirmed(err error) {
	if d.over {
		return
	}
	d.reads.asking = false
	for _, p := range d.reads.asked {
		switch {
		case err != nil:
			d.refuse(p.reply.Token)
		case p.after <= d.done:
			d.answer(p.reply)
		default:
			d.reads.late = append(d.reads.late, p)
		}
	}
	clear(d.reads.asked)
	d.reads.asked = d.reads.asked[:0]
}

// answer gives a reply to who waits for it.
func (d *decider) answer(reply consumergroup.Reply) { d.give(reply.Token, reply.Response) }

// refuse tells who waits that there is no reply.
func (d *decider) refuse(token consumergroup.Token) { d.give(token, nil) }

func (d *decider) give(token consumergroup.Token, reply any) {
	c := d.deciding
	if c != nil && c.token == token {
		d.deciding = nil
	} else if c = d.waiting[token]; c == nil {
		return
	}
	delete(d.waiting, token)
	c.give(reply)
}
