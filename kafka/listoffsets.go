package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Kafka's timestamps that stand for something else, and the versions that know
// them.
const (
	latestTime        = -1
	earliestTime      = -2
	maxTimestampTime  = -3 // 7
	earliestLocalTime = -4 // 8
	latestTieredTime  = -5 // 9
	earliestPending   = -6 // 11: of what is to be copied to tiered storage
)

// timesKnown returns the lowest timestamp that a version knows.
func timesKnown(version int16) int64 {
	switch {
	case version >= 11:
		return earliestPending
	case version >= 9:
		return latestTieredTime
	case version == 8:
		return earliestLocalTime
	case version == 7:
		return maxTimestampTime
	}
	return earliestTime
}

// listOffsets answers offsets by time and by kind. There are no transactions yet,
// so the last stable offset is the high watermark and both isolation levels give
// the same; nor is there tiered storage: nothing is in it, or waits for it, and
// what is local is all.
func (s *Server) listOffsets(ctx context.Context, p *peer, req *kmsg.ListOffsetsRequest) kmsg.Response {
	resp := kmsg.NewPtrListOffsetsResponse()
	resp.Version = req.Version
	if !p.hold(ctx, 2*resultBytes*asked(req.Topics, func(t *kmsg.ListOffsetsRequestTopic) int { return len(t.Partitions) })) {
		return nil
	}
	timeout := readTimeout
	if req.Version >= 10 && req.TimeoutMillis > 0 {
		timeout = min(timeout, time.Duration(req.TimeoutMillis)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var parts []broker.OffsetPart
	var outs []*kmsg.ListOffsetsResponseTopicPartition // of parts
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		asked := req.Topics[i].Partitions
		to := &resp.Topics[i]
		to.Topic = req.Topics[i].Topic
		topic, missing := s.existingID(to.Topic)
		twice := repeated(asked, func(a *kmsg.ListOffsetsRequestTopicPartition) int32 { return a.Partition })
		to.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, 0, len(asked)) // never grows: outs refers to it
		for j := range asked {
			a := &asked[j]
			first, named := twice[a.Partition]
			if named && !first {
				continue
			}
			to.Partitions = append(to.Partitions, kmsg.NewListOffsetsResponseTopicPartition())
			out := &to.Partitions[len(to.Partitions)-1]
			out.Partition = a.Partition
			part, none, err := offsetPart(req, topic, a)
			switch {
			case named:
				twice[a.Partition] = false
				err = errcode.Errorf(errcode.InvalidRequest, "partition %d is asked for twice", a.Partition)
			case missing != nil:
				err = missing
			}
			if err != nil || none && s.broker.HasPartition(topic, a.Partition) == nil {
				out.ErrorCode = p.error(err)
				continue
			}
			parts, outs = append(parts, part), append(outs, out)
		}
	}
	for i, r := range s.broker.Offsets(ctx, parts) {
		outs[i].ErrorCode = p.error(byName(r.Err))
		outs[i].Offset, outs[i].Timestamp, outs[i].LeaderEpoch = r.Offset, r.TimestampMS, r.Epoch
	}
	return resp
}

// offsetPart is what is asked of the broker. none says that there is no such
// offset in any partition.
func offsetPart(req *kmsg.ListOffsetsRequest, topic broker.TopicID, a *kmsg.ListOffsetsRequestTopicPartition) (part broker.OffsetPart, none bool, err *errcode.Error) {
	part = broker.OffsetPart{Topic: topic, Index: a.Partition, Epoch: -1}
	if req.Version >= 4 {
		part.Epoch = a.CurrentLeaderEpoch
	}
	if req.IsolationLevel < 0 || req.IsolationLevel > 1 {
		return part, false, errcode.Errorf(errcode.InvalidRequest, "isolation level %d; there are 0, read uncommitted, and 1, read committed", req.IsolationLevel)
	}
	if a.Timestamp < timesKnown(req.Version) {
		return part, false, errcode.Errorf(errcode.UnsupportedVersion, "version %d does not know the timestamp %d", req.Version, a.Timestamp)
	}
	switch a.Timestamp {
	case latestTime:
		part.At = broker.OffsetLatest
	case earliestTime, earliestLocalTime:
		part.At = broker.OffsetEarliest
	case maxTimestampTime:
		part.At = broker.OffsetMaxTimestamp
	case latestTieredTime, earliestPending:
		return part, true, nil
	default:
		part.At, part.TimestampMS = broker.OffsetForTime, a.Timestamp
	}
	return part, false, nil
}
