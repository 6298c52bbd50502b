package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// committing commits an offset from outside of a group's membership.
func committing(group, topic string, id [16]byte, partition int32, offset int64, metadata *string) *kmsg.OffsetCommitRequest {
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.Metadata = partition, offset, metadata
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = topic, id
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	req.Topics = append(req.Topics, t)
	return req
}

// of has a member commit.
func of(m member, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitRequest {
	req.MemberID, req.InstanceID, req.Generation = m.id, m.instance, m.generation
	return req
}

// committed asks for offsets of one topic.
func committed(group, topic string, id [16]byte, partitions ...int32) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic, t.Partitions = topic, partitions
	req.Topics = append(req.Topics, t)
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.TopicID, gt.Partitions = topic, id, partitions
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	return req
}

// allCommitted asks for all offsets of a group.
func allCommitted(group string) *kmsg.OffsetFetchRequest {
	req := committed(group, "", [16]byte{})
	req.Topics, req.Groups[0].Topics = nil, nil
	return req
}

// commit commits an offset, which succeeds.
func (s *session) commit(group, topic string, partition int32, offset int64, metadata string) {
	resp := s.quiet(committing(group, topic, [16]byte{}, partition, offset, &metadata), 9).(*kmsg.OffsetCommitResponse)
	if e := resp.Topics[0].Partitions[0].ErrorCode; e != 0 {
		s.fail("commit %s %s-%d: %v", group, topic, partition, errcode.Code(e))
	}
}

