package broker

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/flotilla-log/flotilla/broker/coordinator"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// offsetsPartition returns the partition of __consumer_offsets that a group is recorded
// in, of so many: as in Kafka, by Java's hash of the name.
func offsetsPartition(group string, partitions int) int32 {
	var h int32
	for _, r := range group {
		if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
			h = 31*h + int32(high)
			r = low
		}
		h = 31*h + r
	}
	return (h & math.MaxInt32) % int32(partitions)
}

// memberIDs makes the random part of members' ids.
type memberIDs struct {
	mu   sync.Mutex
	rand io.Reader
}

// next returns 128 random bits in the form of a UUID.
func (m *memberIDs) next() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b [16]byte
	if _, err := io.ReadFull(m.rand, b[:]); err != nil {
		panic(fmt.Sprintf("broker: no random bits for a member's id: %v", err))
	}
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// errNoCoordinator is the answer of FindCoordinator while nobody coordinates.
var errNoCoordinator = errcode.Errorf(errcode.CoordinatorNotAvailable, "no node coordinates the group at the moment: try again")

// FindCoordinator returns the node that coordinates a group, with its address for
// clients of a listener: the leader of the group's partition of __consumer_offsets, which
// is made if it is not there yet. The group without a name has one, too: offsets may be
// committed for it. While the next leader is about to be elected it waits, as AwaitLeaders
// does.
//
// COORDINATOR_NOT_AVAILABLE says that there is none yet, as the topic cannot be made or
// has no leader that coordinates: a retry finds it.
func (b *Broker) FindCoordinator(ctx context.Context, group string, l Listener) (Node, *errcode.Error) {
	if err := b.EnsureOffsetsTopic(ctx); err != nil {
		return Node{}, err
	}
	t := b.image().TopicByName(metadata.GroupsTopic)
	if t == nil {
		return Node{}, errNoCoordinator
	}
	index := offsetsPartition(group, len(t.Assignment))
	b.awaitLeaders(ctx, map[metadata.ShardID]bool{t.Assignment[index]: true})
	leader, ok := b.PartitionLeader(l.Name, TopicID(t.ID), index)
	if !ok || leader.Node == b.opt.NodeID && b.coordinators.runner(index) == nil {
		return Node{}, errNoCoordinator
	}
	return Node{ID: leader.Node, Address: leader.Address, Rack: leader.Rack}, nil
}

// coordinating returns the Runner of a group's partition, or nil, which answers
// NOT_COORDINATOR.
func (b *Broker) coordinating(group string) *coordinator.Runner {
	t := b.image().TopicByName(metadata.GroupsTopic)
	if t == nil {
		return nil
	}
	return b.coordinators.runner(offsetsPartition(group, len(t.Assignment)))
}

// The methods that follow ask the coordinator of a group, if this node has it; else, and
// when it stops to be this node, they answer NOT_COORDINATOR. They return when what was
// decided is on a majority of the replicas, or when ctx ends, as the connection does that
// the request came on: then the answer is not to be sent. See coordinator.Runner.

// JoinGroup has a member join, and returns when the rebalance has come to that.
func (b *Broker) JoinGroup(ctx context.Context, req *consumergroup.JoinRequest) *consumergroup.JoinReply {
	return b.coordinating(req.Group).JoinGroup(ctx, req)
}

// SyncGroup returns a member's assignment, when the group's leader has sent it.
func (b *Broker) SyncGroup(ctx context.Context, req *consumergroup.SyncRequest) *consumergroup.SyncReply {
	return b.coordinating(req.Group).SyncGroup(ctx, req)
}

// HeartbeatGroup keeps a member's session.
func (b *Broker) HeartbeatGroup(ctx context.Context, req *consumergroup.HeartbeatRequest) consumergroup.HeartbeatReply {
	return b.coordinating(req.Group).HeartbeatGroup(ctx, req)
}

// LeaveGroup takes members out of a group.
func (b *Broker) LeaveGroup(ctx context.Context, req *consumergroup.LeaveRequest) *consumergroup.LeaveReply {
	return b.coordinating(req.Group).LeaveGroup(ctx, req)
}

// CommitOffsets commits a group's offsets. Topics, partitions and the topics' ids are for
// the caller to check and to fill in, as they are in FetchOffsets.
func (b *Broker) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	return b.coordinating(req.Group).CommitOffsets(ctx, req)
}

// FetchOffsets returns a group's committed offsets.
func (b *Broker) FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	return b.coordinating(req.Group).FetchOffsets(ctx, req)
}

// DeleteOffsets forgets committed offsets of a group.
func (b *Broker) DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply {
	return b.coordinating(req.Group).DeleteOffsets(ctx, req)
}

// ConsumerHeartbeat has a member join, keep its place in, or leave a group of KIP-848.
func (b *Broker) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	if req.Epoch == consumergroup.JoinEpoch {
		b.coordinators.tell(nil) // who joins may have made its topic just before
	}
	return b.coordinating(req.Group).ConsumerHeartbeat(ctx, req)
}

// DescribeGroup tells of a classic group.
func (b *Broker) DescribeGroup(ctx context.Context, group string) *consumergroup.DescribeReply {
	return b.coordinating(group).DescribeGroup(ctx, group)
}

// DescribeConsumerGroup tells of a group of KIP-848.
func (b *Broker) DescribeConsumerGroup(ctx context.Context, group string) *consumergroup.ConsumerDescribeReply {
	return b.coordinating(group).DescribeConsumerGroup(ctx, group)
}

// ListGroups returns the groups that this node coordinates, by name. With an Err,
// COORDINATOR_NOT_AVAILABLE, some could not be told: a retry can.
func (b *Broker) ListGroups(ctx context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply {
	running := b.coordinators.all()
	replies := make([]*consumergroup.ListReply, len(running))
	var wg sync.WaitGroup
	for i, at := range running {
		wg.Go(func() { replies[i] = at.runner.ListGroups(ctx, req) })
	}
	wg.Wait()
	all := new(consumergroup.ListReply)
	for _, reply := range replies {
		if reply.Err != nil {
			return &consumergroup.ListReply{Err: errNoCoordinator}
		}
		all.Groups = append(all.Groups, reply.Groups...)
	}
	slices.SortFunc(all.Groups, func(x, y consumergroup.ListedGroup) int { return strings.Compare(x.Group, y.Group) })
	return all
}

// DeleteGroups deletes groups without members, with their offsets; each by itself.
func (b *Broker) DeleteGroups(ctx context.Context, groups []string) *consumergroup.DeleteGroupsReply {
	at := make(map[*coordinator.Runner][]int) // of which groups, by their places
	for i, name := range groups {
		r := b.coordinating(name)
		at[r] = append(at[r], i)
	}
	all := &consumergroup.DeleteGroupsReply{Groups: make([]consumergroup.DeletedGroup, len(groups))}
	var wg sync.WaitGroup
	for r, places := range at {
		wg.Go(func() {
			names := make([]string, len(places))
			for i, place := range places {
				names[i] = groups[place]
			}
			for i, deleted := range r.DeleteGroups(ctx, names).Groups {
				all.Groups[places[i]] = deleted
			}
		})
	}
	wg.Wait()
	return all
}
