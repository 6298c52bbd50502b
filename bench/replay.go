package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Span is the records of one partition, [From, Until) by offset.
type Span struct {
	Topic       string
	Partition   int32
	From, Until int64
}

// Replay reads spans as fast as the servers give them: each pass all of them,
// from their beginning. Passes of the warm-up come first and count for nothing;
// they bring files into the page cache.
type Replay struct {
	Spans        []Span // empty ones are left out
	Passes       int
	WarmupPasses int

	// Patience is how long nothing may come before a reader's part is given up,
	// 0: for ever. A partition ends with its last record; where a client does
	// not tell that records at its end were compacted away, it never ends.
	Patience time.Duration
}

// ErrStalled reports a replay to which nothing comes any more.
var ErrStalled = errors.New("bench: nothing more comes")

// Run reads the spans through sources, each of which takes its share of the
// partitions, with a Reader for each pass. An error of a partition ends it.
// Result.Latency is empty.
func (rp Replay) Run(ctx context.Context, w Watch, sources []Source) (Result, error) {
	rp.Spans = slices.DeleteFunc(slices.Clone(rp.Spans), func(s Span) bool { return s.From >= s.Until })
	switch {
	case len(sources) == 0:
		return Result{}, errors.New("bench: a replay without sources")
	case rp.Passes < 1 || rp.WarmupPasses < 0:
		return Result{}, fmt.Errorf("bench: %d passes after %d of warm-up", rp.Passes, rp.WarmupPasses)
	case len(rp.Spans) == 0:
		return Result{}, errors.New("bench: nothing to read: the topic is empty")
	}
	r := &replaying{Replay: rp, sources: sources}
	r.measured.Store(rp.WarmupPasses == 0)
	over := make(chan struct{})
	var watching sync.WaitGroup
	if w.Progress != nil {
		watching.Go(func() { tick(over, r.reporter(w)) })
	}
	res, err := r.passes(ctx, w)
	close(over)
	watching.Wait()
	return res, err
}

// replaying is a Replay that runs.
type replaying struct {
	Replay
	sources  []Source
	records  atomic.Int64
	bytes    atomic.Int64
	measured atomic.Bool
}

func (r *replaying) passes(ctx context.Context, w Watch) (res Result, err error) {
	for range r.WarmupPasses {
		if err := r.pass(ctx); err != nil {
			return res, err
		}
	}
	r.measured.Store(true)
	if res.Begin, err = w.sample(); err != nil {
		return res, err
	}
	start, records, bytes := w.Now(), r.records.Load(), r.bytes.Load()
	for range r.Passes {
		if err := r.pass(ctx); err != nil {
			return res, err
		}
	}
	res.Window = w.Now().Sub(start)
	res.Answered = r.records.Load()
	res.Records, res.Bytes = res.Answered-records, r.bytes.Load()-bytes
	res.End, err = w.sample()
	return res, err
}

// pass reads all spans once.
func (r *replaying) pass(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for i, source := range r.sources {
		mine := deal(r.Spans, len(r.sources), i)
		group.Go(func() {
			if err := r.read(ctx, source, mine); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// deal returns the i-th of so many hands.
func deal(spans []Span, hands, i int) []Span {
	var mine []Span
	for j := i; j < len(spans); j += hands {
		mine = append(mine, spans[j])
	}
	return mine
}

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

// read reads spans once, each up to its end.
func (r *replaying) read(ctx context.Context, source Source, spans []Span) error {
	left := make(map[place]int64) // where to stop, of those not read to their end
	for _, s := range spans {
		left[place{s.Topic, s.Partition}] = s.Until
	}
	if len(left) == 0 {
		return nil
	}
	reader, err := source.Open(spans)
	if err != nil {
		return err
	}
	defer reader.Close()
	for len(left) > 0 {
		got, err := r.poll(ctx, reader, left)
		if err != nil {
			return err
		}
		for i := range got {
			if err := r.count(&got[i], left); err != nil {
				return err
			}
		}
		// Only now: one Poll may bring several portions of a partition, and each
		// knows where the last of them ends.
		for i := range got {
			at := place{got[i].Topic, got[i].Partition}
			if until, reading := left[at]; reading && got[i].Next >= until {
				delete(left, at)
			}
		}
	}
	return nil
}

// poll polls, for at most Patience.
func (r *replaying) poll(ctx context.Context, reader Reader, left map[place]int64) ([]Portion, error) {
	if r.Patience == 0 {
		return reader.Poll(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	got, err := reader.Poll(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		for at, until := range left {
			return nil, fmt.Errorf("%w: for %s, of %d partitions that are not read to their end, such as %s[%d], whose end is offset %d",
				ErrStalled, r.Patience, len(left), at.topic, at.partition, until)
		}
	}
	return got, err
}

// count counts what came of a partition, up to its end.
func (r *replaying) count(p *Portion, left map[place]int64) error {
	until, reading := left[place{p.Topic, p.Partition}]
	if !reading {
		return nil // written since the start
	}
	var records, bytes int64
	for rec, err := range p.Records {
		if err != nil {
			return err
		}
		if rec.Offset >= until {
			break
		}
		records++
		bytes += int64(len(rec.Key) + len(rec.Value))
	}
	r.records.Add(records)
	r.bytes.Add(bytes)
	return nil
}

// reporter returns a function that reports what came since its last call.
func (r *replaying) reporter(w Watch) func() {
	start := w.Now()
	var before time.Duration
	var records, bytes int64
	return func() {
		now := w.Now().Sub(start)
		p := Progress{Elapsed: now, Interval: now - before, Phase: PhaseWarmup}
		if r.measured.Load() {
			p.Phase = PhaseMeasured
		}
		allRecords, allBytes := r.records.Load(), r.bytes.Load()
		p.Records, p.Bytes = allRecords-records, allBytes-bytes
		before, records, bytes = now, allRecords, allBytes
		w.Progress(p)
	}
}
