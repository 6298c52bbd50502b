package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

func featuresCommand(conn *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "features",
		Short: "Show and raise the feature level, after an upgrade",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(featuresDescribeCommand(conn), featuresUpgradeCommand(conn))
	return c
}

// featuresDescription is what features describe prints as JSON.
type featuresDescription struct {
	Level  uint32          `json:"feature_level"`
	Nodes  []nodeFeatures  `json:"nodes"`
	Shards []shardFeatures `json:"shards"`
}

type nodeFeatures struct {
	Node     int32   `json:"node"`
	MaxLevel *uint32 `json:"max_feature_level"` // null: it has not said
}

type shardFeatures struct {
	Shard        uint32 `json:"shard"`
	ApplyVersion uint32 `json:"apply_version"`
}

func featuresDescribeCommand(conn *connection) *cobra.Command {
	var out outputFormat
	c := &cobra.Command{
		Use:   "describe",
		Short: "Show the feature level of the cluster, and what its nodes know",
		Long: `Show the feature level that the cluster has finalised, the newest one that each
node knows, and the apply version of each shard, which follows the level.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				f, err := cl.Admin().DescribeFeatures(ctx)
				if err != nil {
					return err
				}
				if newest := f.NewestLevel(); newest > f.Level {
					fmt.Fprintf(c.ErrOrStderr(), "every node knows level %d; once you will not go back to the version before: flotilla features upgrade\n", newest)
				}
				if out == outputJSON {
					return printJSON(c.OutOrStdout(), describeFeatures(f))
				}
				return printFeatures(c.OutOrStdout(), f)
			})
		},
	}
	out.add(c)
	return c
}

func describeFeatures(f client.Features) featuresDescription {
	out := featuresDescription{Level: f.Level, Nodes: []nodeFeatures{}, Shards: []shardFeatures{}}
	for _, n := range f.Nodes {
		one := nodeFeatures{Node: n.NodeID}
		if n.MaxLevel > 0 {
			one.MaxLevel = &n.MaxLevel
		}
		out.Nodes = append(out.Nodes, one)
	}
	for _, s := range f.Shards {
		out.Shards = append(out.Shards, shardFeatures{s.Shard, s.ApplyVersion})
	}
	return out
}

func printFeatures(w io.Writer, f client.Features) error {
	fmt.Fprintf(w, "feature level %d\n", f.Level)
	tw := newTable(w)
	fmt.Fprintln(tw, "\nNODE\tKNOWS UP TO LEVEL")
	for _, n := range f.Nodes {
		knows := "-"
		if n.MaxLevel > 0 {
			knows = strconv.FormatUint(uint64(n.MaxLevel), 10)
		}
		fmt.Fprintf(tw, "%d\t%s\n", n.NodeID, knows)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	tw = newTable(w)
	fmt.Fprintln(tw, "\nSHARD\tAPPLY VERSION")
	for _, s := range f.Shards {
		fmt.Fprintf(tw, "%d\t%d\n", s.Shard, s.ApplyVersion)
	}
	return tw.Flush()
}

// upgradeFlags are the settings of features upgrade.
type upgradeFlags struct {
	level  uint32
	dryRun bool
	out    outputFormat
}

func featuresUpgradeCommand(conn *connection) *cobra.Command {
	var f upgradeFlags
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Raise the feature level of the cluster, for good",
		Long: `Raise the feature level of the cluster, by default to the newest one that every
node knows. There is no way back: a version that does not know the level refuses
the data from then on. An upgraded node serves as well at the level that it
finds, so there is no haste.`,
		Example: `  flotilla features upgrade --dry-run
  flotilla features upgrade --level 3`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("level") && f.level == 0 {
				return usagef("--level is at least 1")
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				return f.upgrade(ctx, cl.Admin(), c.OutOrStdout())
			})
		},
	}
	fl := c.Flags()
	fl.Uint32Var(&f.level, "level", 0, "level to raise it to; default: the newest that every node knows")
	fl.BoolVar(&f.dryRun, "dry-run", false, "check everything, change nothing")
	f.out.add(c)
	return c
}

func (f *upgradeFlags) upgrade(ctx context.Context, admin *client.Admin, w io.Writer) error {
	before, after, err := admin.UpgradeFeatures(ctx, f.level, f.dryRun)
	if err != nil {
		return err
	}
	if f.out == outputJSON {
		return printJSON(w, struct {
			Before  uint32 `json:"before"`
			Level   uint32 `json:"feature_level"`
			Changed bool   `json:"changed"`
		}{before, after, before != after && !f.dryRun})
	}
	switch {
	case before == after:
		_, err = fmt.Fprintf(w, "the feature level is %d already\n", before)
	case f.dryRun:
		_, err = fmt.Fprintf(w, "the feature level could be raised from %d to %d; nothing was changed\n", before, after)
	default:
		_, err = fmt.Fprintf(w, "raised the feature level from %d to %d\n", before, after)
	}
	return err
}
