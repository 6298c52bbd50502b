package kafka_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// The tests of this file ask about partitions that hold records.

// batchOf is a batch of a producer with a record for each timestamp, in ms.
func batchOf(t testing.TB, p batch.Producer, timestampsMS ...int64) []byte {
	t.Helper()
	var w batch.Builder
	w.Reset()
	w.SetProducer(p, false)
	for _, ms := range timestampsMS {
		if err := w.Append(ms, nil, []byte("value"), nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mustProduce appends batches to a partition, one request each, and returns how
// many bytes they are.
func (c *rawClient) mustProduce(topic string, index int32, batches ...[]byte) (bytes int64) {
	c.t.Helper()
	for _, b := range batches {
		if p := c.produce(9, nil, topicPart{topic, index, b})[0]; p.ErrorCode != 0 {
			c.t.Fatalf("%v: %s", errcode.Code(p.ErrorCode), message(p.ErrorMessage))
		}
		bytes += int64(len(b))
	}
	return bytes
}

// deleteRecords deletes a partition's records below an offset.
func (c *rawClient) deleteRecords(version int16, topic string, parts ...kmsg.DeleteRecordsRequestTopicPartition) []string {
	c.t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = adminTimeoutMS
	req.Topics = append(req.Topics, kmsg.DeleteRecordsRequestTopic{Topic: topic, Partitions: parts})
	var out []string
	for _, p := range c.ask(req, version).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions {
		out = append(out, fmt.Sprint(p.Partition, " ", errcode.Code(p.ErrorCode), " ", p.LowWatermark))
	}
	return out
}

func deletePart(partition int32, offset int64) kmsg.DeleteRecordsRequestTopicPartition {
	return kmsg.DeleteRecordsRequestTopicPartition{Partition: partition, Offset: offset}
}

// newProducer asks for a producer's id.
func (c *rawClient) newProducer() int64 {
	c.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.ProducerID, req.ProducerEpoch = -1, -1
	r := c.ask(req, 4).(*kmsg.InitProducerIDResponse)
	if r.ErrorCode != 0 {
		c.t.Fatalf("%+v", r)
	}
	return r.ProducerID
}

// TestListOffsetsOfRecords: by kind and by time, before and after the oldest
// records are deleted.
func TestListOffsetsOfRecords(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 2, "retention.ms=-1")
	c.mustProduce("a", 1,
		batchOf(t, batch.NoProducer, 1000, 1001, 1002), batchOf(t, batch.NoProducer, 5000, 3000), batchOf(t, batch.NoProducer, 4000))
	type want struct {
		at, offset, timestamp int64
		since                 int16 // version
	}
	check := func(when string, wants ...want) {
		t.Helper()
		for v := int16(1); v <= 11; v++ {
			for _, w := range wants {
				if v < w.since {
					continue
				}
				suffix := " epoch"
				if v < 4 || w.offset < 0 {
					suffix = " no epoch"
				}
				text := fmt.Sprintf("1: NONE offset %d timestamp %d%s", w.offset, w.timestamp, suffix)
				if got := c.listOffsets(v, 0, "a", offsetAsk{1, -1, w.at})[0]; got != text {
					t.Errorf("%s, version %d, %d: %s, want %s", when, v, w.at, got, text)
				}
			}
		}
	}
	check("all records",
		want{-2, 0, -1, 1}, want{-1, 6, -1, 1}, want{-3, 3, 5000, 7}, want{-4, 0, -1, 8}, want{-5, -1, -1, 9}, want{-6, -1, -1, 11},
		want{0, 0, 1000, 1}, want{1000, 0, 1000, 1}, want{1001, 1, 1001, 1}, want{1002, 2, 1002, 1}, want{1003, 3, 5000, 1},
		want{3000, 3, 5000, 1}, want{5000, 3, 5000, 1}, want{5001, -1, -1, 1})
	if diff := cmp.Diff([]string{"1 NONE 2"}, c.deleteRecords(2, "a", deletePart(1, 2))); diff != "" {
		t.Error(diff)
	}
	check("without the first two",
		want{-2, 2, -1, 1}, want{-1, 6, -1, 1}, want{-3, 3, 5000, 7}, want{-4, 2, -1, 8}, want{0, 2, 1002, 1}, want{1001, 2, 1002, 1}, want{1003, 3, 5000, 1})
	if diff := cmp.Diff([]string{"1 NONE 4"}, c.deleteRecords(2, "a", deletePart(1, 4))); diff != "" {
		t.Error(diff)
	}
	check("without the latest in time",
		want{-2, 4, -1, 1}, want{-4, 4, -1, 8}, want{0, 4, 3000, 1}, want{3001, 5, 4000, 1}, want{-3, 5, 4000, 7})
	for _, p := range c.listOffsets(11, 0, "a", offsetAsk{0, -1, -1}) { // another partition's are its own
		if p != "0: NONE offset 0 timestamp -1 epoch" {
			t.Errorf("the other partition: %s", p)
		}
	}
}

// TestOffsetForLeaderEpochOfRecords: the epoch ends where the log does.
func TestOffsetForLeaderEpochOfRecords(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 1)
	c.mustProduce("a", 0, recordsOf(t, batch.None, "one", "two", "three"))
	epoch := c.metadata(12, false, "a").Topics[0].Partitions[0].LeaderEpoch
	for v := int16(2); v <= 4; v++ {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		p := kmsg.OffsetForLeaderEpochRequestTopicPartition{CurrentLeaderEpoch: epoch, LeaderEpoch: epoch}
		req.Topics = append(req.Topics, kmsg.OffsetForLeaderEpochRequestTopic{Topic: "a", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}})
		r := c.ask(req, v).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0]
		if r.ErrorCode != 0 || r.LeaderEpoch != epoch || r.EndOffset != 3 {
			t.Errorf("version %d: %+v, want the end of epoch %d at 3", v, r, epoch)
		}
	}
}

