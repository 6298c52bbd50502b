package frame

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

var update = flag.Bool("update", false, "write docs/vectors again")

// vector is a file of docs/vectors: a frame as bytes and as what it means.
type vector struct {
	Description   string          `json:"description"`
	From          string          `json:"from"` // client or server
	Hex           string          `json:"hex"`  // the whole frame
	Kind          Kind            `json:"kind"`
	Flags         Flags           `json:"flags"`
	CorrelationID uint32          `json:"correlationId"`
	Message       string          `json:"message"` // of the header, in package flotilla.v1
	Header        json.RawMessage `json:"header"`  // protobuf's JSON: bytes are base64
	Payload       string          `json:"payload"` // hex
}

// vectorCase is where a vector comes from.
type vectorCase struct {
	name, description string
	kind              Kind
	flags             Flags
	id                uint32
	header            proto.Message
	payload           string
}

// The same two records as produced, and as fetched from offset 42 on.
const (
	producedBatch = "00000000000000000000004effffffff02064e528c0000000000010000018bcfe568000000018bcfe568010000000000000fa7" +
		"0000000000000000000218000000026b0a68656c6c6f001e000202010a776f726c640202680231"
	fetchedBatch = "000000000000002a0000004e0000000302064e528c0000000000010000018bcfe568000000018bcfe568010000000000000fa7" +
		"0000000000000000000218000000026b0a68656c6c6f001e000202010a776f726c640202680231"
)

