package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// startKadm starts a node and returns an admin client of franz-go's, and a context
// in which it asks for authorised operations: it asks for metadata each time then,
// and does not answer from its cache.
func startKadm(t *testing.T) (core, *kadm.Client, context.Context) {
	t.Helper()
	n := startCore(t, nil)
	c, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.DialTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return n, kadm.NewClient(c), kadm.WithAuthorizedOps(ctx)
}

// must returns v, if there was no error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestKadmTopics: topics are created, listed, grown and deleted.
func TestKadmTopics(t *testing.T) {
	t.Parallel()
	n, c, ctx := startKadm(t)
	retention := "1000"
	configs := map[string]*string{"retention.ms": &retention}

	for name, r := range must(c.ValidateCreateTopics(ctx, 2, -1, configs, "a", "bad name"))(t) {
		if want := map[string]error{"bad name": kerr.InvalidTopicException}[name]; !errors.Is(r.Err, want) || r.Err == nil && want != nil {
			t.Errorf("validated %s: %v, want %v", name, r.Err, want)
		}
	}
	if topics := must(c.ListTopics(ctx))(t); len(topics) != 0 {
		t.Errorf("validated, and there is %v", topics.Names())
	}
	made := must(c.CreateTopics(ctx, 2, -1, configs, "a", "b"))(t)
	for name, r := range made {
		if r.Err != nil || r.ID == (kadm.TopicID{}) || r.NumPartitions != 2 || r.ReplicationFactor != 1 {
			t.Errorf("created %s: %+v", name, r)
		}
		if conf := r.Configs["retention.ms"]; conf.Value == nil || *conf.Value != retention || conf.Source != kmsg.ConfigSourceDynamicTopicConfig {
			t.Errorf("created %s: %+v", name, conf)
		}
		if conf := r.Configs["cleanup.policy"]; conf.Value == nil || *conf.Value != "delete" || conf.Source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("created %s: %+v", name, conf)
		}
	}
	if r, err := c.CreateTopic(ctx, 1, 1, nil, "a"); !errors.Is(err, kerr.TopicAlreadyExists) || r.ErrMessage != "Topic 'a' already exists." {
		t.Errorf("created again: %+v, %v", r, err)
	}
	zero := "x"
	if r, err := c.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &zero}, "c"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("a bad config: %+v, %v", r, err)
	}

	topics := must(c.ListTopics(ctx, "a", "b", "missing"))(t)
	if !errors.Is(topics["missing"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("missing: %v", topics["missing"].Err)
	}
	for _, name := range []string{"a", "b"} {
		d := topics[name]
		if d.Err != nil || d.ID != made[name].ID || d.IsInternal || len(d.Partitions) != 2 || !slices.Contains(d.AuthorizedOperations, kadm.OpWrite) {
			t.Fatalf("%s: %+v", name, d)
		}
		for i, p := range d.Partitions.Sorted() {
			if p.Err != nil || p.Partition != int32(i) || p.Leader != 7 || p.LeaderEpoch < 0 ||
				!slices.Equal(p.Replicas, []int32{7}) || !slices.Equal(p.ISR, []int32{7}) || len(p.OfflineReplicas) > 0 {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
	if names := must(c.ListTopicsWithInternal(ctx))(t).Names(); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("all are %v", names)
	}

	partitions := func() (n string) {
		for _, d := range must(c.ListTopics(ctx))(t).Sorted() {
			n += fmt.Sprint(d.Topic, len(d.Partitions), " ")
		}
		return n
	}
	for _, step := range []struct {
		what string
		do   func() (kadm.CreatePartitionsResponses, error)
		errs map[string]error
		want string
	}{
		{"validated", func() (kadm.CreatePartitionsResponses, error) {
			return c.ValidateUpdatePartitions(ctx, 5, "a", "missing")
		},
			map[string]error{"missing": kerr.UnknownTopicOrPartition}, "a2 b2 "},
		{"one more", func() (kadm.CreatePartitionsResponses, error) { return c.CreatePartitions(ctx, 1, "a", "b") }, nil, "a3 b3 "},
		{"five", func() (kadm.CreatePartitionsResponses, error) { return c.UpdatePartitions(ctx, 5, "b") }, nil, "a3 b5 "},
		{"fewer", func() (kadm.CreatePartitionsResponses, error) { return c.UpdatePartitions(ctx, 4, "b") }, map[string]error{"b": kerr.InvalidPartitions}, "a3 b5 "},
	} {
		for name, r := range must(step.do())(t) {
			if want := step.errs[name]; !errors.Is(r.Err, want) || (r.Err == nil) != (r.ErrMessage == "") {
				t.Errorf("%s, %s: %v, %q, want %v", step.what, name, r.Err, r.ErrMessage, want)
			}
		}
		if got := partitions(); got != step.want {
			t.Errorf("%s: partitions %s, want %s", step.what, got, step.want)
		}
	}

	for name, r := range must(c.DeleteTopics(ctx, "a", "missing"))(t) {
		if want := map[string]error{"missing": kerr.UnknownTopicOrPartition}[name]; !errors.Is(r.Err, want) || name == "a" && r.ID != made["a"].ID {
			t.Errorf("deleted %s: %+v, want %v", name, r, want)
		}
	}
	if got := partitions(); got != "b5 " {
		t.Errorf("left: %s", got)
	}

	meta := must(c.BrokerMetadata(ctx))(t)
	host, port, _ := net.SplitHostPort(n.addr)
	if b := meta.Brokers; len(b) != 1 || b[0].NodeID != 7 || b[0].Host != host || fmt.Sprint(b[0].Port) != port || b[0].Rack != nil ||
		meta.Cluster != n.ClusterID() || meta.Controller != 7 || len(meta.Topics) != 0 || len(must(c.ListBrokers(ctx))(t)) != 1 {
		t.Errorf("the cluster: %+v", meta)
	}
	versions := must(c.ApiVersions(ctx))(t)[7]
	for key, want := range map[kmsg.Key][2]int16{kmsg.Produce: {0, 13}, kmsg.Fetch: {4, 18}, kmsg.ListOffsets: {1, 11}} {
		if least, most, ok := versions.KeyVersions(int16(key)); !ok || [2]int16{least, most} != want {
			t.Errorf("%s is offered from %d to %d, want %v", key.Name(), least, most, want)
		}
	}
	if _, _, ok := versions.KeyVersions(int16(kmsg.AddPartitionsToTxn)); ok {
		t.Error("AddPartitionsToTxn is offered")
	}
}

// TestKadmConfigs: configs are described and altered, one by one and all at once.
func TestKadmConfigs(t *testing.T) {
	t.Parallel()
	_, c, ctx := startKadm(t)
	must(c.CreateTopics(ctx, 1, 1, nil, "a", "b"))(t)
	text := func(s string) *string { return &s }
	changed := func() []string { // the configs that were set
		var out []string
		for _, r := range must(c.DescribeTopicConfigs(ctx, "a", "b"))(t) {
			if r.Err != nil || len(r.Configs) != 33 {
				t.Fatalf("%s: %v, %d configs", r.Name, r.Err, len(r.Configs))
			}
			for _, conf := range r.Configs {
				if conf.Source == kmsg.ConfigSourceDynamicTopicConfig {
					out = append(out, fmt.Sprint(r.Name, " ", conf.Key, "=", conf.MaybeValue()))
				}
			}
		}
		slices.Sort(out)
		return out
	}
	alter := func(what string, want error, responses kadm.AlterConfigsResponses, after ...string) {
		t.Helper()
		for _, r := range responses {
			if !errors.Is(r.Err, want) || (r.Err == nil) != (r.ErrMessage == "") {
				t.Errorf("%s, %s: %v, %q, want %v", what, r.Name, r.Err, r.ErrMessage, want)
			}
		}
		if len(responses) == 0 {
			t.Errorf("%s: no answer", what)
		}
		if diff := cmp.Diff(after, changed()); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: text("5")}, {Op: kadm.AppendConfig, Name: "leader.replication.throttled.replicas", Value: text("0:7")}}
	alter("validated", nil, must(c.ValidateAlterTopicConfigs(ctx, set, "a", "b"))(t))
	alter("set", nil, must(c.AlterTopicConfigs(ctx, set, "a"))(t), "a leader.replication.throttled.replicas=0:7", "a retention.ms=5")
	alter("deleted", nil, must(c.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "retention.ms"}, {Op: kadm.SetConfig, Name: "segment.ms", Value: text("9")}}, "a"))(t),
		"a leader.replication.throttled.replicas=0:7", "a segment.ms=9")
	alter("refused", kerr.InvalidConfig, must(c.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: text("soon")}}, "a"))(t),
		"a leader.replication.throttled.replicas=0:7", "a segment.ms=9")
	alter("of a topic that is missing", kerr.UnknownTopicOrPartition, must(c.AlterTopicConfigs(ctx, set, "missing"))(t),
		"a leader.replication.throttled.replicas=0:7", "a segment.ms=9")
	state := []kadm.AlterConfig{{Name: "max.message.bytes", Value: text("2000")}}
	alter("all, validated", nil, must(c.ValidateAlterTopicConfigsState(ctx, state, "a", "b"))(t), "a leader.replication.throttled.replicas=0:7", "a segment.ms=9")
	alter("all", nil, must(c.AlterTopicConfigsState(ctx, state, "a", "b"))(t), "a max.message.bytes=2000", "b max.message.bytes=2000")
	alter("of a node", kerr.InvalidRequest, must(c.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "num.partitions", Value: text("2")}}, 7))(t),
		"a max.message.bytes=2000", "b max.message.bytes=2000")

	for _, r := range must(c.DescribeTopicConfigs(ctx, "a", "missing"))(t) {
		if r.Name == "missing" {
			if !errors.Is(r.Err, kerr.UnknownTopicOrPartition) || r.ErrMessage == "" {
				t.Errorf("missing: %v, %q", r.Err, r.ErrMessage)
			}
			continue
		}
		for _, conf := range r.Configs {
			if conf.Key == "max.message.bytes" {
				want := kadm.Config{Key: conf.Key, Value: text("2000"), Source: kmsg.ConfigSourceDynamicTopicConfig, Synonyms: []kadm.ConfigSynonym{
					{Key: conf.Key, Value: text("2000"), Source: kmsg.ConfigSourceDynamicTopicConfig},
					{Key: "message.max.bytes", Value: text("1048588"), Source: kmsg.ConfigSourceDefaultConfig},
				}}
				if diff := cmp.Diff(want, conf); diff != "" {
					t.Error(diff)
				}
			}
		}
	}
	nodes := must(c.DescribeBrokerConfigs(ctx, 7))(t)
	if len(nodes) != 1 || nodes[0].Err != nil || nodes[0].Name != "7" || !slices.ContainsFunc(nodes[0].Configs, func(conf kadm.Config) bool {
		return conf.Key == "node.id" && conf.MaybeValue() == "7" && conf.Source == kmsg.ConfigSourceStaticBrokerConfig
	}) {
		t.Errorf("the node: %+v", nodes)
	}
	listed := must(c.ListConfigResources(ctx))(t)
	if listed.Err != nil {
		t.Error(listed.Err)
	}
	var names []string
	for _, r := range listed.Resources {
		names = append(names, fmt.Sprint(r.Name, " ", r.Type))
	}
	slices.Sort(names)
	if want := []string{"7 BROKER", "a TOPIC", "b TOPIC"}; !slices.Equal(names, want) {
		t.Errorf("resources %v, want %v", names, want)
	}
}