// TestDeleteRecordsMovesTheStart: the low watermark that is answered is what every
// other answer has for the log's start.
func TestDeleteRecordsMovesTheStart(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	ids := map[string][16]byte{"a": c.create("a", 2)}
	for range 4 {
		c.mustProduce("a", 0, recordsOf(t, batch.None, "one", "two"))
		c.mustProduce("a", 1, recordsOf(t, batch.None, "one"))
	}
	end := int64(8)
	for v := range int16(3) {
		before := 2*int64(v) + 1
		if diff := cmp.Diff([]string{fmt.Sprintf("0 NONE %d", before), "1 OFFSET_OUT_OF_RANGE -1"},
			c.deleteRecords(v, "a", deletePart(0, before), deletePart(1, 5))); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("0 NONE %d", before)}, c.deleteRecords(v, "a", deletePart(0, before-1))); diff != "" {
			t.Errorf("version %d, what is deleted already: %s", v, diff)
		}
		for fv := int16(5); fv <= 18; fv++ {
			r := c.fetched(fetchReq(fv, ids, from{"a", 0, before, nil}, from{"a", 1, 0, nil}))
			if r[0].ErrorCode != 0 || r[0].LogStartOffset != before || r[0].HighWatermark != end || len(r[0].RecordBatches) == 0 || r[1].LogStartOffset != 0 {
				t.Errorf("Fetch version %d from the start %d: %+v", fv, before, r[0])
			}
			if p := c.fetched(fetchReq(fv, ids, from{"a", 0, before - 1, nil}))[0]; p.ErrorCode != int16(errcode.OffsetOutOfRange) || len(p.RecordBatches) > 0 {
				t.Errorf("Fetch version %d below the start: %+v", fv, p)
			}
		}
		for pv := int16(5); pv <= 13; pv++ {
			if p := c.produce(pv, ids, topicPart{"a", 0, recordsOf(t, batch.None, "more")})[0]; p.ErrorCode != 0 || p.BaseOffset != end || p.LogStartOffset != before {
				t.Errorf("Produce version %d: %+v, want offset %d and the start %d", pv, p, end, before)
			}
			end++
			bad := edited(recordsOf(t, batch.None, "bad"), func(b []byte) { b[60] = 2 }) // of two records
			if p := c.produce(pv, ids, topicPart{"a", 0, bad})[0]; p.ErrorCode != int16(errcode.InvalidRecord) || p.BaseOffset != -1 || p.LogStartOffset != before {
				t.Errorf("Produce version %d, refused: %+v, want the start %d", pv, p, before)
			}
		}
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("0 NONE %d", end)}, c.deleteRecords(2, "a", deletePart(0, -1))); diff != "" {
		t.Errorf("all: %s", diff)
	}
	if p := c.fetched(fetchReq(12, ids, from{"a", 0, end, nil}))[0]; p.ErrorCode != 0 || p.LogStartOffset != end || p.HighWatermark != end || len(p.RecordBatches) > 0 {
		t.Errorf("none left: %+v", p)
	}
}

