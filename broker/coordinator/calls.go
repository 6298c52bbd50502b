package coordinator

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The methods that ask return when the reply is due: see the package comment. When ctx
// ends, as the connection does that the request came on, they return at once; what they
// return then says NOT_COORDINATOR, is worth nothing, and is not to be sent: the request may
// have been decided. Nothing of a request is used after its method has returned.

// errNot is the answer of who does not coordinate a group.
var errNot = errcode.Errorf(errcode.NotCoordinator, "this node does not coordinate the group: look for its coordinator again")

// or has a Coordinator's method decide a request, and returns the reply; or refused.
func or[Q, R any](ctx context.Context, r *Runner, refused R,
	decide func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision), req Q,
) R {
	if v, ok := r.do(ctx, 0, nil, asks(decide, req)); ok {
		return v.(R)
	}
	return refused
}

// orHere is or for requests that take little: they are decided in the goroutine that
// asks, if that can be. Its stack has to have room for it, and who asks are many, so
// what may go deep is not for here. little decides those that do take little, and
// reports whether the request is one; nil: all are, for decide.
func orHere[Q, R any](ctx context.Context, patience time.Duration, r *Runner, refused R,
	little func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision) bool,
	decide func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision), req Q,
) R {
	queued := asks(decide, req)
	here := queued
	if little != nil {
		here = func(c *consumergroup.Coordinator, now time.Time, token consumergroup.Token, out *consumergroup.Decision) bool {
			return little(c, now, token, req, out)
		}
	}
	if v, ok := r.do(ctx, patience, here, queued); ok {
		return v.(R)
	}
	return refused
}

// asks has a Coordinator's method decide a request.
func asks[Q any](decide func(*consumergroup.Coordinator, time.Time, consumergroup.Token, Q, *consumergroup.Decision), req Q) asking {
	return func(c *consumergroup.Coordinator, now time.Time, token consumergroup.Token, out *consumergroup.Decision) bool {
		decide(c, now, token, req, out)
		return true
	}
}

// JoinGroup asks consumergroup.Coordinator.JoinGroup. It takes as long as the rebalance.
func (r *Runner) JoinGroup(ctx context.Context, req *consumergroup.JoinRequest) *consumergroup.JoinReply {
	return or(ctx, r, &consumergroup.JoinReply{Err: errNot, MemberID: req.MemberID, Generation: -1}, (*consumergroup.Coordinator).JoinGroup, req)
}

// SyncGroup asks consumergroup.Coordinator.SyncGroup. It takes until the leader has
// sent who gets what.
func (r *Runner) SyncGroup(ctx context.Context, req *consumergroup.SyncRequest) *consumergroup.SyncReply {
	return or(ctx, r, &consumergroup.SyncReply{Err: errNot}, (*consumergroup.Coordinator).SyncGroup, req)
}

// patience is how long a heartbeat or a commit waits.
func (r *Runner) patience() time.Duration {
	if r == nil {
		return 0
	}
	return r.opt.Patience
}

// HeartbeatGroup asks consumergroup.Coordinator.Heartbeat. It returns within Options.Patience.
func (r *Runner) HeartbeatGroup(ctx context.Context, req *consumergroup.HeartbeatRequest) consumergroup.HeartbeatReply {
	return orHere(ctx, r.patience(), r, consumergroup.HeartbeatReply{Err: errNot}, nil, (*consumergroup.Coordinator).Heartbeat, req)
}

// LeaveGroup asks consumergroup.Coordinator.LeaveGroup.
func (r *Runner) LeaveGroup(ctx context.Context, req *consumergroup.LeaveRequest) *consumergroup.LeaveReply {
	return or(ctx, r, &consumergroup.LeaveReply{Err: errNot}, (*consumergroup.Coordinator).LeaveGroup, req)
}

// CommitOffsets asks consumergroup.Coordinator.CommitOffsets. With a reply without
// errors, the offsets are on a majority of the replicas. It returns within
// Options.Patience.
func (r *Runner) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	return orHere(ctx, r.patience(), r, &consumergroup.CommitReply{Err: errNot}, nil, (*consumergroup.Coordinator).CommitOffsets, req)
}

// FetchOffsets asks consumergroup.Coordinator.FetchOffsets.
func (r *Runner) FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	return or(ctx, r, &consumergroup.FetchReply{Err: errNot}, (*consumergroup.Coordinator).FetchOffsets, req)
}

// DeleteOffsets asks consumergroup.Coordinator.DeleteOffsets.
func (r *Runner) DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply {
	return or(ctx, r, &consumergroup.DeleteOffsetsReply{Err: errNot}, (*consumergroup.Coordinator).DeleteOffsets, req)
}

// ConsumerHeartbeat asks consumergroup.Coordinator.ConsumerHeartbeat. It returns within
// Options.Patience.
func (r *Runner) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	return orHere(ctx, r.patience(), r, &consumergroup.ConsumerHeartbeatReply{Err: errNot},
		(*consumergroup.Coordinator).ConsumerBeat, (*consumergroup.Coordinator).ConsumerHeartbeat, req)
}

// ListGroups asks consumergroup.Coordinator.ListGroups.
func (r *Runner) ListGroups(ctx context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply {
	return or(ctx, r, &consumergroup.ListReply{Err: errNot}, (*consumergroup.Coordinator).ListGroups, req)
}

// DescribeGroup asks consumergroup.Coordinator.DescribeGroup.
func (r *Runner) DescribeGroup(ctx context.Context, group string) *consumergroup.DescribeReply {
	return or(ctx, r, &consumergroup.DescribeReply{Err: errNot, Group: group, State: consumergroup.Dead}, (*consumergroup.Coordinator).DescribeGroup, group)
}

// DescribeConsumerGroup asks consumergroup.Coordinator.ConsumerDescribe.
func (r *Runner) DescribeConsumerGroup(ctx context.Context, group string) *consumergroup.ConsumerDescribeReply {
	return or(ctx, r, &consumergroup.ConsumerDescribeReply{Err: errNot, Group: group, State: consumergroup.Dead}, (*consumergroup.Coordinator).ConsumerDescribe, group)
}

// DeleteGroups asks consumergroup.Coordinator.DeleteGroups.
func (r *Runner) DeleteGroups(ctx context.Context, groups []string) *consumergroup.DeleteGroupsReply {
	refused := &consumergroup.DeleteGroupsReply{Groups: make([]consumergroup.DeletedGroup, len(groups))}
	for i, name := range groups {
		refused.Groups[i] = consumergroup.DeletedGroup{Group: name, Err: errNot}
	}
	return or(ctx, r, refused, (*consumergroup.Coordinator).DeleteGroups, groups)
}
