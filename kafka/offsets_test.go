package kafka_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
)

// The tests of this file ask about partitions that hold nothing; records_test.go
// asks about records.

type offsetAsk struct {
	partition, epoch int32
	at               int64
}

func (c *rawClient) listOffsets(version int16, isolation int8, topic string, asks ...offsetAsk) []string {
	c.t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	to := kmsg.ListOffsetsRequestTopic{Topic: topic}
	for _, a := range asks {
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.CurrentLeaderEpoch, p.Timestamp = a.partition, a.epoch, a.at
		to.Partitions = append(to.Partitions, p)
	}
	req.Topics = append(req.Topics, to)
	var out []string
	for _, p := range c.ask(req, version).(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
		epoch := "no epoch"
		if p.LeaderEpoch >= 0 {
			epoch = "epoch"
		}
		out = append(out, fmt.Sprintf("%d: %s offset %d timestamp %d %s", p.Partition, errcode.Code(p.ErrorCode), p.Offset, p.Timestamp, epoch))
	}
	return out
}

func TestListOffsets(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 2)
	const none = "offset -1 timestamp -1 no epoch"
	for v := int16(1); v <= 11; v++ {
		epoch := " epoch"
		if v < 4 {
			epoch = " no epoch"
		}
		at := func(time int64) string { return c.listOffsets(v, 0, "a", offsetAsk{1, -1, time})[0] }
		for _, time := range []int64{-1, -2} {
			if got := at(time); got != "1: NONE offset 0 timestamp -1"+epoch {
				t.Errorf("version %d, %d: %s", v, time, got)
			}
		}
		if got := at(5); got != "1: NONE "+none {
			t.Errorf("version %d, a time: %s", v, got)
		}
		for time, since := range map[int64]int16{-3: 7, -4: 8, -5: 9, -6: 11, -7: 99} {
			want := "1: NONE " + none
			switch {
			case v < since:
				want = "1: UNSUPPORTED_VERSION " + none
			case time == -4:
				want = "1: NONE offset 0 timestamp -1" + epoch
			}
			if got := at(time); got != want {
				t.Errorf("version %d, %d: %s, want %s", v, time, got, want)
			}
		}
		want := []string{"2: UNKNOWN_TOPIC_OR_PARTITION " + none, "0: INVALID_REQUEST " + none, "-1: UNKNOWN_TOPIC_OR_PARTITION " + none}
		if diff := cmp.Diff(want, c.listOffsets(v, 0, "a", offsetAsk{2, -1, -1}, offsetAsk{0, -1, -1}, offsetAsk{0, -1, -2}, offsetAsk{-1, -1, -1})); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
		for _, name := range []string{"none", "bad name", ""} {
			if got := c.listOffsets(v, 0, name, offsetAsk{0, -1, -1})[0]; got != "0: UNKNOWN_TOPIC_OR_PARTITION "+none {
				t.Errorf("version %d, topic %q: %s", v, name, got)
			}
		}
		if v >= 9 {
			if got := c.listOffsets(v, 0, "a", offsetAsk{9, -1, -5})[0]; got != "9: UNKNOWN_TOPIC_OR_PARTITION "+none {
				t.Errorf("version %d: %s", v, got)
			}
		}
		if v >= 2 {
			if got := c.listOffsets(v, 1, "a", offsetAsk{0, -1, -1})[0]; got != "0: NONE offset 0 timestamp -1"+epoch {
				t.Errorf("version %d, committed: %s", v, got)
			}
			if got := c.listOffsets(v, 7, "a", offsetAsk{0, -1, -1})[0]; got != "0: INVALID_REQUEST "+none {
				t.Errorf("version %d, isolation level 7: %s", v, got)
			}
		}
		if v >= 4 {
			if got := c.listOffsets(v, 0, "a", offsetAsk{0, 0, -1})[0]; got != "0: FENCED_LEADER_EPOCH "+none {
				t.Errorf("version %d, an old epoch: %s", v, got)
			}
			if got := c.listOffsets(v, 0, "a", offsetAsk{0, 1 << 20, -1})[0]; got != "0: UNKNOWN_LEADER_EPOCH "+none {
				t.Errorf("version %d, a later epoch: %s", v, got)
			}
		}
	}
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1)
	epoch := c.metadata(12, false, "a").Topics[0].Partitions[0].LeaderEpoch
	for v := int16(2); v <= 4; v++ {
		ask := func(topic string, partition, current, epoch int32) string {
			req := kmsg.NewPtrOffsetForLeaderEpochRequest()
			req.ReplicaID = -1
			p := kmsg.OffsetForLeaderEpochRequestTopicPartition{Partition: partition, CurrentLeaderEpoch: current, LeaderEpoch: epoch}
			req.Topics = append(req.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: topic, Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}})
			r := c.ask(req, v).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0]
			return fmt.Sprintf("%s epoch %d end %d", errcode.Code(r.ErrorCode), r.LeaderEpoch, r.EndOffset)
		}
		const none = " epoch -1 end -1"
		for _, tt := range []struct{ got, want string }{
			{ask("a", 0, -1, epoch), fmt.Sprintf("NONE epoch %d end 0", epoch)},
			{ask("a", 0, epoch, epoch), fmt.Sprintf("NONE epoch %d end 0", epoch)},
			{ask("a", 0, -1, epoch+1), "NONE" + none},
			{ask("a", 0, -1, -1), "NONE" + none},
			{ask("a", 0, epoch+1, epoch), "UNKNOWN_LEADER_EPOCH" + none},
			{ask("a", 0, epoch-1, epoch), "FENCED_LEADER_EPOCH" + none},
			{ask("a", 1, -1, epoch), "UNKNOWN_TOPIC_OR_PARTITION" + none},
			{ask("none", 0, -1, epoch), "UNKNOWN_TOPIC_OR_PARTITION" + none},
			{ask("bad name", 0, -1, epoch), "UNKNOWN_TOPIC_OR_PARTITION" + none},
		} {
			if tt.got != tt.want {
				t.Errorf("version %d: %s, want %s", v, tt.got, tt.want)
			}
		}
	}
}

