package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// topicDescription is what topic describe prints as JSON. What is not known is
// null.
type topicDescription struct {
	Topic      string                 `json:"topic"`
	ID         string                 `json:"topic_id"`
	Configs    map[string]string      `json:"configs"` // those set on the topic
	Partitions []partitionDescription `json:"partitions"`
}

type partitionDescription struct {
	Partition      int32  `json:"partition"`
	Leader         *int64 `json:"leader"` // node id; null: none now
	LeaderEpoch    *int64 `json:"leader_epoch"`
	Shard          uint32 `json:"shard"`
	LogStartOffset *int64 `json:"log_start_offset"`
	HighWatermark  *int64 `json:"high_watermark"`
	SizeBytes      *int64 `json:"size_bytes"`
}

// known returns nil for the client's -1.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func describe(d client.TopicDescription) topicDescription {
	out := topicDescription{Topic: d.Name, ID: d.ID.String(), Configs: d.Configs}
	for _, p := range d.Partitions {
		out.Partitions = append(out.Partitions, partitionDescription{
			Partition: p.Partition, Leader: known(int64(p.Leader)), LeaderEpoch: known(int64(p.LeaderEpoch)), Shard: p.Shard,
			LogStartOffset: known(p.LogStartOffset), HighWatermark: known(p.HighWatermark), SizeBytes: known(p.SizeBytes),
		})
	}
	return out
}

func topicDescribeCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:   "describe NAME",
		Short: "Show a topic's configs and partitions",
		Long: `Show a topic's configs, as far as they are set, and its partitions. The size is
that of the files; records that are only in memory and in the journal so far are
not in it.`,
		Args: oneTopic,
		RunE: func(c *cobra.Command, args []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				d, err := lookUp(ctx, cl.Admin(), args[0])
				if err != nil {
					return err
				}
				if out == outputJSON {
					return printJSON(c.OutOrStdout(), describe(d))
				}
				return printDescription(c.OutOrStdout(), describe(d))
			})
		},
	}
	out.add(c)
	return c
}

func printDescription(w io.Writer, d topicDescription) error {
	fmt.Fprintf(w, "topic   %s\nid      %s\n", d.Topic, d.ID)
	for _, k := range slices.Sorted(maps.Keys(d.Configs)) {
		fmt.Fprintf(w, "config  %s=%s\n", k, d.Configs[k])
	}
	tw := newTable(w)
	fmt.Fprintln(tw, "\nPARTITION\tLEADER\tEPOCH\tSHARD\tLOG START\tHIGH WATERMARK\tSIZE")
	for _, p := range d.Partitions {
		size := "-"
		if p.SizeBytes != nil {
			size = formatBytes(*p.SizeBytes)
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", p.Partition,
			orDash(p.Leader), orDash(p.LeaderEpoch), p.Shard, orDash(p.LogStartOffset), orDash(p.HighWatermark), size)
	}
	return tw.Flush()
}

func orDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}
