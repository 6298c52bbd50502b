package server

import (
	"context"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/wire/pb"
)

func (q *request) describeFeatures() (proto.Message, error) {
	f, err := q.s.opt.Broker.Features()
	if err != nil {
		return nil, err
	}
	resp := &pb.DescribeFeaturesResponse{FeatureLevel: uint32(f.Level)}
	for _, n := range f.Nodes {
		resp.Nodes = append(resp.Nodes, &pb.NodeFeatures{NodeId: n.ID, MaxFeatureLevel: uint32(n.MaxLevel)})
	}
	for _, s := range f.Shards {
		resp.Shards = append(resp.Shards, &pb.ShardFeatures{Shard: s.ID, ApplyVersion: uint32(s.ApplyVersion)})
	}
	return resp, nil
}

func (q *request) upgradeFeatures(ctx context.Context, m *pb.UpgradeFeaturesRequest) (proto.Message, error) {
	// No version knows a level that does not fit.
	level := uint16(min(m.FeatureLevel, math.MaxUint16))
	before, after, err := q.s.opt.Broker.UpgradeFeatures(ctx, level, m.ValidateOnly)
	if err != nil {
		return nil, err
	}
	return &pb.UpgradeFeaturesResponse{Before: uint32(before), FeatureLevel: uint32(after)}, nil
}
