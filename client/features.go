package client

import (
	"context"
	"fmt"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Features is what a cluster has agreed to write, and what its nodes know.
type Features struct {
	Level  uint32          // feature level that the cluster has finalised; 0: none, as good as 1
	Nodes  []NodeFeatures  // by id
	Shards []ShardFeatures // those of which the node that answered has a replica, by number
}

// NodeFeatures is what a node's version knows.
type NodeFeatures struct {
	NodeID   int32
	MaxLevel uint32 // the newest feature level that it knows; 0: it has not said
}

// ShardFeatures is what a shard has agreed on.
type ShardFeatures struct {
	Shard        uint32
	ApplyVersion uint32 // from 1; it follows the feature level within moments
}

// NewestLevel returns the newest feature level that every node knows, and so the
// one that UpgradeFeatures raises the cluster to; 0 if a node has not said.
func (f *Features) NewestLevel() uint32 {
	var newest uint32
	for i, n := range f.Nodes {
		if i == 0 || n.MaxLevel < newest {
			newest = n.MaxLevel
		}
	}
	return newest
}

// DescribeFeatures returns the cluster's feature level and what it depends on, as
// one node knows it.
func (a *Admin) DescribeFeatures(ctx context.Context) (Features, error) {
	resp := new(pb.DescribeFeaturesResponse)
	if err := a.c.ask(ctx, frame.KindDescribeFeatures, &pb.DescribeFeaturesRequest{}, resp); err != nil {
		return Features{}, fmt.Errorf("client: describe features: %w", err)
	}
	f := Features{Level: resp.FeatureLevel}
	for _, n := range resp.Nodes {
		f.Nodes = append(f.Nodes, NodeFeatures{NodeID: n.NodeId, MaxLevel: n.MaxFeatureLevel})
	}
	for _, s := range resp.Shards {
		f.Shards = append(f.Shards, ShardFeatures{Shard: s.Shard, ApplyVersion: s.ApplyVersion})
	}
	return f, nil
}

// UpgradeFeatures raises the cluster's feature level, 0 standing for the newest
// that every node knows, and returns what it was and what it is, or, with
// validateOnly, would be; they are the same if there is nothing to do.
//
// The level is durable on return, and for good: a version that does not know it
// refuses the data of this cluster from then on. A level that is lower than the
// cluster's, or that a node does not know, is answered with
// INVALID_UPDATE_VERSION. The call may be repeated.
func (a *Admin) UpgradeFeatures(ctx context.Context, level uint32, validateOnly bool) (before, after uint32, err error) {
	req := &pb.UpgradeFeaturesRequest{FeatureLevel: level, ValidateOnly: validateOnly, TimeoutMs: a.c.serverTimeoutMS()}
	resp := new(pb.UpgradeFeaturesResponse)
	if err := a.change(ctx, frame.KindUpgradeFeatures, req, resp); err != nil {
		return 0, 0, fmt.Errorf("client: upgrade features: %w", err)
	}
	return resp.Before, resp.FeatureLevel, nil
}
