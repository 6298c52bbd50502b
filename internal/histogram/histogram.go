// Package histogram counts what happens on hot paths, for metrics: an
// observation is a search in a dozen bounds and two atomic additions. It takes
// no lock, allocates nothing, and knows no clock.
package histogram

import (
	"sync/atomic"
	"time"
)

// Histogram counts observations by size. Safe for concurrent use.
type Histogram struct {
	bounds []int64
	counts []atomic.Uint64 // by bound, and one for what is above the last
	sum    atomic.Int64
}

// New returns a Histogram with the given upper bounds, which are inclusive and
// ascend, in the unit of the observations. The caller must not change them.
func New(bounds []int64) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one observation.
func (h *Histogram) Observe(v int64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// ObserveDuration counts a duration, in nanoseconds.
func (h *Histogram) ObserveDuration(d time.Duration) { h.Observe(int64(d)) }

// Snapshot is a Histogram at one moment. Observations that are made meanwhile
// may be in Counts and not yet in Sum.
type Snapshot struct {
	Bounds []int64
	Counts []uint64 // not cumulative; one more than Bounds
	Sum    int64
}

// Snapshot returns the counts by now.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Sum: h.sum.Load()}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}

// Count returns the number of observations.
func (s Snapshot) Count() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Disk are bounds, in nanoseconds, for what a disk does: 50 us to 10 s.
var Disk = durations(50*time.Microsecond, 100*time.Microsecond, 250*time.Microsecond, 500*time.Microsecond,
	time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond, 50*time.Millisecond,
	100*time.Millisecond, 250*time.Millisecond, 500*time.Millisecond, time.Second, 2500*time.Millisecond, 5*time.Second, 10*time.Second)

// Request are bounds, in nanoseconds, for what a client waits for: 250 us to
// 60 s.
var Request = durations(250*time.Microsecond, 500*time.Microsecond, time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond,
	10*time.Millisecond, 25*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond, 250*time.Millisecond, 500*time.Millisecond,
	time.Second, 2500*time.Millisecond, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute)

// Long are bounds, in nanoseconds, for checkpoints: 1 ms to 5 min.
var Long = durations(time.Millisecond, 10*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond, 250*time.Millisecond,
	500*time.Millisecond, time.Second, 2500*time.Millisecond, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute, 5*time.Minute)

// Sizes are bounds in bytes: 256 to 64 MiB, by fours.
var Sizes = []int64{256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}

func durations(ds ...time.Duration) []int64 {
	bounds := make([]int64, len(ds))
	for i, d := range ds {
		bounds[i] = int64(d)
	}
	return bounds
}
