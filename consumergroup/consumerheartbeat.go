package consumergroup

import (
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/assign"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Epochs that a ConsumerHeartbeatRequest says instead of a member's.
const (
	JoinEpoch        = 0  // the member joins, or joins again and owns nothing
	LeaveEpoch       = -1 // it leaves
	StaticLeaveEpoch = -2 // it is static, leaves, and will be back
)

// ConsumerHeartbeatRequest says that a member of a group of KIP-848 lives, and what
// has changed with it. A nil field, or -1, has not changed.
type ConsumerHeartbeatRequest struct {
	Group    string
	MemberID string // made by the client; empty, in version 0, when it joins
	Epoch    int32  // the member's, or one of the above

	InstanceID *string // of a static member; it says it in each request
	RackID     *string
	ClientID   string
	ClientHost string

	RebalanceTimeoutMS int32    // how long it may take to give partitions away
	Topics             []string // that it subscribes to by name
	Regex              *string  // likewise, by regular expression; empty: by none
	Assignor           *string

	Owned []record.TopicPartitions // what it has
}

// ConsumerHeartbeatReply answers a ConsumerHeartbeatRequest.
type ConsumerHeartbeatReply struct {
	Err      *errcode.Error
	MemberID string
	Epoch    int32
	Interval time.Duration // until the next heartbeat

	// Assignment is what the member has from now on; nil: it has not changed. What is
	// not in it, the member is to give away, and then to say what it owns.
	Assignment *ConsumerAssignment
}

// ConsumerAssignment is what a member has. Epochs are not for the client.
type ConsumerAssignment struct{ Partitions []record.TopicPartitions }

// TopicsChanged tells the topics that there are, at first and when they have changed.
// Groups take notice with the next heartbeat of a member. Until it was called,
// members are told to wait.
func (c *Coordinator) TopicsChanged(now time.Time, topics *Topics, out *Decision) {
	c.begin(now, out)
	c.topics = topics
}

// ConsumerHeartbeat has a member join, keep its place in, or leave a group that the
// coordinator assigns (KIP-848). The reply is a *ConsumerHeartbeatReply.
func (c *Coordinator) ConsumerHeartbeat(now time.Time, token Token, req *ConsumerHeartbeatRequest, out *Decision) {
	c.begin(now, out)
	records := len(out.Records)
	r, err := c.consumerHeartbeat(req)
	if err != nil {
		r = &ConsumerHeartbeatReply{Err: err}
	}
	if r.Assignment != nil && len(out.Records) == records {
		// What it is told it has, another coordinator may have given away since.
		out.Reads = true
	}
	c.reply(token, r)
}

func (c *Coordinator) consumerHeartbeat(req *ConsumerHeartbeatRequest) (*ConsumerHeartbeatReply, *errcode.Error) {
	if err := c.checkConsumer(req); err != nil {
		return nil, err
	}
	if req.Epoch < JoinEpoch {
		return c.consumerLeave(req)
	}
	if c.topics == nil {
		return nil, errNoTopics
	}
	h := &heartbeat{c: c, req: req, g: c.consumers[req.Group]}
	if err := h.find(); err != nil {
		return nil, err
	}
	h.describe()
	if err := h.room(); err != nil {
		return nil, err
	}
	h.subscribe()
	return h.reconcile(), nil
}

// checkConsumer returns what is wrong with a request, whatever the group.
func (c *Coordinator) checkConsumer(req *ConsumerHeartbeatRequest) *errcode.Error {
	invalid := func(text string) *errcode.Error { return errcode.Errorf(errcode.InvalidRequest, "%s", text) }
	names := []string{req.MemberID, req.ClientID, req.ClientHost}
	for _, s := range []*string{req.InstanceID, req.RackID} {
		if s != nil && *s == "" {
			return invalid("the instance id or the rack id is empty: leave it out, or set it")
		}
		names = append(names, required(s))
	}
	if err := named(req.Group, append(names, req.Topics...)...); err != nil {
		return err
	}
	joins := req.Epoch == JoinEpoch
	switch {
	case req.Epoch < StaticLeaveEpoch:
		return errcode.Errorf(errcode.InvalidRequest, "a member epoch of %d: it is the member's, or 0 to join, -1 or -2 to leave", req.Epoch)
	case req.MemberID == "" && !joins:
		return invalid("the member id is empty: a member keeps the id that it has joined with")
	case req.Epoch == StaticLeaveEpoch && req.InstanceID == nil:
		return invalid("a member epoch of -2 without an instance id: a member that is not static leaves with -1")
	case joins && req.RebalanceTimeoutMS <= 0, req.RebalanceTimeoutMS < -1:
		return invalid("there is no rebalance timeout: say how long the member may take to give partitions away")
	case joins && len(req.Owned) > 0:
		return invalid("a member that joins owns no partitions: give them up first")
	case joins && req.Topics == nil && req.Regex == nil:
		return invalid("the member subscribes to nothing: say topics, or a regular expression")
	case len(req.Topics) > c.opts.MaxSubscribedTopics:
		return errcode.Errorf(errcode.InvalidRequest, "the member subscribes to %d topics, the limit is %d: subscribe to fewer, or by a regular expression",
			len(req.Topics), c.opts.MaxSubscribedTopics)
	}
	if req.Assignor != nil && assign.ByName(*req.Assignor) == nil {
		return errcode.Errorf(errcode.UnsupportedAssignor, "there is no assignor %s: choose one of %s",
			errcode.Short(*req.Assignor), strings.Join(assign.Names(), ", "))
	}
	if re := required(req.Regex); re != "" {
		if _, err := CompileRegex(re); err != nil {
			return err
		}
	}
	return nil
}

// heartbeat is one ConsumerHeartbeat on its way. Until room is done, nothing has
// changed.
type heartbeat struct {
	c   *Coordinator
	req *ConsumerHeartbeatRequest
	g   *consumer // nil: there is none with members

	m   *consumerMember // nil: it is new
	old *consumerMember // the static member whose place it takes; nil: none
	id  string          // the member's

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
			return errcode.Errorf(errcode.GroupIDNotFound,
				"group %s has members of the classic protocol: stop them, or set group.protocol=classic", errcode.Short(h.req.Group))
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
			"what members say of themselves takes more than %d bytes in this group, or %d in all: subscribe to fewer topics, or start fewer consumers",
			h.c.opts.MaxGroupBytes, h.c.opts.MaxBytes)
	}
	return nil
}

