package kafka_test

import (
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
)

// allocated returns what the process allocates while a function runs, in bytes.
func allocated(do func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// TestLargeTopicCostsWhatIsAsked: a request that needs little of a topic does not
// cost more when the topic has many partitions, of which a list takes 80 bytes
// each. It runs alone, as it measures what the process allocates.
func TestLargeTopicCostsWhatIsAsked(t *testing.T) {
	const partitions, most = 10_000, 400 << 10 // the node does other things meanwhile
	c := dialRaw(t, startCore(t, func(o *node.Options) { o.MemoryBytes = 1 << 30 }).addr)
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 60_000
	create.Topics = append(create.Topics, newTopic("large", partitions))
	made := c.ask(create, 7).(*kmsg.CreateTopicsResponse).Topics[0]
	if made.ErrorCode != 0 {
		t.Fatalf("the creation: %v, %s", errcode.Code(made.ErrorCode), message(made.ErrorMessage))
	}
	for _, tt := range []struct {
		name string
		want errcode.Code
		ask  func() int16
	}{
		{"a topic that has as many partitions", errcode.InvalidPartitions, func() int16 {
			req := kmsg.NewPtrCreatePartitionsRequest()
			req.TimeoutMillis = 60_000
			req.Topics = append(req.Topics, kmsg.CreatePartitionsRequestTopic{Topic: "large", Count: partitions})
			return c.ask(req, 3).(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode
		}},
		{"its configs", errcode.None, func() int16 {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "large"
			return c.describe(4, nil, r)[0].ErrorCode
		}},
		{"no change of them", errcode.None, func() int16 {
			req := kmsg.NewPtrIncrementalAlterConfigsRequest()
			r := kmsg.NewIncrementalAlterConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "large"
			req.Resources = append(req.Resources, r)
			return c.ask(req, 1).(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode
		}},
		{"the first of its partitions", errcode.None, func() int16 {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			req.ResponsePartitionLimit = 1
			resp := c.ask(req, 0).(*kmsg.DescribeTopicPartitionsResponse)
			if topic := &resp.Topics[0]; len(topic.Partitions) != 1 || topic.Partitions[0].LeaderID != 7 || resp.NextCursor == nil {
				t.Errorf("the first partition: %+v", resp)
			}
			return resp.Topics[0].ErrorCode
		}},
		{"one of its directories", errcode.None, func() int16 {
			req := kmsg.NewPtrDescribeLogDirsRequest()
			req.Topics = append(req.Topics, kmsg.DescribeLogDirsRequestTopic{Topic: "large", Partitions: []int32{partitions - 1}})
			resp := c.ask(req, 4).(*kmsg.DescribeLogDirsResponse)
			if n := len(resp.Dirs[0].Topics[0].Partitions); n != 1 {
				t.Errorf("%d directories", n)
			}
			return resp.Dirs[0].ErrorCode
		}},
		{"a deletion by an id that is not there", errcode.UnknownTopicID, func() int16 {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TimeoutMillis = 60_000
			req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{TopicID: [16]byte{1}})
			return c.ask(req, 6).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode
		}},
	} {
		var got int16
		if n := allocated(func() { got = tt.ask() }); n > most || errcode.Code(got) != tt.want {
			t.Errorf("%s: %v, want %v, for %d bytes, want at most %d", tt.name, errcode.Code(got), tt.want, n, most)
		} else {
			t.Logf("%s: %d bytes", tt.name, n)
		}
	}
	// What is asked for in full is made once, and read once by this client.
	const each = 1500
	var known []kmsg.MetadataResponseTopicPartition
	if n := allocated(func() { known = c.metadata(12, false, "large").Topics[0].Partitions }); n > partitions*each || len(known) != partitions {
		t.Errorf("%d partitions in Metadata, for %d bytes, want at most %d each", len(known), n, each)
	} else {
		t.Logf("Metadata: %d bytes", n)
	}
	var dirs *kmsg.DescribeLogDirsResponse
	n := allocated(func() {
		all := kmsg.NewPtrDescribeLogDirsRequest()
		all.Topics = nil
		dirs = c.ask(all, 4).(*kmsg.DescribeLogDirsResponse)
	})
	if got := dirs.Dirs[0].Topics[0].Partitions; n > partitions*each || len(got) != partitions {
		t.Errorf("%d partitions in DescribeLogDirs, for %d bytes, want at most %d each", len(got), n, each)
	} else {
		t.Logf("DescribeLogDirs: %d bytes", n)
	}
}
