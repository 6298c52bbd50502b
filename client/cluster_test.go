package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestDescribeCluster: the pages of an answer are put together, and one that
// does not end is an error.
func TestDescribeCluster(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		stuck := false
		f.onCluster = func(_ int32, m proto.Message) proto.Message {
			req := m.(*pb.DescribeClusterRequest)
			if req.WaitMs != 250 {
				t.Errorf("wait_ms %d, want 250", req.WaitMs)
			}
			resp := &pb.DescribeClusterResponse{
				ClusterId: "c", Asked: 1, Controller: -1, FeatureLevel: 2, Topics: 3, Partitions: 4,
				Nodes: []*pb.NodeDetail{
					{Id: 0, Address: "node0:9092", Rack: "a", Incarnation: 1 << 63, Version: "0.1.0", UptimeMs: 90_000, Leads: 1, Replicas: 2, Trouble: "full"},
					{Id: 1, Error: frame.NewError(errcode.RequestTimedOut, "no answer")},
				},
			}
			first := req.FirstShard
			if stuck {
				first = 0
			}
			for id := first; id < min(first+2, 5); id++ {
				resp.Shards = append(resp.Shards, &pb.ShardDetail{Id: id, Leader: -1, Term: 7, LastIndex: -1, Partitions: 2, InSync: []int32{1}, Replicas: []*pb.ReplicaDetail{
					{Node: 1, Incarnation: 9, Voter: true, Status: pb.ReplicaStatus_REPLICA_STATUS_SILENT, MatchIndex: 5, LagEntries: 6, AppliedIndex: -1, Quarantined: 1, Damaged: 2},
				}})
			}
			resp.More = first+2 < 5
			return resp
		}
		d, err := c.Admin().DescribeCluster(t.Context(), 250*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		want := ClusterDescription{ID: "c", Asked: 1, Controller: -1, FeatureLevel: 2, Topics: 3, Partitions: 4}
		want.Nodes = []NodeDescription{
			{Node: Node{ID: 0, Address: "node0:9092", Rack: "a"}, Incarnation: 1 << 63, Version: "0.1.0", Uptime: 90 * time.Second, Leads: 1, Replicas: 2, Trouble: "full"},
			{Node: Node{ID: 1}, Err: d.Nodes[1].Err},
		}
		for id := range uint32(5) {
			want.Shards = append(want.Shards, ShardDescription{ID: id, Leader: -1, Term: 7, LastIndex: -1, Partitions: 2, InSync: []int32{1}, Replicas: []ReplicaDescription{
				{Node: 1, Incarnation: 9, Voter: true, Status: ReplicaSilent, MatchIndex: 5, LagEntries: 6, AppliedIndex: -1, Quarantined: 1, Damaged: 2},
			}})
		}
		if diff := cmp.Diff(want, d, cmp.Comparer(func(a, b error) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if code, _ := CodeOf(d.Nodes[1].Err); code != errcode.RequestTimedOut {
			t.Errorf("node 1: %v", d.Nodes[1].Err)
		}
		f.hook(func() { stuck = true })
		if _, err := c.Admin().DescribeCluster(t.Context(), 250*time.Millisecond); !errors.Is(err, ErrProtocol) {
			t.Errorf("pages that do not end: %v, want ErrProtocol", err)
		}
	})
}

func TestReplicaStatusNames(t *testing.T) {
	for number, name := range pb.ReplicaStatus_name {
		if got := ReplicaStatus(number).String(); got == "" || got == fmt.Sprintf("status(%d)", number) {
			t.Errorf("%s has no name", name)
		}
	}
	if got := ReplicaStatus(99).String(); got != "status(99)" {
		t.Errorf("status 99 is %q", got)
	}
}

// transfers is a cluster of two nodes whose shard 3 has a leader.
type transfers struct {
	leader int32
	asked  []int32 // nodes that were asked to hand it over
	answer func(node int32, req *pb.TransferShardRequest) proto.Message
}

func (x *transfers) handle(node int32, m proto.Message) proto.Message {
	if req, ok := m.(*pb.TransferShardRequest); ok {
		x.asked = append(x.asked, node)
		return x.answer(node, req)
	}
	resp := &pb.DescribeClusterResponse{Asked: node}
	if m.(*pb.DescribeClusterRequest).FirstShard <= 3 {
		resp.Shards = []*pb.ShardDetail{{Id: 3, Leader: x.leader}, {Id: 4, Leader: 0}}
	}
	for id := range int32(2) {
		resp.Nodes = append(resp.Nodes, &pb.NodeDetail{Id: id, Address: fmt.Sprintf("node%d:9092", id)})
	}
	return resp
}

// TestTransferShard: the leader is asked, once; and again, whoever leads, only
// while nothing was done.
func TestTransferShard(t *testing.T) {
	refuse := func(code errcode.Code) func(int32, *pb.TransferShardRequest) proto.Message {
		return func(int32, *pb.TransferShardRequest) proto.Message { return frame.NewError(code, "") }
	}
	tests := []struct {
		name   string
		shard  uint32
		leader int32
		answer func(x *transfers, node int32) proto.Message // nil: handed over
		asked  []int32
		code   errcode.Code
		is     error
	}{
		{name: "handed over", shard: 3, leader: 1, asked: []int32{1}},
		{name: "just moved", shard: 3, leader: 1, asked: []int32{1, 0}, answer: func(x *transfers, node int32) proto.Message {
			if node == 0 {
				return nil
			}
			x.leader = 0
			return refuse(errcode.NotLeaderOrFollower)(node, nil)
		}},
		{name: "lags", shard: 3, leader: 1, asked: []int32{1}, code: errcode.EligibleLeadersNotAvailable, answer: func(_ *transfers, node int32) proto.Message {
			return refuse(errcode.EligibleLeadersNotAvailable)(node, nil)
		}},
		{name: "may have happened", shard: 3, leader: 1, asked: []int32{1}, code: errcode.RequestTimedOut, is: ErrUnknownOutcome, answer: func(_ *transfers, node int32) proto.Message {
			return refuse(errcode.RequestTimedOut)(node, nil)
		}},
		{name: "no such shard", shard: 9, leader: 1, asked: []int32{0}, code: errcode.ResourceNotFound, answer: func(_ *transfers, node int32) proto.Message {
			return refuse(errcode.ResourceNotFound)(node, nil)
		}},
		{name: "no leader", shard: 3, leader: -1, code: errcode.LeaderNotAvailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, f *fakeCluster) {
				c := f.client()
				defer c.Close()
				x := &transfers{leader: tt.leader}
				x.answer = func(node int32, req *pb.TransferShardRequest) proto.Message {
					if req.Shard != tt.shard || req.To != 7 || req.TimeoutMs == 0 {
						t.Errorf("asked for %v", req)
					}
					if tt.answer != nil {
						if m := tt.answer(x, node); m != nil {
							return m
						}
					}
					return &pb.TransferShardResponse{Leader: 7, Term: 5}
				}
				f.hook(func() { f.onCluster = x.handle })
				leader, err := c.Admin().TransferShard(t.Context(), tt.shard, 7)
				code, _ := CodeOf(err)
				if code != tt.code || tt.is != nil && !errors.Is(err, tt.is) || (err == nil) != (leader == 7) {
					t.Errorf("TransferShard = %d, %v; want %v", leader, err, tt.code)
				}
				if diff := cmp.Diff(tt.asked, x.asked); diff != "" {
					t.Errorf("asked (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestTransferShardUnanswered: a connection that breaks leaves it open whether
// it was handed over.
func TestTransferShardUnanswered(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		x := &transfers{leader: 1, answer: func(int32, *pb.TransferShardRequest) proto.Message { return nil }}
		f.hook(func() { f.onCluster = x.handle })
		if _, err := c.Admin().TransferShard(t.Context(), 3, 7); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("TransferShard = %v, want ErrUnknownOutcome", err)
		}
		if len(x.asked) != 1 {
			t.Errorf("asked %v", x.asked)
		}
	})
}
