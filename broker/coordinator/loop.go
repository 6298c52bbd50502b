package coordinator

import (
	"errors"
	"slices"
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

// loop is what the goroutine of a Runner has to itself.
type loop struct {
	r   *Runner
	opt *Options

	c    *consumergroup.Coordinator
	out  consumergroup.Decision // of one call, reused
	now  time.Time
	load time.Duration

	waiting map[consumergroup.Token]*call // decided or held, and not answered
	token   consumergroup.Token           // the last

	// Records are counted as they are decided: a reply is due once done reaches what
	// decided was after its call.
	decided, done uint64
	records       []record.Record // decided, and not proposed
	behindBytes   int             // of records and proposing

	number    uint64          // of the last decision that is applied
	proposing []record.Record // under way; nil: nothing is
	proposed  chan error      // 1-buffered: what came of it
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
	next      []parked // for the one to be asked for next
	asked     []parked // for the one that is asked for
	asking    bool
	late      []parked   // have it, and wait for records
	confirmed chan error // 1-buffered
}

func (l *loop) run() error {
	began := l.opt.Now()
	var state *consumergroup.Groups
	err := l.opt.Log.Groups(func(g *consumergroup.Groups) { state = g.Clone() })
	if err != nil {
		return err
	}
	l.proposed, l.reads.confirmed = make(chan error, 1), make(chan error, 1)
	if l.c, err = consumergroup.NewCoordinator(l.tick(), state, l.opt.Groups); err != nil {
		return err
	}
	l.load = l.opt.Now().Sub(began)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.propose()
		l.confirm()
		var calls chan *call
		var due <-chan time.Time
		if l.open() {
			calls = l.r.calls
			if next, ok := l.c.Next(); ok {
				timer.Reset(next.Sub(l.opt.Now()))
				due = timer.C
			}
		}
		select {
		case <-l.r.ctx.Done():
			return nil
		case c := <-calls:
			l.take(c)
			l.drain(maxTurn)
		case <-due:
			// What has come before a session ends may keep it.
			if l.drain(maxBacklog) {
				l.c.Tick(l.tick(), &l.out)
				l.decide()
			}
		case <-l.r.wake:
			l.hear()
		case err := <-l.proposed:
			if err = l.applied(err); err != nil {
				return err
			}
			l.release()
		case err := <-l.reads.confirmed:
			l.confirmed(err)
		case answer := <-l.r.counts:
			answer <- Counts{Groups: l.c.Stats(), Parked: l.parkedReplies(), Load: l.load}
		}
	}
}

// tick returns the time, which does not go back.
func (l *loop) tick() time.Time {
	if now := l.opt.Now(); now.After(l.now) {
		l.now = now
	}
	return l.now
}

// open reports whether there is room for more decisions.
func (l *loop) open() bool {
	return l.behindBytes <= l.opt.MaxBehindBytes && l.parkedReplies() < l.opt.MaxParked
}

func (l *loop) parkedReplies() int {
	return len(l.parked) + len(l.reads.next) + len(l.reads.asked) + len(l.reads.late)
}

// drain decides what waits, up to a number of requests, and reports whether there is
// room for more decisions.
func (l *loop) drain(most int) bool {
	for range most {
		if !l.open() {
			return false
		}
		select {
		case c := <-l.r.calls:
			l.take(c)
		default:
			return true
		}
	}
	return l.open()
}

