package kafka_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// recordsOf is a batch of values, whose keys are their places.
func recordsOf(t testing.TB, codec batch.Codec, values ...string) []byte {
	t.Helper()
	var w batch.Builder
	w.Reset()
	for i, v := range values {
		if err := w.Append(1_700_000_000_000+int64(i), fmt.Appendf(nil, "k%d", i), []byte(v), nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Build(nil, codec, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edited is b with its header changed, and the checksum that follows from it.
func edited(b []byte, edit func(b []byte)) []byte {
	b = bytes.Clone(b)
	edit(b)
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// topicPart is one partition of a Produce.
type topicPart struct {
	topic   string
	index   int32
	records []byte
}

// produceReq is a Produce of parts, each in a topic's entry of its own. ids are
// the topics', for versions that name them so.
func produceReq(version int16, acks int16, ids map[string][16]byte, parts ...topicPart) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, acks, 30_000
	for _, p := range parts {
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = p.topic, ids[p.topic]
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p.index, p.records
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// produce sends parts and returns their answers.
func (c *rawClient) produce(version int16, ids map[string][16]byte, parts ...topicPart) (out []kmsg.ProduceResponseTopicPartition) {
	c.t.Helper()
	r := c.ask(produceReq(version, -1, ids, parts...), version).(*kmsg.ProduceResponse)
	for i, rt := range r.Topics {
		if version < 13 && rt.Topic != parts[i].topic || version >= 13 && rt.TopicID != ids[parts[i].topic] {
			c.t.Errorf("version %d: topic %d is %q %x", version, i, rt.Topic, rt.TopicID)
		}
		out = append(out, rt.Partitions...)
	}
	if len(out) != len(parts) || r.ThrottleMillis != 0 {
		c.t.Fatalf("version %d: %d answers to %d parts, throttled %d", version, len(out), len(parts), r.ThrottleMillis)
	}
	return out
}

// makeTopics makes topics of one partition, and returns their ids.
func (c *rawClient) makeTopics(names ...string) map[string][16]byte {
	c.t.Helper()
	ids := make(map[string][16]byte)
	for _, rt := range c.metadata(13, true, names...).Topics {
		if rt.ErrorCode != 0 {
			c.t.Fatalf("%+v", rt)
		}
		ids[*rt.Topic] = rt.TopicID
	}
	return ids
}

// TestProduceVersions: every version appends, to two topics at once, and says
// where.
func TestProduceVersions(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a", "b")
	next := int64(0)
	for v := int16(3); v <= 13; v++ {
		codec := batch.Codec(int(v) % 4)
		r := c.produce(v, ids, topicPart{"a", 0, recordsOf(t, codec, "one", "two")}, topicPart{"b", 0, recordsOf(t, batch.None, "three")})
		for i, p := range r {
			wantStart := int64(0)
			if v < 5 {
				wantStart = -1
			}
			if p.ErrorCode != 0 || p.BaseOffset != next*int64(2-i) || p.LogAppendTime != -1 || p.LogStartOffset != wantStart || p.ErrorMessage != nil || len(p.ErrorRecords) > 0 {
				t.Errorf("version %d: part %d: %+v, want offset %d", v, i, p, next*int64(2-i))
			}
		}
		next++
	}
}

// TestProduceRefused: each bad batch has Kafka's code, nothing of it is appended,
// and a good one beside it is.
func TestProduceRefused(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a", "good")
	good := recordsOf(t, batch.None, "one", "two")
	attributes := func(bits uint16) []byte {
		return edited(good, func(b []byte) { binary.BigEndian.PutUint16(b[21:], bits) })
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	old := append(make([]byte, 16), good[16:]...)
	copy(old, good[:16])
	old[16] = 1
	tests := []struct {
		name    string
		part    topicPart
		version int16 // 0: any
		want    errcode.Code
	}{
		{"no topic", topicPart{"missing", 0, good}, 12, errcode.UnknownTopicOrPartition},
		{"no topic id", topicPart{"missing", 0, good}, 13, errcode.UnknownTopicID},
		{"no name of a topic", topicPart{"not a name", 0, good}, 12, errcode.UnknownTopicOrPartition},
		{"no partition", topicPart{"a", 1, good}, 0, errcode.UnknownTopicOrPartition},
		{"negative partition", topicPart{"a", -1, good}, 0, errcode.UnknownTopicOrPartition},
		{"null", topicPart{"a", 0, nil}, 0, errcode.InvalidRecord},
		{"empty", topicPart{"a", 0, []byte{}}, 0, errcode.InvalidRecord},
		{"cut off", topicPart{"a", 0, good[:len(good)-1]}, 0, errcode.InvalidRecord},
		{"two batches", topicPart{"a", 0, append(bytes.Clone(good), good...)}, 0, errcode.InvalidRecord},
		{"format 1", topicPart{"a", 0, old}, 0, errcode.InvalidRecord},
		{"format 3", topicPart{"a", 0, edited(good, func(b []byte) { b[16] = 3 })}, 0, errcode.CorruptMessage},
		{"length too short", topicPart{"a", 0, edited(good, func(b []byte) { b[11] = 12 })}, 0, errcode.CorruptMessage},
		{"checksum", topicPart{"a", 0, flipped}, 0, errcode.CorruptMessage},
		{"control", topicPart{"a", 0, attributes(0x20)}, 0, errcode.InvalidRecord},
		{"transactional", topicPart{"a", 0, attributes(0x10)}, 0, errcode.TransactionalIDAuthorizationFailed},
		{"unknown codec", topicPart{"a", 0, attributes(5)}, 0, errcode.UnsupportedCompressionType},
		{"not what the codec says", topicPart{"a", 0, attributes(2)}, 0, errcode.CorruptMessage},
		{"zstd in an old version", topicPart{"a", 0, recordsOf(t, batch.Zstd, "one")}, 6, errcode.UnsupportedCompressionType},
		{"base offset", topicPart{"a", 0, edited(good, func(b []byte) { b[7] = 1 })}, 0, errcode.InvalidRecord},
		{"count", topicPart{"a", 0, edited(good, func(b []byte) { b[60] = 3 })}, 0, errcode.InvalidRecord},
		{"too large", topicPart{"a", 0, recordsOf(t, batch.None, strings.Repeat("x", 2<<20))}, 0, errcode.MessageTooLarge},
	}
	appended := int64(0)
	for _, tt := range tests {
		for v := int16(3); v <= 13; v++ {
			if tt.version != 0 && tt.version != v {
				continue
			}
			r := c.produce(v, ids, tt.part, topicPart{"good", 0, recordsOf(t, batch.None, "fine")})
			if p := r[0]; p.ErrorCode != int16(tt.want) || p.BaseOffset != -1 || p.LogAppendTime != -1 || (p.ErrorMessage != nil) != (v >= 8) {
				t.Errorf("%s, version %d: %v (%+v), want %v", tt.name, v, errcode.Code(p.ErrorCode), p, tt.want)
			}
			if r[1].ErrorCode != 0 || r[1].BaseOffset != appended {
				t.Fatalf("%s, version %d: beside it: %+v", tt.name, v, r[1])
			}
			appended++
		}
	}
	if r := c.produce(9, ids, topicPart{"a", 0, good}); r[0].ErrorCode != 0 || r[0].BaseOffset != 0 {
		t.Errorf("something of them was appended: %+v", r[0])
	}
}

// TestProduceRecordErrors: the records that a batch is refused for are named.
func TestProduceRecordErrors(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a")
	// Records 1 and 2 are before 1970.
	var w batch.Builder
	w.Reset()
	for _, ms := range []int64{100, 50, 60, 100} {
		if err := w.Append(ms, nil, []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	early := edited(b, func(b []byte) { binary.BigEndian.PutUint64(b[27:], 30) })
	for v := int16(3); v <= 13; v++ {
		p := c.produce(v, ids, topicPart{"a", 0, early})[0]
		if p.ErrorCode != int16(errcode.InvalidTimestamp) {
			t.Fatalf("version %d: %+v", v, p)
		}
		if v < 8 {
			continue
		}
		if len(p.ErrorRecords) != 2 || p.ErrorRecords[0].RelativeOffset != 1 || p.ErrorRecords[1].RelativeOffset != 2 ||
			p.ErrorRecords[0].ErrorMessage == nil || !strings.Contains(*p.ErrorRecords[0].ErrorMessage, "timestamp") || p.ErrorMessage == nil {
			t.Errorf("version %d: %+v", v, p)
		}
	}
}

// TestProducePartitionTwice: of a partition that stands more than once in a
// request, what it has last is appended, and answered once, wherever it stands.
func TestProducePartitionTwice(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := map[string][16]byte{"a": c.create("a", 3), "b": c.create("b", 3)}
	part := func(topic string, index int32, values ...string) topicPart {
		return topicPart{topic, index, recordsOf(t, batch.None, values...)}
	}
	wrong := topicPart{"a", 1, []byte("no batch")}
	tests := []struct {
		name  string
		parts []topicPart
		want  string // topic, partition, and how many records it then has more
	}{
		{"beside each other", []topicPart{part("a", 0, "x", "x", "x"), part("a", 0, "y"), part("a", 1, "z")}, "a0+1 a1+1"},
		{"apart", []topicPart{part("a", 0, "x", "x", "x"), part("b", 0, "b"), part("a", 1, "z"), part("a", 0, "y")}, "b0+1 a1+1 a0+1"},
		{"thrice", []topicPart{part("b", 2, "x"), part("b", 2, "x", "x"), part("b", 2, "y", "y", "y")}, "b2+3"},
		{"the one that is dropped is no batch", []topicPart{wrong, part("a", 1, "z")}, "a1+1"},
		{"the same number in two topics", []topicPart{part("a", 2, "x"), part("b", 2, "x")}, "a2+1 b2+1"},
	}
	has := make(map[string]int64)
	for v := int16(3); v <= 13; v++ {
		for _, tt := range tests {
			got := ""
			for _, rt := range c.ask(produceReq(v, -1, ids, tt.parts...), v).(*kmsg.ProduceResponse).Topics {
				topic := rt.Topic
				if v >= 13 {
					topic = map[[16]byte]string{ids["a"]: "a", ids["b"]: "b"}[rt.TopicID]
				}
				for _, p := range rt.Partitions {
					r := c.fetched(fetchReq(11, ids, from{topic, p.Partition, 0, nil}))
					name := fmt.Sprint(topic, p.Partition)
					if p.ErrorCode != 0 || p.BaseOffset != has[name] {
						t.Errorf("version %d, %s: %s: %v at %d, want %d", v, tt.name, name, errcode.Code(p.ErrorCode), p.BaseOffset, has[name])
					}
					got += fmt.Sprintf(" %s+%d", name, r[0].HighWatermark-has[name])
					has[name] = r[0].HighWatermark
				}
				if len(rt.Partitions) == 0 {
					t.Errorf("version %d, %s: topic %s without partitions", v, tt.name, topic)
				}
			}
			if got = strings.TrimPrefix(got, " "); got != tt.want {
				t.Errorf("version %d, %s: %q, want %q", v, tt.name, got, tt.want)
			}
		}
	}
}

// TestProduceAcks: 1 is served as all, others are refused, and without
// acknowledgement only a failure is seen, as the connection's end.
func TestProduceAcks(t *testing.T) {
	t.Parallel()
	n := startCore(t, nil)
	c := dialRaw(t, n.addr)
	ids := c.makeTopics("a")
	good := topicPart{"a", 0, recordsOf(t, batch.None, "one")}
	for _, acks := range []int16{2, -2, 32767} {
		r := c.ask(produceReq(9, acks, ids, good), 9).(*kmsg.ProduceResponse)
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != int16(errcode.InvalidRequiredAcks) || p.BaseOffset != -1 {
			t.Errorf("acks %d: %+v", acks, p)
		}
	}
	if p := c.ask(produceReq(9, 1, ids, good), 9).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 0 {
		t.Errorf("acks 1: %+v", p)
	}
	for i := range int64(3) {
		c.start(produceReq(9, 0, ids, good))
		if p := c.produce(9, ids, good)[0]; p.ErrorCode != 0 || p.BaseOffset != 2+2*i {
			t.Errorf("after acks 0: %+v", p)
		}
	}
	c.start(produceReq(9, 0, ids, topicPart{"missing", 0, good.records}))
	if n, err := c.nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after acks 0 to a topic that is missing: %d bytes, %v", n, err)
	}
	n.log.await(t, "UNKNOWN_TOPIC_OR_PARTITION", 1)
}

func TestProduceTransactional(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a")
	for v := int16(3); v <= 13; v++ {
		req := produceReq(v, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one")})
		req.TransactionID = kmsg.StringPtr("t")
		p := c.ask(req, v).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if p.ErrorCode != int16(errcode.TransactionalIDAuthorizationFailed) || v >= 8 && !strings.Contains(*p.ErrorMessage, "transactions are not served") {
			t.Errorf("version %d: %+v", v, p)
		}
	}
}

// TestProducePipelined: requests of one connection take effect in their order,
// though none waits for the one before it.
func TestProducePipelined(t *testing.T) {
	t.Parallel()
	c := dialRaw(t, startCore(t, nil).addr)
	ids := c.makeTopics("a")
	const n = 50
	first := c.id + 1
	go func() {
		var all []byte
		for i := range int32(n) {
			all = append(all, kmsg.NewRequestFormatter().AppendRequest(nil, produceReq(9, -1, ids, topicPart{"a", 0, recordsOf(t, batch.None, "one", "two")}), first+i)...)
		}
		_, _ = c.nc.Write(all)
	}()
	for i := range int64(n) {
		c.id = first + int32(i)
		r := kmsg.NewPtrProduceResponse()
		r.Version = 9
		c.answer(r, true)
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.BaseOffset != 2*i {
			t.Fatalf("request %d: %+v", i, p)
		}
	}
}
