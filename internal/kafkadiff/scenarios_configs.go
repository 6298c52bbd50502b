package main

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Types of resources that have configs.
const (
	topicResource  = 2
	brokerResource = 4
)

func describing(kind int8, name string, configs ...string) *kmsg.DescribeConfigsRequest {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(kind), name
	r.ConfigNames = configs
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = append(req.Resources, r)
	return req
}

// describeConfigs describes topics and the node.
func describeConfigs(s *session) {
	plain, _ := s.create("plain", 1)
	set, _ := s.create("set", 1, "retention.ms=3600000", "segment.bytes=2097152", "compression.type=zstd")
	node := fmt.Sprint(s.node)
	some := []string{"retention.ms", "segment.bytes", "compression.type", "min.insync.replicas", "cleanup.policy"}
	each(kmsg.DescribeConfigs, func(v int16) {
		s.ask("all configs of a topic", describing(topicResource, plain), v)
		s.ask("some configs", describing(topicResource, set, some...), v)
		synonyms := describing(topicResource, set, some...)
		synonyms.IncludeSynonyms = true
		s.ask("some configs with synonyms", synonyms, v)
		documented := describing(topicResource, set, "retention.ms")
		documented.IncludeDocumentation = true
		s.ask("a config with its documentation", documented, v)
		s.ask("an unknown config", describing(topicResource, plain, "no.such.config", "retention.ms"), v)
		s.ask("no configs", emptyNames(describing(topicResource, plain)), v)
		s.ask("an unknown topic", describing(topicResource, s.topic("unknown")), v)
		for _, bad := range badNames {
			s.ask("a topic named "+bad.what, describing(topicResource, bad.name), v)
		}
		s.ask("some configs of the node", describing(brokerResource, node, nodeConfigs...), v)
		s.ask("defaults of all nodes", describing(brokerResource, ""), v)
		s.ask("an unknown node", describing(brokerResource, "4711"), v)
		s.ask("a node that is no number", describing(brokerResource, "x"), v)
		for _, kind := range []int8{0, 1, 3, 5, 8, 16, 32, 64} {
			s.ask(fmt.Sprintf("resource type %d", kind), describing(kind, "x"), v)
		}
		two := describing(topicResource, plain, "retention.ms")
		two.Resources = append(two.Resources, describing(topicResource, s.topic("unknown"), "retention.ms").Resources...)
		s.ask("known and unknown topic", two, v)
		two.Resources[1] = two.Resources[0]
		s.ask("a topic twice", two, v)
		two.Resources = nil
		s.ask("nothing", two, v)
	})
	all := describing(topicResource, set)
	all.IncludeSynonyms = true
	s.ask("all configs with synonyms", all, latest(kmsg.DescribeConfigs))
}

// nodeConfigs are configs of the node that clients are known to ask for.
var nodeConfigs = []string{
	"auto.create.topics.enable", "num.partitions", "default.replication.factor", "message.max.bytes", "log.retention.ms",
	"log.retention.hours", "log.segment.bytes", "min.insync.replicas", "compression.type", "delete.topic.enable", "node.id", "broker.id",
	"log.retention.check.interval.ms", "max.incremental.fetch.session.cache.slots", "producer.id.expiration.ms",
	"connections.max.idle.ms", "socket.request.max.bytes",
}

