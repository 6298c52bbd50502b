package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// ClusterDescription is the cluster as one of its nodes sees it.
type ClusterDescription struct {
	ID           string
	Asked        int32 // the node that sees it so
	Controller   int32 // node that leads the metadata shard; -1: none
	FeatureLevel int
	Topics       int
	Partitions   int
	Nodes        []NodeDescription  // by id
	Shards       []ShardDescription // by id; 0 is the metadata shard
}

// NodeDescription is one node of a cluster.
type NodeDescription struct {
	Node
	Incarnation uint64 // of its data directory

	// Err is why it has not answered the node that was asked. The rest is not
	// known then, except for what others say that it leads.
	Err      error
	Version  string // of its software
	Uptime   time.Duration
	Leads    int    // shards
	Replicas int    // shards of which it has one
	Trouble  string // what keeps it from serving in full; empty: nothing
}

// ShardDescription is one shard: a Raft group that carries partitions.
type ShardDescription struct {
	ID         uint32
	Leader     int32 // node; -1: none, as far as anybody says
	Term       uint64
	LastIndex  int64 // of the leader's log; -1: the leader has not said
	Partitions int
	Replicas   []ReplicaDescription // by node

	// InSync are the nodes whose replicas min.insync.replicas counts, ascending, as
	// the node that was asked tells Kafka clients; empty for the metadata shard.
	InSync []int32
}

// ReplicaStatus says how a replica is. A number that this version does not know
// is no reason to fail: its String says so.
type ReplicaStatus int

// The statuses of a replica. All but ReplicaOK are a reason to look.
const (
	ReplicaUnknown    = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_UNKNOWN)     // there is no leader that could say
	ReplicaOK         = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_OK)          // has all of the log, or nearly
	ReplicaLags       = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_LAGS)        // lacks more than 128 entries
	ReplicaCatchingUp = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_CATCHING_UP) // needs more than the leader's log holds
	ReplicaSilent     = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_SILENT)      // its node has not answered
	ReplicaLost       = ReplicaStatus(pb.ReplicaStatus_REPLICA_STATUS_LOST)        // its node has another one in its place, or none
)

var replicaStatusNames = [...]string{
	ReplicaUnknown: "unknown", ReplicaOK: "ok", ReplicaLags: "lags", ReplicaCatchingUp: "catching up", ReplicaSilent: "silent", ReplicaLost: "lost",
}

// String returns the status as people read it, such as "catching up".
func (s ReplicaStatus) String() string {
	if s < 0 || int(s) >= len(replicaStatusNames) {
		return fmt.Sprintf("status(%d)", int(s))
	}
	return replicaStatusNames[s]
}

// ReplicaDescription is one replica of a shard.
type ReplicaDescription struct {
	Node         int32
	Incarnation  uint64
	Voter        bool
	Status       ReplicaStatus
	MatchIndex   int64 // last entry that it has in common with the leader; -1: not known, like the next two
	LagEntries   int64 // entries of the leader's log that it lacks
	AppliedIndex int64
	Quarantined  int // partitions
	Damaged      int // ranges of its partitions that are damaged and not repaired yet
}

// DescribeCluster returns nodes and shards as one node, whichever answers, sees
// them. It asks the other nodes for at most wait, in whole milliseconds up to
// 10 s (0: a second): those that do not answer have their Err set, and what only
// they know is missing. Figures of one call are not all of the same moment.
func (a *Admin) DescribeCluster(ctx context.Context, wait time.Duration) (ClusterDescription, error) {
	var d ClusterDescription
	req := &pb.DescribeClusterRequest{WaitMs: uint32(min(max(wait.Milliseconds(), 0), 10_000))}
	for {
		resp := new(pb.DescribeClusterResponse)
		if err := a.c.ask(ctx, frame.KindDescribeCluster, req, resp); err != nil {
			return ClusterDescription{}, fmt.Errorf("client: describe cluster: %w", err)
		}
		before := d.Shards
		d = fromCluster(resp)
		d.Shards = append(before, d.Shards...)
		if !resp.More {
			return d, nil
		}
		if len(d.Shards) == len(before) || d.Shards[len(d.Shards)-1].ID < req.FirstShard {
			return ClusterDescription{}, fmt.Errorf("client: describe cluster: %w: no progress", ErrProtocol)
		}
		req.FirstShard = d.Shards[len(d.Shards)-1].ID + 1
	}
}

