package client

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

func (f *fakeCluster) features() proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &pb.DescribeFeaturesResponse{
		FeatureLevel: f.featureLevel, Nodes: []*pb.NodeFeatures{{NodeId: 0, MaxFeatureLevel: 3}, {NodeId: 1, MaxFeatureLevel: 2}},
		Shards: []*pb.ShardFeatures{{Shard: 1, ApplyVersion: 1}, {Shard: 2, ApplyVersion: 2}},
	}
}

// upgrade answers as node 1, which leads the metadata shard, or another would.
func (f *fakeCluster) upgrade(node int32, req *pb.UpgradeFeaturesRequest) proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := &pb.UpgradeFeaturesResponse{Before: f.featureLevel, FeatureLevel: req.FeatureLevel}
	switch {
	case node != 1:
		e := frame.NewError(errcode.NotController, "")
		e.Leader = &pb.LeaderHint{NodeId: 1, Address: f.nodes[1]}
		return e
	case req.FeatureLevel > 2:
		return frame.NewError(errcode.InvalidUpdateVersion, "node 1 knows feature levels up to 2")
	case req.FeatureLevel == 0:
		resp.FeatureLevel = 2
	}
	if !req.ValidateOnly {
		f.featureLevel = resp.FeatureLevel
	}
	return resp
}

func TestAdminFeatures(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) { cfg.Bootstrap = []string{"node0:9092", "node1:9092"} })
		defer c.Close()
		f.featureLevel = 1
		want := Features{Level: 1, Nodes: []NodeFeatures{{0, 3}, {1, 2}}, Shards: []ShardFeatures{{1, 1}, {2, 2}}}
		got, err := c.Admin().DescribeFeatures(t.Context())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("DescribeFeatures: %v (-want +got):\n%s", err, diff)
		}
		for _, tt := range []struct {
			level         uint32
			validateOnly  bool
			before, after uint32
			code          errcode.Code
		}{
			{0, true, 1, 2, 0},
			{3, false, 0, 0, errcode.InvalidUpdateVersion},
			{0, false, 1, 2, 0},
			{2, false, 2, 2, 0},
		} {
			before, after, err := c.Admin().UpgradeFeatures(t.Context(), tt.level, tt.validateOnly)
			if code, _ := CodeOf(err); before != tt.before || after != tt.after || code != tt.code {
				t.Errorf("UpgradeFeatures(%d, %t) = %d, %d, %v; want %d, %d, code %d", tt.level, tt.validateOnly, before, after, err, tt.before, tt.after, tt.code)
			}
		}
	})
}

func TestNewestLevel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		nodes []NodeFeatures
		want  uint32
	}{
		{nil, 0},
		{[]NodeFeatures{{1, 2}}, 2},
		{[]NodeFeatures{{1, 2}, {2, 1}, {3, 4}}, 1},
		{[]NodeFeatures{{1, 2}, {2, 0}}, 0},
	} {
		if got := (&Features{Nodes: tt.nodes}).NewestLevel(); got != tt.want {
			t.Errorf("NewestLevel of %v = %d, want %d", tt.nodes, got, tt.want)
		}
	}
}

// TestControllerHint: a client that knows one node finds the controller by the
// address that the node names.
func TestControllerHint(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) { cfg.Bootstrap = []string{"node0:9092"} })
		defer c.Close()
		f.featureLevel = 1
		if before, after, err := c.Admin().UpgradeFeatures(t.Context(), 0, false); err != nil || before != 1 || after != 2 {
			t.Errorf("UpgradeFeatures at a node that is not the controller: %d, %d, %v", before, after, err)
		}
	})
}
