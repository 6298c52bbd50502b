package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// leastDeleteTimeoutMS is how long a deletion may take at least. Kafka's leader has
// deleted before it looks at the time-out, which is for its followers; here a majority
// has to hear of it first.
const leastDeleteTimeoutMS = 1000

// deleteRecords deletes records below offsets; -1 is the high watermark. Of a
// partition that stands there more than once, the last offset counts.
func (s *Server) deleteRecords(ctx context.Context, p *peer, req *kmsg.DeleteRecordsRequest) kmsg.Response {
	resp := kmsg.NewPtrDeleteRecordsResponse()
	resp.Version = req.Version
	ctx, cancel := forMS(ctx, max(req.TimeoutMillis, leastDeleteTimeoutMS))
	defer cancel()
	if !p.hold(ctx, 2*resultBytes*asked(req.Topics, func(t *kmsg.DeleteRecordsRequestTopic) int { return len(t.Partitions) })) {
		return nil
	}

	var parts []broker.DeletePart
	var outs []*kmsg.DeleteRecordsResponseTopicPartition // of parts
	resp.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		topic, err := s.existingID(req.Topics[i].Topic)
		asked := lastOf(req.Topics[i].Partitions)
		to := &resp.Topics[i]
		to.Topic, to.Partitions = req.Topics[i].Topic, make([]kmsg.DeleteRecordsResponseTopicPartition, len(asked))
		for j := range asked {
			out := &to.Partitions[j]
			out.Default()
			out.Partition, out.LowWatermark = asked[j].Partition, -1
			if err != nil {
				out.ErrorCode = p.error(err)
				continue
			}
			before := asked[j].Offset
			parts = append(parts, broker.DeletePart{Topic: topic, Index: out.Partition, Before: before})
			outs = append(outs, out)
		}
	}
	for i, r := range s.broker.DeleteRecords(ctx, parts) {
		outs[i].ErrorCode = p.error(byName(r.Err))
		if r.Err == nil {
			outs[i].LowWatermark = r.LogStart
		}
	}
	return resp
}

// lastOf returns the last offset that is given for each partition.
func lastOf(asked []kmsg.DeleteRecordsRequestTopicPartition) []kmsg.DeleteRecordsRequestTopicPartition {
	at := make(map[int32]int, len(asked))
	var kept []kmsg.DeleteRecordsRequestTopicPartition
	for _, a := range asked {
		if i, before := at[a.Partition]; before {
			kept[i] = a
			continue
		}
		at[a.Partition] = len(kept)
		kept = append(kept, a)
	}
	return kept
}
