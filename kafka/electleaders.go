package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Types of elections.
const (
	electPreferred = 0
	electUnclean   = 1
)

// electLeaders has partitions led by the nodes that are to lead them (KIP-460). A
// leader leads all partitions of a shard, so those that share one with a partition
// that is asked for move with it. Without a list, all partitions are asked for, and
// those that are led so already are left out of the answer.
//
// Version 0 has no type, and no error but those of partitions. In the others, too, an
// election is refused of each partition: the answer's own error has no text, and of
// INVALID_REQUEST the Java client then says that it is a malformed request.
func (s *Server) electLeaders(ctx context.Context, p *peer, req *kmsg.ElectLeadersRequest) kmsg.Response {
	resp := kmsg.NewPtrElectLeadersResponse()
	resp.Version = req.Version
	ctx, cancel := forMS(ctx, req.TimeoutMillis)
	defer cancel()
	asked := s.askedElections(req)
	if !p.hold(ctx, asked) {
		return nil
	}
	e := elections{s: s, ctx: ctx, outcomes: make(map[uint32]*errcode.Error)}
	switch err := coded(s.broker.ConfirmController(ctx)); {
	case err != nil:
		resp.ErrorCode, e.refused = p.error(err), err
	case req.Version >= 1 && req.ElectionType == electUnclean:
		e.refused = errcode.Errorf(errcode.InvalidRequest,
			"A leader has all records that were acknowledged: there are no unclean elections. docs/operations.md says what to do when most replicas are lost.")
	case req.Version >= 1 && req.ElectionType != electPreferred:
		e.refused = errcode.Errorf(errcode.InvalidRequest, "Unknown election type %d.", req.ElectionType)
	}
	if req.Topics == nil && resp.ErrorCode == 0 {
		for t := range s.broker.Topics("") {
			resp.Topics = e.appendAll(p, resp.Topics, &t)
		}
	}
	for i := range req.Topics {
		resp.Topics = append(resp.Topics, e.of(p, &req.Topics[i]))
	}
	return resp
}

// askedElections is about what the answer takes in memory.
func (s *Server) askedElections(req *kmsg.ElectLeadersRequest) int64 {
	if req.Topics != nil {
		return resultBytes * asked(req.Topics, func(t *kmsg.ElectLeadersRequestTopic) int { return len(t.Partitions) })
	}
	topics, partitions := s.broker.Counts()
	return resultBytes * int64(topics+partitions)
}

// elections are those of one request: one for each shard.
type elections struct {
	s        *Server
	ctx      context.Context
	refused  *errcode.Error            // why there are none
	outcomes map[uint32]*errcode.Error // by shard; nil: held
}

// on holds the election of a shard, unless that was done.
func (e *elections) on(shard uint32) *errcode.Error {
	err, held := e.outcomes[shard]
	if !held {
		err = coded(e.s.broker.ElectPreferred(e.ctx, shard))
		e.outcomes[shard] = err
	}
	return err
}

// of answers the partitions that are asked for of a topic.
func (e *elections) of(p *peer, rt *kmsg.ElectLeadersRequestTopic) kmsg.ElectLeadersResponseTopic {
	out := kmsg.NewElectLeadersResponseTopic()
	out.Topic = rt.Topic
	topic, missing := e.s.existing(rt.Topic)
	for _, index := range rt.Partitions {
		err := e.refused
		if err == nil {
			err = missing
		}
		if err == nil {
			if shard, ok := topic.Shard(index); ok {
				err = e.on(shard)
			} else {
				err = errcode.Errorf(errcode.UnknownTopicOrPartition, notHosted)
			}
		}
		out.Partitions = append(out.Partitions, election(p, index, err))
	}
	return out
}

// appendAll appends the partitions of a topic that had to move.
func (e *elections) appendAll(p *peer, to []kmsg.ElectLeadersResponseTopic, topic *broker.Topic) []kmsg.ElectLeadersResponseTopic {
	out := kmsg.NewElectLeadersResponseTopic()
	out.Topic = topic.Name
	for index := range int32(topic.Partitions) {
		shard, ok := topic.Shard(index)
		if !ok {
			continue
		}
		err := e.refused
		if err == nil {
			err = e.on(shard)
		}
		if err == nil || err.Code != errcode.ElectionNotNeeded {
			out.Partitions = append(out.Partitions, election(p, index, err))
		}
	}
	if len(out.Partitions) == 0 {
		return to
	}
	return append(to, out)
}

func election(p *peer, index int32, err *errcode.Error) kmsg.ElectLeadersResponseTopicPartition {
	out := kmsg.NewElectLeadersResponseTopicPartition()
	out.Partition, out.ErrorCode, out.ErrorMessage = index, p.error(err), text(err)
	return out
}