// TestDeleteRecordsWithoutTime: Kafka's leader deletes whatever the time-out is, which
// is for its followers, and clients that do not want to wait for these say 0.
func TestDeleteRecordsWithoutTime(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		c.create("a", 1)
		for i, timeoutMS := range []int32{0, -1, 1} {
			c.mustProduce("a", 0, recordsOf(t, batch.None, "one"))
			let := b.holdSyncs() // it is not done at once
			req := kmsg.NewPtrDeleteRecordsRequest()
			req.Version, req.TimeoutMillis = 2, timeoutMS
			req.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "a", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{deletePart(0, -1)}}}
			c.start(req)
			b.pass(100 * time.Millisecond)
			let()
			got := c.next(c.id, req).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
			if want := int64(i + 1); got.ErrorCode != 0 || got.LowWatermark != want {
				t.Errorf("with a time-out of %d ms: %v, low watermark %d; want %d", timeoutMS, errcode.Code(got.ErrorCode), got.LowWatermark, want)
			}
		}
	})
}

// TestDescribeLogDirsOfRecords: a partition's size is that of its batches.
func TestDescribeLogDirsOfRecords(t *testing.T) {
	t.Parallel()
	_, c := admin(t, nil)
	c.create("a", 3)
	want := []int64{
		c.mustProduce("a", 0, recordsOf(t, batch.None, strings.Repeat("v", 1000)), recordsOf(t, batch.None, "two")), 0,
		c.mustProduce("a", 2, recordsOf(t, batch.Zstd, strings.Repeat("v", 100_000))),
	}
	for v := int16(1); v <= 5; v++ {
		var got []int64
		r := c.ask(kmsg.NewPtrDescribeLogDirsRequest(), v).(*kmsg.DescribeLogDirsResponse)
		for _, p := range r.Dirs[0].Topics[0].Partitions {
			got = append(got, p.Size)
		}
		if !slices.Equal(got, want) {
			t.Errorf("version %d: sizes %d, want %d", v, got, want)
		}
	}
}

