package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
)

// benchConsumeFlags are the settings of bench consume.
type benchConsumeFlags struct {
	benchFlags
	consumers, passes, warmupPasses  int
	fetchBytes, partitionBytes, held byteSize
}

func benchConsumeCommand(conn *connection) *cobra.Command {
	f := benchConsumeFlags{
		fetchBytes: client.DefaultMaxFetchBytes, partitionBytes: client.DefaultMaxPartitionBytes, held: client.DefaultMaxPrefetchedBytes,
	}
	f.conn = conn
	c := &cobra.Command{
		Use:   "consume",
		Short: "Measure reading a topic from its beginning",
		Long: `Read what a topic holds, from the beginning of each partition, as fast as it
comes, and measure it. The first pass is a warm-up: it brings the files into the
page cache. Records are decoded and their checksums checked, as in any consumer.`,
		Example: `  flotilla bench produce --topic t --keep
  flotilla bench consume --topic t --passes 3 --server-pids $(pidof flotilla)`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fl := c.Flags()
	fl.StringVar(&f.topic, "topic", "", "topic to read; needed")
	fl.IntVar(&f.consumers, "consumers", 1, "consumers, each with connections of its own and its share of the partitions")
	fl.IntVar(&f.passes, "passes", 1, "how often to read everything")
	fl.IntVar(&f.warmupPasses, "warmup-passes", 1, "how often to read everything before that")
	fl.Var(&f.fetchBytes, "fetch-bytes", "most that an answer holds")
	fl.Var(&f.partitionBytes, "partition-bytes", "most that it holds of one partition")
	fl.Var(&f.held, "prefetch-bytes", "most that a consumer holds")
	f.add(c)
	return c
}

func (f *benchConsumeFlags) run(c *cobra.Command) error {
	switch {
	case f.topic == "":
		return usagef("--topic is needed; %q makes one", "flotilla bench produce --topic NAME --keep")
	case f.consumers < 1 || f.passes < 1 || f.warmupPasses < 0:
		return usagef("--consumers %d, --passes %d, --warmup-passes %d: give positive numbers", f.consumers, f.passes, f.warmupPasses)
	}
	b, err := f.start(c, "consume", map[string]any{
		"topic": f.topic, "consumers": f.consumers, "passes": f.passes, "warmup_passes": f.warmupPasses,
		"fetch_bytes": int64(f.fetchBytes), "partition_bytes": int64(f.partitionBytes), "prefetch_bytes": int64(f.held),
	})
	if err != nil {
		return err
	}
	return f.conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
		_, topics, err := cl.Admin().Metadata(ctx, f.topic)
		if err != nil {
			return err
		}
		if err := topics[0].Err; err != nil {
			return noTopic(f.topic, err)
		}
		spans, err := bench.Spans(ctx, cl.Admin(), f.topic)
		if err != nil {
			return err
		}
		if len(spans) == 0 {
			return fmt.Errorf("topic %s is empty; %q fills it", f.topic, "flotilla bench produce --topic "+f.topic)
		}
		b.report.Setup["partitions"] = len(topics[0].Leaders)
		clients, closeAll, err := f.conn.clients(f.consumers)
		if err != nil {
			return err
		}
		defer closeAll()
		res, err := bench.Replay{
			Spans: spans, Passes: f.passes, WarmupPasses: f.warmupPasses,
			Consumer: client.ConsumerConfig{
				MaxFetchBytes: int(f.fetchBytes), MaxPartitionBytes: int(f.partitionBytes), MaxPrefetchedBytes: int(f.held),
			},
		}.Run(ctx, b.watch(), clients)
		if err != nil {
			return err
		}
		b.result(res, 0)
		return b.finish(res)
	})
}
