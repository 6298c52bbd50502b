package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// Load is records to be sent: in a closed loop if Rate is 0, else in an open
// one.
type Load struct {
	Shape

	Warmup   time.Duration
	Duration time.Duration // of the window; or, if 0, until Records were sent in it
	Records  int64

	InFlight int     // closed loop: records outstanding, over all sinks; at least one each
	Rate     float64 // open loop: records a second, over all sinks

	Seed uint64 // of keys and values

	// Mark, if not 0, is put into the records' values, so that a Receiver
	// recognises them.
	Mark uint64
}

// Result is what a Load or a Replay measured.
type Result struct {
	Window   time.Duration
	Records  int64 // within the window
	Bytes    int64 // of their keys and values
	Failed   int64 // in the whole run
	FirstErr error // why the first of them failed
	Latency  Latency
	Lateness Latency // open loop: of sending; 0 if the load kept its schedule
	Answered int64   // records acknowledged or received in the whole run
	Begin    Sample  // at the window's ends
	End      Sample
}

// PerSecond returns n per second of the window.
func (r Result) PerSecond(n int64) float64 {
	if r.Window <= 0 {
		return 0
	}
	return float64(n) / r.Window.Seconds()
}

// Check returns an error for a Load that cannot run through so many sinks.
func (l Load) Check(sinks int) error {
	if err := l.Shape.Check(); err != nil {
		return err
	}
	switch {
	case sinks < 1:
		return errors.New("bench: a load without producers")
	case l.Warmup < 0 || l.Duration < 0 || l.Records < 0 || l.Rate < 0:
		return errors.New("bench: negative value in Load")
	case (l.Duration == 0) == (l.Records == 0):
		return errors.New("bench: a load ends after a duration or after a number of records: give one of them")
	case l.Rate == 0 && l.InFlight < sinks:
		return fmt.Errorf("bench: %d records outstanding for %d producers: at least one each", l.InFlight, sinks)
	case l.Mark != 0 && l.ValueBytes < stampBytes:
		return fmt.Errorf("bench: values of %d bytes; to be recognised they need %d", l.ValueBytes, stampBytes)
	}
	return nil
}

// Run sends the load through sinks, each from a goroutine of its own, and
// returns when every record is answered. Records that fail are counted; a sink
// that takes no more, or the end of ctx, ends the run with its error.
func (l Load) Run(ctx context.Context, w Watch, sinks []Sink) (Result, error) {
	return l.runAt(ctx, w, sinks, w.Now())
}

// window is the part of the run that is measured.
func (l Load) window() window {
	if l.Duration == 0 {
		return window{from: l.Warmup, until: endless}
	}
	return window{from: l.Warmup, until: l.Warmup + l.Duration}
}

// runAt is Run, with times counted from start.
func (l Load) runAt(ctx context.Context, w Watch, sinks []Sink, start time.Time) (Result, error) {
	if err := l.Check(len(sinks)); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &loading{Load: l, watch: w, start: start, window: l.window()}
	for i, sink := range sinks {
		s := &sender{
			run: r, sink: sink,
			maker:    newMaker(l.Shape, l.Seed, uint64(i)),
			schedule: schedule{perSecond: l.Rate, senders: len(sinks), sender: i},
			recorder: newRecorder(r.window),
		}
		if l.Rate == 0 {
			s.slots = make(chan struct{}, share(l.InFlight, len(sinks), i))
		}
		r.senders = append(r.senders, s)
	}
	return r.measure(ctx, cancel)
}

// loading is a Load that runs.
type loading struct {
	Load
	watch    Watch
	start    time.Time
	window   window
	senders  []*sender
	counted  atomic.Int64 // records begun within the window, if Records says how many
	inFlight atomic.Int64
}

// now is the time since the run began.
func (r *loading) now() time.Duration { return r.watch.Now().Sub(r.start) }

// measure starts the senders, samples at the ends of the window, and returns
// when all is over.
func (r *loading) measure(ctx context.Context, cancel context.CancelCauseFunc) (Result, error) {
	var sending, watching sync.WaitGroup
	for _, s := range r.senders {
		sending.Go(func() {
			if err := s.loop(ctx); err != nil {
				cancel(err)
			}
		})
	}
	var res Result
	over := make(chan struct{}) // every record is answered
	watching.Go(func() {
		if err := r.sampleWindow(ctx, over, &res); err != nil {
			cancel(err)
		}
	})
	if r.watch.Progress != nil {
		watching.Go(func() { tick(over, r.reporter()) })
	}
	sending.Wait()
	close(over)
	watching.Wait()
	r.result(&res)
	return res, context.Cause(ctx)
}