// TestDescribeLiveProducers: what a partition remembers of its idempotent
// producers, by id, and of no others, with the newest timestamp of each one's last batch.
func TestDescribeLiveProducers(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		c.create("a", 2)
		first, second := c.newProducer(), c.newProducer()
		const began = 1_700_000_000_000
		records := func(p batch.Producer, ms int64) []byte { return batchOf(t, p, ms, ms-7) }
		c.mustProduce("a", 0, records(batch.Producer{ID: second, Epoch: 3, Sequence: 0}, began), records(batch.NoProducer, began+1))
		b.pass(5 * time.Second)
		c.mustProduce("a", 0, records(batch.Producer{ID: first}, began+9), records(batch.Producer{ID: first, Sequence: 2}, began+5))
		req := kmsg.NewPtrDescribeProducersRequest()
		req.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "a", Partitions: []int32{1, 0}}}
		var got []string
		for _, p := range c.ask(req, 0).(*kmsg.DescribeProducersResponse).Topics[0].Partitions {
			got = append(got, fmt.Sprintf("partition %d: %s, %s", p.Partition, errcode.Code(p.ErrorCode), message(p.ErrorMessage)))
			for _, pr := range p.ActiveProducers {
				got = append(got, fmt.Sprintf("id %d epoch %d sequence %d after %d ms, coordinator %d, transaction at %d",
					pr.ProducerID-first, pr.ProducerEpoch, pr.LastSequence, pr.LastTimestamp-began, pr.CoordinatorEpoch, pr.CurrentTxnStartOffset))
			}
		}
		want := []string{
			"partition 1: NONE, null", "partition 0: NONE, null",
			"id 0 epoch 0 sequence 3 after 5 ms, coordinator -1, transaction at -1",
			fmt.Sprintf("id %d epoch 3 sequence 1 after 0 ms, coordinator -1, transaction at -1", second-first),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// TestProduceIdempotent: a batch that is sent again is answered where it is, one
// that leaves a gap, or is older than what is remembered, is out of order, and
// one of an older epoch is fenced; nothing of those is appended.
func TestProduceIdempotent(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := map[string][16]byte{"a": c.create("a", 11)}
	for v := int16(3); v <= 13; v++ {
		index, id := int32(v-3), c.newProducer()
		end := int64(0)
		send := func(what string, epoch int16, sequence int32, want errcode.Code, wantAt int64) {
			t.Helper()
			b := batchOf(t, batch.Producer{ID: id, Epoch: epoch, Sequence: sequence}, 1_700_000_000_000, 1_700_000_000_001)
			p := c.produce(v, ids, topicPart{"a", index, b})[0]
			if p.ErrorCode != int16(want) || p.BaseOffset != wantAt || v >= 8 && (p.ErrorMessage == nil) != (want == 0) || len(p.ErrorRecords) > 0 {
				t.Errorf("version %d, %s: %v at %d, want %v at %d", v, what, errcode.Code(p.ErrorCode), p.BaseOffset, want, wantAt)
			}
			if want == errcode.None && wantAt == end {
				end += 2
			}
			if got := c.fetched(fetchReq(12, ids, from{"a", index, 0, nil}))[0].HighWatermark; got != end {
				t.Fatalf("version %d, %s: the log ends at %d, want %d", v, what, got, end)
			}
		}
		send("first", 0, 0, 0, 0)
		send("again", 0, 0, 0, 0)
		send("a gap", 0, 4, errcode.OutOfOrderSequenceNumber, -1)
		send("half of one", 0, 1, errcode.OutOfOrderSequenceNumber, -1)
		for i := int32(1); i < 6; i++ {
			send("next", 0, 2*i, 0, int64(2*i))
		}
		for i := int32(1); i < 6; i++ {
			send("any of the last five again", 0, 2*i, 0, int64(2*i))
		}
		send("older than the last five", 0, 0, errcode.OutOfOrderSequenceNumber, -1)
		send("a new epoch begins elsewhere", 1, 2, errcode.OutOfOrderSequenceNumber, -1)
		send("a new epoch", 1, 0, 0, 12)
		send("an old epoch", 0, 12, errcode.InvalidProducerEpoch, -1)
		send("an old epoch, again", 0, 10, errcode.InvalidProducerEpoch, -1)
		send("the new epoch goes on", 1, 2, 0, 14)
	}
}

// TestLogAppendTime: records get the node's time when they are taken, clients are
// told, and a batch that is sent again has the time that it got first.
func TestLogAppendTime(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		c := b.dial("client")
		ids := map[string][16]byte{"a": c.create("a", 1, "message.timestamp.type=LogAppendTime"), "b": c.create("b", 1)}
		id, sequence := c.newProducer(), int32(0)
		var first int64
		for v := int16(3); v <= 13; v++ {
			b.pass(time.Second)
			now := time.Now().UnixMilli()
			records := batchOf(t, batch.Producer{ID: id, Sequence: sequence}, 5, 6) // long ago
			p := c.produce(v, ids, topicPart{"a", 0, records}, topicPart{"b", 0, recordsOf(t, batch.None, "one")})
			if p[0].ErrorCode != 0 || p[0].LogAppendTime != now || p[1].ErrorCode != 0 || p[1].LogAppendTime != -1 {
				t.Fatalf("version %d: %+v, want %d", v, p, now)
			}
			if v == 3 {
				first = now
			}
			b.pass(time.Second)
			if again := c.produce(v, ids, topicPart{"a", 0, records})[0]; again.BaseOffset != p[0].BaseOffset || again.LogAppendTime != now {
				t.Errorf("version %d, again: %+v, want %d at offset %d", v, again, now, p[0].BaseOffset)
			}
			got := c.fetched(fetchReq(12, ids, from{"a", 0, p[0].BaseOffset, nil}))[0].RecordBatches
			h, err := batch.ParseHeader(got)
			if err != nil || batch.CheckCRC(got) != nil || !h.Attributes.LogAppendTime() || h.MaxTimestamp != now {
				t.Errorf("version %d: %v: a batch of %d, log append time %t, want %d", v, err, h.MaxTimestamp, h.Attributes.LogAppendTime(), now)
			}
			sequence += 2
		}
		if got, want := c.listOffsets(11, 0, "a", offsetAsk{0, -1, first + 1})[0], fmt.Sprintf("0: NONE offset 2 timestamp %d epoch", first+2000); got != want {
			t.Errorf("by time: %s, want %s", got, want)
		}
	})
}

