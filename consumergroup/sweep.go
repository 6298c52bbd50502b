package consumergroup

import (
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// Sweeps go over all groups: one after each Options.RetentionCheck, for offsets that
// have expired and groups of which nothing is left, and one for deleted topics. They
// go in steps, so that none holds up the requests or decides too much at once.
const (
	sweepOffsets = 2000 // a step ends with the group in which it has seen so many
	sweepGroups  = 2000 // or so many groups
	sweepPause   = time.Millisecond
)

// sweeps are those that are due or under way.
type sweeps struct {
	retention sweep
	deleted   sweep

	// When each topic was deleted, in ms since 1970: what the sweep under way looks
	// for, and what was deleted since it began.
	topics, more map[Topic]int64
}

// Topic is one life of a topic.
type Topic struct {
	Name string
	ID   record.TopicID // zero: not known
}

// sweep goes over the groups that there were when it began.
type sweep struct {
	names []string // still to see
	timer *timer
}

// beginSweeps sets the first check of the retention.
func (c *Coordinator) beginSweeps() {
	s := &c.sweeps
	s.retention.timer = newTimer(func() {
		if s.retention.names == nil {
			s.retention.names = c.decided.Names()
		}
		if c.step(&s.retention, c.expire) {
			c.timers.set(s.retention.timer, c.now.Add(c.opts.RetentionCheck))
		}
	})
	s.deleted.timer = newTimer(func() {
		if c.step(&s.deleted, c.forgetTopics) {
			s.topics = nil
			c.sweepDeleted()
		}
	})
	c.timers.set(s.retention.timer, c.now.Add(c.opts.RetentionCheck))
}

// step sees the next groups of a sweep, and reports whether it was the last step.
func (c *Coordinator) step(s *sweep, see func(name string) (offsets int)) bool {
	for offsets, groups := 0, 0; len(s.names) > 0; groups++ {
		if offsets >= sweepOffsets || groups >= sweepGroups {
			c.timers.set(s.timer, c.now.Add(sweepPause))
			return false
		}
		offsets += see(s.names[0])
		s.names = s.names[1:]
	}
	s.names = nil
	return true
}

// TopicsDeleted says that topics are no more: the Ticks that follow forget their
// offsets. If this coordinator ends before, its successor is to be told again: see
// Groups.Topics. What was committed to a topic of another id, or to one that was not
// known and later than this, stays.
func (c *Coordinator) TopicsDeleted(now time.Time, topics []Topic, out *Decision) {
	c.begin(now, out)
	if c.sweeps.more == nil {
		c.sweeps.more = make(map[Topic]int64)
	}
	for _, t := range topics {
		c.sweeps.more[t] = c.nowMS()
		c.sweeps.more[Topic{Name: t.Name}] = c.nowMS()
	}
	c.sweepDeleted()
}

// sweepDeleted begins to sweep for the topics that were deleted, if no sweep does.
func (c *Coordinator) sweepDeleted() {
	s := &c.sweeps
	if s.topics != nil || len(s.more) == 0 {
		return
	}
	s.topics, s.more = s.more, nil
	s.deleted.names = c.decided.Names()
	c.timers.set(s.deleted.timer, c.now.Add(sweepPause))
}

// forgetTopics forgets a group's offsets of deleted topics.
func (c *Coordinator) forgetTopics(name string) (seen int) {
	for tp, v := range c.decided.Committed(name) {
		seen++
		at, deleted := c.sweeps.topics[Topic{tp.Topic, v.TopicID}]
		if deleted && (v.TopicID != record.TopicID{} || v.CommitTimestampMS <= at) {
			c.forget(name, tp)
		}
	}
	return seen
}

// expire forgets the offsets of a group that are kept no longer, and the group if it
// has no members and nothing is left.
func (c *Coordinator) expire(name string) (seen int) {
	if s := c.decided.consumer(name); s != nil {
		return c.expireConsumer(name, s)
	}
	g := c.group(name)
	if g == nil {
		return 0
	}
	left := 0
	for tp, v := range c.decided.Committed(name) {
		if seen++; c.expired(g, tp, v) {
			c.forget(name, tp)
		} else {
			left++
		}
	}
	if left == 0 && g.state == Empty && len(g.pending) == 0 {
		c.bury(name)
	}
	return seen
}

// expired reports whether an offset is kept no longer. Its time begins with the
// commit; but in a group that had members, when the last of them went, and while it
// has some, never for what they consume (KIP-211).
func (c *Coordinator) expired(g *classic, tp TopicPartition, v *record.OffsetCommitValue) bool {
	from := v.CommitTimestampMS
	switch {
	case g.protocolType == "":
	case g.state == Empty:
		if g.stateMS >= 0 {
			from = g.stateMS
		}
	case g.state != Stable || g.protocolType != record.ConsumerProtocolType || g.subscribed(tp.Topic):
		return false
	}
	if v.ExpireTimestampMS >= 0 {
		return c.nowMS() >= v.ExpireTimestampMS
	}
	return c.nowMS()-from >= c.opts.OffsetsRetention.Milliseconds()
}
