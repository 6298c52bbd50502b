// Package bench puts load on a cluster through the native client and measures
// what comes back: throughput, latency, and what it cost the servers in CPU,
// memory and disk writes. docs/benchmarks.md says how to read the figures.
//
// # Two kinds of load
//
// A closed loop keeps a fixed number of records outstanding: it finds the
// highest rate, and its latencies are those of a system that is never asked for
// more than it answers. An open loop has a schedule. A record's latency counts
// from its due time, not from when the load got round to sending it, so a
// server that stops for a second is charged with everything that fell due in
// that second (no coordinated omission). How late the load itself was is
// reported beside it: where that is not small, the figures are the load's.
//
// # What is measured
//
// A run has a warm-up, whose records count for nothing, and then a window. The
// rate is of the records acknowledged within the window, whenever they were
// sent. The latencies are of the records due within the window, whenever they
// were acknowledged: the run waits for them.
//
// MB are millions of bytes of keys and values. Percentiles are from HDR
// histograms with three significant digits.
//
// Time, randomness, files and output are arguments. A run starts goroutines and
// has joined them when it returns.
package bench

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// Sink takes the records of a load. A *client.Producer is one.
type Sink interface {
	// Send takes a record, and calls done once its outcome is known. It may wait.
	Send(ctx context.Context, r client.Record, done func(client.RecordResult)) error
	// Flush returns when the outcome of every record sent is known.
	Flush(ctx context.Context) error
}

var _ Sink = (*client.Producer)(nil)

// Watch is how a run is observed while it goes on. The zero value of a field
// stands for nothing but Now's, which is needed.
type Watch struct {
	// Now is the clock of due times and latencies. It must be monotonic.
	Now func() time.Time

	// Sample is called when the window begins and when it ends.
	Sample func() (Sample, error)

	// Progress is called every second, from one goroutine at a time.
	Progress func(Progress)
}

// sample returns Sample's answer, or nothing.
func (w Watch) sample() (Sample, error) {
	if w.Sample == nil {
		return Sample{}, nil
	}
	return w.Sample()
}

// Phases of a run.
const (
	PhaseWarmup   = "warm-up"
	PhaseMeasured = "measured"
	PhaseDrain    = "drain" // waiting for what is under way
)

// Progress is what happened since the last one.
type Progress struct {
	Elapsed  time.Duration // since the run began
	Phase    string
	Interval time.Duration
	Records  int64 // acknowledged or received in the interval
	Bytes    int64
	Latency  Latency // of these records; Count is 0 where none is measured
	InFlight int64   // sent and not yet answered
	Failed   int64   // since the run began
}

// tick calls report every second until stop is closed, and returns then.
func tick(stop <-chan struct{}, report func()) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			report()
		case <-stop:
			return
		}
	}
}

// Sleep waits for d, or returns ctx's error if that ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