// TestLogAppendTimeOfClient: who sets the bit gets its records kept with their own
// timestamps, and is refused where the topic keeps the leader's, as by Kafka.
func TestLogAppendTimeOfClient(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := map[string][16]byte{"own": c.create("own", 1), "leaders": c.create("leaders", 1, "message.timestamp.type=LogAppendTime"),
		"zstd": c.create("zstd", 1, "compression.type=zstd")}
	claims := func() []byte {
		b := batchOf(t, batch.NoProducer, 5, 6)
		batch.SetLogAppendTime(b, 9)
		return b
	}
	for _, v := range []int16{3, 8, 13} {
		p := c.produce(v, ids, topicPart{"own", 0, claims()}, topicPart{"leaders", 0, claims()}, topicPart{"zstd", 0, claims()})
		if p[0].ErrorCode != 0 || p[0].LogAppendTime != -1 || p[2].ErrorCode != 0 || p[2].LogAppendTime != -1 {
			t.Errorf("version %d: %+v, %+v; want both taken, with no time of the leader's", v, p[0], p[2])
		}
		if p[1].ErrorCode != int16(errcode.InvalidTimestamp) || v >= 8 && len(p[1].ErrorRecords) != 2 {
			t.Errorf("version %d, where the leader's time is kept: %+v, want INVALID_TIMESTAMP of two records", v, p[1])
		}
		for _, topic := range []string{"own", "zstd"} {
			got := c.fetched(fetchReq(12, ids, from{topic, 0, 0, nil}))[0].RecordBatches
			h, err := batch.ParseHeader(got)
			if err != nil || batch.CheckCRC(got[:h.Size()]) != nil || h.Attributes.LogAppendTime() || h.MaxTimestamp != 6 {
				t.Errorf("version %d, %s: %v: a batch of %d, log append time %t; want 6 and its own", v, topic, err, h.MaxTimestamp, h.Attributes.LogAppendTime())
			}
		}
	}
}

// TestProduceLargestBatch: max.message.bytes is what a batch may have, to the
// byte, and only the partition whose batch is larger is refused.
func TestProduceLargestBatch(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	fits := recordsOf(t, batch.None, strings.Repeat("v", 5000))
	ids := map[string][16]byte{
		"fits": c.create("fits", 1, fmt.Sprint("max.message.bytes=", len(fits))), "small": c.create("small", 1, fmt.Sprint("max.message.bytes=", len(fits)-1)),
	}
	for i, v := range []int16{3, 8, 9, 13} {
		p := c.produce(v, ids, topicPart{"small", 0, fits}, topicPart{"fits", 0, fits})
		if p[0].ErrorCode != int16(errcode.MessageTooLarge) || p[0].BaseOffset != -1 || v >= 8 && !strings.Contains(message(p[0].ErrorMessage), "max.message.bytes") {
			t.Errorf("version %d, a byte too many: %+v", v, p[0])
		}
		if p[1].ErrorCode != 0 || p[1].BaseOffset != int64(i) {
			t.Errorf("version %d, as large as may be: %+v", v, p[1])
		}
	}
}

