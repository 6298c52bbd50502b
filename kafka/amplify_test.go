package kafka_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// The tests of this file ask for a little in a way that could make the node
// answer with much.

// TestLongNameIsToldShort: a name that no topic can have is not told again for
// each of the partitions that are asked for.
func TestLongNameIsToldShort(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	name := strings.Repeat("n", 30_000)
	const parts, each = 900, 300
	check := func(resp kmsg.Response) {
		t.Helper()
		if n := len(resp.AppendTo(nil)); n > len(name)+parts*each {
			t.Errorf("version %d of %s: %d bytes, %d for each partition", resp.GetVersion(), kmsg.NameForKey(resp.Key()), n, (n-len(name))/parts)
		}
	}
	for _, v := range []int16{8, 9, 12} {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 1000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = name
		for i := range int32(parts) {
			rt.Partitions = append(rt.Partitions, kmsg.ProduceRequestTopicPartition{Partition: i})
		}
		req.Topics = append(req.Topics, rt)
		check(c.ask(req, v))
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic = name
	for i := range int32(parts) {
		rt.Partitions = append(rt.Partitions, i)
	}
	req.Topics = append(req.Topics, rt)
	check(c.ask(req, 0))
}

// TestRepeatedIsAnsweredOnce: what stands in a request a thousand times is
// answered once, where an answer is large or keeps a shard from its work.
func TestRepeatedIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	c.makeTopics("a")
	var again []kmsg.DescribeConfigsRequestResource
	for range 1000 {
		for _, name := range []string{"a", "7"} {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, name
			if name == "7" {
				r.ResourceType = kmsg.ConfigResourceTypeBroker
			}
			again = append(again, r)
		}
	}
	got := c.describe(4, nil, again...)
	if len(got) != 2 || got[0].ResourceName != "a" || got[1].ResourceName != "7" || len(got[0].Configs) == 0 || len(got[1].Configs) == 0 {
		t.Errorf("%d resources are described, want the topic's and the node's", len(got))
	}

	req := kmsg.NewPtrDescribeProducersRequest()
	for i := range int32(1000) {
		rt := kmsg.NewDescribeProducersRequestTopic()
		rt.Topic, rt.Partitions = "a", []int32{0, 0, i % 2}
		req.Topics = append(req.Topics, rt)
	}
	resp := c.ask(req, 0).(*kmsg.DescribeProducersResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 2 {
		t.Errorf("%d topics are described, want one of two partitions", len(resp.Topics))
	}
}

// TestNullConfigsAreToldShort: the names of configs without a value are told, but
// not of any number.
func TestNullConfigsAreToldShort(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	c.makeTopics("a")
	req := kmsg.NewPtrAlterConfigsRequest()
	r := kmsg.NewAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "a"
	names := []string{"retention.ms", strings.Repeat("x", 30_000)}
	for i := range 2000 {
		names = append(names, fmt.Sprint("config", i))
	}
	for _, name := range names {
		r.Configs = append(r.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: name})
	}
	req.Resources = append(req.Resources, r)
	out := c.ask(req, 0).(*kmsg.AlterConfigsResponse).Resources[0]
	if said := message(out.ErrorMessage); out.ErrorCode != int16(errcode.InvalidRequest) || len(said) > 1100 || !strings.Contains(said, "retention.ms") {
		t.Errorf("%v: %d bytes: %.100s", errcode.Code(out.ErrorCode), len(said), said)
	}
}

// TestAnswerAboveAllMemory: a request whose answer would be larger than all the
// memory that there is for answers ends its connection, and the log says why.
func TestAnswerAboveAllMemory(t *testing.T) {
	t.Parallel()
	core := startCore(t, nil)
	c := dialRaw(t, core.addr)
	c.makeTopics("a")
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = "a"
	for i := range int32(140_000) { // 512 bytes are counted for each
		rt.Partitions = append(rt.Partitions, kmsg.OffsetForLeaderEpochRequestTopicPartition{Partition: i, CurrentLeaderEpoch: -1})
	}
	req.Topics = append(req.Topics, rt)
	req.Version = 2
	c.start(req)
	core.log.await(t, "its answer would take more memory than there is", 1)
	var b [1]byte
	if n, err := c.nc.Read(b[:]); n != 0 || err == nil {
		t.Errorf("%d bytes, %v; want the connection's end", n, err)
	}
	c = dialRaw(t, core.addr)
	c.metadata(9, false, "a") // others are served

	many := kmsg.NewPtrDescribeTopicPartitionsRequest()
	for range 270_000 { // 256 bytes are counted for each
		many.Topics = append(many.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: ""})
	}
	c.start(many)
	if n, err := c.nc.Read(b[:]); n != 0 || err == nil {
		t.Fatalf("DescribeTopicPartitions: %d bytes, %v; want the connection's end", n, err)
	}
	core.log.await(t, "its answer would take more memory than there is", 2)
}
