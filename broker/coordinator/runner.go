package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
)

var (
	// ErrRefused says of a proposal that it is not applied and never will be.
	ErrRefused = errors.New("coordinator: the records were refused")

	// ErrPanicked reports a Runner that a panic of its Coordinator has ended.
	ErrPanicked = errors.New("coordinator: panic")
)

// Log is the partition of __consumer_offsets that a Runner decides for. Each of its
// methods is called from one goroutine at a time: of the Runner's, or of those that ask.
type Log interface {
	// Propose replicates records as one decision, which is applied as a whole or not
	// at all: term is that in which it was decided, number the last of this term + 1.
	// It returns nil once they are applied here, an error that matches ErrRefused if
	// they never will be, and any other if that is not known: this node does not
	// lead the term any more. When ctx ends, it returns soon. It does not change records.
	Propose(ctx context.Context, term, number uint64, records []record.Record) error

	// Extend has the decision that Propose proposes be of records, which begin with
	// those that it has had, and reports whether it is: only while nothing depends on
	// what it is of, as it waits for a turn. It is called beside Propose, and does not
	// block. It does not change records.
	Extend(term, number uint64, records []record.Record) bool

	// Confirm returns nil if a majority has said, asked after the call, that this
	// node leads in term (R19).
	Confirm(ctx context.Context, term uint64) error

	// Groups calls f with the state that is folded from what is applied. f clones it,
	// and keeps nothing of it. With an error there is no such state, and f is not called.
	Groups(f func(*consumergroup.Groups)) error
}

// Options are what a Runner is made of.
type Options struct {
	Log  Log
	Term uint64 // in which this node leads; its first command is applied

	// Number is that of the last decision of this term that is applied: 0 for the first
	// Runner of a term, Outcome.Number of the one before for others.
	Number uint64

	Groups consumergroup.Options
	Now    func() time.Time

	// OnApplied is told of each decision that is applied, how many records it has;
	// default: nothing. It does not block.
	OnApplied func(records int)

	// Queue is how many requests wait to be decided, beyond those that wait for room
	// here; default 256.
	Queue int

	// Patience is how long a heartbeat or a commit waits to be decided and answered; default 30 s. It
	// is refused then, as by who does not coordinate the group: a client that still waits
	// looks again.
	Patience time.Duration

	// MaxParked bounds the replies that wait for records or a majority; default 10,000.
	MaxParked int

	// MaxBehindBytes bounds the records that are decided and not applied: with more, no
	// request is decided; default 4 MiB. One request may decide more.
	MaxBehindBytes int

	// MaxProposalBytes is how many bytes of records one proposal has at most, or one
	// larger record alone; default 512 KiB.
	MaxProposalBytes int
}

func (o Options) withDefaults() Options {
	if o.OnApplied == nil {
		o.OnApplied = func(int) {}
	}
	o.Queue = cmp.Or(o.Queue, 256)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.MaxParked = cmp.Or(o.MaxParked, 10_000)
	o.MaxBehindBytes = cmp.Or(o.MaxBehindBytes, 4<<20)
	o.MaxProposalBytes = cmp.Or(o.MaxProposalBytes, 512<<10)
	return o
}

// Outcome is how a Runner has ended.
type Outcome struct {
	// Known says that each decision is either applied or refused: another Runner may
	// go on in the same term, from the applied state. Else the term has no coordinator
	// any more.
	Known bool

	Number uint64 // of the last decision that is known to be applied

	// Err is why it ended: what Propose or Groups has returned, or ErrPanicked with the
	// stack. Nil: Stop was called.
	Err error
}

// Counts count what a Runner has at a moment.
type Counts struct {
	Groups consumergroup.Stats
	Parked int           // replies that wait
	Load   time.Duration // that it took until the first request could be decided
}

// Runner is the coordinator of one partition of __consumer_offsets in one term. Start
// starts it; its methods are safe for concurrent use. All methods that ask, of a nil
// Runner too, answer NOT_COORDINATOR once it has ended.
type Runner struct {
	opt   Options
	d     decider
	calls chan *call
	wake  chan struct{} // 1-buffered: there is something to do for the Runner's goroutine

	ctx       context.Context // ends with Stop
	cancel    context.CancelFunc
	group     sync.WaitGroup // goroutines that propose, and that ask the majority
	proposers sync.WaitGroup // the former
	ended     chan struct{}  // closed when nothing is answered any more
	done      chan struct{}  // closed when its goroutines have ended
	out       Outcome        // from done on

	mu   sync.Mutex
	news news
	told atomic.Bool // there is something in news
}

// news is what a Runner is told, and has not looked at.
type news struct {
	left    []*call // by those who asked
	topics  *consumergroup.Topics
	deleted []consumergroup.Topic
}

