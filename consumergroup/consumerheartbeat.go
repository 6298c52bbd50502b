package consumergroup

import (
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
	Session  time.Duration // that it may be silent; 0: not told, as it leaves

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

// ConsumerBeat decides what ConsumerHeartbeat would, if the member says nothing new and
// has nothing to be told, as with most heartbeats; else it does nothing, and returns
// false. It takes constant time and little memory.
func (c *Coordinator) ConsumerBeat(now time.Time, token Token, req *ConsumerHeartbeatRequest, out *Decision) bool {
	c.begin(now, out)
	r := c.beat(req)
	if r == nil {
		return false
	}
	c.reply(token, r)
	return true
}

func (c *Coordinator) beat(req *ConsumerHeartbeatRequest) *ConsumerHeartbeatReply {
	if req.Epoch <= JoinEpoch || req.RackID != nil || req.RebalanceTimeoutMS != -1 || req.Topics != nil || req.Regex != nil || req.Assignor != nil {
		return nil
	}
	g := c.consumers[req.Group]
	if g == nil || c.topics == nil || g.seen != c.topics.version {
		return nil
	}
	m := g.members[req.MemberID]
	if m == nil || req.InstanceID != nil && g.static[*req.InstanceID] != m.id {
		return nil
	}
	s := c.decided.consumer(req.Group)
	said, current := s.members[m.id], s.current[m.id]
	if said == nil || said.Classic != nil || said.ClientID != req.ClientID || said.ClientHost != req.ClientHost ||
		current == nil || current.State != record.Stable || current.Epoch != req.Epoch ||
		current.Epoch != s.targetEpoch() || current.Epoch != s.groupEpoch() {
		return nil
	}
	c.renewConsumer(m)
	return c.tell(m, current)
}

// tell answers a member that has what it had.
func (c *Coordinator) tell(m *consumerMember, current *record.ConsumerCurrentValue) *ConsumerHeartbeatReply {
	return &ConsumerHeartbeatReply{MemberID: m.id, Epoch: current.Epoch, Interval: c.interval(m.group), Session: c.opts.ConsumerSessionTimeout}
}

// ConsumerHeartbeat has a member join, keep its place in, or leave a group that the
// coordinator assigns (KIP-848). The reply is a *ConsumerHeartbeatReply.
func (c *Coordinator) ConsumerHeartbeat(now time.Time, token Token, req *ConsumerHeartbeatRequest, out *Decision) {
	if c.ConsumerBeat(now, token, req, out) {
		return
	}
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
