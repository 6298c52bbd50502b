package assign

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// Uniform assigns as evenly as the subscriptions allow, and moves few partitions:
// in a group in which all subscribe to the same, no assignment that is as even
// moves fewer.
func Uniform(topics []Topic, members []Member) [][]record.TopicPartitions {
	u := &uniform{group: newGroup(topics, members)}
	u.keep()
	u.fill()
	u.level()
	return u.result()
}

// part is a partition of a topic, by number.
type part struct {
	topic int32
	index int32
}

// nobody is the owner of a partition that is not assigned.
const nobody = -1

// uniform is an assignment under way.
type uniform struct {
	*group

	// owner has for each partition of each topic the member that has it, had the
	// one that had it before.
	owner, had [][]int32

	// owned has for each member its partitions. What is given away first is at the
	// end.
	owned [][]part
}

func (u *uniform) load(m int32) int { return len(u.owned[m]) }

// keep gives each member what it had, as far as that can be.
func (u *uniform) keep() {
	u.owner = make([][]int32, len(u.topics))
	for t, topic := range u.topics {
		u.owner[t] = slices.Repeat([]int32{nobody}, int(topic.Partitions))
	}
	u.owned = make([][]part, len(u.members))
	for m, member := range u.members {
		for _, tp := range member.Target {
			t, ok := u.topic(tp.TopicID)
			if !ok || !u.subscribes(int32(m), t) {
				continue
			}
			for _, p := range tp.Partitions {
				if p >= 0 && p < u.topics[t].Partitions && u.owner[t][p] == nobody {
					u.give(part{int32(t), p}, int32(m))
				}
			}
		}
		slices.SortFunc(u.owned[m], comparePart)
	}
	u.had = make([][]int32, len(u.topics))
	for t := range u.owner {
		u.had[t] = slices.Clone(u.owner[t])
	}
}

func comparePart(a, b part) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.index, b.index))
}

func (u *uniform) give(p part, m int32) {
	u.owner[p.topic][p.index] = m
	u.owned[m] = append(u.owned[m], p)
}

// fill gives what nobody has to the subscriber with the fewest partitions.
func (u *uniform) fill() {
	order := make([]int, len(u.topics))
	for t := range order {
		order[t] = t
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(u.subscribers[a]), len(u.subscribers[b])) })
	for _, t := range order {
		if len(u.subscribers[t]) == 0 || !slices.Contains(u.owner[t], nobody) {
			continue
		}
		light := &lightest{u: u, members: slices.Clone(u.subscribers[t])}
		heap.Init(light)
		for p, m := range u.owner[t] {
			if m == nobody {
				u.give(part{int32(t), int32(p)}, light.members[0])
				heap.Fix(light, 0)
			}
		}
	}
}

// lightest is a heap of members, the one with the fewest partitions first.
type lightest struct {
	u       *uniform
	members []int32
}

func (h *lightest) Len() int { return len(h.members) }
func (h *lightest) Less(i, j int) bool {
	a, b := h.members[i], h.members[j]
	return cmp.Or(cmp.Compare(h.u.load(a), h.u.load(b)), cmp.Compare(a, b)) < 0
}
func (h *lightest) Swap(i, j int) { h.members[i], h.members[j] = h.members[j], h.members[i] }
func (h *lightest) Push(x any)    { h.members = append(h.members, x.(int32)) }
func (h *lightest) Pop() any {
	last := h.members[len(h.members)-1]
	h.members = h.members[:len(h.members)-1]
	return last
}

// level moves partitions from members with many to members with few until that
// makes nothing more even.
func (u *uniform) level() {
	s := newSearch(u)
	for s.start() {
		if to := s.path(); to != nobody {
			s.move(to)
			continue
		}
		// Whoever the heaviest can reach has at most one fewer than they, and can
		// reach nobody else. A path from a lighter member that came among them would
		// end there, and so at a load that is not two lower than at its begin: they
		// are done.
		s.settle()
	}
}

