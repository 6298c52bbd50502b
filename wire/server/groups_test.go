package server_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/grouptest"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
	"github.com/flotilla-log/flotilla/wire/server"
)

// coordinating looks after the groups of a node. A commit of the group "held" waits
// for the end of its connection.
type coordinating struct {
	*grouptest.Node
	asked, ended, over chan struct{}
}

func (c *coordinating) CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply {
	if req.Group == "held" {
		close(c.asked)
		select {
		case <-ctx.Done():
			close(c.ended)
		case <-c.over: // the test has failed
		}
		return &consumergroup.CommitReply{Err: errcode.Errorf(errcode.NotCoordinator, "the connection has ended")}
	}
	return c.Node.CommitOffsets(ctx, req)
}

// startCoordinator starts a node that looks after groups.
func startCoordinator(t *testing.T) (*coordinating, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &coordinating{asked: make(chan struct{}), ended: make(chan struct{}), over: make(chan struct{})}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: t.TempDir(), NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20,
		NativeGroups: func(b *broker.Broker) server.Groups {
			c.Node = grouptest.On(b)
			return c
		},
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return c, l.Addr().String()
}

// join has a member join a group for some topics.
func (p *peer) join(group, member string, topics ...string) *pb.GroupHeartbeatResponse {
	p.t.Helper()
	resp := new(pb.GroupHeartbeatResponse)
	p.ask(frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{
		Group: group, MemberId: member, Owned: &pb.GroupPartitions{},
		Subscription: &pb.GroupSubscription{Topics: topics, RebalanceTimeoutMs: 60_000},
	}, resp)
	return resp
}

// TestGroups goes through a group's life: a member joins, consumes, is joined by
// another, gives away, commits, and leaves.
func TestGroups(t *testing.T) {
	t.Parallel()
	_, addr := startCoordinator(t)
	p := connect(t, addr)
	id := p.create("orders", 2)
	found := new(pb.FindCoordinatorResponse)
	p.ask(frame.KindFindCoordinator, &pb.FindCoordinatorRequest{Group: "g"}, found)
	if found.Node.GetId() != 1 || found.Node.GetAddress() != addr {
		t.Errorf("the coordinator is %v, want node 1 at %s", found.Node, addr)
	}

	all := &pb.GroupPartitions{Topics: []*pb.GroupTopic{{TopicId: id, Name: "orders", Partitions: []int32{0, 1}}}}
	first := p.join("g", "a", "orders")
	if diff := cmp.Diff(all, first.Assignment, protocmp.Transform()); diff != "" || first.MemberEpoch != 1 || first.IntervalMs != 1000 {
		t.Fatalf("joined at epoch %d, every %d ms:\n%s", first.MemberEpoch, first.IntervalMs, diff)
	}
	beat := func(m *pb.GroupHeartbeatRequest) *pb.GroupHeartbeatResponse {
		t.Helper()
		m.Group = "g"
		resp := new(pb.GroupHeartbeatResponse)
		p.ask(frame.KindGroupHeartbeat, m, resp)
		return resp
	}
	if again := beat(&pb.GroupHeartbeatRequest{MemberId: "a", MemberEpoch: 1}); again.Assignment != nil {
		t.Errorf("nothing has changed, and the assignment is told again: %v", again)
	}
	if second := p.join("g", "b", "orders"); len(second.Assignment.GetTopics()) != 0 {
		t.Errorf("b has %v before a has given anything away", second.Assignment)
	}
	less := beat(&pb.GroupHeartbeatRequest{MemberId: "a", MemberEpoch: 1}).Assignment
	if len(less.GetTopics()) != 1 || len(less.Topics[0].Partitions) != 1 {
		t.Fatalf("a keeps %v, want one partition", less)
	}
	a := beat(&pb.GroupHeartbeatRequest{MemberId: "a", MemberEpoch: 1, Owned: less})
	b := beat(&pb.GroupHeartbeatRequest{MemberId: "b", MemberEpoch: 2})
	if len(b.Assignment.GetTopics()) != 1 || b.Assignment.Topics[0].Partitions[0] == less.Topics[0].Partitions[0] {
		t.Errorf("b has %v beside a's %v", b.Assignment, less)
	}

	committed := new(pb.CommitOffsetsResponse)
	p.ask(frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "g", MemberId: "a", MemberEpoch: a.MemberEpoch, Offsets: []*pb.GroupOffset{
		{TopicId: id, Partition: less.Topics[0].Partitions[0], Offset: 7, LeaderEpoch: -1, Metadata: "m"},
		{TopicId: id, Partition: 9, Offset: 7}, {TopicId: make([]byte, 16), Offset: 7}}}, committed)
	if r := committed.Results; len(r) != 3 || r[0].Error != nil || r[1].Error.GetCode() != int32(errcode.UnknownTopicOrPartition) ||
		r[2].Error.GetCode() != int32(errcode.UnknownTopicID) {
		t.Errorf("committed: %v", r)
	}
	fetched := new(pb.FetchOffsetsResponse)
	p.ask(frame.KindFetchOffsets, &pb.FetchOffsetsRequest{Group: "g", Partitions: []*pb.PartitionRef{
		{TopicId: id, Partition: 0}, {TopicId: id, Partition: 1}, {TopicId: id, Partition: 2}}}, fetched)
	want := []*pb.GroupOffset{
		{TopicId: id, Topic: "orders", Partition: 0, Offset: -1, LeaderEpoch: -1},
		{TopicId: id, Topic: "orders", Partition: 1, Offset: -1, LeaderEpoch: -1},
		{TopicId: id, Partition: 2, Offset: -1, LeaderEpoch: -1, Error: fetched.Offsets[2].Error},
	}
	want[less.Topics[0].Partitions[0]].Offset, want[less.Topics[0].Partitions[0]].Metadata = 7, "m"
	if diff := cmp.Diff(want, fetched.Offsets, protocmp.Transform()); diff != "" || fetched.Offsets[2].Error.GetCode() != int32(errcode.UnknownTopicOrPartition) {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}

	d := new(pb.DescribeGroupResponse)
	p.ask(frame.KindDescribeGroup, &pb.DescribeGroupRequest{Group: "g"}, d)
	if d.Type != "consumer" || d.State != "Stable" || len(d.Members) != 2 || d.Members[0].MemberId != "a" || d.Members[0].ClientId != "test" ||
		d.Members[0].ClientHost != "/127.0.0.1" || d.Assignor != "uniform" || d.Epoch != d.TargetEpoch {
		t.Errorf("described: %v", d)
	}
	p.refused(errcode.NonEmptyGroup, frame.KindDeleteGroup, &pb.DeleteGroupRequest{Group: "g"})
	for _, member := range []string{"a", "b"} {
		beat(&pb.GroupHeartbeatRequest{MemberId: member, MemberEpoch: -1})
	}
	deleted := new(pb.DeleteOffsetsResponse)
	p.ask(frame.KindDeleteOffsets, &pb.DeleteOffsetsRequest{Group: "g", Partitions: []*pb.NamedPartition{{Topic: "orders"}, {Topic: "gone"}}}, deleted)
	if len(deleted.Results) != 2 || deleted.Results[0].Error != nil || deleted.Results[1].Error != nil {
		t.Errorf("deleted: %v", deleted)
	}
	p.ask(frame.KindDeleteGroup, &pb.DeleteGroupRequest{Group: "g"}, new(pb.DeleteGroupResponse))
	p.refused(errcode.GroupIDNotFound, frame.KindDescribeGroup, &pb.DescribeGroupRequest{Group: "g"})
}

