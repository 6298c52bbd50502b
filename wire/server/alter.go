package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// pbConfigs leaves out what is of interest to Kafka's clients only.
func pbConfigs(configs []broker.TopicConfig) []*pb.Config {
	var out []*pb.Config
	for _, c := range configs {
		if c.Inert() {
			continue
		}
		one := &pb.Config{Name: c.Key, Value: c.Value}
		if c.Default {
			one.Source = pb.ConfigSource_CONFIG_SOURCE_DEFAULT
		}
		out = append(out, one)
	}
	return out
}

func (q *request) alterTopic(ctx context.Context, m *pb.AlterTopicRequest) (proto.Message, error) {
	t, err := q.named(m.Name, m.TopicId)
	if err != nil {
		return nil, err
	}
	set, err := configMap(m.Set)
	if err != nil {
		return nil, err
	}
	configs, err := q.s.opt.Broker.AlterTopic(ctx, broker.TopicChange{
		Topic: t.ID, Set: set, Delete: m.Delete, ValidateOnly: m.ValidateOnly,
	})
	if err != nil {
		return nil, err
	}
	return &pb.AlterTopicResponse{Configs: pbConfigs(configs)}, nil
}

func (q *request) addPartitions(ctx context.Context, m *pb.AddPartitionsRequest) (proto.Message, error) {
	t, err := q.named(m.Name, m.TopicId)
	if err != nil {
		return nil, err
	}
	grown, err := q.s.opt.Broker.AddPartitions(ctx, t.ID, m.Total, nil, m.ValidateOnly)
	if err != nil {
		return nil, err
	}
	return &pb.AddPartitionsResponse{Partitions: int32(grown.Partitions)}, nil
}

func (q *request) deleteRecords(ctx context.Context, m *pb.DeleteRecordsRequest) (proto.Message, error) {
	type partition struct {
		topic broker.TopicID
		index int32
	}
	parts := make([]broker.DeletePart, len(m.Parts))
	seen := make(map[partition]bool, len(m.Parts))
	for i, p := range m.Parts {
		id, err := topicID(p.TopicId)
		if err != nil {
			return nil, err
		}
		if at := (partition{id, p.Partition}); seen[at] {
			return nil, errcode.Errorf(errcode.InvalidRequest, "partition %d is named twice", p.Partition)
		} else {
			seen[at] = true
		}
		parts[i] = broker.DeletePart{Topic: id, Index: p.Partition, Before: p.BeforeOffset}
	}
	if len(parts) == 0 {
		return nil, errcode.Errorf(errcode.InvalidRequest, "no parts")
	}
	resp := &pb.DeleteRecordsResponse{}
	for i, r := range q.s.opt.Broker.DeleteRecords(ctx, parts) {
		resp.Results = append(resp.Results, &pb.DeleteRecordsResult{
			TopicId: m.Parts[i].TopicId, Partition: m.Parts[i].Partition,
			Error: q.partError(r.Err, m.Parts[i].TopicId, m.Parts[i].Partition, len(parts)), LogStartOffset: r.LogStart,
		})
	}
	return resp, nil
}

// offsetsAt are the kinds of offset that the protocol knows, by their numbers.
var offsetsAt = map[pb.OffsetAt]broker.OffsetAt{
	pb.OffsetAt_OFFSET_AT_LATEST:        broker.OffsetLatest,
	pb.OffsetAt_OFFSET_AT_EARLIEST:      broker.OffsetEarliest,
	pb.OffsetAt_OFFSET_AT_TIMESTAMP:     broker.OffsetForTime,
	pb.OffsetAt_OFFSET_AT_MAX_TIMESTAMP: broker.OffsetMaxTimestamp,
}

// startListOffsets answers at once, or, if that may take a wait, elsewhere.
func (q *request) startListOffsets(m *pb.ListOffsetsRequest) {
	if len(m.Parts) == 0 {
		q.fail(errcode.Errorf(errcode.InvalidRequest, "no parts"))
		return
	}
	parts := make([]broker.OffsetPart, len(m.Parts))
	for i, p := range m.Parts {
		id, err := topicID(p.TopicId)
		if err != nil {
			q.fail(err)
			return
		}
		at, known := offsetsAt[p.At]
		if !known {
			q.fail(errcode.Errorf(errcode.InvalidRequest, "this version does not know what offset %d is", p.At))
			return
		}
		parts[i] = broker.OffsetPart{Topic: id, Index: p.Partition, At: at, TimestampMS: p.TimestampMs, Epoch: p.LeaderEpoch}
	}
	if !q.s.opt.Broker.OffsetsWait(parts) {
		q.answerWith(q.listOffsets(q.ctx, m, parts))
		return
	}
	go q.within(0, func(ctx context.Context) (proto.Message, error) { return q.listOffsets(ctx, m, parts) })
}

func (q *request) listOffsets(ctx context.Context, m *pb.ListOffsetsRequest, parts []broker.OffsetPart) (proto.Message, error) {
	resp := &pb.ListOffsetsResponse{Results: make([]*pb.ListOffsetsResult, len(parts))}
	for i, r := range q.s.opt.Broker.Offsets(ctx, parts) {
		p := m.Parts[i]
		resp.Results[i] = &pb.ListOffsetsResult{
			TopicId: p.TopicId, Partition: p.Partition, Error: q.partError(r.Err, p.TopicId, p.Partition, len(parts)),
			Offset: r.Offset, LeaderEpoch: r.Epoch, TimestampMs: r.TimestampMS,
		}
	}
	return resp, nil
}
