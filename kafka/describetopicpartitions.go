package kafka

import (
	"context"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// maxDescribed is how many partitions one DescribeTopicPartitions answers at
// most, as Kafka's max.request.partition.size.limit.
const maxDescribed = 2000

// describeTopicPartitions answers with the partitions of some topics, or all, by
// name, from the request's cursor on: as many as the request and maxDescribed
// allow, and a cursor where the rest begins.
func (s *Server) describeTopicPartitions(ctx context.Context, p *peer, req *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	resp.Version = req.Version
	names := make([]string, len(req.Topics))
	for i := range req.Topics {
		names[i] = req.Topics[i].Topic
	}
	left := int(max(min(req.ResponsePartitionLimit, maxDescribed), 1))
	if !p.hold(ctx, s.describedBytes(len(names), left)) {
		return nil
	}
	if err := checkCursor(names, req.Cursor); err != nil {
		code := p.error(err)
		for i := range names {
			t := kmsg.NewDescribeTopicPartitionsResponseTopic()
			t.ErrorCode, t.Topic = code, &names[i]
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	from, first := "", int32(0)
	if req.Cursor != nil {
		from, first = req.Cursor.Topic, req.Cursor.Partition
	}
	look := s.broker.Lookup()
	for name := range s.described(names, from) {
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		t, err := look.ByName(ctx, name)
		if err != nil && len(names) == 0 {
			continue // it was deleted a moment ago
		}
		begin := 0
		if name == from {
			begin = min(int(first), t.Partitions)
		}
		end := min(begin+left, t.Partitions)
		t.Name = name
		resp.Topics = append(resp.Topics, s.describedTopic(p, &t, err, begin, end))
		if left -= end - begin; end < t.Partitions {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: int32(end)}
			break
		}
	}
	return resp
}

// describedBytes is about what an answer takes in memory that describes so many
// topics by name, or if there are none all, of at most so many partitions.
func (s *Server) describedBytes(names, partitions int) int64 {
	topics, all := s.broker.Counts()
	if names > 0 {
		topics = names
	} else {
		topics = min(topics, partitions)
	}
	return int64(topics)*topicAnswerBytes + int64(min(partitions, all))*partitionAnswerBytes
}

func checkCursor(names []string, c *kmsg.DescribeTopicPartitionsRequestCursor) *errcode.Error {
	switch {
	case c == nil:
		return nil
	case len(names) > 0 && !slices.Contains(names, c.Topic):
		return errcode.Errorf(errcode.InvalidRequest, "DescribeTopicPartitionsRequest topic list should contain the cursor topic: %s", c.Topic)
	case c.Partition < 0:
		return errcode.Errorf(errcode.InvalidRequest, "DescribeTopicPartitionsRequest cursor partition must be valid: %d", c.Partition)
	}
	return nil
}

// described walks the names to answer, in their order, from one on: those given,
// or if there are none those of all topics.
func (s *Server) described(names []string, from string) iter.Seq[string] {
	if len(names) > 0 {
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		i, _ := slices.BinarySearch(names, from)
		return slices.Values(names[i:])
	}
	return func(yield func(string) bool) {
		for name := range s.broker.TopicNames(from) {
			if !yield(name) {
				return
			}
		}
	}
}

// describedTopic is partitions [begin, end) of a topic, or why there is none, in
// a DescribeTopicPartitions answer.
func (s *Server) describedTopic(p *peer, t *broker.Topic, err *errcode.Error, begin, end int) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.ErrorCode, out.Topic, out.TopicID, out.IsInternal = p.error(err), &t.Name, t.ID, isInternal(t.Name)
	out.AuthorizedOperations = topicOperations
	for i, from := range s.broker.Leaders(t, begin, end) {
		to := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		to.Partition, to.LeaderID, to.LeaderEpoch = i, from.Node, from.Epoch
		to.Replicas, to.ISR, to.OfflineReplicas = from.Replicas, from.InSync, from.Offline
		// What Kafka remembers of replicas that left the in-sync set is Raft's here.
		to.EligibleLeaderReplicas, to.LastKnownELR = []int32{}, []int32{}
		if from.Node < 0 {
			to.ErrorCode = int16(errcode.LeaderNotAvailable)
		}
		out.Partitions = append(out.Partitions, to)
	}
	return out
}
