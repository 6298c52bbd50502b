package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// The types of members that ConsumerGroupDescribe tells from version 1 on (KIP-1099).
const (
	memberClassic  = 0
	memberConsumer = 1
)

// consumerGroupDescribe tells of groups that the server assigns and their members, of
// each once.
func (s *Server) consumerGroupDescribe(ctx context.Context, p *peer, req *kmsg.ConsumerGroupDescribeRequest) kmsg.Response {
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var found []*consumergroup.ConsumerDescribeReply
	var size int64
	for _, name := range distinct(req.Groups, itself) {
		r := s.groups.DescribeConsumerGroup(within, name)
		size += consumerGroupBytes(r)
		if found = append(found, r); size > p.mostAnswer() {
			break
		}
	}
	if !p.hold(ctx, size) {
		return nil
	}
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	resp.Version = req.Version
	for _, r := range found {
		g := kmsg.NewConsumerGroupDescribeResponseGroup()
		g.Group, g.ErrorCode, g.ErrorMessage = r.Group, p.error(r.Err), text(r.Err)
		if r.Err == nil {
			g.State, g.Epoch, g.AssignmentEpoch, g.AssignorName = r.State.String(), r.Epoch, r.TargetEpoch, r.Assignor
			g.AuthorizedOperations = operationsOnGroup(req.IncludeAuthorizedOperations)
		}
		for i := range r.Members {
			g.Members = append(g.Members, describedConsumer(&r.Members[i]))
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func describedConsumer(from *consumergroup.DescribedConsumer) kmsg.ConsumerGroupDescribeResponseGroupMember {
	m := kmsg.NewConsumerGroupDescribeResponseGroupMember()
	m.MemberID, m.InstanceID, m.RackID, m.MemberEpoch = from.MemberID, optional(from.InstanceID), optional(from.RackID), from.Epoch
	m.ClientID, m.ClientHost, m.SubscribedTopics, m.SubscribedTopicRegex = from.ClientID, from.ClientHost, from.Topics, &from.Regex
	m.Assignment, m.TargetAssignment = assignment(from.Assigned), assignment(from.Target)
	if m.MemberType = memberConsumer; from.Classic {
		m.MemberType = memberClassic
	}
	return m
}

// assignment is partitions of topics that there are.
func assignment(list []consumergroup.DescribedPartitions) kmsg.Assignment {
	a := kmsg.NewAssignment()
	for i := range list {
		if list[i].Topic == "" {
			continue // it is deleted
		}
		t := kmsg.NewAssignmentTopicPartition()
		t.TopicID, t.Topic, t.Partitions = list[i].TopicID, list[i].Topic, list[i].Partitions
		a.TopicPartitions = append(a.TopicPartitions, t)
	}
	return a
}

// consumerGroupBytes is about what a group takes in an answer.
func consumerGroupBytes(r *consumergroup.ConsumerDescribeReply) int64 {
	n := resultBytes + len(r.Group)
	for i := range r.Members {
		m := &r.Members[i]
		n += 2*resultBytes + len(m.MemberID) + len(m.InstanceID) + len(m.RackID) + len(m.ClientID) + len(m.ClientHost) + len(m.Regex)
		for _, name := range m.Topics {
			n += 32 + len(name)
		}
		for _, list := range [2][]consumergroup.DescribedPartitions{m.Assigned, m.Target} {
			for j := range list {
				n += resultBytes/2 + len(list[j].Topic) + 8*len(list[j].Partitions)
			}
		}
	}
	return int64(n)
}
