package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kinds of coordinators.
const (
	ofGroup = iota
	ofTransaction
	ofShareGroup
)

// findCoordinator asks who coordinates.
func findCoordinator(s *session) {
	group := s.group("g")
	finding := func(kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorType, req.CoordinatorKeys = kind, keys
		if len(keys) > 0 {
			req.CoordinatorKey = keys[0]
		}
		return req
	}
	share := group + ":" + "AAAAAAAAAAAAAAAAAAAAAg:0"
	for _, of := range []struct {
		kind int8
		key  string
	}{{ofTransaction, "t"}, {ofShareGroup, share}} { // Kafka makes the topic when it is first asked
		for range awaitTries {
			resp := s.quiet(finding(of.kind, of.key), latest(kmsg.FindCoordinator)).(*kmsg.FindCoordinatorResponse)
			if resp.Coordinators[0].ErrorCode != int16(errcode.CoordinatorNotAvailable) {
				break
			}
			time.Sleep(awaitEvery)
		}
	}
	each(kmsg.FindCoordinator, func(v int16) {
		ask := func(what string, kind int8, keys ...string) { s.ask(what, finding(kind, keys...), v) }
		ask("a group", ofGroup, group)
		ask("a group that there is not", ofGroup, s.topic("unknown"))
		ask("no name", ofGroup, "")
		ask("300 bytes", ofGroup, strings.Repeat("a", 300))
		if v >= 1 {
			ask("a transactional id", ofTransaction, "t")
			if v < 4 {
				ask("a transactional id of no letters", ofTransaction, "")
			}
			ask("a share group's partition", ofShareGroup, share)
			ask("a share group without a partition", ofShareGroup, group)
			ask("type 3", 3, group)
			ask("type -1", -1, group)
		}
		if v >= 4 {
			ask("two groups", ofGroup, group, s.topic("unknown"))
			ask("a group twice", ofGroup, group, group)
			ask("a group, and one without a name", ofGroup, group, "")
			ask("nothing", ofGroup)
		}
	})
}

// joinGroup has members join classic groups.
func joinGroup(s *session) {
	each(kmsg.JoinGroup, func(v int16) {
		group := s.group(fmt.Sprintf("g-%d", v))
		s.ask("no group", joining("", "", nil, "t"), v)
		s.ask("an unknown member", joining(group, "nobody", nil, "t"), v)
		ask := func(what string, change func(*kmsg.JoinGroupRequest)) {
			req := joining(group, "", nil, "t")
			change(req)
			s.ask(what, req, v)
		}
		ask("a session timeout of 5999 ms", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 5999 })
		ask("a session timeout of 1800001 ms", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = 1_800_001 })
		ask("a session timeout of -1 ms", func(r *kmsg.JoinGroupRequest) { r.SessionTimeoutMillis = -1 })
		ask("no protocols", func(r *kmsg.JoinGroupRequest) { r.Protocols = nil })
		ask("a protocol type of no letters", func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "" })

		leader := &member{group: group, topics: []string{"t"}}
		enter := func(what string) *kmsg.JoinGroupResponse {
			req := joining(group, leader.id, nil, "t")
			resp := s.ask(what, req, v).(*kmsg.JoinGroupResponse)
			leader.id, leader.generation = resp.MemberID, resp.Generation
			return resp
		}
		if resp := enter("a new member"); resp.ErrorCode == int16(errcode.MemberIDRequired) {
			enter("a new member with its id")
		}
		enter("the leader again, before it has assigned")
		ask("of another protocol type", func(r *kmsg.JoinGroupRequest) { r.ProtocolType = "another" })
		ask("of other protocols", func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = "another" })
		s.sync(leader, leader.id, "everything")
		enter("the leader again, after it has assigned")
		s.sync(leader, leader.id, "everything")

		req := joining(group, "", nil, "t", "u")
		if v >= 4 {
			req.MemberID = s.ask("a second member", req, v).(*kmsg.JoinGroupResponse).MemberID
		}
		second := s.hold("a second member, once the first has joined again", req, v)
		s.awaitState(group, "PreparingRebalance")
		first := s.hold("the first member, after a second one has joined", joining(group, leader.id, nil, "t"), v)
		resp := second.take().(*kmsg.JoinGroupResponse)
		first.take()
		follower := &member{group: group, id: resp.MemberID, generation: resp.Generation}
		leader.generation = resp.Generation
		s.ask("who follows, before the leader has assigned", joining(group, follower.id, nil, "t", "u"), v)
		s.sync(leader, leader.id, "some", follower.id, "more")
		s.ask("who follows, after the leader has assigned", joining(group, follower.id, nil, "t", "u"), v)
		s.ask("an unknown member, of a group that there is", joining(group, "nobody", nil, "t"), v)
	})
	from(5, kmsg.JoinGroup, func(v int16) { joinStatic(s, v) })
}