// TestGroupsRefused: what is wrong with a request is said before anything is done.
func TestGroupsRefused(t *testing.T) {
	t.Parallel()
	c, addr := startCoordinator(t)
	p := connect(t, addr)
	id := p.create("t", 1)
	for _, tt := range []struct {
		kind frame.Kind
		m    proto.Message
		want errcode.Code
	}{
		{frame.KindFindCoordinator, &pb.FindCoordinatorRequest{}, errcode.InvalidGroupID},
		{frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{Group: "g"}, errcode.InvalidRequest},
		{frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{Group: "g", MemberId: "m"}, errcode.InvalidRequest},
		{frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{Group: "g", MemberId: "m", MemberEpoch: 3}, errcode.UnknownMemberID},
		{frame.KindGroupHeartbeat, &pb.GroupHeartbeatRequest{Group: "g", MemberId: "m", Owned: &pb.GroupPartitions{
			Topics: []*pb.GroupTopic{{TopicId: []byte("short")}}}}, errcode.InvalidRequest},
		{frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "g", MemberEpoch: -1}, errcode.InvalidRequest},
		{frame.KindCommitOffsets, &pb.CommitOffsetsRequest{MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: id}}}, errcode.InvalidGroupID},
		{frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "g", MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: id, Offset: -1}}}, errcode.InvalidRequest},
		{frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "g", MemberId: "m", MemberEpoch: 1, Offsets: []*pb.GroupOffset{{TopicId: id}}}, errcode.GroupIDNotFound},
		{frame.KindFetchOffsets, &pb.FetchOffsetsRequest{Group: "g", All: true, Partitions: []*pb.PartitionRef{{TopicId: id}}}, errcode.InvalidRequest},
		{frame.KindFetchOffsets, &pb.FetchOffsetsRequest{Group: "g", AfterTopic: "t"}, errcode.InvalidRequest},
		{frame.KindDeleteOffsets, &pb.DeleteOffsetsRequest{Group: "g"}, errcode.InvalidRequest},
		{frame.KindDeleteOffsets, &pb.DeleteOffsetsRequest{Group: "g", Partitions: []*pb.NamedPartition{{Topic: "t"}}}, errcode.GroupIDNotFound},
		{frame.KindDescribeGroup, &pb.DescribeGroupRequest{}, errcode.InvalidGroupID},
		{frame.KindDeleteGroup, &pb.DeleteGroupRequest{Group: "g"}, errcode.GroupIDNotFound},
		{frame.KindDeleteGroup, &pb.DeleteGroupRequest{}, errcode.InvalidGroupID},
	} {
		p.refused(tt.want, tt.kind, tt.m)
	}
	c.Refuse(errcode.Errorf(errcode.NotCoordinator, "moved"))
	for kind, m := range map[frame.Kind]proto.Message{
		frame.KindGroupHeartbeat: &pb.GroupHeartbeatRequest{Group: "g", MemberId: "m", MemberEpoch: 1},
		frame.KindCommitOffsets:  &pb.CommitOffsetsRequest{Group: "g", MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: id}}},
		frame.KindFetchOffsets:   &pb.FetchOffsetsRequest{Group: "g", All: true},
		frame.KindDeleteOffsets:  &pb.DeleteOffsetsRequest{Group: "g", Partitions: []*pb.NamedPartition{{Topic: "t"}}},
		frame.KindDescribeGroup:  &pb.DescribeGroupRequest{Group: "g"},
		frame.KindDeleteGroup:    &pb.DeleteGroupRequest{Group: "g"},
	} {
		p.start(kind, m)
		if _, e := p.answer(new(pb.Pong)); e.GetCode() != int32(errcode.NotCoordinator) || !e.Retriable {
			t.Errorf("%v of a coordinator that moved: %v", kind, e)
		}
	}
}

