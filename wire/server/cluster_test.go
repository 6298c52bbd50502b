package server_test

import (
	"testing"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestDescribeCluster: a node alone tells of itself and its shards, from the one
// that is asked for on.
func TestDescribeCluster(t *testing.T) {
	t.Parallel()
	n, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	p.ask(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "t", Partitions: 6}, new(pb.CreateTopicResponse))
	resp := new(pb.DescribeClusterResponse)
	p.ask(frame.KindDescribeCluster, &pb.DescribeClusterRequest{WaitMs: 1 << 31}, resp)
	if resp.ClusterId != n.ClusterID() || resp.Asked != 1 || resp.Controller != 1 || resp.FeatureLevel == 0 || resp.Topics != 1 || resp.Partitions != 6 || resp.More {
		t.Errorf("%v", resp)
	}
	if len(resp.Nodes) != 1 || resp.Nodes[0].Address != addr || resp.Nodes[0].Error != nil || resp.Nodes[0].Version != "test" || resp.Nodes[0].Leads != 5 || resp.Nodes[0].Incarnation == 0 {
		t.Errorf("nodes %v", resp.Nodes)
	}
	partitions := uint32(0)
	for i, s := range resp.Shards {
		partitions += s.Partitions
		if s.Id != uint32(i) || s.Leader != 1 || s.Term == 0 || len(s.Replicas) != 1 {
			t.Fatalf("shard %v", s)
		}
		r := s.Replicas[0]
		if r.Node != 1 || !r.Voter || r.Status != pb.ReplicaStatus_REPLICA_STATUS_OK || r.LagEntries != 0 || r.AppliedIndex < 1 {
			t.Errorf("replica %v of shard %d", r, s.Id)
		}
	}
	if len(resp.Shards) != 5 || partitions != 6 {
		t.Errorf("%d shards with %d partitions, want 5 with 6", len(resp.Shards), partitions)
	}
	p.ask(frame.KindDescribeCluster, &pb.DescribeClusterRequest{FirstShard: 3}, resp)
	if len(resp.Shards) != 2 || resp.Shards[0].Id != 3 || len(resp.Nodes) != 1 {
		t.Errorf("from shard 3 on: %v", resp)
	}
	moved := new(pb.TransferShardResponse)
	p.ask(frame.KindTransferShard, &pb.TransferShardRequest{Shard: 2, To: 1}, moved)
	if moved.Leader != 1 || moved.Term == 0 {
		t.Errorf("a transfer to the leader: %v", moved)
	}
}
