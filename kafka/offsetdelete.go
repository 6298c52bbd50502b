package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/consumergroup"
)

// offsetDelete forgets committed offsets of partitions that there are, but for topics
// that members of the group consume.
func (s *Server) offsetDelete(ctx context.Context, p *peer, req *kmsg.OffsetDeleteRequest) kmsg.Response {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if !p.hold(ctx, resultBytes*asked(req.Topics, func(t *kmsg.OffsetDeleteRequestTopic) int { return len(t.Partitions) })) {
		return nil
	}
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Version = req.Version
	ask := &consumergroup.DeleteOffsetsRequest{Group: req.Group}
	var answers []*int16 // in resp, by the place in ask
	for i := range req.Topics {
		to := kmsg.NewOffsetDeleteResponseTopic()
		to.Topic = req.Topics[i].Topic
		to.Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(req.Topics[i].Partitions))
		topic, err := s.placedByName(to.Topic)
		for j := range to.Partitions {
			part, out := req.Topics[i].Partitions[j].Partition, &to.Partitions[j]
			out.Partition = part
			wrong := err
			if wrong == nil {
				wrong = topic.has(part)
			}
			if wrong != nil {
				out.ErrorCode = p.error(wrong)
				continue
			}
			answers = append(answers, &out.ErrorCode)
			ask.Partitions = append(ask.Partitions, consumergroup.TopicPartition{Topic: topic.name, Partition: part})
		}
		if len(to.Partitions) > 0 { // as Kafka
			resp.Topics = append(resp.Topics, to)
		}
	}
	r := s.groups.DeleteOffsets(ctx, ask)
	if r.Err != nil {
		resp.Topics, resp.ErrorCode = nil, p.error(r.Err)
		return resp
	}
	for i, to := range answers {
		*to = p.error(r.Partitions[i])
	}
	return resp
}
