package consumergroup

import (
	"bytes"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// rebalance begins one, or ends the one that is going on if everybody is there.
func (c *Coordinator) rebalance(g *classic) {
	if g.state == PreparingRebalance {
		c.maybeComplete(g)
		return
	}
	c.prepare(g)
}

// maybeComplete ends the join if everybody is there. The first one of an empty group
// goes on until its delay is over: others are about to come.
func (c *Coordinator) maybeComplete(g *classic) {
	if g.state == PreparingRebalance && !g.initial && g.allJoined() {
		c.completeJoin(g)
	}
}

// prepare begins a rebalance: all members are to join again.
func (c *Coordinator) prepare(g *classic) {
	if g.state == CompletingRebalance {
		c.assign(g, nil, errRebalance)
	}
	c.timers.stop(g.sync)
	for _, m := range g.members {
		g.setSynced(m)
	}
	g.initial = g.state == Empty
	c.enter(g, PreparingRebalance)
	switch {
	case g.initial:
		g.grew = false
		g.delayMS = c.opts.InitialRebalanceDelay.Milliseconds()
		g.leftMS = max(g.rebalanceMS()-g.delayMS, 0)
		c.timers.set(g.join, c.now.Add(c.opts.InitialRebalanceDelay))
	case g.allJoined():
		c.completeJoin(g)
	default:
		c.waitJoin(g)
	}
}

// waitJoin gives the members their time to join. That is some time even if they ask for
// none: what comes then may be to wait again.
func (c *Coordinator) waitJoin(g *classic) {
	c.timers.set(g.join, c.now.Add(max(ms(g.rebalanceMS()), leastWait)))
}

const leastWait = time.Second

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// joinTimeout ends the time to join. An empty group's is extended while members
// come, up to their rebalance timeout.
func (c *Coordinator) joinTimeout(g *classic) {
	if g.initial && g.grew && g.leftMS > 0 {
		g.grew = false
		delay := min(c.opts.InitialRebalanceDelay.Milliseconds(), g.leftMS)
		g.leftMS = max(g.leftMS-g.delayMS, 0)
		g.delayMS = delay
		c.timers.set(g.join, c.now.Add(ms(delay)))
		return
	}
	c.completeJoin(g)
}

// completeJoin ends PreparingRebalance: who has joined makes up the next generation.
// Members that have not are lost, but for static ones, whose session says so.
func (c *Coordinator) completeJoin(g *classic) {
	c.timers.stop(g.join)
	for _, m := range slices.Clone(g.members) {
		if m.join == 0 && m.instance == "" {
			c.remove(m, errUnknownMember)
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		c.waitJoin(g) // until their sessions are over, or one comes
		return
	}
	g.generation++
	g.initial = false
	if len(g.members) == 0 {
		g.protocol = ""
		c.enter(g, Empty)
		if c.decided.meta(g.name) != nil { // else it never came to more
			c.persist(g)
		}
		c.keep(g)
		return
	}
	g.protocol = g.elect()
	c.enter(g, CompletingRebalance)
	for _, m := range g.members {
		c.answerJoin(m, c.joined(m))
		c.renew(m)
		m.fresh, m.nameless = false, false
		if !m.unsynced {
			m.unsynced = true
			g.syncing++
		}
	}
	c.timers.set(g.sync, c.now.Add(ms(g.rebalanceMS())))
}

// electLeader sees to it that the leader is somebody who has joined, and reports
// whether anybody has.
func (g *classic) electLeader() bool {
	if m := g.byID[g.leader]; m != nil && m.join != 0 {
		return true
	}
	for _, m := range g.members {
		if m.join != 0 {
			g.leader = m.id
			return true
		}
	}
	return false
}

// SyncGroup tells a member its assignment; the leader's request brings it. The reply
// is a *SyncReply; it is held until the leader's is there, and recorded.
func (c *Coordinator) SyncGroup(now time.Time, token Token, req *SyncRequest, out *Decision) {
	c.begin(now, out)
	if g := c.consumers[req.Group]; g != nil {
		c.reply(token, c.mixedSync(g, req))
		return
	}
	m, err := c.checkSync(req)
	if err != nil {
		c.reply(token, &SyncReply{Err: err})
		return
	}
	g := m.group
	switch g.state {
	case PreparingRebalance:
		c.reply(token, &SyncReply{Err: errRebalance})
	case Stable:
		g.setSynced(m)
		c.out.Reads = true
		c.reply(token, synced(m))
	case CompletingRebalance:
		g.setSynced(m)
		c.holdSync(m, token)
		if g.leader == m.id {
			c.assigned(g, req.Assignments)
		}
	}
}

// checkSync returns the member that sends the request.
func (c *Coordinator) checkSync(req *SyncRequest) (*member, *errcode.Error) {
	if err := named(req.Group); err != nil {
		return nil, err
	}
	g := c.live[req.Group]
	if g == nil {
		return nil, errUnknownMember
	}
	m, err := g.check(req.MemberID, req.InstanceID)
	switch {
	case err != nil:
		return nil, err
	case req.Generation != g.generation:
		return nil, errGeneration
	case req.ProtocolType != "" && req.ProtocolType != g.protocolType || req.Protocol != "" && req.Protocol != g.protocol:
		return nil, errcode.Errorf(errcode.InconsistentGroupProtocol,
			"the group has protocol %q of type %q, not %q of type %q: join again",
			errcode.Short(g.protocol), errcode.Short(g.protocolType), errcode.Short(req.Protocol), errcode.Short(req.ProtocolType))
	}
	return m, nil
}

// assigned takes what the leader has assigned. Members that it leaves out get
// nothing; what it assigns to others is left aside.
func (c *Coordinator) assigned(g *classic, as []Assignment) {
	by := make(map[string][]byte, len(as))
	for _, a := range as {
		if g.byID[a.MemberID] != nil {
			by[a.MemberID] = bytes.Clone(a.Bytes)
		}
	}
	growth := 0
	for _, m := range g.members {
		growth += len(by[m.id]) - len(m.assignment)
	}
	if !c.fits(g, growth) {
		c.assign(g, nil, errcode.Errorf(errcode.UnknownServer,
			"the assignments take more than %d bytes in this group, or %d in all: subscribe to fewer topics, start fewer consumers, or raise offsets.partition.member.bytes.max",
			c.opts.MaxGroupBytes, c.opts.MaxBytes))
		c.prepare(g)
		return
	}
	c.enter(g, Stable)
	c.assign(g, by, nil)
	c.persist(g)
}

// assign gives all members their assignments, and tells those that wait for them.
func (c *Coordinator) assign(g *classic, by map[string][]byte, err *errcode.Error) {
	for _, m := range g.members {
		m.assignment = by[m.id]
		c.account(m)
		if m.sync == 0 {
			continue
		}
		if err != nil {
			c.answerSync(m, &SyncReply{Err: err})
		} else {
			c.answerSync(m, synced(m))
		}
		c.renew(m) // it may have passed while the member waited
	}
}

func synced(m *member) *SyncReply {
	return &SyncReply{ProtocolType: m.group.protocolType, Protocol: m.group.protocol, Assignment: m.assignment}
}

// syncTimeout takes out the members that have joined and never asked for their
// assignment: what it says they have is consumed by nobody.
func (c *Coordinator) syncTimeout(g *classic) {
	if g.syncing == 0 {
		return
	}
	for _, m := range slices.Clone(g.members) {
		if m.unsynced {
			c.remove(m, errUnknownMember)
		}
	}
	c.prepare(g)
}

// holdSync holds a member's request until the leader has assigned.
func (c *Coordinator) holdSync(m *member, token Token) {
	c.answerSync(m, &SyncReply{Err: errReplaced})
	m.sync = token
	c.held[token] = m
}

// answerSync answers the SyncRequest that is held of a member, if one is.
func (c *Coordinator) answerSync(m *member, r *SyncReply) {
	if m.sync != 0 {
		c.reply(m.sync, r)
		c.letSync(m)
	}
}

// letSync holds the member's SyncRequest no longer.
func (c *Coordinator) letSync(m *member) {
	delete(c.held, m.sync)
	m.sync = 0
}