func emptyNames(req *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsRequest {
	req.Resources[0].ConfigNames = []string{}
	return req
}

// altering sets configs k=v of one resource; a config without = is null.
func altering(kind int8, name string, configs ...string) *kmsg.AlterConfigsRequest {
	r := kmsg.NewAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(kind), name
	for _, c := range configs {
		k, v, set := strings.Cut(c, "=")
		rc := kmsg.NewAlterConfigsRequestResourceConfig()
		rc.Name = k
		if set {
			rc.Value = &v
		}
		r.Configs = append(r.Configs, rc)
	}
	req := kmsg.NewPtrAlterConfigsRequest()
	req.Resources = append(req.Resources, r)
	return req
}

// alterConfigs replaces all configs of a topic.
func alterConfigs(s *session) {
	each(kmsg.AlterConfigs, func(v int16) {
		name, _ := s.create(fmt.Sprintf("t-%d", v), 1, "segment.bytes=2097152")
		look := func(what string) {
			s.settle()
			s.ask(fmt.Sprintf("after v%d %s", v, what), describing(topicResource, name, "retention.ms", "segment.bytes"), latest(kmsg.DescribeConfigs))
		}
		validate := altering(topicResource, name, "retention.ms=1000000")
		validate.ValidateOnly = true
		s.ask("validate only", validate, v)
		look("validate only")
		s.ask("set", altering(topicResource, name, "retention.ms=1000000"), v)
		look("set")
		s.ask("bad value", altering(topicResource, name, "retention.ms=-2"), v)
		s.ask("no number", altering(topicResource, name, "retention.ms=x"), v)
		s.ask("unknown config", altering(topicResource, name, "no.such.config=1"), v)
		s.ask("null value", altering(topicResource, name, "retention.ms"), v)
		s.ask("a config twice", altering(topicResource, name, "retention.ms=1", "retention.ms=2"), v)
		look("refused")
		s.ask("no config", altering(topicResource, name), v)
		look("no config")
		s.ask("unknown topic", altering(topicResource, s.topic("unknown"), "retention.ms=1000"), v)
		for _, bad := range badNames {
			s.ask("topic named "+bad.what, altering(topicResource, bad.name, "retention.ms=1000"), v)
		}
		for _, kind := range []int8{0, 1, 3, 5, 64} {
			s.ask(fmt.Sprintf("resource type %d", kind), altering(kind, "x", "retention.ms=1000"), v)
		}
		s.ask("a node that is no number", altering(brokerResource, "x", "log.retention.ms=1000"), v)
		s.ask("an unknown node", altering(brokerResource, "4711", "log.retention.ms=1000"), v)
		node := altering(brokerResource, fmt.Sprint(s.node), "log.retention.ms=1000")
		node.ValidateOnly = true
		s.ask("the node, validate only", node, v)
		twice := altering(topicResource, name, "retention.ms=1000")
		twice.Resources = append(twice.Resources, twice.Resources[0])
		if v == latest(kmsg.AlterConfigs) {
			s.askBriefly("a topic twice", twice, v)
		}
		two := altering(topicResource, name, "retention.ms=2000000")
		two.Resources = append(two.Resources, altering(topicResource, s.topic("unknown"), "retention.ms=1000").Resources...)
		s.ask("known and unknown topic", two, v)
		two.Resources = nil
		s.ask("nothing", two, v)
	})
}

// Operations of IncrementalAlterConfigs.
const (
	opSet = iota
	opDelete
	opAppend
	opSubtract
)

type change struct {
	op     int8
	name   string
	value  string
	isNull bool
}

func incrementally(kind int8, name string, changes ...change) *kmsg.IncrementalAlterConfigsRequest {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(kind), name
	for _, c := range changes {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op = c.name, kmsg.IncrementalAlterConfigOp(c.op)
		if !c.isNull {
			rc.Value = &c.value
		}
		r.Configs = append(r.Configs, rc)
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, r)
	return req
}

// incrementalAlterConfigs changes single configs.
func incrementalAlterConfigs(s *session) {
	each(kmsg.IncrementalAlterConfigs, func(v int16) {
		name, _ := s.create(fmt.Sprintf("t-%d", v), 1, "segment.bytes=2097152")
		look := func(what string) {
			s.settle()
			s.ask(fmt.Sprintf("after v%d %s", v, what),
				describing(topicResource, name, "retention.ms", "segment.bytes", "cleanup.policy"), latest(kmsg.DescribeConfigs))
		}
		validate := incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "1000000"})
		validate.ValidateOnly = true
		s.ask("validate only", validate, v)
		look("validate only")
		s.ask("set", incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "1000000"}), v)
		look("set")
		s.ask("set and delete", incrementally(topicResource, name,
			change{op: opDelete, name: "retention.ms", isNull: true}, change{op: opSet, name: "segment.bytes", value: "4194304"}), v)
		look("set and delete")
		s.ask("delete what is not set", incrementally(topicResource, name, change{op: opDelete, name: "retention.bytes", isNull: true}), v)
		s.ask("append what is there", incrementally(topicResource, name, change{op: opAppend, name: "cleanup.policy", value: "delete"}), v)
		look("append")
		s.ask("append to no list", incrementally(topicResource, name, change{op: opAppend, name: "retention.ms", value: "1"}), v)
		s.ask("subtract from no list", incrementally(topicResource, name, change{op: opSubtract, name: "retention.ms", value: "1"}), v)
		s.ask("subtract what is not there", incrementally(topicResource, name, change{op: opSubtract, name: "cleanup.policy", value: "compact"}), v)
		look("subtract")
		s.ask("unknown operation", incrementally(topicResource, name, change{op: 9, name: "retention.ms", value: "1"}), v)
		s.ask("bad value", incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "-2"}), v)
		s.ask("no number", incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "x"}), v)
		s.ask("null value", incrementally(topicResource, name, change{op: opSet, name: "retention.ms", isNull: true}), v)
		s.ask("unknown config", incrementally(topicResource, name, change{op: opSet, name: "no.such.config", value: "1"}), v)
		s.ask("delete an unknown config", incrementally(topicResource, name, change{op: opDelete, name: "no.such.config", isNull: true}), v)
		s.ask("a config twice", incrementally(topicResource, name,
			change{op: opSet, name: "retention.ms", value: "1"}, change{op: opDelete, name: "retention.ms", isNull: true}), v)
		s.ask("good and bad", incrementally(topicResource, name,
			change{op: opSet, name: "retention.ms", value: "5"}, change{op: opSet, name: "segment.bytes", value: "1"}), v)
		s.ask("no config", incrementally(topicResource, name), v)
		look("refused")
		s.ask("unknown topic", incrementally(topicResource, s.topic("unknown"), change{op: opSet, name: "retention.ms", value: "1"}), v)
		for _, bad := range badNames {
			s.ask("topic named "+bad.what, incrementally(topicResource, bad.name, change{op: opSet, name: "retention.ms", value: "1"}), v)
		}
		for _, kind := range []int8{0, 1, 3, 5, 64} {
			s.ask(fmt.Sprintf("resource type %d", kind), incrementally(kind, "x", change{op: opSet, name: "retention.ms", value: "1"}), v)
		}
		s.ask("a node that is no number", incrementally(brokerResource, "x", change{op: opSet, name: "log.retention.ms", value: "1"}), v)
		s.ask("an unknown node", incrementally(brokerResource, "4711", change{op: opSet, name: "log.retention.ms", value: "1"}), v)
		node := incrementally(brokerResource, fmt.Sprint(s.node), change{op: opSet, name: "log.retention.ms", value: "1000"})
		node.ValidateOnly = true
		s.ask("the node, validate only", node, v)
		s.ask("the node, unknown config", incrementally(brokerResource, fmt.Sprint(s.node), change{op: opSet, name: "no.such.config", value: "1"}), v)
		s.ask("the node, read-only config", incrementally(brokerResource, fmt.Sprint(s.node), change{op: opSet, name: "node.id", value: "1"}), v)
		twice := incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "1"})
		twice.Resources = append(twice.Resources, twice.Resources[0])
		s.ask("a topic twice", twice, v)
		two := incrementally(topicResource, name, change{op: opSet, name: "retention.ms", value: "2000000"})
		two.Resources = append(two.Resources,
			incrementally(topicResource, s.topic("unknown"), change{op: opSet, name: "retention.ms", value: "1"}).Resources...)
		s.ask("known and unknown topic", two, v)
		look("known and unknown topic")
		two.Resources = nil
		s.ask("nothing", two, v)
	})
}

