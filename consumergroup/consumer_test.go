package consumergroup

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// consumerEntries has one record of each kind of a group of KIP-848, and the same
// without a value.
func consumerEntries() (there, gone []record.Entry) {
	list := []record.TopicPartitions{{TopicID: topicID("t"), Partitions: []int32{0, 2}}}
	return []record.Entry{
			&record.ConsumerGroup{Group: "g", Value: &record.ConsumerGroupValue{Epoch: 3, MetadataHash: 5}},
			&record.ConsumerPartitionMetadata{Group: "g", Value: &record.ConsumerPartitionMetadataValue{}},
			&record.ConsumerMember{Group: "g", MemberID: "m", Value: &record.ConsumerMemberValue{Topics: []string{"t"}}},
			&record.ConsumerRegex{Group: "g", Regex: "t.*", Value: &record.ConsumerRegexValue{Topics: []string{"t"}}},
			&record.ConsumerTarget{Group: "g", MemberID: "m", Value: &record.ConsumerTargetValue{Partitions: list}},
			&record.ConsumerTargetEpoch{Group: "g", Value: &record.ConsumerTargetEpochValue{Epoch: 3}},
			&record.ConsumerCurrent{Group: "g", MemberID: "m", Value: &record.ConsumerCurrentValue{Epoch: 3, Assigned: list}},
		}, []record.Entry{
			&record.ConsumerGroup{Group: "g"}, &record.ConsumerPartitionMetadata{Group: "g"}, &record.ConsumerMember{Group: "g", MemberID: "m"},
			&record.ConsumerRegex{Group: "g", Regex: "t.*"}, &record.ConsumerTarget{Group: "g", MemberID: "m"},
			&record.ConsumerTargetEpoch{Group: "g"}, &record.ConsumerCurrent{Group: "g", MemberID: "m"},
		}
}

