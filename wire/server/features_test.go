package server_test

import (
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// A fresh cluster is at the newest level that its node knows; raising it to that
// changes nothing, and is no error.
func TestFeatures(t *testing.T) {
	_, addr := startNode(t, 0)
	p := connect(t, addr)
	f := new(pb.DescribeFeaturesResponse)
	p.ask(frame.KindDescribeFeatures, &pb.DescribeFeaturesRequest{}, f)
	if len(f.Nodes) != 1 || f.FeatureLevel == 0 || f.Nodes[0].MaxFeatureLevel != f.FeatureLevel || f.Nodes[0].NodeId == 0 {
		t.Errorf("described: %v", f)
	}
	if len(f.Shards) == 0 {
		t.Error("no shards")
	}
	for i, s := range f.Shards {
		if int(s.Shard) != i+1 || s.ApplyVersion == 0 {
			t.Errorf("place %d: %v", i, s)
		}
	}
	for _, m := range []*pb.UpgradeFeaturesRequest{{}, {ValidateOnly: true}, {FeatureLevel: f.FeatureLevel}} {
		resp := new(pb.UpgradeFeaturesResponse)
		p.ask(frame.KindUpgradeFeatures, m, resp)
		if resp.Before != f.FeatureLevel || resp.FeatureLevel != f.FeatureLevel {
			t.Errorf("%v: %v, want from and to level %d", m, resp, f.FeatureLevel)
		}
	}
	// 65538 is 2 in the 16 bits that a level has.
	for _, level := range []uint32{f.FeatureLevel - 1, f.FeatureLevel + 1, 1<<16 + f.FeatureLevel} {
		p.refused(errcode.InvalidUpdateVersion, frame.KindUpgradeFeatures, &pb.UpgradeFeaturesRequest{FeatureLevel: level})
	}
}
