package broker

import (
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Features is what the cluster has agreed to write, and what its nodes know, as
// far as this node has applied it.
type Features struct {
	Level  uint16          // feature level that the cluster has finalised; 0: none, as good as 1
	Nodes  []NodeFeatures  // by id
	Shards []ShardFeatures // this node's replicas of data shards, by id
}

// NodeFeatures is what one node has said of itself.
type NodeFeatures struct {
	ID       int32
	MaxLevel uint16 // the newest feature level that it knows; 0: it has not said
}

// ShardFeatures is what a data shard has agreed on.
type ShardFeatures struct {
	ID           uint32
	ApplyVersion uint16 // from 1 on; it follows the feature level
}

// Features returns the cluster's feature level and what it depends on, and
// NOT_CONTROLLER while this node has no metadata.
func (b *Broker) Features() (Features, error) {
	if err := b.Knows(); err != nil {
		return Features{}, err
	}
	im := b.image()
	f := Features{Level: im.FeatureLevel()}
	for n := range im.Nodes() {
		f.Nodes = append(f.Nodes, NodeFeatures{ID: int32(n.ID), MaxLevel: n.FeatureLevel})
	}
	for id, s := range b.carried() {
		f.Shards = append(f.Shards, ShardFeatures{ID: uint32(id), ApplyVersion: s.applyVersion()})
	}
	slices.SortFunc(f.Shards, func(x, y ShardFeatures) int { return int(x.ID) - int(y.ID) })
	return f, nil
}

// UpgradeFeatures raises the cluster's feature level, for good, and returns what
// it was and what it is, or, with validateOnly, would be. Level 0 stands for the
// newest that every node knows; one that the cluster has already is no error.
//
// The level is durable on return, and a version that does not know it refuses
// the data from then on; the shards' apply versions follow within moments.
//
// It returns INVALID_UPDATE_VERSION for a level that is lower than the cluster's,
// or that a node does not know, and NOT_CONTROLLER from a node that does not lead
// the metadata shard.
func (b *Broker) UpgradeFeatures(ctx context.Context, level uint16, validateOnly bool) (before, after uint16, err error) {
	if err := b.ConfirmController(ctx); err != nil {
		return 0, 0, err
	}
	im := b.image()
	before = im.FeatureLevel()
	if level == 0 {
		level = b.newestLevel(im)
	}
	// To propose what this node does not know would stop it.
	if level > b.opt.FeatureLevel {
		return before, before, errcode.Errorf(errcode.InvalidUpdateVersion, "feature level %d is not known to node %d, which knows up to %d; start the version that has it, and try again",
			level, b.opt.NodeID, b.opt.FeatureLevel)
	}
	if err := im.CheckFeatureLevel(level); err != nil {
		return before, before, err
	}
	if level == before || validateOnly {
		return before, level, nil
	}
	if _, err := b.proposeMeta(ctx, metadata.SetFeatureLevel{Level: level}); err != nil {
		return before, before, err
	}
	b.opt.Log.Info("feature level raised", "from", before, "to", level)
	return before, level, nil
}

// newestLevel returns the newest level that every node knows, of those that have
// said what they know: CheckFeatureLevel names one that has not.
func (b *Broker) newestLevel(im *metadata.Image) uint16 {
	level := b.opt.FeatureLevel
	for n := range im.Nodes() {
		if n.FeatureLevel > 0 {
			level = min(level, n.FeatureLevel)
		}
	}
	return max(level, im.FeatureLevel())
}
