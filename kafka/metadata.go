package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Kafka's bit fields of the operations that a client may perform. There are no
// access rules yet: everybody may do everything.
const (
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12

	// operationsNotAsked stands in an answer to who has not asked.
	operationsNotAsked = math.MinInt32
)

// Rough sizes of a Metadata answer's parts as they lie in memory, to count it
// before it is made.
const (
	topicAnswerBytes     = 256
	partitionAnswerBytes = 192
)

// metadata answers with the nodes and some topics, or all.
//
// From version 10 on topics have ids, and from 12 on they can be asked for by
// id. A topic that does not exist is created if the node's settings and the
// request allow it, and is then there in the answer.
func (s *Server) metadata(ctx context.Context, p *peer, req *kmsg.MetadataRequest) kmsg.Response {
	s.checkAdvertised(p)
	if err := checkMetadata(req); err != nil {
		return refuseMetadata(p, req, err)
	}
	if err := s.broker.Knows(); err != nil {
		return refuseMetadata(p, req, broker.CodeOf(err))
	}
	asked := distinct(req.Topics, askedTopicOf)
	if !wantsAll(req) {
		s.awaitLeaders(ctx, asked)
	}
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = req.Version
	cluster := s.broker.ClusterID()
	resp.ClusterID = &cluster
	for _, n := range s.nodes(p) {
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack = n.ID, n.host, n.port, n.rack
		resp.Brokers = append(resp.Brokers, b)
	}
	resp.ControllerID = s.controller(p)
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	operations := int32(operationsNotAsked)
	if req.IncludeTopicAuthorizedOperations {
		operations = topicOperations
	}
	if !p.hold(ctx, s.metadataBytes(req, asked)) {
		return nil
	}
	if wantsAll(req) {
		for t := range s.broker.Topics("") {
			resp.Topics = append(resp.Topics, s.metadataTopic(p, &t, nil, operations))
		}
		return resp
	}
	create := s.opt.AutoCreateTopics && (req.AllowAutoTopicCreation || req.Version < 4)
	ctx, cancel := context.WithTimeout(ctx, s.opt.AutoCreateTimeout) // for all of them
	defer cancel()
	look := s.broker.Lookup()
	for i := range asked {
		t, err := s.askedTopic(ctx, look, &asked[i], create)
		resp.Topics = append(resp.Topics, s.metadataTopic(p, &t, err, operations))
	}
	return resp
}

// awaitLeaders waits while partitions of the topics that are asked for are about to
// have other leaders, but not while the server drains. A client that wants all
// topics wants to know what there is.
func (s *Server) awaitLeaders(ctx context.Context, asked []kmsg.MetadataRequestTopic) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.broker.AwaitLeaders(ctx, func(yield func(broker.Topic) bool) {
		for i := range asked {
			if t, err := s.knownTopic(&asked[i]); err == nil && !yield(t) {
				return
			}
		}
	})
}

// metadataBytes is about what the answer takes in memory.
func (s *Server) metadataBytes(req *kmsg.MetadataRequest, asked []kmsg.MetadataRequestTopic) int64 {
	topics, partitions := len(asked), 0
	if wantsAll(req) {
		topics, partitions = s.broker.Counts()
	}
	for i := range asked {
		name := ""
		if asked[i].Topic != nil {
			name = *asked[i].Topic
		}
		partitions += s.broker.PartitionCount(name, asked[i].TopicID)
	}
	return int64(topics)*topicAnswerBytes + int64(partitions)*partitionAnswerBytes
}

// wantsAll reports whether all topics are asked for: by null, or in version 0,
// which has none, by an empty list.
func wantsAll(req *kmsg.MetadataRequest) bool {
	return req.Topics == nil || req.Version == 0 && len(req.Topics) == 0
}

// checkMetadata refuses what the fields of a version can say and its meaning
// cannot.
func checkMetadata(req *kmsg.MetadataRequest) *errcode.Error {
	for i := range req.Topics {
		t := &req.Topics[i]
		switch {
		case t.Topic == nil && req.Version < 12:
			return errcode.Errorf(errcode.InvalidRequest, "topic name can not be null for version %d", req.Version)
		case t.TopicID != [16]byte{} && req.Version < 12:
			return errcode.Errorf(errcode.InvalidRequest, "topic ids are not supported in requests for version %d", req.Version)
		case t.Topic == nil && t.TopicID == [16]byte{}:
			return errcode.Errorf(errcode.InvalidRequest, "a topic without name and id")
		}
	}
	return nil
}

