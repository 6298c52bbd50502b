package config

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// MaxClusterNodes is how many nodes a cluster may have: each has a voter of
// every shard.
const MaxClusterNodes = 5

// ClusterNode is one node of a cluster, as the setting cluster.nodes names it.
type ClusterNode struct {
	ID      int32
	Address string // host:port at which it listens for the other nodes
}

// ClusterNodes returns the nodes that the setting cluster.nodes names, ascending
// by id: ID@HOST:PORT, and commas between them. Of an empty text it returns none.
// The error says what is wrong, and what to give.
func ClusterNodes(text string) ([]ClusterNode, error) {
	if text == "" {
		return nil, nil
	}
	var all []ClusterNode
	for _, entry := range strings.Split(text, ",") {
		idText, addr, _ := strings.Cut(strings.TrimSpace(entry), "@")
		id, badID := strconv.ParseInt(idText, 10, 32)
		host, port, err := net.SplitHostPort(addr)
		n, badPort := strconv.ParseUint(port, 10, 16)
		same := func(o ClusterNode) bool { return o.ID == int32(id) }
		at := func(o ClusterNode) bool { return o.Address == addr }
		switch {
		case badID != nil || id < 0 || err != nil || host == "" || badPort != nil || n == 0:
			return nil, fmt.Errorf("%q: give ID@HOST:PORT for each node of the cluster, such as 1@node1.example.com:9192,2@node2.example.com:9192", entry)
		case slices.ContainsFunc(all, same):
			return nil, fmt.Errorf("%q: the id %d is given twice; each node has its own", entry, id)
		case slices.ContainsFunc(all, at):
			return nil, fmt.Errorf("%q: two nodes are said to be at %s; each listens at its own address", entry, addr)
		case len(all) == MaxClusterNodes:
			return nil, fmt.Errorf("more than %d nodes", MaxClusterNodes)
		}
		all = append(all, ClusterNode{ID: int32(id), Address: addr})
	}
	slices.SortFunc(all, func(a, b ClusterNode) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// clusterSettings are those that mean something with cluster.nodes only.
var clusterSettings = []string{"node.listen", "node.tls.cert", "node.tls.key", "node.tls.ca"}

// checkCluster refuses settings of a cluster that do not fit each other.
func (v *Values) checkCluster(refuse func(string, ...any)) {
	list, listen := v.Of("cluster.nodes"), v.Of("node.listen")
	host, _, err := net.SplitHostPort(listen.Text)
	if err != nil {
		refuse("%s %q: give HOST:PORT, such as 0.0.0.0:9192", listen.Name(), listen.Text)
	}
	nodes, bad := ClusterNodes(list.Text)
	if bad != nil {
		refuse("%s: %v", list.Name(), bad)
		return
	}
	if len(nodes) == 0 {
		for _, key := range clusterSettings {
			if s := v.Of(key); s.Text != s.Setting.Default {
				refuse("%s means nothing without cluster.nodes; give both or none", s.Name())
			}
		}
		return
	}
	id := v.Of("node.id")
	at := slices.IndexFunc(nodes, func(n ClusterNode) bool { return int64(n.ID) == id.Number })
	switch {
	case at < 0:
		refuse("%s %s is not among the nodes of %s %s; give the id that this node has there", id.Name(), id.Text, list.Name(), list.Text)
	case listen.Text == listen.Setting.Default && loopback(host) && !loopback(hostOf(nodes[at].Address)):
		refuse("%s says that node %s is at %s, and %s is %s, which only this machine can reach; give the address to listen on for the other nodes",
			list.Name(), id.Text, nodes[at].Address, listen.Name(), listen.Text)
	}
	if v.Text("cluster.id") == "" {
		refuse("%s: give cluster.id too, one text of your choice, the same for each of the nodes", list.Name())
	}
	cert, key, ca := v.Of("node.tls.cert"), v.Of("node.tls.key"), v.Of("node.tls.ca")
	if some := cert.Text + key.Text + ca.Text; some != "" && (cert.Text == "" || key.Text == "" || ca.Text == "") {
		refuse("node.tls.cert, node.tls.key and node.tls.ca: give all three, or none")
	}
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr) // it was looked at
	return host
}

// loopback reports whether a host is this machine to itself.
func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
