package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// createPartitions gives topics more partitions, one topic after the other.
func (s *Server) createPartitions(ctx context.Context, p *peer, req *kmsg.CreatePartitionsRequest) kmsg.Response {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	resp.Version = req.Version
	ctx, cancel := forMS(ctx, req.TimeoutMillis)
	defer cancel()
	if !p.hold(ctx, resultBytes*int64(len(req.Topics))) {
		return nil
	}
	unconfirmed := coded(s.broker.ConfirmController(ctx))
	twice := repeated(req.Topics, func(t *kmsg.CreatePartitionsRequestTopic) string { return t.Topic })
	for i := range req.Topics {
		t := &req.Topics[i]
		err := unconfirmed
		if first, named := twice[t.Topic]; named && !first {
			continue
		} else if named {
			twice[t.Topic] = false
			err = errcode.Errorf(errcode.InvalidRequest, "Duplicate topic name.")
		} else if err == nil {
			err = s.addPartitions(ctx, t, req.ValidateOnly)
		}
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic, out.ErrorCode, out.ErrorMessage = t.Topic, p.error(err), text(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) addPartitions(ctx context.Context, t *kmsg.CreatePartitionsRequestTopic, validateOnly bool) *errcode.Error {
	topic, err := s.existing(t.Topic)
	if err != nil {
		return err
	}
	have := int32(topic.Partitions)
	switch {
	case t.Count == have:
		return errcode.Errorf(errcode.InvalidPartitions, "Topic already has %d partition(s).", have)
	case t.Count < have:
		return errcode.Errorf(errcode.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Topic, have, t.Count)
	}
	var wanted [][]int32
	if t.Assignment != nil {
		if more := t.Count - have; int(more) != len(t.Assignment) {
			return errcode.Errorf(errcode.InvalidReplicaAssignment,
				"Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", more, len(t.Assignment))
		}
		replicas := 0
		for _, l := range s.broker.Leaders(&topic, 0, 1) {
			replicas = len(l.Replicas)
		}
		for _, a := range t.Assignment {
			if err := s.checkReplicas(a.Replicas, replicas); err != nil {
				return err
			}
			wanted = append(wanted, a.Replicas)
		}
	}
	_, failed := s.broker.AddPartitions(ctx, topic.ID, t.Count, wanted, validateOnly)
	return byName(coded(failed))
}
