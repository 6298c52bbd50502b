package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// What a Fetch takes for each of its partitions, besides the batches that are
// read for it: what was decoded, what is wanted and what came of it, until the
// answer is ready; from there until it is written, what it is written from.
const (
	fetchPartBytes = 928
	sentPartBytes  = 320
)

// fetchShare is which part of Options.Requests, beside it, Fetches may take for
// their partitions.
const fetchShare = 4

// claimGrace is how long a Fetch that waits for that memory may keep others from
// what its request holds: longer than it takes until those who do not take their
// answers are cut off.
const claimGrace = 5 * time.Second

var (
	errNoFetchRoom = errors.New("kafka: no room in time in the node's memory for Fetches")
	errClaimYields = errors.New("kafka: a Fetch waits for room in the node's memory for Fetches, and others for that of its request")
)

// fetchMemory is the memory of a node for the partitions of its Fetches, which
// may wait for long. As for requests, what many small ones need is apart from
// what few large ones take.
type fetchMemory struct{ small, large *broker.Budget }

func newFetchMemory(bytes int64) fetchMemory {
	return fetchMemory{small: broker.NewBudget(bytes / 4), large: broker.NewBudget(bytes)}
}

// claimFetch takes the memory of a Fetch of so many partitions, or waits for it.
// Fetches that are parked let go of theirs then: see broker.Held.
//
// What the request holds meanwhile is held for as long as answerWait, and if others
// wait for that memory for no longer than claimGrace.
func (c *conn) claimFetch(q *request, parts int) error {
	n := int64(parts) * fetchPartBytes
	if n == 0 {
		return nil
	}
	from := intake.Budget(n, c.s.fetches.small, c.s.fetches.large)
	if !tryBoth(c.fetches, from, n) {
		ctx, cancel := context.WithTimeoutCause(c.ctx, answerWait, errNoFetchRoom)
		defer cancel()
		ctx, giveWay := context.WithCancelCause(ctx)
		defer giveWay(nil)
		late := time.Now().Add(claimGrace)
		y := q.from.Yield(q.held, func() { time.AfterFunc(time.Until(late), func() { giveWay(errClaimYields) }) })
		defer y.End()
		if acquireBoth(ctx, c.fetches, from, n) != nil {
			return fmt.Errorf("%w: %d bytes of %d for %d partitions; raise memory.bytes, or ask for fewer at a time",
				context.Cause(ctx), n, from.Limit(), parts)
		}
	}
	q.fetchFrom, q.fetchHeld = from, n
	return nil
}

// tryBoth takes n bytes of two budgets if that needs no waiting.
func tryBoth(a, b *broker.Budget, n int64) bool {
	if !a.TryAcquire(n) {
		return false
	}
	if b.TryAcquire(n) {
		return true
	}
	a.Release(n)
	return false
}

// acquireBoth takes n bytes of two budgets, or waits for them.
func acquireBoth(ctx context.Context, a, b *broker.Budget, n int64) error {
	if err := a.Acquire(ctx, n); err != nil {
		return err
	}
	err := b.Acquire(ctx, n)
	if err != nil {
		a.Release(n)
	}
	return err
}

// unsentFetches is what the answers of one connection hold of each budget for
// Fetches, from when they are ready until they are written.
type unsentFetches struct{ small, large atomic.Int64 }

// waitedFor reports whether others wait for some of it.
func (u *unsentFetches) waitedFor(m *fetchMemory) bool {
	return u.small.Load() > 0 && m.small.Waiting() > 0 || u.large.Load() > 0 && m.large.Waiting() > 0
}

// unsentOf is what the connection's answers hold of the budget that q's is of.
func (q *request) unsentOf() *atomic.Int64 {
	if q.fetchFrom == q.s.fetches.small {
		return &q.unsent.small
	}
	return &q.unsent.large
}

// sendFetch gives back what a Fetch took for its partitions, but for what its
// answer is written from. If Fetches before it wait for records, they answer with
// what there is when others wait for that: its turn comes then.
func (q *request) sendFetch() {
	if q.fetchHeld == 0 {
		return
	}
	q.keepFetch(q.fetchHeld / fetchPartBytes * sentPartBytes)
	q.unsentOf().Add(q.fetchHeld)
	if q.turn.Load() != q && q.polls.Some() {
		q.fetchYield = q.fetchFrom.Yield(q.fetchHeld, q.polls.Hurry)
	}
}

// settleFetch gives back the rest, after sendFetch.
func (q *request) settleFetch() {
	if q.fetchHeld > 0 {
		q.unsentOf().Add(-q.fetchHeld)
		q.keepFetch(0)
		q.fetchYield.End()
	}
}

// keepFetch gives back all but n bytes of what a Fetch took for its partitions.
func (q *request) keepFetch(n int64) {
	if back := q.fetchHeld - n; back > 0 {
		q.fetchHeld = n
		q.fetchFrom.Release(back)
		q.conn.fetches.Release(back)
	}
}
