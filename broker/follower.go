package broker

import (
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
)

// A consumer that says where it stands may read from a replica that stands there
// too, if the nodes are told so (Options.RackAware, KIP-392): the leader names the
// node, and that one answers as far as it has applied its shard's log, which is as
// far as it knows to be on a majority. What it serves is never more than the leader
// would, and may be less, by the time that the leader's next word takes.

// nearerLag is how long ago a replica may have had all of its shard's log for
// consumers to be sent to it: less than for being in sync, since it may be gone.
const nearerLag = 2 * time.Second

// KnownRack returns the rack of a node by that name, which is no copy of the name; ""
// if no node stands there, or everybody reads from leaders.
func (b *Broker) KnownRack(name string) string {
	if !b.opt.RackAware || name == "" {
		return ""
	}
	for n := range b.image().Nodes() {
		if n.Rack == name {
			return n.Rack
		}
	}
	return ""
}

// sentBackWait is how long a follower that cannot answer for now keeps a consumer that
// would wait for records anyway.
const sentBackWait = 250 * time.Millisecond

// mayFollow reports whether a reader from rack is served though this node does not
// lead the partition.
func (b *Broker) mayFollow(p *placed, rack string) bool {
	return b.opt.RackAware && rack != "" && p.epoch() < 0
}

// checkFollowed is checkEpoch for a partition that this node does not lead: it
// refuses everybody while it does not hear from who does (R19).
func (p *placed) checkFollowed(known int32) *errcode.Error {
	_, term, ok := p.shard.replica.Following()
	if !ok {
		return errcode.Errorf(errcode.NotLeaderOrFollower, "this node does not lead partition %d, and has not heard from who does", p.key.index)
	}
	return sameEpoch(known, p.baseEpoch+int32(term))
}

// sendBack says with an error that the leader is to be asked, which consumers that
// have been sent to a follower do not by themselves. Who knows an older epoch looks
// for the leader anyway, and first at whether its records are still there.
func (b *Broker) sendBack(r *FetchResult, p *placed) {
	switch r.Err.Code {
	case errcode.FencedLeaderEpoch:
		return
	case errcode.OffsetNotAvailable, errcode.UnknownLeaderEpoch, errcode.NotLeaderOrFollower:
		r.ahead = true // else the leader may send them here again at once, to and fro without a pause
	}
	leader, _, ok := leaderOfShard(p.shard.replica)
	if shard := b.image().Shard(metadata.ShardID(p.shard.id)); !ok && shard != nil { // it hears nobody
		leader, _, ok = b.contacts.leaderOf(shard)
	}
	if ok && leader != b.opt.NodeID {
		r.Elsewhere, r.ReadFrom = true, leader
	}
}

// nearer returns the node from which a consumer in rack is to read a partition
// that this node leads: of the replicas there that have just had all records the
// one that has most; none, if this node stands there itself.
func (b *Broker) nearer(p *placed, rack string) (node int32, ok bool) {
	if !b.opt.RackAware || rack == "" || rack == b.opt.Rack {
		return 0, false
	}
	var room [metadata.MaxReplicas]replication.Standing
	inSync, _ := p.shard.replica.InSync(room[:0], min(nearerLag, b.opt.ReplicaLag))
	im, match := b.image(), uint64(0)
	for _, s := range inSync {
		if n := im.Node(metadata.NodeID(s.ID.Node)); n != nil && !n.Fenced && n.Rack == rack && s.Match > match {
			node, match, ok = s.ID.Node, s.Match, true
		}
	}
	return node, ok
}