// sampleWindow samples when the window begins and when it ends, which, if that
// is after a number of records, is when all is over.
func (r *loading) sampleWindow(ctx context.Context, over <-chan struct{}, res *Result) (err error) {
	if err := Sleep(ctx, r.window.from-r.now()); err != nil {
		return err
	}
	if res.Begin, err = r.watch.sample(); err != nil {
		return err
	}
	if r.window.until == endless {
		<-over
	} else if err := Sleep(ctx, r.window.until-r.now()); err != nil {
		return err
	}
	res.End, err = r.watch.sample()
	return err
}

// reporter returns a function that reports what came since its last call.
func (r *loading) reporter() func() {
	before := r.now()
	return func() {
		now := r.now()
		p := Progress{Elapsed: now, Interval: now - before, Phase: PhaseMeasured, InFlight: r.inFlight.Load()}
		switch {
		case now < r.window.from:
			p.Phase = PhaseWarmup
		case now >= r.window.until:
			p.Phase = PhaseDrain
		}
		h := newHistogram()
		for _, s := range r.senders {
			s.recorder.takeInterval(&p, h)
		}
		p.Latency = summary(h)
		before = now
		r.watch.Progress(p)
	}
}

// result fills in what the senders counted.
func (r *loading) result(res *Result) {
	latency, lateness := newHistogram(), newHistogram()
	last := r.window.from
	for _, s := range r.senders {
		rec := s.recorder
		rec.mu.Lock() // after an interrupt, answers may still come
		latency.Merge(rec.latency)
		lateness.Merge(rec.lateness)
		res.Records += rec.records
		res.Bytes += rec.bytes
		res.Answered += rec.answeredAll
		res.Failed += rec.failed
		if res.FirstErr == nil {
			res.FirstErr = rec.firstErr
		}
		last = max(last, rec.last)
		rec.mu.Unlock()
	}
	res.Latency, res.Lateness = summary(latency), summary(lateness)
	if r.window.until != endless {
		last = r.window.until
	}
	res.Window = last - r.window.from
}

// sender is one sink's part of a load.
type sender struct {
	run      *loading
	sink     Sink
	maker    *maker
	schedule schedule      // open loop
	slots    chan struct{} // closed loop: one element per record outstanding
	recorder *recorder
}

// loop sends until the load ends, and then waits for the answers.
func (s *sender) loop(ctx context.Context) error {
	for i := int64(0); ; i++ {
		due, err := s.next(ctx, i)
		if err != nil {
			return err
		}
		if !s.run.begin(due) {
			break
		}
		if s.slots == nil {
			if err := Sleep(ctx, due-s.run.now()); err != nil {
				return err
			}
			s.recorder.sent(due, s.run.now())
		}
		if err := s.send(ctx, i, due); err != nil {
			return err
		}
	}
	return s.sink.Flush(ctx)
}

// next returns when the sender's i-th record is due: now, in a closed loop, as
// soon as fewer than so many are outstanding.
func (s *sender) next(ctx context.Context, i int64) (time.Duration, error) {
	if s.slots == nil {
		return s.schedule.due(i), nil
	}
	select {
	case s.slots <- struct{}{}:
		return s.run.now(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// begin reports whether a record that is due then belongs to the load.
func (r *loading) begin(due time.Duration) bool {
	if r.Records == 0 || due < r.window.from {
		return due < r.window.until
	}
	return r.counted.Add(1) <= r.Records
}

func (s *sender) send(ctx context.Context, i int64, due time.Duration) error {
	rec := s.maker.next()
	if s.run.Mark != 0 {
		number := i*int64(s.schedule.senders) + int64(s.schedule.sender)
		rec = s.maker.stamped(rec, stamp{run: s.run.Mark, number: number, due: int64(due)})
	}
	bytes := len(rec.Key) + len(rec.Value)
	s.run.inFlight.Add(1)
	return s.sink.Send(ctx, rec, func(r client.RecordResult) {
		s.run.inFlight.Add(-1)
		if r.Err != nil {
			s.recorder.refused(r.Err)
		} else {
			s.recorder.answered(due, s.run.now(), bytes)
		}
		if s.slots != nil {
			<-s.slots
		}
	})
}
