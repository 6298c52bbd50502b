package server_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestDocumentedViolations breaks, one by one, the rules that docs/protocol.md
// gives for the fields of a request, and wants the code that it says. where is
// a piece of the page: what is tested stays written there.
func TestDocumentedViolations(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ToLower(string(raw))
	_, addr := startNode(t, 64<<20)
	p := connect(t, addr)
	topic := p.create("t", 1)
	good := build(t, []byte("v"))
	p.produce(topic, 0, good)
	short := topic[:15]
	produce := func(edit func(*pb.ProducePart)) *pb.ProduceRequest {
		m := produceRequest(topic, good)
		edit(m.Parts[0])
		return m
	}
	fetch := func(edit func(*pb.FetchPart)) *pb.FetchRequest {
		m := fetchRequest(topic, 0, 1)
		edit(m.Parts[0])
		return m
	}
	listed := func(edit func(*pb.ListOffsetsPart)) *pb.ListOffsetsRequest {
		part := &pb.ListOffsetsPart{TopicId: topic, LeaderEpoch: -1}
		edit(part)
		return &pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{part}}
	}
	subscribe := func(edit func(*pb.StreamPart)) *pb.SubscribeRequest {
		part := streamPart(topic, 0, 0, 1)
		edit(part)
		return &pb.SubscribeRequest{Stream: 9, CreditBytes: 1 << 20, Parts: []*pb.StreamPart{part}}
	}
	deletion := func(parts ...*pb.DeleteRecordsPart) *pb.DeleteRecordsRequest {
		return &pb.DeleteRecordsRequest{Parts: parts}
	}
	configs := func(name, value string) []*pb.Config { return []*pb.Config{{Name: name, Value: value}} }
	twice := fetch(func(*pb.FetchPart) {})
	twice.Parts = append(twice.Parts, twice.Parts[0])
	many := &pb.FetchRequest{}
	for i := range int32(10_001) {
		many.Parts = append(many.Parts, &pb.FetchPart{TopicId: topic, Partition: i, LeaderEpoch: -1})
	}
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	large := build(t, make([]byte, 2<<20))
	none := new(pb.ProduceResponse)
	refs := []*pb.PartitionRef{{TopicId: short}}
	tests := []struct {
		where string
		kind  frame.Kind
		msg   proto.Message
		want  errcode.Code
	}{
		{"| kind | 1 |", 99, none, errcode.InvalidRequest},
		{"Topic ids are 16 bytes; another length is INVALID_REQUEST", frame.KindMetadata, &pb.MetadataRequest{TopicIds: [][]byte{short}}, errcode.InvalidRequest},
		{"| `all` | bool | every topic; excludes the two above |", frame.KindMetadata, &pb.MetadataRequest{All: true, Names: []string{"t"}}, errcode.InvalidRequest},
		{"only with `all`", frame.KindMetadata, &pb.MetadataRequest{After: "t"}, errcode.InvalidRequest},
		{"17 INVALID_TOPIC_EXCEPTION, 36", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "no spaces"}, errcode.InvalidTopic},
		{"36 TOPIC_ALREADY_EXISTS", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "t"}, errcode.TopicAlreadyExists},
		{"37 INVALID_PARTITIONS", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", Partitions: -2}, errcode.InvalidPartitions},
		{"38 INVALID_REPLICATION_FACTOR", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", ReplicationFactor: 7}, errcode.InvalidReplicationFactor},
		{"40 INVALID_CONFIG", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", Configs: []*pb.Config{{Name: "none", Value: "1"}}}, errcode.InvalidConfig},
		{"a name once", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", Configs: []*pb.Config{{Name: "segment.bytes", Value: "1048576"}, {Name: "segment.bytes", Value: "1048576"}}}, errcode.InvalidRequest},
		{"exactly one of `name` and `topic_id`, and `timeout_ms`", frame.KindDeleteTopic, &pb.DeleteTopicRequest{}, errcode.InvalidRequest},
		{"exactly one of `name` and `topic_id`, and `first_partition`", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "t", TopicId: topic}, errcode.InvalidRequest},
		{"42 INVALID_REQUEST (an `id` below 0)", frame.KindInitProducer, &pb.InitProducerRequest{Current: &pb.Producer{Id: -1}}, errcode.InvalidRequest},
		{"47 INVALID_PRODUCER_EPOCH (an `epoch` outside", frame.KindInitProducer, &pb.InitProducerRequest{Current: &pb.Producer{Epoch: 1 << 15}}, errcode.InvalidProducerEpoch},
		{"49 INVALID_PRODUCER_ID_MAPPING (an `id` that was never given)", frame.KindInitProducer, &pb.InitProducerRequest{Current: &pb.Producer{Id: 1 << 40}}, errcode.InvalidProducerIDMapping},
		{"Lengths that do not add up", frame.KindProduce, produce(func(p *pb.ProducePart) { p.Length-- }), errcode.InvalidRequest},
		{"or no part at all, are INVALID_REQUEST", frame.KindProduce, &pb.ProduceRequest{}, errcode.InvalidRequest},
		{"| 3, 5, 6, 100 | yes | not (or no longer) led", frame.KindProduce, produce(func(p *pb.ProducePart) { p.Partition = 3 }), errcode.UnknownTopicOrPartition},
		{"| 1 OFFSET_OUT_OF_RANGE | no |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.Offset = 2 }), errcode.OffsetOutOfRange},
		{"| 1 OFFSET_OUT_OF_RANGE | no |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.Offset = -1 }), errcode.OffsetOutOfRange},
		{"| 3, 5, 6, 74, 75, 100 | yes |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.LeaderEpoch = 0 }), errcode.FencedLeaderEpoch},
		{"| 3, 5, 6, 74, 75, 100 | yes |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.LeaderEpoch = 1 << 30 }), errcode.UnknownLeaderEpoch},
		{"| 3, 5, 6, 74, 75, 100 | yes |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.TopicId = make([]byte, 16) }), errcode.UnknownTopicID},
		{"1 to 10,000, a partition at most once", frame.KindFetch, &pb.FetchRequest{}, errcode.InvalidRequest},
		{"`leader_epoch` (as in Fetch)", frame.KindListOffsets, listed(func(p *pb.ListOffsetsPart) { p.LeaderEpoch = 1 << 30 }), errcode.UnknownLeaderEpoch},
		{"as in Fetch", frame.KindListOffsets, listed(func(p *pb.ListOffsetsPart) { p.TopicId = short }), errcode.InvalidRequest},
		{"another value: INVALID_REQUEST", frame.KindProduce, func() proto.Message { m := produceRequest(topic, good); m.Acks = 3; return m }(), errcode.InvalidRequest},
		{"| 2 CORRUPT_MESSAGE | yes |", frame.KindProduce, produceRequest(topic, broken), errcode.CorruptMessage},
		{"| 10 MESSAGE_TOO_LARGE | no |", frame.KindProduce, produceRequest(topic, large), errcode.MessageTooLarge},
		{"1 to 10,000, a partition at most once; else INVALID_REQUEST", frame.KindFetch, twice, errcode.InvalidRequest},
		{"1 to 10,000, a partition at most once; else INVALID_REQUEST", frame.KindFetch, many, errcode.InvalidRequest},
		{"topic ids are 16 bytes; another length is INVALID_REQUEST", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.TopicId = short }), errcode.InvalidRequest},
		{"| 3, 5, 6, 74, 75, 100 | yes |", frame.KindFetch, fetch(func(p *pb.FetchPart) { p.Partition = -1 }), errcode.UnknownTopicOrPartition},
		{"at least one in `parts`, else INVALID_REQUEST", frame.KindListOffsets, &pb.ListOffsetsRequest{}, errcode.InvalidRequest},
		{"| another | | INVALID_REQUEST for the whole request |", frame.KindListOffsets, listed(func(p *pb.ListOffsetsPart) { p.At = 4 }), errcode.InvalidRequest},
		{"42 for a negative `timestamp_ms`", frame.KindListOffsets, listed(func(p *pb.ListOffsetsPart) { p.At, p.TimestampMs = pb.OffsetAt_OFFSET_AT_TIMESTAMP, -1 }), errcode.InvalidRequest},
		{"`leader_epoch` (as in fetch)", frame.KindListOffsets, listed(func(p *pb.ListOffsetsPart) { p.LeaderEpoch = 0 }), errcode.FencedLeaderEpoch},
		{"a partition at most once (else INVALID_REQUEST)", frame.KindDeleteRecords, deletion(), errcode.InvalidRequest},
		{"a partition at most once (else INVALID_REQUEST)", frame.KindDeleteRecords, deletion(&pb.DeleteRecordsPart{TopicId: topic}, &pb.DeleteRecordsPart{TopicId: topic}), errcode.InvalidRequest},
		{"above the high watermark, or below -1", frame.KindDeleteRecords, deletion(&pb.DeleteRecordsPart{TopicId: topic, BeforeOffset: 2}), errcode.OffsetOutOfRange},
		{"above the high watermark, or below -1", frame.KindDeleteRecords, deletion(&pb.DeleteRecordsPart{TopicId: topic, BeforeOffset: -2}), errcode.OffsetOutOfRange},
		{"above the high watermark, or below -1), 3, 5, 6, 100", frame.KindDeleteRecords, deletion(&pb.DeleteRecordsPart{TopicId: topic, Partition: 1}), errcode.UnknownTopicOrPartition},
		{"topic ids are 16 bytes; another length is INVALID_REQUEST", frame.KindDeleteRecords, deletion(&pb.DeleteRecordsPart{TopicId: short}), errcode.InvalidRequest},

		{"3 UNKNOWN_TOPIC_OR_PARTITION, 17 INVALID_TOPIC_EXCEPTION, 100 UNKNOWN_TOPIC_ID", frame.KindMetadata, &pb.MetadataRequest{Names: []string{"none"}}, errcode.UnknownTopicOrPartition},
		{"3 UNKNOWN_TOPIC_OR_PARTITION, 17 INVALID_TOPIC_EXCEPTION, 100 UNKNOWN_TOPIC_ID", frame.KindMetadata, &pb.MetadataRequest{Names: []string{"no spaces"}}, errcode.InvalidTopic},
		{"3 UNKNOWN_TOPIC_OR_PARTITION, 17 INVALID_TOPIC_EXCEPTION, 100 UNKNOWN_TOPIC_ID", frame.KindMetadata, &pb.MetadataRequest{TopicIds: [][]byte{make([]byte, 16)}}, errcode.UnknownTopicID},
		{"and `timeout_ms`. Errors: 3, 100, 7.", frame.KindDeleteTopic, &pb.DeleteTopicRequest{Name: "none"}, errcode.UnknownTopicOrPartition},
		{"and `timeout_ms`. Errors: 3, 100, 7.", frame.KindDeleteTopic, &pb.DeleteTopicRequest{TopicId: make([]byte, 16)}, errcode.UnknownTopicID},
		{"topic ids are 16 bytes; another length is INVALID_REQUEST", frame.KindDeleteTopic, &pb.DeleteTopicRequest{TopicId: short}, errcode.InvalidRequest},
		{"above the number of partitions: INVALID_REQUEST", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "t", FirstPartition: -1}, errcode.InvalidRequest},
		{"above the number of partitions: INVALID_REQUEST", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "t", FirstPartition: 2}, errcode.InvalidRequest},
		{"above the number of partitions: INVALID_REQUEST). Errors: 3, 100.", frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "none"}, errcode.UnknownTopicOrPartition},
		{"1 to 249 of", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: strings.Repeat("a", 250)}, errcode.InvalidTopic},
		{"1 to 249 of", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: ""}, errcode.InvalidTopic},
		{"not `.` or `..`", frame.KindCreateTopic, &pb.CreateTopicRequest{Name: ".."}, errcode.InvalidTopic},
		{"not exactly one of `name` and `topic_id`, or a config named twice, is INVALID_REQUEST", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", TopicId: topic, Delete: []string{"segment.ms"}}, errcode.InvalidRequest},
		{"not exactly one of `name` and `topic_id`, or a config named twice, is INVALID_REQUEST", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", Set: append(configs("segment.ms", "1"), configs("segment.ms", "1")...)}, errcode.InvalidRequest},
		{"nothing to change, a name in both lists", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t"}, errcode.InvalidRequest},
		{"nothing to change, a name in both lists", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", Set: configs("segment.ms", "1"), Delete: []string{"segment.ms"}}, errcode.InvalidRequest},
		{"40 INVALID_CONFIG (unknown name, value out of range)", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", Set: configs("none", "1")}, errcode.InvalidConfig},
		{"40 INVALID_CONFIG (unknown name, value out of range)", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", Set: configs("segment.ms", "0")}, errcode.InvalidConfig},
		{"40 INVALID_CONFIG (unknown name, value out of range)", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "t", Delete: []string{"none"}}, errcode.InvalidConfig},
		{"as they hold then, or would. Errors: 3, 100", frame.KindAlterTopic, &pb.AlterTopicRequest{Name: "none", Delete: []string{"segment.ms"}}, errcode.UnknownTopicOrPartition},
		{"not exactly one of `name` and `topic_id`, or a config named twice, is INVALID_REQUEST", frame.KindAddPartitions, &pb.AddPartitionsRequest{Total: 5}, errcode.InvalidRequest},
		{"more than it has", frame.KindAddPartitions, &pb.AddPartitionsRequest{Name: "t", Total: 1}, errcode.InvalidPartitions},
		{"more than it has", frame.KindAddPartitions, &pb.AddPartitionsRequest{Name: "t", Total: 1 << 30}, errcode.InvalidPartitions},
		{"3, 100, 37 INVALID_PARTITIONS, 7", frame.KindAddPartitions, &pb.AddPartitionsRequest{TopicId: make([]byte, 16), Total: 5}, errcode.UnknownTopicID},
		{"91 RESOURCE_NOT_FOUND (no such shard here)", frame.KindTransferShard, &pb.TransferShardRequest{Shard: 99, To: 1}, errcode.ResourceNotFound},
		{"39 INVALID_REPLICA_ASSIGNMENT (the node has no voter of the shard)", frame.KindTransferShard, &pb.TransferShardRequest{Shard: 1, To: 2}, errcode.InvalidReplicaAssignment},
		{"83 ELIGIBLE_LEADERS_NOT_AVAILABLE (its voter does not answer", frame.KindTransferShard, &pb.TransferShardRequest{To: -1}, errcode.EligibleLeadersNotAvailable},

		{"INVALID_UPDATE_VERSION (the level is below the cluster's", frame.KindUpgradeFeatures, &pb.UpgradeFeaturesRequest{FeatureLevel: 1}, errcode.InvalidUpdateVersion},
		{"or some node does not know it", frame.KindUpgradeFeatures, &pb.UpgradeFeaturesRequest{FeatureLevel: 99, ValidateOnly: true}, errcode.InvalidUpdateVersion},
		{"or some node does not know it", frame.KindUpgradeFeatures, &pb.UpgradeFeaturesRequest{FeatureLevel: 1<<16 + 2}, errcode.InvalidUpdateVersion},

		{"0, or that of an open stream: INVALID_REQUEST", frame.KindSubscribe, &pb.SubscribeRequest{}, errcode.InvalidRequest},
		{"in Subscribe INVALID_REQUEST (42)", frame.KindSubscribe, &pb.SubscribeRequest{Stream: 9, CreditBytes: 1<<30 + 1}, errcode.InvalidRequest},
		{"another length: INVALID_REQUEST", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.TopicId = short }), errcode.InvalidRequest},
		{"unknown here: its delivery says 3 or 100", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.Partition = 1 }), errcode.UnknownTopicOrPartition},
		{"unknown here: its delivery says 3 or 100", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.TopicId = make([]byte, 16) }), errcode.UnknownTopicID},
		{"its delivery says OFFSET_OUT_OF_RANGE (1)", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.Offset = 2 }), errcode.OffsetOutOfRange},
		{"older: 74, newer: 75, in its delivery", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.LeaderEpoch = 0 }), errcode.FencedLeaderEpoch},
		{"older: 74, newer: 75, in its delivery", frame.KindSubscribe, subscribe(func(p *pb.StreamPart) { p.LeaderEpoch = 1 << 30 }), errcode.UnknownLeaderEpoch},
		{"| `stream` | uint32 | not open: RESOURCE_NOT_FOUND (91) |", frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 50}, errcode.ResourceNotFound},
		{"`topic_id` (16 bytes, else INVALID_REQUEST)", frame.KindChangeStream, &pb.ChangeStreamRequest{Remove: refs}, errcode.InvalidRequest},
		{"`topic_id` (16 bytes, else INVALID_REQUEST)", frame.KindChangeStream, &pb.ChangeStreamRequest{Pause: refs}, errcode.InvalidRequest},
		{"`topic_id` (16 bytes, else INVALID_REQUEST)", frame.KindChangeStream, &pb.ChangeStreamRequest{Resume: refs}, errcode.InvalidRequest},
		{"`stream`; not open: RESOURCE_NOT_FOUND (91)", frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: 50}, errcode.ResourceNotFound},
	}
	for _, tt := range tests {
		if !strings.Contains(page, strings.ToLower(tt.where)) {
			t.Errorf("docs/protocol.md does not say %q", tt.where)
		}
		var payload [][]byte
		if m, ok := tt.msg.(*pb.ProduceRequest); ok && len(m.Parts) > 0 {
			payload = [][]byte{good}
			if n := m.Parts[0].Length; int(n) == len(large) {
				payload[0] = large
			} else if tt.want == errcode.CorruptMessage {
				payload[0] = broken
			}
		}
		p.start(tt.kind, tt.msg, payload...)
		if got := p.code(); got != int32(tt.want) {
			t.Errorf("%v %v: code %d, want %d (%s)", tt.kind, tt.msg, got, tt.want, tt.where)
		}
		if m, ok := tt.msg.(*pb.SubscribeRequest); ok && m.Stream != 0 { // if it was opened after all
			p.start(frame.KindUnsubscribe, &pb.UnsubscribeRequest{Stream: m.Stream})
			if f, err := p.r.Read(); err != nil || f.Kind != frame.KindUnsubscribe {
				t.Fatal(f.Kind, err)
			}
		}
	}
}

