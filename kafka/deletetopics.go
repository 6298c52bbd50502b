package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// deleteTopics deletes topics, one after the other. Version 6 names them by name
// or id; error messages are answered from version 5 on.
func (s *Server) deleteTopics(ctx context.Context, p *peer, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	resp.Version = req.Version
	topics := req.Topics
	if req.Version < 6 {
		topics = make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
		for i := range topics {
			topics[i].Topic = &req.TopicNames[i]
		}
	}
	ctx, cancel := forMS(ctx, req.TimeoutMillis)
	defer cancel()
	if !p.hold(ctx, resultBytes*int64(len(topics))) {
		return nil
	}
	// Whether there is such a topic, only the controller can tell for certain.
	unconfirmed := coded(s.broker.ConfirmController(ctx))
	type key struct {
		name string
		id   broker.TopicID
	}
	keyOf := func(t *kmsg.DeleteTopicsRequestTopic) key {
		k := key{id: t.TopicID}
		if t.Topic != nil {
			k.name = *t.Topic
		}
		return k
	}
	twice := repeated(topics, keyOf)
	for i := range topics {
		t := &topics[i]
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = t.Topic, t.TopicID
		err := unconfirmed
		if first, named := twice[keyOf(t)]; named && !first {
			continue
		} else if named {
			twice[keyOf(t)] = false
			err = duplicateTopic(t)
		} else if err == nil {
			err = s.deleteTopic(ctx, t, &out)
		}
		out.ErrorCode, out.ErrorMessage = p.error(err), text(err)
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// checkNamed refuses a topic that is not named in one of the two ways.
func checkNamed(t *kmsg.DeleteTopicsRequestTopic) *errcode.Error {
	byID := t.TopicID != [16]byte{}
	switch {
	case t.Topic == nil && !byID:
		return errcode.Errorf(errcode.InvalidRequest, "Neither topic name nor id were specified.")
	case t.Topic != nil && byID:
		return errcode.Errorf(errcode.InvalidRequest, "You may not specify both topic name and topic id.")
	}
	return nil
}

func duplicateTopic(t *kmsg.DeleteTopicsRequestTopic) *errcode.Error {
	if err := checkNamed(t); err != nil {
		return err
	}
	if t.Topic == nil {
		return errcode.Errorf(errcode.InvalidRequest, "Duplicate topic id.")
	}
	return errcode.Errorf(errcode.InvalidRequest, "Duplicate topic name.")
}

// deleteTopic deletes one topic, and puts what it was into out.
func (s *Server) deleteTopic(ctx context.Context, t *kmsg.DeleteTopicsRequestTopic, out *kmsg.DeleteTopicsResponseTopic) *errcode.Error {
	if err := checkNamed(t); err != nil {
		return err
	}
	var name string
	var id broker.TopicID
	var err *errcode.Error
	if t.Topic != nil {
		name = *t.Topic
		id, err = s.existingID(name)
	} else {
		var topic broker.Topic
		if topic, err = s.broker.TopicByID(t.TopicID); err != nil && err.Code == errcode.UnknownTopicID {
			err = errcode.Errorf(errcode.UnknownTopicID, "This server does not host this topic ID.")
		}
		name, id = topic.Name, topic.ID
	}
	if err != nil {
		return err
	}
	if err = coded(s.broker.DeleteTopic(ctx, id)); err != nil {
		if t.Topic != nil {
			err = byName(err)
		}
		return err
	}
	out.Topic, out.TopicID = &name, id
	return nil
}