// Start starts a Runner. It decides from the state that is applied by the time that
// the Log hands it over, soon after; requests wait for that. All sessions begin then.
//
// It returns what consumergroup.Options.Check returns.
func Start(opt Options) (*Runner, error) {
	if err := opt.Groups.Check(); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	opt = opt.withDefaults()
	r := &Runner{
		opt: opt, calls: make(chan *call, opt.Queue), wake: make(chan struct{}, 1),
		ended: make(chan struct{}), done: make(chan struct{}),
	}
	r.d = decider{
		r: r, opt: &r.opt, number: opt.Number, failed: make(chan struct{}), waiting: make(map[consumergroup.Token]*call),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.run()
	return r, nil
}

// Term returns the term that the Runner decides in.
func (r *Runner) Term() uint64 { return r.opt.Term }

// Stop ends the Runner, if it has not ended by itself, and returns how it did. All who
// wait are answered NOT_COORDINATOR before it returns.
func (r *Runner) Stop() Outcome {
	r.cancel()
	<-r.done
	return r.out
}

// Done is closed when the Runner has ended, by Stop or by itself: Stop does not wait then.
func (r *Runner) Done() <-chan struct{} { return r.done }

// Tell tells the topics that there are, and which were deleted since the last call: at
// first, those that were deleted at any time, of which the applied state has offsets. It does not
// block. Of several calls that come before the Runner looks, the topics of the last one
// count; with nil, they are as before.
func (r *Runner) Tell(topics *consumergroup.Topics, deleted []consumergroup.Topic) {
	r.tell(func(n *news) {
		if topics != nil {
			n.topics = topics
		}
		n.deleted = append(n.deleted, deleted...)
	})
}

// tell adds to the news.
func (r *Runner) tell(add func(*news)) {
	r.mu.Lock()
	add(&r.news)
	r.told.Store(true)
	r.mu.Unlock()
	r.rouse()
}

// rouse has the Runner's goroutine look what there is to do. It does not block.
func (r *Runner) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Counts returns the counts, and whether there are any: a Runner that loads, or has
// ended, has none.
func (r *Runner) Counts() (Counts, bool) {
	d := &r.d
	d.turn.Lock()
	defer d.turn.Unlock()
	if d.c == nil || d.over {
		return Counts{}, false
	}
	return Counts{Groups: d.c.Stats(), Parked: d.parkedReplies(), Load: d.load}, true
}

// run is the Runner's goroutine.
func (r *Runner) run() {
	d := &r.d
	d.run()
	d.step(func() { d.end(nil) })
	close(r.ended)
	r.proposers.Wait() // what is under way may yet be applied
	r.cancel()
	r.group.Wait()
	r.out = Outcome{Known: !d.unknown, Number: d.number, Err: d.err}
	close(r.done)
}

// call is one request.
type call struct {
	ask   asking
	token consumergroup.Token // the decider's; 0: not decided

	// answer gets the reply, nil if it is refused; 1-buffered. While it is nil, who asks
	// has the turn, and finds the reply in reply.
	answer chan any
	reply  any

	mu   sync.Mutex // held while it is decided
	gone bool       // nobody waits any more
}

// give answers c.
func (c *call) give(reply any) {
	if c.answer == nil {
		c.reply = reply
		return
	}
	c.answer <- reply
}

// asking has a Coordinator decide a request, and reports whether it has.
type asking func(c *consumergroup.Coordinator, now time.Time, token consumergroup.Token, out *consumergroup.Decision) bool

// do has a request decided, and returns the reply once it is due; or false if there is
// none: ctx has ended, or the Runner, or patience, if it is not 0. It is decided by here
// in the goroutine that asks, if here is not nil, can be called, and decides it; else by
// queued in the Runner's.
func (r *Runner) do(ctx context.Context, patience time.Duration, here, queued asking) (any, bool) {
	if r == nil {
		return nil, false
	}
	if here != nil {
		if c := (&call{ask: here}); r.d.here(c) {
			if c.answer == nil {
				return c.reply, c.reply != nil
			}
			return r.await(ctx, patience, c, true)
		}
	}
	return r.await(ctx, patience, &call{ask: queued, answer: make(chan any, 1)}, false)
}

// await returns the reply to c, which it queues unless it is decided. The timer is made
// before wait's frame is on the stack, as taking memory goes deep: see the package comment.
func (r *Runner) await(ctx context.Context, patience time.Duration, c *call, decided bool) (any, bool) {
	if patience == 0 {
		return r.wait(ctx, nil, c, decided)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	return r.wait(ctx, timer.C, c, decided)
}

// wait is await, until late.
func (r *Runner) wait(ctx context.Context, late <-chan time.Time, c *call, decided bool) (any, bool) {
	if !decided {
		select {
		case r.calls <- c:
			r.rouse()
		case <-ctx.Done():
			return nil, false
		case <-late:
			return nil, false
		case <-r.ended:
			return nil, false
		}
	}
	select {
	case v := <-c.answer:
		return v, v != nil
	case <-ctx.Done():
		r.leave(c)
	case <-late:
		r.leave(c)
	case <-r.ended:
		select {
		case v := <-c.answer: // it was due before
			return v, v != nil
		default:
		}
	}
	return nil, false
}

// leave says that nobody waits for c any more. From then on nothing of it is used.
func (r *Runner) leave(c *call) {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	r.tell(func(n *news) { n.left = append(n.left, c) })
}
