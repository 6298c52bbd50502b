package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// beatingConsumer says that a member of a group that the server assigns lives.
func beatingConsumer(group, id string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch = group, id, epoch
	return req
}

// joiningConsumer has a member join such a group.
func joiningConsumer(group, id string, topics ...string) *kmsg.ConsumerGroupHeartbeatRequest {
	req := beatingConsumer(group, id, 0)
	req.RebalanceTimeoutMillis, req.SubscribedTopicNames = sessionMS, topics
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	return req
}

// owning adds what a member says that it has.
func owning(req *kmsg.ConsumerGroupHeartbeatRequest, id [16]byte, partitions ...int32) *kmsg.ConsumerGroupHeartbeatRequest {
	t := kmsg.NewConsumerGroupHeartbeatRequestTopic()
	t.TopicID, t.Partitions = id, partitions
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{t}
	if len(partitions) == 0 {
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	}
	return req
}

// consumes has a member join a group that the server assigns.
func (s *session) consumes(group, id string, topics ...string) *kmsg.ConsumerGroupHeartbeatResponse {
	resp := s.quiet(joiningConsumer(group, id, topics...), latest(kmsg.ConsumerGroupHeartbeat)).(*kmsg.ConsumerGroupHeartbeatResponse)
	if resp.ErrorCode != 0 {
		s.fail("join %s as %s: %v", group, id, errcode.Code(resp.ErrorCode))
	}
	return resp
}

// consumerGroupHeartbeat has members join, stay in, and leave groups that the server
// assigns.
func consumerGroupHeartbeat(s *session) {
	name, id := s.create("t", 4)
	six, _ := s.create("six", 6)
	s.group("g") // makes the topic
	s.learnTopic(s.metadata("__consumer_offsets").TopicID, "__consumer_offsets")
	each(kmsg.ConsumerGroupHeartbeat, func(v int16) {
		consumerRefused(s, v, name, id)
		consumerLives(s, v, name, id)
		consumerStatic(s, v, name)
		consumerMigrates(s, v, six)
	})
	consumerRegex(s)
}

// consumerRefused sends what no member may.
func consumerRefused(s *session, v int16, name string, id [16]byte) {
	group := s.group(fmt.Sprintf("r-%d", v))
	ask := func(what string, change func(*kmsg.ConsumerGroupHeartbeatRequest)) {
		req := joiningConsumer(group, "m", name)
		change(req)
		s.ask(what, req, v)
	}
	type request = kmsg.ConsumerGroupHeartbeatRequest
	ask("no group", func(r *request) { r.Group = "" })
	ask("a group of blanks", func(r *request) { r.Group = "  " })
	ask("a member of no letters that is there", func(r *request) { r.MemberID, r.MemberEpoch = "", 1 })
	ask("a member of blanks", func(r *request) { r.MemberID, r.MemberEpoch = " ", 1 })
	ask("an instance of no letters", func(r *request) { r.InstanceID = new(string) })
	ask("a rack of no letters", func(r *request) { r.RackID = new(string) })
	ask("epoch -3", func(r *request) { r.MemberEpoch = -3 })
	ask("epoch -2 without an instance", func(r *request) { r.MemberEpoch = -2 })
	ask("epoch -1 of a group that there is not", func(r *request) { r.MemberEpoch = -1 })
	ask("epoch -2 of a group that there is not", func(r *request) { r.MemberEpoch, r.InstanceID = -2, kmsg.StringPtr("i") })
	ask("epoch 1 of a group that there is not", func(r *request) { r.MemberEpoch = 1 })
	ask("no rebalance timeout", func(r *request) { r.RebalanceTimeoutMillis = -1 })
	ask("a rebalance timeout of 0 ms", func(r *request) { r.RebalanceTimeoutMillis = 0 })
	ask("a rebalance timeout of -2 ms", func(r *request) { r.RebalanceTimeoutMillis = -2 })
	ask("no subscription", func(r *request) { r.SubscribedTopicNames = nil })
	ask("has partitions and joins", func(r *request) { owning(r, id, 0) })
	ask("does not say what it has, and joins", func(r *request) { r.Topics = nil })
	ask("an assignor that there is not", func(r *request) { r.ServerAssignor = kmsg.StringPtr("no such assignor") })
	ask("an assignor of no letters", func(r *request) { r.ServerAssignor = new(string) })
}

