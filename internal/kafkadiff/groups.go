package main

import (
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sessionMS is the session timeout of members: none is lost while a scenario runs.
const sessionMS = 600_000

// group returns the name of a group of this scenario, once its coordinator answers.
// Its members are numbered from 1, and its epochs from its first.
func (s *session) group(name string) string {
	name = s.topic(name)
	clear(s.members)
	s.first = 0
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKey = name
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID = name, "nobody"
	list := kmsg.NewPtrListGroupsRequest() // which fails while a partition of the groups is being loaded
	for range awaitTries {
		if s.quiet(find, 0).(*kmsg.FindCoordinatorResponse).ErrorCode == 0 &&
			s.quiet(beat, 0).(*kmsg.HeartbeatResponse).ErrorCode == int16(errcode.UnknownMemberID) &&
			s.quiet(list, 0).(*kmsg.ListGroupsResponse).ErrorCode == 0 {
			return name
		}
		time.Sleep(awaitEvery)
	}
	s.fail("group %s has no coordinator after %v", name, awaitTries*awaitEvery)
	return ""
}

// held is a request that is answered when others have sent theirs. It has a
// connection of its own.
type held struct {
	s    *session
	name string
	req  kmsg.Request
	w    *wire
	id   int32
}

// hold sends req and does not wait for the answer, which take records.
func (s *session) hold(what string, req kmsg.Request, version int16) *held {
	req.SetVersion(version)
	w, err := dial(s.addr)
	if err != nil {
		panic(fatal{err})
	}
	h := &held{s: s, name: stepName(what, req), req: req, w: w}
	if h.id, err = w.send(req.Key(), version, req.IsFlexible(), req.AppendTo(nil)); err != nil {
		s.fail("%s: %w", h.name, err)
	}
	return h
}

// take records the answer, and returns it, or nil if there is none.
func (h *held) take() kmsg.Response {
	defer h.w.conn.Close()
	resp, exact, err := h.w.answer(h.req, h.id)
	return h.s.keep(h.name, resp, exact, err, nil)
}

// quiet returns the answer, which is not recorded.
func (h *held) quiet() kmsg.Response {
	defer h.w.conn.Close()
	resp, _, err := h.w.answer(h.req, h.id)
	if err != nil {
		h.s.fail("%s: %w", h.name, err)
	}
	h.s.learnMembers(resp)
	return resp
}

// awaitState waits until a classic group is in a state, as it is once a request that
// is held has arrived.
func (s *session) awaitState(group, state string) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	is := ""
	for range awaitTries {
		if is = s.quiet(req, 0).(*kmsg.DescribeGroupsResponse).Groups[0].State; is == state {
			return
		}
		time.Sleep(awaitEvery)
	}
	s.fail("group %s is %s after %v, want %s", group, is, awaitTries*awaitEvery, state)
}

// member is a member of a classic group.
type member struct {
	group, id  string
	instance   *string
	generation int32
	topics     []string
}

// protocol is the one that members say that they know.
const protocol = "range"

// subscription is what a consumer says of itself when it joins.
func subscription(topics ...string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Topics = topics
	return m.AppendTo(nil)
}

// assigning is an assignment of the first partitions of a topic.
func assigning(topic string, partitions ...int32) []byte {
	t := kmsg.NewConsumerMemberAssignmentTopic()
	t.Topic, t.Partitions = topic, partitions
	a := kmsg.NewConsumerMemberAssignment()
	a.Topics = append(a.Topics, t)
	return a.AppendTo(nil)
}

// joining has a consumer join a classic group.
func joining(group, id string, instance *string, topics ...string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.InstanceID = group, id, instance
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = sessionMS, sessionMS
	req.ProtocolType = "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = protocol, subscription(topics...)
	req.Protocols = append(req.Protocols, p)
	return req
}

// syncing asks for the assignment of a member. assignments are a leader's: a member's
// id and what it is to have, by turns.
func syncing(m *member, assignments ...string) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = m.group, m.id, m.instance, m.generation
	req.ProtocolType, req.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr(protocol)
	for i := 0; i < len(assignments); i += 2 {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = assignments[i], []byte(assignments[i+1])
		req.GroupAssignment = append(req.GroupAssignment, a)
	}
	return req
}

func beating(m *member) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = m.group, m.id, m.instance, m.generation
	return req
}

// admit gives a member its id; it has to join with it.
func (s *session) admit(group string, instance *string, topics ...string) *member {
	resp := s.quiet(joining(group, "", instance, topics...), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse)
	want := errcode.MemberIDRequired
	if instance != nil {
		want = 0
	}
	if resp.ErrorCode != int16(want) {
		s.fail("join %s: %v", group, errcode.Code(resp.ErrorCode))
	}
	return &member{group, resp.MemberID, instance, resp.Generation, topics}
}

// rejoin has a member join that nobody else is waited for with.
func (s *session) rejoin(m *member) {
	resp := s.quiet(joining(m.group, m.id, m.instance, m.topics...), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse)
	s.joined(m, resp)
}

func (s *session) joined(m *member, resp *kmsg.JoinGroupResponse) {
	if resp.ErrorCode != 0 {
		s.fail("join %s as %s: %v", m.group, m.id, errcode.Code(resp.ErrorCode))
	}
	m.id, m.generation = resp.MemberID, resp.Generation
}

// sync has a leader assign, so that the group is stable.
func (s *session) sync(m *member, assignments ...string) {
	if resp := s.quiet(syncing(m, assignments...), latest(kmsg.SyncGroup)).(*kmsg.SyncGroupResponse); resp.ErrorCode != 0 {
		s.fail("sync %s: %v", m.group, errcode.Code(resp.ErrorCode))
	}
}

// alone makes a group of one member, which has joined and has no assignment yet.
func (s *session) alone(group string, topics ...string) *member {
	m := s.admit(group, nil, topics...)
	s.rejoin(m)
	return m
}

// stable makes a group of one member, which consumes.
func (s *session) stable(group string, topics ...string) *member {
	m := s.alone(group, topics...)
	s.sync(m, m.id, "everything")
	return m
}

// second has a member join a stable group of one, which leads, and both know the
// generation then.
func (s *session) second(leader *member, topics ...string) *member {
	m := s.admit(leader.group, nil, topics...)
	join := s.hold("", joining(m.group, m.id, nil, topics...), latest(kmsg.JoinGroup))
	s.awaitState(m.group, "PreparingRebalance")
	s.rejoin(leader)
	s.joined(m, join.quiet().(*kmsg.JoinGroupResponse))
	return m
}

// static makes a group of one static member, which consumes.
func (s *session) static(group, instance string, topics ...string) *member {
	m := s.admit(group, &instance, topics...)
	s.sync(m, m.id, "everything")
	return m
}

// leave takes members out.
func (s *session) leave(ms ...*member) {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = ms[0].group
	for _, m := range ms {
		lm := kmsg.NewLeaveGroupRequestMember()
		lm.MemberID, lm.InstanceID = m.id, m.instance
		req.Members = append(req.Members, lm)
	}
	if resp := s.quiet(req, latest(kmsg.LeaveGroup)).(*kmsg.LeaveGroupResponse); resp.ErrorCode != 0 || resp.Members[0].ErrorCode != 0 {
		s.fail("leave %s: %+v", req.Group, resp)
	}
}
