package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// nodeLine is one node of cluster nodes. What only a node that answers could
// say is null if it does not.
type nodeLine struct {
	ID          int32   `json:"node"`
	Address     string  `json:"address"`
	Rack        string  `json:"rack"`
	Incarnation string  `json:"incarnation"` // of its directory, in hex
	Up          bool    `json:"up"`          // it answered the node that was asked
	Asked       int32   `json:"asked_node"`
	Error       string  `json:"error,omitempty"` // why not
	Version     *string `json:"version"`
	UptimeMS    *int64  `json:"uptime_ms"`
	Leads       int     `json:"leads"` // shards
	Replicas    *int    `json:"replicas"`
	Damaged     *int    `json:"damaged_ranges"`         // of its replicas' partitions
	Quarantined *int    `json:"quarantined_partitions"` // of its replicas
	Trouble     string  `json:"trouble,omitempty"`
}

func clusterNodesCommand(conn *connection) *cobra.Command {
	v := clusterView{conn: conn}
	c := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes: addresses, racks, which are up, what they lead",
		Long: `List the nodes. One is up if it answered the node that was asked, within --wait.
DAMAGED counts the ranges of its partitions that are damaged and not repaired
yet, QUARANTINED its partitions in quarantine. The incarnation is that of its
data directory: another one under the same id is another directory. With -o json
each node is one line.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return v.look(c, func(d client.ClusterDescription) error { return printNodes(c.OutOrStdout(), d, v.out) })
		},
	}
	v.add(c)
	return c
}

func nodeLineOf(n *client.NodeDescription, d *client.ClusterDescription) nodeLine {
	line := nodeLine{
		ID: n.ID, Address: n.Address, Rack: n.Rack, Incarnation: fmt.Sprintf("%016x", n.Incarnation),
		Up: n.Err == nil, Asked: d.Asked, Leads: n.Leads, Trouble: n.Trouble,
	}
	if n.Err != nil {
		line.Error = n.Err.Error()
		return line
	}
	uptime := n.Uptime.Milliseconds()
	line.Version, line.UptimeMS, line.Replicas = &n.Version, &uptime, &n.Replicas
	line.Damaged, line.Quarantined = new(int), new(int)
	for _, s := range d.Shards {
		for _, r := range s.Replicas {
			if r.Node == n.ID {
				*line.Damaged += r.Damaged
				*line.Quarantined += r.Quarantined
			}
		}
	}
	return line
}

func printNodes(w io.Writer, d client.ClusterDescription, out outputFormat) error {
	tw := newTable(w)
	fmt.Fprintln(tw, "NODE\tADDRESS\tRACK\tSTATE\tLEADS\tREPLICAS\tDAMAGED\tQUARANTINED\tUP FOR\tVERSION\tINCARNATION")
	for i := range d.Nodes {
		n := &d.Nodes[i]
		line := nodeLineOf(n, &d)
		if out == outputJSON {
			if err := printJSON(w, line); err != nil {
				return err
			}
			continue
		}
		state, replicas, damaged, quarantined, up, version := "down", "-", "-", "-", "-", "-"
		if line.Up {
			state, replicas, up, version = "up", strconv.Itoa(n.Replicas), n.Uptime.Round(time.Second).String(), cmp.Or(n.Version, "-")
			damaged, quarantined = strconv.Itoa(*line.Damaged), strconv.Itoa(*line.Quarantined)
		}
		if n.Trouble != "" {
			state = "trouble"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", n.ID, cmp.Or(n.Address, "-"), cmp.Or(n.Rack, "-"),
			state, n.Leads, replicas, damaged, quarantined, up, version, line.Incarnation)
	}
	if out == outputJSON {
		return nil
	}
	return tw.Flush()
}

// shardLine is one shard of cluster shards. What is not known is null.
type shardLine struct {
	ID         uint32        `json:"shard"`
	Leader     *int64        `json:"leader"` // node id; null: none
	Term       uint64        `json:"term"`
	LastIndex  *int64        `json:"last_index"`
	Partitions int           `json:"partitions"`
	InSync     []int32       `json:"in_sync"` // node ids
	Replicas   []replicaLine `json:"replicas"`
}

type replicaLine struct {
	Node         int32  `json:"node"`
	Incarnation  string `json:"incarnation"`
	Voter        bool   `json:"voter"`
	Status       string `json:"status"`
	MatchIndex   *int64 `json:"match_index"`
	LagEntries   *int64 `json:"lag_entries"`
	AppliedIndex *int64 `json:"applied_index"`
	Quarantined  int    `json:"quarantined_partitions"`
	Damaged      int    `json:"damaged_ranges"` // of its partitions
}

func clusterShardsCommand(conn *connection) *cobra.Command {
	v := clusterView{conn: conn}
	c := &cobra.Command{
		Use:   "shards",
		Short: "List the shards: who leads them, and how far each replica is",
		Long: `List the shards, with a line for each replica: its role, the last entry that it
has in common with the leader, how many it lacks, the last one that it has
applied, and how it is: ok; lags, by more than 128 entries; catching up, since it
needs more than the leader's log holds; silent, since its node does not answer;
lost, since its node has another replica in its place; unknown, without a leader
that could say. Behind that stand its partitions in quarantine and the ranges of
its partitions that are damaged, if any. In sync are the replicas that min.insync.replicas counts, as the
node that is asked tells Kafka clients. Shard 0 carries the metadata. With -o json each shard is one
line.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return v.look(c, func(d client.ClusterDescription) error { return printShards(c.OutOrStdout(), d, v.out) })
		},
	}
	v.add(c)
	return c
}

