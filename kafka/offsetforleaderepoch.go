package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// offsetForLeaderEpoch answers where leader epochs end. The replica id of version
// 3 makes no difference: what clients may see is what replicas may.
func (s *Server) offsetForLeaderEpoch(ctx context.Context, p *peer, req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	resp.Version = req.Version
	if !p.hold(ctx, 2*resultBytes*asked(req.Topics, func(t *kmsg.OffsetForLeaderEpochRequestTopic) int { return len(t.Partitions) })) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()

	var parts []broker.EpochPart
	var outs []*kmsg.OffsetForLeaderEpochResponseTopicPartition // of parts
	resp.Topics = make([]kmsg.OffsetForLeaderEpochResponseTopic, len(req.Topics))
	for i := range req.Topics {
		asked := req.Topics[i].Partitions
		to := &resp.Topics[i]
		to.Topic, to.Partitions = req.Topics[i].Topic, make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(asked))
		topic, missing := s.existingID(to.Topic)
		for j := range asked {
			out := &to.Partitions[j]
			out.Default()
			out.Partition, out.LeaderEpoch, out.EndOffset = asked[j].Partition, -1, -1
			if missing != nil {
				out.ErrorCode = p.error(missing)
				continue
			}
			parts = append(parts, broker.EpochPart{
				Topic: topic, Index: out.Partition, Epoch: asked[j].LeaderEpoch, Current: asked[j].CurrentLeaderEpoch,
			})
			outs = append(outs, out)
		}
	}
	for i, r := range s.broker.EpochEnds(ctx, parts) {
		outs[i].ErrorCode, outs[i].LeaderEpoch, outs[i].EndOffset = p.error(byName(r.Err)), r.Epoch, r.End
	}
	return resp
}
