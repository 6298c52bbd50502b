package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/node"
)

// meet connects a node with the others: with those that cluster.nodes lists, if it lists
// any, or with the cluster that it joins, or has joined. end, which is never nil, ends
// the connections after the node, unless the node does.
func meet(v *config.Values, opt *node.Options) (end func(), err error) {
	end = func() {}
	nodes, err := config.ClusterNodes(v.Text("cluster.nodes"))
	if err != nil {
		return end, usagef("cluster.nodes: %v", err)
	}
	joins, err := config.JoinAddresses(v.Text("join"))
	if err != nil {
		return end, usagef("join: %v", err)
	}
	if len(nodes) == 0 && len(joins) == 0 {
		has, err := node.Joins(opt.FS, opt.Dir)
		if err != nil || !has { // what is wrong with the directory, the start says
			if text := v.OutOfCluster(); text != "" && err == nil {
				return end, usagef("%s", text)
			}
			return end, nil
		}
	}
	security, err := nodeTLS(v)
	if err != nil {
		return end, err
	}
	l, err := net.Listen("tcp", v.Text("node.listen"))
	if err != nil {
		return end, fmt.Errorf("%w; choose another address with --node.listen", err)
	}
	if !isLoopback(l.Addr()) && security == nil {
		opt.Log.Warn("whoever connects from beyond this machine can take part in the cluster; give node.tls.cert, node.tls.key and node.tls.ca, or keep others away", "node.listen", l.Addr().String())
	}
	if len(nodes) == 0 {
		opt.Join = &node.Join{Addresses: joins, Listener: l, Advertise: v.Text("node.advertise"), TLS: security}
		return end, nil
	}
	var peers []node.Peer
	for _, n := range nodes {
		peers = append(peers, node.Peer{ID: n.ID, Address: n.Address})
	}
	var stop func() error
	if opt.Cluster, stop, err = node.Meet(opt, node.Meeting{Peers: peers, Listener: l, Advertise: v.Text("node.advertise"), TLS: security}); err != nil {
		_ = l.Close()
		return end, err
	}
	return func() { _ = stop() }, nil
}

// nodeTLS returns how nodes prove to each other who they are, or nil if they do
// not.
func nodeTLS(v *config.Values) (*tls.Config, error) {
	cert, key, ca := v.Of("node.tls.cert"), v.Of("node.tls.key"), v.Of("node.tls.ca")
	if cert.Text == "" {
		return nil, nil
	}
	own, err := tls.LoadX509KeyPair(cert.Text, key.Text)
	if err != nil {
		return nil, usagef("%s %s and %s %s: %v", cert.Name(), cert.Text, key.Name(), key.Text, err)
	}
	pem, err := os.ReadFile(ca.Text)
	if err != nil {
		return nil, usagef("%s: %v", ca.Name(), err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, usagef("%s %s holds no certificate in PEM", ca.Name(), ca.Text)
	}
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots, ClientCAs: roots, MinVersion: tls.VersionTLS13}, nil
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(addr net.Addr) bool {
	host, _, err := net.SplitHostPort(addr.String())
	return err == nil && net.ParseIP(host).IsLoopback()
}
