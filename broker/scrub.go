package broker

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
)

const (
	defaultScrubInterval = 7 * 24 * time.Hour

	// scrubSoon bounds when the first pass begins after a start.
	scrubSoon = time.Hour
)

// scrubber reads every segment of this node again and again, at a bounded rate, so
// that damage is found while other replicas are whole: what nobody reads rots
// unseen otherwise.
type scrubber struct {
	b *Broker

	bytes, passes atomic.Uint64
	last          atomic.Int64 // end of the newest whole pass, ns since 1970; 0: none yet
}

// run makes a pass each interval, for as long as the broker runs.
func (c *scrubber) run() {
	ctx := c.b.stopping
	timer := time.NewTimer(c.first())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		began := c.b.opt.Now()
		if err := c.pass(ctx); err == nil {
			c.passes.Add(1)
			c.last.Store(c.b.opt.Now().UnixNano())
		} else if ctx.Err() == nil {
			c.b.opt.Log.Warn("the segments could not all be read; trying again later", "err", err)
		}
		timer.Reset(max(c.b.opt.ScrubInterval-c.b.opt.Now().Sub(began), time.Second))
	}
}

// first is when the first pass begins: not at the same time on all nodes.
func (c *scrubber) first() time.Duration {
	return time.Duration(c.b.opt.Incarnation % uint64(min(c.b.opt.ScrubInterval, scrubSoon)))
}

// pass reads all segments once.
func (c *scrubber) pass(ctx context.Context) error {
	rate := pace{bytesPerSecond: c.b.opt.ScrubRate, now: c.b.opt.Now}
	for _, s := range c.b.carriedInOrder() {
		epochs := func(key uint32) []store.Epoch { return s.machine.epochHistory(partition.Number(key)) }
		_, err := s.store.Scrub(epochs, func(n int64) error {
			if err := rate.spend(ctx, int(n)); err != nil {
				return err
			}
			c.bytes.Add(uint64(n))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
