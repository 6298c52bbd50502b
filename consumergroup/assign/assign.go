// Package assign has the assignors of KIP-848: pure functions that say which
// member of a group shall have which partitions.
//
//	uniform  as even as the subscriptions allow, and moves as little as it can
//	range    each topic cut into ranges, one a member, so that topics with as many
//	         partitions and the same members are cut alike (co-partitioning)
//
// Both are deterministic: the same topics and members, in whatever order they are
// given, get the same answer, on every node and in every run. Neither looks at
// racks, as Kafka's of 4.3 do not.
//
// # How uniform works
//
// Members keep what they have. What nobody has goes to the member with the fewest
// partitions of those that subscribe to its topic, topics with few subscribers
// first. Then partitions move from members with many to members with few, as long
// as that makes the group more even: if a has two more than c, and c does not
// subscribe to what a has, then b may take one of a's and give c another. Such a
// path is found by a breadth-first search, so it is one with few moves. Where
// none is left, no assignment under these subscriptions is more even (the loads,
// from the highest down, are the lowest possible): a matching without
// cost-reducing paths is an optimal one. Kafka's looks for paths of one move only;
// in a group in which all subscribe to the same, there are no others.
package assign

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// The assignors by the names that clients ask for.
const (
	NameUniform = "uniform"
	NameRange   = "range"
)

// Names lists the assignors, that which is taken if nobody asks for one first.
func Names() []string { return []string{NameUniform, NameRange} }

// Topic is a topic that there is.
type Topic struct {
	ID         record.TopicID
	Partitions int32
}

// Member is a member of the group.
type Member struct {
	ID         string
	InstanceID string // of a static member; empty for others

	// Topics are those that it subscribes to. What is not among the topics that
	// there are is left out.
	Topics []record.TopicID

	// Target is what it was to have so far. Partitions that there are not any
	// more, that it does not subscribe to, or that an earlier member has as well,
	// are left out. Whoever replaces a static member has that one's.
	Target []record.TopicPartitions
}

// Func is an assignor. It returns what each member shall have, in the order in
// which the members are given; for each, topics are in the order of their ids and
// partitions in that of their numbers. Each partition of a topic that somebody
// subscribes to is in it once, with one who does. It changes nothing that it is
// given. IDs of topics and of members are each given once.
type Func func(topics []Topic, members []Member) [][]record.TopicPartitions

// ByName returns the assignor of a name, or nil if there is none.
func ByName(name string) Func {
	switch name {
	case NameUniform:
		return Uniform
	case NameRange:
		return Range
	}
	return nil
}

// Equal reports whether two assignments of one member hold the same partitions.
// Both are ordered as a Func orders them; epochs are not looked at.
func Equal(a, b []record.TopicPartitions) bool {
	return slices.EqualFunc(a, b, func(x, y record.TopicPartitions) bool {
		return x.TopicID == y.TopicID && slices.Equal(x.Partitions, y.Partitions)
	})
}

// group is what the assignors work on: topics and members by number, in an order
// that does not depend on the one that they were given in.
type group struct {
	topics  []Topic // in the order of their ids
	members []*Member
	given   []int // given[m] is where member m stood

	// subscribers has for each topic the members that subscribe to it, ascending.
	subscribers [][]int32
}

// newGroup orders members by instance id, then by member id, static ones first:
// a static member that comes back under a new member id keeps its place.
func newGroup(topics []Topic, members []Member) *group {
	g := &group{
		topics:      slices.Clone(topics),
		members:     make([]*Member, len(members)),
		given:       make([]int, len(members)),
		subscribers: make([][]int32, len(topics)),
	}
	slices.SortFunc(g.topics, func(a, b Topic) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	for i := range g.given {
		g.given[i] = i
	}
	slices.SortFunc(g.given, func(i, j int) int {
		a, b := &members[i], &members[j]
		if (a.InstanceID == "") != (b.InstanceID == "") {
			return cmp.Compare(b.InstanceID, a.InstanceID)
		}
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.ID, b.ID))
	})
	index := make(map[record.TopicID]int, len(topics))
	for t, topic := range g.topics {
		index[topic.ID] = t
	}
	for m, i := range g.given {
		g.members[m] = &members[i]
		for _, id := range members[i].Topics {
			t, ok := index[id]
			if !ok {
				continue
			}
			if s := g.subscribers[t]; len(s) == 0 || s[len(s)-1] != int32(m) {
				g.subscribers[t] = append(s, int32(m))
			}
		}
	}
	return g
}

// topic returns the number of a topic.
func (g *group) topic(id record.TopicID) (t int, ok bool) {
	return slices.BinarySearchFunc(g.topics, id, func(a Topic, id record.TopicID) int { return bytes.Compare(a.ID[:], id[:]) })
}

// subscribes reports whether member m subscribes to topic t.
func (g *group) subscribes(m int32, t int) bool {
	_, ok := slices.BinarySearch(g.subscribers[t], m)
	return ok
}

// Range cuts each topic into as many ranges as it has subscribers, the first of
// them one longer if it does not divide, and gives the first range to the first
// subscriber, and so on, static members before others, in the order of their ids.
// It is Kafka's, to the partition: what members had so far has no part in it.
func Range(topics []Topic, members []Member) [][]record.TopicPartitions {
	g := newGroup(topics, members)
	out := make([][]record.TopicPartitions, len(members))
	for t, topic := range g.topics {
		n := int32(len(g.subscribers[t]))
		next := int32(0)
		for i, m := range g.subscribers[t] {
			size := topic.Partitions / n
			if int32(i) < topic.Partitions%n {
				size++
			}
			if size == 0 {
				break
			}
			partitions := make([]int32, size)
			for k := range partitions {
				partitions[k] = next
				next++
			}
			at := g.given[m]
			out[at] = append(out[at], record.TopicPartitions{TopicID: topic.ID, Partitions: partitions})
		}
	}
	return out
}
