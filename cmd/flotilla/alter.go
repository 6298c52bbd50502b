package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// parseConfigs parses NAME=VALUE, each name once.
func parseConfigs(settings []string) (map[string]string, error) {
	configs := make(map[string]string)
	for _, kv := range settings {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef("--config %q: give NAME=VALUE", kv)
		}
		if _, twice := configs[k]; twice {
			return nil, usagef("--config %s is given twice", k)
		}
		configs[k] = v
	}
	return configs, nil
}

func topicAlterCommand(conn *connection) *cobra.Command {
	var (
		set          []string
		change       client.TopicChange
		out          outputFormat
		validateOnly = &change.ValidateOnly
	)
	c := &cobra.Command{
		Use:   "alter NAME",
		Short: "Change a topic's configs",
		Long: `Change some of a topic's configs, all of them or none; others stay. The names
and values are Kafka's. A shorter retention takes effect at once: the records
that are too old by it are deleted within moments.`,
		Example: `  flotilla topic alter orders --config retention.ms=86400000
  flotilla topic alter orders --delete-config retention.ms --validate-only`,
		Args: oneTopic,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if change.Set, err = parseConfigs(set); err != nil {
				return err
			}
			if len(change.Set)+len(change.Delete) == 0 {
				return usagef("give --config NAME=VALUE or --delete-config NAME")
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				if _, err := lookUp(ctx, cl.Admin(), args[0]); err != nil {
					return err
				}
				configs, err := cl.Admin().AlterTopic(ctx, args[0], change)
				if err != nil {
					return err
				}
				return printAltered(c.OutOrStdout(), args[0], configs, *validateOnly, out)
			})
		},
	}
	fl := c.Flags()
	fl.StringArrayVarP(&set, "config", "c", nil, "NAME=VALUE, may be repeated")
	fl.StringArrayVar(&change.Delete, "delete-config", nil, "NAME of a config that falls back to its default, may be repeated")
	fl.BoolVar(validateOnly, "validate-only", false, "check everything, change nothing")
	out.add(c)
	return c
}

func printAltered(w io.Writer, topic string, configs []client.TopicConfig, validateOnly bool, out outputFormat) error {
	set := make(map[string]string)
	for _, c := range configs {
		if !c.Default {
			set[c.Name] = c.Value
		}
	}
	if out == outputJSON {
		return printJSON(w, struct {
			Topic   string            `json:"topic"`
			Altered bool              `json:"altered"`
			Configs map[string]string `json:"configs"` // those set on the topic, then
		}{topic, !validateOnly, set})
	}
	text := "altered topic %s\n"
	if validateOnly {
		text = "topic %s could be altered\n"
	}
	fmt.Fprintf(w, text, topic)
	var err error
	for _, k := range slices.Sorted(maps.Keys(set)) {
		_, err = fmt.Fprintf(w, "config  %s=%s\n", k, set[k])
	}
	return err
}

func topicAddPartitionsCommand(conn *connection) *cobra.Command {
	var (
		to           int32
		validateOnly bool
	)
	c := &cobra.Command{
		Use:   "add-partitions NAME --to N",
		Short: "Give a topic more partitions",
		Long: `Give a topic more partitions, N in all. They cannot be taken away again.

Records that are there stay where they are, and records of a key may go to
another partition from now on than before: the order of a key's records is not
kept across the two.`,
		Example: `  flotilla topic add-partitions orders --to 6`,
		Args:    oneTopic,
		RunE: func(c *cobra.Command, args []string) error {
			if to < 1 {
				return usagef("give --to N, the number of partitions that the topic is to have")
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				if _, err := lookUp(ctx, cl.Admin(), args[0]); err != nil {
					return err
				}
				if err := cl.Admin().AddPartitions(ctx, args[0], to, validateOnly); err != nil {
					return err
				}
				text := "topic %s has %d partitions\n"
				if validateOnly {
					text = "topic %s could have %d partitions\n"
				}
				_, err := fmt.Fprintf(c.OutOrStdout(), text, args[0], to)
				return err
			})
		},
	}
	c.Flags().Int32Var(&to, "to", 0, "number of partitions afterwards")
	c.Flags().BoolVar(&validateOnly, "validate-only", false, "check everything, change nothing")
	return c
}

// trimFlags are the settings of topic trim.
type trimFlags struct {
	partitions   []int32
	beforeOffset string
	beforeTime   string
	yes          bool
}

// trimLine is what trim does to one partition.
type trimLine struct {
	partition         int32
	start, before, hw int64
}

