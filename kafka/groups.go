package kafka

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// Groups is what coordinates the consumer groups of the cluster. A node that does not
// coordinate a group answers NOT_COORDINATOR.
//
// The methods return when the answer is due. When ctx ends they return at once, with
// NOT_COORDINATOR; what was asked for may have happened then. They keep nothing of a
// request, and bytes of their answers are not to be changed.
type Groups interface {
	// FindCoordinator returns the node that coordinates a group, with its address for
	// clients of a listener. The first one of all makes the topic __consumer_offsets.
	FindCoordinator(ctx context.Context, group string, via broker.Listener) (broker.Node, *errcode.Error)

	JoinGroup(ctx context.Context, req *consumergroup.JoinRequest) *consumergroup.JoinReply
	SyncGroup(ctx context.Context, req *consumergroup.SyncRequest) *consumergroup.SyncReply
	HeartbeatGroup(ctx context.Context, req *consumergroup.HeartbeatRequest) consumergroup.HeartbeatReply
	LeaveGroup(ctx context.Context, req *consumergroup.LeaveRequest) *consumergroup.LeaveReply
	ConsumerHeartbeat(ctx context.Context, req *consumergroup.ConsumerHeartbeatRequest) *consumergroup.ConsumerHeartbeatReply

	CommitOffsets(ctx context.Context, req *consumergroup.CommitRequest) *consumergroup.CommitReply
	FetchOffsets(ctx context.Context, req *consumergroup.FetchRequest) *consumergroup.FetchReply
	DeleteOffsets(ctx context.Context, req *consumergroup.DeleteOffsetsRequest) *consumergroup.DeleteOffsetsReply

	// ListGroups tells of all groups that this node coordinates.
	ListGroups(ctx context.Context, req *consumergroup.ListRequest) *consumergroup.ListReply
	DescribeGroup(ctx context.Context, group string) *consumergroup.DescribeReply
	DescribeConsumerGroup(ctx context.Context, group string) *consumergroup.ConsumerDescribeReply
	DeleteGroups(ctx context.Context, groups []string) *consumergroup.DeleteGroupsReply
}

// groupAPIs are the requests about consumer groups, of a Server that has Groups.
var groupAPIs = []api{
	brief(ordinary(kmsg.OffsetCommit, 2, 10, (*Server).offsetCommit)),
	ordinary(kmsg.OffsetFetch, 1, 10, (*Server).offsetFetch),
	ordinary(kmsg.FindCoordinator, 0, 6, (*Server).findCoordinator),
	ordinary(kmsg.JoinGroup, 0, 9, (*Server).joinGroup),
	brief(ordinary(kmsg.Heartbeat, 0, 4, (*Server).heartbeat)),
	ordinary(kmsg.LeaveGroup, 0, 5, (*Server).leaveGroup),
	ordinary(kmsg.SyncGroup, 0, 5, (*Server).syncGroup),
	ordinary(kmsg.DescribeGroups, 0, 6, (*Server).describeGroups),
	ordinary(kmsg.ListGroups, 0, 5, (*Server).listGroups),
	ordinary(kmsg.DeleteGroups, 0, 3, (*Server).deleteGroups),
	ordinary(kmsg.OffsetDelete, 0, 0, (*Server).offsetDelete),
	brief(ordinary(kmsg.ConsumerGroupHeartbeat, 0, 1, (*Server).consumerGroupHeartbeat)),
	ordinary(kmsg.ConsumerGroupDescribe, 0, 1, (*Server).consumerGroupDescribe),
}

// groupOperations are the operations on a group that a client may perform, in Kafka's
// bits: everybody may do everything.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

// operationsOnGroup is what an answer says of them.
func operationsOnGroup(asked bool) int32 {
	if asked {
		return groupOperations
	}
	return operationsNotAsked
}

// hostOf is an address as Kafka tells it of members: "/" and the IP.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "/"
	}
	return "/" + host
}

// park returns the context of a request that may be held until others have done
// something: it ends with the connection, and when the server drains, as the group
// then has to find another coordinator. Until it is answered the request is counted as
// no memory, if it is small: what there is for all requests could else be held by
// members that wait for one whose request there is no memory for. Its bytes are lent
// to others: what is kept of them was copied before.
func (p *peer) park(ctx context.Context) (context.Context, context.CancelFunc) {
	if q := p.req; q.held <= intake.SmallBytes {
		q.recycle()
		q.letGo()
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.conn.s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// placed is a topic that requests about offsets name.
type placed struct {
	name       string
	id         broker.TopicID // zero: not known
	partitions int
}

// placedByID returns the topic of an id. That of another node's knowledge is unknown
// here, and clients ask again.
func (s *Server) placedByID(id broker.TopicID) (placed, *errcode.Error) {
	t, err := s.broker.TopicByID(id)
	if err != nil {
		return placed{}, errcode.Errorf(errcode.UnknownTopicID, "This server does not host this topic ID.")
	}
	return placed{t.Name, t.ID, t.Partitions}, nil
}

// placedByName returns the topic of a name.
func (s *Server) placedByName(name string) (placed, *errcode.Error) {
	t, err := s.broker.TopicByName(name)
	if err != nil {
		return placed{name: name}, errcode.Errorf(errcode.UnknownTopicOrPartition, notHosted)
	}
	return placed{name, t.ID, t.Partitions}, nil
}

// has returns what is wrong with a partition of the topic.
func (t *placed) has(partition int32) *errcode.Error {
	if partition < 0 || int(partition) >= t.partitions {
		return errcode.Errorf(errcode.UnknownTopicOrPartition, notHosted)
	}
	return nil
}

// optional is a string that is null when it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// required is a string that is empty when it is null.
func required(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
