package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// newTopic is one topic to be created with a replica on the only node.
func newTopic(name string, partitions int32, replicas int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, replicas
	t.Configs = createConfigs(configs)
	return t
}

// assigned is a topic whose replicas are given, partition by partition.
func assigned(name string, replicas map[int32][]int32) kmsg.CreateTopicsRequestTopic {
	t := newTopic(name, -1, -1)
	for p := range int32(10) {
		if r, ok := replicas[p]; ok {
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = p, r
			t.ReplicaAssignment = append(t.ReplicaAssignment, a)
		}
	}
	return t
}

func creating(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis, req.Topics = 10_000, topics
	return req
}

// askConfigs asks for one topic, and records of its configs only those that were
// asked for.
func (s *session) askConfigs(what string, req *kmsg.CreateTopicsRequest, version int16) {
	req.SetVersion(version)
	s.askRaw(what, req, req.AppendTo(nil), func(resp kmsg.Response) {
		for i := range resp.(*kmsg.CreateTopicsResponse).Topics {
			t := &resp.(*kmsg.CreateTopicsResponse).Topics[i]
			t.Configs = slices.DeleteFunc(t.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool {
				return !slices.ContainsFunc(req.Topics[0].Configs, func(asked kmsg.CreateTopicsRequestTopicConfig) bool {
					return asked.Name == c.Name
				})
			})
		}
	})
}

// createTopics creates topics, most of them in vain.
func createTopics(s *session) {
	taken, _ := s.create("taken", 1)
	s.create("with.dot", 1)
	unknownNode := s.node + 41
	each(kmsg.CreateTopics, func(v int16) {
		name := func(n string) string { return s.topic(fmt.Sprintf("%s-%d", n, v)) }
		s.ask("one partition", creating(newTopic(name("one"), 1, 1)), v)
		s.ask("three partitions and configs", creating(newTopic(name("three"), 3, 1, "retention.ms=3600000", "cleanup.policy=delete")), v)
		s.ask("two topics, one taken", creating(newTopic(name("fresh"), 1, 1), newTopic(taken, 1, 1)), v)
		s.ask("taken", creating(newTopic(taken, 1, 1)), v)
		s.ask("defaults by -1", creating(newTopic(name("defaults"), -1, -1)), v)
		s.ask("no partitions", creating(newTopic(name("no"), 0, 1)), v)
		s.ask("-2 partitions", creating(newTopic(name("no"), -2, 1)), v)
		s.ask("no replicas", creating(newTopic(name("no"), 1, 0)), v)
		s.ask("-2 replicas", creating(newTopic(name("no"), 1, -2)), v)
		s.ask("more replicas than nodes", creating(newTopic(name("no"), 1, 2)), v)
		s.ask("a topic twice", creating(newTopic(name("twice"), 1, 1), newTopic(name("twice"), 2, 1)), v)
		s.ask("a name that collides", creating(newTopic(s.topic("with_dot"), 1, 1)), v)
		s.ask("nothing", creating(), v)
		for _, bad := range badNames {
			s.ask("name "+bad.what, creating(newTopic(bad.name, 1, 1)), v)
		}
		s.ask("assigned", creating(assigned(name("assigned"), map[int32][]int32{0: {s.node}, 1: {s.node}})), v)
		s.ask("assigned to an unknown node", creating(assigned(name("no"), map[int32][]int32{0: {unknownNode}})), v)
		s.ask("assigned to a node twice", creating(assigned(name("no"), map[int32][]int32{0: {s.node, s.node}})), v)
		s.ask("assigned to nobody", creating(assigned(name("no"), map[int32][]int32{0: {}})), v)
		s.ask("assigned with a gap", creating(assigned(name("no"), map[int32][]int32{0: {s.node}, 2: {s.node}})), v)
		both := assigned(name("no"), map[int32][]int32{0: {s.node}})
		both.NumPartitions = 1
		s.ask("assigned and counted", creating(both), v)
		both.NumPartitions, both.ReplicationFactor = -1, 1
		s.ask("assigned and replicated", creating(both), v)

		validate := creating(newTopic(name("only"), 2, 1), newTopic(taken, 1, 1), newTopic(name("no"), 0, 1))
		validate.ValidateOnly = true
		s.ask("validate only", validate, v)
		s.ask(fmt.Sprintf("validated only by v%d", v), metadataTopics(name("only")), latest(kmsg.Metadata))
		s.await(name("three"))
		s.ask(fmt.Sprintf("created by v%d", v), metadataTopics(name("three")), latest(kmsg.Metadata))
	})
	at := latest(kmsg.CreateTopics)
	s.ask("internal name", creating(newTopic("__cluster_metadata", 1, 1)), at)
	s.ask("249 bytes", creating(newTopic(strings.Repeat("b", 249), 1, 1)), at)
	s.ask("all letters that are allowed", creating(newTopic(s.topic("aZ09._-"), 1, 1)), at)
}