func shardLineOf(s *client.ShardDescription) shardLine {
	line := shardLine{
		ID: s.ID, Leader: known(int64(s.Leader)), Term: s.Term, LastIndex: known(s.LastIndex), Partitions: s.Partitions, Replicas: []replicaLine{},
	}
	if s.ID != 0 { // the metadata's are not counted
		line.InSync = append([]int32{}, s.InSync...)
	}
	for _, r := range s.Replicas {
		line.Replicas = append(line.Replicas, replicaLine{
			Node: r.Node, Incarnation: fmt.Sprintf("%016x", r.Incarnation), Voter: r.Voter, Status: r.Status.String(),
			MatchIndex: known(r.MatchIndex), LagEntries: known(r.LagEntries), AppliedIndex: known(r.AppliedIndex), Quarantined: r.Quarantined, Damaged: r.Damaged,
		})
	}
	return line
}

func printShards(w io.Writer, d client.ClusterDescription, out outputFormat) error {
	tw := newTable(w)
	fmt.Fprintln(tw, "SHARD\tPARTITIONS\tTERM\tNODE\tROLE\tIN SYNC\tMATCH\tLAG\tAPPLIED\tSTATUS")
	for i := range d.Shards {
		s := &d.Shards[i]
		line := shardLineOf(s)
		if out == outputJSON {
			if err := printJSON(w, line); err != nil {
				return err
			}
			continue
		}
		head := fmt.Sprintf("%d\t%d\t%d", s.ID, s.Partitions, s.Term)
		for _, r := range line.Replicas {
			role := "non-voter"
			switch {
			case r.Node == s.Leader:
				role = "leader"
			case r.Voter:
				role = "voter"
			}
			status := r.Status
			if r.Quarantined > 0 {
				status += fmt.Sprintf(", %s in quarantine", count(r.Quarantined, "partition"))
			}
			if r.Damaged > 0 {
				status += fmt.Sprintf(", %s", count(r.Damaged, "damaged range"))
			}
			inSync := "-"
			switch {
			case slices.Contains(line.InSync, r.Node):
				inSync = "yes"
			case line.InSync != nil:
				inSync = "no"
			}
			fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", head, r.Node, role, inSync, orDash(r.MatchIndex), orDash(r.LagEntries), orDash(r.AppliedIndex), status)
			head = "\t\t"
		}
		if len(line.Replicas) == 0 {
			fmt.Fprintf(tw, "%s\t-\t-\t-\t-\t-\t-\t%s\n", head, client.ReplicaUnknown)
		}
	}
	if out == outputJSON {
		return nil
	}
	return tw.Flush()
}