// refuseMetadata answers an error for each topic that was asked for.
func refuseMetadata(p *peer, req *kmsg.MetadataRequest, err *errcode.Error) kmsg.Response {
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = req.Version
	code := p.error(err)
	resp.ErrorCode = code
	for i := range req.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.ErrorCode, t.Topic, t.TopicID = code, req.Topics[i].Topic, req.Topics[i].TopicID
		if t.Topic == nil {
			t.Topic = new(string)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// askedTopicOf is the topic that an entry of a Metadata request asks for.
func askedTopicOf(t *kmsg.MetadataRequestTopic) topicRef {
	if t.TopicID != [16]byte{} {
		return topicRef{id: t.TopicID}
	}
	return topicRef{name: *t.Topic}
}

// metadataTopic is one topic, or why there is none, in a Metadata answer.
func (s *Server) metadataTopic(p *peer, t *broker.Topic, err *errcode.Error, operations int32) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.ErrorCode, out.TopicID, out.IsInternal = p.error(err), t.ID, isInternal(t.Name)
	if t.Name != "" || t.ID == (broker.TopicID{}) {
		out.Topic = &t.Name
	}
	if err != nil {
		return out
	}
	out.AuthorizedOperations = operations
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, t.Partitions)
	for i, from := range s.broker.Leaders(t, 0, t.Partitions) {
		to := kmsg.NewMetadataResponseTopicPartition()
		to.Partition, to.Leader, to.LeaderEpoch = i, from.Node, from.Epoch
		to.Replicas, to.ISR, to.OfflineReplicas = from.Replicas, from.InSync, from.Offline
		if from.Node < 0 {
			to.ErrorCode = int16(errcode.LeaderNotAvailable)
		}
		out.Partitions = append(out.Partitions, to)
	}
	return out
}

// isInternal reports whether a name is one of Kafka's own topics.
func isInternal(name string) bool {
	return name == "__consumer_offsets" || name == "__transaction_state" || name == "__share_group_state"
}

// knownTopic returns a topic that this node knows, by its id or its name.
func (s *Server) knownTopic(asked *kmsg.MetadataRequestTopic) (broker.Topic, *errcode.Error) {
	if asked.TopicID == [16]byte{} {
		return s.broker.TopicByName(*asked.Topic)
	}
	return s.broker.TopicByID(asked.TopicID)
}

// askedTopic returns a topic by its id, or as topicByName does.
func (s *Server) askedTopic(ctx context.Context, look *broker.Lookup, asked *kmsg.MetadataRequestTopic, create bool) (broker.Topic, *errcode.Error) {
	if asked.TopicID == [16]byte{} {
		return s.topicByName(ctx, look, *asked.Topic, create)
	}
	t, err := look.ByID(ctx, asked.TopicID)
	t.ID = asked.TopicID
	return t, err
}

// topicByName returns a topic, which is created if it does not exist and create
// says so, or why there is none.
func (s *Server) topicByName(ctx context.Context, look *broker.Lookup, name string, create bool) (broker.Topic, *errcode.Error) {
	t, err := s.broker.TopicByName(name)
	// A node that may be behind does not know whether the topic exists.
	if err != nil && (err.Code == errcode.UnknownTopicOrPartition || err.Code == errcode.LeaderNotAvailable) {
		if create && !isInternal(name) {
			t, err = s.createAsked(ctx, name)
		} else {
			t, err = look.ByName(ctx, name)
		}
	}
	t.Name = name
	return t, err
}

// createAsked creates a topic that a Metadata request asked for, unless it is
// there by now.
func (s *Server) createAsked(ctx context.Context, name string) (broker.Topic, *errcode.Error) {
	t, failed := s.broker.EnsureTopic(ctx, name)
	if failed == nil {
		return t, nil
	}
	err := broker.CodeOf(failed)
	switch err.Code {
	case errcode.NotController, errcode.RequestTimedOut:
		// Not this answer's to give; the client asks again.
		return t, &errcode.Error{Code: errcode.LeaderNotAvailable, Detail: err.Detail}
	}
	s.log.Warn("a topic that a client asked for was not created", "topic", name, "err", err)
	return t, err
}

// brokerNode is a node as Kafka's answers have it.
type brokerNode struct {
	ID   int32
	host string
	port int32
	rack *string
}

// nodes returns the cluster's nodes by id, with their addresses for clients of
// the peer's listener.
func (s *Server) nodes(p *peer) []brokerNode {
	var out []brokerNode
	for _, n := range s.broker.Nodes(p.listener().Name) {
		b := brokerNode{ID: n.ID}
		b.host, b.port = hostPort(n.Address)
		if n.Rack != "" {
			b.rack = &n.Rack
		}
		out = append(out, b)
	}
	return out
}

// controller returns the node that leads the metadata, -1 if it is not known.
func (s *Server) controller(p *peer) int32 {
	if l, ok := s.broker.Controller(p.listener().Name); ok {
		return l.Node
	}
	return -1
}
