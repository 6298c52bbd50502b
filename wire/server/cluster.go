package server

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// How long DescribeCluster waits for other nodes, and the bounds of one answer;
// the client asks for the rest.
const (
	defaultClusterWait = time.Second
	maxClusterWait     = 10 * time.Second
	maxShardsAnswered  = 500
	maxClusterText     = 256 // bytes, of what is said of a node
)

func (q *request) describeCluster(ctx context.Context, m *pb.DescribeClusterRequest) (proto.Message, error) {
	wait := defaultClusterWait
	if m.WaitMs != 0 {
		wait = min(time.Duration(m.WaitMs)*time.Millisecond, maxClusterWait)
	}
	s, err := q.s.opt.Broker.Inspect(ctx, q.via.Name, wait)
	if err != nil {
		return nil, err
	}
	resp := &pb.DescribeClusterResponse{
		ClusterId: s.ClusterID, Asked: s.Asked, Controller: s.Controller, FeatureLevel: uint32(s.FeatureLevel),
		Topics: uint32(s.Topics), Partitions: uint32(s.Partitions),
	}
	for i := range s.Nodes {
		resp.Nodes = append(resp.Nodes, nodeDetail(&s.Nodes[i]))
	}
	for i := range s.Shards {
		shard := &s.Shards[i]
		if shard.ID < m.FirstShard {
			continue
		}
		if resp.More = len(resp.Shards) == maxShardsAnswered; resp.More {
			break
		}
		resp.Shards = append(resp.Shards, shardDetail(shard))
	}
	return resp, nil
}

func nodeDetail(n *broker.NodeState) *pb.NodeDetail {
	d := &pb.NodeDetail{
		Id: n.ID, Address: n.Address, Rack: n.Rack, Incarnation: n.Incarnation,
		Version: shorten(n.Version), UptimeMs: uint64(n.Uptime.Milliseconds()), Leads: uint32(n.Leads), Replicas: uint32(n.Replicas), Trouble: shorten(n.Trouble),
	}
	if n.Err != nil {
		e := &errcode.Error{Code: errcode.BrokerNotAvailable, Detail: shorten(n.Err.Error())}
		if errcode.Of(n.Err) == errcode.RequestTimedOut {
			e.Code = errcode.RequestTimedOut
		}
		d.Error = pbError(e)
	}
	return d
}

// shorten bounds a text for people, and makes it valid UTF-8.
func shorten(s string) string {
	if len(s) > maxClusterText {
		s = s[:maxClusterText]
		for n := 1; n < utf8.UTFMax && !utf8.ValidString(s); n++ {
			s = s[:len(s)-1] // of a character that was cut in two
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// replicaStatus are the statuses of replicas by their numbers in the protocol.
var replicaStatus = map[broker.ReplicaStatus]pb.ReplicaStatus{
	broker.ReplicaOK:         pb.ReplicaStatus_REPLICA_STATUS_OK,
	broker.ReplicaUnknown:    pb.ReplicaStatus_REPLICA_STATUS_UNKNOWN,
	broker.ReplicaLags:       pb.ReplicaStatus_REPLICA_STATUS_LAGS,
	broker.ReplicaCatchingUp: pb.ReplicaStatus_REPLICA_STATUS_CATCHING_UP,
	broker.ReplicaSilent:     pb.ReplicaStatus_REPLICA_STATUS_SILENT,
	broker.ReplicaLost:       pb.ReplicaStatus_REPLICA_STATUS_LOST,
}

func shardDetail(s *broker.ShardState) *pb.ShardDetail {
	d := &pb.ShardDetail{Id: s.ID, Leader: s.Leader, Term: s.Term, LastIndex: s.Last, Partitions: uint32(s.Partitions), InSync: s.InSync}
	for _, r := range s.Replicas {
		d.Replicas = append(d.Replicas, &pb.ReplicaDetail{
			Node: r.Node, Incarnation: r.Incarnation, Voter: r.Voter, Status: replicaStatus[r.Status],
			MatchIndex: r.Match, LagEntries: r.Lag, AppliedIndex: r.Applied, Quarantined: uint32(r.Quarantined), Damaged: uint32(r.Damaged),
		})
	}
	return d
}

func (q *request) transferShard(ctx context.Context, m *pb.TransferShardRequest) (proto.Message, error) {
	leader, term, err := q.s.opt.Broker.TransferShard(ctx, m.Shard, m.To)
	if err != nil {
		return nil, err
	}
	return &pb.TransferShardResponse{Leader: leader, Term: term}, nil
}
