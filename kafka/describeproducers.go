package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// describeProducers answers the idempotent producers that partitions remember.
// The time of the last append is the shard's clock then, and not the newest
// timestamp of the batch. There are no transactions yet.
func (s *Server) describeProducers(ctx context.Context, p *peer, req *kmsg.DescribeProducersRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeProducersResponse()
	resp.Version = req.Version
	req.Topics = eachOnce(req.Topics)
	if !p.hold(ctx, s.producersBytes(req)) {
		return nil
	}
	for i := range req.Topics {
		to := kmsg.NewDescribeProducersResponseTopic()
		to.Topic = req.Topics[i].Topic
		topic, missing := s.broker.TopicIDOf(to.Topic)
		if missing != nil && missing.Code == errcode.UnknownTopicOrPartition {
			missing = errcode.Errorf(missing.Code, notHosted)
		}
		for _, index := range req.Topics[i].Partitions {
			out := kmsg.NewDescribeProducersResponseTopicPartition()
			out.Partition = index
			err := missing
			if err == nil {
				err = s.putProducers(topic, &out)
			}
			out.ErrorCode, out.ErrorMessage = p.error(err), text(err)
			to.Partitions = append(to.Partitions, out)
		}
		resp.Topics = append(resp.Topics, to)
	}
	return resp
}

// producersBytes is about what the answer takes in memory.
func (s *Server) producersBytes(req *kmsg.DescribeProducersRequest) int64 {
	n := resultBytes * asked(req.Topics, func(t *kmsg.DescribeProducersRequestTopic) int { return len(t.Partitions) })
	for i := range req.Topics {
		if topic, err := s.broker.TopicIDOf(req.Topics[i].Topic); err == nil {
			for _, index := range req.Topics[i].Partitions {
				n += resultBytes * int64(s.broker.ProducerCount(topic, index))
			}
		}
	}
	return n
}

// putProducers puts a partition's producers into out.
func (s *Server) putProducers(topic [16]byte, out *kmsg.DescribeProducersResponseTopicPartition) *errcode.Error {
	producers, err := s.broker.Producers(topic, out.Partition)
	for _, pr := range producers {
		active := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		active.ProducerID, active.ProducerEpoch = pr.ID, pr.Epoch
		active.LastSequence, active.LastTimestamp = pr.LastSequence, pr.LastTimestamp
		active.CoordinatorEpoch, active.CurrentTxnStartOffset = -1, -1
		out.ActiveProducers = append(out.ActiveProducers, active)
	}
	return byName(err)
}

// eachOnce leaves of what is asked for each topic once, and of it each partition:
// copying a partition's producers keeps its shard from applying meanwhile.
func eachOnce(topics []kmsg.DescribeProducersRequestTopic) []kmsg.DescribeProducersRequestTopic {
	at := make(map[string]int, len(topics))
	var kept []kmsg.DescribeProducersRequestTopic
	for _, t := range topics {
		i, again := at[t.Topic]
		if !again {
			at[t.Topic] = len(kept)
			kept = append(kept, t)
			continue
		}
		kept[i].Partitions = append(kept[i].Partitions, t.Partitions...)
	}
	for i := range kept {
		kept[i].Partitions = distinct(kept[i].Partitions, func(index *int32) int32 { return *index })
	}
	return kept
}
