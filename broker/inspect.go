package broker

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
)

// maxInspections is how many looks at the cluster are under way at once, each
// with a call to every node.
const maxInspections = 4

// ClusterState is the cluster as one node sees it at one moment: its own
// metadata, and what the nodes that answered it say of their replicas.
type ClusterState struct {
	ClusterID    string
	Asked        int32 // the node that sees it so
	Controller   int32 // node that leads the metadata shard; -1: none
	FeatureLevel uint16
	Topics       int
	Partitions   int
	Nodes        []NodeState  // by id
	Shards       []ShardState // by id, the metadata shard (0) first
}

// NodeState is one node of the cluster.
type NodeState struct {
	Node               // its address is empty if it has none for the listener
	Incarnation uint64 // of its data directory

	// Err is why it has not said anything, and then what follows is not known.
	Err      error
	Version  string // of its software
	Uptime   time.Duration
	Leads    int    // shards
	Replicas int    // shards of which it has one
	Trouble  string // what keeps it from serving in full; empty: nothing
}

// ShardState is one shard.
type ShardState struct {
	ID         uint32
	Leader     int32  // -1: none, as far as anybody says
	Term       uint64 // the leader's; without one, the newest that anybody knows
	Last       int64  // last entry of the leader's log; -1: the leader has not said
	Partitions int    // that topics have on it
	Replicas   []ReplicaState

	// InSync are the nodes whose replicas are in sync, ascending, as this node tells
	// clients of the shard's partitions; nil for the metadata shard, which has none.
	InSync []int32
}

// ReplicaStatus says how a replica is.
type ReplicaStatus uint8

// The statuses of a replica. All but the first are a reason to look.
const (
	ReplicaOK         ReplicaStatus = iota + 1
	ReplicaUnknown                  // there is no leader that could say
	ReplicaLags                     // lacks more than a little of the leader's log
	ReplicaCatchingUp               // needs more than the leader's log holds
	ReplicaSilent                   // its node has not answered
	ReplicaLost                     // its node has answered, and has another one in its place, or none
)

// ReplicaState is one replica of a shard.
type ReplicaState struct {
	Node        int32
	Incarnation uint64
	Voter       bool
	Status      ReplicaStatus
	Match       int64 // last entry that it has in common with the leader; -1: not known, as below
	Lag         int64 // entries of the leader's log that it lacks
	Applied     int64 // index of the last entry that it has applied, as it says
	Quarantined int   // partitions that it has put into quarantine, as it says
	Damaged     int   // ranges of its partitions that it knows to be damaged, as it says
}

// Inspect returns the state of the cluster. The other nodes are asked at once,
// and those that have not answered after wait have their Err set: it always
// returns what there is, unless ctx ends before it is its turn. A node that
// knows no metadata yet returns Knows's error.
func (b *Broker) Inspect(ctx context.Context, listener string, wait time.Duration) (ClusterState, error) {
	if err := b.Knows(); err != nil {
		return ClusterState{}, err
	}
	select {
	case b.inspecting <- struct{}{}:
		defer func() { <-b.inspecting }()
	case <-ctx.Done():
		return ClusterState{}, errcode.Errorf(errcode.RequestTimedOut, "%d others look at the cluster", maxInspections)
	}
	reports, failures := b.gather(ctx, wait)
	im := b.image()
	s := ClusterState{
		ClusterID: im.ClusterID(), Asked: b.opt.NodeID, Controller: -1, FeatureLevel: im.FeatureLevel(),
		Topics: im.TopicCount(), Partitions: im.PartitionCount(),
	}
	shards := map[uint32]*ShardState{uint32(replication.MetadataShard): {}}
	for shard := range im.Shards() {
		inSync := slices.Sorted(slices.Values(b.leaderOnShard(shard.ID).InSync))
		shards[uint32(shard.ID)] = &ShardState{Partitions: shard.Partitions, InSync: inSync}
	}
	for id, shard := range shards {
		shard.merge(id, reports, failures)
		if len(shard.Replicas) == 0 { // nobody knows its configuration
			for _, node := range b.replicasOf(metadata.ShardID(id)) {
				shard.Replicas = append(shard.Replicas, unheard(node, failures))
			}
		}
	}
	for n := range im.Nodes() {
		node := NodeState{Node: Node{ID: int32(n.ID), Rack: n.Rack}, Incarnation: n.Incarnation, Err: failures[int32(n.ID)]}
		for _, a := range n.Addresses {
			if a.Listener == listener {
				node.Address = net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
			}
		}
		if r, ok := reports[node.ID]; ok {
			node.Version, node.Uptime, node.Trouble = r.Version, time.Duration(r.UptimeMS)*time.Millisecond, r.Trouble
			node.Replicas = len(r.Shards)
		}
		for _, shard := range shards {
			if shard.Leader == node.ID {
				node.Leads++
			}
		}
		s.Nodes = append(s.Nodes, node)
	}
	for _, id := range slices.Sorted(maps.Keys(shards)) {
		s.Shards = append(s.Shards, *shards[id])
	}
	s.Controller = s.Shards[0].Leader
	return s, nil
}

