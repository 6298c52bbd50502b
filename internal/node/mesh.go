package node

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"

	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// Peer is another node, or this one, as the others reach it.
type Peer struct {
	ID      int32
	Address string // host:port
}

// Meet makes a Cluster of a node that talks with its peers over connections: its
// Options' Cluster, for which Options has to be what it is going to be started
// with otherwise. listener takes the peers' connections. With tls, both ends of a
// connection have to show a certificate that its RootCAs vouch for; nil: none.
//
// close ends the connections, and the listener; it is called after the node's
// Close.
func Meet(opt *Options, peers []Peer, listener net.Listener, security *tls.Config) (c *Cluster, close func() error, err error) {
	var seed [16]byte
	if _, err := io.ReadFull(opt.Rand, seed[:]); err != nil {
		return nil, nil, fmt.Errorf("node: %w", err)
	}
	c = &Cluster{}
	addresses := make(map[int32]string)
	for _, p := range peers {
		c.Nodes = append(c.Nodes, p.ID)
		addresses[p.ID] = p.Address
	}
	mesh, err := transport.NewMesh(transport.MeshOptions{
		ClusterID: opt.ClusterID, Node: opt.NodeID, Listener: listener, TLS: security, Log: opt.Log,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		Address: func(node int32) (string, bool) {
			addr, ok := addresses[node]
			return addr, ok
		},
		Rand: rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:]))),
	})
	if err != nil {
		return nil, nil, err
	}
	c.Peers = mesh
	c.Connect = func(shard replication.ShardID, id replication.ReplicaID) transport.Transport {
		return mesh.Join(shard, id)
	}
	return c, mesh.Close, nil
}