func fromCluster(resp *pb.DescribeClusterResponse) ClusterDescription {
	d := ClusterDescription{
		ID: resp.ClusterId, Asked: resp.Asked, Controller: resp.Controller, FeatureLevel: int(resp.FeatureLevel),
		Topics: int(resp.Topics), Partitions: int(resp.Partitions),
	}
	for _, n := range resp.Nodes {
		d.Nodes = append(d.Nodes, NodeDescription{
			Node: Node{ID: n.Id, Address: n.Address, Rack: n.Rack}, Incarnation: n.Incarnation, Err: fromServer(n.Error),
			Version: n.Version, Uptime: time.Duration(min(n.UptimeMs, 1<<40)) * time.Millisecond,
			Leads: int(n.Leads), Replicas: int(n.Replicas), Trouble: n.Trouble,
		})
	}
	for _, s := range resp.Shards {
		shard := ShardDescription{ID: s.Id, Leader: s.Leader, Term: s.Term, LastIndex: s.LastIndex, Partitions: int(s.Partitions), InSync: s.InSync}
		for _, r := range s.Replicas {
			shard.Replicas = append(shard.Replicas, ReplicaDescription{
				Node: r.Node, Incarnation: r.Incarnation, Voter: r.Voter, Status: ReplicaStatus(r.Status),
				MatchIndex: r.MatchIndex, LagEntries: r.LagEntries, AppliedIndex: r.AppliedIndex, Quarantined: int(r.Quarantined), Damaged: int(r.Damaged),
			})
		}
		d.Shards = append(d.Shards, shard)
	}
	return d
}

// AnyNode as a target of TransferShard stands for the voter that has most of the
// shard's log.
const AnyNode int32 = -1

// TransferShard has the leader of a shard hand its leadership over to a node,
// and returns who leads then: in all likelihood that node, and another one if it
// won the election after all. If the node leads already, nothing is done. Writes
// of the shard's partitions wait meanwhile, usually for some milliseconds.
//
// The error has the code INVALID_REPLICA_ASSIGNMENT if the node has no voter of
// the shard, ELIGIBLE_LEADERS_NOT_AVAILABLE if its voter does not answer or lacks
// too much of the log, and RESOURCE_NOT_FOUND if there is no such shard: the
// leader stays. Only a shard without a leader, and one whose leader has just
// changed, is tried again, until RequestTimeout has passed or ctx ends.
func (a *Admin) TransferShard(ctx context.Context, shard uint32, to int32) (leader int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.c.cfg.RequestTimeout)
	defer cancel()
	for failures := 1; ; failures++ {
		var again bool
		if leader, again, err = a.transferOnce(ctx, shard, to); err == nil {
			return leader, nil
		}
		if !again {
			return 0, fmt.Errorf("client: transfer shard %d: %w", shard, err)
		}
		a.c.links.next.Add(1)
		if !pause(ctx, a.c.backoff(failures)) {
			return 0, fmt.Errorf("client: transfer shard %d: %w", shard, errors.Join(ctx.Err(), err))
		}
	}
}

// transferOnce asks who leads the shard, and that node to hand it over. again
// says that nothing was done, and that it may be otherwise soon.
func (a *Admin) transferOnce(ctx context.Context, shard uint32, to int32) (leader int32, again bool, err error) {
	var resp pb.DescribeClusterResponse
	if err := a.c.ask(ctx, frame.KindDescribeCluster, &pb.DescribeClusterRequest{FirstShard: shard}, &resp); err != nil {
		return 0, false, err
	}
	d := fromCluster(&resp)
	l := a.c.anyLink() // says that there is no such shard
	if len(d.Shards) > 0 && d.Shards[0].ID == shard {
		i := slices.IndexFunc(d.Nodes, func(n NodeDescription) bool { return n.ID == d.Shards[0].Leader && n.Address != "" })
		if i < 0 {
			return 0, true, &errcode.Error{Code: errcode.LeaderNotAvailable, Detail: fmt.Sprintf("node %d knows no leader of the shard", d.Asked)}
		}
		l = a.c.link(d.Nodes[i].Address)
	}
	req := &pb.TransferShardRequest{Shard: shard, To: to, TimeoutMs: a.c.serverTimeoutMS()}
	answer := new(pb.TransferShardResponse)
	_, sent, err := l.do(ctx, &call{kind: frame.KindTransferShard, req: req, resp: answer})
	code, answered := CodeOf(err)
	switch {
	case err == nil:
		return answer.Leader, false, nil
	case code == errcode.NotLeaderOrFollower:
		return 0, true, err
	case sent && (!answered || code == errcode.RequestTimedOut || code == errcode.UnknownServer):
		return 0, false, unknown(err)
	}
	return 0, !answered && retriable(err), err
}
