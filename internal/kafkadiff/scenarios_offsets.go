package main

import (
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// deleteRecords moves log starts.
func deleteRecords(s *session) {
	each(kmsg.DeleteRecords, func(v int16) {
		name, id := s.create(fmt.Sprintf("t-%d", v), 2)
		s.fill(name, id, 0, 5)
		ask := func(what, topic string, partition int32, offset int64) {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = partition, offset
			t := kmsg.NewDeleteRecordsRequestTopic()
			t.Topic = topic
			t.Partitions = append(t.Partitions, p)
			req := kmsg.NewPtrDeleteRecordsRequest()
			req.TimeoutMillis = 10_000
			req.Topics = append(req.Topics, t)
			s.ask(what, req, v)
		}
		ask("below 0", name, 0, -2)
		ask("beyond the end", name, 0, 6)
		ask("at the start", name, 0, 0)
		ask("some", name, 0, 2)
		ask("below the start", name, 0, 1)
		ask("to the end", name, 0, 5)
		ask("to the end by -1", name, 0, -1)
		ask("of an empty partition", name, 1, 0)
		ask("beyond the end of an empty partition", name, 1, 1)
		ask("unknown partition", name, 2, 0)
		ask("negative partition", name, -1, 0)
		ask("unknown topic", s.topic("unknown"), 0, 0)
		for _, bad := range badNames {
			ask("topic named "+bad.what, bad.name, 0, 0)
		}
		twice := kmsg.NewPtrDeleteRecordsRequest()
		twice.TimeoutMillis = 10_000
		part := kmsg.NewDeleteRecordsRequestTopicPartition()
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic, topic.Partitions = name, append(topic.Partitions, part, part)
		twice.Topics = append(twice.Topics, topic)
		s.ask("a partition twice", twice, v)
		none := kmsg.NewPtrDeleteRecordsRequest()
		none.TimeoutMillis = 10_000
		s.ask("nothing", none, v)
		s.ask(fmt.Sprintf("after v%d earliest", v), listing(name, 0, -2), latest(kmsg.ListOffsets))
		s.ask(fmt.Sprintf("after v%d from 0", v), fetching(name, id, 0, 0), latest(kmsg.Fetch))
	})
}

func listing(topic string, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, timestamp
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.TimeoutMillis = -1, 10_000
	req.Topics = append(req.Topics, t)
	return req
}

// listOffsets looks offsets up by time.
func listOffsets(s *session) {
	name, id := s.create("t", 2)
	s.fill(name, id, 0, 3)
	s.quiet(producing(name, id, 0, s.records(5).bytes()), latest(kmsg.Produce)) // 3..7: base+0..base+4 in one batch
	base := s.base.UnixMilli()
	epoch := s.metadata(name).Partitions[0].LeaderEpoch
	each(kmsg.ListOffsets, func(v int16) {
		s.ask("latest", listing(name, 0, -1), v)
		s.ask("earliest", listing(name, 0, -2), v)
		s.ask("latest of an empty partition", listing(name, 1, -1), v)
		s.ask("earliest of an empty partition", listing(name, 1, -2), v)
		s.ask("a time in an empty partition", listing(name, 1, base), v)
		s.ask("the time of the first", listing(name, 0, base), v)
		s.ask("the time of the second", listing(name, 0, base+1), v)
		s.ask("a time within a batch", listing(name, 0, base+3), v)
		s.ask("the last time", listing(name, 0, base+4), v)
		s.ask("after the last time", listing(name, 0, base+5), v)
		s.ask("the time 0", listing(name, 0, 0), v)
		s.ask("the time 2^63-1", listing(name, 0, math.MaxInt64), v)
		for special := int64(-3); special >= -7; special-- {
			s.ask(fmt.Sprintf("special time %d", special), listing(name, 0, special), v)
		}
		s.ask("special time -3 in an empty partition", listing(name, 1, -3), v)
		s.ask("unknown partition", listing(name, 2, -1), v)
		s.ask("negative partition", listing(name, -1, -1), v)
		s.ask("unknown topic", listing(s.topic("unknown"), 0, -1), v)
		for _, bad := range badNames {
			s.ask("topic named "+bad.what, listing(bad.name, 0, -1), v)
		}
		twice := listing(name, 0, -1)
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, twice.Topics[0].Partitions[0])
		s.ask("a partition twice", twice, v)
		s.ask("nothing", kmsg.NewPtrListOffsetsRequest(), v)
		replica := listing(name, 0, -1)
		replica.ReplicaID = -2
		s.ask("as debugging consumer", replica, v)
		if v >= 2 {
			committed := listing(name, 0, -1)
			committed.IsolationLevel = 1
			s.ask("latest committed", committed, v)
			committed.IsolationLevel = 7
			s.ask("unknown isolation level", committed, v)
		}
		if v >= 4 {
			for d := range int32(2) {
				req := listing(name, 0, -1)
				req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch + d
				s.ask(fmt.Sprintf("current epoch +%d", d), req, v)
			}
		}
	})
}