// subscribe takes what the member says, and begins a new epoch of the group if that,
// or the topics, call for one.
func (h *heartbeat) subscribe() {
	c := h.c
	if h.g == nil {
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
	return a.ClientID == b.ClientID && a.ClientHost == b.ClientHost && a.RebalanceTimeoutMS == b.RebalanceTimeoutMS &&
		slices.Equal(a.Topics, b.Topics)
}

// write decides what the member has said.
func (h *heartbeat) write() {
	h.c.write(&record.ConsumerMember{Group: h.g.name, MemberID: h.m.id, Value: h.after})
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
	r := &ConsumerHeartbeatReply{MemberID: h.id, Epoch: next.Epoch, Interval: h.c.opts.ConsumerHeartbeatInterval}
	if h.full() || !samePartitions(current.Assigned, next.Assigned) {
		r.Assignment = &ConsumerAssignment{Partitions: next.Assigned}
	}
	return r
}

// full reports whether the member has said all, and is so told all: it joins, or does
// not know what became of its last heartbeat.
func (h *heartbeat) full() bool {
	return h.req.Epoch == JoinEpoch ||
		h.req.RebalanceTimeoutMS != -1 && (h.req.Topics != nil || h.req.Regex != nil) && h.req.Owned != nil
}

// consumerLeave takes a member out, or, a static one that will be back, lets it go.
func (c *Coordinator) consumerLeave(req *ConsumerHeartbeatRequest) (*ConsumerHeartbeatReply, *errcode.Error) {
	g := c.consumers[req.Group]
	if g == nil || g.members[req.MemberID] == nil {
		if g != nil && req.InstanceID != nil && g.static[*req.InstanceID] != "" {
			return nil, errFenced
		}
		return nil, errUnknownMember
	}
	m := g.members[req.MemberID]
	if req.InstanceID != nil && g.static[*req.InstanceID] != m.id {
		return nil, errFenced
	}
	if req.Epoch == StaticLeaveEpoch {
		current := c.decided.consumer(g.name).currentOf(m.id)
		left := *current
		// It has given all away; what it is to have is kept for it.
		left.Epoch, left.State, left.Revoking = StaticLeaveEpoch, record.Stable, nil
		c.setCurrent(m, current, &left)
	} else {
		c.removeConsumer(m)
	}
	return &ConsumerHeartbeatReply{MemberID: req.MemberID, Epoch: req.Epoch}, nil
}
