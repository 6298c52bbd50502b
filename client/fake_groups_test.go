package client

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/grouptest"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// fakeGroups is what the nodes of a fake cluster know of groups: one of them looks
// after all.
type fakeGroups struct {
	*grouptest.Coordinator // nil: there are none
	node                   int32
	seen                   []consumergroup.TopicInfo

	// onGroup, if set, sees each request first; loseRequest and loseResponse break the
	// connection, hang answers nothing. It is called with the cluster's lock held.
	onGroup func(node int32, req proto.Message) fault
}

// coordinate has node 0 of a fake cluster look after groups.
func (f *fakeCluster) coordinate(tune func(*consumergroup.Options)) {
	f.groups.Coordinator = grouptest.New(time.Now, tune)
	f.groups.SetTopics()
}

// moveGroups has another node look after the groups.
func (f *fakeCluster) moveGroups(node int32) {
	f.mu.Lock()
	f.groups.node = node
	f.mu.Unlock()
	f.groups.TakeOver()
}

// topicName returns the name of a topic's id, "" for none.
func (f *fakeCluster) topicName(id []byte) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, tp := range f.topics {
		if string(tp.id[:]) == string(id) {
			return tp.name
		}
	}
	return ""
}

func (s *fakeConn) group(fr frame.Frame) bool {
	req := decode(s.f.t, fr, map[frame.Kind]proto.Message{
		frame.KindFindCoordinator: new(pb.FindCoordinatorRequest), frame.KindGroupHeartbeat: new(pb.GroupHeartbeatRequest),
		frame.KindCommitOffsets: new(pb.CommitOffsetsRequest), frame.KindFetchOffsets: new(pb.FetchOffsetsRequest),
		frame.KindDeleteOffsets: new(pb.DeleteOffsetsRequest), frame.KindListGroups: new(pb.ListGroupsRequest),
		frame.KindDescribeGroup: new(pb.DescribeGroupRequest), frame.KindDeleteGroup: new(pb.DeleteGroupRequest),
	}[fr.Kind])
	s.f.mu.Lock()
	node, addr := s.f.groups.node, s.f.nodes[s.f.groups.node]
	do := noFault
	if s.f.groups.onGroup != nil {
		do = s.f.groups.onGroup(s.id, req)
	}
	var topics []consumergroup.TopicInfo
	for _, tp := range s.f.topics {
		topics = append(topics, consumergroup.TopicInfo{Name: tp.name, ID: tp.id, Partitions: int32(len(tp.partitions))})
	}
	slices.SortFunc(topics, func(a, b consumergroup.TopicInfo) int { return int(a.ID[0]) - int(b.ID[0]) })
	if !slices.Equal(topics, s.f.groups.seen) {
		s.f.groups.seen = topics
		s.f.groups.SetTopics(topics...)
	}
	s.f.mu.Unlock()
	if do == loseRequest {
		return false
	}
	var answer proto.Message
	switch _, finds := req.(*pb.FindCoordinatorRequest); {
	case do == hang:
		return true
	case finds:
		answer = &pb.FindCoordinatorResponse{Node: &pb.Node{Id: node, Address: addr}}
	case s.id != node && fr.Kind != frame.KindListGroups:
		answer = frame.NewError(errcode.NotCoordinator, "")
	default:
		answer = s.coordinate(req)
	}
	return do != loseResponse && s.answer(fr, answer)
}