// createTopicsConfigs creates topics with configs, good and bad.
func createTopicsConfigs(s *session) {
	at := latest(kmsg.CreateTopics)
	// Good ones are those that Kafka takes.
	ask := func(v int16, kind string, configs ...string) {
		what := kind + " " + strings.Join(configs, " ")
		req := creating(newTopic(s.topic(fmt.Sprintf("t%d", len(s.steps))), 1, 1, configs...))
		req.ValidateOnly = true
		s.askConfigs("validate only "+what, req, v)
		req.ValidateOnly = false
		s.askConfigs(what, req, v)
	}
	const good, bad = "good", "bad"
	for _, c := range topicConfigs {
		for _, v := range c.good {
			ask(at, good, c.name+"="+v)
		}
		for _, v := range c.bad {
			ask(at, bad, c.name+"="+v)
		}
	}
	each(kmsg.CreateTopics, func(v int16) {
		ask(v, bad, "no.such.config=1")
		ask(v, bad, "retention.ms=-3")
		ask(v, bad, "retention.ms=y")
		ask(v, good, "retention.ms=1000", "segment.bytes=1048576")
	})
	ask(at, good, "retention.ms=1", "retention.ms=2")
	null := newTopic(s.topic("null"), 1, 1)
	c := kmsg.NewCreateTopicsRequestTopicConfig()
	c.Name = "retention.ms"
	null.Configs = append(null.Configs, c)
	s.askConfigs("retention.ms=null", creating(null), at)
	ask(at, bad, "=1")
	ask(at, bad, "Retention.Ms=1000")
	ask(at, good, "retention.ms= 1000 ")
	ask(at, good, "local.retention.ms=2000", "retention.ms=1000")
	ask(at, good, "local.retention.bytes=2000", "retention.bytes=1000")
	ask(at, bad, "cleanup.policy=compact", "remote.storage.enable=true")
	ask(at, bad, "min.compaction.lag.ms=100", "max.compaction.lag.ms=50")
}

