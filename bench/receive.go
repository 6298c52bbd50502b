package bench

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Delivery measures from a record's due time to its arrival at a consumer: a
// Load, and consumers that wait for it.
type Delivery struct {
	Load  Load // with a Mark
	Topic string

	// Patience is how long after the last acknowledgement a record may still
	// arrive.
	Patience time.Duration
}

// Delivered is what a Delivery measured.
type Delivered struct {
	Result           // of the load; its Latency is of acknowledgements
	EndToEnd Latency // of the records due within the window
	Missing  int64   // acknowledged, and not arrived in time
	Twice    int64   // arrivals of what had arrived before
}

// Run consumes through one source, from where the partitions end now, and sends
// the load through sinks. It returns when all that was acknowledged has
// arrived, or Patience has passed.
func (d Delivery) Run(ctx context.Context, w Watch, cluster Cluster, source Source, sinks []Sink) (Delivered, error) {
	if d.Load.Mark == 0 {
		return Delivered{}, errors.New("bench: a delivery without a number that marks its records")
	}
	ends, err := cluster.Spans(ctx, d.Topic)
	if err != nil {
		return Delivered{}, err
	}
	for i := range ends {
		ends[i].From = ends[i].Until
	}
	reader, err := source.Open(ends)
	if err != nil {
		return Delivered{}, err
	}
	defer reader.Close()
	a := newArrivals(d.Load.Mark, d.Load.window())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := w.Now()
	group.Go(func() {
		if err := a.receive(ctx, reader, func() time.Duration { return w.Now().Sub(start) }); err != nil {
			cancel(err)
		}
	})
	res, err := d.Load.runAt(ctx, w, sinks, start)
	if err == nil {
		err = a.wait(ctx, res.Answered, d.Patience)
	}
	cancel(err)
	group.Wait()
	out := Delivered{Result: res, EndToEnd: summary(a.latency.latency), Twice: a.twice}
	out.Missing = max(0, res.Answered-a.distinct)
	return out, err
}

// arrivals counts the records of a run as they come.
type arrivals struct {
	run     uint64
	latency *recorder // under mu

	mu       sync.Mutex
	seen     []uint64 // a bit by number
	distinct int64
	twice    int64
	grown    chan struct{} // closed and replaced when distinct grows
}

func newArrivals(run uint64, w window) *arrivals {
	return &arrivals{run: run, latency: newRecorder(w), grown: make(chan struct{})}
}

// add counts the record of a value that arrived then.
func (a *arrivals) add(value []byte, at time.Duration) {
	s, ours := readStamp(value, a.run)
	if !ours || s.number < 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	word, bit := s.number/64, uint64(1)<<(s.number%64)
	for int64(len(a.seen)) <= word {
		a.seen = append(a.seen, 0)
	}
	if a.seen[word]&bit != 0 {
		a.twice++
		return
	}
	a.seen[word] |= bit
	a.distinct++
	a.latency.answered(time.Duration(s.due), at, len(value))
}

// receive adds what reader gives until ctx ends.
func (a *arrivals) receive(ctx context.Context, reader Reader, now func() time.Duration) error {
	for {
		got, err := reader.Poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		at := now()
		for i := range got {
			for rec, err := range got[i].Records {
				if err != nil {
					return err
				}
				a.add(rec.Value, at)
			}
		}
		a.mu.Lock()
		close(a.grown)
		a.grown = make(chan struct{})
		a.mu.Unlock()
	}
}

// wait returns when so many records have arrived, or after patience.
func (a *arrivals) wait(ctx context.Context, records int64, patience time.Duration) error {
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		a.mu.Lock()
		arrived, grown := a.distinct >= records, a.grown
		a.mu.Unlock()
		if arrived {
			return nil
		}
		select {
		case <-grown:
		case <-t.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
