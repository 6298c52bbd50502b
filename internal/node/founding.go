package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// Cluster is what a node needs to be one of several.
type Cluster struct {
	Nodes []int32 // ids of all nodes that found it, this one's among them

	// Address is where the others reach this node, host:port, and Met is told where
	// they are, whenever the metadata says something else; "" and nil: nobody is told.
	Address string
	Met     func(addresses map[int32]string)

	// Connect makes the transport of one of this node's replicas, which owns it.
	Connect func(shard replication.ShardID, id replication.ReplicaID) transport.Transport

	// Peers asks the other nodes, and is asked by them. Who made it closes it, after
	// the node.
	Peers transport.Peers
}

// ErrMembers reports a data directory that does not fit the cluster that the
// node was started for.
var ErrMembers = errors.New("node: the data directory is of other cluster nodes")

const (
	roundTime  = 2 * time.Second // that an answer may take
	rejoinTime = 3 * roundTime   // that the metadata's leader may take to be found
)

// founding brings a directory into a cluster; see plan.
type founding struct {
	n     *Node
	nodes []int32       // ascending
	kick  chan struct{} // 1-buffered
	fault chan error    // 1-buffered: why nothing can be recorded any more
	turn  chan struct{} // 1-buffered: held while the identity is changed

	closed error // why nothing is recorded any more, nil: it is; guarded by turn

	vigil vigil

	mu  sync.Mutex
	own standing // changed with turn held

	heard map[int32]string // what the others have last said by themselves
}

// checkMembers refuses a directory that cannot be one of a cluster with nodes;
// nil means that the node is alone.
func (id *identity) checkMembers(nodes []int32, dir string) error {
	switch founded := id.Founders.ids(); {
	case id.Joins && id.Founded && nodes != nil:
		return fmt.Errorf("%w: %s is of a node that joined a cluster of nodes %s when it was there, and knows where they are; leave cluster.nodes out",
			ErrMembers, dir, list(founded))
	case id.Joins && id.Founded:
		return fmt.Errorf("%w: %s is of a node that joined a cluster of nodes %s, and cannot serve alone; start it with node.listen, as it was",
			ErrMembers, dir, list(founded))
	case id.Joins:
		return fmt.Errorf("%w: %s is of a node that was to join cluster %q, and has not yet; give join again, or an empty directory",
			ErrMembers, dir, id.ClusterID)
	case nodes == nil && founded != nil:
		return fmt.Errorf("%w: %s is of a cluster of nodes %s; say with cluster.nodes where they are", ErrMembers, dir, list(founded))
	case nodes == nil:
		return nil
	case founded == nil && id.Started:
		return fmt.Errorf("%w: %s has been served from by a node that was alone, and cannot become one of nodes %s; give an empty directory, or leave cluster.nodes out",
			ErrMembers, dir, list(nodes))
	case founded != nil && !slices.Equal(founded, nodes):
		return fmt.Errorf("%w: cluster.nodes lists nodes %s, and the cluster of %s was founded with nodes %s; list those: nodes that have joined since are not listed",
			ErrMembers, list(nodes), dir, list(founded))
	case founded != nil && id.Replaces == 0 && id.Founders.incarnation(id.NodeID) != id.Incarnation:
		return fmt.Errorf("%w: %s is of incarnation %016x, and the cluster was founded with %016x as node %d; put the directory's own %s back",
			ErrMembers, dir, uint64(id.Incarnation), uint64(id.Founders.incarnation(id.NodeID)), id.NodeID, identityName)
	}
	return nil
}

// found returns when the node's directory is one of a founded cluster, which it
// is durably then.
func (n *Node) found(ctx context.Context) error {
	f := &founding{n: n, nodes: slices.Sorted(slices.Values(n.opt.Cluster.Nodes)), kick: make(chan struct{}, 1), fault: make(chan error, 1), turn: make(chan struct{}, 1), heard: make(map[int32]string)}
	if !slices.Contains(f.nodes, n.id.NodeID) {
		return fmt.Errorf("node: node %d is not among the nodes %s of its cluster", n.id.NodeID, list(f.nodes))
	}
	if err := n.id.checkMembers(f.nodes, n.opt.Dir); err != nil {
		return err
	}
	f.look()
	f.vigil = vigil{log: n.opt.Log, line: "waiting for the cluster to be founded; clients are not served yet", woken: f.kick, fault: f.fault}
	n.founding.Store(f)
	return f.vigil.rounds(ctx, func() (outcome, error) {
		if f.standing().Founded {
			return done, nil
		}
		return f.round(ctx)
	}, func() error {
		return errors.Join(ctx.Err(), fmt.Errorf("node: the cluster was not founded in time: %s", f.waiting()))
	})
}