func TestDeleteRecords(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1)
	ask, part := c.deleteRecords, deletePart
	for v := range int16(3) {
		for _, tt := range []struct {
			topic string
			parts []kmsg.DeleteRecordsRequestTopicPartition
			want  []string
		}{
			{"a", []kmsg.DeleteRecordsRequestTopicPartition{part(0, -1), part(1, 0), part(-1, 0)}, []string{"0 NONE 0", "1 UNKNOWN_TOPIC_OR_PARTITION -1", "-1 UNKNOWN_TOPIC_OR_PARTITION -1"}},
			{"a", []kmsg.DeleteRecordsRequestTopicPartition{part(0, -2)}, []string{"0 OFFSET_OUT_OF_RANGE -1"}},
			{"a", []kmsg.DeleteRecordsRequestTopicPartition{part(0, 0), part(0, 1)}, []string{"0 OFFSET_OUT_OF_RANGE -1"}},
			{"none", []kmsg.DeleteRecordsRequestTopicPartition{part(0, 0)}, []string{"0 UNKNOWN_TOPIC_OR_PARTITION -1"}},
			{"bad name", []kmsg.DeleteRecordsRequestTopicPartition{part(0, 0)}, []string{"0 UNKNOWN_TOPIC_OR_PARTITION -1"}},
		} {
			if diff := cmp.Diff(tt.want, ask(v, tt.topic, tt.parts...)); diff != "" {
				t.Errorf("version %d: %s", v, diff)
			}
		}
	}
}

