package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
)

const valueBytes = 100

// writer produces to each partition in turn, on a schedule, and knows how long
// after a fault each takes a record again.
type writer struct {
	name       string
	partitions int
	every      time.Duration
	now        func() time.Time

	mu     sync.Mutex
	fault  *fault
	paused bool
	acked  int64
	failed int64
	first  error // why the first of those failed
}

// fault is a moment, and how long after it each partition has acknowledged a
// record that was due since.
type fault struct {
	at    time.Time
	waits []time.Duration // 0: not yet
	left  int
	done  chan struct{} // closed when left is 0
}

// expect begins a fault.
func (w *writer) expect() *fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = &fault{at: w.now(), waits: make([]time.Duration, w.partitions), left: w.partitions, done: make(chan struct{})}
	return w.fault
}

// pause stops the schedule, or has it go on.
func (w *writer) pause(paused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = paused
}

// run produces until ctx ends. A record that is due while the sink takes no more
// is sent later, and its wait counts from when it was due.
func (w *writer) run(ctx context.Context, sink bench.Sink) error {
	value := make([]byte, valueBytes)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for i := 0; ; i++ {
		var due time.Time
		select {
		case due = <-tick.C:
		case <-ctx.Done():
			return nil
		}
		w.mu.Lock()
		paused := w.paused
		w.mu.Unlock()
		if paused {
			continue
		}
		p := i % w.partitions
		err := sink.Send(ctx, client.Record{Partition: int32(p), Value: value}, func(r client.RecordResult) { w.answered(p, due, r.Err) })
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("failover: %s: %w", w.name, err)
		}
	}
}

// answered counts the outcome of a record.
func (w *writer) answered(partition int, due time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if w.failed++; w.first == nil {
			w.first = err
		}
		return
	}
	w.acked++
	f := w.fault
	if f == nil || due.Before(f.at) || f.waits[partition] != 0 {
		return
	}
	f.waits[partition] = max(w.now().Sub(f.at), 1)
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// counts returns how many records were acknowledged and how many failed, and why
// the first of those did.
func (w *writer) counts() (acked, failed int64, first error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked, w.failed, w.first
}
