package broker

import (
	"context"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestOffsetsPartition holds the partition of a group against Kafka's
// (Utils.abs(group.hashCode) % 50, as Java says).
func TestOffsetsPartition(t *testing.T) {
	tests := []struct {
		group string
		hash  int32 // Java's
	}{
		{"", 0},
		{"a", 97},
		{"hello", 99162322},
		{"polygenelubricants", -2147483648},
		{"\u00fc", 252},
		{"\U0001f600", 1772899}, // a surrogate pair: 0xd83d * 31 + 0xde00
	}
	for _, tt := range tests {
		for _, n := range []int{1, 3, 50} {
			if got, want := offsetsPartition(tt.group, n), (tt.hash&0x7fffffff)%int32(n); got != want {
				t.Errorf("offsetsPartition(%q, %d) = %d, want %d", tt.group, n, got, want)
			}
		}
	}
}

// groupUser uses one group through whatever node coordinates it.
type groupUser struct {
	tr    *trio
	group string
	lost  *rig // that it does not ask; nil: none
}

// coordinator returns the broker that coordinates the group, as one of the others says;
// nil: nobody knows.
func (u *groupUser) coordinator() *rig {
	for _, r := range u.tr.rigs {
		if r == u.lost {
			continue
		}
		if n, err := r.FindCoordinator(u.tr.t.Context(), u.group, Listener{Name: ClientListener}); err == nil {
			if at := u.tr.rigs[n.ID-1]; at != u.lost {
				return at
			}
		}
	}
	return nil
}

// until asks the coordinator until it has an answer that is not to look for another.
func (u *groupUser) until(what string, ask func(ctx context.Context, r *rig) *errcode.Error) {
	u.tr.t.Helper()
	var err *errcode.Error
	for range 600 {
		if r := u.coordinator(); r != nil {
			ctx, cancel := context.WithTimeout(u.tr.t.Context(), 5*time.Second)
			err = ask(ctx, r)
			cancel()
			switch {
			case err == nil:
				return
			case err.Code != errcode.NotCoordinator:
				u.tr.t.Fatalf("%s: %v", what, err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	u.tr.t.Fatalf("%s: there is no coordinator: %v", what, err)
}

func (u *groupUser) commit(offset int64, member string, generation int32) {
	u.tr.t.Helper()
	u.until("commit", func(ctx context.Context, r *rig) *errcode.Error {
		reply := r.CommitOffsets(ctx, &consumergroup.CommitRequest{
			Group: u.group, MemberID: member, Generation: generation, RetentionMS: -1,
			Offsets: []consumergroup.CommitOffset{{Topic: "orders", Offset: offset, LeaderEpoch: -1}},
		})
		if reply.Err == nil {
			return reply.Offsets[0]
		}
		return reply.Err
	})
}

func (u *groupUser) fetch() (offset int64) {
	u.tr.t.Helper()
	u.until("fetch", func(ctx context.Context, r *rig) *errcode.Error {
		reply := r.FetchOffsets(ctx, &consumergroup.FetchRequest{Group: u.group, Partitions: []consumergroup.FetchPartition{{Topic: "orders"}}})
		if reply.Err == nil {
			offset = reply.Offsets[0].Offset
		}
		return reply.Err
	})
	return offset
}

func (u *groupUser) join(session time.Duration) (reply *consumergroup.JoinReply) {
	u.until("join", func(_ context.Context, r *rig) *errcode.Error {
		ctx, cancel := context.WithTimeout(u.tr.t.Context(), time.Minute) // it waits for others
		defer cancel()
		reply = r.JoinGroup(ctx, &consumergroup.JoinRequest{
			Group: u.group, ClientID: "c", SessionTimeoutMS: int32(session.Milliseconds()), RebalanceTimeoutMS: 60_000, ProtocolType: "consumer",
			Protocols: []consumergroup.Protocol{{
				Name: "range", Metadata: record.AppendSubscription(nil, &record.Subscription{Topics: []string{"orders"}}),
			}},
		})
		return reply.Err
	})
	return reply
}

func (u *groupUser) sync(join *consumergroup.JoinReply) (assignment string) {
	u.until("sync", func(ctx context.Context, r *rig) *errcode.Error {
		req := &consumergroup.SyncRequest{Group: u.group, MemberID: join.MemberID, Generation: join.Generation}
		for _, m := range join.Members {
			req.Assignments = append(req.Assignments, consumergroup.Assignment{MemberID: m.MemberID, Bytes: []byte(m.MemberID)})
		}
		reply := r.SyncGroup(ctx, req)
		assignment = string(reply.Assignment)
		return reply.Err
	})
	return assignment
}

func (u *groupUser) beat(join *consumergroup.JoinReply) {
	u.tr.t.Helper()
	u.until("heartbeat", func(ctx context.Context, r *rig) *errcode.Error {
		return r.HeartbeatGroup(ctx, &consumergroup.HeartbeatRequest{Group: u.group, MemberID: join.MemberID, Generation: join.Generation}).Err
	})
}

// TestTakeOver loses the node that coordinates a group: the next coordinator knows its
// members, who do not join again, and its offsets; the old one acknowledges nothing more.
func TestTakeOver(t *testing.T) {
	inTunedTrio(t, func(o *Options) { o.OffsetsPartitions = 4 }, func(t *testing.T, tr *trio) {
		tr.controller().create("orders", 2, nil)
		u := &groupUser{tr: tr, group: "billing"}
		const session = 30 * time.Second
		var joins [2]*consumergroup.JoinReply
		for i := range joins {
			go func() { joins[i] = u.join(session) }()
		}
		time.Sleep(20 * time.Second) // the first rebalance waits for members
		synctest.Wait()
		for i, join := range joins {
			if join == nil {
				t.Fatalf("member %d has not joined", i)
			}
		}
		leader, other := joins[0], joins[1]
		if len(leader.Members) == 0 {
			leader, other = other, leader
		}
		for _, join := range []*consumergroup.JoinReply{leader, other} {
			if got := u.sync(join); got != join.MemberID || join.Generation != leader.Generation {
				t.Errorf("member %s of generation %d has %q", join.MemberID, join.Generation, got)
			}
		}
		u.commit(42, leader.MemberID, leader.Generation)
		if (&groupUser{tr: tr}).coordinator() == nil { // offsets may be committed for it
			t.Error("the group without a name has no coordinator")
		}

		old := u.coordinator()
		tr.lose(old)
		u.lost = old
		start := time.Now()
		for _, join := range joins {
			u.beat(join)
		}
		if took := time.Since(start); took > session {
			t.Errorf("the next coordinator came after %v, and the session is %v", took, session)
		}
		if got := u.fetch(); got != 42 {
			t.Errorf("the next coordinator has offset %d, want 42", got)
		}
		u.commit(43, other.MemberID, other.Generation)
		for range 4 { // nobody is lost that sends heartbeats
			time.Sleep(session / 3)
			for _, join := range joins {
				u.beat(join)
			}
		}
		if got := u.sync(other); got != other.MemberID {
			t.Errorf("after the take-over %s has %q", other.MemberID, got)
		}
		if got := u.coordinator().Stats().Groups; got.Members != 2 || got.Groups != 1 || got.Offsets != 1 || got.Decisions == 0 || got.Records < got.Decisions {
			t.Errorf("the next coordinator counts %+v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		reply := old.CommitOffsets(ctx, &consumergroup.CommitRequest{
			Group: u.group, MemberID: other.MemberID, Generation: other.Generation, RetentionMS: -1,
			Offsets: []consumergroup.CommitOffset{{Topic: "orders", Offset: 99, LeaderEpoch: -1}},
		})
		if reply.Err == nil || reply.Err.Code != errcode.NotCoordinator {
			t.Errorf("a commit to the node that is cut off: %+v", reply)
		}
		if got := u.fetch(); got != 43 {
			t.Errorf("in the end offset %d, want 43", got)
		}
	})
}

// TestCommitsDoNotGoBack hands the coordinator's shard from node to node while a client
// commits ever greater offsets.
func TestCommitsDoNotGoBack(t *testing.T) {
	inTunedTrio(t, func(o *Options) { o.OffsetsPartitions = 1 }, func(t *testing.T, tr *trio) {
		u := &groupUser{tr: tr, group: "g"}
		u.commit(0, "", -1)
		stop, stopped := context.WithCancel(t.Context())
		done := make(chan int64)
		go func() {
			offset := int64(0)
			for stop.Err() == nil {
				offset++
				time.Sleep(10 * time.Millisecond)
				u.commit(offset, "", -1)
				if got := u.fetch(); got != offset {
					t.Errorf("%d was committed, and %d is fetched", offset, got)
				}
			}
			done <- offset
		}()
		at := make(map[int32]bool)
		for range 8 {
			time.Sleep(300 * time.Millisecond)
			r := u.coordinator()
			if r == nil {
				continue
			}
			at[r.NodeID()] = true
			log, ok := r.internalLog(TopicID(r.image().TopicByName(metadata.GroupsTopic).ID), 0)
			if !ok {
				t.Fatal("the coordinator has no partition")
			}
			_, _, _ = r.TransferShard(t.Context(), uint32(log.at.shard.id), -1)
		}
		stopped()
		if offset := <-done; offset < 10 || len(at) < 2 {
			t.Errorf("committed up to %d through the nodes %v, want more", offset, at)
		}
	})
}

// TestDeletedTopicsAreForgotten deletes topics that groups have offsets of: while a
// coordinator runs, and when none does. Their offsets go, and others stay.
func TestDeletedTopicsAreForgotten(t *testing.T) {
	inTunedTrio(t, func(o *Options) { o.OffsetsPartitions = 1 }, func(t *testing.T, tr *trio) {
		u := &groupUser{tr: tr, group: "g"}
		topics := make(map[string]Topic)
		for _, name := range []string{"stays", "goes", "goes-later"} {
			topic := tr.controller().create(name, 1, nil)
			topics[name] = topic
			u.until("commit", func(ctx context.Context, r *rig) *errcode.Error {
				return r.CommitOffsets(ctx, &consumergroup.CommitRequest{
					Group: u.group, Generation: -1, RetentionMS: -1,
					Offsets: []consumergroup.CommitOffset{{Topic: name, TopicID: record.TopicID(topic.ID), Offset: 1, LeaderEpoch: -1}},
				}).Err
			})
		}
		check := func(when string, want ...string) {
			t.Helper()
			var got []string
			u.until("fetch", func(ctx context.Context, r *rig) *errcode.Error {
				reply := r.FetchOffsets(ctx, &consumergroup.FetchRequest{Group: u.group, All: true})
				got = nil
				for _, o := range reply.Offsets {
					got = append(got, o.Topic)
				}
				return reply.Err
			})
			if !slices.Equal(got, want) {
				t.Errorf("%s: there are offsets of %v, want of %v", when, got, want)
			}
		}
		check("before", "goes", "goes-later", "stays")
		del := func(name string) {
			t.Helper()
			if err := tr.controller().DeleteTopic(t.Context(), topics[name].ID); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		del("goes")
		check("deleted", "goes-later", "stays")

		// The next coordinator finds it out by itself.
		for _, r := range tr.rigs {
			r.coordinators.mu.Lock()
			for _, at := range r.coordinators.at {
				at.runner.Stop()
			}
			r.coordinators.mu.Unlock()
		}
		del("goes-later")
		check("deleted while nobody coordinated", "stays")
		if at := u.coordinator(); at.ListGroups(t.Context(), new(consumergroup.ListRequest)).Groups[0].Group != "g" {
			t.Error("the group is not listed")
		}
	})
}

// TestNewTopicIsAssigned: who joins for a topic that was made just before has its
// partitions with the first answer, though the coordinators were not yet told of it.
func TestNewTopicIsAssigned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var behind, held atomic.Bool
		goOn := make(chan struct{})
		r := startRig(t, vfs.NewMem(1), func(o *Options) {
			o.Now = func() time.Time {
				if behind.Load() && calledBy((*coordinators).run) {
					held.Store(true)
					<-goOn
				}
				return time.Now()
			}
		})
		defer r.stop()
		defer close(goOn)
		if err := r.EnsureOffsetsTopic(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		behind.Store(true)
		r.create("t", 1, nil)
		if synctest.Wait(); !held.Load() {
			t.Fatal("the coordinators look at what has changed, and are not to")
		}
		reply := r.ConsumerHeartbeat(t.Context(), &consumergroup.ConsumerHeartbeatRequest{
			Group: "g", MemberID: "m", RebalanceTimeoutMS: 60_000, Topics: []string{"t"},
		})
		if reply.Err != nil || reply.Assignment == nil || len(reply.Assignment.Partitions) != 1 {
			t.Errorf("a member that joins for a topic: %+v", reply)
		}
	})
}

// calledBy reports that the function that called its caller is f.
func calledBy(f any) bool {
	pc, _, _, _ := runtime.Caller(2)
	return runtime.FuncForPC(pc).Name() == runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
}

// TestManyOffsets commits more at once than an entry takes: the journal's files are
// small, and one record is at most a quarter of one.
func TestManyOffsets(t *testing.T) {
	inTunedTrio(t, func(o *Options) { o.OffsetsPartitions = 1 }, func(t *testing.T, tr *trio) {
		u := &groupUser{tr: tr, group: "g"}
		req := &consumergroup.CommitRequest{Group: u.group, Generation: -1, RetentionMS: -1}
		for i := range int32(1000) {
			req.Offsets = append(req.Offsets, consumergroup.CommitOffset{
				Topic: "orders", Partition: i, Offset: 7, LeaderEpoch: -1, Metadata: strings.Repeat("m", 200),
			})
		}
		u.until("commit", func(ctx context.Context, r *rig) *errcode.Error { return r.CommitOffsets(ctx, req).Err })
		if got := u.coordinator().Stats().Groups; got.Offsets != 1000 || got.Decisions < 4 {
			t.Errorf("there are %+v, want 1000 offsets of several decisions", got)
		}
	})
}