// members is what the broker knows of the cluster.
func (n *Node) members() *broker.Cluster {
	p := plan{clusterID: n.id.ClusterID, shards: n.id.Shards, founders: n.id.Founders}
	c := &broker.Cluster{Voters: p.voters, Replica: p.replica, Connect: n.opt.Cluster.Connect, Peers: n.opt.Cluster.Peers, NodeAddress: n.opt.Cluster.Address, Met: n.met}
	for _, f := range p.founders.list() {
		c.Founders = append(c.Founders, broker.Founder{ID: f.node, Incarnation: uint64(f.incarnation)})
	}
	return c
}

// met takes note of where the other nodes are.
func (n *Node) met(addresses map[int32]string) {
	if n.joining != nil {
		n.joining.met(addresses)
	}
	if n.opt.Cluster.Met != nil {
		n.opt.Cluster.Met(addresses)
	}
}

// end keeps the founding from touching the directory any more.
func (f *founding) end() {
	f.turn <- struct{}{}
	f.closed = cmp.Or(f.closed, errors.New("node: the node stops, and records nothing"))
	<-f.turn
}

// standing returns what the node is.
func (f *founding) standing() standing {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.own
}

// look takes the node's standing from its identity.
func (f *founding) look() {
	id := &f.n.id
	own := standing{
		ClusterID: id.ClusterID, NodeID: id.NodeID, Incarnation: id.Incarnation, Nodes: f.nodes,
		Level:    f.n.level(),
		Alone:    id.Started && id.Founders == "",
		Founders: id.Founders, Founded: id.Founded,
	}
	if id.Founders != "" {
		own.Shards = id.Shards
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own = own
}

// round asks all the others once, and takes one step, if there is one to take.
func (f *founding) round(ctx context.Context) (out outcome, err error) {
	own := f.standing()
	s := decide(&own, f.n.opt.Shards, f.ask(ctx, own))
	switch {
	case s.rejoin.founders != "":
		return f.rejoin(ctx, s.rejoin)
	case s.record.founders != "":
		err = f.record(s.record)
	case s.found:
		err = f.change(func(id *identity) { id.Founded = true })
	default:
		f.vigil.say(strings.Join(s.wait, "; "))
		return waits, nil
	}
	return moved, err
}

// ask asks all other nodes for their standing at once.
func (f *founding) ask(ctx context.Context, own standing) map[int32]reply {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	var group sync.WaitGroup
	var mu sync.Mutex
	replies := make(map[int32]reply)
	question := own.encode()
	for _, node := range f.nodes {
		if node == own.NodeID {
			continue
		}
		group.Go(func() {
			var r reply
			answer, err := f.n.opt.Cluster.Peers.Call(ctx, node, broker.MethodStanding, question)
			if err == nil {
				r.standing, err = decodeStanding(answer)
			}
			r.err = err
			mu.Lock()
			defer mu.Unlock()
			replies[node] = r
		})
	}
	group.Wait()
	return replies
}

// record makes p the directory's plan, durably, unless it has one.
func (f *founding) record(p plan) error {
	return f.change(func(id *identity) {
		if id.Founders == "" {
			id.Founders, id.Shards = p.founders, p.shards
		}
	})
}

// change makes the identity durably what edit makes of it. After an error either
// may be on disk, so nothing is recorded in this process any more.
func (f *founding) change(edit func(*identity)) error {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	if f.closed != nil {
		return f.closed
	}
	if err := f.n.changeIdentity(edit); err != nil {
		f.closed = err
		f.fault <- err // the first and only one
		return err
	}
	f.look()
	return nil
}

// waiting returns what keeps the node from serving, or nothing.
func (f *founding) waiting() string {
	if f.standing().Founded {
		return ""
	}
	return f.vigil.reason()
}

// answer answers another node that says how it stands, and takes its plan, if it
// is one for this node.
func (f *founding) answer(from int32, payload []byte) ([]byte, error) {
	theirs, err := decodeStanding(payload)
	if err != nil {
		return nil, err
	}
	if theirs.NodeID != from {
		return nil, fmt.Errorf("node %d says that it is node %d", from, theirs.NodeID)
	}
	own := f.standing()
	if p, ok := theirs.plan(); ok && own.takes(&theirs) {
		if err := f.record(p); err != nil {
			return nil, err
		}
		own = f.standing()
	}
	if f.news(from, string(payload)) {
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
	return own.encode(), nil
}

// news reports whether a node of the cluster says something new: then there is
// reason to ask the others at once. Two that kept asking each other because they
// were asked would do nothing else.
func (f *founding) news(from int32, said string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.nodes, from) || f.heard[from] == said {
		return false
	}
	f.heard[from] = said
	return true
}
