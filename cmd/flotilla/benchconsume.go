package main

import (
	"context"
	"fmt"
	"slices"

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
page cache. Records are decoded and their checksums checked, as in any consumer.

With --protocol kafka, --fetch-bytes and --partition-bytes are franz-go's own
unless they are given, and --prefetch-bytes does not exist.`,
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
	if err := f.checkProtocol(); err != nil {
		return err
	}
	cfg := bench.SourceConfig{FetchBytes: int(f.fetchBytes), PartitionBytes: int(f.partitionBytes), PrefetchBytes: int(f.held)}
	setup := map[string]any{"topic": f.topic, "consumers": f.consumers, "passes": f.passes, "warmup_passes": f.warmupPasses}
	if f.protocol == protocolKafka {
		if c.Flags().Changed("prefetch-bytes") {
			return usagef("--prefetch-bytes: is of --protocol native; in Kafka's protocol the client holds an answer of each server")
		}
		cfg.PrefetchBytes = 0
		if !c.Flags().Changed("fetch-bytes") {
			cfg.FetchBytes = 0
		}
		if !c.Flags().Changed("partition-bytes") {
			cfg.PartitionBytes = 0
		}
	}
	for name, bytes := range map[string]int{
		"fetch_bytes": cfg.FetchBytes, "partition_bytes": cfg.PartitionBytes, "prefetch_bytes": cfg.PrefetchBytes,
	} {
		if bytes > 0 { // else it is the client's own
			setup[name] = int64(bytes)
		}
	}
	b, err := f.start(c, "consume", setup)
	if err != nil {
		return err
	}
	return b.withCluster(func(ctx context.Context, cluster bench.Cluster) error { return b.replay(ctx, cluster, f, cfg) })
}

// replay reads the topic and reports it.
func (b *benching) replay(ctx context.Context, cluster bench.Cluster, f *benchConsumeFlags, cfg bench.SourceConfig) error {
	spans, err := cluster.Spans(ctx, f.topic)
	if err != nil {
		return noTopic(f.topic, err)
	}
	if !slices.ContainsFunc(spans, func(s bench.Span) bool { return s.From < s.Until }) {
		return fmt.Errorf("topic %s is empty; %q fills it", f.topic, "flotilla bench produce --topic "+f.topic)
	}
	b.report.Setup["partitions"] = len(spans)
	var sources []bench.Source
	for range f.consumers {
		source, err := cluster.NewSource(cfg)
		if err != nil {
			return usageError{err}
		}
		defer source.Close()
		sources = append(sources, source)
	}
	res, err := bench.Replay{
		Spans: spans, Passes: f.passes, WarmupPasses: f.warmupPasses, Patience: f.conn.timeout,
	}.Run(ctx, b.watch(), sources)
	if err != nil {
		return err
	}
	b.result(res, 0)
	return b.finish(res)
}
