package broker

import (
	"context"
	"sync"
	"time"
)

// pulls bounds what all of a node's catch-ups and repairs do together, whatever the
// number of shards: the bytes a second that they pull, and the memory that is held
// for what was pulled, or is answered to others who pull.
//
// The two kinds of memory are apart: two nodes that pull from each other would wait
// for each other, if what one holds for its own call were what its answer needs.
type pulls struct {
	taken    *Budget // for what this node asks for
	answered *Budget // for what it answers
	slots    chan struct{}

	mu      sync.Mutex
	base    int64               // bytes a second while every catch-up is in its first round
	jobs    map[*pullJob]uint64 // the catch-ups under way, and when each came
	came    uint64
	changed chan struct{} // closed when jobs are others
	pace    pace
}

const (
	// maxRoundDoublings bounds how often the rate is doubled.
	maxRoundDoublings = 20

	// maxTurns is how many catch-ups pull at a time: while one writes what it has
	// got, the other one asks.
	maxTurns = 2

	// turnPatience is how long one that waits for others to pull waits for its next
	// chunk.
	turnPatience = 5 * time.Second
)

func newPulls(opt *Options) *pulls {
	return &pulls{
		taken: NewBudget(opt.PullBytes), answered: NewBudget(opt.PullBytes), slots: make(chan struct{}, maxPulls),
		base: opt.CatchUpRate, jobs: make(map[*pullJob]uint64), changed: make(chan struct{}), pace: pace{bytesPerSecond: opt.CatchUpRate, now: opt.Now},
	}
}

// begin notes a round of a catch-up. Each takes twice the rate of the one before, so
// that it is above the rate of the shard's writes in the end, whatever that is; the
// highest counts for all.
func (p *pulls) begin(j *pullJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came++
	p.jobs[j] = p.came
	p.changeLocked()
}

func (p *pulls) end(j *pullJob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.jobs, j)
	p.changeLocked()
}

func (p *pulls) changeLocked() {
	most := 1
	for j := range p.jobs {
		most = max(most, j.Round)
	}
	p.pace.bytesPerSecond = p.base << min(most-1, maxRoundDoublings)
	close(p.changed)
	p.changed = make(chan struct{})
}

// turn waits until it is a catch-up's turn to pull some more. The one in the latest
// round goes first, then who came first: all shards of a node that was away lack much,
// and while all pull at once each of them is as long about a round as all together, in
// which its leader's log goes on, perhaps by more than it holds. One after the other has a
// short last round, and follows the log from then on.
//
// A source that does not answer holds up nobody for longer than turnPatience.
func (p *pulls) turn(ctx context.Context, j *pullJob) error {
	patience := time.NewTimer(turnPatience)
	defer patience.Stop()
	for {
		p.mu.Lock()
		is, changed := p.isTurnLocked(j), p.changed
		p.mu.Unlock()
		if is {
			return nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// isTurnLocked reports that fewer than maxTurns go before j.
func (p *pulls) isTurnLocked(j *pullJob) bool {
	before := 0
	for other, came := range p.jobs {
		if other.Round > j.Round || other.Round == j.Round && came < p.jobs[j] {
			before++
		}
	}
	return before < maxTurns
}

// rate returns the bytes a second that all may pull together now.
func (p *pulls) rate() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.bytesPerSecond
}

// spend waits until bytes that were pulled fit the rate of all together.
func (p *pulls) spend(ctx context.Context, bytes int) error {
	p.mu.Lock()
	wait := p.pace.charge(bytes)
	p.mu.Unlock()
	return waitFor(ctx, wait)
}

// waitFor waits, unless it is for less than a timer is good for.
func waitFor(ctx context.Context, wait time.Duration) error {
	if wait < time.Millisecond {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// largestPull is the most that the answer to one call takes, in bytes: pullBytes, or a
// single batch, which an entry of the journal has held.
func (b *Broker) largestPull() int64 {
	return pullAnswerBytes + max(pullBytes, b.opt.Journal.MaxRecordBytes())
}

// holdPull takes room for the answer to one call out of a budget of pulls, and waits
// for it. It returns how to give it back, and fails if ctx ends.
func (b *Broker) holdPull(ctx context.Context, of *Budget) (release func(), err error) {
	largest := b.largestPull()
	if err := of.Acquire(ctx, largest); err != nil {
		return nil, err
	}
	return func() { of.Release(largest) }, nil
}

// Pulling returns the memory of what this node pulls from others, and of what it
// answers to those who pull from it.
func (b *Broker) Pulling() (taken, answered *Budget) { return b.pulls.taken, b.pulls.answered }
