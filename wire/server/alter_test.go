package server_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// refused sends a request and wants a code for the whole of it.
func (p *peer) refused(want errcode.Code, kind frame.Kind, m proto.Message) {
	p.t.Helper()
	p.start(kind, m)
	if _, e := p.answer(new(pb.Pong)); e == nil || e.Code != int32(want) {
		p.t.Errorf("%v %v answered by %v, want %v", kind, m, e, want)
	}
}

func configValue(configs []*pb.Config, name string) (string, pb.ConfigSource) {
	i := slices.IndexFunc(configs, func(c *pb.Config) bool { return c.Name == name })
	if i < 0 {
		return "", -1
	}
	return configs[i].Value, configs[i].Source
}

func TestAlterTopic(t *testing.T) {
	_, addr := startNode(t, 0)
	p := connect(t, addr)
	id := p.create("a", 1)
	alter := func(m *pb.AlterTopicRequest) []*pb.Config {
		t.Helper()
		m.TopicId = id
		resp := new(pb.AlterTopicResponse)
		p.ask(frame.KindAlterTopic, m, resp)
		return resp.Configs
	}
	want := func(configs []*pb.Config, name, value string, source pb.ConfigSource) {
		t.Helper()
		if v, s := configValue(configs, name); v != value || s != source {
			t.Errorf("%s is %q of %v, want %q of %v", name, v, s, value, source)
		}
	}
	const set, isDefault = pb.ConfigSource_CONFIG_SOURCE_TOPIC, pb.ConfigSource_CONFIG_SOURCE_DEFAULT
	described := func() []*pb.Config {
		t.Helper()
		d := new(pb.DescribeTopicResponse)
		p.ask(frame.KindDescribeTopic, &pb.DescribeTopicRequest{TopicId: id}, d)
		return d.Configs
	}

	want(described(), "retention.ms", "604800000", isDefault)
	retention := []*pb.Config{{Name: "retention.ms", Value: "1000"}}
	want(alter(&pb.AlterTopicRequest{Set: retention, ValidateOnly: true}), "retention.ms", "1000", set)
	want(described(), "retention.ms", "604800000", isDefault)
	alter(&pb.AlterTopicRequest{Set: retention})
	// A change of one leaves the other.
	alter(&pb.AlterTopicRequest{Set: []*pb.Config{{Name: "message.timestamp.type", Value: "LogAppendTime"}}})
	want(described(), "retention.ms", "1000", set)
	want(described(), "message.timestamp.type", "LogAppendTime", set)
	want(alter(&pb.AlterTopicRequest{Delete: []string{"retention.ms"}}), "retention.ms", "604800000", isDefault)
	want(described(), "message.timestamp.type", "LogAppendTime", set)

	for _, bad := range []struct {
		m    *pb.AlterTopicRequest
		code errcode.Code
	}{
		{&pb.AlterTopicRequest{TopicId: id}, errcode.InvalidRequest},
		{&pb.AlterTopicRequest{TopicId: id, Set: retention, Delete: []string{"retention.ms"}}, errcode.InvalidRequest},
		{&pb.AlterTopicRequest{TopicId: id, Set: append(retention, retention...)}, errcode.InvalidRequest},
		{&pb.AlterTopicRequest{TopicId: id, Delete: []string{"retention.sm"}}, errcode.InvalidConfig},
		{&pb.AlterTopicRequest{TopicId: id, Set: []*pb.Config{{Name: "cleanup.policy", Value: "compact"}}}, errcode.InvalidConfig},
		{&pb.AlterTopicRequest{TopicId: id, Set: []*pb.Config{{Name: "max.message.bytes", Value: "16777216"}}}, errcode.InvalidConfig},
		{&pb.AlterTopicRequest{Name: "none", Set: retention}, errcode.UnknownTopicOrPartition},
		{&pb.AlterTopicRequest{Set: retention}, errcode.InvalidRequest},
	} {
		p.refused(bad.code, frame.KindAlterTopic, bad.m)
	}
	want(described(), "retention.ms", "604800000", isDefault)
}

func TestAddPartitions(t *testing.T) {
	_, addr := startNode(t, 0)
	p := connect(t, addr)
	id := p.create("a", 2)
	resp := new(pb.AddPartitionsResponse)
	p.ask(frame.KindAddPartitions, &pb.AddPartitionsRequest{TopicId: id, Total: 5, ValidateOnly: true}, resp)
	leaders := func() int {
		t.Helper()
		m := new(pb.MetadataResponse)
		p.ask(frame.KindMetadata, &pb.MetadataRequest{Names: []string{"a"}}, m)
		return len(m.Topics[0].Leaders)
	}
	if resp.Partitions != 5 || leaders() != 2 {
		t.Errorf("after a validation of %d partitions there are %d", resp.Partitions, leaders())
	}
	p.ask(frame.KindAddPartitions, &pb.AddPartitionsRequest{TopicId: id, Total: 5}, resp)
	if resp.Partitions != 5 || leaders() != 5 {
		t.Errorf("answered %d, there are %d", resp.Partitions, leaders())
	}
	// The new ones take records at once.
	b := build(t, []byte("v"))
	produced := new(pb.ProduceResponse)
	p.ask(frame.KindProduce, &pb.ProduceRequest{Parts: []*pb.ProducePart{{TopicId: id, Partition: 4, Length: uint32(len(b))}}}, produced, b)
	if e := produced.Results[0].Error; e != nil {
		t.Error(e)
	}
	for _, total := range []int32{5, 1, 0, -1, 100_001} {
		p.refused(errcode.InvalidPartitions, frame.KindAddPartitions, &pb.AddPartitionsRequest{TopicId: id, Total: total})
	}
}

