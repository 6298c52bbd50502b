package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/kafka"
)

// coordinated is the groups of a node as its tests have them: a coordinator whose
// records are applied at once.
type coordinated struct {
	broker *broker.Broker

	mu      sync.Mutex
	c       *consumergroup.Coordinator
	applied *consumergroup.Groups
	waiting map[consumergroup.Token]chan any
	last    consumergroup.Token
	timer   *time.Timer
}

var _ kafka.Groups = (*coordinated)(nil)

// withGroups makes a node coordinate groups, with settings that edit has changed.
func withGroups(t testing.TB, edit func(*consumergroup.Options)) (*coordinated, func(*node.Options)) {
	ids := 0
	opt := consumergroup.DefaultOptions()
	opt.InitialRebalanceDelay = 0
	opt.NewID = func() string { ids++; return fmt.Sprint("id", ids) }
	opt.ConsumerHeartbeatInterval, opt.MinSessionTimeout = 10*time.Millisecond, 10*time.Millisecond
	if edit != nil {
		edit(&opt)
	}
	g := &coordinated{applied: consumergroup.NewGroups(), waiting: make(map[consumergroup.Token]chan any)}
	return g, func(to *node.Options) {
		to.KafkaGroups = func(b *broker.Broker) kafka.Groups { // in the node's bubble, if it has one
			var err error
			if g.c, err = consumergroup.NewCoordinator(time.Now(), g.applied, opt); err != nil {
				t.Fatal(err)
			}
			g.broker, g.timer = b, time.AfterFunc(time.Hour, g.tick)
			return g
		}
	}
}

// settleLocked applies a decision, answers, and sets the timer.
func (g *coordinated) settleLocked(d *consumergroup.Decision) {
	for _, r := range d.Records {
		if err := g.applied.Fold(r); err != nil {
			panic(err)
		}
	}
	for _, r := range d.Replies {
		if ch := g.waiting[r.Token]; ch != nil {
			ch <- r.Response
			delete(g.waiting, r.Token)
		}
	}
	if next, ok := g.c.Next(); ok {
		g.timer.Reset(max(time.Until(next), 0))
	}
}

func (g *coordinated) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var d consumergroup.Decision
	g.c.Tick(time.Now(), &d)
	g.settleLocked(&d)
}

// topicsLocked tells the coordinator which topics there are.
func (g *coordinated) topicsLocked(now time.Time, d *consumergroup.Decision) {
	var all []consumergroup.TopicInfo
	for t := range g.broker.Topics("") {
		all = append(all, consumergroup.TopicInfo{Name: t.Name, ID: [16]byte(t.ID), Partitions: int32(t.Partitions)})
	}
	g.c.TopicsChanged(now, consumergroup.NewTopics(g.broker.MetadataIndex(), all), d)
}

// coordinate has a Coordinator's method decide a request, and waits for its answer;
// refused, if ctx ends before.
func coordinate[Q, R any](ctx context.Context, g *coordinated, refused R,
	decide func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision), req Q,
) R {
	g.mu.Lock()
	g.last++
	token, ch, now := g.last, make(chan any, 1), time.Now()
	g.waiting[token] = ch
	var d consumergroup.Decision
	g.topicsLocked(now, &d)
	decide(g.c, now, token, req, &d)
	g.settleLocked(&d)
	g.mu.Unlock()
	select {
	case r := <-ch:
		return r.(R)
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, token)
	d.Reset()
	g.c.Gone(time.Now(), token, &d)
	g.settleLocked(&d)
	return refused
}

// held returns how many requests are held.
func (g *coordinated) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.c.Held())
}

var errNot = errcode.Errorf(errcode.NotCoordinator, "another node coordinates the group")

func (g *coordinated) FindCoordinator(_ context.Context, group string, via broker.Listener) (broker.Node, *errcode.Error) {
	if group == "nowhere" {
		return broker.Node{}, errcode.Errorf(errcode.CoordinatorNotAvailable, "there is no leader yet: ask again")
	}
	return g.broker.Nodes(via.Name)[0], nil
}

func (g *coordinated) JoinGroup(ctx context.Context, req *consumergroup.JoinRequest) *consumergroup.JoinReply {
	return coordinate(ctx, g, &consumergroup.JoinReply{Err: errNot, Generation: -1}, (*consumergroup.Coordinator).JoinGroup, req)
}

func (g *coordinated) SyncGroup(ctx context.Context, req *consumergroup.SyncRequest) *consumergroup.SyncReply {
	return coordinate(ctx, g, &consumergroup.SyncReply{Err: errNot}, (*consumergroup.Coordinator).SyncGroup, req)
}

func (g *coordinated) HeartbeatGroup(ctx context.Context, req *consumergroup.HeartbeatRequest) consumergroup.HeartbeatReply {
	return coordinate(ctx, g, consumergroup.HeartbeatReply{Err: errNot}, (*consumergroup.Coordinator).Heartbeat, req)
}

func (g *coordinated) LeaveGroup(ctx context.Context, req *consumergroup.LeaveRequest) *consumergroup.LeaveReply {
	return coordinate(ctx, g, &consumergroup.LeaveReply{Err: errNot}, (*consumergroup.Coordinator).LeaveGroup, req)
}

func (g *coordinated) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	return coordinate(ctx, g, &consumergroup.ConsumerHeartbeatReply{Err: errNot}, (*consumergroup.Coordinator).ConsumerHeartbeat, req)
}

func (g *coordinated) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	return coordinate(ctx, g, &consumergroup.CommitReply{Err: errNot}, (*consumergroup.Coordinator).CommitOffsets, req)
}

func (g *coordinated) FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	if req.Group == "elsewhere" {
		return &consumergroup.FetchReply{Err: errNot}
	}
	return coordinate(ctx, g, &consumergroup.FetchReply{Err: errNot}, (*consumergroup.Coordinator).FetchOffsets, req)
}

func (g *coordinated) DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply {
	return coordinate(ctx, g, &consumergroup.DeleteOffsetsReply{Err: errNot}, (*consumergroup.Coordinator).DeleteOffsets, req)
}

func (g *coordinated) ListGroups(ctx context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply {
	return coordinate(ctx, g, &consumergroup.ListReply{Err: errNot}, (*consumergroup.Coordinator).ListGroups, req)
}

func (g *coordinated) DescribeGroup(ctx context.Context, group string) *consumergroup.DescribeReply {
	if group == "elsewhere" {
		return &consumergroup.DescribeReply{Err: errNot, Group: group}
	}
	return coordinate(ctx, g, &consumergroup.DescribeReply{Err: errNot, Group: group}, (*consumergroup.Coordinator).DescribeGroup, group)
}

func (g *coordinated) DescribeConsumerGroup(ctx context.Context, group string) *consumergroup.ConsumerDescribeReply {
	return coordinate(ctx, g, &consumergroup.ConsumerDescribeReply{Err: errNot, Group: group}, (*consumergroup.Coordinator).ConsumerDescribe, group)
}

func (g *coordinated) DeleteGroups(ctx context.Context, groups []string) *consumergroup.DeleteGroupsReply {
	return coordinate(ctx, g, &consumergroup.DeleteGroupsReply{}, (*consumergroup.Coordinator).DeleteGroups, groups)
}
