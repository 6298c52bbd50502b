package node

import (
	"cmp"
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

// Meeting is how a node meets those that it founds a cluster with.
type Meeting struct {
	Peers    []Peer       // all nodes of the plan, this one among them
	Listener net.Listener // takes the peers' connections

	// Advertise is the host:port at which the others reach it; default: what Peers says.
	Advertise string

	// TLS has both ends of a connection show a certificate that its RootCAs vouch for;
	// nil: none.
	TLS *tls.Config

	Dial func(ctx context.Context, addr string) (net.Conn, error) // default: by TCP
}

// Meet makes a Cluster of a node that talks with its peers over connections: its
// Options' Cluster, for which Options has to be what it is going to be started
// with otherwise.
//
// close ends the connections, and the listener; it is called after the node's
// Close.
func Meet(opt *Options, m Meeting) (c *Cluster, close func() error, err error) {
	given := make(map[int32]string)
	var nodes []int32
	for _, p := range m.Peers {
		nodes = append(nodes, p.ID)
		given[p.ID] = p.Address
	}
	if c, close, err = meet(opt, newBook(given), m.Listener, m.TLS, m.Dial); err != nil {
		return nil, nil, err
	}
	c.Nodes, c.Address = nodes, cmp.Or(m.Advertise, given[opt.NodeID])
	return c, close, nil
}

// dialer returns how to dial, by default by TCP.
func dialer(dial func(context.Context, string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	if dial != nil {
		return dial
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
}

// meet makes the Cluster of a node that finds the others in a book.
func meet(opt *Options, b *book, listener net.Listener, security *tls.Config, dial func(context.Context, string) (net.Conn, error)) (c *Cluster, close func() error, err error) {
	var seed [16]byte
	if _, err := io.ReadFull(opt.Rand, seed[:]); err != nil {
		return nil, nil, fmt.Errorf("node: %w", err)
	}
	mesh, err := transport.NewMesh(transport.MeshOptions{
		ClusterID: opt.ClusterID, Node: opt.NodeID, Listener: listener, TLS: security, Log: opt.Log,
		Dial: dialer(dial), Address: b.address, OnState: b.state,
		Rand: rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:]))),
	})
	if err != nil {
		return nil, nil, err
	}
	c = &Cluster{Peers: mesh, Met: b.met}
	c.Connect = func(shard replication.ShardID, id replication.ReplicaID) transport.Transport {
		return mesh.Join(shard, id)
	}
	return c, mesh.Close, nil
}
