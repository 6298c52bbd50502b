package consumergroup

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// TestStaticMembersWithoutTime takes over a group of static members that ask for no time to
// rebalance. One leaves, and the other does not join again: it is waited for until its
// session is over, a few times, and not within one Tick for ever.
func TestStaticMembersWithoutTime(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	v := &record.GroupMetadataValue{ProtocolType: "consumer", Generation: 1, Protocol: new("range"), Leader: new("a")}
	for _, id := range []string{"a", "b"} {
		v.Members = append(v.Members, record.GroupMember{MemberID: id, InstanceID: new("i" + id), SessionTimeoutMS: 10_000})
	}
	if err := m.applied.Fold((&record.GroupMetadata{Group: "g", Value: v}).Encode()); err != nil {
		t.Fatal(err)
	}
	m.takeOver()
	m.c.LeaveGroup(m.now, m.token("leave"), &LeaveRequest{Group: "g", Members: []LeaveMember{{InstanceID: "ib"}}}, &m.out)
	m.apply()
	ticks := 0
	for m.c.live["g"] != nil {
		if ticks++; ticks > 100 {
			t.Fatal("a rebalance that nobody joins ticks on and on")
		}
		next, ok := m.c.Next()
		if !ok {
			t.Fatal("a rebalance that nothing ends")
		}
		m.now = next
		fired := 0
		for m.c.timers.heap[0].at.Compare(m.now) <= 0 { // as Tick does, and with a bound
			if fired++; fired > 100 {
				t.Fatal("a rebalance that nobody joins waits for no time, for ever")
			}
			m.c.begin(m.now, &m.out)
			if due := m.c.timers.pop(m.now); due != nil {
				due.fire()
			}
		}
		m.apply()
	}
	if e := m.elapsed(); e != 10*time.Second {
		t.Errorf("the member was waited for %v, its session is 10 s", e)
	}
}

// TestConsumerForeignRecords hands a coordinator records of groups of KIP-848 that no
// coordinator has written, and has members of both protocols send requests: what it
// answers is its own affair, but it does not fall over, what it decides folds, and in the
// end the group rests.
func TestConsumerForeignRecords(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		m := newMachine(t)
		for range rng.IntN(25) {
			if err := m.applied.Fold(foreign(rng).Encode()); err != nil {
				t.Fatal(err)
			}
		}
		m.known = NewTopics(1, parseTopics("t:3,u:2"))
		m.takeOver()
		ask := func(id string, what int) {
			epoch := int32(0)
			if s := m.c.decided.consumer("g"); s != nil {
				epoch = s.currentOf(id).Epoch
			}
			switch what {
			case 0:
				m.c.ConsumerHeartbeat(m.now, m.token(id), &ConsumerHeartbeatRequest{
					Group: "g", MemberID: id, Epoch: epoch, RebalanceTimeoutMS: 1000, Topics: []string{"t"}, Owned: []record.TopicPartitions{},
				}, &m.out)
			case 1:
				m.c.Heartbeat(m.now, m.token(id), &HeartbeatRequest{Group: "g", MemberID: id, Generation: epoch}, &m.out)
			case 2:
				m.c.SyncGroup(m.now, m.token(id), &SyncRequest{Group: "g", MemberID: id, Generation: epoch}, &m.out)
			case 3:
				s := record.AppendSubscription(nil, &record.Subscription{Topics: []string{"t", "u"}})
				m.c.JoinGroup(m.now, m.token(id), &JoinRequest{
					Group: "g", MemberID: id, SessionTimeoutMS: 10_000, RebalanceTimeoutMS: 10_000, ProtocolType: "consumer",
					Protocols: []Protocol{{"p0", s}, {"p1", s}},
				}, &m.out)
			case 4:
				m.c.CommitOffsets(m.now, m.token(id), &CommitRequest{
					Group: "g", MemberID: id, Generation: epoch, RetentionMS: -1, KnowsNoGroup: true, Offsets: []CommitOffset{{Topic: "t", Offset: 1}},
				}, &m.out)
			case 5:
				m.c.ConsumerDescribe(m.now, m.token(id), "g", &m.out)
			case 6:
				m.c.LeaveGroup(m.now, m.token(id), &LeaveRequest{Group: "g", Members: []LeaveMember{{MemberID: id}}}, &m.out)
			default:
				m.advance(time.Duration(rng.IntN(20)) * time.Second)
			}
			m.apply()
		}
		for range 40 {
			ask(fmt.Sprint("m", rng.IntN(4)), rng.IntN(8))
		}
		m.advance(10 * time.Minute) // all are lost
		if s := m.c.Stats(); s.Members != 0 || s.Bytes != 0 || s.Held != 0 {
			t.Fatalf("seed %d: in the end there is %+v", seed, s)
		}
		ask("m9", 0)
		if s := m.applied.consumer("g"); s == nil || consumerGroupState(s) != Stable || len(s.targetOf("m9")) != 1 {
			t.Fatalf("seed %d: a member that comes to what is left: %v", seed, s)
		}
	}
}

// foreign returns a record of the group g, with members m0 to m3, of any content.
func foreign(rng *rand.Rand) record.Entry {
	id := fmt.Sprint("m", rng.IntN(4))
	list := func() (out []record.TopicPartitions) {
		for range rng.IntN(3) {
			out = append(out, record.TopicPartitions{
				TopicID: topicID([]string{"t", "u", "gone"}[rng.IntN(3)]), Partitions: []int32{int32(rng.IntN(6) - 1), int32(rng.IntN(3))},
			})
		}
		return out
	}
	maybe := func(s string) *string {
		if rng.IntN(2) == 0 {
			return nil
		}
		return &s
	}
	switch rng.IntN(7) {
	case 0:
		return &record.ConsumerGroup{Group: "g", Value: &record.ConsumerGroupValue{Epoch: int32(rng.IntN(9) - 2)}}
	case 1, 2:
		v := &record.ConsumerMemberValue{
			InstanceID: maybe(fmt.Sprint("i", rng.IntN(2))), Topics: []string{"t", "u", "t"}[:rng.IntN(4)],
			Regex: maybe([]string{"t.*", "(", ""}[rng.IntN(3)]), Assignor: maybe("sticky"), RebalanceTimeoutMS: int32(rng.IntN(3000) - 1000),
		}
		if rng.IntN(2) == 0 {
			v.Classic = &record.ClassicMember{SessionTimeoutMS: int32(rng.IntN(9000) - 1000)}
			for i := range rng.IntN(3) {
				v.Classic.Protocols = append(v.Classic.Protocols, record.ClassicProtocol{Name: fmt.Sprint("p", i), Metadata: []byte{0, 0, 0}})
			}
		}
		return &record.ConsumerMember{Group: "g", MemberID: id, Value: v}
	case 3:
		return &record.ConsumerTarget{Group: "g", MemberID: id, Value: &record.ConsumerTargetValue{Partitions: list()}}
	case 4:
		return &record.ConsumerTargetEpoch{Group: "g", Value: &record.ConsumerTargetEpochValue{Epoch: int32(rng.IntN(9) - 2)}}
	case 5:
		return &record.ConsumerRegex{Group: "g", Regex: "t.*", Value: &record.ConsumerRegexValue{Topics: []string{"t", "x"}}}
	default:
		return &record.ConsumerCurrent{Group: "g", MemberID: id, Value: &record.ConsumerCurrentValue{
			Epoch: int32(rng.IntN(9) - 3), PreviousEpoch: int32(rng.IntN(9) - 3), State: record.MemberState(rng.IntN(4)), Assigned: list(), Revoking: list(),
		}}
	}
}