// consumerLives is the life of two members.
func consumerLives(s *session, v int16, name string, id [16]byte) {
	group := s.group(fmt.Sprintf("g-%d", v))
	ask := func(what string, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
		return s.ask(what, req, v).(*kmsg.ConsumerGroupHeartbeatResponse)
	}
	if v == 0 {
		given := ask("a member of no letters joins", joiningConsumer(s.group("given"), "", name))
		ask("a member with the id that it was given", beatingConsumer(s.topic("given"), *given.MemberID, given.MemberEpoch))
	} else {
		ask("a member of no letters joins", joiningConsumer(group, "", name))
	}
	epoch := ask("the first joins", joiningConsumer(group, "a", name)).MemberEpoch
	first := func(d int32) *kmsg.ConsumerGroupHeartbeatRequest { return beatingConsumer(group, "a", epoch+d) }
	second := func(d int32) *kmsg.ConsumerGroupHeartbeatRequest { return beatingConsumer(group, "b", epoch+d) }
	ask("the first joins again", joiningConsumer(group, "a", name))
	ask("the first", first(0))
	ask("the first, all that it has", owning(first(0), id, 0, 1, 2, 3))
	full := joiningConsumer(group, "a", name)
	full.MemberEpoch = epoch
	ask("the first, all that it is", owning(full, id, 0, 1, 2, 3))
	ask("the epoch after", first(1))
	ask("an unknown member", beatingConsumer(group, "nobody", epoch))
	ask("an unknown member leaves", beatingConsumer(group, "nobody", -1))
	rack := first(0)
	rack.RackID = kmsg.StringPtr("rack")
	ask("a rack", rack)

	ask("the second joins", joiningConsumer(group, "b", name))
	ask("the first, once the second has joined", first(0))
	ask("the second, while it waits", owning(second(1), id))
	ask("the first has given nothing away", owning(first(0), id, 0, 1, 2, 3))
	kept := s.kept(group, "a")
	ask("the first has given away", owning(first(0), id, kept...))
	ask("the first at the group's epoch", first(1))
	ask("the first has missed an answer", owning(first(0), id, kept...))
	ask("the first has missed an answer, and does not say what it has", first(0))
	ask("the first has missed an answer, and has what was taken from it", owning(first(0), id, 0, 1, 2, 3))
	ask("the second gets what is free", second(1))
	ask("the second says what it has", owning(second(1), id, s.kept(group, "b")...))

	change := second(1)
	change.SubscribedTopicNames = []string{s.topic("unknown")}
	ask("the second subscribes to what there is not", change)
	ask("the second has nothing", owning(second(1), id))
	ask("the second at the group's epoch", second(2))
	change = second(2)
	change.SubscribedTopicNames = []string{name, name}
	ask("the second subscribes to a topic twice", change)
	ask("the first, meanwhile", first(1))
	change = first(1)
	change.ServerAssignor = kmsg.StringPtr("range")
	ask("the first prefers range", change)
	s.ask(fmt.Sprintf("the group of v%d", v), describingConsumers(group), latest(kmsg.ConsumerGroupDescribe))
	ask("the second leaves", beatingConsumer(group, "b", -1))
	ask("the second leaves again", beatingConsumer(group, "b", -1))
	ask("who has left", second(3))
	ask("the first leaves", beatingConsumer(group, "a", -1))
	ask("the first is gone", first(1))
	ask("the first joins anew", joiningConsumer(group, "a", name))
}

// kept are the partitions that a member is to have, as the group is described.
func (s *session) kept(group, id string) (partitions []int32) {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{group}
	for _, m := range s.quiet(req, 0).(*kmsg.ConsumerGroupDescribeResponse).Groups[0].Members {
		if m.MemberID == id {
			for _, t := range m.TargetAssignment.TopicPartitions {
				partitions = append(partitions, t.Partitions...)
			}
		}
	}
	slices.Sort(partitions)
	return partitions
}

