package kafka_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
)

// admin is a node and a connection to it.
func admin(t *testing.T, edit func(*node.Options)) (core, *rawClient) {
	t.Helper()
	n := startCore(t, edit)
	return n, dialRaw(t, n.addr)
}

const adminTimeoutMS = 30_000

func newTopic(name string, partitions int32, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for _, c := range configs {
		key, value, _ := strings.Cut(c, "=")
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value})
	}
	return t
}

// createTopics asks for topics.
func (c *rawClient) createTopics(version int16, validateOnly bool, topics ...kmsg.CreateTopicsRequestTopic) []kmsg.CreateTopicsResponseTopic {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis, req.ValidateOnly, req.Topics = adminTimeoutMS, validateOnly, topics
	return c.ask(req, version).(*kmsg.CreateTopicsResponse).Topics
}

// create creates a topic and returns its id.
func (c *rawClient) create(name string, partitions int32, configs ...string) [16]byte {
	c.t.Helper()
	r := c.createTopics(7, false, newTopic(name, partitions, configs...))
	if len(r) != 1 || r[0].ErrorCode != 0 || r[0].TopicID == ([16]byte{}) {
		c.t.Fatalf("create %s: %+v", name, r)
	}
	return r[0].TopicID
}

// message is an answer's error message, or what stands for null.
func message(m *string) string {
	if m == nil {
		return "null"
	}
	return *m
}

// outcome is an error of an answer for people: its name and message.
func outcome(code int16, m *string) string {
	return errcode.Code(code).Name() + ": " + message(m)
}

func TestCreateTopicsVersions(t *testing.T) {
	t.Parallel()
	_, c := admin(t, func(o *node.Options) { o.DefaultPartitions = 3 })
	for v := int16(2); v <= 7; v++ {
		name := fmt.Sprint("v", v)
		for _, validateOnly := range []bool{true, false} {
			topic := newTopic(name, 2, "retention.ms=1000")
			if v >= 4 {
				topic.NumPartitions, topic.ReplicationFactor = -1, -1
			}
			r := c.createTopics(v, validateOnly, topic)
			if len(r) != 1 || r[0].Topic != name || r[0].ErrorCode != 0 || r[0].ErrorMessage != nil {
				t.Fatalf("version %d: %+v", v, r)
			}
			if v < 5 {
				continue
			}
			if r[0].NumPartitions != 3 || r[0].ReplicationFactor != 1 || len(r[0].Configs) != 33 {
				t.Errorf("version %d: %d partitions, %d replicas, %d configs", v, r[0].NumPartitions, r[0].ReplicationFactor, len(r[0].Configs))
			}
			for _, conf := range r[0].Configs {
				if set := conf.Name == "retention.ms"; set != (conf.Source == 1) || set && *conf.Value != "1000" {
					t.Errorf("version %d: %s=%s of source %d", v, conf.Name, *conf.Value, conf.Source)
				}
			}
			if v == 7 && (r[0].TopicID == [16]byte{}) != validateOnly {
				t.Errorf("version %d, validate only %t: id %x", v, validateOnly, r[0].TopicID)
			}
		}
		if n := len(c.metadata(12, false, name).Topics[0].Partitions); v >= 4 && n != 3 || v < 4 && n != 2 {
			t.Errorf("version %d made %d partitions", v, n)
		}
	}
}

