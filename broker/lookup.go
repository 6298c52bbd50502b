package broker

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodCurrent asks the node that leads the metadata how far it is. It is answered
// as methodPropose is: index is that of the newest change that was acknowledged before
// the call, or of a later one.
const methodCurrent transport.Method = 9

// currentTimeout bounds how long a request waits to learn whether this node knows all
// of the metadata. Clients that are told that it may not ask again, or elsewhere.
const currentTimeout = time.Second

// Lookup looks up topics for one request, and makes sure: of a topic that this node
// does not know it says that there is none only if it then knows all of the metadata
// that was acknowledged before (R17). It finds that out once for all topics, and
// takes up to currentTimeout for it.
//
// Not safe for concurrent use.
type Lookup struct {
	b       *Broker
	asked   bool
	current bool
}

// Lookup begins to look up topics.
func (b *Broker) Lookup() *Lookup { return &Lookup{b: b} }

// ByName returns a topic, or why there is none: LEADER_NOT_AVAILABLE if that cannot be
// found out now.
func (l *Lookup) ByName(ctx context.Context, name string) (Topic, *errcode.Error) {
	t, err := l.b.TopicByName(name)
	if err != nil && err.Code == errcode.LeaderNotAvailable && l.catchUp(ctx) {
		return l.b.knownByName(name, true)
	}
	return t, err
}

// ByID is ByName for the id of a topic.
func (l *Lookup) ByID(ctx context.Context, id partition.TopicID) (Topic, *errcode.Error) {
	t, err := l.b.TopicByID(id)
	if err != nil && err.Code == errcode.LeaderNotAvailable && l.catchUp(ctx) {
		return l.b.knownByID(id, true)
	}
	return t, err
}

// catchUp reports whether this node knows all that was acknowledged when it was
// called first.
func (l *Lookup) catchUp(ctx context.Context) bool {
	if !l.asked {
		l.asked, l.current = true, l.b.awaitCurrent(ctx) == nil
	}
	return l.current
}

// awaitCurrent waits until this node has applied all of the metadata that was
// acknowledged before the call, but no longer than currentTimeout.
func (b *Broker) awaitCurrent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, currentTimeout)
	defer cancel()
	done, err := b.atLeader(ctx, methodCurrent, nil, b.currentHere)
	if err != nil {
		return err
	}
	return b.awaitApplied(ctx, done.index)
}

// currentHere is how far the metadata is, if this node leads it.
func (b *Broker) currentHere(ctx context.Context) forwarded {
	if err := b.ConfirmController(ctx); err != nil {
		return forwarded{err: CodeOf(err), producerID: -1, leader: -1}
	}
	return forwarded{index: b.meta.Applied(), producerID: -1, leader: -1}
}

// knownByName returns a topic that this node knows. Of another one it says that there
// is none if it is current, and else that it may be behind.
func (b *Broker) knownByName(name string, current bool) (Topic, *errcode.Error) {
	if err := metadata.CheckTopicName(name); err != nil {
		return Topic{}, err
	}
	t := b.image().TopicByName(name)
	switch {
	case t != nil:
		return topicOf(t), nil
	case current:
		return Topic{}, errcode.Errorf(errcode.UnknownTopicOrPartition, "topic %s does not exist; create it first", name)
	}
	return Topic{}, errcode.Errorf(errcode.LeaderNotAvailable, "topic %s is not known to this node, which may be behind; ask another", name)
}

// knownByID is knownByName for the id of a topic.
func (b *Broker) knownByID(id partition.TopicID, current bool) (Topic, *errcode.Error) {
	t := b.image().TopicByID(metadata.TopicID(id))
	switch {
	case t != nil:
		return topicOf(t), nil
	case current:
		return Topic{}, errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s", id)
	}
	return Topic{}, errcode.Errorf(errcode.LeaderNotAvailable, "no topic with the id %s is known to this node, which may be behind; ask another", id)
}
