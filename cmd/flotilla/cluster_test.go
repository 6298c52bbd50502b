package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/client"
)

// three returns a healthy cluster of three nodes with two shards beside the
// metadata's.
func three() client.ClusterDescription {
	d := client.ClusterDescription{ID: "c", Asked: 1, Controller: 1, FeatureLevel: 2, Topics: 1, Partitions: 7}
	for id := range int32(3) {
		d.Nodes = append(d.Nodes, client.NodeDescription{
			Node: client.Node{ID: id + 1, Address: "host:9092", Rack: "a"}, Incarnation: 0xab, Version: "0.1.0",
			Uptime: 90 * time.Second, Leads: 1, Replicas: 3,
		})
		s := client.ShardDescription{ID: uint32(id), Leader: id + 1, Term: 4, LastIndex: 500, Partitions: int(id) * 3}
		if id > 0 {
			s.InSync = []int32{1, 2}
		}
		for node := range int32(3) {
			s.Replicas = append(s.Replicas, client.ReplicaDescription{
				Node: node + 1, Incarnation: 0xcd, Voter: true, Status: client.ReplicaOK, MatchIndex: 500, AppliedIndex: 499,
			})
		}
		d.Shards = append(d.Shards, s)
	}
	return d
}

// TestClusterStatus: what an operator has to be told, and nothing else.
func TestClusterStatus(t *testing.T) {
	t.Parallel()
	mark := func(d *client.ClusterDescription, shard, node int, s client.ReplicaStatus) {
		d.Shards[shard].Replicas[node-1].Status = s
	}
	tests := []struct {
		name  string
		edit  func(*client.ClusterDescription)
		wants []string
	}{
		{"healthy", func(*client.ClusterDescription) {}, nil},
		{"a node is down", func(d *client.ClusterDescription) {
			d.Nodes[2].Err = errors.New("no answer within 1s")
			for shard := range d.Shards {
				mark(d, shard, 3, client.ReplicaSilent)
			}
		}, []string{"node 3 does not answer node 1: no answer within 1s"}},
		{"no leader", func(d *client.ClusterDescription) {
			d.Shards[2].Leader = -1
			for node := range 3 {
				mark(d, 2, node+1, client.ReplicaUnknown)
			}
		}, []string{"no leader of shard 2, so 6 partitions can be neither read nor written"}},
		{"no controller", func(d *client.ClusterDescription) { d.Shards[0].Leader, d.Controller = -1, -1 }, []string{
			"no leader of shard 0, so 0 partitions can be neither read nor written", "no controller: topics can be neither created nor changed",
		}},
		{"replicas", func(d *client.ClusterDescription) {
			mark(d, 0, 3, client.ReplicaLags)
			mark(d, 2, 3, client.ReplicaLags)
			mark(d, 1, 3, client.ReplicaLost)
			mark(d, 1, 2, client.ReplicaCatchingUp)
		}, []string{
			"node 2: the replica of shard 1: pulls what the leader's log has no more",
			"node 3: the replica of shards 0, 2: lags behind the leader",
			"node 3: the replica of shard 1: is lost: the node has another one in its place, or none",
		}},
		{"quarantine", func(d *client.ClusterDescription) {
			d.Shards[1].Replicas[1].Quarantined, d.Shards[2].Replicas[1].Quarantined = 1, 2
		}, []string{"node 2: 3 partitions in quarantine"}},
		{"trouble", func(d *client.ClusterDescription) { d.Nodes[1].Trouble = "the disk is nearly full" }, []string{"node 2: the disk is nearly full"}},
	}
	for _, tt := range tests {
		d := three()
		tt.edit(&d)
		s := statusOf(d)
		if diff := cmp.Diff(tt.wants, s.Problems, cmp.Transformer("", func(in []string) []string { return slices.Clone(in) })); diff != "" && len(tt.wants)+len(s.Problems) > 0 {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if s.Healthy != (tt.wants == nil) {
			t.Errorf("%s: healthy %t", tt.name, s.Healthy)
		}
	}
	many := make([]string, 12)
	for i := range many {
		many[i] = "x"
	}
	if got := list("shard", many); got != "shards x, x, x, x, x, x, x, x, x, x and 2 more" {
		t.Errorf("a long list is %q", got)
	}
}

// TestClusterTables: the text of each command for a cluster in a bad way.
func TestClusterTables(t *testing.T) {
	t.Parallel()
	d := three()
	d.Nodes[2] = client.NodeDescription{Node: client.Node{ID: 3}, Err: errors.New("refused")}
	d.Nodes[1].Trouble = "full"
	d.Shards = d.Shards[:2]
	d.Shards[1].Leader, d.Shards[1].LastIndex = -1, -1
	d.Shards[1].Replicas[2] = client.ReplicaDescription{Node: 3, Status: client.ReplicaSilent, MatchIndex: -1, LagEntries: -1, AppliedIndex: -1}
	d.Shards[0].Replicas[1].Quarantined = 1
	d.Shards[1].Replicas[0].Damaged, d.Shards[1].Replicas[1].Damaged, d.Shards[1].Replicas[1].Quarantined = 2, 1, 3
	d.Shards = append(d.Shards, client.ShardDescription{ID: 2, Leader: -1})
	var text strings.Builder
	for _, show := range []func() error{
		func() error { return printStatus(&text, statusOf(d), outputText) },
		func() error { return printNodes(&text, d, outputText) },
		func() error { return printShards(&text, d, outputText) },
	} {
		if err := show(); err != nil {
			t.Fatal(err)
		}
	}
	want := `cluster     c, feature level 2
controller  node 1
nodes       3, 2 up as seen by node 1
shards      3, 2 without a leader, 1 replica not ok
topics      1, 7 partitions, 3 without a leader
verdict     degraded
- node 2: full
- node 3 does not answer node 1: refused
- no leader of shards 1, 2, so 3 partitions can be neither read nor written
- node 2: 4 partitions in quarantine
NODE  ADDRESS    RACK  STATE    LEADS  REPLICAS  DAMAGED  QUARANTINED  UP FOR  VERSION  INCARNATION
1     host:9092  a     up       1      3         2        0            1m30s   0.1.0    00000000000000ab
2     host:9092  a     trouble  1      3         1        4            1m30s   0.1.0    00000000000000ab
3     -          -     down     0      -         -        -            -       -        0000000000000000
SHARD  PARTITIONS  TERM  NODE  ROLE       IN SYNC  MATCH  LAG  APPLIED  STATUS
0      0           4     1     leader     -        500    0    499      ok
                         2     voter      -        500    0    499      ok, 1 partition in quarantine
                         3     voter      -        500    0    499      ok
1      3           4     1     voter      yes      500    0    499      ok, 2 damaged ranges
                         2     voter      yes      500    0    499      ok, 3 partitions in quarantine, 1 damaged range
                         3     non-voter  no       -      -    -        silent
2      0           0     -     -          -        -      -    -        unknown
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	text.Reset()
	if err := errors.Join(printStatus(&text, statusOf(d), outputJSON), printNodes(&text, d, outputJSON), printShards(&text, d, outputJSON)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 1+3+3 {
		t.Errorf("%d lines of JSON, want one of the status, and one for each node and shard", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	for _, part := range []string{`"healthy":false`, `"leaderless_shards":2`, `"error":"refused","version":null`, `"leader":null`, `"match_index":null`,
		`"partitions":0,"in_sync":null,`, `"replicas":3,"damaged_ranges":1,"quarantined_partitions":4,`, `"replicas":null,"damaged_ranges":null,"quarantined_partitions":null`,
		`"quarantined_partitions":3,"damaged_ranges":1}`, `"quarantined_partitions":0,"damaged_ranges":2}`, `"partitions":3,"in_sync":[1,2],`} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("no %s in\n%s", part, text.String())
		}
	}
}

// TestClusterExitStatus: a script can tell a cluster that is healthy from one
// that is not, and from none.
func TestClusterExitStatus(t *testing.T) {
	t.Parallel()
	healthy := newServer(t)
	full := newServer(t, "--disk.reserve.bytes", "16TiB")
	tests := []struct {
		args []string
		addr string
		code int
		text string
	}{
		{[]string{"cluster", "status"}, healthy.addr, exitOK, "verdict     healthy"},
		{[]string{"cluster", "status"}, full.addr, exitDegraded, "- node 1: the disk is nearly full"},
		{[]string{"cluster", "status", "--timeout", "5s"}, "127.0.0.1:1", exitFailed, "no server at 127.0.0.1:1"},
		{[]string{"cluster", "status", "--wait", "11s"}, healthy.addr, exitUsage, "give 1ms to 10s"},
		{[]string{"cluster", "transfer", "x"}, healthy.addr, exitUsage, `"x" is not the number of a shard`},
		{[]string{"cluster", "transfer", "1", "--to", "-1"}, healthy.addr, exitUsage, "give the id of a node"},
		{[]string{"cluster", "transfer", "1", "--to", "1", "-o", "json"}, healthy.addr, exitOK, `{"shard":1,"leader":1}`},
		{[]string{"cluster", "transfer", "1"}, healthy.addr, exitFailed, "ELIGIBLE_LEADERS_NOT_AVAILABLE: the shard has no other voter"},
		{[]string{"cluster", "node"}, healthy.addr, exitUsage, `did you mean "flotilla cluster nodes"?`},
	}
	for _, tt := range tests {
		got := command{args: append(tt.args, "--bootstrap", tt.addr)}.run(t)
		if got.code != tt.code || !strings.Contains(got.stdout+got.stderr, tt.text) {
			t.Errorf("%v: status %d, want %d with %q\n%s%s", tt.args, got.code, tt.code, tt.text, got.stdout, got.stderr)
		}
	}
}
