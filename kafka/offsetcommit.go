package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// offsetCommit commits offsets of partitions that there are; it is answered when a
// majority has them. Versions 2 to 4 say how long they are kept, version 7 brings
// static members, from version 9 on members of KIP-848 commit, and from version 10 on
// topics are named by their ids.
func (s *Server) offsetCommit(ctx context.Context, p *peer, req *kmsg.OffsetCommitRequest) kmsg.Response {
	if !p.hold(ctx, resultBytes*asked(req.Topics, func(t *kmsg.OffsetCommitRequestTopic) int { return len(t.Partitions) })) {
		return nil
	}
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.Version = req.Version
	ask := &consumergroup.CommitRequest{
		Group: req.Group, MemberID: req.MemberID, InstanceID: required(req.InstanceID), Generation: req.Generation,
		RetentionMS: -1, KnowsNoGroup: req.Version >= 9,
	}
	if req.Version <= 4 {
		ask.RetentionMS = req.RetentionTimeMillis
	}
	var answers []*int16 // in resp, by the place in ask
	for i := range req.Topics {
		from, to := &req.Topics[i], kmsg.NewOffsetCommitResponseTopic()
		to.Topic, to.TopicID = from.Topic, from.TopicID
		to.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(from.Partitions))
		topic, err := s.committedTopic(req.Version, from)
		for j := range from.Partitions {
			part, out := &from.Partitions[j], &to.Partitions[j]
			out.Partition = part.Partition
			wrong := err
			if wrong == nil {
				wrong = topic.has(part.Partition)
			}
			if wrong != nil {
				out.ErrorCode = p.error(wrong)
				continue
			}
			answers = append(answers, &out.ErrorCode)
			ask.Offsets = append(ask.Offsets, consumergroup.CommitOffset{
				Topic: topic.name, TopicID: record.TopicID(topic.id), Partition: part.Partition,
				Offset: part.Offset, LeaderEpoch: part.LeaderEpoch, Metadata: required(part.Metadata),
			})
		}
		if len(to.Partitions) > 0 { // as Kafka
			resp.Topics = append(resp.Topics, to)
		}
	}
	if len(ask.Offsets) == 0 {
		return resp // as Kafka: whether there is the group is not looked at
	}
	r := s.groups.CommitOffsets(ctx, ask)
	for i, to := range answers {
		err := r.Err
		if err == nil {
			err = r.Offsets[i]
		}
		*to = p.error(err)
	}
	return resp
}

// committedTopic returns the topic that offsets are committed to.
func (s *Server) committedTopic(version int16, t *kmsg.OffsetCommitRequestTopic) (placed, *errcode.Error) {
	if version >= offsetTopicIDVersion {
		return s.placedByID(t.TopicID)
	}
	return s.placedByName(t.Topic)
}

// offsetTopicIDVersion is from where on OffsetCommit and OffsetFetch name topics by id.
const offsetTopicIDVersion = 10
