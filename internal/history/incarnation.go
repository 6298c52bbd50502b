package history

import "math"

// never is the time of an event that did not happen.
const never = math.MaxInt32

// boundary is the time between two incarnations of a topic, as far as the
// history tells: before lo the older one existed, after hi the newer one.
type boundary struct{ lo, hi int32 }

// lives is when a topic's incarnations, counted from 0, existed. Its zero
// value is a topic that was never deleted.
//
// Invariant: boundaries are in order; only the last may have hi == never.
type lives struct{ boundaries []boundary }

// span returns the first and last incarnation that something which happened
// within the events [from, to] can belong to.
func (l *lives) span(from, to int32) (first, last int32) {
	if l == nil {
		return 0, 0
	}
	for _, b := range l.boundaries {
		if b.hi < from {
			first++
		}
		if b.lo <= to {
			last++
		}
	}
	return first, last
}

// final returns the incarnation that the history ends with. If its boundary is
// still open, nothing is certain to belong to it.
func (l *lives) final() int32 {
	if l == nil {
		return 0
	}
	return int32(len(l.boundaries))
}

// topicLives finds the boundaries of every topic that was deleted. A deletion
// that certainly failed is none. A boundary opens with the first delete and
// closes with the create after it; a create also stands for a deletion that
// the history did not see, if the topic was created before.
func (c *checker) topicLives() map[string]*lives {
	type state struct {
		lives
		deletes     int // that may have worked, since the last boundary closed
		outstanding int // of those, without an answer yet or for ever
		open        int // of those, under way
		ended       int // index where the last of those was answered or given up
		exists      bool
	}
	topics := make(map[string]*state)
	for i := range c.h {
		op := &c.h[i]
		if op.F != CreateTopic && op.F != DeleteTopic {
			continue
		}
		s := topics[op.Topic]
		if s == nil {
			s = new(state)
			topics[op.Topic] = s
		}
		other := c.mate[i]
		switch {
		case op.F == DeleteTopic && op.Type == Invoke:
			if other != none && c.h[other].Type == Fail {
				continue
			}
			if s.deletes == 0 {
				s.boundaries = append(s.boundaries, boundary{lo: int32(i), hi: never})
			}
			s.deletes++
			s.outstanding++
			s.open++
		case op.F == DeleteTopic && op.Type == OK && other != none:
			s.outstanding--
			s.open--
			s.ended = i
		case op.F == DeleteTopic && op.Type == Info && other != none:
			s.open--
			s.ended = i
		case op.F == CreateTopic && op.Type == OK && other != none:
			switch {
			case s.deletes > 0 && !s.exists && (s.open > 0 || int(other) < s.ended):
				// A delete that overlaps the first create that is known of may
				// have come after it: the boundary stays open.
			case s.deletes > 0:
				// One delete cannot be late: without it this create would have
				// been refused. Of several, those can that had no answer when
				// it was asked for: the topic may be gone again.
				if s.outstanding == 0 && s.ended < int(other) || s.deletes == 1 {
					s.boundaries[len(s.boundaries)-1].hi = int32(i)
					s.deletes, s.outstanding = 0, 0
				}
			case s.exists:
				s.boundaries = append(s.boundaries, boundary{lo: other, hi: int32(i)})
			}
			s.exists = true
		}
	}
	all := make(map[string]*lives, len(topics))
	for topic, s := range topics {
		if len(s.boundaries) > 0 {
			all[topic] = &s.lives
		}
	}
	return all
}