func topicTrimCommand(conn *connection) *cobra.Command {
	var f trimFlags
	c := &cobra.Command{
		Use:   "trim NAME --partition P --before-offset N|--before-time T",
		Short: "Delete a topic's oldest records",
		Long: `Delete the records of partitions below an offset, or before a time. Without
--yes nothing is deleted: what would be is printed. It cannot be undone.

--before-offset is the first offset to keep, or "end" for the high watermark, and
needs --partition. --before-time is a time such as 2026-01-31T12:00:00Z, or a
duration such as 36h, which means so long ago; the first record to keep is the
first one, in the order of offsets, that is not older. Without --partition it
goes for all.`,
		Example: `  flotilla topic trim orders --before-time 720h
  flotilla topic trim orders --partition 2 --before-offset 1500 --yes`,
		Args: oneTopic,
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return f.run(ctx, cl.Admin(), args[0], c.OutOrStdout())
			})
		},
	}
	fl := c.Flags()
	fl.Int32SliceVarP(&f.partitions, "partition", "p", nil, "partitions, such as 0,3; default with --before-time: all")
	fl.StringVar(&f.beforeOffset, "before-offset", "", "first offset to keep, or end")
	fl.StringVar(&f.beforeTime, "before-time", "", "keep records of this time and later; or a duration: so long ago")
	fl.BoolVarP(&f.yes, "yes", "y", false, "do it")
	return c
}

func (f *trimFlags) check() error {
	switch {
	case (f.beforeOffset == "") == (f.beforeTime == ""):
		return usagef("give one of --before-offset and --before-time")
	case f.beforeOffset != "" && len(f.partitions) == 0:
		return usagef("--before-offset needs --partition: offsets of different partitions have nothing to do with each other")
	}
	if f.beforeOffset != "" && f.beforeOffset != "end" {
		if n, err := strconv.ParseInt(f.beforeOffset, 10, 64); err != nil || n < 0 {
			return usagef("--before-offset %q: give an offset, or end", f.beforeOffset)
		}
	}
	if f.beforeTime != "" {
		_, err := parseTime(f.beforeTime, time.Time{})
		return err
	}
	return nil
}

// parseTime parses a time, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, usagef("--before-time %q: give a time such as 2026-01-31T12:00:00Z, or a duration such as 36h", s)
	}
	return t, nil
}

func (f *trimFlags) run(ctx context.Context, admin *client.Admin, topic string, w io.Writer) error {
	if _, err := lookUp(ctx, admin, topic); err != nil {
		return err
	}
	plan, err := f.plan(ctx, admin, topic)
	if err != nil {
		return err
	}
	before := make(map[int32]int64)
	records := int64(0)
	tw := newTable(w)
	fmt.Fprintln(tw, "PARTITION\tLOG START\tFIRST KEPT\tHIGH WATERMARK\tRECORDS TO DELETE")
	for _, l := range plan {
		n := max(l.before-l.start, 0)
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%d\n", l.partition, l.start, l.start+n, l.hw, n)
		if n > 0 {
			before[l.partition] = l.before
			records += n
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	switch {
	case records == 0:
		_, err = fmt.Fprintln(w, "nothing to delete")
		return err
	case !f.yes:
		_, err = fmt.Fprintln(w, "nothing was deleted; give --yes to do it")
		return err
	}
	if _, err := admin.DeleteRecords(ctx, topic, before); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "deleted %d records\n", records)
	return err
}

// plan finds the first offset to keep of each partition.
func (f *trimFlags) plan(ctx context.Context, admin *client.Admin, topic string) ([]trimLine, error) {
	starts, err := admin.Offsets(ctx, topic, client.Earliest)
	if err != nil {
		return nil, err
	}
	// Before the look-up by time: what is appended meanwhile is kept.
	ends, err := admin.Offsets(ctx, topic, client.Latest)
	if err != nil {
		return nil, err
	}
	keep := slices.Clone(ends)
	switch {
	case f.beforeTime != "":
		t, err := parseTime(f.beforeTime, time.Now())
		if err != nil {
			return nil, err
		}
		found, err := admin.OffsetsForTime(ctx, topic, t)
		if err != nil {
			return nil, err
		}
		for i := range keep {
			if i < len(found) && found[i].Offset >= 0 {
				keep[i] = min(keep[i], found[i].Offset)
			}
		}
	case f.beforeOffset != "end":
		n, _ := strconv.ParseInt(f.beforeOffset, 10, 64) // checked
		for i := range keep {
			keep[i] = n
		}
	}
	partitions := slices.Clone(f.partitions)
	if len(partitions) == 0 {
		for p := range starts {
			partitions = append(partitions, int32(p))
		}
	}
	slices.Sort(partitions)
	var plan []trimLine
	for _, p := range slices.Compact(partitions) {
		if p < 0 || int(p) >= min(len(starts), len(ends)) {
			return nil, fmt.Errorf("topic %s has partitions 0 to %d, not %d; nothing was deleted", topic, len(starts)-1, p)
		}
		if keep[p] > ends[p] {
			return nil, fmt.Errorf("partition %d ends at offset %d, before %d; nothing was deleted (--before-offset end deletes all that there is)",
				p, ends[p], keep[p])
		}
		plan = append(plan, trimLine{partition: p, start: starts[p], before: keep[p], hw: ends[p]})
	}
	return plan, nil
}
