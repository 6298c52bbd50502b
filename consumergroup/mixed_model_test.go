package consumergroup

import (
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// beatClassic has a client of the classic protocol send what it is to send next. An
// eager one gives up all that it has before it joins again, a cooperative one what it
// does not subscribe to any more, and says what it has.
func (m *consumerModel) beatClassic(cl *modelConsumer, out *Decision) {
	switch {
	case cl.joins:
		maps.DeleteFunc(cl.consumes, func(o owned, _ bool) bool {
			info := m.named(o.id)
			return cl.eager || info == nil || !slices.Contains(cl.topics, info.Name)
		})
		m.c.JoinGroup(m.now, m.token(cl), m.joinRequest(cl), out)
	case cl.syncs:
		req := &SyncRequest{Group: "g", MemberID: cl.id, InstanceID: cl.instance, Generation: cl.epoch, Assignments: cl.assigns}
		m.c.SyncGroup(m.now, m.token(cl), req, out)
	default:
		req := &HeartbeatRequest{Group: "g", MemberID: cl.id, InstanceID: cl.instance, Generation: cl.epoch}
		m.c.Heartbeat(m.now, m.token(cl), req, out)
	}
}

// joinRequest is that of a client. Its rebalance timeout is longer than its session, as
// it is by default: a static member that is in a group of which it has missed a
// rebalance goes on with what it has, in its old generation.
func (m *consumerModel) joinRequest(cl *modelConsumer) *JoinRequest {
	s := &record.Subscription{Topics: cl.topics}
	if !cl.eager {
		s.Version = 1
		for _, tp := range owns(cl) {
			if info := m.named(tp.TopicID); info != nil {
				s.Owned = append(s.Owned, record.Owned{Topic: info.Name, Partitions: tp.Partitions})
			}
		}
	}
	return &JoinRequest{
		Group: "g", MemberID: cl.id, InstanceID: cl.instance, ClientID: "c", SessionTimeoutMS: 30_000, RebalanceTimeoutMS: 40_000,
		ProtocolType: record.ConsumerProtocolType, NeedsMemberID: m.rand.IntN(4) > 0,
		Protocols: []Protocol{{Name: "sticky", Metadata: record.AppendSubscription(nil, s)}},
	}
}

func owns(cl *modelConsumer) []record.TopicPartitions {
	s := make(partitionSet)
	for o := range cl.consumes {
		s[o] = 0
	}
	return s.list()
}

// named returns the topic that has the id, if there is one yet.
func (m *consumerModel) named(id record.TopicID) *TopicInfo {
	for i := range m.topics {
		if m.topics[i].ID == id {
			return &m.topics[i]
		}
	}
	return nil
}

// answeredClassic is what a client of the classic protocol does with an answer.
func (m *consumerModel) answeredClassic(cl *modelConsumer, response any) {
	var err *errcode.Error
	switch r := response.(type) {
	case *JoinReply:
		if err = r.Err; err == nil {
			cl.id, cl.epoch, cl.joins, cl.syncs, cl.assigns = r.MemberID, r.Generation, false, true, nil
			if r.Leader == r.MemberID {
				cl.assigns = m.lead(r.Members)
			}
			return
		}
		if err.Code == errcode.MemberIDRequired {
			cl.id = r.MemberID
			return
		}
	case *SyncReply:
		if err = r.Err; err == nil {
			m.assigned(cl, r.Assignment)
			return
		}
	case HeartbeatReply:
		if err = r.Err; err == nil {
			return
		}
	}
	switch err.Code {
	case errcode.RebalanceInProgress, errcode.CoordinatorLoadInProgress:
		cl.joins, cl.syncs = true, false
		if cl.eager {
			clear(cl.consumes)
		}
	case errcode.GroupMaxSizeReached, errcode.InconsistentGroupProtocol:
		m.forget(cl)
	default: // fenced, or not known any more: it begins anew
		m.stats.fenced++
		m.forget(cl)
		cl.id = ""
	}
}

// assigned has a client consume what it is assigned. A cooperative one that had more
// gives that away, and joins again.
func (m *consumerModel) assigned(cl *modelConsumer, b []byte) {
	a, err := record.DecodeAssignment(b)
	if err != nil {
		m.fatalf("%v", err)
	}
	m.stats.synced++
	had := len(cl.consumes)
	now, kept := make(map[owned]bool), 0
	for _, o := range a.Partitions {
		info := m.topicNamed(o.Topic)
		if info == nil {
			continue
		}
		for _, p := range o.Partitions {
			at := owned{info.ID, p}
			if now[at] = true; cl.consumes[at] {
				kept++
			}
		}
	}
	cl.consumes, cl.wanted, cl.syncs = now, maps.Clone(now), false
	cl.joins = !cl.eager && kept < had
}

func (m *consumerModel) topicNamed(name string) *TopicInfo {
	i := slices.IndexFunc(m.topics, func(t TopicInfo) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &m.topics[i]
}

// lead is the assignor of the clients: who says that it owns a partition keeps it; what
// nobody owns goes to whoever subscribes, by turns.
func (m *consumerModel) lead(members []JoinMember) (out []Assignment) {
	said := make([]*record.Subscription, len(members))
	taken := make(map[TopicPartition]int)
	for i, jm := range members {
		s, err := record.DecodeSubscription(jm.Metadata)
		if err != nil {
			m.fatalf("%v", err)
		}
		said[i] = s
		for _, o := range s.Owned {
			for _, p := range o.Partitions {
				tp := TopicPartition{o.Topic, p}
				if _, twice := taken[tp]; !twice && slices.Contains(s.Topics, o.Topic) {
					taken[tp] = i
				}
			}
		}
	}
	turn := 0
	as := make([]record.Assignment, len(members))
	for _, t := range m.topics {
		for p := range t.Partitions {
			i, ok := taken[TopicPartition{t.Name, p}]
			for range members {
				if ok {
					break
				}
				turn++
				i = turn % len(members)
				ok = slices.Contains(said[i].Topics, t.Name)
			}
			if ok {
				as[i].Partitions = append(as[i].Partitions, record.Owned{Topic: t.Name, Partitions: []int32{p}})
			}
		}
	}
	for i, jm := range members {
		out = append(out, Assignment{jm.MemberID, record.AppendAssignment(nil, &as[i])})
	}
	return out
}

// settledClassic looks at where a group stands that has become a classic one: it rests,
// and its members consume what they were assigned.
func (m *consumerModel) settledClassic(g *classic) {
	if g.state != Stable {
		m.fatalf("the classic group is %v", g.state)
	}
	for _, cl := range m.consumer {
		if m.member(cl) && !cl.joins && cl.epoch != g.generation {
			m.fatalf("member %s is in generation %d, the group in %d", cl.id, cl.epoch, g.generation)
		}
	}
}
