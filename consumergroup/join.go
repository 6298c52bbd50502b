package consumergroup

import (
	"bytes"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// JoinGroup has a member join: a new one, or one that takes part in the next
// generation. The reply is a *JoinReply; mostly it is held until the rebalance ends.
func (c *Coordinator) JoinGroup(now time.Time, token Token, req *JoinRequest, out *Decision) {
	c.begin(now, out)
	if err := c.checkJoin(req); err != nil {
		c.refuse(token, req.MemberID, err)
		return
	}
	if g := c.consumers[req.Group]; g != nil {
		c.mixedJoin(g, token, req)
		return
	}
	g := c.group(req.Group)
	switch {
	case g == nil && req.MemberID != "":
		c.refuse(token, req.MemberID, errUnknownMember)
		return
	case g == nil && !c.decided.Has(req.Group) && max(c.decided.Len(), len(c.live)+len(c.consumers)) >= c.opts.MaxGroups:
		c.refuse(token, "", errcode.Errorf(errcode.GroupMaxSizeReached, tooManyGroups, c.opts.MaxGroups))
		return
	case g == nil:
		c.buryConsumer(req.Group) // it has no members
		g = c.newClassic(req.Group)
	}
	c.joinGroup(g, token, req)
	c.keep(g)
}

const tooManyGroups = "there are %d groups, as many as may be: delete those that are not used, or raise offsets.partition.groups.max"

// checkJoin returns what is wrong with the request, whatever the group.
func (c *Coordinator) checkJoin(req *JoinRequest) *errcode.Error {
	if err := named(req.Group, req.MemberID, req.InstanceID, req.ClientID, req.ClientHost, req.ProtocolType); err != nil {
		return err
	}
	session := time.Duration(req.SessionTimeoutMS) * time.Millisecond
	if session < c.opts.MinSessionTimeout || session > c.opts.MaxSessionTimeout {
		return errcode.Errorf(errcode.InvalidSessionTimeout, "a session timeout of %v: set session.timeout.ms from %d to %d",
			session, c.opts.MinSessionTimeout.Milliseconds(), c.opts.MaxSessionTimeout.Milliseconds())
	}
	if n := len(req.Protocols); n > c.opts.MaxProtocols {
		return errcode.Errorf(errcode.InvalidRequest, "%d protocols: name at most %d assignors", n, c.opts.MaxProtocols)
	}
	seen := make(map[string]struct{}, len(req.Protocols))
	for _, p := range req.Protocols {
		if _, twice := seen[p.Name]; twice || p.Name == "" {
			return errcode.Errorf(errcode.InvalidRequest, "the protocol %q is named twice, or is empty: name each assignor once", errcode.Short(p.Name))
		}
		if len(p.Name) > maxNameBytes {
			return errLongName
		}
		seen[p.Name] = struct{}{}
	}
	return nil
}

// refuse answers a JoinRequest with an error.
func (c *Coordinator) refuse(token Token, memberID string, err *errcode.Error) {
	c.reply(token, &JoinReply{Err: err, MemberID: memberID, Generation: -1})
}

func (c *Coordinator) joinGroup(g *classic, token Token, req *JoinRequest) {
	switch m := g.byID[req.MemberID]; {
	case !c.hasRoom(g, m):
		c.kick(g, m, req.MemberID)
		c.refuse(token, "", errcode.Errorf(errcode.GroupMaxSizeReached,
			"the group has %d members, as many as may be: start fewer consumers, or raise group.max.size", c.opts.MaxGroupSize))
	case !g.accepts(req.ProtocolType, req.Protocols):
		c.refuse(token, req.MemberID, errcode.Errorf(errcode.InconsistentGroupProtocol,
			"the members of group %s share no protocol with this one: configure one assignor that all of them know, of one protocol type", errcode.Short(g.name)))
	case !c.fits(g, c.growth(g, m, req)):
		c.refuse(token, req.MemberID, errcode.Errorf(errcode.GroupMaxSizeReached,
			"what members say of themselves takes more than %d bytes in this group, or %d in all: subscribe to fewer topics, start fewer consumers, or raise offsets.partition.member.bytes.max",
			c.opts.MaxGroupBytes, c.opts.MaxBytes))
	case req.MemberID == "":
		c.joinNew(g, token, req)
	default:
		c.joinKnown(g, token, req)
	}
}

// hasRoom reports whether m, or a new member if nil, may join. While members
// rejoin, the first to do so stay: there may be more than there may be, after the
// bound was lowered.
func (c *Coordinator) hasRoom(g *classic, m *member) bool {
	switch g.state {
	case PreparingRebalance:
		return m != nil && m.join != 0 || g.joining < c.opts.MaxGroupSize
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < c.opts.MaxGroupSize
	}
	return true
}

// kick takes out who finds no room.
func (c *Coordinator) kick(g *classic, m *member, id string) {
	c.forgetPending(g, id)
	if m != nil {
		c.remove(m, errUnknownMember)
	}
	c.maybeComplete(g)
}

// growth is how many bytes more a join takes.
func (c *Coordinator) growth(g *classic, m *member, req *JoinRequest) int {
	if m == nil && req.InstanceID != "" {
		m = g.static[req.InstanceID]
	}
	n := protocolsSize(req.Protocols)
	if m != nil {
		return n - protocolsSize(m.protocols)
	}
	return n + memberBytes + idBytes + 2*len(req.ClientID) + 2*len(req.InstanceID) + len(req.ClientHost)
}

// joinNew handles a member that says no id.
func (c *Coordinator) joinNew(g *classic, token Token, req *JoinRequest) {
	prefix := req.ClientID
	if req.InstanceID != "" {
		prefix = req.InstanceID
	}
	id := prefix + "-" + c.opts.NewID()
	switch old := g.static[req.InstanceID]; {
	case req.InstanceID != "" && old != nil:
		c.replace(old, id, token, req)
	case req.InstanceID == "" && req.NeedsMemberID:
		c.addPending(g, id, req.SessionTimeoutMS)
		c.refuse(token, id, errcode.Errorf(errcode.MemberIDRequired, "join again with this member id"))
	default:
		c.add(g, id, token, req).nameless = req.InstanceID == ""
		c.rebalance(g)
	}
}

// addPending gives out an id, for as long as a session.
func (c *Coordinator) addPending(g *classic, id string, sessionMS int32) {
	t := newTimer(func() {
		c.forgetPending(g, id)
		c.maybeComplete(g)
		c.keep(g)
	})
	g.pending[id] = t
	c.hold(g, pendingBytes+len(id))
	c.timers.set(t, c.now.Add(time.Duration(sessionMS)*time.Millisecond))
}

// forgetPending takes an id back, or does nothing if it is not pending.
func (c *Coordinator) forgetPending(g *classic, id string) {
	if t := g.pending[id]; t != nil {
		c.timers.stop(t)
		delete(g.pending, id)
		c.hold(g, -pendingBytes-len(id))
	}
}

// add makes a new member, whose request is held.
func (c *Coordinator) add(g *classic, id string, token Token, req *JoinRequest) *member {
	m := c.newMember(g, id)
	m.instance, m.clientID, m.clientHost = req.InstanceID, req.ClientID, req.ClientHost
	m.protocols, m.fresh = clone(req.Protocols), true
	m.sessionMS, m.rebalanceMS = timeouts(req)
	if len(g.members) == 0 {
		g.protocolType = req.ProtocolType
	}
	if g.state == PreparingRebalance && g.initial {
		g.grew = true
	}
	c.forgetPending(g, id)
	g.insert(m)
	c.account(m)
	c.holdJoin(m, token)
	c.timers.set(m.session, c.now.Add(c.opts.NewMemberTimeout))
	return m
}

// clone copies what a member says: the request's bytes may be part of much more.
func clone(ps []Protocol) []Protocol {
	out := make([]Protocol, len(ps))
	for i, p := range ps {
		out[i] = Protocol{p.Name, bytes.Clone(p.Metadata)}
	}
	return out
}

func timeouts(req *JoinRequest) (sessionMS, rebalanceMS int32) {
	if req.RebalanceTimeoutMS < 0 {
		return req.SessionTimeoutMS, req.SessionTimeoutMS
	}
	return req.SessionTimeoutMS, req.RebalanceTimeoutMS
}

// joinKnown handles a member that says an id.
func (c *Coordinator) joinKnown(g *classic, token Token, req *JoinRequest) {
	if g.pending[req.MemberID] != nil && req.InstanceID == "" {
		c.add(g, req.MemberID, token, req)
		c.rebalance(g)
		return
	}
	m, err := g.check(req.MemberID, req.InstanceID)
	if err != nil {
		c.refuse(token, req.MemberID, err)
		return
	}
	m.nameless = false
	// The leader joins again when something has changed that it alone knows of, such
	// as a topic's partitions. Others join again when what they say has changed; or
	// they have missed the answer, and get it again.
	news := g.state == PreparingRebalance || !m.same(req.Protocols) || g.state == Stable && g.leader == m.id
	if !news {
		c.reply(token, c.joined(m))
		return
	}
	c.update(m, token, req)
	c.rebalance(g)
}

// update takes what a member says when it joins again, and holds its request.
func (c *Coordinator) update(m *member, token Token, req *JoinRequest) {
	m.group.setProtocols(m, clone(req.Protocols))
	m.sessionMS, m.rebalanceMS = timeouts(req)
	c.account(m)
	c.holdJoin(m, token)
}

// replace gives the place of a static member to who comes with its instance id: it
// was restarted, or there are two of them, and then the older one is fenced.
func (c *Coordinator) replace(m *member, id string, token Token, req *JoinRequest) {
	g, old := m.group, m.id
	leader := g.leader // as clients that know no SkipAssignment are told
	c.answerJoin(m, &JoinReply{Err: errFenced, MemberID: old, Generation: -1})
	c.answerSync(m, &SyncReply{Err: errFenced})
	delete(g.byID, old)
	m.id = id
	g.byID[id] = m
	if g.leader == old {
		g.leader = id
	}
	m.clientID, m.clientHost, m.fresh = req.ClientID, req.ClientHost, false
	c.update(m, token, req)
	c.renew(m)
	if g.state == Stable && g.elect() == g.protocol {
		c.replaced(m, leader, req.SkipsAssignment)
		return
	}
	c.rebalance(g) // else the leader may be about to assign to the old id
}

// replaced answers a static member that has come back to a group that needs no
// rebalance for it.
func (c *Coordinator) replaced(m *member, leader string, skips bool) {
	g := m.group
	c.persist(g)
	r := c.joined(m)
	r.Leader = leader
	if skips {
		r.Leader = g.leader
	}
	// As the leader it would assign anew, and the others would not ask.
	if r.SkipAssignment = skips && g.leader == m.id; !r.SkipAssignment {
		r.Members = nil
	}
	c.answerJoin(m, r)
}

// joined answers a member with the group's generation.
func (c *Coordinator) joined(m *member) *JoinReply {
	g := m.group
	r := &JoinReply{
		MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader,
	}
	if g.leader == m.id {
		r.Members = g.told()
	}
	return r
}

// holdJoin holds a member's request until the rebalance has ended.
func (c *Coordinator) holdJoin(m *member, token Token) {
	c.answerJoin(m, &JoinReply{Err: errReplaced, MemberID: m.id, Generation: -1})
	m.join = token
	m.group.joining++
	c.held[token] = m
}

// answerJoin answers the JoinRequest that is held of a member, if one is.
func (c *Coordinator) answerJoin(m *member, r *JoinReply) {
	if m.join != 0 {
		c.reply(m.join, r)
		c.letJoin(m)
	}
}

// letJoin holds the member's JoinRequest no longer.
func (c *Coordinator) letJoin(m *member) {
	delete(c.held, m.join)
	m.join = 0
	m.group.joining--
}
