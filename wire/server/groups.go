package server

import (
	"context"
	"math"
	"net"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Groups looks after the consumer groups that this node coordinates. All methods
// block until they are answered or ctx ends, which ends with the connection. An Err
// of a reply is NOT_COORDINATOR if another node is asked for, or the term was lost
// while the request was under way, COORDINATOR_LOAD_IN_PROGRESS if this one is not
// ready yet, and COORDINATOR_NOT_AVAILABLE if nobody is.
type Groups interface {
	FindCoordinator(ctx context.Context, group string, l broker.Listener) (broker.Node, *errcode.Error)
	ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply
	CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply
	FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply
	DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply
	ListGroups(ctx context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply
	DescribeGroup(ctx context.Context, group string) *consumergroup.DescribeReply
	DescribeConsumerGroup(ctx context.Context, group string) *consumergroup.ConsumerDescribeReply
	DeleteGroups(ctx context.Context, groups []string) *consumergroup.DeleteGroupsReply
}

// groupMessage returns the message of a kind of request about groups, nil if it is
// none.
func groupMessage(k frame.Kind) proto.Message {
	switch k {
	case frame.KindFindCoordinator:
		return new(pb.FindCoordinatorRequest)
	case frame.KindGroupHeartbeat:
		return new(pb.GroupHeartbeatRequest)
	case frame.KindCommitOffsets:
		return new(pb.CommitOffsetsRequest)
	case frame.KindFetchOffsets:
		return new(pb.FetchOffsetsRequest)
	case frame.KindDeleteOffsets:
		return new(pb.DeleteOffsetsRequest)
	case frame.KindListGroups:
		return new(pb.ListGroupsRequest)
	case frame.KindDescribeGroup:
		return new(pb.DescribeGroupRequest)
	case frame.KindDeleteGroup:
		return new(pb.DeleteGroupRequest)
	}
	return nil
}

// startGroup starts a request about groups. All of them may wait, for a majority or
// for the coordinator's turn.
func (q *request) startGroup() {
	if q.s.opt.Groups == nil {
		q.fail(errcode.Errorf(errcode.UnsupportedVersion, "this node does not serve consumer groups: go by the features that it offers"))
		return
	}
	go q.within(0, func(ctx context.Context) (proto.Message, error) {
		m, err := q.group(ctx)
		if ctx.Err() != nil && q.ctx.Err() == nil {
			// Whatever the reply says, nobody waited for it to be true.
			return nil, errcode.Errorf(errcode.RequestTimedOut, "the group's coordinator has not answered within %v", defaultTimeout)
		}
		return m, err
	})
}

// group answers a request about groups.
func (q *request) group(ctx context.Context) (proto.Message, error) {
	switch m := q.msg.(type) {
	case *pb.FindCoordinatorRequest:
		return q.findCoordinator(ctx, m)
	case *pb.GroupHeartbeatRequest:
		return q.groupHeartbeat(ctx, m)
	case *pb.CommitOffsetsRequest:
		return q.commitOffsets(ctx, m)
	case *pb.FetchOffsetsRequest:
		return q.fetchOffsets(ctx, m)
	case *pb.DeleteOffsetsRequest:
		return q.deleteOffsets(ctx, m)
	case *pb.ListGroupsRequest:
		return q.listGroups(ctx, m)
	case *pb.DescribeGroupRequest:
		return q.describeGroup(ctx, m)
	case *pb.DeleteGroupRequest:
		return q.deleteGroup(ctx, m)
	}
	panic("server: no request about groups: " + q.Kind.String())
}

func (q *request) findCoordinator(ctx context.Context, m *pb.FindCoordinatorRequest) (proto.Message, error) {
	if m.Group == "" {
		return nil, errcode.Errorf(errcode.InvalidGroupID, "the group's name is empty")
	}
	n, err := q.s.opt.Groups.FindCoordinator(ctx, m.Group, q.via)
	if err != nil {
		return nil, err
	}
	return &pb.FindCoordinatorResponse{Node: &pb.Node{Id: n.ID, Address: n.Address, Rack: n.Rack}}, nil
}

func (q *request) groupHeartbeat(ctx context.Context, m *pb.GroupHeartbeatRequest) (proto.Message, error) {
	if m.MemberId == "" {
		return nil, errcode.Errorf(errcode.InvalidRequest, "the member id is empty: make one of 128 random bits, and keep it")
	}
	req := &consumergroup.ConsumerHeartbeatRequest{
		Group: m.Group, MemberID: m.MemberId, Epoch: m.MemberEpoch, RebalanceTimeoutMS: -1,
		ClientID: q.clientID, ClientHost: q.host(),
	}
	if m.InstanceId != "" {
		req.InstanceID = &m.InstanceId
	}
	if s := m.Subscription; s != nil {
		req.Topics, req.Regex = append([]string{}, s.Topics...), &s.Regex
		req.RebalanceTimeoutMS = int32(min(s.RebalanceTimeoutMs, math.MaxInt32))
		if s.Assignor != "" {
			req.Assignor = &s.Assignor
		}
	}
	if m.Owned != nil {
		req.Owned = make([]record.TopicPartitions, len(m.Owned.Topics))
		for i, t := range m.Owned.Topics {
			id, err := topicID(t.TopicId)
			if err != nil {
				return nil, err
			}
			req.Owned[i] = record.TopicPartitions{TopicID: record.TopicID(id), Partitions: t.Partitions}
		}
	}
	r := q.s.opt.Groups.ConsumerHeartbeat(ctx, req)
	if r.Err != nil {
		return nil, r.Err
	}
	resp := &pb.GroupHeartbeatResponse{MemberEpoch: r.Epoch, IntervalMs: uint32(r.Interval.Milliseconds()), SessionMs: uint32(r.Session.Milliseconds())}
	if r.Assignment != nil {
		resp.Assignment = &pb.GroupPartitions{Topics: q.groupTopics(r.Assignment.Partitions)}
	}
	return fits(resp)
}

// host is where the client is, as Kafka writes it.
func (q *request) host() string {
	addr := q.nc.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	return "/" + addr
}

// groupTopics are partitions by topic, with the topics' names.
func (q *request) groupTopics(list []record.TopicPartitions) []*pb.GroupTopic {
	out := make([]*pb.GroupTopic, len(list))
	for i, tp := range list {
		out[i] = &pb.GroupTopic{TopicId: tp.TopicID[:], Partitions: tp.Partitions}
		if t, err := q.s.opt.Broker.TopicByID(broker.TopicID(tp.TopicID)); err == nil {
			out[i].Name = t.Name
		}
	}
	return out
}

// maxGroupAnswerBytes is the size of an answer's parts after which the client asks
// for the rest: half of a header.
const maxGroupAnswerBytes = frame.DefaultMaxHeaderBytes / 2

// fits refuses an answer that no frame can carry: the client would wait for it.
func fits(m proto.Message) (proto.Message, error) {
	if n := proto.Size(m); n > frame.DefaultMaxHeaderBytes {
		return nil, errcode.Errorf(errcode.InvalidRequest,
			"the answer has %d bytes, and a header %d at most: subscribe to fewer partitions, or start more members", n, frame.DefaultMaxHeaderBytes)
	}
	return m, nil
}

func (q *request) deleteGroup(ctx context.Context, m *pb.DeleteGroupRequest) (proto.Message, error) {
	if m.Group == "" {
		return nil, errcode.Errorf(errcode.InvalidGroupID, "the group's name is empty")
	}
	r := q.s.opt.Groups.DeleteGroups(ctx, []string{m.Group})
	if len(r.Groups) != 1 {
		return nil, errcode.Errorf(errcode.CoordinatorNotAvailable, "the group's coordinator has not answered")
	}
	if err := r.Groups[0].Err; err != nil {
		return nil, err
	}
	return &pb.DeleteGroupResponse{}, nil
}
