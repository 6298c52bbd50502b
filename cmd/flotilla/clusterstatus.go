package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// degradedError says that the cluster is not as it should be.
type degradedError struct{ error }

func (e degradedError) Unwrap() error { return e.error }

// clusterStatus is what cluster status prints as JSON.
type clusterStatus struct {
	ID           string `json:"cluster_id"`
	Asked        int32  `json:"asked_node"`
	Controller   *int64 `json:"controller"` // node id; null: none
	FeatureLevel int    `json:"feature_level"`
	Nodes        int    `json:"nodes"`
	NodesUp      int    `json:"nodes_up"` // that answered the node that was asked
	Shards       int    `json:"shards"`
	Leaderless   int    `json:"leaderless_shards"`
	NotOK        int    `json:"replicas_not_ok"`
	Topics       int    `json:"topics"`
	Partitions   int    `json:"partitions"`
	Without      int    `json:"leaderless_partitions"`

	Healthy  bool     `json:"healthy"`
	Problems []string `json:"problems"`
}

func clusterStatusCommand(conn *connection) *cobra.Command {
	v := clusterView{conn: conn}
	c := &cobra.Command{
		Use:   "status",
		Short: "Say whether the cluster is healthy, and what is wrong",
		Long: `Say whether the cluster is healthy, and what is wrong if not: nodes that do not
answer, shards without a leader, replicas that lag or are lost, partitions in
quarantine, disks that are nearly full.

The exit status is 0 if nothing is wrong, 4 if something is, and 1 if no node
could be asked.`,
		Example: `  flotilla cluster status
  flotilla cluster status -o json --wait 3s`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return v.look(c, func(d client.ClusterDescription) error {
				s := statusOf(d)
				if err := printStatus(c.OutOrStdout(), s, v.out); err != nil {
					return err
				}
				if !s.Healthy {
					return degradedError{fmt.Errorf("the cluster is degraded: %s", count(len(s.Problems), "problem"))}
				}
				return nil
			})
		},
	}
	v.add(c)
	return c
}

// statusOf sums a description up.
func statusOf(d client.ClusterDescription) clusterStatus {
	s := clusterStatus{
		ID: d.ID, Asked: d.Asked, Controller: known(int64(d.Controller)), FeatureLevel: d.FeatureLevel,
		Nodes: len(d.Nodes), Shards: len(d.Shards), Topics: d.Topics, Partitions: d.Partitions, Problems: []string{},
	}
	problem := func(format string, args ...any) { s.Problems = append(s.Problems, fmt.Sprintf(format, args...)) }
	silent := make(map[int32]bool)
	for _, n := range d.Nodes {
		if n.Err != nil {
			silent[n.ID] = true
			problem("node %d does not answer node %d: %v", n.ID, d.Asked, n.Err)
			continue
		}
		s.NodesUp++
		if n.Trouble != "" {
			problem("node %d: %s", n.ID, n.Trouble)
		}
	}
	var leaderless []string
	type place struct {
		node   int32
		status client.ReplicaStatus
	}
	ill := make(map[place][]string) // shards
	quarantined := make(map[int32]int)
	for _, shard := range d.Shards {
		if shard.Leader < 0 {
			s.Leaderless++
			s.Without += shard.Partitions
			leaderless = append(leaderless, fmt.Sprint(shard.ID))
		}
		for _, r := range shard.Replicas {
			quarantined[r.Node] += r.Quarantined
			if r.Status == client.ReplicaOK {
				continue
			}
			s.NotOK++
			if !silent[r.Node] && r.Status != client.ReplicaUnknown { // else it is said already
				at := place{r.Node, r.Status}
				ill[at] = append(ill[at], fmt.Sprint(shard.ID))
			}
		}
	}
	if s.Leaderless > 0 {
		problem("no leader of %s, so %s can be neither read nor written", list("shard", leaderless), count(s.Without, "partition"))
	}
	if len(d.Shards) > 0 && d.Shards[0].ID == 0 && d.Shards[0].Leader < 0 {
		problem("no controller: topics can be neither created nor changed")
	}
	for _, at := range slices.SortedFunc(maps.Keys(ill), func(a, b place) int {
		return int(a.node-b.node)*16 + int(a.status-b.status)
	}) {
		problem("node %d: the replica of %s: %s", at.node, list("shard", ill[at]), replicaMeaning(at.status))
	}
	for _, node := range slices.Sorted(maps.Keys(quarantined)) {
		if n := quarantined[node]; n > 0 {
			problem("node %d: %s in quarantine", node, count(n, "partition"))
		}
	}
	s.Healthy = len(s.Problems) == 0
	return s
}

// replicaMeaning says what a replica's status means to an operator.
func replicaMeaning(s client.ReplicaStatus) string {
	switch s {
	case client.ReplicaLags:
		return "lags behind the leader"
	case client.ReplicaCatchingUp:
		return "pulls what the leader's log has no more"
	case client.ReplicaLost:
		return "is lost: the node has another one in its place, or none"
	}
	return s.String()
}

// list names some things, and how many more there are: "shards 1, 2, 3".
func list(noun string, names []string) string {
	const most = 10
	if len(names) == 1 {
		return noun + " " + names[0]
	}
	if len(names) > most {
		return fmt.Sprintf("%ss %s and %d more", noun, strings.Join(names[:most], ", "), len(names)-most)
	}
	return noun + "s " + strings.Join(names, ", ")
}

// count is "1 partition" or "2 partitions".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func printStatus(w io.Writer, s clusterStatus, out outputFormat) error {
	if out == outputJSON {
		return printJSON(w, s)
	}
	controller := "none"
	if s.Controller != nil {
		controller = fmt.Sprintf("node %d", *s.Controller)
	}
	tw := newTable(w)
	fmt.Fprintf(tw, "cluster\t%s, feature level %d\n", s.ID, s.FeatureLevel)
	fmt.Fprintf(tw, "controller\t%s\n", controller)
	fmt.Fprintf(tw, "nodes\t%d, %d up as seen by node %d\n", s.Nodes, s.NodesUp, s.Asked)
	fmt.Fprintf(tw, "shards\t%d, %d without a leader, %s not ok\n", s.Shards, s.Leaderless, count(s.NotOK, "replica"))
	fmt.Fprintf(tw, "topics\t%d, %s, %d without a leader\n", s.Topics, count(s.Partitions, "partition"), s.Without)
	if s.Healthy {
		fmt.Fprintln(tw, "verdict\thealthy")
	} else {
		fmt.Fprintln(tw, "verdict\tdegraded")
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, p := range s.Problems {
		if _, err := fmt.Fprintf(w, "- %s\n", p); err != nil {
			return err
		}
	}
	return nil
}