// listConfigResources lists what has configs.
func listConfigResources(s *session) {
	s.ask("plain", kmsg.NewPtrListConfigResourcesRequest(), 0)
	ask := func(what string, kinds ...int8) {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = kinds
		s.ask(what, req, 1)
	}
	ask("nodes", brokerResource)
	ask("node loggers", 8)
	ask("client metrics", 16)
	ask("groups", 32)
	ask("unknown type", 0)
	ask("a type that is not known yet", 64)
	ask("a type twice", brokerResource, brokerResource)
	ask("two types", brokerResource, 16)
}

// describeAllLogDirs asks where all partitions of the server lie.
func describeAllLogDirs(s *session) {
	name, id := s.create("t", 2)
	s.fill(name, id, 1, 3)
	each(kmsg.DescribeLogDirs, func(v int16) {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Topics = nil
		s.ask("all topics", req, v)
	})
}

// describeLogDirs asks where partitions lie.
func describeLogDirs(s *session) {
	name, id := s.create("t", 2)
	s.fill(name, id, 0, 3)
	ask := func(what string, v int16, topic string, partitions ...int32) {
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Topics = append(req.Topics, t)
		s.ask(what, req, v)
	}
	each(kmsg.DescribeLogDirs, func(v int16) {
		ask("two partitions", v, name, 0, 1)
		ask("known and unknown partition", v, name, 0, 7)
		ask("negative partition", v, name, -1)
		ask("no partitions", v, name)
		ask("unknown topic", v, s.topic("unknown"), 0)
		ask("bad name", v, "bad name", 0)
		none := kmsg.NewPtrDescribeLogDirsRequest()
		none.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		s.ask("no topics", none, v)
	})
}