func TestInitProducerID(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	seen := make(map[int64]bool)
	ask := func(version int16, transactional *string, id int64, epoch int16) *kmsg.InitProducerIDResponse {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = transactional, 1000, id, epoch
		return c.ask(req, version).(*kmsg.InitProducerIDResponse)
	}
	for v := range int16(6) {
		ids := []int64{-1, -1}
		if v >= 3 {
			ids = append(ids, 0, 4242) // as one that had this id at epoch 7
		}
		for _, id := range ids {
			epoch := int16(7)
			if id < 0 {
				epoch = -1
			}
			r := ask(v, nil, id, epoch)
			if r.ErrorCode != 0 || r.ProducerEpoch != 0 || seen[r.ProducerID] {
				t.Errorf("version %d, id %d: %+v, ids so far %v", v, id, r, seen)
			}
			seen[r.ProducerID] = true
		}
		refused := func(transactional *string, id int64, epoch int16, want errcode.Code) {
			if r := ask(v, transactional, id, epoch); errcode.Code(r.ErrorCode) != want || r.ProducerID != -1 || r.ProducerEpoch != -1 {
				t.Errorf("version %d: %+v, want %s", v, r, want)
			}
		}
		empty, some := "", "x"
		refused(&empty, -1, -1, errcode.InvalidRequest)
		refused(&some, -1, -1, errcode.TransactionalIDAuthorizationFailed)
		if v >= 3 {
			refused(nil, 5, -1, errcode.InvalidRequest)
			refused(nil, -1, 5, errcode.InvalidRequest)
		}
	}
}

func TestDescribeProducers(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1)
	req := kmsg.NewPtrDescribeProducersRequest()
	for _, name := range []string{"a", "none", "bad name"} {
		req.Topics = append(req.Topics, kmsg.DescribeProducersRequestTopic{Topic: name, Partitions: []int32{0, 9}})
	}
	var got []string
	for _, topic := range c.ask(req, 0).(*kmsg.DescribeProducersResponse).Topics {
		for _, p := range topic.Partitions {
			got = append(got, fmt.Sprint(topic.Topic, " ", p.Partition, " ", errcode.Code(p.ErrorCode), " ", len(p.ActiveProducers)))
		}
	}
	want := []string{
		"a 0 NONE 0", "a 9 UNKNOWN_TOPIC_OR_PARTITION 0", "none 0 UNKNOWN_TOPIC_OR_PARTITION 0", "none 9 UNKNOWN_TOPIC_OR_PARTITION 0",
		"bad name 0 INVALID_TOPIC_EXCEPTION 0", "bad name 9 INVALID_TOPIC_EXCEPTION 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDescribeLogDirs(t *testing.T) {
	t.Parallel()
	_, c := admin(t, func(o *node.Options) { o.Dir = "data" })
	c.create("a", 2)
	c.create("b", 1)
	for v := int16(1); v <= 5; v++ {
		ask := func(topics []kmsg.DescribeLogDirsRequestTopic) (out []string) {
			req := kmsg.NewPtrDescribeLogDirsRequest()
			req.Topics = topics
			r := c.ask(req, v).(*kmsg.DescribeLogDirsResponse)
			if r.ErrorCode != 0 || len(r.Dirs) != 1 || r.Dirs[0].ErrorCode != 0 || r.Dirs[0].Dir != "data" || r.Dirs[0].IsCordoned {
				t.Fatalf("version %d: %+v", v, r)
			}
			if sized := r.Dirs[0].TotalBytes > 0 && r.Dirs[0].UsableBytes > 0; sized != (v >= 4) {
				t.Errorf("version %d: a disk of %d bytes, %d usable", v, r.Dirs[0].TotalBytes, r.Dirs[0].UsableBytes)
			}
			for _, topic := range r.Dirs[0].Topics {
				for _, p := range topic.Partitions {
					out = append(out, fmt.Sprint(topic.Topic, " ", p.Partition, " ", p.Size, p.OffsetLag, p.IsFuture))
				}
			}
			return out
		}
		if diff := cmp.Diff([]string{"a 0 0 0 false", "a 1 0 0 false", "b 0 0 0 false"}, ask(nil)); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
		some := []kmsg.DescribeLogDirsRequestTopic{{Topic: "none", Partitions: []int32{0}}, {Topic: "a", Partitions: []int32{9, 1, -1, 1}}}
		if diff := cmp.Diff([]string{"a 1 0 0 false"}, ask(some)); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
		if got := ask([]kmsg.DescribeLogDirsRequestTopic{}); got != nil {
			t.Errorf("version %d, nothing: %v", v, got)
		}
	}
}