// joinStatic has static members join.
func joinStatic(s *session, v int16) {
	group, i, j := s.group(fmt.Sprintf("s-%d", v)), "i", "j"
	s.ask("a static member with an unknown id", joining(group, "nobody", &i, "t"), v)
	one := s.ask("a static member", joining(group, "", &i, "t"), v).(*kmsg.JoinGroupResponse)
	m := &member{group, one.MemberID, &i, one.Generation, []string{"t"}}
	s.sync(m, m.id, "everything")
	two := s.ask("a static member that was restarted", joining(group, "", &i, "t"), v).(*kmsg.JoinGroupResponse)
	s.ask("a static member that is fenced", joining(group, m.id, &i, "t"), v)
	s.ask("an instance that there is not, with another's id", joining(group, two.MemberID, &j, "t"), v)
	three := s.ask("a static member that subscribes to more", joining(group, two.MemberID, &i, "t", "u"), v).(*kmsg.JoinGroupResponse)
	m.id, m.generation = three.MemberID, three.Generation
	s.sync(m, m.id, "everything")
	s.ask("a static member that was restarted, and subscribes to less", joining(group, "", &i, "t"), v)
	s.ask("an instance of no letters", joining(s.group(fmt.Sprintf("e-%d", v)), "", new(string), "t"), v)
}

// syncGroup asks for assignments.
func syncGroup(s *session) {
	each(kmsg.SyncGroup, func(v int16) {
		group := s.group(fmt.Sprintf("g-%d", v))
		s.ask("no group", syncing(&member{group: "", id: "nobody", generation: 1}), v)
		s.ask("a group that there is not", syncing(&member{group: group, id: "nobody", generation: 1}), v)
		a := s.alone(group, "t")
		ask := func(what string, m member, change func(*kmsg.SyncGroupRequest)) {
			req := syncing(&m)
			if change != nil {
				change(req)
			}
			s.ask(what, req, v)
		}
		ask("an unknown member", member{group: group, id: "nobody", generation: a.generation}, nil)
		ask("the generation before", member{group: group, id: a.id, generation: a.generation - 1}, nil)
		ask("the generation after", member{group: group, id: a.id, generation: a.generation + 1}, nil)
		ask("generation -1", member{group: group, id: a.id, generation: -1}, nil)
		if v >= 3 {
			ask("an instance that there is not", member{group: group, id: a.id, instance: kmsg.StringPtr("i"), generation: a.generation}, nil)
		}
		if v >= 5 {
			ask("another protocol", *a, func(r *kmsg.SyncGroupRequest) { r.Protocol = kmsg.StringPtr("another") })
			ask("another protocol type", *a, func(r *kmsg.SyncGroupRequest) { r.ProtocolType = kmsg.StringPtr("another") })
			ask("no protocol", *a, func(r *kmsg.SyncGroupRequest) { r.Protocol = nil })
			ask("no protocol type", *a, func(r *kmsg.SyncGroupRequest) { r.ProtocolType = nil })
		}
		s.ask("the leader", syncing(a, a.id, "everything", "nobody", "something"), v)
		s.ask("the leader again", syncing(a, a.id, "something else"), v)

		b := s.admit(group, nil, "t")
		join := s.hold("", joining(group, b.id, nil, "t"), latest(kmsg.JoinGroup))
		s.awaitState(group, "PreparingRebalance")
		s.ask("while others join", syncing(a, a.id, "everything"), v)
		s.rejoin(a)
		s.joined(b, join.quiet().(*kmsg.JoinGroupResponse))
		follower := s.hold("who follows", syncing(b), v)
		s.ask("the leader of two", syncing(a, a.id, "some", b.id, "more"), v)
		follower.take()
		s.ask("who follows, again", syncing(b), v)
		s.ask("who follows, with assignments", syncing(b, b.id, "everything"), v)
		s.leave(b)
		s.ask("after a member has left", syncing(a, a.id, "everything"), v)
		if v < 3 {
			return
		}
		i := s.static(s.group(fmt.Sprintf("s-%d", v)), "i", "t")
		was := *i
		s.joined(i, s.quiet(joining(i.group, "", i.instance, "t"), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse))
		s.ask("a static member that was restarted", syncing(i), v)
		s.ask("a static member that is fenced", syncing(&was), v)
		was.instance = nil
		s.ask("a static member that is fenced, without its instance", syncing(&was), v)
	})
}

