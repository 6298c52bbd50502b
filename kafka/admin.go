package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// adminAPIs are the requests about topics, configs, offsets and producers.
var adminAPIs = []api{
	ordinary(kmsg.ListOffsets, 1, 11, (*Server).listOffsets),
	controlled(ordinary(kmsg.CreateTopics, 2, 7, (*Server).createTopics), always[*kmsg.CreateTopicsRequest]),
	controlled(ordinary(kmsg.DeleteTopics, 1, 6, (*Server).deleteTopics), always[*kmsg.DeleteTopicsRequest]),
	ordinary(kmsg.DeleteRecords, 0, 2, (*Server).deleteRecords),
	ordinary(kmsg.InitProducerID, 0, 5, (*Server).initProducerID),
	ordinary(kmsg.OffsetForLeaderEpoch, 2, 4, (*Server).offsetForLeaderEpoch),
	ordinary(kmsg.DescribeConfigs, 1, 4, (*Server).describeConfigs),
	controlled(ordinary(kmsg.AlterConfigs, 0, 2, (*Server).alterConfigs), alterConfigsOfAny),
	ordinary(kmsg.DescribeLogDirs, 1, 5, (*Server).describeLogDirs),
	controlled(ordinary(kmsg.CreatePartitions, 0, 3, (*Server).createPartitions), always[*kmsg.CreatePartitionsRequest]),
	controlled(ordinary(kmsg.ElectLeaders, 0, 2, (*Server).electLeaders), always[*kmsg.ElectLeadersRequest]),
	controlled(ordinary(kmsg.IncrementalAlterConfigs, 0, 1, (*Server).incrementalAlterConfigs), incrementalAlterConfigsOfAny),
	ordinary(kmsg.DescribeProducers, 0, 0, (*Server).describeProducers),
	ordinary(kmsg.ListConfigResources, 0, 1, (*Server).listConfigResources),
}

// readTimeout bounds requests that have no time of their own.
const readTimeout = 30 * time.Second

// Rough sizes of answers' parts as they lie in memory, to count them before they
// are made.
const (
	resultBytes = 256 // one topic, partition or resource that was asked for

	// configBytes is one config of a topic or node, with its names; describedBytes
	// is one with its documentation and synonyms.
	configBytes    = 160
	describedBytes = 1024
)

// asked counts topics, and the partitions that are asked for of them.
func asked[T any](topics []T, partitions func(*T) int) int64 {
	n := len(topics)
	for i := range topics {
		n += partitions(&topics[i])
	}
	return int64(n)
}

// notHosted is Kafka's text for a topic or partition that does not exist.
const notHosted = "This server does not host this topic-partition."

// existing returns a topic of a name. Kafka does not look at the name in the
// requests that ask for an existing one: an invalid name is an unknown one.
func (s *Server) existing(name string) (broker.Topic, *errcode.Error) {
	t, err := s.broker.TopicByName(name)
	t.Name = name
	return t, unhosted(err)
}

// existingID is existing for who needs no more than its id: it takes no longer for
// a topic of many partitions.
func (s *Server) existingID(name string) (broker.TopicID, *errcode.Error) {
	id, err := s.broker.TopicIDOf(name)
	return id, unhosted(err)
}

func unhosted(err *errcode.Error) *errcode.Error {
	if err != nil && (err.Code == errcode.InvalidTopic || err.Code == errcode.UnknownTopicOrPartition) {
		return errcode.Errorf(errcode.UnknownTopicOrPartition, notHosted)
	}
	return err
}

// byName is err as an answer about a topic's name has it: who asked by name does
// not know ids.
func byName(err *errcode.Error) *errcode.Error {
	if err != nil && err.Code == errcode.UnknownTopicID {
		return errcode.Errorf(errcode.UnknownTopicOrPartition, notHosted)
	}
	return err
}

// coded is err as clients see it; nil stays nil.
func coded(err error) *errcode.Error {
	if err == nil {
		return nil
	}
	return broker.CodeOf(err)
}

// text is the error message of an answer; null without an error.
func text(err *errcode.Error) *string {
	switch {
	case err == nil:
		return nil
	case err.Detail != "":
		return &err.Detail
	}
	t := err.Code.Text()
	return &t
}

// maxTimeout bounds what a request may ask to wait for, but for a Fetch: see
// maxFetchWait.
const maxTimeout = 15 * time.Minute

// forMS returns ctx with a request's own time-out, which is at most maxTimeout.
func forMS(ctx context.Context, timeoutMS int32) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(time.Duration(max(timeoutMS, 0))*time.Millisecond, maxTimeout))
}

// repeated returns the keys that stand more than once in a list.
func repeated[T any, K comparable](list []T, key func(*T) K) map[K]bool {
	seen := make(map[K]bool, len(list)) // true: more than once
	for i := range list {
		k := key(&list[i])
		_, before := seen[k]
		seen[k] = before
	}
	for k, twice := range seen {
		if !twice {
			delete(seen, k)
		}
	}
	return seen
}

// distinct leaves out of list what stands in it before, by key.
func distinct[T any, K comparable](list []T, key func(*T) K) []T {
	seen := make(map[K]struct{}, len(list))
	kept := list[:0]
	for i := range list {
		k := key(&list[i])
		if _, again := seen[k]; !again {
			seen[k] = struct{}{}
			kept = append(kept, list[i])
		}
	}
	return kept
}