// offsetForLeaderEpoch asks where epochs end.
func offsetForLeaderEpoch(s *session) {
	name, id := s.create("t", 2)
	s.fill(name, id, 0, 3)
	epoch := s.metadata(name).Partitions[0].LeaderEpoch
	each(kmsg.OffsetForLeaderEpoch, func(v int16) {
		ask := func(what, topic string, partition, current, of int32) {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = partition, current, of
			t := kmsg.NewOffsetForLeaderEpochRequestTopic()
			t.Topic = topic
			t.Partitions = append(t.Partitions, p)
			req := kmsg.NewPtrOffsetForLeaderEpochRequest()
			req.ReplicaID = -1
			req.Topics = append(req.Topics, t)
			s.ask(what, req, v)
		}
		ask("the current", name, 0, -1, epoch)
		ask("the current, which is given", name, 0, epoch, epoch)
		ask("the current of an empty partition", name, 1, epoch, epoch)
		ask("a later one", name, 0, -1, epoch+1)
		ask("none", name, 0, -1, -1)
		ask("the current, given a later one", name, 0, epoch+1, epoch)
		ask("unknown partition", name, 2, -1, epoch)
		ask("negative partition", name, -1, -1, epoch)
		ask("unknown topic", s.topic("unknown"), 0, -1, epoch)
		ask("bad topic", "bad name", 0, -1, epoch)
		none := kmsg.NewPtrOffsetForLeaderEpochRequest()
		none.ReplicaID = -1
		s.ask("nothing", none, v)
	})
}

// initProducerID asks for producer ids, without transactions.
func initProducerID(s *session) {
	for range awaitTries { // Kafka fetches its first block of ids when it is first asked
		req := kmsg.NewPtrInitProducerIDRequest()
		if s.quiet(req, 4).(*kmsg.InitProducerIDResponse).ErrorCode == 0 {
			break
		}
		time.Sleep(awaitEvery)
	}
	each(kmsg.InitProducerID, func(v int16) {
		ask := func(what string, txn *string, timeoutMS int32, id int64, epoch int16) *kmsg.InitProducerIDResponse {
			req := kmsg.NewPtrInitProducerIDRequest()
			req.TransactionalID, req.TransactionTimeoutMillis = txn, timeoutMS
			req.ProducerID, req.ProducerEpoch = id, epoch
			resp, _ := s.ask(what, req, v).(*kmsg.InitProducerIDResponse)
			return resp
		}
		first := ask("new", nil, 60_000, -1, -1)
		ask("another", nil, 60_000, -1, -1)
		ask("without a timeout", nil, 0, -1, -1)
		ask("with a timeout of 2^31-1", nil, math.MaxInt32, -1, -1)
		empty := ""
		ask("empty transactional id", &empty, 60_000, -1, -1)
		txn := "txn"
		ask("a transactional id of which nobody is the coordinator", &txn, 60_000, -1, -1)
		if v >= 3 && first != nil {
			ask("known id and epoch", nil, 60_000, first.ProducerID, first.ProducerEpoch)
			ask("known id, no epoch", nil, 60_000, first.ProducerID, -1)
			ask("no id, an epoch", nil, 60_000, -1, 3)
			ask("id 4242 and epoch 7", nil, 60_000, 4242, 7)
		}
	})
}

// describeProducers asks who writes to a partition.
func describeProducers(s *session) {
	name, id := s.create("t", 2)
	ask := func(what, topic string, partitions ...int32) {
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req := kmsg.NewPtrDescribeProducersRequest()
		req.Topics = append(req.Topics, t)
		s.ask(what, req, 0)
	}
	ask("nobody wrote", name, 0)
	s.quiet(producing(name, id, 0, s.records(1).bytes()), latest(kmsg.Produce))
	ask("somebody without an id wrote", name, 0)
	s.quiet(producing(name, id, 0, s.records(3).of(1001, 0, 0).bytes()), latest(kmsg.Produce))
	ask("one wrote", name, 0)
	s.quiet(producing(name, id, 0, s.records(2).of(1001, 0, 3).bytes()), latest(kmsg.Produce))
	s.quiet(producing(name, id, 0, s.records(1).of(1002, 5, 0).bytes()), latest(kmsg.Produce))
	ask("two wrote", name, 0)
	ask("both partitions", name, 0, 1)
	ask("unknown partition", name, 2)
	ask("negative partition", name, -1)
	ask("unknown topic", s.topic("unknown"), 0)
	for _, bad := range badNames {
		ask("topic named "+bad.what, bad.name, 0)
	}
	ask("a partition twice", name, 1, 1)
	ask("no partitions", name)
	s.ask("nothing", kmsg.NewPtrDescribeProducersRequest(), 0)
}
