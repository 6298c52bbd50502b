package kafka

import (
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// consumerGroupHeartbeat has a member join, stay in, or leave a group that the server
// assigns (KIP-848). From version 1 on members make their own ids (KIP-1082), and may
// subscribe by a regular expression.
func (s *Server) consumerGroupHeartbeat(ctx context.Context, p *peer, req *kmsg.ConsumerGroupHeartbeatRequest) kmsg.Response {
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.Version = req.Version
	var r *consumergroup.ConsumerHeartbeatReply
	err := checkConsumerHeartbeat(req)
	if err == nil {
		r = s.groups.ConsumerHeartbeat(ctx, p.consumerHeartbeat(req))
		err = r.Err
	}
	if resp.ErrorCode, resp.ErrorMessage = p.error(err), text(err); err != nil {
		return resp
	}
	resp.MemberID, resp.MemberEpoch, resp.HeartbeatIntervalMillis = &r.MemberID, r.Epoch, int32(r.Interval.Milliseconds())
	if r.Assignment == nil {
		return resp
	}
	if !p.assigned(ctx, resp, r.Assignment.Partitions) {
		return nil
	}
	return resp
}

// consumerHeartbeat is what a member says. It is not on the stack of who waits for the
// answer: the stacks of many connections are most of what idle members take.
//
//go:noinline
func (p *peer) consumerHeartbeat(req *kmsg.ConsumerGroupHeartbeatRequest) *consumergroup.ConsumerHeartbeatRequest {
	return &consumergroup.ConsumerHeartbeatRequest{
		Group: req.Group, MemberID: req.MemberID, Epoch: req.MemberEpoch, InstanceID: req.InstanceID, RackID: req.RackID,
		ClientID: p.clientID, ClientHost: p.conn.host, RebalanceTimeoutMS: req.RebalanceTimeoutMillis,
		Topics: req.SubscribedTopicNames, Regex: req.SubscribedTopicRegex, Assignor: req.ServerAssignor, Owned: ownedPartitions(req.Topics),
	}
}

// assigned tells a member which partitions are its own, if there is room for that.
func (p *peer) assigned(ctx context.Context, resp *kmsg.ConsumerGroupHeartbeatResponse, partitions []record.TopicPartitions) bool {
	size := int64(resultBytes)
	for i := range partitions {
		size += resultBytes + 8*int64(len(partitions[i].Partitions))
	}
	if !p.hold(ctx, size) {
		return false
	}
	resp.Assignment = new(kmsg.NewConsumerGroupHeartbeatResponseAssignment())
	for i := range partitions {
		t := kmsg.NewConsumerGroupHeartbeatResponseAssignmentTopic()
		t.TopicID, t.Partitions = partitions[i].TopicID, partitions[i].Partitions
		resp.Assignment.Topics = append(resp.Assignment.Topics, t)
	}
	return true
}

// checkConsumerHeartbeat refuses names of nothing but blanks, and who joins and does
// not say that it owns nothing.
func checkConsumerHeartbeat(req *kmsg.ConsumerGroupHeartbeatRequest) *errcode.Error {
	blank := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	joins := req.MemberEpoch == consumergroup.JoinEpoch
	switch {
	case blank(&req.Group):
		return errcode.Errorf(errcode.InvalidRequest, "the group id is empty: set group.id")
	case blank(&req.MemberID) && (req.Version >= 1 || !joins):
		return errcode.Errorf(errcode.InvalidRequest, "the member id is empty: a member makes one itself, or keeps the one that it was given")
	case blank(req.InstanceID), blank(req.RackID):
		return errcode.Errorf(errcode.InvalidRequest, "the instance id or the rack id is empty: leave it out, or set it")
	case joins && req.Topics == nil:
		return errcode.Errorf(errcode.InvalidRequest, "a member that joins says that it owns no partitions: send an empty list")
	}
	return nil
}

// ownedPartitions is what a member says that it has; nil: it does not say.
func ownedPartitions(topics []kmsg.ConsumerGroupHeartbeatRequestTopic) []record.TopicPartitions {
	if topics == nil {
		return nil
	}
	owned := make([]record.TopicPartitions, len(topics))
	for i := range topics {
		owned[i] = record.TopicPartitions{TopicID: topics[i].TopicID, Partitions: topics[i].Partitions}
	}
	return owned
}