// TestDocumentedHelloViolations is TestDocumentedViolations for the handshake: the
// server answers with its magic and an Error, and closes the connection.
func TestDocumentedHelloViolations(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ToLower(string(raw))
	_, addr := startNode(t, 64<<20)
	hello := func(edit func(*pb.ClientHello)) *pb.ClientHello {
		m := &pb.ClientHello{MinVersion: 1, MaxVersion: 1}
		edit(m)
		return m
	}
	fine := hello(func(*pb.ClientHello) {})
	long := func(n int) string { return strings.Repeat("x", n) }
	const malformed = "INVALID_REQUEST (42) for anything malformed, another kind, flags or a payload among it"
	tests := []struct {
		where   string
		kind    frame.Kind
		flags   frame.Flags
		msg     proto.Message
		payload string
		want    errcode.Code // 0: the Hello is taken
	}{
		{"magic and Hello in one go", frame.KindHello, 0, fine, "", 0},
		{"UNSUPPORTED_VERSION (35) with the server's range", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.MinVersion, m.MaxVersion = 2, 9 }), "", errcode.UnsupportedVersion},
		{"`min_version` is above `max_version`: UNSUPPORTED_VERSION", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.MinVersion, m.MaxVersion = 3, 1 }), "", errcode.UnsupportedVersion},
		{"from 1 (a `min_version` of 0 counts as 1)", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.MinVersion = 0 }), "", 0},
		{"from 1 (a `min_version` of 0 counts as 1)", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.MinVersion, m.MaxVersion = 0, 0 }), "", errcode.UnsupportedVersion},
		{"at most 255 bytes, else INVALID_REQUEST; may be empty", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.ClientId = long(255) }), "", 0},
		{"at most 255 bytes, else INVALID_REQUEST; may be empty", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.ClientId = long(256) }), "", errcode.InvalidRequest},
		{"at most 64 bytes each of `a-z A-Z 0-9 . -`, else INVALID_REQUEST", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.SoftwareName, m.SoftwareVersion = long(64), "1.0-rc" }), "", 0},
		{"at most 64 bytes each of `a-z A-Z 0-9 . -`, else INVALID_REQUEST", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.SoftwareName = long(65) }), "", errcode.InvalidRequest},
		{"at most 64 bytes each of `a-z A-Z 0-9 . -`, else INVALID_REQUEST", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.SoftwareName = "a_b" }), "", errcode.InvalidRequest},
		{"at most 64 bytes each of `a-z A-Z 0-9 . -`, else INVALID_REQUEST", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.SoftwareVersion = "1\n" }), "", errcode.InvalidRequest},
		{"another is answered with INCONSISTENT_CLUSTER_ID", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.ClusterId = "another" }), "", errcode.InconsistentClusterID},
		{"INCONSISTENT_CLUSTER_ID; at most 255 bytes, else INVALID_REQUEST", frame.KindHello, 0, hello(func(m *pb.ClientHello) { m.ClusterId = long(256) }), "", errcode.InvalidRequest},
		{malformed, frame.KindPing, 0, fine, "", errcode.InvalidRequest},
		{malformed, frame.KindHello, frame.FlagResponse, fine, "", errcode.InvalidRequest},
		{malformed, frame.KindHello, 0, fine, "x", errcode.InvalidRequest},
	}
	for _, tt := range tests {
		if !strings.Contains(page, strings.ToLower(tt.where)) {
			t.Errorf("docs/protocol.md does not say %q", tt.where)
		}
		nc := dial(t, addr)
		r, w := frame.NewReader(nc), frame.NewWriter(nc)
		w.Magic()
		var payload []frame.Part
		if tt.payload != "" {
			payload = []frame.Part{{Bytes: []byte(tt.payload)}}
		}
		if err := errors.Join(w.Queue(tt.kind, tt.flags, 0, tt.msg, payload...), w.Flush()); err != nil {
			t.Fatal(err)
		}
		if p, _, err := frame.ReadMagic(nc); err != nil || p != frame.Native {
			t.Fatalf("%v: magic %v, %v", tt.msg, p, err)
		}
		f, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if tt.want == 0 {
			if f.Kind != frame.KindHello {
				t.Errorf("%v: answered by %v (%s)", tt.msg, f.Kind, tt.where)
			}
			continue
		}
		e := new(pb.Error)
		if f.Kind != frame.KindError {
			t.Errorf("%v: answered by %v, want an Error (%s)", tt.msg, f.Kind, tt.where)
		} else if err := frame.Unmarshal(f.Header, e); err != nil || e.Code != int32(tt.want) {
			t.Errorf("%v: code %d, want %d (%s) %v", tt.msg, e.Code, tt.want, tt.where, err)
		}
		if tt.want == errcode.UnsupportedVersion && e.Versions.GetMax() != frame.MaxVersion {
			t.Errorf("%v: versions %v", tt.msg, e.Versions)
		}
		if _, err := r.Read(); err == nil {
			t.Errorf("%v: the connection stays open", tt.msg)
		}
	}
}

