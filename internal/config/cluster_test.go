package config

import (
	"slices"
	"strings"
	"testing"
)

func TestClusterNodes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want []ClusterNode
		err  string
	}{
		{text: ""},
		{text: "1@h:9192", want: []ClusterNode{{1, "h:9192"}}},
		{text: "10@c:3, 2@[::1]:2,0@a:1", want: []ClusterNode{{0, "a:1"}, {2, "[::1]:2"}, {10, "c:3"}}},
		{text: "h:9192", err: `"h:9192": give ID@HOST:PORT`},
		{text: "1@h", err: "give ID@HOST:PORT"},
		{text: "1@:9192", err: "give ID@HOST:PORT"},
		{text: "1@h:0", err: "give ID@HOST:PORT"},
		{text: "1@h:65536", err: "give ID@HOST:PORT"},
		{text: "-1@h:1", err: "give ID@HOST:PORT"},
		{text: "2147483648@h:1", err: "give ID@HOST:PORT"},
		{text: "1@h:1,", err: `"": give ID@HOST:PORT`},
		{text: "1@h:1,1@i:1", err: "the id 1 is given twice"},
		{text: "1@h:1,2@h:1", err: "two nodes are said to be at h:1"},
		{text: "1@h:1,2@h:2,3@h:3,4@h:4,5@h:5,6@h:6", err: "more than 5 nodes"},
	}
	for _, tt := range tests {
		got, err := ClusterNodes(tt.text)
		if tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
			t.Errorf("ClusterNodes(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("ClusterNodes(%q) = %v, %v, want %q", tt.text, got, err, tt.err)
		}
	}
}

func TestClusterSettings(t *testing.T) {
	t.Parallel()
	with := func(more ...string) map[string]string {
		flags := map[string]string{"cluster.id": "c", "cluster.nodes": "1@localhost:1,2@127.0.0.1:2"}
		for i := 0; i < len(more); i += 2 {
			flags[more[i]] = more[i+1]
		}
		return flags
	}
	tests := []struct {
		flags map[string]string
		err   string // none: they are taken
	}{
		{flags: with()},
		{flags: with("cluster.nodes", "1@node1:1,2@node2:2", "node.listen", "127.0.0.1:7")},
		{flags: with("node.tls.cert", "c", "node.tls.key", "k", "node.tls.ca", "a")},
		{flags: with("cluster.nodes", "1@h"), err: `--cluster.nodes: "1@h": give ID@HOST:PORT`},
		{flags: with("node.id", "3"), err: "--node.id 3 is not among the nodes of --cluster.nodes"},
		{flags: with("cluster.id", ""), err: "--cluster.nodes: give cluster.id too"},
		{flags: with("cluster.nodes", "1@node1:1"), err: "says that node 1 is at node1:1, and node.listen is 127.0.0.1:9192, which only this machine can reach"},
		{flags: with("node.listen", "9192"), err: `--node.listen "9192": give HOST:PORT`},
		{flags: with("node.tls.cert", "c"), err: "give all three, or none"},
		{flags: map[string]string{"node.tls.ca": "f"}, err: "give all three, or none"},
		{flags: map[string]string{"join": "localhost:9192, node2:9192", "node.listen": "node4:9192"}},
		{flags: map[string]string{"join": "localhost:9192"}},
		{flags: map[string]string{"join": "node1:9192", "node.listen": "0.0.0.0:9192", "node.advertise": "node4:9192"}},
		{flags: map[string]string{"join": "node1:9192", "node.listen": "0.0.0.0:9192"}, err: "is no address for the other nodes to reach this one at; give node.advertise too"},
		{flags: map[string]string{"join": "node1:9192", "node.listen": ":9192"}, err: "is no address for the other nodes to reach this one at; give node.advertise too"},
		{flags: map[string]string{"join": "node1:9192"}, err: "--join says that the cluster is at node1:9192, and node.listen is 127.0.0.1:9192, which only this machine can reach"},
		{flags: map[string]string{"join": "node1"}, err: `--join: "node1": give the HOST:PORT of a node's node.listen`},
		{flags: map[string]string{"join": "0.0.0.0:1"}, err: `--join: "0.0.0.0:1": give the HOST:PORT of a node's node.listen`},
		{flags: map[string]string{"join": "localhost:1", "node.advertise": "x"}, err: `--node.advertise "x": give the HOST:PORT at which the other nodes reach this one`},
		{flags: with("join", "localhost:1"), err: "--cluster.nodes and --join: give cluster.nodes to the nodes that found a cluster together, and join to one that comes later"},
	}
	for _, tt := range tests {
		_, err := Resolve(Sources{Flags: tt.flags})
		if tt.err == "" && err != nil {
			t.Errorf("%v: %v", tt.flags, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%v: %v, want %q", tt.flags, err, tt.err)
		}
	}
}

// TestOutOfCluster: what is for a cluster means nothing to a node that is in none, which
// the start alone can know.
func TestOutOfCluster(t *testing.T) {
	t.Parallel()
	for key, text := range map[string]string{"node.listen": "h:1", "node.advertise": "h:1"} {
		v, err := Resolve(Sources{Flags: map[string]string{key: text}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := v.OutOfCluster(), "--"+key+" means nothing without cluster.nodes or join"; !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	v, err := Resolve(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if got := v.OutOfCluster(); got != "" {
		t.Errorf("by default: %q", got)
	}
}
