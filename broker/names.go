package broker

import (
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// MaxTopicNameBytes is the length of the longest topic name.
const MaxTopicNameBytes = metadata.MaxTopicNameBytes

// TopicIDOf returns the id of the topic of a name, or why there is none. It is
// TopicByName for who needs nothing else of it.
func (b *Broker) TopicIDOf(name string) (TopicID, *errcode.Error) {
	if t := b.image().TopicByName(name); t != nil {
		return TopicID(t.ID), nil
	}
	_, err := b.TopicByName(name)
	if err == nil { // created in between
		return b.TopicIDOf(name)
	}
	return TopicID{}, err
}

// HasPartition says why there is no such partition, if there is none.
func (b *Broker) HasPartition(topic TopicID, index int32) *errcode.Error {
	t := b.image().TopicByID(metadata.TopicID(topic))
	if t != nil && index >= 0 && int(index) < len(t.Assignment) {
		return nil
	}
	return b.absent(topic, index)
}
