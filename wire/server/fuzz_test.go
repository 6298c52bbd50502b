package server

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// FuzzRequest checks that no header of any kind panics, that what is refused
// has a code, and that what decodes says the same when it is encoded again.
func FuzzRequest(f *testing.F) {
	for _, m := range []struct {
		kind frame.Kind
		msg  proto.Message
	}{
		{frame.KindPing, &pb.Ping{}},
		{frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "t", Partitions: 3}},
		{frame.KindDescribeTopic, &pb.DescribeTopicRequest{TopicId: make([]byte, 16), FirstPartition: 1}},
		{frame.KindInitProducer, &pb.InitProducerRequest{}},
		{frame.KindFindCoordinator, &pb.FindCoordinatorRequest{Group: "g"}},
		{frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{Group: "g", MemberId: "m", MemberEpoch: -2, InstanceId: "i",
			Subscription: &pb.GroupSubscription{Topics: []string{"t"}, Regex: ".*", RebalanceTimeoutMs: 1},
			Owned:        &pb.GroupPartitions{Topics: []*pb.GroupTopic{{TopicId: make([]byte, 16), Partitions: []int32{0, 1 << 30}}}}}},
		{frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "g", MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: make([]byte, 16), Offset: 1, LeaderEpoch: -1}}}},
		{frame.KindFetchOffsets, &pb.FetchOffsetsRequest{Group: "g", All: true, AfterTopic: "t", AfterPartition: -1}},
		{frame.KindDeleteOffsets, &pb.DeleteOffsetsRequest{Group: "g", Partitions: []*pb.NamedPartition{{Topic: "t", Partition: 1}}}},
		{frame.KindListGroups, &pb.ListGroupsRequest{States: []string{"Stable"}, Types: []string{"classic"}, After: "a"}},
		{frame.KindDescribeGroup, &pb.DescribeGroupRequest{Group: "g", AfterMember: "m"}},
		{frame.KindDeleteGroup, &pb.DeleteGroupRequest{Group: "g"}},
	} {
		b, err := proto.Marshal(m.msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(m.kind), b)
	}
	f.Add(uint8(255), []byte{1})
	f.Fuzz(func(t *testing.T, kind uint8, header []byte) {
		q := &request{Prefix: frame.Prefix{Kind: frame.Kind(kind)}}
		if err := q.decode(header); err != nil {
			var e *errcode.Error
			if !errors.As(err, &e) || e.Code != errcode.InvalidRequest {
				t.Fatalf("decode = %v, want INVALID_REQUEST", err)
			}
			return
		}
		b, err := proto.Marshal(q.msg)
		if err != nil {
			t.Fatal(err)
		}
		again := &request{Prefix: q.Prefix}
		if err := again.decode(b); err != nil || !proto.Equal(again.msg, q.msg) {
			t.Fatalf("%v is encoded as %v, %v", q.msg, again.msg, err)
		}
	})
}