// TestFetchSessionChanges: a session's client is told of a new end or start of a
// log though no record comes with it, and of nothing else.
func TestFetchSessionChanges(t *testing.T) {
	t.Parallel()
	for _, v := range []int16{7, 12, 13, 18} {
		c := dialRaw(t, startCore(t, nil).addr)
		ids := c.makeTopics("a", "b")
		one := recordsOf(t, batch.None, "one")
		c.mustProduce("a", 0, one, one)
		c.mustProduce("b", 0, one, one)
		session, epoch := int32(0), int32(0)
		next := func(parts ...from) (got []string) {
			t.Helper()
			req := fetchReq(v, ids, parts...)
			req.SessionID, req.SessionEpoch, req.MaxBytes = session, epoch, int32(len(one)) // one batch, of the first that has any
			r := c.fetch(req)
			if r.ErrorCode != 0 || session != 0 && r.SessionID != session {
				t.Fatalf("version %d: %v, session %d", v, errcode.Code(r.ErrorCode), r.SessionID)
			}
			session, epoch = r.SessionID, epoch+1
			for _, rt := range r.Topics {
				name := rt.Topic
				if v >= 13 {
					name = map[[16]byte]string{ids["a"]: "a", ids["b"]: "b"}[rt.TopicID]
				}
				p := rt.Partitions[0]
				part := fmt.Sprintf("%s [%d, %d) %d", name, p.LogStartOffset, p.HighWatermark, len(p.RecordBatches)/len(one))
				if d := p.DivergingEpoch; d.EndOffset >= 0 {
					part += fmt.Sprint(" parts at ", d.EndOffset)
				}
				got = append(got, part)
			}
			return got
		}
		step := func(what string, want, got []string) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("version %d, %s: %s", v, what, diff)
			}
		}
		step("begun", []string{"a [0, 2) 1", "b [0, 2) 0"}, next(from{"a", 0, 0, nil}, from{"b", 0, 0, nil}))
		step("b, whose turn it is", []string{"b [0, 2) 1"}, next())
		step("a has been read", []string{"b [0, 2) 1"}, next(from{"a", 0, 2, nil}))
		c.mustProduce("a", 0, one)
		c.mustProduce("b", 0, one)
		step("both ends have moved, and there is room for one record", []string{"a [0, 3) 1", "b [0, 3) 0"}, next())
		c.deleteRecords(2, "b", deletePart(0, 1))
		c.deleteRecords(2, "a", deletePart(0, 1))
		step("both starts have moved", []string{"b [1, 3) 0", "a [1, 3) 0"}, next(from{"a", 0, 3, nil}, from{"b", 0, 3, nil}))
		step("nothing has", nil, next())
		if v < 12 {
			continue
		}
		leader := c.metadata(12, false, "a").Topics[0].Partitions[0].LeaderEpoch
		parted := from{"a", 0, 4, func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = leader }}
		step("the client has what the log has not", []string{"a [1, 3) 0 parts at 3"}, next(parted))
		step("and is told so each time", []string{"a [1, 3) 0 parts at 3"}, next())
	}
}

// TestProduceAlone: each partition of a request has an answer of its own, in the
// order of the request, and errors in records are those of their partition.
func TestProduceAlone(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := map[string][16]byte{"a": c.create("a", 4), "small": c.create("small", 1, "max.message.bytes=90")}
	good, id := recordsOf(t, batch.None, "a value that takes some bytes"), c.newProducer()
	c.mustProduce("a", 2, batchOf(t, batch.Producer{ID: id}, 1_700_000_000_000))
	early := edited(batchOf(t, batch.NoProducer, 100, 50, 60), func(b []byte) { binary.BigEndian.PutUint64(b[27:], 30) }) // 30, -20, -10
	parts := []topicPart{
		{"a", 0, good}, {"a", 1, early}, {"small", 0, good}, {"a", 9, good},
		{"a", 2, batchOf(t, batch.Producer{ID: id, Sequence: 7}, 1_700_000_000_000)}, {"a", 3, good},
	}
	for v := int16(8); v <= 13; v++ {
		offset := int64(v) - 8
		var got []string
		for _, p := range c.produce(v, ids, parts...) {
			var records []int32
			for _, r := range p.ErrorRecords {
				records = append(records, r.RelativeOffset)
			}
			got = append(got, fmt.Sprint(p.Partition, " ", errcode.Code(p.ErrorCode), " ", p.BaseOffset, " ", records))
		}
		want := []string{
			fmt.Sprint("0 NONE ", offset, " []"), "1 INVALID_TIMESTAMP -1 [1 2]", "0 MESSAGE_TOO_LARGE -1 []", "9 UNKNOWN_TOPIC_OR_PARTITION -1 []",
			"2 OUT_OF_ORDER_SEQUENCE_NUMBER -1 []", fmt.Sprint("3 NONE ", offset, " []"),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("version %d: %s", v, diff)
		}
	}
}
