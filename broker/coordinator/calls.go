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
	v, ok := r.do(ctx, func(c *consumergroup.Coordinator, now time.Time, token consumergroup.Token, out *consumergroup.Decision) {
		decide(c, now, token, req, out)
	})
	if ok {
		return v.(R)
	}
	return refused
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

// HeartbeatGroup asks consumergroup.Coordinator.Heartbeat.
func (r *Runner) HeartbeatGroup(ctx context.Context, req *consumergroup.HeartbeatRequest) consumergroup.HeartbeatReply {
	return or(ctx, r, consumergroup.HeartbeatReply{Err: errNot}, (*consumergroup.Coordinator).Heartbeat, req)
}

// LeaveGroup asks consumergroup.Coordinator.LeaveGroup.
func (r *Runner) LeaveGroup(ctx context.Context, req *consumergroup.LeaveRequest) *consumergroup.LeaveReply {
	return or(ctx, r, &consumergroup.LeaveReply{Err: errNot}, (*consumergroup.Coordinator).LeaveGroup, req)
}

// CommitOffsets asks consumergroup.Coordinator.CommitOffsets. With a reply without
// errors, the offsets are on a majority of the replicas.
func (r *Runner) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	return or(ctx, r, &consumergroup.CommitReply{Err: errNot}, (*consumergroup.Coordinator).CommitOffsets, req)
}

// FetchOffsets asks consumergroup.Coordinator.FetchOffsets.
func (r *Runner) FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply {
	return or(ctx, r, &consumergroup.FetchReply{Err: errNot}, (*consumergroup.Coordinator).FetchOffsets, req)
}

// DeleteOffsets asks consumergroup.Coordinator.DeleteOffsets.
func (r *Runner) DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply {
	return or(ctx, r, &consumergroup.DeleteOffsetsReply{Err: errNot}, (*consumergroup.Coordinator).DeleteOffsets, req)
}

// ConsumerHeartbeat asks consumergroup.Coordinator.ConsumerHeartbeat.
func (r *Runner) ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply {
	return or(ctx, r, &consumergroup.ConsumerHeartbeatReply{Err: errNot}, (*consumergroup.Coordinator).ConsumerHeartbeat, req)
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