func TestCreateTopicsRefused(t *testing.T) {
	t.Parallel()
	_, c := admin(t, func(o *node.Options) { o.Limits.TopicPartitions = 50 })
	c.create("taken", 1)
	c.create("with.dot", 1)
	assigned := func(partitions int32, replicas int16, parts ...[]int32) kmsg.CreateTopicsRequestTopic {
		topic := newTopic("x", partitions)
		topic.ReplicationFactor = replicas
		for i, p := range parts {
			topic.ReplicaAssignment = append(topic.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(i), Replicas: p})
		}
		return topic
	}
	replicas := func(n int16) kmsg.CreateTopicsRequestTopic {
		topic := newTopic("x", 1)
		topic.ReplicationFactor = n
		return topic
	}
	gap := assigned(-1, -1, []int32{7})
	gap.ReplicaAssignment[0].Partition = 1
	doubled := assigned(-1, -1, []int32{7}, []int32{7})
	doubled.ReplicaAssignment[1].Partition = 0
	null := newTopic("x", 1)
	null.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms"}}
	tests := []struct {
		topic kmsg.CreateTopicsRequestTopic
		want  string
	}{
		{newTopic("taken", 1), "TOPIC_ALREADY_EXISTS: Topic 'taken' already exists."},
		{newTopic("with_dot", 1), "INVALID_TOPIC_EXCEPTION: Topic 'with_dot' collides with existing topic: with.dot"},
		{newTopic("", 1), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: the empty string is not allowed"},
		{newTopic(".", 1), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: '.' is not allowed"},
		{newTopic("a b", 1), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{newTopic(strings.Repeat("a", 250), 1), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: the length of '" + strings.Repeat("a", 64) + "...' is longer than the max allowed length 249"},
		{newTopic("__cluster_metadata", 1), "INVALID_REQUEST: Creation of internal topic __cluster_metadata is prohibited."},
		{newTopic("__consumer_offsets", 1), "INVALID_REQUEST: Creation of internal topic __consumer_offsets is prohibited."},
		{newTopic("x", 0), "INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value."},
		{newTopic("x", -2), "INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value."},
		{newTopic("x", 51), "INVALID_PARTITIONS: 51 partitions; give 1 to 50 (topics.partitions.max)"},
		{replicas(0), "INVALID_REPLICATION_FACTOR: Replication factor must be larger than 0, or -1 to use the default value."},
		{replicas(-2), "INVALID_REPLICATION_FACTOR: Replication factor must be larger than 0, or -1 to use the default value."},
		{replicas(2), "INVALID_REPLICATION_FACTOR: Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered."},
		{newTopic("x", 1, "foo=1"), "INVALID_CONFIG: Unknown topic config name: foo"},
		{newTopic("x", 0, "retention.ms=x"), "INVALID_CONFIG: Invalid value x for configuration retention.ms: Not a number of type LONG"},
		{newTopic("x", 1, "cleanup.policy=compact"), "INVALID_CONFIG: Invalid value compact for configuration cleanup.policy: compaction is not built yet; only delete is"},
		{null, "INVALID_CONFIG: Null value not supported for topic configs: retention.ms"},
		{assigned(1, -1, []int32{7}), "INVALID_REQUEST: A manual partition assignment was specified, but numPartitions was not set to -1."},
		{assigned(-1, 1, []int32{7}), "INVALID_REQUEST: A manual partition assignment was specified, but replication factor was not set to -1."},
		{assigned(-1, -1, []int32{42}), "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 42, but no such broker is registered."},
		{assigned(-1, -1, []int32{7, 7}), "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes the broker 7 more than once."},
		{assigned(-1, -1, []int32{}), "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list."},
		{gap, "INVALID_REPLICA_ASSIGNMENT: partitions should be a consecutive 0-based integer sequence"},
		{doubled, "INVALID_REPLICA_ASSIGNMENT: Found multiple manual partition assignments for partition 0"},
	}
	for _, tt := range tests {
		for _, validateOnly := range []bool{true, false} {
			r := c.createTopics(7, validateOnly, tt.topic)
			if len(r) != 1 || r[0].Topic != tt.topic.Topic || r[0].Configs == nil || r[0].NumPartitions != -1 || r[0].ReplicationFactor != -1 {
				t.Errorf("%s: %+v", tt.want, r)
				continue
			}
			if got := outcome(r[0].ErrorCode, r[0].ErrorMessage); got != tt.want {
				t.Errorf("validate only %t: %q, want %q", validateOnly, got, tt.want)
			}
		}
	}

	r := c.createTopics(7, false, newTopic("twice", 1), newTopic("once", 1), newTopic("twice", 1))
	if len(r) != 2 || outcome(r[0].ErrorCode, r[0].ErrorMessage) != "INVALID_REQUEST: Duplicate topic name." || r[1].ErrorCode != 0 {
		t.Errorf("a topic twice: %+v", r)
	}
	if r := c.createTopics(7, false, assigned(-1, -1, []int32{7}, []int32{7})); r[0].ErrorCode != 0 || r[0].NumPartitions != 2 || r[0].ReplicationFactor != 1 {
		t.Errorf("assigned: %+v", r)
	}
	if r := c.createTopics(7, false); len(r) != 0 {
		t.Errorf("nothing: %+v", r)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis, req.Topics = 0, []kmsg.CreateTopicsRequestTopic{newTopic("late", 1)}
	if r := c.ask(req, 7).(*kmsg.CreateTopicsResponse).Topics; r[0].ErrorCode != int16(errcode.RequestTimedOut) {
		t.Errorf("no time: %+v", r)
	}
}

func TestIgnoredConfigsAreReported(t *testing.T) {
	t.Parallel()
	n, c := admin(t, nil)
	c.create("a", 1, "segment.jitter.ms=5", "flush.ms=7", "retention.ms=8")
	n.log.await(t, `a topic has configs that do nothing here; they are kept and shown" topic=a configs="segment.jitter.ms=5"`, 1)
}

func (c *rawClient) deleteTopics(version int16, topics ...kmsg.DeleteTopicsRequestTopic) []string {
	c.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = adminTimeoutMS
	for _, t := range topics {
		if version < 6 {
			req.TopicNames = append(req.TopicNames, *t.Topic)
		} else {
			req.Topics = append(req.Topics, t)
		}
	}
	var out []string
	for _, r := range c.ask(req, version).(*kmsg.DeleteTopicsResponse).Topics {
		out = append(out, message(r.Topic)+" "+outcome(r.ErrorCode, r.ErrorMessage))
	}
	return out
}

func TestDeleteTopics(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	named := func(name string) kmsg.DeleteTopicsRequestTopic { return kmsg.DeleteTopicsRequestTopic{Topic: &name} }
	for v := int16(1); v <= 6; v++ {
		c.create("a", 1)
		unknown := "UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition."
		twice := "INVALID_REQUEST: Duplicate topic name."
		if v < 5 {
			unknown, twice = "UNKNOWN_TOPIC_OR_PARTITION: null", "INVALID_REQUEST: null"
		}
		got := c.deleteTopics(v, named("none"), named("a"), named("bad name"), named("b"), named("b"))
		want := []string{"none " + unknown, "a NONE: null", "bad name " + unknown, "b " + twice}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
		if e := c.metadata(12, false, "a").Topics[0].ErrorCode; e != int16(errcode.UnknownTopicOrPartition) {
			t.Errorf("version %d: the topic is there, %v", v, errcode.Code(e))
		}
	}
	id := c.create("a", 1)
	got := c.deleteTopics(6,
		kmsg.DeleteTopicsRequestTopic{}, kmsg.DeleteTopicsRequestTopic{Topic: named("a").Topic, TopicID: id}, kmsg.DeleteTopicsRequestTopic{TopicID: [16]byte{9}},
		kmsg.DeleteTopicsRequestTopic{TopicID: [16]byte{8}}, kmsg.DeleteTopicsRequestTopic{TopicID: [16]byte{8}}, kmsg.DeleteTopicsRequestTopic{TopicID: id})
	want := []string{
		"null INVALID_REQUEST: Neither topic name nor id were specified.",
		"a INVALID_REQUEST: You may not specify both topic name and topic id.",
		"null UNKNOWN_TOPIC_ID: This server does not host this topic ID.",
		"null INVALID_REQUEST: Duplicate topic id.", "a NONE: null",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCreatePartitions(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 2)
	ask := func(version int16, validateOnly bool, topics ...kmsg.CreatePartitionsRequestTopic) []string {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis, req.ValidateOnly, req.Topics = adminTimeoutMS, validateOnly, topics
		var out []string
		for _, r := range c.ask(req, version).(*kmsg.CreatePartitionsResponse).Topics {
			out = append(out, r.Topic+" "+outcome(r.ErrorCode, r.ErrorMessage))
		}
		return out
	}
	to := func(name string, count int32, assigned ...[]int32) kmsg.CreatePartitionsRequestTopic {
		topic := kmsg.CreatePartitionsRequestTopic{Topic: name, Count: count}
		for _, a := range assigned {
			topic.Assignment = append(topic.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a})
		}
		return topic
	}
	none := to("a", 3)
	none.Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{}
	for _, tt := range []struct {
		topic kmsg.CreatePartitionsRequestTopic
		want  string
	}{
		{to("a", 2), "INVALID_PARTITIONS: Topic already has 2 partition(s)."},
		{to("a", 1), "INVALID_PARTITIONS: The topic a currently has 2 partition(s); 1 would not be an increase."},
		{to("a", -1), "INVALID_PARTITIONS: The topic a currently has 2 partition(s); -1 would not be an increase."},
		{to("none", 2), "UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition."},
		{to("bad name", 2), "UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition."},
		{to("a", 4, []int32{7}), "INVALID_REPLICA_ASSIGNMENT: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."},
		{none, "INVALID_REPLICA_ASSIGNMENT: Attempted to add 1 additional partition(s), but only 0 assignment(s) were specified."},
		{to("a", 3, []int32{42}), "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 42, but no such broker is registered."},
		{to("a", 3, []int32{}), "INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list."},
		{to("a", 3, []int32{7}), "NONE: null"}, // validated only
	} {
		if got := ask(3, true, tt.topic); len(got) != 1 || got[0] != tt.topic.Topic+" "+tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	if got := ask(3, false, to("a", 3), to("a", 4)); len(got) != 1 || got[0] != "a INVALID_REQUEST: Duplicate topic name." {
		t.Errorf("a topic twice: %q", got)
	}
	for v := range int16(4) {
		want := int32(3 + v)
		if got := ask(v, false, to("a", want)); len(got) != 1 || got[0] != "a NONE: null" {
			t.Errorf("version %d: %q", v, got)
		}
		if n := len(c.metadata(12, false, "a").Topics[0].Partitions); n != int(want) {
			t.Errorf("version %d: %d partitions, want %d", v, n, want)
		}
	}
}

func (c *rawClient) describe(version int16, edit func(*kmsg.DescribeConfigsRequest), resources ...kmsg.DescribeConfigsRequestResource) []kmsg.DescribeConfigsResponseResource {
	c.t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = resources
	if edit != nil {
		edit(req)
	}
	return c.ask(req, version).(*kmsg.DescribeConfigsResponse).Resources
}

func topicResource(name string, configs ...string) kmsg.DescribeConfigsRequestResource {
	return kmsg.DescribeConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name, ConfigNames: configs}
}

// value returns a topic's config as it is described.
func (c *rawClient) value(topic, config string) string {
	c.t.Helper()
	r := c.describe(4, nil, topicResource(topic, config))
	if len(r) != 1 || len(r[0].Configs) != 1 {
		c.t.Fatalf("%s of %s: %+v", config, topic, r)
	}
	return *r[0].Configs[0].Value
}

func TestDescribeConfigs(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1, "retention.ms=1000", "max.message.bytes=2000")
	for v := int16(1); v <= 4; v++ {
		r := c.describe(v, func(req *kmsg.DescribeConfigsRequest) { req.IncludeSynonyms, req.IncludeDocumentation = true, true }, topicResource("a"))
		if len(r) != 1 || r[0].ErrorCode != 0 || message(r[0].ErrorMessage) != "" || len(r[0].Configs) != 33 {
			t.Fatalf("version %d: %+v", v, r)
		}
		for _, conf := range r[0].Configs {
			var synonyms []string
			for _, sy := range conf.ConfigSynonyms {
				synonyms = append(synonyms, fmt.Sprint(sy.Name, "=", *sy.Value, " ", int8(sy.Source)))
			}
			got := fmt.Sprint(*conf.Value, " ", int8(conf.Source), " ", synonyms, " ", int8(conf.ConfigType), conf.ReadOnly, conf.IsSensitive)
			kind := func(k int) string { // of version 3
				if v < 3 {
					k = 0
				}
				return fmt.Sprint(" ", k, false, false)
			}
			want, ok := map[string]string{
				"retention.ms":      "1000 1 [retention.ms=1000 1]" + kind(5),
				"max.message.bytes": "2000 1 [max.message.bytes=2000 1 message.max.bytes=1048588 5]" + kind(3),
				"cleanup.policy":    "delete 5 [log.cleanup.policy=delete 5]" + kind(7),
				"preallocate":       "false 5 [log.preallocate=false 5]" + kind(1),
				"flush.ms":          "9223372036854775807 5 []" + kind(5),
			}[conf.Name]
			if ok && got != want {
				t.Errorf("version %d: %s is %q, want %q", v, conf.Name, got, want)
			}
			if (v >= 3) != (conf.Documentation != nil) {
				t.Errorf("version %d: %s has documentation %v", v, conf.Name, conf.Documentation)
			}
		}
	}
	r := c.describe(4, nil, topicResource("a", "retention.ms", "nope"))
	if len(r[0].Configs) != 1 || r[0].Configs[0].ConfigSynonyms != nil || r[0].Configs[0].Documentation != nil {
		t.Errorf("by name, and nothing else asked for: %+v", r[0].Configs)
	}
	none := topicResource("a")
	none.ConfigNames = []string{} // as null
	if r := c.describe(4, nil, none); r[0].ErrorCode != 0 || len(r[0].Configs) != 33 {
		t.Errorf("no names: %+v", r)
	}
	of := func(kind int8, name string) kmsg.DescribeConfigsRequestResource {
		return kmsg.DescribeConfigsRequestResource{ResourceType: kmsg.ConfigResourceType(kind), ResourceName: name}
	}
	const built = "; this version has configs of topics, and those of nodes to be read"
	for _, tt := range []struct {
		r    kmsg.DescribeConfigsRequestResource
		want string
	}{
		{of(2, "none"), "UNKNOWN_TOPIC_OR_PARTITION: topic none does not exist; create it first"},
		{of(2, "bad name"), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'bad name' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{of(2, ""), "INVALID_TOPIC_EXCEPTION: Topic name is invalid: the empty string is not allowed"},
		{of(4, "8"), "INVALID_REQUEST: Unexpected broker id, expected 7 or empty string, but received 8"},
		{of(4, "abc"), "INVALID_REQUEST: Broker id must be an integer, but it is: abc"},
		{of(4, ""), "NONE: "},
		{of(8, "7"), "INVALID_REQUEST: Unsupported resource type: BROKER_LOGGER" + built},
		{of(0, "x"), "INVALID_REQUEST: Unsupported resource type: 0"},
		{of(99, "x"), "INVALID_REQUEST: Unsupported resource type: 99"},
	} {
		r := c.describe(4, nil, tt.r)
		if got := outcome(r[0].ErrorCode, r[0].ErrorMessage); got != tt.want || len(r[0].Configs) > 0 {
			t.Errorf("%q and %d configs, want %q", got, len(r[0].Configs), tt.want)
		}
	}
}

func TestDescribeNode(t *testing.T) {
	t.Parallel()
	_, c := admin(t, func(o *node.Options) {
		o.Settings = append(o.Settings, config.KafkaSetting{Name: "num.partitions", Value: "3", Kind: config.Int, Set: true})
	})
	r := c.describe(4, func(req *kmsg.DescribeConfigsRequest) { req.IncludeSynonyms = true },
		kmsg.DescribeConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "7"})
	seen := make(map[string]string)
	for _, conf := range r[0].Configs {
		if !conf.ReadOnly {
			t.Errorf("%s is not read-only", conf.Name)
		}
		seen[conf.Name] = fmt.Sprint(*conf.Value, " ", int8(conf.Source), " ", len(conf.ConfigSynonyms))
	}
	for name, want := range map[string]string{
		"num.partitions": "3 4 1", "message.max.bytes": "1048588 5 1", "node.id": "7 4 1", "broker.id": "7 4 1",
		"default.replication.factor": "1 5 1", "delete.topic.enable": "true 5 1", "log.retention.ms": "604800000 5 1", "log.retention.hours": "168 5 1",
	} {
		if seen[name] != want {
			t.Errorf("%s is %q, want %q", name, seen[name], want)
		}
	}
}

type configOp struct {
	name  string
	op    int8
	value string // "\x00": null
}

func (c *rawClient) alter(version int16, validateOnly bool, kind int8, name string, ops ...configOp) string {
	c.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.ValidateOnly = validateOnly
	r := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceType(kind), ResourceName: name}
	for _, o := range ops {
		conf := kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: o.name, Op: kmsg.IncrementalAlterConfigOp(o.op)}
		if o.value != "\x00" {
			conf.Value = &o.value
		}
		r.Configs = append(r.Configs, conf)
	}
	req.Resources = append(req.Resources, r)
	got := c.ask(req, version).(*kmsg.IncrementalAlterConfigsResponse).Resources
	if len(got) != 1 || got[0].ResourceName != name || int8(got[0].ResourceType) != kind {
		c.t.Fatalf("%+v", got)
	}
	return outcome(got[0].ErrorCode, got[0].ErrorMessage)
}

func TestIncrementalAlterConfigs(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1, "segment.ms=5")
	const set, del, app, sub = 0, 1, 2, 3
	const lead = "leader.replication.throttled.replicas"
	for _, tt := range []struct {
		kind int8
		name string
		ops  []configOp
		want string
	}{
		{2, "none", []configOp{{"retention.ms", set, "1"}}, "UNKNOWN_TOPIC_OR_PARTITION: The topic 'none' does not exist."},
		{2, "bad name", []configOp{{"retention.ms", set, "1"}}, "INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'bad name' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{2, "", []configOp{{"retention.ms", set, "1"}}, "INVALID_REQUEST: Default topic resources are not allowed."},
		{0, "x", nil, "INVALID_REQUEST: Unknown resource type 0"},
		{99, "x", nil, "INVALID_REQUEST: Unknown resource type 99"},
		{4, "8", nil, "INVALID_REQUEST: Unexpected broker id, expected 7, but received 8"},
		{4, "abc", nil, "INVALID_REQUEST: Node id must be an integer, but it is: abc"},
		{4, "7", nil, "NONE: null"},
		{4, "7", []configOp{{"node.id", set, "1"}, {"listeners", set, "x"}}, "INVALID_REQUEST: Cannot update these configs dynamically: [listeners, node.id]; a node takes its settings from flags, environment and file when it starts"},
		{4, "", []configOp{{"node.id", set, "1"}}, "INVALID_REQUEST: Cannot update these configs dynamically: [node.id]; a node takes its settings from flags, environment and file when it starts"},
		{2, "a", []configOp{{"retention.ms", set, "\x00"}}, "INVALID_REQUEST: Null value not supported for : retention.ms"},
		{2, "a", []configOp{{"retention.ms", app, "5"}}, "INVALID_CONFIG: Can't APPEND to key retention.ms because its type is not LIST."},
		{2, "a", []configOp{{"foo", sub, "5"}}, "INVALID_CONFIG: Can't SUBTRACT to key foo because its type is not LIST."},
		{2, "a", []configOp{{"retention.ms", 7, "5"}}, "INVALID_REQUEST: unknown operation 7 on retention.ms; there are 0, set, 1, delete, 2, append, and 3, subtract"},
		{2, "a", []configOp{{"foo", set, "5"}}, "INVALID_CONFIG: Unknown topic config name: foo"},
		{2, "a", []configOp{{"foo", del, "\x00"}}, "NONE: null"},
		{2, "a", []configOp{{"retention.ms", set, "5"}, {"retention.ms", del, "\x00"}}, "INVALID_REQUEST: Error due to duplicate config keys"},
		{2, "a", []configOp{{"retention.ms", set, "x"}}, "INVALID_CONFIG: Invalid value x for configuration retention.ms: Not a number of type LONG"},
		{2, "a", []configOp{{"cleanup.policy", app, "compact"}}, "INVALID_CONFIG: Invalid value delete,compact for configuration cleanup.policy: compaction is not built yet; only delete is"},
		{2, "a", []configOp{{"cleanup.policy", sub, "delete"}}, "NONE: null"},
		{2, "a", nil, "NONE: null"},
	} {
		if got := c.alter(1, true, tt.kind, tt.name, tt.ops...); got != tt.want {
			t.Errorf("%d %s %v: %q, want %q", tt.kind, tt.name, tt.ops, got, tt.want)
		}
	}
	if got := c.value("a", "cleanup.policy") + c.value("a", "retention.ms"); got != "delete604800000" {
		t.Errorf("validated only, and now %s", got)
	}
	for v := range int16(2) {
		for _, step := range []struct {
			op   configOp
			want string
		}{
			{configOp{lead, app, "0:7, 1:7"}, "0:7,1:7"}, {configOp{lead, app, "2:7,1:7"}, "0:7,1:7,2:7"},
			{configOp{lead, sub, "1:7,9:9"}, "0:7,2:7"}, {configOp{lead, del, "\x00"}, ""}, {configOp{"retention.ms", set, " 9"}, "9"},
			{configOp{"retention.ms", del, "\x00"}, "604800000"},
		} {
			if got := c.alter(v, false, 2, "a", step.op); got != "NONE: null" {
				t.Fatal(got)
			}
			if got := c.value("a", step.op.name); got != step.want {
				t.Errorf("version %d: %v makes %q, want %q", v, step.op, got, step.want)
			}
		}
	}
	if got := c.value("a", "segment.ms"); got != "5" {
		t.Errorf("segment.ms, which was not named, is %s", got)
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	one := kmsg.IncrementalAlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "a"}
	req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{one, one}
	for _, r := range c.ask(req, 1).(*kmsg.IncrementalAlterConfigsResponse).Resources {
		if got := outcome(r.ErrorCode, r.ErrorMessage); got != "INVALID_REQUEST: Each resource must appear at most once." {
			t.Error(got)
		}
	}
}

func TestAlterConfigs(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	ask := func(version int16, validateOnly bool, kind int8, name string, set ...string) string {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.ValidateOnly = validateOnly
		r := kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceType(kind), ResourceName: name}
		for _, one := range set {
			key, value, given := strings.Cut(one, "=")
			conf := kmsg.AlterConfigsRequestResourceConfig{Name: key}
			if given {
				conf.Value = &value
			}
			r.Configs = append(r.Configs, conf)
		}
		req.Resources = append(req.Resources, r)
		got := c.ask(req, version).(*kmsg.AlterConfigsResponse).Resources
		return outcome(got[0].ErrorCode, got[0].ErrorMessage)
	}
	for v := range int16(3) {
		name := fmt.Sprint("a", v)
		c.create(name, 1, "segment.ms=5")
		if got := ask(v, true, 2, name, "retention.ms=6"); got != "NONE: null" || c.value(name, "segment.ms") != "5" {
			t.Errorf("version %d, validated only: %s", v, got)
		}
		if got := ask(v, false, 2, name, "retention.ms=6"); got != "NONE: null" || c.value(name, "segment.ms") != "604800000" || c.value(name, "retention.ms") != "6" {
			t.Errorf("version %d: %s; segment.ms %s", v, got, c.value(name, "segment.ms"))
		}
		if got := ask(v, false, 2, name); got != "NONE: null" || c.value(name, "retention.ms") != "604800000" {
			t.Errorf("version %d, nothing: %s; retention.ms %s", v, got, c.value(name, "retention.ms"))
		}
	}
	for _, tt := range []struct {
		kind int8
		name string
		set  []string
		want string
	}{
		{2, "none", nil, "UNKNOWN_TOPIC_OR_PARTITION: The topic 'none' does not exist."},
		{2, "a0", []string{"segment.ms", "flush.ms"}, "INVALID_REQUEST: Null value not supported for : segment.ms,flush.ms"},
		{2, "a0", []string{"segment.ms=1", "segment.ms=2"}, "INVALID_REQUEST: Error due to duplicate config keys"},
		{2, "a0", []string{"foo=1"}, "INVALID_CONFIG: Unknown topic config name: foo"},
		{4, "8", nil, "INVALID_REQUEST: Unexpected broker id, expected 7, but received 8"},
		{0, "x", nil, "INVALID_REQUEST: Unknown resource type 0"},
	} {
		if got := ask(2, false, tt.kind, tt.name, tt.set...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestListConfigResources(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("b", 1)
	c.create("a", 1)
	ask := func(version int16, types ...int8) []string {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = types
		r := c.ask(req, version).(*kmsg.ListConfigResourcesResponse)
		if r.ErrorCode != 0 {
			return []string{errcode.Code(r.ErrorCode).Name()}
		}
		var out []string
		for _, one := range r.ConfigResources {
			out = append(out, fmt.Sprint(one.Type, " ", one.Name))
		}
		return out
	}
	all := []string{"4 7", "2 a", "2 b"}
	for _, tt := range []struct {
		version int16
		types   []int8
		want    []string
	}{
		{0, nil, nil}, {1, nil, all}, {1, []int8{2, 4, 8, 16, 32}, all}, {1, []int8{2, 2}, all[1:]}, {1, []int8{4}, all[:1]}, {1, []int8{16}, nil},
		{1, []int8{2, 99}, []string{"UNSUPPORTED_VERSION"}}, {1, []int8{0}, []string{"UNSUPPORTED_VERSION"}},
	} {
		if got := ask(tt.version, tt.types...); !slices.Equal(got, tt.want) {
			t.Errorf("version %d, types %v: %v, want %v", tt.version, tt.types, got, tt.want)
		}
	}
}
