package consumergroup

import (
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// ListGroups tells which groups there are. The reply is a *ListReply.
func (c *Coordinator) ListGroups(now time.Time, token Token, req *ListRequest, out *Decision) {
	c.begin(now, out)
	out.Reads = true
	r := new(ListReply)
	states := make([]string, len(req.States))
	for i := range states {
		states[i] = strings.TrimSpace(req.States[i])
	}
	for _, name := range c.groups() {
		l := c.listed(name)
		if matches(states, l.State.String()) && matches(req.Types, l.Type) {
			r.Groups = append(r.Groups, l)
		}
	}
	c.reply(token, r)
}

func (c *Coordinator) listed(name string) ListedGroup {
	if s := c.decided.consumer(name); s != nil {
		return ListedGroup{Group: name, Type: "consumer", ProtocolType: record.ConsumerProtocolType, State: consumerGroupState(s)}
	}
	l := ListedGroup{Group: name, Type: "classic"}
	if g := c.live[name]; g != nil {
		l.ProtocolType, l.State = g.protocolType, g.state
	} else if v := c.decided.meta(name); v != nil {
		l.ProtocolType = v.ProtocolType
	}
	return l
}

func matches(filter []string, s string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, s) })
}

// DescribeGroup tells of one group and its members. The reply is a *DescribeReply.
func (c *Coordinator) DescribeGroup(now time.Time, token Token, name string, out *Decision) {
	c.begin(now, out)
	out.Reads = true
	g := c.group(name)
	if g == nil {
		c.reply(token, &DescribeReply{Err: errNoGroup, Group: name, State: Dead})
		return
	}
	r := &DescribeReply{Group: name, State: g.state, ProtocolType: g.protocolType, Members: make([]DescribedMember, len(g.members))}
	for i, m := range g.members {
		r.Members[i] = DescribedMember{
			MemberID: m.id, InstanceID: m.instance, ClientID: m.clientID, ClientHost: m.clientHost, Assignment: m.assignment,
		}
		if g.state == Stable {
			r.Members[i].Metadata, _ = m.metadata(g.protocol)
		}
	}
	if g.state == Stable {
		r.Protocol = g.protocol
	}
	c.reply(token, r)
}

// DeleteGroups deletes groups without members, with their offsets. The reply is a
// *DeleteGroupsReply.
func (c *Coordinator) DeleteGroups(now time.Time, token Token, names []string, out *Decision) {
	c.begin(now, out)
	r := &DeleteGroupsReply{Groups: make([]DeletedGroup, len(names))}
	for i, name := range names {
		r.Groups[i] = DeletedGroup{Group: name, Err: c.deleteGroup(name)}
	}
	c.reply(token, r)
}

func (c *Coordinator) deleteGroup(name string) *errcode.Error {
	if c.consumers[name] != nil {
		return errNonEmpty
	}
	if c.decided.consumer(name) != nil {
		c.forgetAll(name)
		c.buryConsumer(name)
		return nil
	}
	g := c.group(name)
	switch {
	case g == nil:
		return errNoGroup
	case g.state != Empty:
		return errNonEmpty
	}
	c.forgetAll(name)
	for id := range g.pending {
		c.forgetPending(g, id)
	}
	c.keep(g)
	c.bury(name)
	return nil
}

// forgetAll forgets all offsets of a group.
func (c *Coordinator) forgetAll(name string) {
	for tp := range c.decided.Committed(name) {
		c.forget(name, tp)
	}
}

// bury decides that a group is no more, if it has a record.
func (c *Coordinator) bury(name string) {
	if c.decided.meta(name) != nil {
		c.write(&record.GroupMetadata{Group: name})
	}
}
