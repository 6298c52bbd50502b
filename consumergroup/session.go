package consumergroup

import (
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Heartbeat keeps a member's session. The reply is a HeartbeatReply; it says when
// the member is to join again. It takes constant time and no memory.
func (c *Coordinator) Heartbeat(now time.Time, token Token, req *HeartbeatRequest, out *Decision) {
	c.begin(now, out)
	c.reply(token, HeartbeatReply{c.heartbeat(req)})
}

func (c *Coordinator) heartbeat(req *HeartbeatRequest) *errcode.Error {
	if err := named(req.Group); err != nil {
		return err
	}
	if g := c.consumers[req.Group]; g != nil {
		return c.mixedBeat(g, req)
	}
	g := c.live[req.Group]
	if g == nil {
		return errUnknownMember
	}
	m, err := g.check(req.MemberID, req.InstanceID)
	switch {
	case err != nil:
		return err
	case req.Generation != g.generation:
		return errGeneration
	}
	c.renew(m)
	if g.state == PreparingRebalance {
		return errRebalance
	}
	return nil
}

// renew begins a member's session anew.
func (c *Coordinator) renew(m *member) { c.timers.set(m.session, c.now.Add(ms(int64(m.sessionMS)))) }

// sessionTimeout ends a member's session. One that waits for an answer cannot send
// heartbeats and is well, unless it is new: nothing was ever heard of it but that.
func (c *Coordinator) sessionTimeout(m *member) {
	if !m.fresh && (m.join != 0 || m.sync != 0) {
		return
	}
	c.lose(m)
}

// lose takes a member out, and has the others rebalance.
func (c *Coordinator) lose(m *member) {
	g := m.group
	c.remove(m, errUnknownMember)
	c.without(g)
}

// without goes on after members were taken out: the others share anew.
func (c *Coordinator) without(g *classic) {
	if g.state == Stable || g.state == CompletingRebalance {
		c.prepare(g)
	} else {
		c.maybeComplete(g)
	}
	c.keep(g)
}

// remove takes a member out, and answers what is held of it.
func (c *Coordinator) remove(m *member, err *errcode.Error) {
	c.answerJoin(m, &JoinReply{Err: err, Generation: -1})
	c.answerSync(m, &SyncReply{Err: err})
	c.timers.stop(m.session)
	m.group.drop(m)
	c.accountAs(m, 0)
}

// Gone says that the connection of a request has ended, so that it cannot be
// answered any more. It does nothing if the request is not held. A member that does
// not know its id yet is lost with it; others have until their session is over to
// ask again.
func (c *Coordinator) Gone(now time.Time, token Token, out *Decision) {
	c.begin(now, out)
	m := c.held[token]
	switch {
	case m == nil:
		return
	case m.sync == token:
		c.letSync(m)
	case m.nameless:
		c.letJoin(m)
		c.lose(m)
		return
	default:
		c.letJoin(m)
	}
	m.fresh = false // its session is as anybody's
	c.renew(m)
}

// LeaveGroup takes members out, at their own wish or an operator's. The reply is a
// *LeaveReply.
func (c *Coordinator) LeaveGroup(now time.Time, token Token, req *LeaveRequest, out *Decision) {
	c.begin(now, out)
	if err := named(req.Group); err != nil {
		c.reply(token, &LeaveReply{Err: err})
		return
	}
	if c.consumers[req.Group] != nil {
		c.leaveMixed(token, req)
		return
	}
	g := c.live[req.Group]
	r := &LeaveReply{Members: make([]LeaveResult, len(req.Members))}
	left := false
	for i, l := range req.Members {
		r.Members[i] = LeaveResult{MemberID: l.MemberID, InstanceID: l.InstanceID, Err: c.leave(g, l)}
		left = left || r.Members[i].Err == nil
	}
	c.reply(token, r)
	if left {
		c.without(g)
	}
}

// leave takes one member out. g is nil if the group has none.
func (c *Coordinator) leave(g *classic, l LeaveMember) *errcode.Error {
	if g == nil {
		return errUnknownMember
	}
	if l.MemberID == "" {
		m := g.static[l.InstanceID]
		if l.InstanceID == "" || m == nil {
			return errUnknownMember
		}
		c.remove(m, errUnknownMember)
		return nil
	}
	if g.pending[l.MemberID] != nil {
		c.forgetPending(g, l.MemberID)
		return nil
	}
	m, err := g.check(l.MemberID, l.InstanceID)
	if err != nil {
		return err
	}
	c.remove(m, errUnknownMember)
	return nil
}
