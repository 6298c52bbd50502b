package history

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

var (
	// ErrNotLinearizable reports answers that no order of the operations
	// explains which agrees with the order of time.
	ErrNotLinearizable = errors.New("history: not linearizable")

	// ErrUndecided reports a check that ran out of time.
	ErrUndecided = errors.New("history: linearizability undecided")
)

// CheckTopics checks that each topic in h behaved as a linearizable register
// that says whether the topic exists, absent at first: CreateTopic succeeds
// only while it is absent, DeleteTopic only while it is present, and an answer
// with Saw tells the truth. Record only describes that promise to be
// linearizable; those answered from a node's own image do not.
//
// It returns nil, ErrNotLinearizable or ErrUndecided wrapped with the topic's
// name. The time it takes is exponential in the number of operations of one
// topic that overlap; limit bounds each topic, and 0 means no bound.
func CheckTopics(h History, limit time.Duration) error {
	topics := make(map[string][]porcupine.Operation)
	for _, op := range topicOperations(h) {
		topic := op.Input.(topicCall).topic
		topics[topic] = append(topics[topic], op)
	}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		switch porcupine.CheckOperationsTimeout(topicModel(), topics[topic], limit) {
		case porcupine.Illegal:
			return fmt.Errorf("%w: topic %q, %d operations", ErrNotLinearizable, topic, len(topics[topic]))
		case porcupine.Unknown:
			return fmt.Errorf("%w: topic %q, %d operations in %v", ErrUndecided, topic, len(topics[topic]), limit)
		}
	}
	return nil
}

type topicCall struct {
	f     F
	topic string
}

type topicAnswer struct {
	done bool     // a create or delete that succeeded
	saw  Presence // what the answer said, if it did not succeed
}

// topicOperations pairs the events of h's operations on topics. Operations that
// had no effect and learnt nothing are left out. Creates and deletes of unknown
// outcome never return, so that their effect may come at any time, or after all.
func topicOperations(h History) []porcupine.Operation {
	var ops []porcupine.Operation
	open := make(map[int64]int) // into ops
	drop := make(map[int]bool)
	for i := range h {
		op := &h[i]
		if op.F < CreateTopic || op.F > DescribeTopic {
			continue
		}
		if op.Type == Invoke {
			open[op.ID] = len(ops)
			drop[len(ops)] = op.F == DescribeTopic
			ops = append(ops, porcupine.Operation{
				ClientId: int(op.Process), Input: topicCall{f: op.F, topic: op.Topic}, Call: int64(i),
				Output: topicAnswer{}, Return: math.MaxInt64,
			})
			continue
		}
		n, ok := open[op.ID]
		if !ok || op.Type == Info {
			continue
		}
		delete(open, op.ID)
		ops[n].Return = int64(i)
		ops[n].Output = topicAnswer{done: op.Type == OK && op.F != DescribeTopic, saw: op.Saw}
		drop[n] = op.Saw == Unsaid && (op.Type == Fail || op.F == DescribeTopic)
	}
	kept := ops[:0]
	for n, op := range ops {
		if !drop[n] {
			kept = append(kept, op)
		}
	}
	return kept
}

// topicModel is a register that holds whether one topic exists.
func topicModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return false },
		Step: func(state, input, output any) (bool, any) {
			return stepTopic(state.(bool), input.(topicCall).f, output.(topicAnswer))
		},
		DescribeOperation: func(input, output any) string {
			call, answer := input.(topicCall), output.(topicAnswer)
			return fmt.Sprintf("%s %s: done=%t saw=%q", call.f, call.topic, answer.done, answer.saw)
		},
	}
}

// stepTopic returns whether the answer is right while exists holds, and what
// holds afterwards.
func stepTopic(exists bool, f F, answer topicAnswer) (ok, after bool) {
	switch {
	case answer.done:
		return exists != (f == CreateTopic), f == CreateTopic
	case answer.saw != Unsaid:
		return exists == (answer.saw == Present), exists
	case f == DescribeTopic:
		return true, exists
	default: // unknown outcome: a create that comes too late changes nothing
		return true, f == CreateTopic
	}
}
