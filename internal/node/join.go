package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// A node that was not there when its cluster was founded joins it, with a directory that
// never founds one:
//
//	fresh      it asks at the addresses that it was given which cluster is there, and
//	           records that it joins that one
//	joining    it asks to be registered until the metadata's leader has answered
//	founded    it is registered, and has recorded the plan that the cluster was founded
//	           with, and where the nodes are; its replicas start, and the metadata's
//	           leader has it learn the metadata
//
// It goes on from where it stands after a crash: what was asked for may be asked for
// again. Once it is founded it needs no address from outside, and keeps those that the
// metadata says in IDENTITY.

// Join is how a node meets a cluster that it did not found.
type Join struct {
	// Addresses are those of nodes of the cluster, host:port of their listeners for
	// nodes: one that answers will do. A directory that has joined does not need them.
	Addresses []string

	// Listener takes the connections of the other nodes, and Advertise is the host:port
	// at which they reach it, by default its own address. The node closes it.
	Listener  net.Listener
	Advertise string

	// TLS, unless nil, is how both ends of a connection prove who they are: see Meet.
	TLS *tls.Config

	Dial func(ctx context.Context, addr string) (net.Conn, error) // default: by TCP
}

// ErrRefused reports a cluster that does not let a node in, with these settings, as often
// as it may ask.
var ErrRefused = errors.New("node: the cluster does not let this node in")

const (
	askTime  = 3 * time.Second // that one address may take to say who is there
	joinTime = 5 * time.Second // that an answer to a node that would join may take
)

// joining is how far a node has come.
type joining struct {
	n     *Node
	book  *book
	ends  func() error // of the connections; nil: there are none yet
	vigil vigil
}

func newJoining(n *Node) *joining {
	return &joining{n: n, vigil: vigil{log: n.opt.Log, line: "waiting to join the cluster; clients are not served yet"}}
}

// Joins reports whether a directory is that of a node that joins, or has joined, a
// cluster which others have founded. One that is not there, or empty, is not.
func Joins(fsys vfs.FS, dir string) (bool, error) {
	id, fresh, err := readIdentity(fsys, dir)
	if errors.Is(err, ErrDamagedIdentity) {
		if set, bad := unfinishedAside(fsys, dir); bad == nil && set != nil {
			return set.Joins, nil
		}
	}
	return err == nil && !fresh && id.Joins, err
}

// late is the error of a node that has not joined in time.
func (j *joining) late(ctx context.Context) error {
	return errors.Join(ctx.Err(), fmt.Errorf("node: the cluster was not joined in time: %s", j.vigil.reason()))
}

// begin finds out which cluster the node joins, and makes its Options' Cluster. Nothing
// is written.
func (j *joining) begin(ctx context.Context) error {
	opt := &j.n.opt
	id, fresh, err := j.directory()
	if err != nil {
		return err
	}
	cluster := id.ClusterID
	known, err := parseAddressList(string(id.Nodes))
	if err != nil {
		return err // it was looked at
	}
	j.book = newBook(known)
	if fresh && cluster == "" {
		err := j.vigil.rounds(ctx, func() (out outcome, err error) {
			if cluster, err = j.ask(ctx); cluster == "" {
				return waits, err
			}
			return done, err
		}, func() error { return j.late(ctx) })
		if err != nil {
			return err
		}
	}
	if opt.ClusterID != "" && opt.ClusterID != cluster {
		if !fresh {
			return id.check(identity{ClusterID: opt.ClusterID, NodeID: opt.NodeID}, opt.Dir)
		}
		return fmt.Errorf("%w: at %s is cluster %q, and cluster.id says %q; leave cluster.id out, or give the address of a node of that cluster",
			ErrRefused, strings.Join(opt.Join.Addresses, ", "), cluster, opt.ClusterID)
	}
	opt.ClusterID = cluster
	opt.Cluster, j.ends, err = meet(opt, j.book, opt.Join.Listener, opt.Join.TLS, opt.Join.Dial)
	if err != nil {
		return err
	}
	opt.Cluster.Address = cmp.Or(opt.Join.Advertise, opt.Join.Listener.Addr().String())
	return nil
}

// directory looks at the directory, and refuses one that is there for something else.
func (j *joining) directory() (id identity, fresh bool, err error) {
	opt := &j.n.opt
	if _, err := opt.FS.Stat(opt.Dir); errors.Is(err, fs.ErrNotExist) {
		return identity{}, true, nil
	}
	if err = checkOurs(opt.FS, opt.Dir); err == nil {
		id, fresh, err = readIdentity(opt.FS, opt.Dir)
	}
	if errors.Is(err, ErrNotOurs) || errors.Is(err, ErrDamagedIdentity) {
		return j.nameless(err)
	}
	if err != nil || fresh {
		return id, fresh, err
	}
	switch {
	case id.Joins:
		return id, false, nil
	case id.Founders != "":
		return id, false, fmt.Errorf("%w: %s is of node %d, which has a place among those that cluster %q was founded with, nodes %s; give cluster.nodes instead of join",
			ErrMembers, opt.Dir, id.NodeID, id.ClusterID, list(id.Founders.ids()))
	}
	return id, false, fmt.Errorf("%w: %s was begun by a node that does not join a cluster (%s of cluster %q); give an empty directory, which alone can join",
		ErrMembers, opt.Dir, path.Join(opt.Dir, identityName), id.ClusterID)
}

