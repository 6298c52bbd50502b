package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// describeLogDirs answers how much of this node's data directory partitions take:
// the bytes of their batches. Partitions that are not here are left out. From
// version 4 on it answers the size of the disk, too.
func (s *Server) describeLogDirs(ctx context.Context, p *peer, req *kmsg.DescribeLogDirsRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	resp.Version = req.Version
	if !p.hold(ctx, s.logDirsBytes(req)) {
		return nil
	}
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = s.broker.DataDir()
	if disk := s.broker.DiskState(); disk.TotalBytes > 0 {
		dir.TotalBytes, dir.UsableBytes = disk.TotalBytes, disk.FreeBytes
	}
	if req.Topics == nil {
		for t := range s.broker.Topics("") {
			dir.Topics = s.appendLogDirTopic(dir.Topics, &t, nil)
		}
	}
	for i := range req.Topics {
		name := req.Topics[i].Topic
		if id, err := s.broker.TopicIDOf(name); err == nil && len(req.Topics[i].Partitions) > 0 {
			t := broker.Topic{Name: name, ID: id} // no list of all partitions for a few
			asked := slices.Compact(slices.Sorted(slices.Values(req.Topics[i].Partitions)))
			dir.Topics = s.appendLogDirTopic(dir.Topics, &t, asked)
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp
}

// logDirBytes is about what a partition's size takes in memory.
const logDirBytes = 128

// logDirsBytes is about what the answer takes in memory.
func (s *Server) logDirsBytes(req *kmsg.DescribeLogDirsRequest) int64 {
	if req.Topics == nil {
		topics, _ := s.broker.Counts()
		here := s.broker.PartitionsHere()
		return resultBytes*int64(min(topics, here)) + logDirBytes*int64(here)
	}
	return resultBytes * asked(req.Topics, func(t *kmsg.DescribeLogDirsRequestTopic) int { return len(t.Partitions) })
}

// appendLogDirTopic appends those of a topic's partitions that are on this node
// and asked for; nil: all.
func (s *Server) appendLogDirTopic(to []kmsg.DescribeLogDirsResponseDirTopic, t *broker.Topic, asked []int32) []kmsg.DescribeLogDirsResponseDirTopic {
	topic := kmsg.NewDescribeLogDirsResponseDirTopic()
	topic.Topic = t.Name
	add := func(index int32) {
		state := s.broker.DescribePartition(t.ID, index)
		if state.LogBytes < 0 {
			return
		}
		one := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		one.Partition, one.Size = index, state.LogBytes
		topic.Partitions = append(topic.Partitions, one)
	}
	if asked == nil {
		for i := range int32(t.Partitions) {
			add(i)
		}
	}
	for _, index := range asked {
		add(index)
	}
	if topic.Partitions == nil {
		return to
	}
	return append(to, topic)
}
