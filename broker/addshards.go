package broker

import (
	"context"
	"slices"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// maxDefaultReplication is how many replicas a topic gets at most if nobody says.
const maxDefaultReplication = 3

// shardsFor makes sure that there are shards of a replication factor on each node
// that may have some, on the node that leads the metadata: the first topic that wants a
// factor has them made, shards.per.node for each node, all or none of them, and a later
// one has as many made for each node that has come, or come back, since. It returns
// INVALID_REPLICATION_FACTOR if there are none and too few nodes.
func (b *Broker) shardsFor(ctx context.Context, factor int) error {
	if b.lacking(b.image(), factor) == nil && b.image().Loads(factor) != nil {
		return nil
	}
	select {
	case b.adding <- struct{}{}: // or two topics would get two sets
		defer func() { <-b.adding }()
	case <-ctx.Done():
		return errcode.Errorf(errcode.RequestTimedOut, "the shards of another topic are being made; nothing was done")
	}
	im := b.image()
	c := metadata.AddShards{First: im.NextShard(), Shards: b.lacking(im, factor)}
	some := im.Loads(factor) != nil
	if c.Shards == nil {
		if some {
			return nil
		}
		return tooFewNodes(factor, len(placeable(im)))
	}
	if _, err := b.proposeMeta(ctx, c); some && errcode.Of(err) == errcode.PolicyViolation {
		b.opt.Log.Warn("a node has no shards of a replication factor, and gets none", "replication_factor", factor, "err", err)
		return nil // those that there are have to do
	} else if err != nil {
		return err
	}
	b.opt.Log.Info("shards were added, because a topic wants their replication factor", "replication_factor", factor,
		"first", uint32(c.First), "shards", len(c.Shards), "nodes", len(placeable(im)))
	return nil
}

// lacking returns the shards of a replication factor that would be added now, nil if
// there are enough, or too few nodes.
func (b *Broker) lacking(im *metadata.Image, factor int) []metadata.NewShard {
	return metadata.Spread(placeable(im), im.ShardsOf(factor), factor, b.shardsPerNode())
}

// assign chooses the shards of n new partitions of a topic, whose others are on those
// in existing: shards of its replication factor, or of planned, which would be added
// first. wanted, if it is not nil, says which nodes each is to be on: its shard has just
// these; without one assign returns INVALID_REPLICA_ASSIGNMENT.
func assign(im *metadata.Image, planned []metadata.NewShard, factor int, existing []metadata.ShardID, n int, wanted [][]int32) ([]metadata.ShardID, error) {
	loads, first := im.Loads(factor), im.NextShard()
	for i := range planned {
		loads = append(loads, metadata.Load{Shard: first + metadata.ShardID(i)})
	}
	if loads == nil {
		return nil, tooFewNodes(factor, len(placeable(im)))
	}
	replicas := func(id metadata.ShardID) []metadata.NodeID {
		if id >= first {
			return planned[id-first].Replicas
		}
		return im.Shard(id).Replicas
	}
	return chooseShards(im, loads, replicas, existing, n, wanted)
}

// chooseShards chooses the shards of n new partitions of a topic, whose others are
// on those in existing. wanted, if it is not nil, says which nodes each is to be on.
func chooseShards(im *metadata.Image, loads []metadata.Load, replicas func(metadata.ShardID) []metadata.NodeID, existing []metadata.ShardID, n int, wanted [][]int32) ([]metadata.ShardID, error) {
	if wanted == nil {
		return metadata.Place(usable(im, loads), existing, n), nil
	}
	var chosen []metadata.ShardID
	for i, nodes := range wanted {
		nodes = slices.Sorted(slices.Values(nodes))
		on := slices.DeleteFunc(slices.Clone(loads), func(l metadata.Load) bool {
			return !slices.EqualFunc(replicas(l.Shard), nodes, func(have metadata.NodeID, want int32) bool { return int32(have) == want })
		})
		one := metadata.Place(on, slices.Concat(existing, chosen), 1)
		if one == nil {
			return nil, errcode.Errorf(errcode.InvalidReplicaAssignment,
				"partition %d is to be on nodes %v, and no shard has just these; leave the assignment out, and the cluster chooses", len(existing)+i, nodes)
		}
		chosen = append(chosen, one...)
	}
	return chosen, nil
}

// usable returns the shards of loads that have a majority of their replicas on
// nodes in contact, or all if none has: a partition on another one could not be
// written to. Shards that are not there yet are.
func usable(im *metadata.Image, loads []metadata.Load) []metadata.Load {
	up := slices.DeleteFunc(slices.Clone(loads), func(l metadata.Load) bool {
		s, away := im.Shard(l.Shard), 0
		if s == nil {
			return false
		}
		for _, id := range s.Replicas {
			if n := im.Node(id); n == nil || n.Fenced {
				away++
			}
		}
		return 2*away >= len(s.Replicas)
	})
	if len(up) == 0 {
		return loads
	}
	return up
}

// placeable returns the nodes that may get new replicas, ascending by id: those
// that have said where they are, and are in contact.
func placeable(im *metadata.Image) []*metadata.Node {
	var nodes []*metadata.Node
	for n := range im.Nodes() {
		if len(n.Addresses) > 0 && !n.Fenced {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// tooFewNodes answers who wants more replicas than there are nodes for them.
func tooFewNodes(factor, nodes int) *errcode.Error {
	return errcode.Errorf(errcode.InvalidReplicationFactor,
		"Unable to replicate the partition %d time(s): The target replication factor of %[1]d cannot be reached because only %d broker(s) are registered.",
		factor, nodes)
}

// shardsPerNode is shards.per.node of when the cluster was founded.
func (b *Broker) shardsPerNode() int {
	founders := 1
	if c := b.opt.Cluster; c != nil {
		founders = len(c.Founders)
	}
	return max(int(b.opt.Shards)/founders, 1)
}
