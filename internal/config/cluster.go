package config

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// MaxClusterNodes is how many nodes may found a cluster: each has a voter of every
// shard that it begins with. More can join.
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

// JoinAddresses returns the addresses that the setting join names: HOST:PORT, and commas
// between them. Of an empty text it returns none. The error says what is wrong, and what
// to give.
func JoinAddresses(text string) (all []string, err error) {
	if text == "" {
		return nil, nil
	}
	for _, entry := range strings.Split(text, ",") {
		addr := strings.TrimSpace(entry)
		if !reachable(addr) {
			return nil, fmt.Errorf("%q: give the HOST:PORT of a node's node.listen, such as node1.example.com:9192, and commas between several", entry)
		}
		all = append(all, addr)
	}
	return all, nil
}

// reachable reports whether others can be told an address, host:port.
func reachable(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	n, badPort := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && !net.ParseIP(host).IsUnspecified() && badPort == nil && n > 0
}

// clusterSettings are those that mean something in a cluster only.
var clusterSettings = []string{"node.listen", "node.advertise", "node.tls.cert", "node.tls.key", "node.tls.ca"}

// OutOfCluster says which settings are given that mean nothing to a node that is in no
// cluster, or nothing. That a node is in one may be known to its directory alone.
func (v *Values) OutOfCluster() string {
	for _, key := range clusterSettings {
		if s := v.Of(key); s.Text != s.Setting.Default {
			return fmt.Sprintf("%s means nothing without cluster.nodes or join; give one of them, or leave it out", s.Name())
		}
	}
	return ""
}

// checkCluster refuses settings of a cluster that do not fit each other.
func (v *Values) checkCluster(refuse func(string, ...any)) {
	list, listen := v.Of("cluster.nodes"), v.Of("node.listen")
	host, _, err := net.SplitHostPort(listen.Text)
	if err != nil {
		refuse("%s %q: give HOST:PORT, such as 0.0.0.0:9192", listen.Name(), listen.Text)
	}
	cert, key, ca := v.Of("node.tls.cert"), v.Of("node.tls.key"), v.Of("node.tls.ca")
	if some := cert.Text + key.Text + ca.Text; some != "" && (cert.Text == "" || key.Text == "" || ca.Text == "") {
		refuse("node.tls.cert, node.tls.key and node.tls.ca: give all three, or none")
	}
	advertise, join := v.Of("node.advertise"), v.Of("join")
	if advertise.Text != "" && !reachable(advertise.Text) {
		refuse("%s %q: give the HOST:PORT at which the other nodes reach this one", advertise.Name(), advertise.Text)
	}
	joins, bad := JoinAddresses(join.Text)
	if bad != nil {
		refuse("%s: %v", join.Name(), bad)
	}
	nodes, bad := ClusterNodes(list.Text)
	switch {
	case bad != nil:
		refuse("%s: %v", list.Name(), bad)
		return
	case len(nodes) > 0 && len(joins) > 0:
		refuse("%s and %s: give cluster.nodes to the nodes that found a cluster together, and join to one that comes later", list.Name(), join.Name())
		return
	case len(joins) > 0:
		ip := net.ParseIP(host)
		switch {
		case advertise.Text == "" && (host == "" || ip.IsUnspecified()):
			refuse("%s is %s, which is no address for the other nodes to reach this one at; give node.advertise too", listen.Name(), listen.Text)
		case loopback(host) && advertise.Text == "" && slices.ContainsFunc(joins, func(addr string) bool { return !loopback(hostOf(addr)) }):
			refuse("%s says that the cluster is at %s, and %s is %s, which only this machine can reach; give the address to listen on for the other nodes",
				join.Name(), join.Text, listen.Name(), listen.Text)
		}
		return
	case len(nodes) == 0:
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
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr) // it was looked at
	return host
}

// loopback reports whether a host is this machine to itself.
func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
