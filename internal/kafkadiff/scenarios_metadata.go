package main

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadataTopics returns a request for topics by name, which does not create them.
func metadataTopics(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &n
		req.Topics = append(req.Topics, t)
	}
	return req
}

// metadataAll asks for every topic of the server.
func metadataAll(s *session) {
	all := func(what string) {
		each(kmsg.Metadata, func(v int16) {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = nil
			s.ask(what, req, v)
		})
	}
	all("all topics where there is none")
	s.create("one", 1)
	s.create("three", 3)
	all("all topics")
	each(kmsg.Metadata, func(v int16) {
		s.ask("an empty list of topics", metadataTopics(), v)
	})
}

// metadata asks for topics that exist.
func metadata(s *session) {
	one, id := s.create("one", 1)
	two, _ := s.create("two", 2)
	each(kmsg.Metadata, func(v int16) {
		s.ask("two topics", metadataTopics(one, two), v)
	})
	from(1, kmsg.Metadata, func(v int16) {
		s.ask("a topic twice", metadataTopics(one, one), v)
	})
	from(4, kmsg.Metadata, func(v int16) {
		s.ask("known and unknown", metadataTopics(one, s.topic("unknown")), v)
	})
	from(8, kmsg.Metadata, func(v int16) {
		req := metadataTopics(one)
		req.IncludeTopicAuthorizedOperations = true
		req.IncludeClusterAuthorizedOperations = true
		s.ask("with authorized operations", req, v)
	})
	from(10, kmsg.Metadata, func(v int16) {
		byID := func(what string, name *string, id [16]byte) {
			req := kmsg.NewPtrMetadataRequest()
			t := kmsg.NewMetadataRequestTopic()
			t.Topic, t.TopicID = name, id
			req.Topics = append(req.Topics, t)
			s.ask(what, req, v)
		}
		byID("by id", nil, id)
		byID("by id and name", &one, id)
		byID("by id and another's name", &two, id)
		byID("by unknown id", nil, unknownID("metadata"))
		byID("neither name nor id", nil, [16]byte{})
	})
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, kmsg.NewMetadataRequestTopic())
	for v := int16(0); v < 10; v++ {
		s.ask("null name", req, v)
	}
}

// metadataNames asks for topics whose names cannot be.
func metadataNames(s *session) {
	for _, bad := range badNames {
		each(kmsg.Metadata, func(v int16) {
			if bad.name == "" && v > 0 && v != latest(kmsg.Metadata) && v != 9 {
				return
			}
			req := metadataTopics(bad.name)
			s.ask(bad.what, req, v)
		})
		from(4, kmsg.Metadata, func(v int16) {
			req := metadataTopics(bad.name)
			req.AllowAutoTopicCreation = true
			s.ask(bad.what+", to be created", req, v)
		})
	}
}

// metadataCreate lets Metadata create topics.
func metadataCreate(s *session) {
	each(kmsg.Metadata, func(v int16) {
		name := s.topic(fmt.Sprintf("auto-%d", v))
		req := metadataTopics(name)
		req.AllowAutoTopicCreation = true
		s.ask("an unknown topic, to be created", req, v)
		s.await(name)
		s.ask("the created topic", metadataTopics(name), v)
	})
	from(4, kmsg.Metadata, func(v int16) {
		name := s.topic(fmt.Sprintf("not-%d", v))
		s.ask("an unknown topic, not to be created", metadataTopics(name), v)
		s.ask("the topic that was not created", metadataTopics(name), v)
	})
	// A name that differs from another's only by . and _ is taken.
	s.create("a.b", 1)
	req := metadataTopics(s.topic("a_b"))
	req.AllowAutoTopicCreation = true
	s.ask("a name that collides, to be created", req, latest(kmsg.Metadata))
	s.ask("internal, to be created", func() *kmsg.MetadataRequest {
		r := metadataTopics("__consumer_offsets")
		return r
	}(), latest(kmsg.Metadata))
}

// describeTopicPartitions pages through partitions.
func describeTopicPartitions(s *session) {
	one, _ := s.create("one", 1)
	five, _ := s.create("five", 5)
	ask := func(what string, limit int32, cursor *kmsg.DescribeTopicPartitionsRequestCursor, names ...string) *kmsg.DescribeTopicPartitionsResponse {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit, req.Cursor = limit, cursor
		for _, n := range names {
			t := kmsg.NewDescribeTopicPartitionsRequestTopic()
			t.Topic = n
			req.Topics = append(req.Topics, t)
		}
		resp, _ := s.ask(what, req, 0).(*kmsg.DescribeTopicPartitionsResponse)
		return resp
	}
	cursor := func(topic string, partition int32) *kmsg.DescribeTopicPartitionsRequestCursor {
		c := kmsg.NewDescribeTopicPartitionsRequestCursor()
		c.Topic, c.Partition = topic, partition
		return &c
	}
	ask("two topics", 2000, nil, one, five)
	ask("two topics in the other order", 2000, nil, five, one)
	ask("a topic twice", 2000, nil, one, one)
	ask("unknown", 2000, nil, s.topic("unknown"))
	ask("known and unknown", 2000, nil, one, s.topic("unknown"))
	for _, bad := range badNames {
		ask("name "+bad.what, 2000, nil, bad.name)
	}
	ask("limit 1", 1, nil, five, one)
	ask("limit 2", 2, nil, five, one)
	ask("limit 5", 5, nil, five, one)
	ask("limit 6", 6, nil, five, one)
	ask("limit 0", 0, nil, five, one)
	ask("limit -1", -1, nil, five, one)
	ask("limit beyond the most", 1<<30, nil, five, one)
	ask("from the middle", 2000, cursor(five, 3), five, one)
	ask("from the middle, limit 1", 1, cursor(five, 3), five, one)
	ask("from behind the last partition", 2000, cursor(five, 5), five, one)
	ask("from a negative partition", 2000, cursor(five, -1), five, one)
	ask("from a topic that is not asked for", 2000, cursor(s.topic("g"), 0), five, one)
	ask("from an unknown topic", 2000, cursor(s.topic("unknown"), 0), s.topic("unknown"), one)
}
