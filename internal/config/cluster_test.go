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
		{flags: map[string]string{"node.listen": "h:1"}, err: "--node.listen means nothing without cluster.nodes"},
		{flags: map[string]string{"node.tls.ca": "f"}, err: "--node.tls.ca means nothing without cluster.nodes"},
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
