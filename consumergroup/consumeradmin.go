package consumergroup

import (
	"maps"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// ConsumerDescribeReply tells of one group of KIP-848. One that does not exist, or is
// a classic one, is Dead, with an Err.
type ConsumerDescribeReply struct {
	Err         *errcode.Error
	Group       string
	State       State
	Epoch       int32
	TargetEpoch int32
	Assignor    string
	Members     []DescribedConsumer // by id
}

// DescribedConsumer is one member. Partitions are told by topic id and by name: a
// topic that is deleted has none.
type DescribedConsumer struct {
	MemberID   string
	InstanceID string // empty: not static
	RackID     string
	Epoch      int32
	ClientID   string
	ClientHost string
	Topics     []string
	Regex      string
	Classic    bool // it speaks the classic protocol
	Assigned   []DescribedPartitions
	Target     []DescribedPartitions
}

// DescribedPartitions are partitions of one topic.
type DescribedPartitions struct {
	TopicID    record.TopicID
	Topic      string
	Partitions []int32
}

// ConsumerDescribe tells of one group of KIP-848 and its members. The reply is a
// *ConsumerDescribeReply.
func (c *Coordinator) ConsumerDescribe(now time.Time, token Token, name string, out *Decision) {
	c.begin(now, out)
	out.Reads = true
	s := c.decided.consumer(name)
	if s == nil {
		err := errNoGroup
		if name == "" {
			err = errNoGroupID
		}
		c.reply(token, &ConsumerDescribeReply{Err: err, Group: name, State: Dead})
		return
	}
	r := &ConsumerDescribeReply{
		Group: name, State: consumerGroupState(s), Epoch: s.groupEpoch(), TargetEpoch: s.targetEpoch(), Assignor: s.assignor(),
	}
	for _, id := range slices.Sorted(maps.Keys(s.members)) {
		v, current := s.members[id], s.currentOf(id)
		r.Members = append(r.Members, DescribedConsumer{
			MemberID: id, InstanceID: required(v.InstanceID), RackID: required(v.RackID), Epoch: current.Epoch,
			ClientID: v.ClientID, ClientHost: v.ClientHost, Topics: v.Topics, Regex: required(v.Regex), Classic: v.Classic != nil,
			Assigned: c.describedPartitions(current.Assigned), Target: c.describedPartitions(s.targetOf(id)),
		})
	}
	c.reply(token, r)
}

func (c *Coordinator) describedPartitions(list []record.TopicPartitions) []DescribedPartitions {
	out := make([]DescribedPartitions, len(list))
	for i, tp := range list {
		out[i] = DescribedPartitions{TopicID: tp.TopicID, Partitions: tp.Partitions}
		if c.topics == nil {
			continue
		}
		if info := c.topics.byID[tp.TopicID]; info != nil {
			out[i].Topic = info.Name
		}
	}
	return out
}

// checkConsumerCommit returns why the request may commit nothing to a group of
// KIP-848. A member commits with its epoch, or with an earlier one if it has had the
// partition since: the commit was under way while it went on (KIP-1251).
func (c *Coordinator) checkConsumerCommit(s *consumerState, req *CommitRequest) *errcode.Error {
	if req.Generation < 0 && len(s.members) == 0 {
		return nil
	}
	v := s.members[req.MemberID]
	if v == nil {
		return errUnknownMember
	}
	stale := errStaleEpoch
	if v.Classic != nil {
		stale = errGeneration
	} else if !req.KnowsNoGroup {
		return errcode.Errorf(errcode.UnsupportedVersion, "members of this group commit with OffsetCommit version 9 or later: use a newer client")
	}
	current := s.currentOf(req.MemberID)
	switch {
	case req.Generation == current.Epoch:
		return nil
	case req.Generation > current.Epoch:
		return stale
	}
	has := setOf(current.Assigned)
	maps.Copy(has, setOf(current.Revoking))
	for i := range req.Offsets {
		o := &req.Offsets[i]
		since, ok := has[owned{c.topicID(o), o.Partition}]
		if !ok || req.Generation < since {
			return stale
		}
	}
	return nil
}

// topicID returns the id of the topic that an offset is of, zero if it is not known.
func (c *Coordinator) topicID(o *CommitOffset) record.TopicID {
	if o.TopicID == (record.TopicID{}) && c.topics != nil {
		if info := c.topics.byName[o.Topic]; info != nil {
			return info.ID
		}
	}
	return o.TopicID
}

// checkConsumerFetch returns why a member of a group of KIP-848 may not fetch the
// group's offsets.
func (c *Coordinator) checkConsumerFetch(req *FetchRequest) *errcode.Error {
	s := c.decided.consumer(req.Group)
	switch {
	case req.MemberID == "" || s == nil:
		return nil
	case s.members[req.MemberID] == nil:
		return errUnknownMember
	case req.MemberEpoch != s.currentOf(req.MemberID).Epoch:
		return errStaleEpoch
	}
	return nil
}

// expireConsumer is expire for a group of KIP-848.
func (c *Coordinator) expireConsumer(name string, s *consumerState) (seen int) {
	left := 0
	for tp, v := range c.decided.Committed(name) {
		at := v.CommitTimestampMS + c.opts.OffsetsRetention.Milliseconds()
		if v.ExpireTimestampMS >= 0 {
			at = v.ExpireTimestampMS
		}
		if seen++; c.nowMS() >= at && !s.subscribed(tp.Topic) {
			c.forget(name, tp)
		} else {
			left++
		}
	}
	if left == 0 && len(s.members) == 0 {
		c.buryConsumer(name)
	}
	return seen
}
