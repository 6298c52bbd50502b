package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/replication"
)

// A node of a founded cluster that comes with a fresh directory has lost the one
// that the cluster knows. It takes part as nothing until the fresh one is registered
// in the place of the other:
//
//	fresh      it asks which directory is registered; that one has to be out of
//	           contact for a while
//	replacing  it has recorded that one, as Replaces in IDENTITY, and asks to be
//	           registered in its place, and in no other's
//	founded    it is registered, and has recorded the cluster's plan; its replicas
//	           start, under other names than the lost ones, and the shards' leaders
//	           replace those
//
// It goes on from where it stands after a crash. All of it needs the metadata's
// leader, and so a majority of the nodes that have their directories: two of three
// that lose theirs at once are replaced by nobody.

// rejoins reports whether a fresh node has lost the directory that another one's
// cluster was founded with. Before it is founded a cluster has nothing to lose, and
// not all may have recorded its plan.
func (s *standing) rejoins(o *standing) bool {
	known := o.Founders.incarnation(s.NodeID)
	return s.Founders == "" && !s.Alone && o.Founded && s.fits(o) == "" && known != 0 && known != s.Incarnation
}

// rejoin takes one step of a fresh directory on its way to the place of a lost one in
// the cluster of p. An error of waiting is why there is none to take now.
func (f *founding) rejoin(ctx context.Context, p plan) (out outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, rejoinTime)
	defer cancel()
	f.turn <- struct{}{}
	id, own := f.n.id, f.standing()
	<-f.turn
	registered, err := broker.AskReplacement(ctx, f.n.opt.Cluster.Peers, own.NodeID, f.nodes, broker.Replacement{
		Node: own.NodeID, Level: own.Level, Incarnation: uint64(id.Incarnation), Replaces: uint64(id.Replaces),
	})
	switch {
	case errors.Is(err, broker.ErrReplaced):
		return waits, fmt.Errorf("node: %w", err)
	case err != nil:
		f.vigil.say(fmt.Sprintf("node %d lost its directory, and its fresh one, of incarnation %016x, is not registered in its place yet: %v", own.NodeID, uint64(id.Incarnation), err))
		return waits, nil
	case id.Replaces == 0:
		f.n.opt.Log.Warn("this node has lost its data directory, and takes its place in the cluster with a fresh one",
			"lost", fmt.Sprintf("%016x", registered), "fresh", fmt.Sprintf("%016x", uint64(id.Incarnation)))
		return moved, f.change(func(id *identity) { id.Replaces = hexNumber(registered) })
	case registered != uint64(id.Incarnation):
		f.vigil.say(fmt.Sprintf("node %d is of the directory %016x still", own.NodeID, registered))
		return waits, nil
	}
	return moved, f.change(func(id *identity) { id.Founders, id.Shards, id.Founded = p.founders, p.shards, true })
}

// replica returns the replica of a shard that belongs to a directory of a node: the
// founder's is one of voters, and that of each other one has a name of its own, that
// all nodes know.
func (p plan) replica(shard replication.ShardID, node int32, directory uint64) replication.ReplicaID {
	if p.founders.incarnation(node) == hexNumber(directory) {
		for _, id := range p.voters(shard) {
			if id.Node == node {
				return id
			}
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %s %d %d %016x", p.clusterID, p.shards, p.founders, shard, node, directory))
	return replication.ReplicaID{Node: node, Incarnation: binary.LittleEndian.Uint64(sum[:]) | 1} // never zero
}