func vectorCases() []vectorCase {
	id := []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4c, 0xde, 0x8f, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd}
	moved := NewError(errcode.NotLeaderOrFollower, "this node does not lead partition 1")
	moved.Leader = &pb.LeaderHint{NodeId: 2, Address: "10.0.0.2:9092", LeaderEpoch: 4}
	noVersion := NewError(errcode.UnsupportedVersion, "the client speaks 7 to 9, the server 1 to 1")
	noVersion.Versions = &pb.VersionRange{Min: 1, Max: 1}
	const answer = FlagResponse
	cases := []vectorCase{
		{"hello-request", "The first frame of a client, after the magic.", KindHello, 0, 0,
			&pb.ClientHello{MinVersion: 1, MaxVersion: 1, ClientId: "orders", SoftwareName: "example", SoftwareVersion: "1.0"}, ""},
		{"hello-response", "The server's answer, after its magic.", KindHello, answer, 0,
			&pb.ServerHello{Version: 1, NodeId: 1, ClusterId: "c-1", SoftwareName: "flotilla", SoftwareVersion: "0.1.0",
				MaxFrameBytes: 104857600, MaxHeaderBytes: 1048576, MaxInFlight: 64, MaxBatchBytes: 1048576, IdleTimeoutMs: 600000,
				Features: []string{FeatureStream}}, ""},
		{"hello-refused", "No common version; the connection is closed after it.", KindError, 0, 0, noVersion, ""},
		{"ping-request", "An empty header: the frame is its prefix.", KindPing, 0, 1, &pb.Ping{}, ""},
		{"ping-response", "", KindPing, answer, 1, &pb.Pong{}, ""},
		{"metadata-request", "One topic by name.", KindMetadata, 0, 2, &pb.MetadataRequest{Names: []string{"orders"}}, ""},
		{"metadata-response", "Two nodes; partition 2 has no leader now (zigzag: -1 is 01).", KindMetadata, answer, 2,
			&pb.MetadataResponse{ClusterId: "c-1",
				Nodes:  []*pb.Node{{Id: 1, Address: "10.0.0.1:9092"}, {Id: 2, Address: "10.0.0.2:9092", Rack: "b"}},
				Topics: []*pb.Topic{{Name: "orders", TopicId: id, Leaders: []int32{1, 2, -1}, LeaderEpochs: []int32{3, 4, 4}}}}, ""},
		{"metadata-response-unknown-topic", "An error of one topic.", KindMetadata, answer, 3,
			&pb.MetadataResponse{ClusterId: "c-1", Topics: []*pb.Topic{{Name: "none", Error: NewError(errcode.UnknownTopicOrPartition, "no such topic")}}}, ""},
		{"create-topic-request", "", KindCreateTopic, 0, 4,
			&pb.CreateTopicRequest{Name: "orders", Partitions: 3, Configs: []*pb.Config{{Name: "segment.bytes", Value: "1048576"}}, TimeoutMs: 10000}, ""},
		{"create-topic-response", "", KindCreateTopic, answer, 4, &pb.CreateTopicResponse{TopicId: id, Partitions: 3}, ""},
		{"create-topic-error", "An error of the whole request: flags 3.", KindCreateTopic, answer | FlagError, 5,
			NewError(errcode.TopicAlreadyExists, "topic orders exists"), ""},
		{"delete-topic-request", "", KindDeleteTopic, 0, 6, &pb.DeleteTopicRequest{TopicId: id}, ""},
		{"delete-topic-response", "", KindDeleteTopic, answer, 6, &pb.DeleteTopicResponse{}, ""},
		{"describe-topic-request", "", KindDescribeTopic, 0, 7, &pb.DescribeTopicRequest{Name: "orders"}, ""},
		{"describe-topic-response", "Partition 1 is led elsewhere: what this node does not know is -1.", KindDescribeTopic, answer, 7,
			&pb.DescribeTopicResponse{Name: "orders", TopicId: id, PartitionCount: 2, Configs: []*pb.Config{
				{Name: "retention.ms", Value: "604800000", Source: pb.ConfigSource_CONFIG_SOURCE_DEFAULT}, {Name: "segment.bytes", Value: "1048576"}},
				Partitions: []*pb.PartitionDetail{
					{Partition: 0, Leader: 1, LeaderEpoch: 3, LogStartOffset: 0, HighWatermark: 44, SizeBytes: 350, Shard: 2, UnlinkBytes: 130},
					{Partition: 1, Leader: 2, LeaderEpoch: 4, LogStartOffset: -1, HighWatermark: -1, SizeBytes: -1, Shard: 3, UnlinkBytes: -1}}}, ""},
		{"alter-topic-request", "One config set, one put back to its default.", KindAlterTopic, 0, 14,
			&pb.AlterTopicRequest{TopicId: id, Set: []*pb.Config{{Name: "retention.ms", Value: "3600000"}}, Delete: []string{"segment.bytes"}, TimeoutMs: 10000}, ""},
		{"alter-topic-response", "", KindAlterTopic, answer, 14,
			&pb.AlterTopicResponse{Configs: []*pb.Config{
				{Name: "retention.ms", Value: "3600000"}, {Name: "segment.bytes", Value: "268435456", Source: pb.ConfigSource_CONFIG_SOURCE_DEFAULT}}}, ""},
		{"add-partitions-request", "", KindAddPartitions, 0, 15, &pb.AddPartitionsRequest{TopicId: id, Total: 5, TimeoutMs: 10000}, ""},
		{"add-partitions-response", "", KindAddPartitions, answer, 15, &pb.AddPartitionsResponse{Partitions: 5}, ""},
		{"describe-features-request", "", KindDescribeFeatures, 0, 18, &pb.DescribeFeaturesRequest{}, ""},
		{"describe-features-response", "Node 2 is of a newer version, node 3 of one that does not say.", KindDescribeFeatures, answer, 18,
			&pb.DescribeFeaturesResponse{FeatureLevel: 1, Nodes: []*pb.NodeFeatures{{NodeId: 1, MaxFeatureLevel: 1}, {NodeId: 2, MaxFeatureLevel: 2}, {NodeId: 3}},
				Shards: []*pb.ShardFeatures{{Shard: 1, ApplyVersion: 1}, {Shard: 2, ApplyVersion: 1}}}, ""},
		{"upgrade-features-request", "To the newest level that every node knows.", KindUpgradeFeatures, 0, 19, &pb.UpgradeFeaturesRequest{TimeoutMs: 10000}, ""},
		{"upgrade-features-response", "", KindUpgradeFeatures, answer, 19, &pb.UpgradeFeaturesResponse{Before: 1, FeatureLevel: 2}, ""},
		{"upgrade-features-error", "There is no way back.", KindUpgradeFeatures, answer | FlagError, 20,
			NewError(errcode.InvalidUpdateVersion, "the feature level is 2 already, and is never lowered to 1"), ""},
		{"describe-cluster-request", "", KindDescribeCluster, 0, 18, &pb.DescribeClusterRequest{WaitMs: 2000}, ""},
		{"describe-cluster-response", "Node 2 has not answered node 1; -1 is what is not known.", KindDescribeCluster, answer, 18,
			&pb.DescribeClusterResponse{ClusterId: "c-1", Asked: 1, Controller: 1, FeatureLevel: 2, Topics: 1, Partitions: 3,
				Nodes: []*pb.NodeDetail{
					{Id: 1, Address: "10.0.0.1:9092", Rack: "a", Incarnation: 0xa1, Version: "0.1.0", UptimeMs: 60000, Leads: 2, Replicas: 2},
					{Id: 2, Address: "10.0.0.2:9092", Rack: "b", Incarnation: 0xa2, Error: NewError(errcode.RequestTimedOut, "no answer within 2s")}},
				Shards: []*pb.ShardDetail{
					{Id: 0, Leader: 1, Term: 2, LastIndex: 9, Replicas: []*pb.ReplicaDetail{
						{Node: 1, Incarnation: 0xb1, Voter: true, Status: pb.ReplicaStatus_REPLICA_STATUS_OK, MatchIndex: 9, AppliedIndex: 9},
						{Node: 2, Incarnation: 0xb2, Voter: true, Status: pb.ReplicaStatus_REPLICA_STATUS_SILENT, MatchIndex: 7, LagEntries: 2, AppliedIndex: -1}}},
					{Id: 1, Leader: -1, Term: 3, LastIndex: -1, Partitions: 3}}}, ""},
		{"transfer-shard-request", "To whoever is furthest (zigzag: -1 is 01).", KindTransferShard, 0, 19, &pb.TransferShardRequest{Shard: 3, To: -1, TimeoutMs: 10000}, ""},
		{"transfer-shard-response", "", KindTransferShard, answer, 19, &pb.TransferShardResponse{Leader: 2, Term: 8}, ""},
		{"init-producer-request", "A first id.", KindInitProducer, 0, 8, &pb.InitProducerRequest{}, ""},
		{"init-producer-request-bump", "A higher epoch of id 4007.", KindInitProducer, 0, 9,
			&pb.InitProducerRequest{Current: &pb.Producer{Id: 4007}}, ""},
		{"init-producer-response", "", KindInitProducer, answer, 8, &pb.InitProducerResponse{Producer: &pb.Producer{Id: 4007, Epoch: 0}}, ""},
		{"produce-request", "One batch of two records, of producer 4007, epoch 0, sequence 0.", KindProduce, 0, 10,
			&pb.ProduceRequest{TimeoutMs: 20000, Parts: []*pb.ProducePart{{TopicId: id, Partition: 0, Length: 90}}}, producedBatch},
		{"produce-response", "Appended at offset 42; -1 says that the records keep their timestamps.", KindProduce, answer, 10,
			&pb.ProduceResponse{Results: []*pb.ProduceResult{{TopicId: id, Partition: 0, BaseOffset: 42, LogAppendTimeMs: -1}}}, ""},
		{"produce-response-moved", "Refused, with a hint where to go.", KindProduce, answer, 11,
			&pb.ProduceResponse{Results: []*pb.ProduceResult{{TopicId: id, Partition: 1, Error: moved, LogStartOffset: -1}}}, ""},
		{"fetch-request", "", KindFetch, 0, 12,
			&pb.FetchRequest{MaxWaitMs: 500, MinBytes: 1, MaxBytes: 8388608, Parts: []*pb.FetchPart{
				{TopicId: id, Partition: 0, Offset: 43, MaxBytes: 1048576, LeaderEpoch: 3}, {TopicId: id, Partition: 1, Offset: 7, MaxBytes: 1048576, LeaderEpoch: -1}}}, ""},
		{"fetch-response", "The batch begins before offset 43, which was asked for; partition 1 has nothing.", KindFetch, answer, 12,
			&pb.FetchResponse{Results: []*pb.FetchResult{
				{TopicId: id, Partition: 0, HighWatermark: 44, LogStartOffset: 0, Length: 90}, {TopicId: id, Partition: 1, HighWatermark: 7, LogStartOffset: 0}}}, fetchedBatch},
		{"list-offsets-request", "", KindListOffsets, 0, 13,
			&pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{{TopicId: id, Partition: 0, At: pb.OffsetAt_OFFSET_AT_EARLIEST, LeaderEpoch: 3}}}, ""},
		{"subscribe-request", "Stream 1, of two partitions, the second paused.", KindSubscribe, 0, 14,
			&pb.SubscribeRequest{Stream: 1, CreditBytes: 33554432, MaxBytes: 8388608, MaxPartitionBytes: 1048576, Parts: []*pb.StreamPart{
				{TopicId: id, Partition: 0, Offset: 43, LeaderEpoch: 3, Generation: 1}, {TopicId: id, Partition: 1, Offset: 7, LeaderEpoch: -1, Generation: 1, Paused: true}}}, ""},
		{"subscribe-response", "", KindSubscribe, answer, 14, &pb.SubscribeResponse{}, ""},
		{"subscribe-refused", "Too many streams.", KindSubscribe, answer | FlagError, 15,
			NewError(errcode.PolicyViolation, "64 streams are open on this connection"), ""},
		{"deliver", "Pushed: the batch begins before offset 43, which was asked for.", KindDeliver, 0, 0,
			&pb.Deliver{Stream: 1, Parts: []*pb.DeliverPart{{TopicId: id, Partition: 0, Generation: 1, HighWatermark: 44, LogStartOffset: 0, Length: 90}}}, fetchedBatch},
		{"deliver-moved", "A partition leaves the stream, with a hint where to go.", KindDeliver, 0, 0,
			&pb.Deliver{Stream: 1, Parts: []*pb.DeliverPart{{TopicId: id, Partition: 1, Generation: 1, Error: moved, HighWatermark: -1, LogStartOffset: -1}}}, ""},
		{"deliver-end", "The stream has ended.", KindDeliver, 0, 0,
			&pb.Deliver{Stream: 1, Error: NewError(errcode.InvalidRequest, "a credit of 1 bytes in all, after one of 33554432")}, ""},
		{"credit", "All that was granted so far. It has no response.", KindCredit, 0, 16, &pb.Credit{Stream: 1, TotalBytes: 41943040}, ""},
		{"change-stream-request", "Partition 0 goes on at offset 0, partition 1 is resumed.", KindChangeStream, 0, 17,
			&pb.ChangeStreamRequest{Stream: 1, Set: []*pb.StreamPart{{TopicId: id, Partition: 0, LeaderEpoch: 3, Generation: 2}},
				Remove: []*pb.PartitionRef{{TopicId: id, Partition: 2}}, Pause: []*pb.PartitionRef{{TopicId: id, Partition: 3}},
				Resume: []*pb.PartitionRef{{TopicId: id, Partition: 1}}}, ""},
		{"change-stream-response", "", KindChangeStream, answer, 17, &pb.ChangeStreamResponse{}, ""},
		{"unsubscribe-request", "", KindUnsubscribe, 0, 18, &pb.UnsubscribeRequest{Stream: 1}, ""},
		{"unsubscribe-response", "", KindUnsubscribe, answer, 18, &pb.UnsubscribeResponse{}, ""},
		{"list-offsets-response", "", KindListOffsets, answer, 13,
			&pb.ListOffsetsResponse{Results: []*pb.ListOffsetsResult{{TopicId: id, Partition: 0, Offset: 0, LeaderEpoch: 3, TimestampMs: -1}}}, ""},
		{"list-offsets-request-timestamp", "The first record at or after a time (zigzag: 1700000000000 is 3400000000000).", KindListOffsets, 0, 16,
			&pb.ListOffsetsRequest{Parts: []*pb.ListOffsetsPart{
				{TopicId: id, Partition: 0, At: pb.OffsetAt_OFFSET_AT_TIMESTAMP, LeaderEpoch: -1, TimestampMs: 1700000000000},
				{TopicId: id, Partition: 1, At: pb.OffsetAt_OFFSET_AT_TIMESTAMP, LeaderEpoch: -1, TimestampMs: 1700000000000}}}, ""},
		{"list-offsets-response-timestamp", "Partition 1 has no record so late.", KindListOffsets, answer, 16,
			&pb.ListOffsetsResponse{Results: []*pb.ListOffsetsResult{
				{TopicId: id, Partition: 0, Offset: 42, LeaderEpoch: 3, TimestampMs: 1700000000000},
				{TopicId: id, Partition: 1, Offset: -1, LeaderEpoch: -1, TimestampMs: -1}}}, ""},
		{"delete-records-request", "Partition 0 before offset 42, partition 1 all there is.", KindDeleteRecords, 0, 17,
			&pb.DeleteRecordsRequest{TimeoutMs: 10000, Parts: []*pb.DeleteRecordsPart{
				{TopicId: id, Partition: 0, BeforeOffset: 42}, {TopicId: id, Partition: 1, BeforeOffset: -1}}}, ""},
		{"delete-records-response", "", KindDeleteRecords, answer, 17,
			&pb.DeleteRecordsResponse{Results: []*pb.DeleteRecordsResult{
				{TopicId: id, Partition: 0, LogStartOffset: 42}, {TopicId: id, Partition: 1, LogStartOffset: 7}}}, ""},
	}
	return slices.Concat(cases, groupVectors(id))
}