// batchAt is a batch of one record for each timestamp.
func batchAt(t *testing.T, codec batch.Codec, timestampsMS ...int64) []byte {
	t.Helper()
	var b batch.Builder
	b.Reset()
	for _, ts := range timestampsMS {
		if err := b.Append(ts, nil, []byte("value"), nil); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build(nil, codec, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDeleteRecordsAndOffsetsByTime(t *testing.T) {
	_, addr := startNode(t, 0)
	p := connect(t, addr)
	id := p.create("a", 2)
	batches := [][]byte{batchAt(t, batch.None, 100, 300, 200), batchAt(t, batch.Zstd, 150, 900, 400), batchAt(t, batch.None, 500)}
	for _, b := range batches {
		p.ask(frame.KindProduce, produceRequest(id, b), new(pb.ProduceResponse), b)
	}
	const byTime, byMax = pb.OffsetAt_OFFSET_AT_TIMESTAMP, pb.OffsetAt_OFFSET_AT_MAX_TIMESTAMP
	lookUp := func(at pb.OffsetAt, ts, offset, found int64) {
		t.Helper()
		resp := new(pb.ListOffsetsResponse)
		p.ask(frame.KindListOffsets, &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{
			{TopicId: id, At: at, TimestampMs: ts, LeaderEpoch: -1}, {TopicId: id, Partition: 1, At: at, TimestampMs: ts, LeaderEpoch: -1}}}, resp)
		if r := resp.Results[0]; r.Error != nil || r.Offset != offset || r.TimestampMs != found || (r.LeaderEpoch < 0) != (offset < 0) {
			t.Errorf("%v %d = %v, want offset %d of %d", at, ts, r, offset, found)
		}
		if r := resp.Results[1]; r.Error != nil || r.Offset != -1 || r.TimestampMs != -1 || r.LeaderEpoch != -1 {
			t.Errorf("%v %d in an empty partition = %v", at, ts, r)
		}
	}
	bytes := int64(128) // a segment's header, and the batches
	for _, b := range batches {
		bytes += int64(len(b))
	}
	for range 2 { // from the tail, or what the flusher has written by now, and then from files
		lookUp(byTime, 0, 0, 100)
		lookUp(byTime, 101, 1, 300)
		lookUp(byTime, 301, 4, 900)
		lookUp(byTime, 901, -1, -1)
		lookUp(byMax, 0, 4, 900)
		for d := new(pb.DescribeTopicResponse); d.Partitions == nil || d.Partitions[0].SizeBytes < bytes; {
			p.ask(frame.KindDescribeTopic, &pb.DescribeTopicRequest{TopicId: id}, d)
		}
	}
	trim := func(before, start int64, code errcode.Code) {
		t.Helper()
		resp := new(pb.DeleteRecordsResponse)
		p.ask(frame.KindDeleteRecords, &pb.DeleteRecordsRequest{Parts: []*pb.DeleteRecordsPart{{TopicId: id, BeforeOffset: before}}}, resp)
		if r := resp.Results[0]; r.LogStartOffset != start || r.Error.GetCode() != int32(code) {
			t.Errorf("DeleteRecords before %d = %v, want start %d, %v", before, r, start, code)
		}
	}
	trim(8, -1, errcode.OffsetOutOfRange)
	trim(-2, -1, errcode.OffsetOutOfRange)
	trim(2, 2, errcode.None)
	trim(1, 2, errcode.None)
	lookUp(byTime, 0, 2, 200)
	trim(5, 5, errcode.None) // in the middle of the second batch, above its greatest timestamp
	lookUp(byTime, 0, 5, 400)
	lookUp(byTime, 401, 6, 500)
	lookUp(byMax, 0, 6, 500)
	trim(-1, 7, errcode.None)
	lookUp(byMax, 0, -1, -1)
	fetched := new(pb.FetchResponse)
	p.ask(frame.KindFetch, &pb.FetchRequest{Parts: []*pb.FetchPart{{TopicId: id, Offset: 3, LeaderEpoch: -1}}}, fetched)
	if code := fetched.Results[0].Error.GetCode(); code != int32(errcode.OffsetOutOfRange) {
		t.Errorf("a fetch of a deleted record is answered by %d", code)
	}

	p.refused(errcode.InvalidRequest, frame.KindDeleteRecords, &pb.DeleteRecordsRequest{})
	p.refused(errcode.InvalidRequest, frame.KindDeleteRecords, &pb.DeleteRecordsRequest{
		Parts: []*pb.DeleteRecordsPart{{TopicId: id}, {TopicId: id}}})
	p.refused(errcode.InvalidRequest, frame.KindListOffsets, &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: id, At: 9}}})
	resp := new(pb.ListOffsetsResponse)
	p.ask(frame.KindListOffsets, &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: id, At: byTime, TimestampMs: -1, LeaderEpoch: -1}}}, resp)
	if code := resp.Results[0].Error.GetCode(); code != int32(errcode.InvalidRequest) {
		t.Errorf("timestamp -1 is answered by %d", code)
	}
}
