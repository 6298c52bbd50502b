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
	Configs    map[string]string      `json:"configs"`         // those set on the topic
	Defaults   map[string]string      `json:"default_configs"` // the others
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
	UnlinkBytes    *int64 `json:"unlink_bytes"`
}

// known returns nil for the client's -1.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func describe(d client.TopicDescription) topicDescription {
	out := topicDescription{Topic: d.Name, ID: d.ID.String(), Configs: d.Configs, Defaults: make(map[string]string)}
	for _, c := range d.AllConfigs {
		if c.Default {
			out.Defaults[c.Name] = c.Value
		}
	}
	for _, p := range d.Partitions {
		out.Partitions = append(out.Partitions, partitionDescription{
			Partition: p.Partition, Leader: known(int64(p.Leader)), LeaderEpoch: known(int64(p.LeaderEpoch)), Shard: p.Shard,
			LogStartOffset: known(p.LogStartOffset), HighWatermark: known(p.HighWatermark), SizeBytes: known(p.SizeBytes),
			UnlinkBytes: known(p.UnlinkBytes),
		})
	}
	return out
}

func topicDescribeCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:               "describe NAME",
		ValidArgsFunction: conn.topicNames(1, cobra.ShellCompDirectiveNoFileComp),
		Short:             "Show a topic's configs and partitions",
		Long: `Show a topic's configs and its partitions. The size is that of the files; records
that are only in memory and in the journal so far are not in it. Of it, the
files in the last column hold only records that are deleted, and go soon.`,
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
	for _, k := range slices.Sorted(maps.Keys(d.Defaults)) {
		fmt.Fprintf(w, "default %s=%s\n", k, d.Defaults[k])
	}
	tw := newTable(w)
	fmt.Fprintln(tw, "\nPARTITION\tLEADER\tEPOCH\tSHARD\tLOG START\tHIGH WATERMARK\tSIZE\tTO UNLINK")
	for _, p := range d.Partitions {
		fmt.Fprintf(tw, "%d\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Partition,
			orDash(p.Leader), orDash(p.LeaderEpoch), p.Shard, orDash(p.LogStartOffset), orDash(p.HighWatermark),
			sizeOrDash(p.SizeBytes), sizeOrDash(p.UnlinkBytes))
	}
	return tw.Flush()
}

func sizeOrDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return formatBytes(*n)
}

func orDash(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}
