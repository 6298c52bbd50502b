package killtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/history"
)

// segmentBytes is the least that a topic may be set to.
const segmentBytes = 1 << 20

// maxBatchBytes is the largest batch that the topics take.
const maxBatchBytes = maxPayloadBytes + 4096

func topicSpec(name string, partitions int32) client.TopicSpec {
	return client.TopicSpec{Name: name, Partitions: partitions, Configs: map[string]string{
		"segment.bytes": fmt.Sprint(segmentBytes), "max.message.bytes": fmt.Sprint(maxBatchBytes),
	}}
}

// beliefs is which topics the administrators think there are, so that they do
// not spend their time on asking for what cannot be.
type beliefs struct {
	mu     sync.Mutex
	exists map[string]bool
}

func newBeliefs() *beliefs { return &beliefs{exists: make(map[string]bool)} }

func (b *beliefs) of(topic string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.exists[topic]
}

func (b *beliefs) set(topic string, exists bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exists[topic] = exists
}

// A client waits for a topic that is not there to appear. So the time of what
// needs one is bounded, the more the less likely there is one.
const (
	presentTimeout = 2 * time.Second
	absentTimeout  = 100 * time.Millisecond
)

// administer creates and deletes topics, and asks whether they exist.
func (l *load) administer(process int32, a *client.Admin, topics *beliefs) {
	for chance := l.chance(process); l.pace(chance, 60*time.Millisecond); {
		topic := churnTopic(chance.IntN(churnTopics))
		exists := topics.of(topic)
		if chance.IntN(10) == 0 {
			exists = !exists // what is refused is of interest too
		}
		f := history.DescribeTopic
		if chance.IntN(4) > 0 {
			f = history.CreateTopic
			if exists {
				f = history.DeleteTopic
			}
		}
		if !l.gate.enter(l.ctx) {
			return
		}
		topics.set(topic, l.ask(process, a, f, topicSpec(topic, 2), !topics.of(topic)))
		l.gate.leave()
	}
}

// ask does one operation on a topic, records it, and returns whether the topic
// certainly existed then. likelyAbsent bounds how long a delete or describe
// tries.
func (l *load) ask(process int32, a *client.Admin, f history.F, spec client.TopicSpec, likelyAbsent bool) (exists bool) {
	timeout := clientTimeout
	switch {
	case f != history.CreateTopic && likelyAbsent:
		timeout = absentTimeout
	case f != history.CreateTopic:
		timeout = presentTimeout
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	op := l.rec.Invoke(history.Op{Process: process, F: f, Topic: spec.Name})
	var err error
	switch f {
	case history.CreateTopic:
		_, err = a.CreateTopic(ctx, spec)
	case history.DeleteTopic:
		err = a.DeleteTopic(ctx, spec.Name)
	default:
		_, err = a.DescribeTopic(ctx, spec.Name)
	}
	outcome, saw := judge(f, err)
	op.Saw = saw
	if err != nil {
		op.Err = err.Error()
	}
	l.rec.Complete(op, outcome)
	return saw == history.Present || err == nil && f == history.CreateTopic
}

// judge says what the answer to an operation on a topic means.
func judge(f history.F, err error) (history.Type, history.Presence) {
	code, _ := client.CodeOf(err)
	switch {
	case err == nil && f == history.DescribeTopic:
		return history.OK, history.Present
	case err == nil:
		return history.OK, history.Unsaid
	case errors.Is(err, client.ErrUnknownOutcome):
		return history.Info, history.Unsaid
	case f == history.CreateTopic && code == errcode.TopicAlreadyExists:
		return history.Fail, history.Present
	case f != history.CreateTopic && (code == errcode.UnknownTopicOrPartition || code == errcode.UnknownTopicID):
		return history.Fail, history.Absent
	}
	return history.Fail, history.Unsaid
}
