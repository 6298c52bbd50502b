package server

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// partitionOf returns the topic of a partition that there is.
func (q *request) partitionOf(rawID []byte, index int32) (broker.Topic, *errcode.Error) {
	id, err := topicID(rawID)
	if err != nil {
		return broker.Topic{}, broker.CodeOf(err)
	}
	t, missing := q.s.opt.Broker.TopicByID(id)
	if missing != nil {
		return broker.Topic{}, missing
	}
	return t, q.s.opt.Broker.HasPartition(id, index)
}

// commitOffsets commits what is of partitions that there are.
func (q *request) commitOffsets(ctx context.Context, m *pb.CommitOffsetsRequest) (proto.Message, error) {
	switch {
	case m.Group == "":
		return nil, errcode.Errorf(errcode.InvalidGroupID, "the group's name is empty")
	case len(m.Offsets) == 0:
		return nil, errcode.Errorf(errcode.InvalidRequest, "no offsets")
	}
	req := &consumergroup.CommitRequest{
		Group: m.Group, MemberID: m.MemberId, InstanceID: m.InstanceId, Generation: m.MemberEpoch, RetentionMS: -1, KnowsNoGroup: true,
	}
	resp := &pb.CommitOffsetsResponse{Results: make([]*pb.GroupResult, len(m.Offsets))}
	var asked []int // places in the request that the coordinator is asked about
	for i, o := range m.Offsets {
		r := &pb.GroupResult{TopicId: o.TopicId, Partition: o.Partition}
		resp.Results[i] = r
		if o.Offset < 0 {
			return nil, errcode.Errorf(errcode.InvalidRequest, "offset %d of partition %d", o.Offset, o.Partition)
		}
		t, err := q.partitionOf(o.TopicId, o.Partition)
		if err != nil {
			r.Error = q.pbError(err)
			continue
		}
		asked = append(asked, i)
		req.Offsets = append(req.Offsets, consumergroup.CommitOffset{
			Topic: t.Name, TopicID: record.TopicID(t.ID), Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		})
	}
	if len(asked) == 0 {
		return resp, nil
	}
	reply := q.s.opt.Groups.CommitOffsets(ctx, req)
	if reply.Err != nil {
		return nil, reply.Err
	}
	for k, i := range asked {
		resp.Results[i].Error = q.briefly(reply.Offsets[k], len(asked))
	}
	return resp, nil
}

// briefly is pbError for one of n parts, without its text if there are many.
func (q *request) briefly(e *errcode.Error, n int) *pb.Error {
	m := q.pbError(e)
	if m != nil && n > maxDetails {
		m.Message = ""
	}
	return m
}

func (q *request) fetchOffsets(ctx context.Context, m *pb.FetchOffsetsRequest) (proto.Message, error) {
	switch {
	case m.Group == "":
		return nil, errcode.Errorf(errcode.InvalidGroupID, "the group's name is empty")
	case m.All && len(m.Partitions) > 0 || !m.All && m.AfterTopic != "":
		return nil, errcode.Errorf(errcode.InvalidRequest, "all excludes partitions, and only all has after_topic")
	}
	req := &consumergroup.FetchRequest{Group: m.Group, MemberID: m.MemberId, MemberEpoch: m.MemberEpoch, All: m.All}
	if m.All {
		return q.fetchAllOffsets(ctx, m, req)
	}
	resp := &pb.FetchOffsetsResponse{Offsets: make([]*pb.GroupOffset, len(m.Partitions))}
	var asked []int
	for i, p := range m.Partitions {
		o := &pb.GroupOffset{TopicId: p.TopicId, Partition: p.Partition, Offset: -1, LeaderEpoch: -1}
		resp.Offsets[i] = o
		t, err := q.partitionOf(p.TopicId, p.Partition)
		if err != nil {
			o.Error = q.briefly(err, len(m.Partitions))
			continue
		}
		asked = append(asked, i)
		req.Partitions = append(req.Partitions, consumergroup.FetchPartition{Topic: t.Name, TopicID: record.TopicID(t.ID), Partition: p.Partition})
	}
	r := q.s.opt.Groups.FetchOffsets(ctx, req)
	if r.Err != nil {
		return nil, r.Err
	}
	for k, i := range asked {
		o := &r.Offsets[k]
		resp.Offsets[i].Topic, resp.Offsets[i].Offset = o.Topic, o.Offset
		resp.Offsets[i].LeaderEpoch, resp.Offsets[i].Metadata = o.LeaderEpoch, o.Metadata
	}
	return fits(resp)
}

// fetchAllOffsets answers with those after a place, as many as fit.
func (q *request) fetchAllOffsets(ctx context.Context, m *pb.FetchOffsetsRequest, req *consumergroup.FetchRequest) (proto.Message, error) {
	r := q.s.opt.Groups.FetchOffsets(ctx, req)
	if r.Err != nil {
		return nil, r.Err
	}
	resp, bytes := new(pb.FetchOffsetsResponse), 0
	for i := range r.Offsets {
		o := &r.Offsets[i]
		if m.AfterTopic != "" && cmp.Or(cmp.Compare(o.Topic, m.AfterTopic), cmp.Compare(o.Partition, m.AfterPartition)) <= 0 {
			continue
		}
		one := &pb.GroupOffset{
			Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
		}
		if o.TopicID != (record.TopicID{}) {
			one.TopicId = o.TopicID[:]
		}
		if bytes += proto.Size(one); bytes > maxGroupAnswerBytes && len(resp.Offsets) > 0 {
			resp.More = true
			break
		}
		resp.Offsets = append(resp.Offsets, one)
	}
	return resp, nil
}

func (q *request) deleteOffsets(ctx context.Context, m *pb.DeleteOffsetsRequest) (proto.Message, error) {
	if len(m.Partitions) == 0 {
		return nil, errcode.Errorf(errcode.InvalidRequest, "no partitions")
	}
	req := &consumergroup.DeleteOffsetsRequest{Group: m.Group, Partitions: make([]consumergroup.TopicPartition, len(m.Partitions))}
	for i, p := range m.Partitions {
		req.Partitions[i] = consumergroup.TopicPartition{Topic: p.Topic, Partition: p.Partition}
	}
	r := q.s.opt.Groups.DeleteOffsets(ctx, req)
	if r.Err != nil {
		return nil, r.Err
	}
	resp := &pb.DeleteOffsetsResponse{Results: make([]*pb.GroupResult, len(m.Partitions))}
	for i, p := range m.Partitions {
		resp.Results[i] = &pb.GroupResult{Topic: p.Topic, Partition: p.Partition, Error: q.briefly(r.Partitions[i], len(m.Partitions))}
	}
	return resp, nil
}
