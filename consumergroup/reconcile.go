package consumergroup

import (
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// owned names a partition by its topic's id.
type owned struct {
	id        record.TopicID
	partition int32
}

// partitionSet is partitions with the member epoch at which each was given.
type partitionSet map[owned]int32

// setOf returns the partitions of an assignment. Where it does not say since when,
// it is from the beginning.
func setOf(list []record.TopicPartitions) partitionSet {
	s := make(partitionSet)
	for _, tp := range list {
		for i, p := range tp.Partitions {
			epoch := int32(0)
			if tp.Epochs != nil {
				epoch = tp.Epochs[i]
			}
			s[owned{tp.TopicID, p}] = epoch
		}
	}
	return s
}

// list returns the set as it is recorded: by topic id and partition.
func (s partitionSet) list() []record.TopicPartitions {
	keys := make([]owned, 0, len(s))
	for o := range s {
		keys = append(keys, o)
	}
	slices.SortFunc(keys, func(a, b owned) int {
		if c := compareID(a.id, b.id); c != 0 {
			return c
		}
		return int(a.partition) - int(b.partition)
	})
	var out []record.TopicPartitions
	for _, o := range keys {
		if n := len(out); n == 0 || out[n-1].TopicID != o.id {
			out = append(out, record.TopicPartitions{TopicID: o.id})
		}
		last := &out[len(out)-1]
		last.Partitions = append(last.Partitions, o.partition)
		last.Epochs = append(last.Epochs, s[o])
	}
	return out
}

// samePartitions reports whether two recorded assignments hold the same partitions.
func samePartitions(a, b []record.TopicPartitions) bool {
	return slices.EqualFunc(a, b, func(x, y record.TopicPartitions) bool {
		return x.TopicID == y.TopicID && slices.Equal(x.Partitions, y.Partitions)
	})
}

// reconciliation is one step of a member on its way to its target assignment.
type reconciliation struct {
	current *record.ConsumerCurrentValue
	epoch   int32 // of the target
	target  []record.TopicPartitions

	// subscribes reports whether the member subscribes to a topic; news, that it
	// subscribes to others than before.
	subscribes func(record.TopicID) bool
	news       bool

	// owned is what the member says it has; nil: it does not say.
	owned []record.TopicPartitions

	// free reports whether nobody else has, or has yet to give away, a partition.
	free func(owned) bool
}

// next returns what the member has from now on, which is r.current itself if nothing
// changes. A member first gives away what it shall not have, at its old epoch, and
// says so by no longer owning it; then it is given, at the epoch of the target, what
// it shall have and others do not have any more, now or in a later step.
//
//	       target has new epoch,                  says that it owns none
//	       and takes nothing away                 of what it gives away
//	STABLE -----------------------> (computed) <-------------------- UNREVOKED_PARTITIONS
//	  ^                              |  |  |                              ^
//	  |   all of it is free          |  |  |  it has what it shall not    |
//	  '------------------------------'  |  '------------------------------'
//	                                    v
//	                         UNRELEASED_PARTITIONS: others have some of it yet
func (r *reconciliation) next() *record.ConsumerCurrentValue {
	switch r.current.State {
	case record.Stable:
		if r.current.Epoch == r.epoch {
			return r.unsubscribed()
		}
	case record.UnrevokedPartitions:
		if r.owns(setOf(r.current.Revoking)) {
			return r.unsubscribed()
		}
	}
	return r.compute()
}

// owns reports whether the member has any of the partitions, as far as is known.
func (r *reconciliation) owns(s partitionSet) bool {
	if r.owned == nil {
		return len(s) > 0
	}
	for o := range setOf(r.owned) {
		if _, ok := s[o]; ok {
			return true
		}
	}
	return false
}

// unsubscribed has the member give away what it does not subscribe to any more,
// before there is a target that says so.
func (r *reconciliation) unsubscribed() *record.ConsumerCurrentValue {
	if !r.news {
		return r.current
	}
	keep, revoke := make(partitionSet), setOf(r.current.Revoking)
	for o, epoch := range setOf(r.current.Assigned) {
		if r.subscribes(o.id) {
			keep[o] = epoch
		} else {
			revoke[o] = epoch
		}
	}
	if samePartitions(keep.list(), r.current.Assigned) {
		return r.current
	}
	return r.revoking(keep, revoke)
}

// revoking is the step in which the member has keep, and gives away revoke: at once,
// if it owns none of it.
func (r *reconciliation) revoking(keep, revoke partitionSet) *record.ConsumerCurrentValue {
	v := &record.ConsumerCurrentValue{
		Epoch: r.current.Epoch, PreviousEpoch: r.current.Epoch, State: r.current.State, Assigned: keep.list(),
	}
	if r.owns(revoke) {
		v.State, v.Revoking = record.UnrevokedPartitions, revoke.list()
	}
	return v
}

// compute has the member take the next step to its target.
func (r *reconciliation) compute() *record.ConsumerCurrentValue {
	has := setOf(r.current.Assigned)
	keep, revoke := make(partitionSet), make(partitionSet)
	target := setOf(r.target)
	for o, epoch := range has {
		if _, ok := target[o]; ok && r.subscribes(o.id) {
			keep[o] = epoch
		} else {
			revoke[o] = epoch
		}
	}
	if len(revoke) > 0 && r.owns(revoke) {
		return r.revoking(keep, revoke)
	}
	v := &record.ConsumerCurrentValue{Epoch: r.epoch, PreviousEpoch: r.current.Epoch, State: record.Stable}
	for o := range target {
		if _, ok := has[o]; ok || !r.subscribes(o.id) {
			continue
		}
		if !r.free(o) {
			v.State = record.UnreleasedPartitions
			continue
		}
		keep[o] = r.epoch
	}
	v.Assigned = keep.list()
	if r.same(v) {
		return r.current
	}
	return v
}

// same reports whether a step changes nothing.
func (r *reconciliation) same(v *record.ConsumerCurrentValue) bool {
	return v.Epoch == r.current.Epoch && v.State == r.current.State && len(r.current.Revoking) == 0 &&
		samePartitions(v.Assigned, r.current.Assigned)
}