// offsetCommit commits offsets of no members, and of members.
func offsetCommit(s *session) {
	name, id := s.create("t", 2)
	epoch := s.metadata(name).Partitions[0].LeaderEpoch
	each(kmsg.OffsetCommit, func(v int16) {
		group := s.group(fmt.Sprintf("g-%d", v))
		ask := func(what string, change func(*kmsg.OffsetCommitRequest)) {
			req := committing(group, name, id, 0, 5, kmsg.StringPtr("note"))
			if change != nil {
				change(req)
			}
			s.ask(what, req, v)
		}
		look := func(what string) {
			s.ask(fmt.Sprintf("after v%d %s", v, what), committed(group, name, id, 0, 1), latest(kmsg.OffsetFetch))
		}
		part := func(change func(*kmsg.OffsetCommitRequestTopicPartition)) func(*kmsg.OffsetCommitRequest) {
			return func(r *kmsg.OffsetCommitRequest) { change(&r.Topics[0].Partitions[0]) }
		}
		ask("a generation of no group", func(r *kmsg.OffsetCommitRequest) { r.Generation = 1 })
		ask("a member of no group", func(r *kmsg.OffsetCommitRequest) { r.Generation, r.MemberID = 1, "nobody" })
		ask("from outside", nil)
		look("from outside")
		ask("no metadata", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Metadata, p.Offset = nil, 6 }))
		look("no metadata")
		ask("metadata of no letters", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Metadata = new(string) }))
		ask("4096 bytes of metadata", part(func(p *kmsg.OffsetCommitRequestTopicPartition) {
			p.Metadata = kmsg.StringPtr(strings.Repeat("m", 4096))
		}))
		ask("4097 bytes of metadata", part(func(p *kmsg.OffsetCommitRequestTopicPartition) {
			p.Metadata = kmsg.StringPtr(strings.Repeat("m", 4097))
		}))
		ask("offset 0", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Offset = 0 }))
		ask("offset 2^63-1", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Offset = math.MaxInt64 }))
		ask("offset -1", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Offset = -1 }))
		look("offset -1")
		ask("offset -2", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Offset = -2 }))
		ask("unknown partition", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Partition = 2 }))
		ask("negative partition", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.Partition = -1 }))
		ask("a partition twice", func(r *kmsg.OffsetCommitRequest) {
			p := r.Topics[0].Partitions[0]
			p.Offset = 7
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, p)
		})
		look("a partition twice")
		ask("a topic twice", func(r *kmsg.OffsetCommitRequest) { r.Topics = append(r.Topics, r.Topics[0]) })
		ask("known and unknown partition", func(r *kmsg.OffsetCommitRequest) {
			p := r.Topics[0].Partitions[0]
			p.Partition = 9
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, p)
		})
		ask("known and unknown topic", func(r *kmsg.OffsetCommitRequest) {
			t := r.Topics[0]
			t.Topic, t.TopicID = s.topic("unknown"), unknownID("offsetcommit")
			r.Topics = append(r.Topics, t)
		})
		ask("no partitions", func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Partitions = nil })
		ask("no topics", func(r *kmsg.OffsetCommitRequest) { r.Topics = nil })
		ask("no group", func(r *kmsg.OffsetCommitRequest) { r.Group = "" })
		ask("no group, and a generation", func(r *kmsg.OffsetCommitRequest) { r.Group, r.Generation, r.MemberID = "", 1, "nobody" })
		ask("generation -2", func(r *kmsg.OffsetCommitRequest) { r.Generation = -2 })
		ask("a generation, and nobody's id", func(r *kmsg.OffsetCommitRequest) { r.Generation = 1 })
		ask("an id, and no generation", func(r *kmsg.OffsetCommitRequest) { r.MemberID = "nobody" })
		if v <= 4 {
			for _, ms := range []int64{-2, 0, 1000, math.MaxInt64} {
				ask(fmt.Sprintf("kept for %d ms", ms), func(r *kmsg.OffsetCommitRequest) { r.RetentionTimeMillis = ms })
			}
			look("kept for 2^63-1 ms")
		}
		if v >= 6 {
			ask("a leader epoch", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.LeaderEpoch = epoch }))
			look("a leader epoch")
			ask("leader epoch 1000", part(func(p *kmsg.OffsetCommitRequestTopicPartition) { p.LeaderEpoch = 1000 }))
		}
		if v < 10 {
			ask("unknown topic", func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Topic = s.topic("unknown") })
			for _, bad := range badNames {
				ask("topic named "+bad.what, func(r *kmsg.OffsetCommitRequest) { r.Topics[0].Topic = bad.name })
			}
		} else {
			ask("unknown topic", func(r *kmsg.OffsetCommitRequest) { r.Topics[0].TopicID = unknownID("offsetcommit") })
			ask("no topic id", func(r *kmsg.OffsetCommitRequest) { r.Topics[0].TopicID = [16]byte{} })
		}
		offsetCommitOfMembers(s, v, name, id)
	})
}

func offsetCommitOfMembers(s *session, v int16, name string, id [16]byte) {
	group := s.group(fmt.Sprintf("m-%d", v))
	ask := func(what string, m member) { s.ask(what, of(m, committing(m.group, name, id, 1, 3, new(string))), v) }
	a := s.admit(group, nil, name)
	ask("who has only been given an id", *a)
	s.rejoin(a)
	ask("before the leader has assigned", *a)
	s.sync(a, a.id, "everything")
	ask("a member", *a)
	s.ask(fmt.Sprintf("after v%d a member", v), committed(group, name, id, 0, 1), latest(kmsg.OffsetFetch))
	ask("an unknown member", member{group: group, id: "nobody", generation: a.generation})
	ask("no member", member{group: group, generation: a.generation})
	ask("the generation before", member{group: group, id: a.id, generation: a.generation - 1})
	ask("the generation after", member{group: group, id: a.id, generation: a.generation + 1})
	ask("a member, and no generation", member{group: group, id: a.id, generation: -1})
	ask("from outside, while there are members", member{group: group, generation: -1})
	b := s.admit(group, nil, name)
	join := s.hold("", joining(group, b.id, nil, name), latest(kmsg.JoinGroup))
	s.awaitState(group, "PreparingRebalance")
	ask("while others join", *a)
	s.rejoin(a)
	s.joined(b, join.quiet().(*kmsg.JoinGroupResponse))
	s.leave(a, b)
	ask("who has left", *a)
	ask("from outside, once there are no members", member{group: group, generation: -1})
	if v >= 7 {
		i := s.static(s.group(fmt.Sprintf("s-%d", v)), "i", name)
		was := *i
		ask("a static member", *i)
		ask("an instance that there is not", member{group: i.group, id: i.id, instance: kmsg.StringPtr("j"), generation: i.generation})
		s.joined(i, s.quiet(joining(i.group, "", i.instance, name), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse))
		ask("a static member that is fenced", was)
		ask("an instance from outside", member{group: i.group, instance: i.instance, generation: -1})
	}
}