// take decides one request.
func (l *loop) take(c *call) {
	select {
	case <-l.r.wake: // what was told before the request came is known when it is decided
		l.hear()
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	l.token++
	c.token = l.token
	l.waiting[c.token] = c
	c.ask(l.c, l.tick(), c.token, &l.out)
	l.decide()
}

// hear takes the news.
func (l *loop) hear() {
	l.r.mu.Lock()
	n := l.r.news
	l.r.news = news{}
	l.r.mu.Unlock()
	if n.topics != nil {
		l.c.TopicsChanged(l.tick(), n.topics, &l.out)
		l.decide()
	}
	if len(n.deleted) > 0 {
		l.c.TopicsDeleted(l.tick(), n.deleted, &l.out)
		l.decide()
	}
	for _, c := range n.left {
		if l.waiting[c.token] != c {
			continue // it was answered, or not taken yet
		}
		delete(l.waiting, c.token)
		l.c.Gone(l.tick(), c.token, &l.out)
		l.decide()
	}
}

// decide gathers what a call has decided.
func (l *loop) decide() {
	for _, rec := range l.out.Records {
		l.records = append(l.records, rec)
		l.behindBytes += bytesOf(rec)
	}
	l.decided += uint64(len(l.out.Records))
	for _, reply := range l.out.Replies {
		p := parked{after: l.decided, reply: reply}
		switch {
		case l.out.Reads:
			l.reads.next = append(l.reads.next, p)
		case p.after == l.done:
			l.answer(reply)
		default:
			l.parked = append(l.parked, p)
		}
	}
	l.out.Reset()
}

// recordOverheadBytes is more than a record takes in a batch beside its key and value.
const recordOverheadBytes = 24

func bytesOf(r record.Record) int { return len(r.Key) + len(r.Value) + recordOverheadBytes }

// propose proposes what was gathered; or adds it to the proposal that is under way, if
// that waits still.
func (l *loop) propose() {
	if len(l.records) == 0 {
		return
	}
	number := l.number + 1
	if l.proposing != nil {
		n := l.fit(l.proposing, min(l.opt.MaxProposalBytes, maxExtendBytes))
		if n == 0 {
			return
		}
		if rs := slices.Concat(l.proposing, l.records[:n]); l.opt.Log.Extend(l.opt.Term, number, rs) {
			l.proposing = rs
			l.taken(n)
		}
		return
	}
	n := max(l.fit(nil, l.opt.MaxProposalBytes), 1)
	rs := l.records[:n:n]
	l.proposing = rs
	l.taken(n)
	l.r.group.Go(func() { l.proposed <- l.opt.Log.Propose(l.r.ctx, l.opt.Term, number, rs) })
}

// fit returns how many of the records that were gathered make no more than so many
// bytes with others.
func (l *loop) fit(with []record.Record, bytes int) (n int) {
	for _, r := range with {
		bytes -= bytesOf(r)
	}
	for _, r := range l.records {
		if bytes -= bytesOf(r); bytes < 0 {
			break
		}
		n++
	}
	return n
}

// taken takes n records out of those that were gathered.
func (l *loop) taken(n int) {
	if l.records = l.records[n:]; len(l.records) == 0 {
		l.records = nil
	}
}

// applied takes what came of the proposal that was under way.
func (l *loop) applied(err error) error {
	rs := l.proposing
	l.proposing = nil
	if err != nil {
		l.unknown = !errors.Is(err, ErrRefused)
		return err
	}
	l.number++
	l.done += uint64(len(rs))
	l.opt.OnApplied(len(rs))
	for _, rec := range rs {
		l.behindBytes -= bytesOf(rec)
	}
	return nil
}

// release answers what is due as more records are applied.
func (l *loop) release() {
	n := 0
	for n < len(l.parked) && l.parked[n].after <= l.done {
		l.answer(l.parked[n].reply)
		n++
	}
	l.parked = slices.Delete(l.parked, 0, n)
	l.reads.late = slices.DeleteFunc(l.reads.late, func(p parked) bool {
		if p.after <= l.done {
			l.answer(p.reply)
			return true
		}
		return false
	})
}

// confirm asks the majority for those who wait for its word, unless it is asked already.
func (l *loop) confirm() {
	if l.reads.asking || len(l.reads.next) == 0 {
		return
	}
	l.reads.asked, l.reads.next = l.reads.next, l.reads.asked[:0]
	l.reads.asking = true
	l.r.group.Go(func() { l.reads.confirmed <- l.opt.Log.Confirm(l.r.ctx, l.opt.Term) })
}

// confirmed takes the majority's word. Without it, those who have waited for it are
// refused: there may be another coordinator.
func (l *loop) confirmed(err error) {
	l.reads.asking = false
	for _, p := range l.reads.asked {
		switch {
		case err != nil:
			l.refuse(p.reply.Token)
		case p.after <= l.done:
			l.answer(p.reply)
		default:
			l.reads.late = append(l.reads.late, p)
		}
	}
	clear(l.reads.asked)
	l.reads.asked = l.reads.asked[:0]
}

// answer gives a reply to who waits for it.
func (l *loop) answer(reply consumergroup.Reply) {
	if c := l.waiting[reply.Token]; c != nil {
		delete(l.waiting, reply.Token)
		c.answer <- reply.Response
	}
}

func (l *loop) refuse(token consumergroup.Token) {
	if c := l.waiting[token]; c != nil {
		delete(l.waiting, token)
		c.answer <- nil
	}
}