const vectorDir = "../../docs/vectors"

// TestVectors holds the files in docs/vectors against this implementation, both
// ways. With -update it writes them.
func TestVectors(t *testing.T) {
	names := make(map[string]bool)
	for _, vc := range vectorCases() {
		names[vc.name+".json"] = true
		t.Run(vc.name, func(t *testing.T) {
			file := filepath.Join(vectorDir, vc.name+".json")
			want := vc.encode(t)
			if *update {
				if err := os.WriteFile(file, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("encoding differs from the file (-encoded +file):\n%s", diff)
			}
			checkVector(t, got)
		})
	}
	files, err := os.ReadDir(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !names[f.Name()] {
			t.Errorf("%s is no vector of this test", f.Name())
		}
	}
}

// encode returns the file of a vector.
func (vc vectorCase) encode(t *testing.T) []byte {
	t.Helper()
	payload, err := hex.DecodeString(vc.payload)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{
		Description: vc.description, From: "client",
		Hex:  hex.EncodeToString(encode(t, vc.kind, vc.flags, vc.id, vc.header, Part{Bytes: payload})),
		Kind: vc.kind, Flags: vc.flags, CorrelationID: vc.id,
		Message: string(vc.header.ProtoReflect().Descriptor().Name()), Payload: vc.payload,
	}
	if vc.flags&FlagResponse != 0 || vc.kind == KindError || vc.kind == KindDeliver {
		v.From = "server"
	}
	loose, err := protojson.Marshal(vc.header) // of random spacing
	if err != nil {
		t.Fatal(err)
	}
	var dense bytes.Buffer
	if err := json.Compact(&dense, loose); err != nil {
		t.Fatal(err)
	}
	v.Header = dense.Bytes()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// checkVector decodes a file's bytes and compares them with its fields.
func checkVector(t *testing.T, file []byte) {
	t.Helper()
	var v vector
	if err := json.Unmarshal(file, &v); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewReader(bytes.NewReader(b)).Read()
	if err != nil {
		t.Fatal(err)
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("flotilla.v1." + v.Message))
	if err != nil {
		t.Fatal(err)
	}
	want, got := mt.New().Interface(), mt.New().Interface()
	if err := protojson.Unmarshal(v.Header, want); err != nil {
		t.Fatal(err)
	}
	if err := Unmarshal(f.Header, got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(want, got) {
		t.Errorf("header %v, want %v", got, want)
	}
	id := Prefix{Kind: v.Kind, Flags: v.Flags, CorrelationID: v.CorrelationID, HeaderBytes: len(f.Header), PayloadBytes: len(v.Payload) / 2}
	if diff := cmp.Diff(id, f.Prefix); diff != "" {
		t.Errorf("prefix (-fields +bytes):\n%s", diff)
	}
	if got := hex.EncodeToString(f.Payload); got != v.Payload {
		t.Errorf("payload %s, want %s", got, v.Payload)
	}
}

// TestProtocolDocument holds the numbers in docs/protocol.md against the code.
func TestProtocolDocument(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for k := range 256 {
		name := Kind(k).String()
		row := fmt.Sprintf("| %d | %s |", k, name)
		if known := !strings.HasPrefix(name, "kind("); known != strings.Contains(doc, row) {
			t.Errorf("kind %d, %s: in the code %t, not so in docs/protocol.md (%q)", k, name, known, row)
		}
	}
	// Each message's fields stand together, in one section.
	sections := regexp.MustCompile(`(?m)^##+ `).Split(doc, -1)
	messages := pb.File_flotilla_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		var best []string // what the best section lacks
		for k, section := range sections {
			var missing []string
			for j := range fields.Len() {
				name := string(fields.Get(j).Name())
				if !strings.Contains(section, "`"+name+"`") && !strings.Contains(section, "`"+name+" ") {
					missing = append(missing, name)
				}
			}
			if k == 0 || len(missing) < len(best) {
				best = missing
			}
		}
		if len(best) > 0 {
			t.Errorf("no section of docs/protocol.md has all fields of %s: the best lacks %v", messages.Get(i).Name(), best)
		}
	}
}
