package server

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// noEpoch is the epoch of what has none: a classic group, and its members.
const noEpoch = -1

// listGroups answers with the groups after a name, as many as fit.
func (q *request) listGroups(ctx context.Context, m *pb.ListGroupsRequest) (proto.Message, error) {
	r := q.s.opt.Groups.ListGroups(ctx, &consumergroup.ListRequest{States: m.States, Types: m.Types})
	if r.Err != nil {
		return nil, r.Err
	}
	resp, bytes := new(pb.ListGroupsResponse), 0
	for _, g := range r.Groups {
		if g.Group <= m.After && m.After != "" {
			continue
		}
		one := &pb.ListedGroup{Group: g.Group, Type: g.Type, State: g.State.String(), ProtocolType: g.ProtocolType}
		if bytes += proto.Size(one); bytes > maxGroupAnswerBytes && len(resp.Groups) > 0 {
			resp.More = true
			break
		}
		resp.Groups = append(resp.Groups, one)
	}
	return resp, nil
}

// describeGroup tells of a group that the server assigns, or, if there is none, of a
// classic one.
func (q *request) describeGroup(ctx context.Context, m *pb.DescribeGroupRequest) (proto.Message, error) {
	if m.Group == "" {
		return nil, errcode.Errorf(errcode.InvalidGroupID, "the group's name is empty")
	}
	resp := &pb.DescribeGroupResponse{Group: m.Group}
	var members []*pb.GroupMember
	switch r := q.s.opt.Groups.DescribeConsumerGroup(ctx, m.Group); {
	case r.Err == nil:
		resp.Type, resp.State, resp.ProtocolType = "consumer", r.State.String(), record.ConsumerProtocolType
		resp.Assignor, resp.Epoch, resp.TargetEpoch = r.Assignor, r.Epoch, r.TargetEpoch
		members = consumerMembers(r)
	case r.Err.Code != errcode.GroupIDNotFound:
		return nil, r.Err
	default:
		classic := q.s.opt.Groups.DescribeGroup(ctx, m.Group)
		if classic.Err != nil {
			return nil, classic.Err
		}
		resp.Type, resp.State, resp.ProtocolType = "classic", classic.State.String(), classic.ProtocolType
		resp.Assignor, resp.Epoch, resp.TargetEpoch = classic.Protocol, noEpoch, noEpoch
		members = classicMembers(classic)
	}
	slices.SortFunc(members, func(a, b *pb.GroupMember) int { return cmp.Compare(a.MemberId, b.MemberId) })
	bytes := 0
	for _, one := range members {
		if one.MemberId <= m.AfterMember && m.AfterMember != "" {
			continue
		}
		if bytes += proto.Size(one); bytes > maxGroupAnswerBytes && len(resp.Members) > 0 {
			resp.More = true
			break
		}
		resp.Members = append(resp.Members, one)
	}
	return fits(resp)
}

func consumerMembers(r *consumergroup.ConsumerDescribeReply) []*pb.GroupMember {
	out := make([]*pb.GroupMember, len(r.Members))
	for i := range r.Members {
		m := &r.Members[i]
		out[i] = &pb.GroupMember{
			MemberId: m.MemberID, InstanceId: m.InstanceID, Rack: m.RackID, MemberEpoch: m.Epoch, ClientId: m.ClientID, ClientHost: m.ClientHost,
			Topics: m.Topics, Regex: m.Regex, Classic: m.Classic, Assigned: describedTopics(m.Assigned), Target: describedTopics(m.Target),
		}
	}
	return out
}

func describedTopics(list []consumergroup.DescribedPartitions) []*pb.GroupTopic {
	out := make([]*pb.GroupTopic, len(list))
	for i, d := range list {
		out[i] = &pb.GroupTopic{TopicId: d.TopicID[:], Name: d.Topic, Partitions: d.Partitions}
	}
	return out
}

// classicMembers tells what the leader of a group of consumers has assigned. What
// cannot be read, of other groups above all, is left out.
func classicMembers(r *consumergroup.DescribeReply) []*pb.GroupMember {
	out := make([]*pb.GroupMember, len(r.Members))
	for i := range r.Members {
		m := &r.Members[i]
		out[i] = &pb.GroupMember{
			MemberId: m.MemberID, InstanceId: m.InstanceID, MemberEpoch: noEpoch, ClientId: m.ClientID, ClientHost: m.ClientHost, Classic: true,
		}
		if r.ProtocolType != record.ConsumerProtocolType {
			continue
		}
		if s, err := record.DecodeSubscription(m.Metadata); err == nil {
			out[i].Topics = s.Topics
		}
		if a, err := record.DecodeAssignment(m.Assignment); err == nil {
			for _, p := range a.Partitions {
				out[i].Assigned = append(out[i].Assigned, &pb.GroupTopic{Name: p.Topic, Partitions: p.Partitions})
			}
		}
	}
	return out
}