// search looks for paths on which the group becomes more even.
type search struct {
	u    *uniform
	done []bool // by member: no path comes here any more

	// round numbers the searches; seenTopic and seenMember have the last one that
	// came there, so that nothing has to be cleared.
	round      int32
	seenTopic  []int32
	seenMember []int32

	most, least int // partitions of the heaviest and of the lightest that are not done

	queue []int32 // members in the order in which they were reached
	best  int32   // the lightest of them that the search did not begin at, or nobody
	via   []hop   // by member: how the search came there; from nobody where it began
}

// hop is a partition that a member can give to the next one of a path.
type hop struct {
	from int32
	part part
}

func newSearch(u *uniform) *search {
	n := len(u.members)
	return &search{
		u:    u,
		done: make([]bool, n), seenMember: make([]int32, n), via: make([]hop, n),
		seenTopic: make([]int32, len(u.topics)),
	}
}

// start begins a search at all members that have the most partitions, of those
// that are not done. It returns false if all are.
func (s *search) start() bool {
	s.round++
	s.queue, s.best = s.queue[:0], nobody
	s.most, s.least = -1, 0
	for m := range s.u.members {
		m := int32(m)
		if s.done[m] {
			continue
		}
		load := s.u.load(m)
		if s.most < 0 || load < s.least {
			s.least = load
		}
		if load > s.most {
			s.most, s.queue = load, s.queue[:0]
		}
		if load == s.most {
			s.queue = append(s.queue, m)
		}
	}
	for _, m := range s.queue {
		s.seenMember[m] = s.round
		s.via[m].from = nobody
	}
	return len(s.queue) > 0
}

// path looks for a member that has at least two partitions fewer than those that
// the search begins at, and returns nobody if it comes to none. It finds one on
// the way to which the fewest members lose a partition that they had, as what was
// given out since is free to move; of these the one with the fewest partitions.
func (s *search) path() int32 {
	for done := 0; done < len(s.queue); {
		for i := done; i < len(s.queue) && !s.found(s.least); i++ {
			s.expand(s.queue[i], true)
		}
		if s.found(s.most - 2) {
			return s.best
		}
		for end := len(s.queue); done < end; done++ {
			s.expand(s.queue[done], false)
		}
	}
	return nobody
}

// found reports whether the lightest member that was reached has at most as many
// partitions, and at least two fewer than the heaviest.
func (s *search) found(most int) bool {
	return s.best != nobody && s.u.load(s.best) <= min(most, s.most-2)
}

// expand goes on from a member by its partitions, those that it has been given
// now or those that it had, to all that may have them as well.
func (s *search) expand(at int32, free bool) {
	for _, p := range slices.Backward(s.u.owned[at]) {
		if s.seenTopic[p.topic] == s.round || (s.u.had[p.topic][p.index] != at) != free {
			continue
		}
		s.seenTopic[p.topic] = s.round
		for _, m := range s.u.subscribers[p.topic] {
			if s.done[m] || s.seenMember[m] == s.round {
				continue
			}
			s.seenMember[m] = s.round
			s.via[m] = hop{at, p}
			s.queue = append(s.queue, m)
			if s.best == nobody || s.u.load(m) < s.u.load(s.best) {
				s.best = m
			}
		}
		if s.found(s.least) {
			return // no other can be lighter
		}
	}
}

// move moves a partition along each hop of the path that was found.
func (s *search) move(to int32) {
	for h := s.via[to]; h.from != nobody; h = s.via[to] {
		owned := s.u.owned[h.from]
		i := slices.Index(owned, h.part)
		s.u.owned[h.from] = slices.Delete(owned, i, i+1)
		s.u.give(h.part, to)
		to = h.from
	}
}

// settle says that the last search came to all who are of no use any more.
func (s *search) settle() {
	for _, m := range s.queue {
		s.done[m] = true
	}
}

// result returns what each member has, in the order in which members were given.
func (u *uniform) result() [][]record.TopicPartitions {
	out := make([][]record.TopicPartitions, len(u.members))
	for m, owned := range u.owned {
		slices.SortFunc(owned, comparePart)
		var list []record.TopicPartitions
		for _, p := range owned {
			id := u.topics[p.topic].ID
			if n := len(list); n == 0 || list[n-1].TopicID != id {
				list = append(list, record.TopicPartitions{TopicID: id})
			}
			last := &list[len(list)-1]
			last.Partitions = append(last.Partitions, p.index)
		}
		out[u.given[m]] = list
	}
	return out
}
