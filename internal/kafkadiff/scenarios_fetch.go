package main

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetching is a request, outside any session, for one partition from an offset,
// by name and id, so that it fits every version.
func fetching(topic string, id [16]byte, partition int32, offset int64) *kmsg.FetchRequest {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, 10<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxBytes, req.MaxWaitMillis = -1, 50<<20, 0
	req.SessionEpoch = -1
	req.Topics = append(req.Topics, t)
	return req
}

// fetch reads in every version.
func fetch(s *session) {
	name, id := s.create("t", 3)
	s.fill(name, id, 0, 3)
	s.quiet(producing(name, id, 0, s.records(4).bytes()), latest(kmsg.Produce)) // 3..6 in one batch
	each(kmsg.Fetch, func(v int16) {
		s.ask("from 0", fetching(name, id, 0, 0), v)
		s.ask("from 2", fetching(name, id, 0, 2), v)
		s.ask("from within a batch", fetching(name, id, 0, 5), v)
		s.ask("from the end", fetching(name, id, 0, 7), v)
		s.ask("an empty partition", fetching(name, id, 1, 0), v)
		two := fetching(name, id, 0, 6)
		two.Topics[0].Partitions = append(two.Topics[0].Partitions, fetching(name, id, 1, 0).Topics[0].Partitions...)
		s.ask("two partitions", two, v)
		committed := fetching(name, id, 0, 5)
		committed.IsolationLevel = 1
		s.ask("read committed", committed, v)
		waiting := fetching(name, id, 0, 7)
		waiting.MaxWaitMillis, waiting.MinBytes = 50, 1
		s.ask("from the end, waiting", waiting, v)
		waiting = fetching(name, id, 0, 6)
		waiting.MaxWaitMillis, waiting.MinBytes = 50, 1<<20
		s.ask("waiting for more than there is", waiting, v)
		empty := fetching(name, id, 0, 0)
		empty.Topics = nil
		s.ask("nothing", empty, v)
		rack := fetching(name, id, 0, 6)
		rack.Rack = "r1"
		s.ask("with a rack", rack, v)
	})
}

// fetchErrors asks for what is not there.
func fetchErrors(s *session) {
	name, id := s.create("t", 1)
	s.fill(name, id, 0, 3)
	epoch := s.metadata(name).Partitions[0].LeaderEpoch
	each(kmsg.Fetch, func(v int16) {
		s.ask("beyond the end", fetching(name, id, 0, 4), v)
		s.ask("far beyond the end", fetching(name, id, 0, 1<<40), v)
		s.ask("from -1", fetching(name, id, 0, -1), v)
		s.ask("from -2", fetching(name, id, 0, -2), v)
		s.ask("unknown partition", fetching(name, id, 1, 0), v)
		s.ask("negative partition", fetching(name, id, -1, 0), v)
		s.ask("unknown topic", fetching(s.topic("unknown"), unknownID("fetch"), 0, 0), v)
		if v < 13 {
			for _, bad := range badNames {
				s.ask("topic named "+bad.what, fetching(bad.name, id, 0, 0), v)
			}
		} else {
			s.ask("zero topic id", fetching("", [16]byte{}, 0, 0), v)
		}
		mixed := fetching(name, id, 0, 2)
		mixed.Topics[0].Partitions = append(mixed.Topics[0].Partitions, fetching(name, id, 8, 0).Topics[0].Partitions...)
		s.ask("known and unknown partition", mixed, v)
		unknown := fetching(name, id, 0, 2)
		unknown.Topics = append(unknown.Topics, fetching(s.topic("unknown"), unknownID("fetch"), 0, 0).Topics...)
		s.ask("known and unknown topic", unknown, v)
		twice := fetching(name, id, 0, 2)
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, twice.Topics[0].Partitions[0])
		s.ask("a partition twice", twice, v)
		replica := fetching(name, id, 0, 2)
		if v < 15 {
			replica.ReplicaID = 7
		} else {
			replica.ReplicaState.ID = 7
		}
		s.ask("as replica 7", replica, v)
		level := fetching(name, id, 0, 2)
		level.IsolationLevel = 7
		s.ask("unknown isolation level", level, v)
		if v >= 9 {
			for d := range int32(2) {
				req := fetching(name, id, 0, 2)
				req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch + d
				s.ask(fmt.Sprintf("current epoch +%d", d), req, v)
			}
		}
		if v >= 12 {
			for d := range int32(2) {
				req := fetching(name, id, 0, 2)
				req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
				req.Topics[0].Partitions[0].LastFetchedEpoch = epoch + d
				s.ask(fmt.Sprintf("last fetched epoch +%d", d), req, v)
			}
		}
	})
}

