// Package grouptest runs a coordinator of consumer groups for the tests of those who
// speak to one: a consumergroup.Coordinator whose decisions are applied at once, as if
// a majority had answered before anybody could ask.
package grouptest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Coordinator looks after groups. Its methods are those of a node that coordinates
// them, and answer at once. It is safe for concurrent use.
type Coordinator struct {
	now  func() time.Time
	opts consumergroup.Options

	mu      sync.Mutex
	c       *consumergroup.Coordinator
	applied *consumergroup.Groups
	topics  *consumergroup.Topics
	version int64
	token   consumergroup.Token
	ids     int
	err     *errcode.Error
}

// New returns a Coordinator without groups. tune, which may be nil, changes its
// options.
func New(now func() time.Time, tune func(*consumergroup.Options)) *Coordinator {
	c := &Coordinator{now: now, opts: consumergroup.DefaultOptions(), applied: consumergroup.NewGroups()}
	c.opts.NewID = func() string {
		c.ids++
		return fmt.Sprintf("id-%d", c.ids)
	}
	if tune != nil {
		tune(&c.opts)
	}
	c.TakeOver()
	return c
}

// TakeOver has another coordinator go on from what is applied, as another node would.
func (c *Coordinator) TakeOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.c, err = consumergroup.NewCoordinator(c.now(), c.applied, c.opts); err != nil {
		panic("grouptest: " + err.Error())
	}
	if c.topics != nil {
		var d consumergroup.Decision
		c.c.TopicsChanged(c.now(), c.topics, &d)
		c.apply(&d)
	}
}

// SetTopics tells which topics there are.
func (c *Coordinator) SetTopics(topics ...consumergroup.TopicInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	c.topics = consumergroup.NewTopics(c.version, topics)
	var d consumergroup.Decision
	c.c.TopicsChanged(c.now(), c.topics, &d)
	c.apply(&d)
}

// Refuse has every request answered with err from now on; nil: with what is so.
func (c *Coordinator) Refuse(err *errcode.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *Coordinator) apply(d *consumergroup.Decision) {
	for _, r := range d.Records {
		if err := c.applied.Fold(r); err != nil {
			panic("grouptest: a decided record does not fold: " + err.Error())
		}
	}
}

// ask has a Coordinator's method decide a request, and returns the reply, or
// refused(err) if requests are refused.
func ask[Q, R any](c *Coordinator, refused func(*errcode.Error) R,
	decide func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision), req Q,
) R {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return refused(c.err)
	}
	var d consumergroup.Decision
	now := c.now()
	c.c.Tick(now, &d)
	c.token++
	decide(c.c, now, c.token, req, &d)
	c.apply(&d)
	for _, r := range d.Replies {
		if r.Token == c.token {
			return r.Response.(R)
		}
	}
	panic("grouptest: a request is held")
}

// ConsumerHeartbeat is consumergroup.Coordinator's, like the others.
func (c *Coordinator) ConsumerHeartbeat(_ context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	return ask(c, func(err *errcode.Error) *consumergroup.ConsumerHeartbeatReply {
		return &consumergroup.ConsumerHeartbeatReply{Err: err}
	}, (*consumergroup.Coordinator).ConsumerHeartbeat, req)
}

// CommitOffsets commits.
func (c *Coordinator) CommitOffsets(_ context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	return ask(c, func(err *errcode.Error) *consumergroup.CommitReply { return &consumergroup.CommitReply{Err: err} }, (*consumergroup.Coordinator).CommitOffsets, req)
}

// FetchOffsets tells what is committed.
func (c *Coordinator) FetchOffsets(_ context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	return ask(c, func(err *errcode.Error) *consumergroup.FetchReply { return &consumergroup.FetchReply{Err: err} }, (*consumergroup.Coordinator).FetchOffsets, req)
}

// DeleteOffsets forgets offsets.
func (c *Coordinator) DeleteOffsets(_ context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply {
	return ask(c, func(err *errcode.Error) *consumergroup.DeleteOffsetsReply {
		return &consumergroup.DeleteOffsetsReply{Err: err}
	}, (*consumergroup.Coordinator).DeleteOffsets, req)
}

// ListGroups lists.
func (c *Coordinator) ListGroups(_ context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply {
	return ask(c, func(*errcode.Error) *consumergroup.ListReply { return new(consumergroup.ListReply) }, (*consumergroup.Coordinator).ListGroups, req)
}

// DescribeGroup describes a classic group.
func (c *Coordinator) DescribeGroup(_ context.Context, group string) *consumergroup.DescribeReply {
	return ask(c, func(err *errcode.Error) *consumergroup.DescribeReply { return &consumergroup.DescribeReply{Err: err} }, (*consumergroup.Coordinator).DescribeGroup, group)
}

// DescribeConsumerGroup describes a group that the server assigns.
func (c *Coordinator) DescribeConsumerGroup(_ context.Context, group string) *consumergroup.ConsumerDescribeReply {
	return ask(c, func(err *errcode.Error) *consumergroup.ConsumerDescribeReply {
		return &consumergroup.ConsumerDescribeReply{Err: err}
	}, (*consumergroup.Coordinator).ConsumerDescribe, group)
}

// DeleteGroups deletes groups.
func (c *Coordinator) DeleteGroups(_ context.Context, groups []string) *consumergroup.DeleteGroupsReply {
	return ask(c, func(err *errcode.Error) *consumergroup.DeleteGroupsReply {
		r := new(consumergroup.DeleteGroupsReply)
		for _, g := range groups {
			r.Groups = append(r.Groups, consumergroup.DeletedGroup{Group: g, Err: err})
		}
		return r
	}, (*consumergroup.Coordinator).DeleteGroups, groups)
}