// offsetFetch asks for committed offsets.
func offsetFetch(s *session) {
	name, id := s.create("t", 3)
	other, otherID := s.create("u", 1)
	gone, goneID := s.create("gone", 1)
	group, second := s.group("g"), s.group("h")
	s.commit(group, name, 0, 5, "note")
	s.commit(group, name, 1, 6, "")
	s.commit(group, other, 0, 7, "another")
	s.commit(group, gone, 0, 8, "")
	s.commit(second, name, 2, 9, "")
	s.deleteTopic(gone, func() bool {
		return s.quiet(committed(group, gone, goneID, 0), 7).(*kmsg.OffsetFetchResponse).Topics[0].Partitions[0].Offset < 0
	})
	members := s.group("m")
	a := s.stable(members, name)
	s.quiet(of(*a, committing(members, name, id, 0, 1, new(string))), 9)
	each(kmsg.OffsetFetch, func(v int16) {
		ask := func(what, group, topic string, id [16]byte, partitions ...int32) {
			s.ask(what, committed(group, topic, id, partitions...), v)
		}
		ask("three partitions", group, name, id, 0, 1, 2)
		ask("another topic", group, other, otherID, 0)
		ask("a topic that is deleted", group, gone, goneID, 0)
		ask("unknown partition", group, name, id, 3)
		ask("negative partition", group, name, id, -1)
		ask("known and unknown partition", group, name, id, 0, 7)
		ask("a partition twice", group, name, id, 0, 0)
		ask("no partitions", group, name, id)
		ask("unknown topic", group, s.topic("unknown"), unknownID("offsetfetch"), 0)
		if v < 10 {
			for _, bad := range badNames {
				ask("topic named "+bad.what, group, bad.name, [16]byte{}, 0)
			}
		} else {
			ask("no topic id", group, "", [16]byte{}, 0)
		}
		ask("a group that there is not", s.topic("unknown"), name, id, 0)
		ask("no group", "", name, id, 0)
		ask("a group with members", members, name, id, 0)
		two := committed(group, name, id, 0)
		more := committed(group, other, otherID, 0)
		two.Topics = append(two.Topics, more.Topics...)
		two.Groups[0].Topics = append(two.Groups[0].Topics, more.Groups[0].Topics...)
		s.ask("two topics", two, v)
		two.Topics[1], two.Groups[0].Topics[1] = two.Topics[0], two.Groups[0].Topics[0]
		s.ask("a topic twice", two, v)
		none := committed(group, name, id)
		none.Topics, none.Groups[0].Topics = []kmsg.OffsetFetchRequestTopic{}, []kmsg.OffsetFetchRequestGroupTopic{}
		s.ask("no topics", none, v)
		if v >= 2 {
			s.ask("all topics", allCommitted(group), v)
			s.ask("all topics of a group that there is not", allCommitted(s.topic("unknown")), v)
			s.ask("all topics of no group", allCommitted(""), v)
		}
		if v >= 7 {
			stable := committed(group, name, id, 0)
			stable.RequireStable = true
			s.ask("what is stable", stable, v)
		}
		if v >= 8 {
			several := committed(group, name, id, 0, 1)
			several.Groups = append(several.Groups, committed(second, name, id, 2).Groups[0], allCommitted(s.topic("unknown")).Groups[0])
			s.ask("several groups", several, v)
			several.Groups = append(several.Groups[:1], several.Groups[0])
			s.ask("a group twice", several, v)
			several.Groups = nil
			s.ask("nothing", several, v)
		}
		if v >= 9 {
			as := committed(group, name, id, 0)
			as.Groups[0].MemberID, as.Groups[0].MemberEpoch = kmsg.StringPtr("nobody"), 1
			s.ask("as an unknown member", as, v)
			as = committed(members, name, id, 0)
			as.Groups[0].MemberID, as.Groups[0].MemberEpoch = &a.id, a.generation+1
			s.ask("as a classic member of another generation", as, v)
			as.Groups[0].MemberID = kmsg.StringPtr("nobody")
			s.ask("as an unknown classic member", as, v)
			as = committed(s.topic("unknown"), name, id, 0)
			as.Groups[0].MemberID, as.Groups[0].MemberEpoch = kmsg.StringPtr("nobody"), 1
			s.ask("as a member of a group that there is not", as, v)
		}
	})
}

