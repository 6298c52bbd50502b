package consumergroup

import (
	"bytes"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// heartbeat is one ConsumerHeartbeat on its way. Until room is done, nothing has
// changed.
type heartbeat struct {
	c   *Coordinator
	req *ConsumerHeartbeatRequest
	g   *consumer // nil: there is none with members

	m   *consumerMember // nil: it is new
	old *consumerMember // the static member whose place it takes; nil: none

	upgrades *classic // the classic group that is to become one of KIP-848; nil: none

	id string // the member's

	before *record.ConsumerMemberValue // what it has said so far
	after  *record.ConsumerMemberValue // and with this request
}

func (h *heartbeat) state() *consumerState { return h.c.decided.consumer(h.req.Group) }

// find finds the member, or sees that it may join.
func (h *heartbeat) find() *errcode.Error {
	h.id = h.req.MemberID
	joins := h.req.Epoch == JoinEpoch
	if h.g == nil {
		switch g := h.c.live[h.req.Group]; {
		case !joins:
			return errUnknownMember
		case g != nil:
			if err := h.c.upgradable(g); err != nil {
				return err
			}
			h.upgrades = g
		case !h.c.decided.Has(h.req.Group) && max(h.c.decided.Len(), len(h.c.live)+len(h.c.consumers)) >= h.c.opts.MaxGroups:
			return errcode.Errorf(errcode.GroupMaxSizeReached, tooManyGroups, h.c.opts.MaxGroups)
		}
	} else {
		h.m = h.g.members[h.id]
		if err := h.findStatic(joins); err != nil {
			return err
		}
		if h.m == nil && h.old == nil && !joins {
			return errUnknownMember
		}
	}
	if h.id == "" {
		h.id = h.c.opts.NewID()
	}
	if h.m != nil && !joins {
		return h.checkEpoch()
	}
	return nil
}

// findStatic finds the member that has the instance id of the request.
func (h *heartbeat) findStatic(joins bool) *errcode.Error {
	if h.req.InstanceID == nil {
		if joins && h.m != nil && h.state().members[h.id].InstanceID != nil {
			return errFenced // a static member stays one
		}
		return nil
	}
	id, ok := h.g.static[*h.req.InstanceID]
	switch {
	case !ok && !joins:
		return errUnknownMember
	case !ok && h.m != nil:
		return errFenced // it has said another before, or none
	case !ok, id == h.id && h.m != nil:
		return nil
	case !joins:
		return errFenced
	case h.state().members[id].Classic != nil: // it was restarted with another protocol
	case h.state().currentOf(id).Epoch != StaticLeaveEpoch:
		return errUnreleased
	case h.m != nil:
		return errFenced // it is another member already
	}
	h.old = h.g.members[id]
	return nil
}

// checkEpoch fences a member whose epoch is not its own. One that has missed the
// answer to its last heartbeat is let go on, unless it owns what was taken from it.
func (h *heartbeat) checkEpoch() *errcode.Error {
	current := h.state().currentOf(h.id)
	switch {
	case h.req.Epoch == current.Epoch:
		return nil
	case h.req.Epoch > current.Epoch, h.req.Epoch != current.PreviousEpoch, h.req.Owned == nil:
		return errFencedEpoch
	}
	has := setOf(current.Assigned)
	for o := range setOf(h.req.Owned) {
		if _, ok := has[o]; !ok {
			return errFencedEpoch
		}
	}
	return nil
}

// describe merges what the member says into what it has said.
func (h *heartbeat) describe() {
	id := h.id
	if h.old != nil {
		id = h.old.id
	}
	h.before = &record.ConsumerMemberValue{RebalanceTimeoutMS: -1}
	if h.g != nil {
		if v := h.state().members[id]; v != nil {
			h.before = v
		}
	}
	v := *h.before
	v.InstanceID = replaced(v.InstanceID, h.req.InstanceID)
	v.RackID = replaced(v.RackID, h.req.RackID)
	v.Assignor = replaced(v.Assignor, h.req.Assignor)
	v.Regex = replaced(v.Regex, h.req.Regex)
	if required(v.Regex) == "" {
		v.Regex = nil
	}
	v.Classic = nil
	v.ClientID, v.ClientHost = h.req.ClientID, h.req.ClientHost
	if h.req.RebalanceTimeoutMS != -1 {
		v.RebalanceTimeoutMS = h.req.RebalanceTimeoutMS
	}
	if h.req.Topics != nil {
		v.Topics = slices.Compact(slices.Sorted(slices.Values(h.req.Topics)))
	}
	h.after = &v
}

func replaced(old, by *string) *string {
	if by != nil {
		return by
	}
	return old
}

// room reports whether the member, as it describes itself, may be in the group.
func (h *heartbeat) room() *errcode.Error {
	had, groupBytes, size := 0, 0, 0
	if h.upgrades != nil {
		groupBytes, size = h.upgrades.bytes, len(h.upgrades.members)
	}
	if h.g != nil {
		groupBytes, size = h.g.bytes, len(h.g.members)
		for _, m := range []*consumerMember{h.m, h.old} {
			if m != nil {
				had += m.bytes
			}
		}
	}
	if h.m == nil && h.old == nil && size >= h.c.opts.MaxGroupSize {
		return errcode.Errorf(errcode.GroupMaxSizeReached,
			"the group has %d members, as many as may be: start fewer consumers, or raise group.max.size", h.c.opts.MaxGroupSize)
	}
	growth := consumerSize(h.id, h.after) - had
	if growth > 0 && (groupBytes+growth > h.c.opts.MaxGroupBytes || h.c.bytes+growth > h.c.opts.MaxBytes) {
		return errcode.Errorf(errcode.GroupMaxSizeReached,
			"what members say of themselves takes more than %d bytes in this group, or %d in all: subscribe to fewer topics, start fewer consumers, or raise offsets.partition.member.bytes.max",
			h.c.opts.MaxGroupBytes, h.c.opts.MaxBytes)
	}
	return nil
}

// subscribe takes what the member says, and begins a new epoch of the group if that,
// or the topics, call for one.
func (h *heartbeat) subscribe() {
	c := h.c
	switch {
	case h.upgrades != nil:
		h.upgraded()
	case h.g == nil:
		if c.decided.meta(h.req.Group) != nil {
			c.write(&record.GroupMetadata{Group: h.req.Group}) // a classic group without members
		}
		h.g = newConsumer(h.req.Group)
		c.consumers[h.req.Group] = h.g
	}
	news := h.m == nil && h.old == nil || h.news()
	switch {
	case h.old != nil:
		h.replace()
	case h.m == nil:
		h.m = c.addConsumerMember(h.g, h.id, required(h.after.InstanceID))
		h.write()
	case !sameMember(h.before, h.after):
		h.write()
	}
	c.renewConsumer(h.m)
	moved := h.g.seen != c.topics.version
	if moved || news {
		c.resolve(h.g, moved)
		h.g.seen = c.topics.version
	}
	s := h.state()
	if !news && moved {
		_, digest := c.topics.subscribed(s)
		news = s.epoch == nil || s.epoch.MetadataHash != digest
	}
	if news {
		c.bumpEpoch(h.g)
	}
	if s = h.state(); s.targetEpoch() < s.groupEpoch() {
		c.retarget(h.g)
	}
}

// upgraded makes the classic group one of KIP-848, and finds again who has what in it:
// a member of its own may have come with its id, or a static one with its instance id.
func (h *heartbeat) upgraded() {
	h.g = h.c.upgrade(h.upgrades)
	h.m = h.g.members[h.id]
	if id := h.g.static[required(h.req.InstanceID)]; id != "" && id != h.id {
		h.old = h.g.members[id]
	}
	if h.m != nil || h.old != nil {
		h.describe()
	}
}

// news reports whether the member subscribes to something else than before.
func (h *heartbeat) news() bool {
	return !slices.Equal(h.before.Topics, h.after.Topics) || required(h.before.Regex) != required(h.after.Regex)
}

func sameMember(a, b *record.ConsumerMemberValue) bool {
	for _, p := range [][2]*string{{a.InstanceID, b.InstanceID}, {a.RackID, b.RackID}, {a.Regex, b.Regex}, {a.Assignor, b.Assignor}} {
		if required(p[0]) != required(p[1]) {
			return false
		}
	}
	if (a.Classic == nil) != (b.Classic == nil) {
		return false
	}
	if a.Classic != nil && (a.Classic.SessionTimeoutMS != b.Classic.SessionTimeoutMS ||
		!slices.EqualFunc(a.Classic.Protocols, b.Classic.Protocols, func(p, q record.ClassicProtocol) bool {
			return p.Name == q.Name && bytes.Equal(p.Metadata, q.Metadata)
		})) {
		return false
	}
	return a.ClientID == b.ClientID && a.ClientHost == b.ClientHost && a.RebalanceTimeoutMS == b.RebalanceTimeoutMS &&
		slices.Equal(a.Topics, b.Topics)
}

// write decides what the member has said.
func (h *heartbeat) write() {
	h.c.write(&record.ConsumerMember{Group: h.g.name, MemberID: h.m.id, Value: h.after})
	h.c.speaks(h.m, h.after)
	h.c.accountConsumer(h.m, h.after)
}

// replace gives the place of a static member that has left to the one that has come
// with its instance id, with all that it had.
func (h *heartbeat) replace() {
	c, old := h.c, h.old
	s := h.state()
	target, current := s.targets[old.id], *s.currentOf(old.id)
	c.dropConsumer(old)
	h.m = c.addConsumerMember(h.g, h.id, *h.after.InstanceID)
	h.write()
	if target != nil {
		c.write(&record.ConsumerTarget{Group: h.g.name, MemberID: h.id, Value: target})
	}
	current.Epoch, current.PreviousEpoch = JoinEpoch, JoinEpoch
	c.setCurrent(h.m, joined, &current)
}

// reconcile takes the member a step further to its target, and answers it.
func (h *heartbeat) reconcile() *ConsumerHeartbeatReply {
	s := h.state()
	current := s.currentOf(h.id)
	var subscription map[record.TopicID]struct{}
	step := &reconciliation{
		current: current, epoch: s.targetEpoch(), target: s.targetOf(h.id), owned: h.req.Owned, news: h.news(),
		subscribes: func(id record.TopicID) bool {
			if subscription == nil {
				subscription = make(map[record.TopicID]struct{})
				for _, id := range h.c.topics.subscription(s, h.after) {
					subscription[id] = struct{}{}
				}
			}
			_, ok := subscription[id]
			return ok
		},
		free: func(o owned) bool { return h.g.owners[o] == nil || h.g.owners[o] == h.m },
	}
	if h.req.Epoch == JoinEpoch && step.owned == nil {
		step.owned = []record.TopicPartitions{} // who joins owns nothing
	}
	next := step.next()
	if next != current || s.current[h.id] == nil {
		h.c.setCurrent(h.m, current, next)
	}
	r := h.c.tell(h.m, next)
	if h.full() || !samePartitions(current.Assigned, next.Assigned) {
		r.Assignment = &ConsumerAssignment{Partitions: next.Assigned}
	}
	return r
}

// memberHeartbeats is how many heartbeats a second a coordinator has sent to it besides,
// so that few members hear of changes soon: 50 of them, all partitions of a node that
// leads them all, are 2,000.
const memberHeartbeats = 40

// interval is when the member is to send the next heartbeat. With an interval of
// (groups * members of the group) / memberHeartbeats each group sends its share of that.
func (c *Coordinator) interval(g *consumer) time.Duration {
	members := len(c.consumers) * len(g.members)
	return min(max(time.Duration(members)*time.Second/memberHeartbeats, c.opts.ConsumerHeartbeatIntervalMin), c.opts.ConsumerHeartbeatInterval)
}

// full reports whether the member has said all, and is so told all: it joins, or does
// not know what became of its last heartbeat.
func (h *heartbeat) full() bool {
	return h.req.Epoch == JoinEpoch ||
		h.req.RebalanceTimeoutMS != -1 && (h.req.Topics != nil || h.req.Regex != nil) && h.req.Owned != nil
}