// consumerStatic is the life of static members.
func consumerStatic(s *session, v int16, name string) {
	group, i := s.group(fmt.Sprintf("s-%d", v)), "i"
	ask := func(what string, req *kmsg.ConsumerGroupHeartbeatRequest, instance *string) {
		req.InstanceID = instance
		s.ask(what, req, v)
	}
	ask("a static member joins", joiningConsumer(group, "a", name), &i)
	epoch := s.first
	ask("a static member", beatingConsumer(group, "a", epoch), &i)
	ask("a static member without its instance", beatingConsumer(group, "a", epoch), nil)
	ask("a static member with another instance", beatingConsumer(group, "a", epoch), kmsg.StringPtr("j"))
	ask("a static member joins again", joiningConsumer(group, "a", name), &i)
	ask("an instance that is not released", joiningConsumer(group, "b", name), &i)
	ask("another with the instance", beatingConsumer(group, "b", epoch), &i)
	ask("another with the instance leaves", beatingConsumer(group, "b", -2), &i)
	ask("another with the instance leaves for good", beatingConsumer(group, "b", -1), &i)
	ask("an unknown static member leaves", beatingConsumer(group, "b", -2), kmsg.StringPtr("j"))
	ask("a static member is to be back", beatingConsumer(group, "a", -2), &i)
	ask("a static member is to be back, again", beatingConsumer(group, "a", -2), &i)
	ask("a static member that has left", beatingConsumer(group, "a", epoch), &i)
	ask("a static member is back with another id", joiningConsumer(group, "c", name), &i)
	ask("a static member that was replaced", beatingConsumer(group, "a", epoch), &i)
	ask("a static member that is back", beatingConsumer(group, "c", epoch), &i)
	ask("a static member is to be back once more", beatingConsumer(group, "c", -2), &i)
	ask("a static member is back with its id", joiningConsumer(group, "c", name), &i)
	ask("a static member leaves", beatingConsumer(group, "c", -1), &i)
}

// consumerMigrates has members of both protocols meet.
func consumerMigrates(s *session, v int16, name string) {
	group := s.group(fmt.Sprintf("up-%d", v))
	a := s.admit(group, nil, name)
	s.rejoin(a)
	s.sync(a, a.id, string(assigning(name, 0, 1, 2, 3, 4, 5)))
	joined := s.ask("joins a classic group", joiningConsumer(group, "b", name), v).(*kmsg.ConsumerGroupHeartbeatResponse)
	s.ask(fmt.Sprintf("a classic member, after v%d", v), beating(a), latest(kmsg.Heartbeat))
	s.ask(fmt.Sprintf("a classic member, after v%d", v), joining(group, a.id, nil, name), latest(kmsg.JoinGroup))
	a.generation = joined.MemberEpoch
	s.ask(fmt.Sprintf("a classic member, after v%d", v), syncing(a), latest(kmsg.SyncGroup))
	s.ask(fmt.Sprintf("with a classic member, after v%d", v), describingConsumers(group), latest(kmsg.ConsumerGroupDescribe))
	s.ask("with a classic member", beatingConsumer(group, "b", joined.MemberEpoch), v)
	s.ask("the only one that is not classic leaves", beatingConsumer(group, "b", -1), v)
	s.ask(fmt.Sprintf("all are classic again, after v%d", v), describingConsumers(group), latest(kmsg.ConsumerGroupDescribe))
	s.ask(fmt.Sprintf("all are classic again, after v%d", v), beating(a), latest(kmsg.Heartbeat))

	group = s.group(fmt.Sprintf("another-%d", v))
	req := joining(group, "", nil)
	req.ProtocolType = "another"
	s.quiet(req, 3)
	s.ask("joins a group of another protocol type", joiningConsumer(group, "b", name), v)

	group = s.group(fmt.Sprintf("down-%d", v))
	epoch := s.consumes(group, "b", name).MemberEpoch
	s.ask(fmt.Sprintf("of another protocol type than consumers, v%d", v), func() kmsg.Request {
		r := joining(group, "", nil, name)
		r.ProtocolType = "another"
		return r
	}(), latest(kmsg.JoinGroup))
	s.ask(fmt.Sprintf("an unknown member of what the server assigns, v%d", v), joining(group, "nobody", nil, name), latest(kmsg.JoinGroup))
	c := s.ask(fmt.Sprintf("a classic member joins, v%d", v), joining(group, "", nil, name), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse)
	c = s.ask(fmt.Sprintf("a classic member joins with its id, v%d", v), joining(group, c.MemberID, nil, name), latest(kmsg.JoinGroup)).(*kmsg.JoinGroupResponse)
	m := &member{group: group, id: c.MemberID, generation: c.Generation}
	s.ask(fmt.Sprintf("who has joined what the server assigns, v%d", v), syncing(m), latest(kmsg.SyncGroup))
	s.ask("is told to give away", beatingConsumer(group, "b", epoch), v)
}