// deleteTopic deletes a topic, and waits until that is seen.
func (s *session) deleteTopic(name string, seen func() bool) {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis, req.TopicNames = 10_000, []string{name}
	s.quiet(req, 5)
	s.awaitGone(name)
	for range awaitTries {
		if seen() {
			return
		}
		time.Sleep(awaitEvery)
	}
	s.fail("topic %s is still seen after %v", name, awaitTries*awaitEvery)
}

// offsetDelete forgets committed offsets.
func offsetDelete(s *session) {
	name, _ := s.create("t", 3)
	other, _ := s.create("u", 1)
	ask := func(what, group, topic string, partitions ...int32) {
		t := kmsg.NewOffsetDeleteRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			tp := kmsg.NewOffsetDeleteRequestTopicPartition()
			tp.Partition = p
			t.Partitions = append(t.Partitions, tp)
		}
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		req.Topics = append(req.Topics, t)
		s.ask(what, req, 0)
	}
	group := s.group("g")
	ask("a group that there is not", group, name, 0)
	for p := range int32(3) {
		s.commit(group, name, p, 5, "")
	}
	ask("no group", "", name, 0)
	ask("two partitions", group, name, 0, 1)
	ask("two partitions again", group, name, 0, 1)
	ask("unknown partition", group, name, 3)
	ask("negative partition", group, name, -1)
	ask("known and unknown partition", group, name, 0, 7)
	ask("a partition twice", group, name, 0, 0)
	ask("no partitions", group, name)
	ask("unknown topic", group, s.topic("unknown"), 0)
	ask("unknown topic of a group that there is not", s.topic("unknown"), s.topic("unknown"), 0)
	for _, bad := range badNames {
		ask("topic named "+bad.what, group, bad.name, 0)
	}
	s.ask("what is left", allCommitted(group), latest(kmsg.OffsetFetch))
	ask("the last", group, name, 2)
	s.ask("nothing is left", allCommitted(group), latest(kmsg.OffsetFetch))

	members := s.group("m")
	s.commit(members, name, 0, 5, "")
	s.commit(members, other, 0, 5, "")
	a := s.stable(members, name)
	ask("what a member consumes", members, name, 0)
	ask("what no member consumes", members, other, 0)
	s.leave(a)
	ask("what a member has consumed", members, name, 0)

	strange := s.group("s")
	s.commit(strange, name, 0, 5, "")
	req := joining(strange, "", nil)
	req.ProtocolType = "another"
	resp := s.quiet(req, 3).(*kmsg.JoinGroupResponse)
	ask("of members that are no consumers", strange, name, 0)
	s.leave(&member{group: strange, id: resp.MemberID})
	ask("of members that were no consumers", strange, name, 0)
}
