package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// maxTopicsAnswered and maxPartitionsAnswered bound one answer; the client asks
// for the rest.
const (
	maxTopicsAnswered     = 1000
	maxPartitionsAnswered = 25_000 // at most 20 bytes each, in a header of 1 MiB
)

func (q *request) metadata(m *pb.MetadataRequest) (proto.Message, error) {
	if m.All && (len(m.Names) > 0 || len(m.TopicIds) > 0) || !m.All && m.After != "" {
		return nil, errcode.Errorf(errcode.InvalidRequest, "all excludes names and topic ids, and only all has after")
	}
	b := q.s.opt.Broker
	if err := b.Knows(); err != nil {
		return nil, err
	}
	resp := &pb.MetadataResponse{ClusterId: b.ClusterID()}
	for _, n := range b.Nodes(q.via.Name) {
		resp.Nodes = append(resp.Nodes, &pb.Node{Id: n.ID, Address: n.Address})
	}
	partitions := 0
	full := func() bool {
		return len(resp.Topics) >= maxTopicsAnswered || partitions >= maxPartitionsAnswered
	}
	add := func(t broker.Topic, err *errcode.Error) {
		resp.Topics = append(resp.Topics, q.topic(t, err))
		partitions += t.Partitions
	}
	if m.All {
		for t := range b.Topics(m.After) {
			if resp.More = full(); resp.More {
				break
			}
			add(t, nil)
		}
		return resp, nil
	}
	for _, name := range m.Names {
		if resp.More = full(); resp.More {
			return resp, nil
		}
		t, err := b.TopicByName(name)
		t.Name = name
		add(t, err)
	}
	for _, raw := range m.TopicIds {
		if resp.More = full(); resp.More {
			return resp, nil
		}
		id, err := topicID(raw)
		if err != nil {
			return nil, err
		}
		t, missing := b.TopicByID(id)
		t.ID = id
		add(t, missing)
	}
	return resp, nil
}

func (q *request) topic(t broker.Topic, err *errcode.Error) *pb.Topic {
	out := &pb.Topic{Name: t.Name, Error: q.pbError(err)}
	if t.ID != (broker.TopicID{}) {
		out.TopicId = t.ID[:]
	}
	for _, p := range q.s.opt.Broker.Leaders(&t, 0, t.Partitions) {
		out.Leaders = append(out.Leaders, p.Node)
		out.LeaderEpochs = append(out.LeaderEpochs, p.Epoch)
	}
	return out
}

func (q *request) createTopic(ctx context.Context, m *pb.CreateTopicRequest) (proto.Message, error) {
	configs, err := configMap(m.Configs)
	if err != nil {
		return nil, err
	}
	spec := broker.TopicSpec{
		Name: m.Name, Partitions: m.Partitions, Replication: m.ReplicationFactor,
		Configs: configs, ValidateOnly: m.ValidateOnly,
	}
	t, err := q.s.opt.Broker.CreateTopic(ctx, spec)
	if err != nil {
		return nil, err
	}
	resp := &pb.CreateTopicResponse{Partitions: int32(t.Partitions)}
	if !m.ValidateOnly {
		resp.TopicId = t.ID[:]
	}
	return resp, nil
}

func configMap(configs []*pb.Config) (map[string]string, error) {
	m := make(map[string]string, len(configs))
	for _, c := range configs {
		if _, twice := m[c.Name]; twice {
			return nil, errcode.Errorf(errcode.InvalidRequest, "config %s is given twice", c.Name)
		}
		m[c.Name] = c.Value
	}
	return m, nil
}

// named returns the topic that a request names by exactly one of name and id.
func (q *request) named(name string, rawID []byte) (broker.Topic, error) {
	if (name == "") == (len(rawID) == 0) {
		return broker.Topic{}, errcode.Errorf(errcode.InvalidRequest, "give the topic's name or its id")
	}
	var t broker.Topic
	var missing *errcode.Error
	if name != "" {
		t, missing = q.s.opt.Broker.TopicByName(name)
	} else {
		id, err := topicID(rawID)
		if err != nil {
			return broker.Topic{}, err
		}
		t, missing = q.s.opt.Broker.TopicByID(id)
	}
	if missing != nil {
		return broker.Topic{}, missing
	}
	return t, nil
}

func (q *request) deleteTopic(ctx context.Context, m *pb.DeleteTopicRequest) (proto.Message, error) {
	// Whether there is such a topic, only the controller can tell for certain.
	if err := q.s.opt.Broker.ConfirmController(ctx); err != nil {
		return nil, err
	}
	t, err := q.named(m.Name, m.TopicId)
	if err != nil {
		return nil, err
	}
	return &pb.DeleteTopicResponse{}, q.s.opt.Broker.DeleteTopic(ctx, t.ID)
}

func (q *request) describeTopic(m *pb.DescribeTopicRequest) (proto.Message, error) {
	t, err := q.named(m.Name, m.TopicId)
	if err != nil {
		return nil, err
	}
	if m.FirstPartition < 0 || int(m.FirstPartition) > t.Partitions {
		return nil, errcode.Errorf(errcode.InvalidRequest, "first partition %d of %d", m.FirstPartition, t.Partitions)
	}
	resp := &pb.DescribeTopicResponse{Name: t.Name, TopicId: t.ID[:], PartitionCount: int32(t.Partitions)}
	resp.Configs = pbConfigs(q.s.opt.Broker.TopicConfigs(t.ID))
	for i := m.FirstPartition; int(i) < t.Partitions; i++ {
		if resp.More = len(resp.Partitions) == maxTopicsAnswered; resp.More {
			break
		}
		p := q.s.opt.Broker.DescribePartition(t.ID, i)
		resp.Partitions = append(resp.Partitions, &pb.PartitionDetail{
			Partition: i, Leader: p.Node, LeaderEpoch: p.Epoch, Shard: p.Shard,
			LogStartOffset: p.LogStart, HighWatermark: p.HighWatermark, SizeBytes: p.DiskBytes, UnlinkBytes: p.UnlinkBytes,
		})
	}
	return resp, nil
}

func (q *request) initProducer(ctx context.Context, m *pb.InitProducerRequest) (proto.Message, error) {
	current := broker.Producer{ID: -1}
	if m.Current != nil {
		if m.Current.Id < 0 {
			return nil, errcode.Errorf(errcode.InvalidRequest, "producer id %d; leave current out for a new id", m.Current.Id)
		}
		current = broker.Producer{ID: m.Current.Id, Epoch: m.Current.Epoch}
	}
	p, err := q.s.opt.Broker.InitProducer(ctx, current)
	if err != nil {
		return nil, err
	}
	return &pb.InitProducerResponse{Producer: &pb.Producer{Id: p.ID, Epoch: p.Epoch}}, nil
}