// topicConfigs are values of each topic config that Kafka takes, and that it
// does not.
var topicConfigs = []struct {
	name      string
	good, bad []string
}{
	{"cleanup.policy", []string{"delete", "compact", "compact,delete", "delete, compact", "", "delete,delete"}, []string{"Delete", "none", "delete,"}},
	{"compression.type", []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"}, []string{"none", "GZIP", "", "brotli"}},
	{"compression.gzip.level", []string{"-1", "1", "9"}, []string{"0", "10", "x"}},
	{"compression.lz4.level", []string{"1", "9", "17"}, []string{"0", "18"}},
	{"compression.zstd.level", []string{"-131072", "3", "22"}, []string{"-131073", "23"}},
	{"delete.retention.ms", []string{"0", "1000"}, []string{"-1"}},
	{"file.delete.delay.ms", []string{"0"}, []string{"-1"}},
	{"flush.messages", []string{"1", "9223372036854775807"}, []string{"0", "-1"}},
	{"flush.ms", []string{"0"}, []string{"-1"}},
	{"follower.replication.throttled.replicas", []string{"*", "0:1,1:1"}, []string{"none", "x", "0:1:2"}},
	{"leader.replication.throttled.replicas", []string{"*", "0:1"}, []string{"x"}},
	{"index.interval.bytes", []string{"0", "4096"}, []string{"-1"}},
	{"local.retention.bytes", []string{"-2", "-1"}, []string{"-3"}},
	{"local.retention.ms", []string{"-2", "-1"}, []string{"-3"}},
	{"max.compaction.lag.ms", []string{"1"}, []string{"0"}},
	{"max.message.bytes", []string{"0", "1048588", "2147483647"}, []string{"-1", "2147483648", "1k"}},
	{"message.timestamp.after.max.ms", []string{"0", "3600000"}, []string{"-1"}},
	{"message.timestamp.before.max.ms", []string{"0"}, []string{"-1"}},
	{"message.timestamp.type", []string{"CreateTime", "LogAppendTime"}, []string{"createtime", ""}},
	{"min.cleanable.dirty.ratio", []string{"0", "0.5", "1"}, []string{"-0.1", "1.1", "x"}},
	{"min.compaction.lag.ms", []string{"0"}, []string{"-1"}},
	{"min.insync.replicas", []string{"1", "2"}, []string{"0", "-1"}},
	{"preallocate", []string{"true", "false", "TRUE"}, []string{"yes", "1", ""}},
	{"remote.storage.enable", []string{"false"}, []string{"true", "x"}},
	{"remote.log.copy.disable", []string{"false"}, []string{"x"}},
	{"remote.log.delete.on.disable", []string{"false"}, []string{"x"}},
	{"retention.bytes", []string{"-1", "0", "1073741824"}, []string{"x", "9223372036854775808"}},
	{"retention.ms", []string{"-1", "0", "604800000"}, []string{"-2", "1.5", ""}},
	{"segment.bytes", []string{"1048576", "1073741824"}, []string{"13", "1048575", "2147483648"}},
	{"segment.index.bytes", []string{"4", "10485760"}, []string{"3"}},
	{"segment.jitter.ms", []string{"0", "1000"}, []string{"-1"}},
	{"segment.ms", []string{"1", "604800000"}, []string{"0"}},
	{"unclean.leader.election.enable", []string{"true", "false"}, []string{"x"}},
	{"errors.deadletterqueue.group.enable", nil, []string{"true", "x"}},
	{"message.format.version", nil, []string{"3.0-IV1"}},
	{"message.downconversion.enable", nil, []string{"true"}},
	{"message.timestamp.difference.max.ms", nil, []string{"1000"}},
	{"internal.segment.bytes", []string{"1024"}, nil},
}

// deleteTopics deletes topics by name and by id.
func deleteTopics(s *session) {
	deleting := func(names ...string) *kmsg.DeleteTopicsRequest {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TimeoutMillis, req.TopicNames = 10_000, names
		for _, n := range names {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = &n
			req.Topics = append(req.Topics, t)
		}
		return req
	}
	each(kmsg.DeleteTopics, func(v int16) {
		a, before := s.create(fmt.Sprintf("a-%d", v), 1)
		b, _ := s.create(fmt.Sprintf("b-%d", v), 2)
		s.ask("two topics", deleting(a, b), v)
		s.awaitGone(a)
		s.ask("a topic that is gone", deleting(a), v)
		_, after := s.create(fmt.Sprintf("a-%d", v), 1)
		s.record(fmt.Sprintf("the id of a topic created again after v%d is another", v), before != after)
		s.ask("known and unknown", deleting(a, s.topic("unknown")), v)
		s.ask("unknown", deleting(s.topic("unknown")), v)
		s.ask("nothing", deleting(), v)
		for _, bad := range badNames {
			s.ask("name "+bad.what, deleting(bad.name), v)
		}
		c, _ := s.create(fmt.Sprintf("c-%d", v), 1)
		s.ask("a topic twice", deleting(c, c), v)
		if v < 6 {
			return
		}
		byID := func(what string, name *string, ids ...[16]byte) {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TimeoutMillis = 10_000
			for _, id := range ids {
				t := kmsg.NewDeleteTopicsRequestTopic()
				t.Topic, t.TopicID = name, id
				req.Topics = append(req.Topics, t)
			}
			s.ask(what, req, v)
		}
		d, id := s.create("d", 1)
		byID("by id and name", &d, id)
		byID("by id twice", nil, id, id)
		byID("by unknown id", nil, unknownID("deletetopics"))
		byID("neither name nor id", nil, [16]byte{})
		e, id := s.create("e", 1)
		byID("by id", nil, id)
		s.awaitGone(e)
		byID("by the id of a topic that is gone", nil, id)
	})
}

// createPartitions adds partitions.
func createPartitions(s *session) {
	unknownNode := s.node + 41
	each(kmsg.CreatePartitions, func(v int16) {
		name, _ := s.create(fmt.Sprintf("t-%d", v), 2)
		adding := func(name string, count int32, assignment ...[]int32) *kmsg.CreatePartitionsRequest {
			t := kmsg.NewCreatePartitionsRequestTopic()
			t.Topic, t.Count = name, count
			for _, r := range assignment {
				a := kmsg.NewCreatePartitionsRequestTopicAssignment()
				a.Replicas = r
				t.Assignment = append(t.Assignment, a)
			}
			req := kmsg.NewPtrCreatePartitionsRequest()
			req.TimeoutMillis = 10_000
			req.Topics = append(req.Topics, t)
			return req
		}
		s.ask("as many as there are", adding(name, 2), v)
		s.ask("fewer", adding(name, 1), v)
		s.ask("none", adding(name, 0), v)
		s.ask("-1", adding(name, -1), v)
		s.ask("unknown topic", adding(s.topic("unknown"), 3), v)
		for _, bad := range badNames {
			s.ask("name "+bad.what, adding(bad.name, 3), v)
		}
		s.ask("assigned to an unknown node", adding(name, 3, []int32{unknownNode}), v)
		s.ask("assigned to a node twice", adding(name, 3, []int32{s.node, s.node}), v)
		s.ask("assigned to nobody", adding(name, 3, []int32{}), v)
		s.ask("too few assigned", adding(name, 4, []int32{s.node}), v)
		s.ask("too many assigned", adding(name, 3, []int32{s.node}, []int32{s.node}), v)
		twice := adding(name, 3)
		twice.Topics = append(twice.Topics, twice.Topics[0])
		s.ask("a topic twice", twice, v)
		empty := adding(name, 3)
		empty.Topics = []kmsg.CreatePartitionsRequestTopic{}
		s.ask("nothing", empty, v)
		validate := adding(name, 5)
		validate.ValidateOnly = true
		s.ask("validate only", validate, v)
		s.ask("one more", adding(name, 3), v)
		s.settle()
		s.ask("one more, assigned", adding(name, 4, []int32{s.node}), v)
		s.settle()
		s.await(name)
		s.ask(fmt.Sprintf("after v%d", v), metadataTopics(name), latest(kmsg.Metadata))
	})
}

// electLeaders has partitions led by the nodes that are to lead them.
func electLeaders(s *session) {
	name, _ := s.create("t", 2)
	each(kmsg.ElectLeaders, func(v int16) {
		electing := func(topic string, partitions ...int32) *kmsg.ElectLeadersRequest {
			t := kmsg.NewElectLeadersRequestTopic()
			t.Topic, t.Partitions = topic, partitions
			req := kmsg.NewPtrElectLeadersRequest()
			req.TimeoutMillis = 10_000
			req.Topics = append(req.Topics, t)
			return req
		}
		ask := func(what, topic string, partitions ...int32) { s.ask(what, electing(topic, partitions...), v) }
		ask("a partition", name, 0)
		ask("two partitions", name, 0, 1)
		ask("unknown partition", name, 2)
		ask("negative partition", name, -1)
		ask("known and unknown partition", name, 0, 7)
		ask("a partition twice", name, 0, 0)
		ask("no partitions", name)
		ask("unknown topic", s.topic("unknown"), 0)
		for _, bad := range badNames {
			ask("topic named "+bad.what, bad.name, 0)
		}
		twice := electing(name, 0)
		twice.Topics = append(twice.Topics, electing(name, 1).Topics...)
		s.ask("a topic twice", twice, v)
		none := electing(name)
		none.Topics = []kmsg.ElectLeadersRequestTopic{}
		s.ask("no topics", none, v)
		none.Topics = nil
		none.SetVersion(v)
		s.askRaw("all topics", none, none.AppendTo(nil), func(resp kmsg.Response) { // of which there are those of other scenarios
			r := resp.(*kmsg.ElectLeadersResponse)
			r.Topics = slices.DeleteFunc(r.Topics, func(t kmsg.ElectLeadersResponseTopic) bool { return t.Topic != name })
		})
		soon := electing(name, 0)
		soon.TimeoutMillis = -1
		s.ask("a timeout of -1 ms", soon, v)
		if v >= 1 {
			for _, kind := range []int8{1, 2, -1} {
				req := electing(name, 0)
				req.ElectionType = kind
				s.ask(fmt.Sprintf("election type %d", kind), req, v)
			}
		}
	})
}