// fetchLimits asks for few bytes. Every batch is of one record and 73 bytes.
func fetchLimits(s *session) {
	name, id := s.create("t", 2)
	s.fill(name, id, 0, 5)
	s.fill(name, id, 1, 5)
	each(kmsg.Fetch, func(v int16) {
		for _, n := range []int32{0, 1, 72, 73, 100, 146, 150} {
			req := fetching(name, id, 0, 0)
			req.MaxBytes = n
			s.ask(fmt.Sprintf("at most %d bytes", n), req, v)
			req = fetching(name, id, 0, 0)
			req.Topics[0].Partitions[0].PartitionMaxBytes = n
			s.ask(fmt.Sprintf("at most %d bytes of the partition", n), req, v)
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, req.Topics[0].Partitions[0])
			req.Topics[0].Partitions[1].Partition = 1
			req.MaxBytes = 150
			s.ask(fmt.Sprintf("at most %d bytes of two partitions, 150 in all", n), req, v)
		}
		for _, n := range []int32{-1, -1 << 31} {
			req := fetching(name, id, 0, 0)
			req.Topics[0].Partitions[0].PartitionMaxBytes = n
			s.ask(fmt.Sprintf("at most %d bytes of the partition", n), req, v)
			req = fetching(name, id, 0, 0)
			req.MaxBytes = n
			s.ask(fmt.Sprintf("at most %d bytes", n), req, v)
		}
	})
}

// fetchSessions keeps sessions (KIP-227), in every version that has them.
func fetchSessions(s *session) {
	from(7, kmsg.Fetch, func(v int16) {
		name, id := s.create(fmt.Sprintf("t-%d", v), 3)
		s.fill(name, id, 0, 2)
		fetchSession(s, v, name, id)
		fetchSessionErrors(s, v, name, id)
	})
}

func fetchSession(s *session, v int16, name string, id [16]byte) {
	session := int32(0)
	ask := func(what string, epoch int32, change func(*kmsg.FetchRequest)) {
		req := fetching(name, id, 0, 0)
		req.Topics = nil
		req.SessionID, req.SessionEpoch = session, epoch
		if change != nil {
			change(req)
		}
		if resp, _ := s.ask(what, req, v).(*kmsg.FetchResponse); resp != nil && session == 0 {
			session = resp.SessionID
		}
	}
	add := func(partition int32, offset int64) func(*kmsg.FetchRequest) {
		return func(req *kmsg.FetchRequest) {
			req.Topics = append(req.Topics, fetching(name, id, partition, offset).Topics...)
		}
	}
	forget := func(partitions ...int32) func(*kmsg.FetchRequest) {
		return func(req *kmsg.FetchRequest) {
			f := kmsg.NewFetchRequestForgottenTopic()
			f.Topic, f.TopicID, f.Partitions = name, id, partitions
			req.ForgottenTopics = append(req.ForgottenTopics, f)
		}
	}
	ask("opened with two partitions", 0, func(req *kmsg.FetchRequest) {
		add(0, 0)(req)
		add(1, 0)(req)
	})
	ask("nothing new", 1, nil)
	ask("the first moved to its end", 2, add(0, 2))
	ask("nothing new at the end", 3, nil)
	s.quiet(producing(name, id, 1, s.records(1).bytes()), latest(kmsg.Produce))
	end := s.end(name, 1)
	ask("one record in the second", 4, add(1, end-1))
	ask("it is there still", 5, nil)
	ask("the second forgotten", 6, forget(1))
	ask("the third added", 7, add(2, 0))
	ask("an unknown partition added", 8, add(9, 0))
	ask("the unknown partition is told again", 9, nil)
	ask("the unknown partition forgotten", 10, forget(9))
	ask("a partition beyond its end", 11, add(2, 5))
	ask("and told again", 12, nil)
	ask("a partition that is not in it forgotten", 13, forget(7))
	ask("with an old epoch", 13, nil)
	ask("with an epoch too new", 20, nil)
	ask("with the right epoch after all", 14, nil)
	ask("closed", -1, nil)
	ask("after it was closed", 15, nil)
}

func fetchSessionErrors(s *session, v int16, name string, id [16]byte) {
	ask := func(what string, session, epoch int32) {
		req := fetching(name, id, 0, 0)
		req.SessionID, req.SessionEpoch = session, epoch
		s.ask(what, req, v)
	}
	ask("an unknown session", 4711, 1)
	ask("an unknown session to be closed", 4711, -1)
	ask("an unknown session to be opened", 4711, 0)
	ask("no session at epoch 1", 0, 1)
	ask("a negative epoch", 0, -2)
	empty := fetching(name, id, 0, 0)
	empty.Topics, empty.SessionEpoch = nil, 0
	s.ask("opened with nothing", empty, v)
	unknown := fetching(s.topic("unknown"), unknownID("fetch"), 0, 0)
	unknown.SessionEpoch = 0
	s.ask("opened with an unknown topic", unknown, v)
	bad := fetching(name, id, 9, 0)
	bad.SessionEpoch = 0
	s.ask("opened with an unknown partition", bad, v)
}

// end returns the high watermark of a partition.
func (s *session) end(topic string, partition int32) int64 {
	return s.quiet(listing(topic, partition, -1), latest(kmsg.ListOffsets)).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset
}
