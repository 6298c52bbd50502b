package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
)

// leaderTick is how often a transfer looks whether somebody leads.
const leaderTick = 5 * time.Millisecond

// ShardLeader returns who leads a shard, 0 being the metadata shard, as far as
// this node knows, with its address for clients of a listener. Its Epoch is the
// shard's term.
func (b *Broker) ShardLeader(listener string, shard uint32) (Leader, bool) {
	if shard == uint32(replication.MetadataShard) {
		return b.Controller(listener)
	}
	id, term, ok := b.shardLeaderOf(shardID(shard))
	return b.leader(listener, id, int32(term), ok)
}

// transferable is a replica, whatever its shard carries.
type transferable interface {
	Progress() replication.Progress
	TransferTo(ctx context.Context, node int32, lagEntries uint64) error
}

// TransferShard hands the leadership of a shard that this node leads, 0 being
// the metadata shard, over to a node's voter, or, with to below 0, to the one
// that is furthest of those that answer. It returns who leads the shard then, and in which term: in
// all likelihood that node. If it leads already, nothing is done.
//
// RESOURCE_NOT_FOUND says that this node carries no such shard,
// NOT_LEADER_OR_FOLLOWER that it does not lead it, INVALID_REPLICA_ASSIGNMENT
// that the node has no voter, and ELIGIBLE_LEADERS_NOT_AVAILABLE that the voter
// does not answer, or lacks too much of the log; the leader has stayed then.
// After REQUEST_TIMED_OUT the leadership may have gone over, or may yet.
func (b *Broker) TransferShard(ctx context.Context, shard uint32, to int32) (leader int32, term uint64, err error) {
	var r transferable
	if shard == uint32(replication.MetadataShard) {
		r = b.meta
	} else if s := b.carried()[shardID(shard)]; s != nil {
		r = s.replica
	} else if b.image().Shard(metadata.ShardID(shard)) != nil {
		return 0, 0, errcode.Errorf(errcode.NotLeaderOrFollower, "node %d has no replica of shard %d; nodes %v have", b.opt.NodeID, shard, b.replicasOf(metadata.ShardID(shard)))
	} else {
		return 0, 0, errcode.Errorf(errcode.ResourceNotFound, "node %d has no shard %d", b.opt.NodeID, shard)
	}
	before := r.Progress()
	if to < 0 {
		err = transferAway(ctx, r, before)
	} else {
		err = r.TransferTo(ctx, to, maxLagEntries)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return 0, 0, errcode.Errorf(errcode.RequestTimedOut, "shard %d was not handed over in time", shard)
	case errors.Is(err, replication.ErrNotLeader), errors.Is(err, replication.ErrStopped):
		return 0, 0, errcode.Errorf(errcode.NotLeaderOrFollower, "node %d does not lead shard %d", b.opt.NodeID, shard)
	case errors.Is(err, replication.ErrNotVoter):
		return 0, 0, &errcode.Error{Code: errcode.InvalidReplicaAssignment, Detail: without(err, replication.ErrNotVoter)}
	case errors.Is(err, replication.ErrHeirLags):
		return 0, 0, &errcode.Error{Code: errcode.EligibleLeadersNotAvailable, Detail: without(err, replication.ErrHeirLags)}
	default: // Raft's own: the voter was asked, and did not take it in time
		return 0, 0, errcode.Errorf(errcode.RequestTimedOut, "%v", err)
	}
	if to == b.opt.NodeID {
		return to, before.Term, nil
	}
	return b.awaitLeader(ctx, shard, r, before.Term)
}

// without is the text of an error without that of the sentinel that it begins
// with: the code says it.
func without(err, sentinel error) string {
	return strings.TrimPrefix(err.Error(), sentinel.Error()+": ")
}

// transferAway hands a leadership over to whoever can take it, those that have
// most of the log first.
func transferAway(ctx context.Context, r transferable, p replication.Progress) error {
	if !p.Leading {
		return replication.ErrNotLeader
	}
	heirs := heirsOf(p)
	err := fmt.Errorf("%w: the shard has no other voter", replication.ErrHeirLags)
	for _, heir := range heirs {
		if err = r.TransferTo(ctx, heir.ID.Node, maxLagEntries); !errors.Is(err, replication.ErrHeirLags) {
			break
		}
	}
	return err
}

// awaitLeader waits until somebody leads a shard in a later term.
func (b *Broker) awaitLeader(ctx context.Context, shard uint32, r transferable, after uint64) (int32, uint64, error) {
	tick := time.NewTicker(leaderTick)
	defer tick.Stop()
	for {
		if p := r.Progress(); p.HasLeader && p.Term > after && (p.Leading || p.Leader != p.ID) {
			return p.Leader.Node, p.Term, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, 0, errcode.Errorf(errcode.RequestTimedOut, "shard %d was handed over, and nobody says yet who leads it", shard)
		case <-b.stopping.Done():
			return 0, 0, errcode.Errorf(errcode.RequestTimedOut, "node %d is stopping; shard %d was handed over", b.opt.NodeID, shard)
		}
	}
}

// heirsOf returns the other voters of a leader's shard, those that have most of its
// log first.
func heirsOf(p replication.Progress) []replication.Member {
	heirs := slices.DeleteFunc(p.Members, func(m replication.Member) bool { return !m.Voter || m.ID == p.ID })
	slices.SortStableFunc(heirs, func(a, b replication.Member) int { return cmp.Compare(b.Match, a.Match) })
	return heirs
}
