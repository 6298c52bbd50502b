package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/client"
)

func clusterCommand(conn *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Look at nodes and shards, and move leaderships",
		Long: `Look at nodes and shards, and move leaderships. A shard is a Raft group that
carries partitions; shard 0 carries the metadata, and its leader is the
controller. A node alone is a cluster of one.

The node that answers asks the others, for at most --wait: it tells what those
said that answered it in time, and names those that did not.`,
		Args: noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(clusterStatusCommand(conn), clusterNodesCommand(conn), clusterShardsCommand(conn), clusterTransferCommand(conn))
	return c
}

// clusterView is what the commands that look at the cluster have in common.
type clusterView struct {
	conn *connection
	wait time.Duration
	out  outputFormat
}

func (v *clusterView) add(c *cobra.Command) {
	v.addTo(c.Flags())
	v.out.add(c)
}

func (v *clusterView) addTo(fs *pflag.FlagSet) {
	fs.DurationVar(&v.wait, "wait", time.Second, "how long the other nodes may take to answer, 1ms to 10s")
}

// look asks for the cluster, and hands it to show.
func (v *clusterView) look(c *cobra.Command, show func(client.ClusterDescription) error) error {
	if v.wait < time.Millisecond || v.wait > 10*time.Second {
		return usagef("--wait %s: give 1ms to 10s", v.wait)
	}
	return v.conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
		d, err := cl.Admin().DescribeCluster(ctx, v.wait)
		if err != nil {
			return err
		}
		return show(d)
	})
}

// number returns the one argument of a command, a number.
func number(c *cobra.Command, args []string, what string) (uint32, error) {
	if len(args) != 1 {
		return 0, usagef("%s takes %s, not %d arguments; see %q", c.CommandPath(), what, len(args), c.CommandPath()+" --help")
	}
	n, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return 0, usagef("%q is not %s: %q lists them", args[0], what, "flotilla cluster shards")
	}
	return uint32(n), nil
}

func clusterTransferCommand(conn *connection) *cobra.Command {
	var (
		out outputFormat
		to  int64
	)
	c := &cobra.Command{
		Use:   "transfer SHARD [--to NODE]",
		Short: "Hand the leadership of a shard over to another node",
		Long: `Hand the leadership of a shard, 0 being that of the metadata, over to the node of
--to, or to the one that has most of its log, and print who leads then. Clients
notice a pause of some milliseconds.

A node that does not answer, has no replica of the shard, or lacks too much of
its log is refused, and the leader stays.`,
		Example: `  flotilla cluster transfer 3 --to 2
  flotilla cluster transfer 0`,
		Args: func(c *cobra.Command, args []string) error {
			_, err := number(c, args, "the number of a shard")
			return err
		},
		RunE: func(c *cobra.Command, args []string) error {
			shard, err := number(c, args, "the number of a shard")
			if err != nil {
				return err
			}
			target := client.AnyNode
			if c.Flags().Changed("to") {
				if to < 0 || to > math.MaxInt32 {
					return usagef("--to %d: give the id of a node", to)
				}
				target = int32(to)
			}
			return conn.with(c.Context(), c.ErrOrStderr(), func(ctx context.Context, cl *client.Client) error {
				leader, err := cl.Admin().TransferShard(ctx, shard, target)
				if err != nil {
					return err
				}
				if target != client.AnyNode && leader != target {
					return fmt.Errorf("shard %d is led by node %d, not by node %d: it gained more votes; try again", shard, leader, target)
				}
				if out == outputJSON {
					return printJSON(c.OutOrStdout(), struct {
						Shard  uint32 `json:"shard"`
						Leader int32  `json:"leader"`
					}{shard, leader})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "shard %d is led by node %d\n", shard, leader)
				return err
			})
		},
	}
	c.Flags().Int64Var(&to, "to", 0, "id of the node; by default the one that has most of the log")
	out.add(c)
	return c
}