// consumerRegex has members subscribe by regular expression.
func consumerRegex(s *session) {
	v := latest(kmsg.ConsumerGroupHeartbeat)
	one, _ := s.create("match-1", 2)
	s.create("match-2", 1)
	s.create("other", 1)
	refused := s.group("x")
	for _, bad := range []string{"(", "[a", "a{2,1}", "(?<name", "*", `\`, "(?=a)", `\1`, "a**", "a{1001}"} {
		req := joiningConsumer(refused, "m")
		req.SubscribedTopicNames, req.SubscribedTopicRegex = nil, &bad
		s.ask("expression "+bad, req, v)
	}
	req := joiningConsumer(refused, "m")
	req.SubscribedTopicNames, req.SubscribedTopicRegex = nil, new(string)
	s.ask("expression of no letters", req, v)
	for i, c := range []struct {
		what, expression string
		topics           int // that it stands for
	}{
		{"some topics", s.scenario + "-match-.*", 2},
		{"no topics", s.topic("unknown") + ".*", 0},
		{"a part of a name", "match", 0},
		{"an internal topic", "__consumer_offsets", 1},
		{"an alternative", one + "|nothing", 1},
	} {
		group := s.group(fmt.Sprintf("x-%d", i))
		join := joiningConsumer(group, "m")
		join.SubscribedTopicNames, join.SubscribedTopicRegex = nil, &c.expression
		s.quiet(join, v)
		s.ask("what is assigned of "+c.what, s.reconciled(group, "m", c.topics), latest(kmsg.ConsumerGroupDescribe))
	}
	group := s.group("x-both")
	join := joiningConsumer(group, "m", s.topic("other"))
	join.SubscribedTopicRegex = kmsg.StringPtr(s.scenario + "-match-.*")
	s.quiet(join, v)
	s.ask("what is assigned of names and an expression", s.reconciled(group, "m", 3), latest(kmsg.ConsumerGroupDescribe))
}

// reconciled sends heartbeats until a member has partitions of as many topics, or for
// a moment if that is none, and returns a request that describes the group: Kafka looks
// up what an expression stands for in the background.
func (s *session) reconciled(group, id string, topics int) *kmsg.ConsumerGroupDescribeRequest {
	describe := describingConsumers(group)
	tries := awaitTries
	if topics == 0 {
		tries = 10
	}
	for range tries {
		g := s.quiet(describe, 0).(*kmsg.ConsumerGroupDescribeResponse).Groups[0]
		if topics > 0 && len(g.Members[0].Assignment.TopicPartitions) == topics && g.State == "Stable" {
			break
		}
		s.quiet(beatingConsumer(group, id, g.Members[0].MemberEpoch), 0)
		time.Sleep(awaitEvery)
	}
	return describe
}

func describingConsumers(groups ...string) *kmsg.ConsumerGroupDescribeRequest {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = groups
	return req
}

// consumerGroupDescribe asks for groups that the server assigns.
func consumerGroupDescribe(s *session) {
	groups := s.someGroups()
	name, _ := s.create("u", 3)
	two := s.group("two")
	s.consumes(two, "a", name)
	join := joiningConsumer(two, "b", name, s.topic("unknown"))
	join.InstanceID, join.RackID, join.ServerAssignor = kmsg.StringPtr("i"), kmsg.StringPtr("rack"), kmsg.StringPtr("range")
	s.quiet(join, 0)
	back := s.group("back")
	join = joiningConsumer(back, "a", name)
	join.InstanceID = kmsg.StringPtr("i")
	s.quiet(join, 0)
	away := beatingConsumer(back, "a", -2)
	away.InstanceID = join.InstanceID
	s.quiet(away, 0)
	each(kmsg.ConsumerGroupDescribe, func(v int16) {
		ask := func(what string, operations bool, names ...string) {
			req := describingConsumers(names...)
			req.IncludeAuthorizedOperations = operations
			s.ask(what, req, v)
		}
		ask("one member", false, groups["consumer"])
		ask("two members, on their way", false, two)
		ask("a static member that is to be back", false, back)
		ask("a group without members", false, groups["left"])
		for _, state := range []string{"stable", "empty", "offsets", "pending"} {
			ask("a classic group, "+state, false, groups[state])
		}
		ask("a group that there is not", false, s.topic("unknown"))
		ask("no name", false, "")
		ask("two groups", false, groups["consumer"], groups["left"])
		ask("known and unknown", false, groups["consumer"], s.topic("unknown"))
		ask("a group twice", false, groups["consumer"], groups["consumer"])
		ask("nothing", false)
		ask("with authorized operations", true, groups["consumer"])
		ask("with authorized operations, of a group that there is not", true, s.topic("unknown"))
	})
}
