package broker

import (
	"cmp"
	"slices"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
)

// inSync appends to dst the replicas in sync of a shard that this node leads, by
// node, and returns how many voters there are: those that have had all of its log
// within Options.ReplicaLag, and whose nodes are not fenced. min.insync.replicas
// counts them, and clients are told of them. dst is empty.
func (b *Broker) inSync(dst []replication.Standing, s *dataShard) (inSync []replication.Standing, voters int) {
	dst, voters = s.replica.InSync(dst, b.opt.ReplicaLag)
	im := b.image()
	dst = slices.DeleteFunc(dst, func(v replication.Standing) bool {
		n := im.Node(metadata.NodeID(v.ID.Node))
		return n != nil && n.Fenced
	})
	slices.SortFunc(dst, func(v, w replication.Standing) int { return cmp.Compare(v.ID.Node, w.ID.Node) })
	return dst, voters
}

// inSyncOf returns those of live, the nodes in contact that have a replica of a
// shard, whose replicas are in sync: as this node knows if it leads the shard, and
// else as the last leader has said that was heard of. If none was, it is all.
func (b *Broker) inSyncOf(shard metadata.ShardID, live []int32) []int32 {
	var room [metadata.MaxReplicas]int32
	var known []int32
	if s := b.carried()[replication.ShardID(shard)]; s != nil && s.replica.Leading() != 0 {
		var standings [metadata.MaxReplicas]replication.Standing
		inSync, _ := b.inSync(standings[:0], s)
		known = room[:0]
		for _, v := range inSync {
			known = append(known, v.ID.Node)
		}
	} else if known = b.contacts.inSyncOf(b.image().Shard(shard)); known == nil {
		return live
	}
	out := func(id int32) bool { return !slices.Contains(known, id) }
	if !slices.ContainsFunc(live, out) {
		return live
	}
	return slices.DeleteFunc(slices.Clone(live), out)
}