// code returns the error of the next answer, or of its first part, or, for a
// stream that was opened, of the first part delivered.
func (p *peer) code() int32 {
	p.t.Helper()
	f, err := p.r.Read()
	if err != nil {
		p.t.Fatal(err)
	}
	var m proto.Message
	switch {
	case f.Flags&frame.FlagError != 0:
		e := new(pb.Error)
		if err := frame.Unmarshal(f.Header, e); err != nil {
			p.t.Fatal(err)
		}
		return e.Code
	case f.Kind == frame.KindSubscribe:
		return p.code()
	case f.Kind == frame.KindProduce:
		m = new(pb.ProduceResponse)
	case f.Kind == frame.KindFetch:
		m = new(pb.FetchResponse)
	case f.Kind == frame.KindListOffsets:
		m = new(pb.ListOffsetsResponse)
	case f.Kind == frame.KindMetadata:
		m = new(pb.MetadataResponse)
	case f.Kind == frame.KindDeleteRecords:
		m = new(pb.DeleteRecordsResponse)
	case f.Kind == frame.KindDeliver:
		m = new(pb.Deliver)
	default:
		p.t.Fatalf("answered by %v", f.Kind)
	}
	if err := frame.Unmarshal(f.Header, m); err != nil {
		p.t.Fatal(err)
	}
	switch m := m.(type) {
	case *pb.ProduceResponse:
		return m.Results[0].Error.GetCode()
	case *pb.FetchResponse:
		return m.Results[0].Error.GetCode()
	case *pb.ListOffsetsResponse:
		return m.Results[0].Error.GetCode()
	case *pb.MetadataResponse:
		return m.Topics[0].Error.GetCode()
	case *pb.DeleteRecordsResponse:
		return m.Results[0].Error.GetCode()
	case *pb.Deliver:
		return m.Parts[0].Error.GetCode()
	}
	return 0
}
