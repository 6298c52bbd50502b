package consumergroup

import (
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Members that speak the classic protocol in a group of KIP-848: the coordinator assigns
// to them as to the others. Each of their generations is their member epoch, nobody of
// them leads, and REBALANCE_IN_PROGRESS has one of them join again when there is
// something to give away, or to get.

// mixedJoin is JoinGroup of such a member. The reply is never held.
func (c *Coordinator) mixedJoin(g *consumer, token Token, req *JoinRequest) {
	h, err := c.mixedHeartbeat(g, req)
	if err != nil {
		c.refuse(token, h.id, err)
		return
	}
	h.subscribe()
	r := h.reconcile()
	v := h.after
	c.timers.stop(h.m.rejoin)
	c.timers.set(h.m.rejoin, c.now.Add(ms(int64(v.RebalanceTimeoutMS)))) // to ask for its assignment
	c.reply(token, &JoinReply{
		MemberID: h.id, Generation: r.Epoch, ProtocolType: record.ConsumerProtocolType, Protocol: v.Classic.Protocols[0].Name,
	})
	if c.downgradable(c.decided.consumer(g.name)) {
		c.downgrade(g) // it was, or took the place of, the last member of KIP-848
	}
}

// mixedHeartbeat returns the heartbeat that a JoinRequest stands for, with nothing
// decided yet. With an error, its id is the member's.
func (c *Coordinator) mixedHeartbeat(g *consumer, req *JoinRequest) (*heartbeat, *errcode.Error) {
	h := &heartbeat{c: c, g: g, id: req.MemberID}
	if c.topics == nil {
		return h, errNoTopics
	}
	inconsistent := func(why string) *errcode.Error {
		return errcode.Errorf(errcode.InconsistentGroupProtocol, "group %s is assigned by the server (KIP-848), and %s", errcode.Short(g.name), why)
	}
	s := c.decided.consumer(g.name)
	switch {
	case c.opts.Migration == MigrateNever:
		return h, inconsistent("group.consumer.migration.policy lets no member of the classic protocol join: set group.protocol=consumer")
	case req.ProtocolType != record.ConsumerProtocolType || len(req.Protocols) == 0 || !s.shares(req):
		return h, inconsistent("its members share no protocol with this one: configure one assignor that all consumers know")
	}
	subscription, err := record.DecodeSubscription(req.Protocols[0].Metadata)
	if err != nil {
		return h, inconsistent("what the member says cannot be read: use a consumer")
	}
	if len(subscription.Topics) > c.opts.MaxSubscribedTopics || slices.ContainsFunc(subscription.Topics, func(t string) bool { return len(t) > maxNameBytes }) {
		return h, errcode.Errorf(errcode.InvalidRequest, "the member subscribes to more than %d topics, or to one with a longer name than there is: subscribe to fewer",
			c.opts.MaxSubscribedTopics)
	}
	if err := h.findMixed(req); err != nil {
		return h, err
	}
	_, rebalanceMS := timeouts(req)
	h.req = &ConsumerHeartbeatRequest{
		Group: g.name, MemberID: h.id, Epoch: JoinEpoch, InstanceID: optional(req.InstanceID), RackID: subscription.RackID,
		ClientID: req.ClientID, ClientHost: req.ClientHost, RebalanceTimeoutMS: max(rebalanceMS, 1),
		Topics: append([]string{}, subscription.Topics...), Regex: new(string),
	}
	set := make(partitionSet)
	for _, o := range c.ownedPartitions(subscription.Owned) {
		set[o] = 0
	}
	h.req.Owned = append([]record.TopicPartitions{}, set.list()...)
	if h.m == nil && req.MemberID != "" && len(set) > 0 {
		// It was lost, does not know it yet, and consumes what others may have by now.
		return h, errUnknownMember
	}
	h.describe()
	h.after.Assignor = nil
	h.after.Classic = &record.ClassicMember{SessionTimeoutMS: req.SessionTimeoutMS, Protocols: recordedProtocols(req.Protocols)}
	return h, h.room()
}

// findMixed finds the member that a JoinRequest is of, as heartbeat.find does.
func (h *heartbeat) findMixed(req *JoinRequest) *errcode.Error {
	h.m = h.g.members[req.MemberID]
	if req.InstanceID != "" {
		switch id := h.g.static[req.InstanceID]; {
		case id == "" && req.MemberID != "" && h.m == nil:
			return errUnknownMember
		case id == "" && h.m != nil:
			return errFenced // it has said another before, or none
		case id != "" && req.MemberID != "" && id != req.MemberID:
			return errFenced
		case id != "" && id != req.MemberID:
			h.old = h.g.members[id]
		}
	}
	if h.id != "" {
		return nil
	}
	prefix := req.ClientID
	if req.InstanceID != "" {
		prefix = req.InstanceID
	}
	h.id = prefix + "-" + h.c.opts.NewID()
	if req.InstanceID == "" && req.NeedsMemberID {
		return errcode.Errorf(errcode.MemberIDRequired, "join again with this member id")
	}
	return nil
}

// shares reports whether a protocol of the request is known to all members that speak
// the classic protocol.
func (s *consumerState) shares(req *JoinRequest) bool {
	return slices.ContainsFunc(req.Protocols, func(p Protocol) bool {
		for id, v := range s.members {
			if v.Classic == nil || id == req.MemberID {
				continue
			}
			if !slices.ContainsFunc(v.Classic.Protocols, func(o record.ClassicProtocol) bool { return o.Name == p.Name }) {
				return false
			}
		}
		return true
	})
}

// mixedMember returns the member that speaks the classic protocol and sends a request.
func (c *Coordinator) mixedMember(g *consumer, id, instance string) (*consumerMember, *record.ConsumerMemberValue, *errcode.Error) {
	if instance != "" {
		switch other := g.static[instance]; {
		case other == "":
			return nil, nil, errUnknownMember
		case other != id:
			return nil, nil, errFenced
		}
	}
	m := g.members[id]
	if m == nil {
		return nil, nil, errUnknownMember
	}
	v := c.decided.consumer(g.name).members[id]
	if v.Classic == nil || len(v.Classic.Protocols) == 0 {
		return nil, nil, errUnknownMember
	}
	return m, v, nil
}

// mixedSync is SyncGroup of such a member.
func (c *Coordinator) mixedSync(g *consumer, req *SyncRequest) *SyncReply {
	m, v, err := c.mixedMember(g, req.MemberID, req.InstanceID)
	if err != nil {
		return &SyncReply{Err: err}
	}
	s := c.decided.consumer(g.name)
	current := s.currentOf(m.id)
	protocol := v.Classic.Protocols[0].Name
	switch {
	case c.topics == nil:
		return &SyncReply{Err: errNoTopics}
	case req.Generation != current.Epoch:
		return &SyncReply{Err: errGeneration}
	case req.ProtocolType != "" && req.ProtocolType != record.ConsumerProtocolType || req.Protocol != "" && req.Protocol != protocol:
		return &SyncReply{Err: errcode.Errorf(errcode.InconsistentGroupProtocol, "the member has joined with protocol %q of type %q: join again",
			errcode.Short(protocol), record.ConsumerProtocolType)}
	case s.groupEpoch() > current.Epoch && current.State != record.UnrevokedPartitions:
		c.expectRejoin(m, v)
		return &SyncReply{Err: errRebalance}
	}
	c.timers.stop(m.rejoin)
	c.renewConsumer(m)
	c.out.Reads = true
	return &SyncReply{ProtocolType: record.ConsumerProtocolType, Protocol: protocol, Assignment: c.classicAssignment(v, current)}
}

// expectRejoin gives a member its rebalance timeout to join again, from the first time
// that it is told to.
func (c *Coordinator) expectRejoin(m *consumerMember, v *record.ConsumerMemberValue) {
	if m.rejoin.pos < 0 {
		c.timers.set(m.rejoin, c.now.Add(ms(int64(v.RebalanceTimeoutMS))))
	}
}

// mixedBeat is Heartbeat of such a member: it is to join again when the group's epoch is
// not its own, as while it has something to give away, or when there is something for it.
func (c *Coordinator) mixedBeat(g *consumer, req *HeartbeatRequest) *errcode.Error {
	m, v, err := c.mixedMember(g, req.MemberID, req.InstanceID)
	if err != nil {
		return err
	}
	s := c.decided.consumer(g.name)
	current := s.currentOf(m.id)
	if req.Generation != current.Epoch {
		return errGeneration
	}
	c.renewConsumer(m)
	if current.Epoch < s.groupEpoch() || current.State == record.UnreleasedPartitions && c.released(m, s) {
		c.expectRejoin(m, v)
		return errRebalance
	}
	return nil
}

// released reports whether there is something for a member that waits for it.
func (c *Coordinator) released(m *consumerMember, s *consumerState) bool {
	has := setOf(s.currentOf(m.id).Assigned)
	for o := range setOf(s.targetOf(m.id)) {
		if _, ok := has[o]; !ok && m.group.owners[o] == nil {
			return true
		}
	}
	return false
}

// leaveMixed is LeaveGroup of a group of KIP-848. The group may be a classic one once
// its last other member has left: the rest leaves that.
func (c *Coordinator) leaveMixed(token Token, req *LeaveRequest) {
	r := &LeaveReply{Members: make([]LeaveResult, len(req.Members))}
	left := false // a classic group, with who has left in the same request
	for i, l := range req.Members {
		var err *errcode.Error
		if g := c.consumers[req.Group]; g != nil {
			err = c.mixedLeave(g, l)
		} else if err = c.leave(c.live[req.Group], l); err == nil {
			left = true
		}
		r.Members[i] = LeaveResult{MemberID: l.MemberID, InstanceID: l.InstanceID, Err: err}
	}
	c.reply(token, r)
	if left {
		c.without(c.live[req.Group])
	}
}

// mixedLeave takes members out of a group of KIP-848 by LeaveGroup.
func (c *Coordinator) mixedLeave(g *consumer, l LeaveMember) *errcode.Error {
	id := l.MemberID
	if id == "" && l.InstanceID != "" {
		id = g.static[l.InstanceID]
	}
	m := g.members[id]
	switch {
	case m == nil:
		return errUnknownMember
	case l.InstanceID != "" && g.static[l.InstanceID] != id:
		return errFenced
	}
	c.removeConsumer(m)
	return nil
}
