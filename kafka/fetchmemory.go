package kafka

import (
	"context"
	"fmt"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// What a Fetch takes for each of its partitions, besides the batches that are
// read for it: what was decoded, what is wanted and what came of it, until the
// answer is ready; from there until it is written, what it is written from.
const (
	fetchPartBytes = 896
	sentPartBytes  = 320
)

// fetchShare is which part of Options.Requests, beside it, Fetches may take for
// their partitions.
const fetchShare = 4

// fetchMemory is the memory of a node for the partitions of its Fetches, which
// may wait for long. As for requests, what many small ones need is apart from
// what few large ones take.
type fetchMemory struct{ small, large *broker.Budget }

func newFetchMemory(bytes int64) fetchMemory {
	return fetchMemory{small: broker.NewBudget(bytes / 4), large: broker.NewBudget(bytes)}
}

// claimFetch takes the memory of a Fetch of so many partitions, or waits for it.
// Fetches that are parked let go of theirs then: see broker.Held.
func (c *conn) claimFetch(q *request, parts int) error {
	n := int64(parts) * fetchPartBytes
	if n == 0 {
		return nil
	}
	from := intake.Budget(n, c.s.fetches.small, c.s.fetches.large)
	ctx, cancel := context.WithTimeout(c.ctx, answerWait) // what the request holds is held for no longer
	defer cancel()
	err := c.fetches.Acquire(ctx, n)
	if err == nil {
		if err = from.Acquire(ctx, n); err != nil {
			c.fetches.Release(n)
		}
	}
	if err != nil {
		return fmt.Errorf("kafka: no memory in %v for the %d partitions of a Fetch: %w", answerWait, parts, err)
	}
	q.fetchFrom, q.fetchHeld = from, n
	return nil
}

// keepFetch gives back all but n bytes of what a Fetch took for its partitions.
func (q *request) keepFetch(n int64) {
	if back := q.fetchHeld - n; back > 0 {
		q.fetchHeld = n
		q.fetchFrom.Release(back)
		q.conn.fetches.Release(back)
	}
}