// coordinate answers as the node that looks after the groups.
func (s *fakeConn) coordinate(m proto.Message) proto.Message {
	ctx, gs := context.Background(), s.f.groups.Coordinator
	failed := func(e *errcode.Error) proto.Message { return frame.NewError(e.Code, e.Detail) }
	switch m := m.(type) {
	case *pb.GroupHeartbeatRequest:
		r := gs.ConsumerHeartbeat(ctx, heartbeatOf(m))
		if r.Err != nil {
			return failed(r.Err)
		}
		resp := &pb.GroupHeartbeatResponse{MemberEpoch: r.Epoch, IntervalMs: uint32(r.Interval.Milliseconds()), SessionMs: uint32(r.Session.Milliseconds())}
		if r.Assignment != nil {
			resp.Assignment = new(pb.GroupPartitions)
			for _, tp := range r.Assignment.Partitions {
				resp.Assignment.Topics = append(resp.Assignment.Topics, &pb.GroupTopic{
					TopicId: tp.TopicID[:], Name: s.f.topicName(tp.TopicID[:]), Partitions: tp.Partitions})
			}
		}
		return resp
	case *pb.CommitOffsetsRequest:
		req := &consumergroup.CommitRequest{Group: m.Group, MemberID: m.MemberId, InstanceID: m.InstanceId, Generation: m.MemberEpoch, RetentionMS: -1, KnowsNoGroup: true}
		resp := new(pb.CommitOffsetsResponse)
		for _, o := range m.Offsets {
			req.Offsets = append(req.Offsets, consumergroup.CommitOffset{
				Topic: s.f.topicName(o.TopicId), TopicID: record.TopicID(o.TopicId), Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch})
			resp.Results = append(resp.Results, &pb.GroupResult{TopicId: o.TopicId, Partition: o.Partition})
		}
		if r := gs.CommitOffsets(ctx, req); r.Err != nil {
			return failed(r.Err)
		}
		return resp
	case *pb.FetchOffsetsRequest:
		return s.fetchOffsets(m)
	case *pb.ListGroupsRequest:
		resp := new(pb.ListGroupsResponse)
		if s.id != s.f.groups.node {
			return resp
		}
		for _, g := range gs.ListGroups(ctx, new(consumergroup.ListRequest)).Groups {
			if g.Group > m.After { // one at a time, so that clients ask for more
				resp.Groups, resp.More = append(resp.Groups, &pb.ListedGroup{Group: g.Group, Type: g.Type, State: g.State.String(), ProtocolType: g.ProtocolType}), true
				break
			}
		}
		return resp
	case *pb.DescribeGroupRequest:
		r := gs.DescribeConsumerGroup(ctx, m.Group)
		if r.Err != nil {
			return failed(r.Err)
		}
		resp := &pb.DescribeGroupResponse{Group: m.Group, Type: "consumer", State: r.State.String(), Assignor: r.Assignor, Epoch: r.Epoch, TargetEpoch: r.TargetEpoch}
		for _, member := range r.Members {
			if resp.More = len(resp.Members) == 1; resp.More {
				break
			}
			if member.MemberID <= m.AfterMember {
				continue
			}
			one := &pb.GroupMember{MemberId: member.MemberID, InstanceId: member.InstanceID, MemberEpoch: member.Epoch, Topics: member.Topics}
			for _, tp := range member.Assigned {
				one.Assigned = append(one.Assigned, &pb.GroupTopic{TopicId: tp.TopicID[:], Name: tp.Topic, Partitions: tp.Partitions})
			}
			resp.Members = append(resp.Members, one)
		}
		return resp
	case *pb.DeleteGroupRequest:
		if r := gs.DeleteGroups(ctx, []string{m.Group}); r.Groups[0].Err != nil {
			return failed(r.Groups[0].Err)
		}
		return new(pb.DeleteGroupResponse)
	case *pb.DeleteOffsetsRequest:
		req, resp := &consumergroup.DeleteOffsetsRequest{Group: m.Group}, new(pb.DeleteOffsetsResponse)
		for _, p := range m.Partitions {
			req.Partitions = append(req.Partitions, consumergroup.TopicPartition{Topic: p.Topic, Partition: p.Partition})
		}
		r := gs.DeleteOffsets(ctx, req)
		if r.Err != nil {
			return failed(r.Err)
		}
		for i, p := range m.Partitions {
			one := &pb.GroupResult{Topic: p.Topic, Partition: p.Partition}
			if e := r.Partitions[i]; e != nil {
				one.Error = frame.NewError(e.Code, e.Detail)
			}
			resp.Results = append(resp.Results, one)
		}
		return resp
	}
	s.f.t.Errorf("group request %T", m)
	return frame.NewError(errcode.InvalidRequest, "")
}

func heartbeatOf(m *pb.GroupHeartbeatRequest) *consumergroup.ConsumerHeartbeatRequest {
	req := &consumergroup.ConsumerHeartbeatRequest{Group: m.Group, MemberID: m.MemberId, Epoch: m.MemberEpoch, RebalanceTimeoutMS: -1}
	if m.InstanceId != "" {
		req.InstanceID = &m.InstanceId
	}
	if sub := m.Subscription; sub != nil {
		req.Topics, req.Regex, req.RebalanceTimeoutMS = append([]string{}, sub.Topics...), &sub.Regex, int32(sub.RebalanceTimeoutMs)
	}
	if m.Owned != nil {
		req.Owned = []record.TopicPartitions{}
		for _, t := range m.Owned.Topics {
			req.Owned = append(req.Owned, record.TopicPartitions{TopicID: record.TopicID(t.TopicId), Partitions: t.Partitions})
		}
	}
	return req
}

func (s *fakeConn) fetchOffsets(m *pb.FetchOffsetsRequest) proto.Message {
	req := &consumergroup.FetchRequest{Group: m.Group, MemberID: m.MemberId, MemberEpoch: m.MemberEpoch, All: m.All}
	for _, p := range m.Partitions {
		req.Partitions = append(req.Partitions, consumergroup.FetchPartition{Topic: s.f.topicName(p.TopicId), TopicID: record.TopicID(p.TopicId), Partition: p.Partition})
	}
	r := s.f.groups.FetchOffsets(context.Background(), req)
	if r.Err != nil {
		return frame.NewError(r.Err.Code, r.Err.Detail)
	}
	resp := new(pb.FetchOffsetsResponse)
	for _, o := range r.Offsets {
		if m.All && (o.Topic < m.AfterTopic || o.Topic == m.AfterTopic && o.Partition <= m.AfterPartition) {
			continue
		}
		if resp.More = m.All && len(resp.Offsets) == 2; resp.More {
			break
		}
		resp.Offsets = append(resp.Offsets, &pb.GroupOffset{Topic: o.Topic, Partition: o.Partition, Offset: o.Offset, LeaderEpoch: o.LeaderEpoch})
	}
	return resp
}