// TestKadmRecords: what an admin asks about records.
func TestKadmRecords(t *testing.T) {
	t.Parallel()
	n, c, ctx := startKadm(t)
	must(c.CreateTopics(ctx, 2, 1, map[string]*string{"message.timestamp.type": kadm.StringPtr("CreateTime"), "retention.ms": kadm.StringPtr("-1")}, "a"))(t)
	producer, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.DialTimeout(patience), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("a"),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	for _, ms := range []int64{1000, 5000, 3000, 4000} { // one batch each
		if err := producer.ProduceSync(ctx, &kgo.Record{Partition: 1, Value: []byte("value"), Timestamp: time.UnixMilli(ms)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	id, epoch, err := producer.ProducerID(ctx)
	if err != nil {
		t.Fatal(err)
	}

	offsets := func(what string, listed kadm.ListedOffsets, want ...kadm.ListedOffset) {
		t.Helper()
		for i := range want {
			want[i].Topic, want[i].Partition = "a", int32(i)
			got, ok := listed.Lookup("a", int32(i))
			if want[i].Offset >= 0 && got.LeaderEpoch < 0 || want[i].Offset < 0 && got.LeaderEpoch != -1 {
				t.Errorf("%s: %+v", what, got)
			}
			if want[i].LeaderEpoch = got.LeaderEpoch; !ok || got != want[i] {
				t.Errorf("%s: %+v, want %+v", what, got, want[i])
			}
		}
	}
	none := kadm.ListedOffset{Offset: -1, Timestamp: -1}
	at := func(offset, ms int64) kadm.ListedOffset { return kadm.ListedOffset{Offset: offset, Timestamp: ms} }
	offsets("start", must(c.ListStartOffsets(ctx, "a"))(t), at(0, -1), at(0, -1))
	offsets("end", must(c.ListEndOffsets(ctx, "a"))(t), at(0, -1), at(4, -1))
	offsets("committed", must(c.ListCommittedOffsets(ctx, "a"))(t), at(0, -1), at(4, -1))
	offsets("latest in time", must(c.ListMaxTimestampOffsets(ctx, "a"))(t), none, at(1, 5000))
	offsets("start of what is local", must(c.ListLocalLogStartOffsets(ctx, "a"))(t), at(0, -1), at(0, -1))
	offsets("latest in tiered storage", must(c.ListLatestRemoteOffsets(ctx, "a"))(t), none, none)
	offsets("after 1001 ms", must(c.ListOffsetsAfterMilli(ctx, 1001, "a"))(t), at(0, -1), at(1, 5000)) // kadm asks for the end where there is none
	if o, _ := must(c.ListEndOffsets(ctx, "missing"))(t).Lookup("missing", -1); !errors.Is(o.Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("missing: %+v", o)
	}

	leaderEpoch := must(c.Metadata(ctx, "a"))(t).Topics["a"].Partitions[1].LeaderEpoch
	var epochs kadm.OffsetForLeaderEpochRequest
	epochs.Add("a", 1, leaderEpoch)
	if r := must(c.OffsetForLeaderEpoch(ctx, epochs))(t)["a"][1]; r.Err != nil || r.NodeID != 7 || r.LeaderEpoch != leaderEpoch || r.EndOffset != 4 {
		t.Errorf("the end of epoch %d: %+v", leaderEpoch, r)
	}

	parts := kadm.TopicsSet{"a": {0: {}, 1: {}}}
	described := must(c.DescribeProducers(ctx, parts))(t)["a"].Partitions
	if p := described[0]; p.Err != nil || p.Leader != 7 || len(p.ActiveProducers) != 0 {
		t.Errorf("nobody wrote: %+v", p)
	}
	pr, ok := described[1].ActiveProducers[id]
	if !ok || len(described[1].ActiveProducers) != 1 {
		t.Errorf("producers: %+v", described[1])
	}
	if want := (kadm.DescribedProducer{Leader: 7, Topic: "a", Partition: 1, ProducerID: id, ProducerEpoch: epoch, LastSequence: 3, LastTimestamp: 4000, CoordinatorEpoch: -1, CurrentTxnStartOffset: -1}); pr != want {
		t.Errorf("%+v, want %+v", pr, want)
	}

	dirs := must(c.DescribeAllLogDirs(ctx, nil))(t)
	dir := dirs[7]["data"]
	size := dir.Topics["a"][1].Size
	if len(dirs) != 1 || dir.Err != nil || dir.Broker != 7 || dir.TotalBytes <= 0 || dir.UsableBytes <= 0 || dir.UsableBytes > dir.TotalBytes ||
		len(dir.Topics["a"]) != 2 || dir.Topics["a"][0].Size != 0 || size < 4*61 || size%4 != 0 || dir.Topics["a"][1].OffsetLag != 0 || dir.Topics["a"][1].IsFuture {
		t.Errorf("log dirs: %+v", dirs)
	}
	if one := must(c.DescribeBrokerLogDirs(ctx, 7, kadm.TopicsSet{"a": {1: {}}}))(t)["data"]; len(one.Topics["a"]) != 1 || one.Size() != size {
		t.Errorf("the log dir of one partition: %+v, want %d bytes", one, size)
	}

	var before kadm.Offsets
	before.AddOffset("a", 0, 1, -1)
	before.AddOffset("a", 1, 3, -1)
	deleted := must(c.DeleteRecords(ctx, before))(t)["a"]
	if d := deleted[0]; !errors.Is(d.Err, kerr.OffsetOutOfRange) {
		t.Errorf("above the end: %+v", d)
	}
	if d := deleted[1]; d.Err != nil || d.LowWatermark != 3 {
		t.Errorf("deleted: %+v", d)
	}
	offsets("start, after that", must(c.ListStartOffsets(ctx, "a"))(t), at(0, -1), at(3, -1))
	offsets("after 0 ms, after that", must(c.ListOffsetsAfterMilli(ctx, 0, "a"))(t), at(0, -1), at(3, 4000))
}