// heartbeat says that members of classic groups live.
func heartbeat(s *session) {
	each(kmsg.Heartbeat, func(v int16) {
		group := s.group(fmt.Sprintf("g-%d", v))
		ask := func(what string, m member) { s.ask(what, beating(&m), v) }
		ask("no group", member{group: "", id: "nobody", generation: 1})
		ask("a group that there is not", member{group: group, id: "nobody", generation: 1})
		a := s.admit(group, nil, "t")
		ask("who has only been given an id", *a)
		s.rejoin(a)
		ask("before the leader has assigned", *a)
		s.sync(a, a.id, "everything")
		ask("a member", *a)
		ask("an unknown member", member{group: group, id: "nobody", generation: a.generation})
		ask("no member", member{group: group, generation: a.generation})
		ask("the generation before", member{group: group, id: a.id, generation: a.generation - 1})
		ask("the generation after", member{group: group, id: a.id, generation: a.generation + 1})
		ask("generation -1", member{group: group, id: a.id, generation: -1})
		b := s.admit(group, nil, "t")
		ask("while another has only been given an id", *a)
		join := s.hold("", joining(group, b.id, nil, "t"), latest(kmsg.JoinGroup))
		s.awaitState(group, "PreparingRebalance")
		ask("while others join", *a)
		ask("the generation before, while others join", member{group: group, id: a.id, generation: a.generation - 1})
		s.rejoin(a)
		s.joined(b, join.quiet().(*kmsg.JoinGroupResponse))
		s.leave(a, b)
		ask("who has left", *a)
		if v < 3 {
			return
		}
		i := s.static(s.group(fmt.Sprintf("s-%d", v)), "i", "t")
		was := *i
		ask("a static member", *i)
		ask("a static member without its instance", member{group: i.group, id: i.id, generation: i.generation})
		ask("an instance that there is not", member{group: i.group, id: i.id, instance: kmsg.StringPtr("j"), generation: i.generation})
		ask("an instance without an id", member{group: i.group, instance: i.instance, generation: i.generation})
		s.joined(i, s.quiet(joining(i.group, "", i.instance, "t"), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse))
		ask("a static member that is fenced", was)
		ask("a static member that was restarted", *i)
	})
}

// leaveGroup takes members out of classic groups.
func leaveGroup(s *session) {
	each(kmsg.LeaveGroup, func(v int16) {
		group := s.group(fmt.Sprintf("g-%d", v))
		ask := func(what, group string, members ...member) {
			req := kmsg.NewPtrLeaveGroupRequest()
			req.Group = group
			for _, m := range members {
				lm := kmsg.NewLeaveGroupRequestMember()
				lm.MemberID, lm.InstanceID = m.id, m.instance
				if v >= 5 && m.id != "" {
					lm.Reason = kmsg.StringPtr("the consumer is closed")
				}
				req.MemberID, req.Members = m.id, append(req.Members, lm)
			}
			s.ask(what, req, v)
		}
		nobody := member{id: "nobody"}
		ask("no group", "", nobody)
		ask("a group that there is not", group, nobody)
		a := s.stable(group, "t")
		ask("an unknown member", group, nobody)
		ask("no member", group, member{})
		pending := s.admit(group, nil, "t")
		ask("who has only been given an id", group, *pending)
		ask("a member", group, *a)
		ask("a member again", group, *a)
		if v < 3 {
			return
		}
		group = s.group(fmt.Sprintf("s-%d", v))
		ask("nobody", group)
		ask("nobody of no group", "")
		a = s.stable(group, "t")
		b := s.second(a, "t")
		ask("several", group, *b, nobody, *b, *a)
		ask("several of an empty group", group, *b, nobody)
		i := s.static(group, "i", "t")
		j := kmsg.StringPtr("j")
		ask("an instance that there is not", group, member{instance: j})
		ask("an instance that there is not, with another's id", group, member{id: i.id, instance: j})
		ask("an instance with another id", group, member{id: "nobody", instance: i.instance})
		ask("a static member by its instance", group, member{instance: i.instance})
		i = s.static(group, "i", "t")
		ask("a static member by both", group, *i)
		i = s.static(group, "i", "t")
		ask("a static member by its id", group, member{id: i.id})
		i = s.static(group, "i", "t")
		ask("a static member and an unknown one", group, *i, nobody)
	})
}