// nameless returns what is known of a directory whose IDENTITY is lost, for heal to deal
// with that: nothing of its own, as of a fresh one, unless it is being set aside.
func (j *joining) nameless(damage error) (id identity, fresh bool, err error) {
	opt := &j.n.opt
	set, err := unfinishedAside(opt.FS, opt.Dir)
	switch {
	case err != nil:
		return identity{}, false, err
	case set != nil && set.Joins:
		return identity{ClusterID: set.ClusterID, NodeID: set.NodeID, Joins: true, Nodes: set.Nodes}, false, nil
	case !opt.Heals(damage) || len(partsSay(opt.FS, opt.Dir)) == 0:
		return identity{}, false, damage
	case len(opt.Join.Addresses) == 0:
		return identity{}, false, fmt.Errorf("%w; say with join where nodes of its cluster are", damage)
	}
	return identity{}, true, nil
}

// ask asks the addresses that the node was given who is there, until one answers for a
// cluster; it returns none if nobody does.
func (j *joining) ask(ctx context.Context) (cluster string, err error) {
	opt := &j.n.opt
	var silent []string
	at := ""
	for _, addr := range opt.Join.Addresses {
		of, node, err := j.askOne(ctx, addr)
		switch {
		case err != nil:
			silent = append(silent, fmt.Sprintf("nobody of a cluster answers at %s: %v", addr, err))
		case node == opt.NodeID:
			return "", fmt.Errorf("%w: at %s is node %d of cluster %q already; give this one a node.id of its own", ErrRefused, addr, node, of)
		case cluster != "" && of != cluster:
			return "", fmt.Errorf("%w: at %s is cluster %q, and at %s cluster %q; give addresses of one cluster", ErrRefused, at, cluster, addr, of)
		default:
			cluster, at = of, addr
			j.book.give(map[int32]string{node: addr})
		}
	}
	if cluster == "" {
		j.vigil.say(strings.Join(silent, "; "))
	}
	return cluster, nil
}

func (j *joining) askOne(ctx context.Context, addr string) (cluster string, node int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := dialer(j.n.opt.Join.Dial)(ctx, addr)
	if err != nil {
		return "", 0, err
	}
	return transport.Ask(ctx, conn, addr, j.n.opt.Join.TLS)
}

// finish returns when the node is registered, and has recorded so.
func (j *joining) finish(ctx context.Context) error {
	n := j.n
	err := j.vigil.rounds(ctx, func() (outcome, error) {
		if n.id.Founded {
			return done, nil
		}
		return j.round(ctx)
	}, func() error { return j.late(ctx) })
	if err != nil {
		return err
	}
	j.vigil.over()
	return nil
}

// round asks the nodes that are known until the metadata's leader has answered, and takes
// one step.
func (j *joining) round(ctx context.Context) (out outcome, err error) {
	opt := &j.n.opt
	others := func() []int32 {
		known := j.book.known()
		delete(known, opt.NodeID)
		return slices.Sorted(maps.Keys(known))
	}
	nodes := others()
	if len(nodes) == 0 { // it had been begun by an earlier process
		if of, err := j.ask(ctx); err != nil || of == "" {
			return waits, err
		}
		nodes = others()
	}
	var why []string
	for i := 0; i < len(nodes); i++ {
		a, err := j.apply(ctx, nodes[i])
		if err != nil {
			why = append(why, fmt.Sprintf("node %d does not answer: %v", nodes[i], err))
			continue
		}
		j.book.give(a.Nodes)
		if leader := a.Leader; leader >= 0 && leader != opt.NodeID && !slices.Contains(nodes, leader) {
			nodes = append(nodes, leader)
		}
		switch {
		case a.Code == 0:
			return moved, j.take(&a)
		case a.Final():
			return waits, fmt.Errorf("%w: node %d: %s", ErrRefused, nodes[i], a.Detail)
		}
		why = append(why, a.Detail)
	}
	j.vigil.say(strings.Join(why, "; "))
	if len(opt.Join.Addresses) > 0 {
		_, err = j.ask(ctx) // of those that are known nobody may come back
	}
	return waits, err
}

func (j *joining) apply(ctx context.Context, node int32) (broker.Admission, error) {
	n := j.n
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	return broker.AskAdmission(ctx, n.opt.Cluster.Peers, node, broker.Applicant{
		Node: n.id.NodeID, Incarnation: uint64(n.id.Incarnation), Replaces: uint64(n.id.Replaces),
		Level: n.level(), Rack: n.opt.Rack,
		Listeners: n.listeners(), NodeAddress: n.opt.Cluster.Address,
	})
}

// take records what the metadata's leader has answered.
func (j *joining) take(a *broker.Admission) error {
	n := j.n
	if a.Registered != uint64(n.id.Incarnation) {
		n.opt.Log.Warn("this node has lost its data directory, and takes its place in the cluster with a fresh one",
			"lost", fmt.Sprintf("%016x", a.Registered), "fresh", fmt.Sprintf("%016x", uint64(n.id.Incarnation)))
		return n.changeIdentity(func(id *identity) { id.Replaces = hexNumber(a.Registered) })
	}
	var all []founder
	for _, f := range a.Founders {
		all = append(all, founder{f.ID, hexNumber(f.Incarnation)})
	}
	nodes := j.book.known()
	maps.Copy(nodes, a.Nodes)
	return n.changeIdentity(func(id *identity) {
		id.Founders, id.Shards, id.Founded, id.Nodes = foundersOf(all), a.Shards, true, addressListOf(nodes)
	})
}

// met keeps where the nodes are for the next start.
func (j *joining) met(addresses map[int32]string) {
	err := j.n.changeIdentity(func(id *identity) {
		if len(addresses) > 0 {
			id.Nodes = addressListOf(addresses)
		}
	})
	if err != nil && !vfs.NoSpace(err) && !vfs.NoFiles(err) { // the older ones may do
		j.n.fail(err) // a write or a sync failed (R9)
	}
}

// end ends the connections, and the listener.
func (j *joining) end() error {
	if j.ends != nil {
		return j.ends()
	}
	return j.n.opt.Join.Listener.Close()
}
