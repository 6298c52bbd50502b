package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// metadataLog is the name of Kafka's own log of metadata.
const metadataLog = "__cluster_metadata"

// createTopics creates topics, one after the other, each whole or not at all.
//
// Version 5 answers partitions, replicas and configs too, and 7 the topic's id;
// with validate_only it is zero.
func (s *Server) createTopics(ctx context.Context, p *peer, req *kmsg.CreateTopicsRequest) kmsg.Response {
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = req.Version
	each := int64(resultBytes)
	if req.Version >= 5 {
		each += configBytes * int64(len(broker.ConfigsWith(nil)))
	}
	ctx, cancel := forMS(ctx, req.TimeoutMillis)
	defer cancel()
	if !p.hold(ctx, each*int64(len(req.Topics))) {
		return nil
	}
	twice := repeated(req.Topics, func(t *kmsg.CreateTopicsRequestTopic) string { return t.Topic })
	for i := range req.Topics {
		t := &req.Topics[i]
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic = t.Topic
		out.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // not null, with an error
		first, named := twice[t.Topic]
		var err *errcode.Error
		switch {
		case named && !first:
			continue
		case named:
			twice[t.Topic] = false
			err = errcode.Errorf(errcode.InvalidRequest, "Duplicate topic name.")
		default:
			err = s.createTopic(ctx, t, req.ValidateOnly, &out)
		}
		out.ErrorCode, out.ErrorMessage = p.error(err), text(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// createTopic creates one topic, and puts what it is into out.
func (s *Server) createTopic(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool, out *kmsg.CreateTopicsResponseTopic) *errcode.Error {
	spec, err := s.topicSpec(t)
	if err != nil {
		return err
	}
	spec.ValidateOnly = validateOnly
	created, failed := s.broker.CreateTopic(ctx, spec)
	if failed != nil {
		return broker.CodeOf(failed)
	}
	out.TopicID = created.ID
	out.NumPartitions, out.ReplicationFactor = spec.Partitions, int16(spec.Replication)
	for _, c := range broker.ConfigsWith(spec.Configs) {
		out.Configs = append(out.Configs, kmsg.CreateTopicsResponseTopicConfig{
			Name: c.Key, Value: &c.Value, Source: int8(sourceOf(&c)),
		})
	}
	return nil
}

// topicSpec is what a request asks for, with the node's defaults in it. What the
// broker checks is left to it.
func (s *Server) topicSpec(t *kmsg.CreateTopicsRequestTopic) (broker.TopicSpec, *errcode.Error) {
	spec := broker.TopicSpec{
		Name: t.Topic, Partitions: t.NumPartitions, Replication: int32(t.ReplicationFactor),
		Configs: make(map[string]string, len(t.Configs)),
	}
	if t.Topic == metadataLog || isInternal(t.Topic) {
		return spec, errcode.Errorf(errcode.InvalidRequest, "Creation of internal topic %s is prohibited.", t.Topic)
	}
	for _, c := range t.Configs {
		if c.Value == nil {
			return spec, errcode.Errorf(errcode.InvalidConfig, "Null value not supported for topic configs: %s", c.Name)
		}
		spec.Configs[c.Name] = *c.Value
	}
	partitions, replication := s.broker.TopicDefaults()
	if len(t.ReplicaAssignment) > 0 {
		if err := s.broker.CheckTopic(spec.Name, spec.Configs); err != nil {
			return spec, err // before anything about partitions, as in Kafka
		}
		var err *errcode.Error
		if partitions, replication, err = s.assigned(t); err != nil {
			return spec, err
		}
		spec.Replicas = make([][]int32, partitions)
		for _, a := range t.ReplicaAssignment {
			spec.Replicas[a.Partition] = a.Replicas
		}
	}
	// The broker takes 0 for the default, and Kafka -1.
	switch spec.Partitions {
	case -1:
		spec.Partitions = partitions
	case 0:
		spec.Partitions = -1
	}
	switch spec.Replication {
	case -1:
		spec.Replication = replication
	case 0:
		spec.Replication = -2
	}
	return spec, nil
}

// assigned returns how many partitions and replicas a manual assignment gives a
// topic. Which nodes carry a partition is its shard's: an assignment is taken if
// there is a shard of just these nodes, whatever their order.
func (s *Server) assigned(t *kmsg.CreateTopicsRequestTopic) (partitions, replication int32, err *errcode.Error) {
	invalid := func(format string, args ...any) (int32, int32, *errcode.Error) {
		return 0, 0, errcode.Errorf(errcode.InvalidReplicaAssignment, format, args...)
	}
	if t.ReplicationFactor != -1 {
		return 0, 0, errcode.Errorf(errcode.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.NumPartitions != -1 {
		return 0, 0, errcode.Errorf(errcode.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	count := len(t.ReplicaAssignment)
	given := make([]bool, count)
	replicas := len(t.ReplicaAssignment[0].Replicas)
	for _, a := range t.ReplicaAssignment {
		if a.Partition >= 0 && int(a.Partition) < count && given[a.Partition] {
			return invalid("Found multiple manual partition assignments for partition %d", a.Partition)
		}
		if err := s.checkReplicas(a.Replicas, replicas); err != nil {
			return 0, 0, err
		}
		if a.Partition < 0 || int(a.Partition) >= count {
			return invalid("partitions should be a consecutive 0-based integer sequence")
		}
		given[a.Partition] = true
	}
	return int32(count), int32(replicas), nil
}

// checkReplicas checks the nodes that one partition is assigned to, of which
// there are to be want.
func (s *Server) checkReplicas(ids []int32, want int) *errcode.Error {
	if len(ids) == 0 {
		return errcode.Errorf(errcode.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	nodes := s.broker.NodeIDs()
	sorted := slices.Sorted(slices.Values(ids))
	for i, id := range sorted {
		if !slices.Contains(nodes, id) {
			return errcode.Errorf(errcode.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
		if i > 0 && sorted[i-1] == id {
			return errcode.Errorf(errcode.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
	}
	if len(ids) != want {
		return errcode.Errorf(errcode.InvalidReplicaAssignment,
			"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(ids), want)
	}
	return nil
}
