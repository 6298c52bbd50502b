package consumergroup

import (
	"math"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// CommitOffsets commits offsets of a member, of a consumer that assigns partitions to
// itself, or of an operator's tool. The reply is a *CommitReply.
func (c *Coordinator) CommitOffsets(now time.Time, token Token, req *CommitRequest, out *Decision) {
	c.begin(now, out)
	if err := c.checkCommit(req); err != nil {
		c.reply(token, &CommitReply{Err: err})
		return
	}
	r := &CommitReply{Offsets: make([]*errcode.Error, len(req.Offsets))}
	for i := range req.Offsets {
		r.Offsets[i] = c.commit(req, &req.Offsets[i])
	}
	c.reply(token, r)
}

// checkCommit returns why the request may commit nothing, and keeps the session of
// the member that sends it.
func (c *Coordinator) checkCommit(req *CommitRequest) *errcode.Error {
	if err := bounded(req.Group); err != nil {
		return err
	}
	if s := c.decided.consumer(req.Group); s != nil {
		return c.checkConsumerCommit(s, req)
	}
	g := c.live[req.Group]
	if g == nil && !c.decided.Has(req.Group) {
		switch {
		case req.Generation < 0 && c.decided.Len() >= c.opts.MaxGroups:
			return errcode.Errorf(errcode.PolicyViolation, tooManyGroups, c.opts.MaxGroups)
		case req.Generation < 0:
			return nil // a group of offsets alone
		case req.KnowsNoGroup:
			return errNoGroup
		}
		return errGeneration
	}
	empty := g == nil || g.state == Empty
	switch {
	case empty && req.Generation < 0:
		return nil
	case empty, req.Generation < 0 && req.MemberID == "" && req.InstanceID == "":
		return errUnknownMember
	}
	m, err := g.check(req.MemberID, req.InstanceID)
	switch {
	case err != nil:
		return err
	case req.Generation != g.generation:
		return errGeneration
	case g.state == CompletingRebalance:
		return errRebalance // it has joined, and does not have its assignment yet
	}
	c.renew(m)
	return nil
}

// commit commits one offset.
func (c *Coordinator) commit(req *CommitRequest, o *CommitOffset) *errcode.Error {
	switch {
	case len(o.Metadata) > c.opts.MaxOffsetMetadataBytes:
		return errcode.Errorf(errcode.OffsetMetadataTooLarge, "%d bytes of metadata: at most %d, or raise offset.metadata.max.bytes",
			len(o.Metadata), c.opts.MaxOffsetMetadataBytes)
	case len(o.Topic) > maxNameBytes:
		return errLongName
	case c.decided.Offsets() >= c.opts.MaxOffsets && c.decided.Offset(req.Group, TopicPartition{o.Topic, o.Partition}) == nil:
		return errcode.Errorf(errcode.PolicyViolation,
			"there are %d committed offsets, as many as may be: delete groups that are not used, or raise offsets.partition.offsets.max", c.opts.MaxOffsets)
	}
	v := &record.OffsetCommitValue{
		Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata, TopicID: o.TopicID,
		CommitTimestampMS: c.nowMS(), ExpireTimestampMS: -1,
	}
	if req.RetentionMS >= 0 {
		v.ExpireTimestampMS = v.CommitTimestampMS + min(req.RetentionMS, math.MaxInt64-v.CommitTimestampMS)
	}
	c.write(&record.OffsetCommit{Group: req.Group, Topic: o.Topic, Partition: o.Partition, Value: v})
	return nil
}

// forget decides that there is no offset any more.
func (c *Coordinator) forget(group string, tp TopicPartition) {
	c.write(&record.OffsetCommit{Group: group, Topic: tp.Topic, Partition: tp.Partition})
}

// FetchOffsets tells the committed offsets of a group. The reply is a *FetchReply.
func (c *Coordinator) FetchOffsets(now time.Time, token Token, req *FetchRequest, out *Decision) {
	c.begin(now, out)
	out.Reads = true
	r := new(FetchReply)
	defer c.reply(token, r)
	if r.Err = c.checkConsumerFetch(req); r.Err != nil {
		return
	}
	if req.All {
		for tp, v := range c.decided.Committed(req.Group) {
			r.Offsets = append(r.Offsets, fetched(tp, v.TopicID, v))
		}
		return
	}
	r.Offsets = make([]FetchedOffset, len(req.Partitions))
	for i, p := range req.Partitions {
		tp := TopicPartition{p.Topic, p.Partition}
		v := c.decided.Offset(req.Group, tp)
		if v != nil && v.TopicID != p.TopicID && v.TopicID != (record.TopicID{}) && p.TopicID != (record.TopicID{}) {
			v = nil // of a topic of that name that was deleted
		}
		r.Offsets[i] = fetched(tp, p.TopicID, v)
	}
}

func fetched(tp TopicPartition, id record.TopicID, v *record.OffsetCommitValue) FetchedOffset {
	f := FetchedOffset{Topic: tp.Topic, TopicID: id, Partition: tp.Partition, Offset: -1, LeaderEpoch: -1}
	if v != nil {
		f.Offset, f.LeaderEpoch, f.Metadata = v.Offset, v.LeaderEpoch, v.Metadata
	}
	return f
}

// DeleteOffsets forgets committed offsets, but for topics that a member of the group
// consumes. The reply is a *DeleteOffsetsReply.
func (c *Coordinator) DeleteOffsets(now time.Time, token Token, req *DeleteOffsetsRequest, out *Decision) {
	c.begin(now, out)
	r := new(DeleteOffsetsReply)
	defer c.reply(token, r)
	if r.Err = named(req.Group); r.Err != nil {
		return
	}
	consumes, err := c.consumes(req.Group)
	if err != nil {
		r.Err = err
		return
	}
	r.Partitions = make([]*errcode.Error, len(req.Partitions))
	subscribed := make(map[string]bool)
	for i, tp := range req.Partitions {
		s, known := subscribed[tp.Topic]
		if !known {
			s = consumes(tp.Topic)
			subscribed[tp.Topic] = s
		}
		switch {
		case s:
			r.Partitions[i] = errcode.Errorf(errcode.GroupSubscribedToTopic,
				"the group consumes topic %s: stop its consumers first", errcode.Short(tp.Topic))
		case c.decided.Offset(req.Group, tp) != nil:
			c.forget(req.Group, tp)
		}
	}
}

// consumes returns what tells whether members of a group consume a topic.
func (c *Coordinator) consumes(name string) (func(topic string) bool, *errcode.Error) {
	if s := c.decided.consumer(name); s != nil {
		return s.subscribed, nil
	}
	g := c.group(name)
	switch {
	case g == nil:
		return nil, errNoGroup
	case g.state != Empty && g.protocolType != record.ConsumerProtocolType:
		return nil, errNonEmpty // nobody can tell what they consume
	}
	return g.subscribed, nil
}