// TestConsumerRecords folds each kind of record of a group of KIP-848: it is in what has
// changed, in a snapshot, and in a clone, which is the clone's own; and gone with its
// tombstone.
func TestConsumerRecords(t *testing.T) {
	t.Parallel()
	there, gone := consumerEntries()
	g, restored, copied := NewGroups(), NewGroups(), NewGroups()
	fold := func(g *Groups, rs ...record.Record) {
		t.Helper()
		for _, r := range rs {
			if err := g.Fold(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.Track()
	for i, e := range there {
		r := e.Encode()
		fold(g, record.Record{Key: gone[i].Encode().Key}) // which deletes nothing
		fold(g, r)
		changes := g.Changes()
		if diff := cmp.Diff([]record.Record{r}, changes); diff != "" {
			t.Errorf("%T: (-want +changes):\n%s", e, diff)
		}
		fold(copied, changes...)
		if g.records() != i+1 || copied.Hash() != g.Hash() {
			t.Errorf("%T: %d records, want %d; by changes %v, folded %v", e, g.records(), i+1, copied.Hash(), g.Hash())
		}
	}
	var all []record.Record
	for r := range g.All {
		all = append(all, r)
	}
	if len(all) != len(there) {
		t.Errorf("a snapshot has %d records, %d were folded: what is restored is not the same", len(all), len(there))
	}
	fold(restored, all...)
	if restored.Hash() != g.Hash() {
		t.Errorf("restored %v, was %v", restored.Hash(), g.Hash())
	}
	for n := range len(all) {
		part := 0
		for range g.All {
			if part++; part == n {
				break
			}
		}
	}

	clone, before := g.Clone(), g.Hash()
	for i, e := range gone {
		fold(clone, e.Encode())
		if clone.records() != len(gone)-i-1 {
			t.Errorf("%T: %d records, want %d", e, clone.records(), len(gone)-i-1)
		}
	}
	if clone.Len() != 0 || clone.Hash() != NewGroups().Hash() {
		t.Errorf("%d groups are left of one that is deleted", clone.Len())
	}
	if g.Hash() != before {
		t.Error("what was deleted of a clone is gone")
	}
	fold(g, gone[2].Encode())
	if diff := cmp.Diff([]record.Record{gone[2].Encode()}, g.Changes()); diff != "" {
		t.Errorf("(-tombstone +changes):\n%s", diff)
	}
}

// TestConsumerTakeOver hands a coordinator records that no coordinator writes: two
// members of one instance, two that have a partition, one that has joined, and has
// nothing yet.
func TestConsumerTakeOver(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	list := []record.TopicPartitions{{TopicID: topicID("t"), Partitions: []int32{0}}}
	for _, id := range []string{"a", "b", "c"} {
		v := &record.ConsumerMemberValue{Topics: []string{"t"}, InstanceID: new("i"), RebalanceTimeoutMS: 1000}
		e := []record.Entry{&record.ConsumerMember{Group: "g", MemberID: id, Value: v}}
		if id != "c" {
			e = append(e, &record.ConsumerCurrent{Group: "g", MemberID: id, Value: &record.ConsumerCurrentValue{Epoch: 1, Assigned: list}})
		}
		for _, e := range e {
			if err := m.applied.Fold(e.Encode()); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.known = NewTopics(1, parseTopics("t:1"))
	m.takeOver()
	g := m.c.consumers["g"]
	if o := (owned{topicID("t"), 0}); g.owners[o] == nil || g.owners[o].id != "a" || g.static["i"] != "a" {
		t.Errorf("the partition is %v's, the instance %s", g.owners[o], g.static["i"])
	}
	// The group comes to rest: two send heartbeats, the third is lost.
	for range 6 {
		m.advance(10 * time.Second)
		for _, id := range []string{"a", "b"} {
			req := &ConsumerHeartbeatRequest{
				Group: "g", MemberID: id, Epoch: m.c.decided.consumer("g").currentOf(id).Epoch, RebalanceTimeoutMS: -1, Owned: []record.TopicPartitions{},
			}
			m.c.ConsumerHeartbeat(m.now, m.token(id), req, &m.out)
			m.apply()
			if e := m.applied.consumer("g").groupEpoch(); e < 2 {
				t.Fatalf("the group begins epoch %d, a member had 1 already", e)
			}
		}
	}
	if s := m.applied.consumer("g"); consumerGroupState(s) != Stable || len(s.members) != 2 {
		t.Errorf("%s", formatConsumerState(s))
	}
}

// TestConsumerReads holds what is told without a record, and is not to be told by who
// does not lead any more.
func TestConsumerReads(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.known = NewTopics(1, parseTopics("t:1"))
	m.takeOver()
	for _, tt := range []struct {
		what    string
		words   map[string]string
		reads   bool
		records bool
	}{
		{"who joins is told what is recorded with it", map[string]string{"epoch": "0"}, false, true},
		{"a heartbeat tells nothing", map[string]string{"epoch": "1"}, false, false},
		{"who joins again is told what it has", map[string]string{"epoch": "0"}, true, false},
		{"who says all is told what it has", map[string]string{"epoch": "1", "topics": "t", "rebalance": "60s", "owned": "t:0"}, true, false},
	} {
		tt.words["group"], tt.words["member"] = "g", "m"
		m.c.ConsumerHeartbeat(m.now, m.token("a"), args{t: t, words: tt.words}.beat(), &m.out)
		if m.out.Reads != tt.reads || (len(m.out.Records) > 0) != tt.records {
			t.Errorf("%s: reads %t, %d records", tt.what, m.out.Reads, len(m.out.Records))
		}
		m.apply()
	}
	m.c.ConsumerDescribe(m.now, m.token("a"), "g", &m.out)
	if !m.out.Reads {
		t.Error("a description does not read")
	}
}

// TestConsumerOptions shows what no coordinator works with.
func TestConsumerOptions(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*Options){
		"a session that ends before the next heartbeat": func(o *Options) { o.ConsumerSessionTimeout = o.ConsumerHeartbeatInterval },
		"no heartbeats":              func(o *Options) { o.ConsumerHeartbeatInterval = 0 },
		"no time between heartbeats": func(o *Options) { o.ConsumerHeartbeatIntervalMin = 0 },
		"no subscribed topics":       func(o *Options) { o.MaxSubscribedTopics = 0 },
	} {
		o := DefaultOptions()
		o.NewID = func() string { return "" }
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		if change(&o); o.Check() == nil {
			t.Errorf("%s passes", what)
		}
	}
}

// TestHeartbeatInterval: few members hear of a change soon, and many send no more
// heartbeats than they may.
func TestHeartbeatInterval(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		groups, members int
		edit            func(*Options)
		want            time.Duration // that a member of each group is told
	}{
		{groups: 1, members: 1, want: time.Second},
		{groups: 1, members: 40, want: time.Second},
		{groups: 1, members: 100, want: 2500 * time.Millisecond},
		{groups: 10, members: 10, want: 2500 * time.Millisecond},
		{groups: 20, members: 10, want: 5 * time.Second},
		{groups: 1, members: 500, want: 5 * time.Second},
		{groups: 1, members: 2, edit: func(o *Options) { o.ConsumerHeartbeatIntervalMin = time.Hour }, want: 5 * time.Second},
		{groups: 1, members: 2, edit: func(o *Options) { o.ConsumerHeartbeatIntervalMin = 10 * time.Millisecond }, want: 50 * time.Millisecond},
	} {
		m := newMachine(t)
		m.opts.ConsumerHeartbeatIntervalMin = DefaultOptions().ConsumerHeartbeatIntervalMin
		if tt.edit != nil {
			tt.edit(&m.opts)
		}
		m.known = NewTopics(1, parseTopics("t:10"))
		m.takeOver()
		for i := range tt.groups * tt.members {
			req := &ConsumerHeartbeatRequest{
				Group: fmt.Sprint("g", i%tt.groups), MemberID: fmt.Sprint("m", i), Epoch: JoinEpoch, RebalanceTimeoutMS: 60_000,
				Topics: []string{"t"}, Owned: []record.TopicPartitions{},
			}
			m.c.ConsumerHeartbeat(m.now, m.token(req.MemberID), req, &m.out)
			r := m.out.Replies[0].Response.(*ConsumerHeartbeatReply)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if left := tt.groups*tt.members - i; left <= tt.groups && r.Interval != tt.want { // the last of each group
				t.Errorf("%d groups of %d: told %v, want %v", tt.groups, tt.members, r.Interval, tt.want)
			}
			m.apply()
		}
	}
}

// TestConsumerBeat has a member say nothing new for longer than a session, and then
// nothing at all.
func TestConsumerBeat(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.known = NewTopics(1, parseTopics("t:3"))
	m.takeOver()
	m.c.ConsumerHeartbeat(m.now, m.token("joins"), &ConsumerHeartbeatRequest{
		Group: "g", MemberID: "m", RebalanceTimeoutMS: 60_000, Topics: []string{"t"}, Owned: []record.TopicPartitions{},
	}, &m.out)
	m.apply()
	beat := &ConsumerHeartbeatRequest{Group: "g", MemberID: "m", Epoch: 1, RebalanceTimeoutMS: -1}
	for i := range 5 {
		m.advance(m.opts.ConsumerSessionTimeout * 2 / 3)
		if !m.c.ConsumerBeat(m.now, m.token("beats"), beat, &m.out) {
			t.Fatalf("heartbeat %d of a member that says nothing new is none", i)
		}
		if len(m.out.Records) > 0 || m.out.Reads {
			t.Errorf("heartbeat %d has decided %v, reads %t", i, m.out.Records, m.out.Reads)
		}
		m.apply()
	}
	m.advance(m.opts.ConsumerSessionTimeout + time.Second)
	if m.c.ConsumerBeat(m.now, m.token("lost"), beat, &m.out) {
		t.Error("a member that was silent for a session has a heartbeat")
	}
}

// BenchmarkConsumerHeartbeat gives the cost of a heartbeat of a member that has all that
// it shall have, in a group of many, and of one that joins.
func BenchmarkConsumerHeartbeat(b *testing.B) {
	const members = 500
	m := newMachine(b)
	m.known = NewTopics(1, parseTopics("t:1000"))
	m.takeOver()
	beat := func(id string, epoch int32, owned []record.TopicPartitions) *ConsumerHeartbeatReply {
		req := &ConsumerHeartbeatRequest{Group: "g", MemberID: id, Epoch: epoch, RebalanceTimeoutMS: -1, Owned: owned}
		if epoch == JoinEpoch {
			req.RebalanceTimeoutMS, req.Topics, req.Owned = 60_000, []string{"t"}, []record.TopicPartitions{}
		}
		m.c.ConsumerHeartbeat(m.now, 1, req, &m.out)
		r := m.out.Replies[0].Response.(*ConsumerHeartbeatReply)
		if r.Err != nil {
			b.Fatal(r.Err)
		}
		m.out.Reset()
		return r
	}
	epochs := make([]int32, members)
	for range 3 {
		for i := range epochs {
			epochs[i] = beat(fmt.Sprint("m", i), epochs[i], []record.TopicPartitions{}).Epoch
		}
	}
	b.Run("stable", func(b *testing.B) {
		b.ReportAllocs()
		req := &ConsumerHeartbeatRequest{Group: "g", MemberID: "m7", Epoch: epochs[7], RebalanceTimeoutMS: -1}
		for b.Loop() {
			m.c.ConsumerHeartbeat(m.now, 1, req, &m.out)
			m.out.Reset()
		}
	})
	b.Run("joins", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			id := fmt.Sprint("new", n)
			beat(id, JoinEpoch, nil)
			b.StopTimer()
			m.c.ConsumerHeartbeat(m.now, 1, &ConsumerHeartbeatRequest{Group: "g", MemberID: id, Epoch: LeaveEpoch, RebalanceTimeoutMS: -1}, &m.out)
			m.out.Reset()
			b.StartTimer()
		}
	})
}
