package consumergroup

import (
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// consumerState is what is recorded of a group of KIP-848, one that the coordinator
// assigns. Whoever wrote the records, any of them may be missing.
type consumerState struct {
	epoch  *record.ConsumerGroupValue
	target *record.ConsumerTargetEpochValue
	legacy *record.ConsumerPartitionMetadataValue // written by Kafka before 4.1

	// By member id; the values are never changed. A member is who has described
	// itself.
	members map[string]*record.ConsumerMemberValue
	targets map[string]*record.ConsumerTargetValue
	current map[string]*record.ConsumerCurrentValue

	regexes map[string]*record.ConsumerRegexValue // by regular expression
}

func newConsumerState() *consumerState {
	return &consumerState{
		members: make(map[string]*record.ConsumerMemberValue), targets: make(map[string]*record.ConsumerTargetValue),
		current: make(map[string]*record.ConsumerCurrentValue), regexes: make(map[string]*record.ConsumerRegexValue),
	}
}

func (s *consumerState) clone() *consumerState {
	if s == nil {
		return nil
	}
	return &consumerState{
		epoch: s.epoch, target: s.target, legacy: s.legacy,
		members: maps.Clone(s.members), targets: maps.Clone(s.targets), current: maps.Clone(s.current), regexes: maps.Clone(s.regexes),
	}
}

// records returns how many records it takes to say what s says.
func (s *consumerState) records() int {
	n := len(s.members) + len(s.targets) + len(s.current) + len(s.regexes)
	for _, there := range []bool{s.epoch != nil, s.target != nil, s.legacy != nil} {
		if there {
			n++
		}
	}
	return n
}

// groupEpoch returns the epoch of the group; 0: it has none yet.
func (s *consumerState) groupEpoch() int32 {
	if s.epoch == nil {
		return 0
	}
	return s.epoch.Epoch
}

// highest returns the highest epoch that the group, or a member, has: the next one is
// above it, whatever is missing.
func (s *consumerState) highest() int32 {
	most := max(s.groupEpoch(), s.targetEpoch())
	for id := range s.members {
		most = max(most, s.currentOf(id).Epoch)
	}
	return most
}

// targetEpoch returns the epoch of the target assignment; 0: there is none yet.
func (s *consumerState) targetEpoch() int32 {
	if s.target == nil {
		return 0
	}
	return s.target.Epoch
}

// targetOf returns what a member is to have.
func (s *consumerState) targetOf(id string) []record.TopicPartitions {
	if v := s.targets[id]; v != nil {
		return v.Partitions
	}
	return nil
}

// joined is the current assignment of who has just come.
var joined = &record.ConsumerCurrentValue{PreviousEpoch: -1}

// currentOf returns what a member has.
func (s *consumerState) currentOf(id string) *record.ConsumerCurrentValue {
	if v := s.current[id]; v != nil {
		return v
	}
	return joined
}

// all yields the records of s, in an order of its own, and reports whether to go on.
func (s *consumerState) all(group string, yield func(record.Record) bool) bool {
	emit := func(there bool, e record.Entry) bool { return !there || yield(e.Encode()) }
	ok := emit(s.epoch != nil, &record.ConsumerGroup{Group: group, Value: s.epoch}) &&
		emit(s.legacy != nil, &record.ConsumerPartitionMetadata{Group: group, Value: s.legacy})
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		ok = ok && emit(true, &record.ConsumerMember{Group: group, MemberID: id, Value: s.members[id]})
	}
	for _, re := range slices.Sorted(maps.Keys(s.regexes)) {
		ok = ok && emit(true, &record.ConsumerRegex{Group: group, Regex: re, Value: s.regexes[re]})
	}
	for _, id := range slices.Sorted(maps.Keys(s.targets)) {
		ok = ok && emit(true, &record.ConsumerTarget{Group: group, MemberID: id, Value: s.targets[id]})
	}
	ok = ok && emit(s.target != nil, &record.ConsumerTargetEpoch{Group: group, Value: s.target})
	for _, id := range slices.Sorted(maps.Keys(s.current)) {
		ok = ok && emit(true, &record.ConsumerCurrent{Group: group, MemberID: id, Value: s.current[id]})
	}
	return ok
}

// foldConsumer folds the records of groups of KIP-848. It returns false if e is none.
func (g *Groups) foldConsumer(e record.Entry) bool {
	switch e := e.(type) {
	case *record.ConsumerGroup:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { s.epoch = e.Value })
	case *record.ConsumerPartitionMetadata:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { s.legacy = e.Value })
	case *record.ConsumerMember:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { set(s.members, e.MemberID, e.Value) })
	case *record.ConsumerTargetEpoch:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { s.target = e.Value })
	case *record.ConsumerTarget:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { set(s.targets, e.MemberID, e.Value) })
	case *record.ConsumerCurrent:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { set(s.current, e.MemberID, e.Value) })
	case *record.ConsumerRegex:
		g.change(e.Group, e.Value == nil, func(s *consumerState) { set(s.regexes, e.Regex, e.Value) })
	default:
		return false
	}
	return true
}

// currentConsumer gives an entry of a group of KIP-848 the value that it has now. It
// returns false if e is none.
func (g *Groups) currentConsumer(e record.Entry) bool {
	of := func(group string) *consumerState {
		if s := g.consumer(group); s != nil {
			return s
		}
		return new(consumerState)
	}
	switch e := e.(type) {
	case *record.ConsumerGroup:
		e.Value = of(e.Group).epoch
	case *record.ConsumerPartitionMetadata:
		e.Value = of(e.Group).legacy
	case *record.ConsumerMember:
		e.Value = of(e.Group).members[e.MemberID]
	case *record.ConsumerTargetEpoch:
		e.Value = of(e.Group).target
	case *record.ConsumerTarget:
		e.Value = of(e.Group).targets[e.MemberID]
	case *record.ConsumerCurrent:
		e.Value = of(e.Group).current[e.MemberID]
	case *record.ConsumerRegex:
		e.Value = of(e.Group).regexes[e.Regex]
	default:
		return false
	}
	return true
}

func set[V any](m map[string]*V, key string, v *V) {
	if v == nil {
		delete(m, key)
		return
	}
	m[key] = v
}

// change changes what is recorded of a group of KIP-848; gone says that it only
// deletes.
func (g *Groups) change(name string, gone bool, f func(*consumerState)) {
	if gone && g.consumer(name) == nil {
		return
	}
	gr := g.own(name)
	if gr.consumer == nil {
		gr.consumer = newConsumerState()
	}
	g.assigned -= gr.consumer.records()
	f(gr.consumer)
	n := gr.consumer.records()
	if g.assigned += n; n == 0 {
		gr.consumer = nil
	}
	g.release(name, gr)
}

// consumer returns what is recorded of a group of KIP-848; nil if it is none.
func (g *Groups) consumer(name string) *consumerState {
	if gr := g.groups[name]; gr != nil {
		return gr.consumer
	}
	return nil
}
