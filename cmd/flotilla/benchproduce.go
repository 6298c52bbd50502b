package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
)

// benchProduceFlags are the settings of bench produce.
type benchProduceFlags struct {
	benchFlags
	recordFlags
	measure    measureFlags
	yard       yardstickFlags
	inFlight   int
	rate       float64
	producers  int
	linger     time.Duration
	batchBytes byteSize
}

// measureFlags say how long to measure.
type measureFlags struct {
	warmup, duration time.Duration
	records          int64
}

func (m *measureFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.DurationVar(&m.warmup, "warmup", 3*time.Second, "load before the measured time")
	fl.DurationVar(&m.duration, "duration", 10*time.Second, "measured time")
	fl.Int64Var(&m.records, "records", 0, "measure so many records instead of a duration")
}

// load returns how long the load lasts.
func (m *measureFlags) load(c *cobra.Command) (bench.Load, error) {
	l := bench.Load{Warmup: m.warmup, Duration: m.duration, Records: m.records}
	if c.Flags().Changed("records") {
		if c.Flags().Changed("duration") {
			return l, usagef("--duration and --records exclude each other")
		}
		l.Duration = 0
	}
	if l.Warmup < 0 || l.Duration < 0 || l.Records < 0 || l.Duration == 0 && l.Records == 0 {
		return l, usagef("--warmup %s, --duration %s, --records %d: give positive values", m.warmup, m.duration, m.records)
	}
	return l, nil
}

func benchProduceCommand(conn *connection) *cobra.Command {
	f := benchProduceFlags{batchBytes: client.DefaultBatchBytes}
	f.benchFlags.conn = conn
	c := &cobra.Command{
		Use:   "produce",
		Short: "Measure appending records",
		Long: `Append records for a while and measure it: as fast as the cluster takes them with
--in-flight records outstanding, or, with --rate, so many a second; then a
latency counts from when a record was due, however late it was sent.

Without --topic a topic is created, and deleted afterwards unless --keep is
given. A --topic that exists is used and left alone; it grows.`,
		Example: `  flotilla bench produce --server-pids $(pidof flotilla) --yardstick .
  flotilla bench produce --rate 10000 --duration 1m -o json
  flotilla bench produce --protocol kafka --bootstrap 127.0.0.1:19092 --key-distribution random`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVar(&f.topic, "topic", "", "topic to append to; created if missing; default: one of the run's own")
	f.recordFlags.add(c, 16, 1<<10)
	f.measure.add(c)
	fl.IntVar(&f.inFlight, "in-flight", 20_000, "records outstanding, over all producers")
	fl.Float64Var(&f.rate, "rate", 0, "records a second, over all producers, instead of --in-flight")
	fl.IntVar(&f.producers, "producers", 1, "producers, each with connections of its own")
	fl.DurationVar(&f.linger, "linger", client.DefaultLinger, "how long a record waits for others to share its batch")
	fl.Var(&f.batchBytes, "batch-bytes", "size of a batch that is full")
	f.yard.add(c, "4KiB", "64KiB", "1MiB")
	f.benchFlags.add(c)
	return c
}

func (f *benchProduceFlags) run(c *cobra.Command) error {
	load, err := f.measure.load(c)
	if err != nil {
		return err
	}
	if load.Shape, err = f.shape(); err != nil {
		return err
	}
	if f.rate < 0 || f.producers < 1 || f.linger < 0 || f.rate == 0 && f.inFlight < f.producers {
		return usagef("--rate %g, --producers %d, --in-flight %d, --linger %s: give positive values, and a record in flight for each producer",
			f.rate, f.producers, f.inFlight, f.linger)
	}
	if err := f.checkProtocol(); err != nil {
		return err
	}
	if f.rate > 0 && c.Flags().Changed("in-flight") {
		return usagef("--rate and --in-flight exclude each other")
	}
	load.Rate, load.InFlight, load.Seed = f.rate, f.inFlight, f.seed
	plan, err := f.yard.plan()
	if err != nil {
		return err
	}
	cfg, err := f.producer("", f.linger, f.benchFlags.conn.timeout)
	if err != nil {
		return err
	}
	cfg.BatchBytes = int(f.batchBytes)
	setup := f.setup(map[string]any{"producers": f.producers, "linger": f.linger.String(), "batch_bytes": int64(f.batchBytes)})
	if setup["loop"], setup["in_flight"] = "closed", f.inFlight; f.rate > 0 {
		setup["loop"], setup["rate"] = "open", f.rate
		delete(setup, "in_flight")
	}
	f.serverDisk = cmp.Or(f.serverDisk, f.yard.dir)
	b, err := f.start(c, "produce", setup)
	if err != nil {
		return err
	}
	if b.report.LatencyFrom = "sending"; f.rate > 0 {
		b.report.LatencyFrom = "due time"
	}
	var res bench.Result
	err = b.onTopic(&f.recordFlags, f.producers, cfg, func(ctx context.Context, t benchTopic, _ bench.Cluster, sinks []bench.Sink) (err error) {
		load.Partitions = t.partitions
		res, err = load.Run(ctx, b.watch(), sinks)
		if err != nil {
			return err
		}
		b.result(res, load.Warmup)
		return b.yardstick(ctx, f.yard.dir, plan)
	})
	if err != nil {
		return err
	}
	return b.finish(res)
}

// finish prints the report. Records that failed make the command fail.
func (b *benching) finish(res bench.Result) error {
	if err := b.print(); err != nil {
		return err
	}
	if res.Failed > 0 {
		return fmt.Errorf("%d records failed, the first one with: %w", res.Failed, b.explain(res.FirstErr))
	}
	return nil
}