// TestGroupsInPages: what does not fit in one answer is asked for again.
func TestGroupsInPages(t *testing.T) {
	t.Parallel()
	_, addr := startCoordinator(t)
	p := connect(t, addr)
	id := p.create("t", 400)
	long := strings.Repeat("m", 4000)
	m := &pb.CommitOffsetsRequest{Group: "g", MemberEpoch: -1}
	for i := range 400 { // 1.6 MB in answers
		m.Offsets = append(m.Offsets, &pb.GroupOffset{TopicId: id, Partition: int32(i), Offset: int64(i), Metadata: long})
		if len(m.Offsets) == 100 {
			p.ask(frame.KindCommitOffsets, m, new(pb.CommitOffsetsResponse))
			m.Offsets = nil
		}
	}
	var got []int64
	ask := &pb.FetchOffsetsRequest{Group: "g", All: true}
	for pages := 1; ; pages++ {
		resp := new(pb.FetchOffsetsResponse)
		p.ask(frame.KindFetchOffsets, ask, resp)
		for _, o := range resp.Offsets {
			got = append(got, o.Offset)
			ask.AfterTopic, ask.AfterPartition = o.Topic, o.Partition
		}
		if !resp.More {
			if pages < 3 {
				t.Errorf("%d pages, want more", pages)
			}
			break
		}
	}
	if len(got) != 400 || !slices.IsSorted(got) {
		t.Errorf("%d offsets: %v", len(got), got)
	}

	var want []string
	for i := range 200 {
		name := string(rune('a'+i%26)) + strings.Repeat("n", 4000) + string(rune('a'+i/26))
		p.ask(frame.KindCommitOffsets, &pb.CommitOffsetsRequest{
			Group: name, MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: id, Offset: 1}}}, new(pb.CommitOffsetsResponse))
		want = append(want, name)
	}
	want = append(want, "g")
	slices.Sort(want)
	var names []string
	list := new(pb.ListGroupsRequest)
	for {
		resp := new(pb.ListGroupsResponse)
		p.ask(frame.KindListGroups, list, resp)
		for _, g := range resp.Groups {
			names = append(names, g.Group)
			list.After = g.Group
		}
		if !resp.More {
			break
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("%d groups are listed, want %d", len(names), len(want))
	}
}

// TestGroupsHearTheEnd: who waits for an answer that nobody will read is told so.
func TestGroupsHearTheEnd(t *testing.T) {
	t.Parallel()
	c, addr := startCoordinator(t)
	defer close(c.over)
	p := connect(t, addr)
	id := p.create("t", 1)
	p.start(frame.KindCommitOffsets, &pb.CommitOffsetsRequest{Group: "held", MemberEpoch: -1, Offsets: []*pb.GroupOffset{{TopicId: id}}})
	<-c.asked
	_ = p.nc.Close()
	select {
	case <-c.ended:
	case <-time.After(patience / 3):
		t.Fatal("the coordinator was not told that the connection has ended")
	}
	mustServe(t, addr)
}

// TestOffersGroups: a node says that it looks after groups.
func TestOffersGroups(t *testing.T) {
	t.Parallel()
	_, addr := startNode(t, 0)
	nc := dial(t, addr)
	hello, err := frame.Connect(frame.NewReader(nc), frame.NewWriter(nc), &pb.ClientHello{})
	if err != nil || !slices.Contains(hello.Features, frame.FeatureGroups) {
		t.Errorf("offers %v, %v, want groups among them", hello, err)
	}
}