// gather asks every node for its report, this one included. Each node has
// either a report or an error.
func (b *Broker) gather(ctx context.Context, wait time.Duration) (map[int32]nodeReport, map[int32]error) {
	reports := map[int32]nodeReport{b.opt.NodeID: b.ownReport()}
	failures := make(map[int32]error)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(b.stopping, cancel)()
	var mu sync.Mutex
	var group sync.WaitGroup
	for _, node := range b.NodeIDs() {
		if node == b.opt.NodeID {
			continue
		}
		group.Go(func() {
			r, err := b.askReport(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				failures[node] = errcode.Errorf(errcode.RequestTimedOut, "no answer within %s", wait)
			case err != nil:
				failures[node] = err
			default:
				reports[node] = r
			}
		})
	}
	group.Wait()
	return reports, failures
}

// errNoPeers is why a node without Cluster.Peers asks nobody.
var errNoPeers = errors.New("broker: this node has no connections to others")

func (b *Broker) askReport(ctx context.Context, node int32) (nodeReport, error) {
	if b.opt.Cluster == nil || b.opt.Cluster.Peers == nil {
		return nodeReport{}, errNoPeers
	}
	raw, err := b.opt.Cluster.Peers.Call(ctx, node, methodReport, nil)
	if err != nil {
		return nodeReport{}, err
	}
	return decodeReport(node, raw)
}

// merge makes the state of a shard from what nodes say of it. The leader of the
// highest term is believed; a leader that has not said anything is who another
// replica in that term takes for it.
func (s *ShardState) merge(id uint32, reports map[int32]nodeReport, failures map[int32]error) {
	s.ID, s.Leader, s.Last = id, -1, -1
	said := make(map[int32]*shardReport)
	for node, r := range reports {
		if i := slices.IndexFunc(r.Shards, func(one shardReport) bool { return one.Shard == id }); i >= 0 {
			said[node] = &r.Shards[i]
		}
	}
	var leads, newest *shardReport
	for _, node := range slices.Sorted(maps.Keys(said)) {
		one := said[node]
		if one.Leading && (leads == nil || one.Term > leads.Term) {
			leads, s.Leader = one, node
		}
		if len(one.Members) > 0 && (newest == nil || cmp.Or(cmp.Compare(one.Term, newest.Term), cmp.Compare(one.Last, newest.Last)) > 0) {
			newest = one
		}
		s.Term = max(s.Term, one.Term)
	}
	if leads != nil {
		newest, s.Term, s.Last = leads, leads.Term, int64(leads.Last)
	} else {
		for _, one := range said {
			if _, silent := failures[one.Leader]; silent && one.Term == s.Term {
				s.Leader = one.Leader
			}
		}
	}
	if newest == nil {
		return
	}
	for i := range newest.Members {
		s.Replicas = append(s.Replicas, s.replica(&newest.Members[i], leads, said, failures))
	}
	slices.SortFunc(s.Replicas, func(a, b ReplicaState) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}

// replica is the state of one replica, as the leader and the replica itself say.
func (s *ShardState) replica(m *memberReport, leads *shardReport, said map[int32]*shardReport, failures map[int32]error) ReplicaState {
	r := unheard(m.Node, failures)
	r.Incarnation, r.Voter = m.Incarnation, m.Voter
	if own := said[m.Node]; own != nil && own.Incarnation == m.Incarnation {
		r.Applied, r.Quarantined, r.Damaged = int64(own.Applied), own.Quarantined, own.Damaged
	} else if r.Status != ReplicaSilent {
		r.Status = ReplicaLost
	}
	if leads == nil {
		return r
	}
	if m.Match > 0 {
		r.Match, r.Lag = int64(m.Match), max(int64(leads.Last)-int64(m.Match), 0)
	}
	switch {
	case r.Status == ReplicaSilent || r.Status == ReplicaLost:
	case m.Behind:
		r.Status = ReplicaCatchingUp
	case r.Lag < 0 || r.Lag > maxLagEntries:
		r.Status = ReplicaLags
	default:
		r.Status = ReplicaOK
	}
	return r
}

// unheard is the state of a replica of which nobody says anything.
func unheard(node int32, failures map[int32]error) ReplicaState {
	r := ReplicaState{Node: node, Status: ReplicaUnknown, Match: -1, Lag: -1, Applied: -1}
	if _, silent := failures[node]; silent {
		r.Status = ReplicaSilent
	}
	return r
}
