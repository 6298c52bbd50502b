package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/bench"
)

// benchLatencyFlags are the settings of bench latency.
type benchLatencyFlags struct {
	benchFlags
	recordFlags
	measure  measureFlags
	yard     yardstickFlags
	endToEnd bool
	rate     float64
	linger   time.Duration
}

func benchLatencyCommand(conn *connection) *cobra.Command {
	var f benchLatencyFlags
	f.benchFlags.conn = conn
	c := &cobra.Command{
		Use:   "latency",
		Short: "Measure how long one record takes",
		Long: `Append one record after the other, each sent when the one before is acknowledged,
and measure how long each takes. With --rate so many are sent a second, and
latencies count from when each was due. With --end-to-end a consumer waits for
the records, and it is measured too how long they take to arrive there.

Nothing lingers unless --linger is given: a record is sent at once.`,
		Example: `  flotilla bench latency --yardstick .
  flotilla bench latency --end-to-end --rate 10000`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVar(&f.topic, "topic", "", "topic to append to; created if missing; default: one of the run's own")
	f.recordFlags.add(c, 1, 1<<10)
	f.measure.add(c)
	fl.BoolVar(&f.endToEnd, "end-to-end", false, "consume the records too")
	fl.Float64Var(&f.rate, "rate", 0, "records a second, instead of one after the other")
	fl.DurationVar(&f.linger, "linger", 0, "how long a record waits for others to share its batch")
	f.yard.add(c, "4KiB")
	f.benchFlags.add(c)
	return c
}

func (f *benchLatencyFlags) run(c *cobra.Command) error {
	load, err := f.measure.load(c)
	if err != nil {
		return err
	}
	if load.Shape, err = f.shape(); err != nil {
		return err
	}
	if f.rate < 0 || f.linger < 0 {
		return usagef("--rate %g, --linger %s: give positive values, or none", f.rate, f.linger)
	}
	if err := f.checkProtocol(); err != nil {
		return err
	}
	load.Rate, load.InFlight, load.Seed = f.rate, 1, f.seed
	if f.endToEnd {
		load.Mark = rand.Uint64() | 1
		if err := load.Check(1); err != nil {
			return usageError{err}
		}
	}
	plan, err := f.yard.plan()
	if err != nil {
		return err
	}
	cfg, err := f.producer("", f.linger, f.benchFlags.conn.timeout)
	if err != nil {
		return err
	}
	setup := f.setup(map[string]any{"end_to_end": f.endToEnd, "in_flight": 1, "loop": "closed", "linger": f.linger.String()})
	if f.rate > 0 {
		setup["loop"], setup["rate"] = "open", f.rate
		delete(setup, "in_flight")
	}
	f.serverDisk = cmp.Or(f.serverDisk, f.yard.dir)
	b, err := f.start(c, "latency", setup)
	if err != nil {
		return err
	}
	if b.report.LatencyFrom = "sending"; f.rate > 0 {
		b.report.LatencyFrom = "due time"
	}
	var got bench.Delivered
	err = b.onTopic(&f.recordFlags, 1, cfg, func(ctx context.Context, t benchTopic, cluster bench.Cluster, sinks []bench.Sink) (err error) {
		load.Partitions = t.partitions
		if f.endToEnd {
			source, err := cluster.NewSource(bench.SourceConfig{})
			if err != nil {
				return err
			}
			defer source.Close()
			d := bench.Delivery{Load: load, Topic: t.name, Patience: f.benchFlags.conn.timeout}
			if got, err = d.Run(ctx, b.watch(), cluster, source, sinks); err != nil {
				return err
			}
		} else if got.Result, err = load.Run(ctx, b.watch(), sinks); err != nil {
			return err
		}
		b.result(got.Result, load.Warmup)
		b.report.SetEndToEnd(got)
		return b.yardstick(ctx, f.yard.dir, plan)
	})
	if err != nil {
		return err
	}
	if err := b.finish(got.Result); err != nil {
		return err
	}
	if got.Missing > 0 || got.Twice > 0 {
		return fmt.Errorf("%d acknowledged records did not arrive within %s, %d arrived twice", got.Missing, f.benchFlags.conn.timeout, got.Twice)
	}
	return nil
}
