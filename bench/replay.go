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

// Span is the records of one partition, [From, Until) by offset.
type Span struct {
	Topic       string
	Partition   int32
	From, Until int64
}

// Spans returns what a topic's partitions hold now, without those that are
// empty.
func Spans(ctx context.Context, admin *client.Admin, topic string) ([]Span, error) {
	from, err := admin.Offsets(ctx, topic, client.Earliest)
	if err != nil {
		return nil, err
	}
	until, err := admin.Offsets(ctx, topic, client.Latest)
	if err != nil {
		return nil, err
	}
	var spans []Span
	for p := range until {
		if from[p] < until[p] {
			spans = append(spans, Span{topic, int32(p), from[p], until[p]})
		}
	}
	return spans, nil
}

// Replay reads spans as fast as the servers give them: each pass all of them,
// from their beginning. Passes of the warm-up come first and count for nothing;
// they bring files into the page cache.
type Replay struct {
	Spans        []Span
	Passes       int
	WarmupPasses int
	Consumer     client.ConsumerConfig // but for its Assignments
}

// Run reads the spans through clients, each of which takes its share of the
// partitions. An error of a partition ends it. Result.Latency is empty.
func (rp Replay) Run(ctx context.Context, w Watch, clients []*client.Client) (Result, error) {
	switch {
	case len(clients) == 0:
		return Result{}, errors.New("bench: a replay without clients")
	case rp.Passes < 1 || rp.WarmupPasses < 0:
		return Result{}, fmt.Errorf("bench: %d passes after %d of warm-up", rp.Passes, rp.WarmupPasses)
	case len(rp.Spans) == 0:
		return Result{}, errors.New("bench: nothing to read: the topic is empty")
	}
	r := &replaying{Replay: rp, clients: clients}
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
	clients  []*client.Client
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
	for i, cl := range r.clients {
		mine := deal(r.Spans, len(r.clients), i)
		group.Go(func() {
			if err := r.read(ctx, cl, mine); err != nil {
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
func (r *replaying) read(ctx context.Context, cl *client.Client, spans []Span) error {
	cfg := r.Consumer
	left := make(map[place]int64) // where to stop, of those not read to their end
	for _, s := range spans {
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: s.Topic, Partition: s.Partition, Offset: s.From})
		left[place{s.Topic, s.Partition}] = s.Until
	}
	if len(left) == 0 {
		return nil
	}
	co, err := cl.NewConsumer(cfg)
	if err != nil {
		return err
	}
	defer co.Close()
	for len(left) > 0 {
		got, err := co.Poll(ctx)
		if err != nil {
			return err
		}
		for i := range got {
			if err := r.count(co, &got[i], left); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts what came of a partition, up to its end, and takes the partition
// from left if that is reached.
func (r *replaying) count(co *client.Consumer, f *client.Fetched, left map[place]int64) error {
	if f.Err != nil {
		return f.Err
	}
	at := place{f.Topic, f.Partition}
	until, reading := left[at]
	if !reading {
		return nil // written since the start
	}
	var records, bytes int64
	for rec, err := range f.Records() {
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
	// The position, and not the last record: it may have been compacted away.
	position, err := co.Position(f.Topic, f.Partition)
	if err == nil && position >= until {
		delete(left, at)
	}
	return err
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
