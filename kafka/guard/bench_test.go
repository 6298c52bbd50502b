package guard

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// bodies are requests as clients send them.
func bodies() map[string]kmsg.Request {
	produce := kmsg.NewPtrProduceRequest()
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	for i := range 4 {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = int32(i), bytes.Repeat([]byte{0xa5}, 16<<10)
		topic.Partitions = append(topic.Partitions, p)
	}
	produce.Topics = append(produce.Topics, topic)

	fetch := kmsg.NewPtrFetchRequest()
	commit := kmsg.NewPtrOffsetCommitRequest()
	create := kmsg.NewPtrCreateTopicsRequest()
	for i := range 10 {
		ft := kmsg.NewFetchRequestTopic()
		ft.TopicID[0] = byte(i)
		ct := kmsg.NewOffsetCommitRequestTopic()
		for n := range 10 {
			fp := kmsg.NewFetchRequestTopicPartition()
			fp.Partition = int32(n)
			ft.Partitions = append(ft.Partitions, fp)
			cp := kmsg.NewOffsetCommitRequestTopicPartition()
			cp.Partition, cp.Offset = int32(n), 1234
			ct.Partitions = append(ct.Partitions, cp)
		}
		fetch.Topics = append(fetch.Topics, ft)
		commit.Topics = append(commit.Topics, ct)
		nt := kmsg.NewCreateTopicsRequestTopic()
		nt.Topic = fmt.Sprintf("topic-%d", i)
		for _, name := range []string{"retention.ms", "segment.bytes", "cleanup.policy"} {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = name, kmsg.StringPtr("86400000")
			nt.Configs = append(nt.Configs, c)
		}
		create.Topics = append(create.Topics, nt)
	}
	return map[string]kmsg.Request{
		"produce": produce, "fetch": fetch, "offsetCommit": commit, "createTopics": create,
		"apiVersions": kmsg.NewPtrApiVersionsRequest(),
	}
}

// BenchmarkCheck gives the rate in MB/s of the body, and the time per request,
// of Check and of what it guards.
func BenchmarkCheck(b *testing.B) {
	for name, req := range bodies() {
		req.SetVersion(min(req.MaxVersion(), 13))
		body := req.AppendTo(nil)
		key, version := req.Key(), req.GetVersion()
		limits := LimitsFor(len(body))
		b.Run(fmt.Sprintf("check/%s/body=%dB", name, len(body)), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Check(key, version, body, limits); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("kmsg/%s/body=%dB", name, len(body)), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			into := reflect.New(reflect.TypeOf(req).Elem()).Interface().(kmsg.Request)
			for b.Loop() {
				reflect.ValueOf(into).Elem().SetZero()
				into.SetVersion(version)
				if err := into.ReadFrom(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
