package broker

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// awaitLeaders has a broker wait for the leaders of a topic, and returns those that it
// names then, and how long that took.
func (r *rig) awaitLeaders(ctx context.Context, topic Topic) (leaders []int32, took time.Duration) {
	r.t.Helper()
	now, err := r.TopicByID(topic.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	began := time.Now()
	r.AwaitLeaders(ctx, slices.Values([]Topic{now}))
	for _, l := range r.leaders(now) {
		leaders = append(leaders, l.Node)
	}
	return leaders, time.Since(began)
}

// TestAwaitLeaders: who asks for leaders just after one was lost is told the next
// ones. Nobody waits while the leaders are there, nor on a node without a majority.
func TestAwaitLeaders(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 6, nil)
		tr.rest(time.Second)
		lost := tr.leader(topic, 0)
		left := tr.others(lost)
		if _, took := left[0].awaitLeaders(t.Context(), topic); took != 0 {
			t.Errorf("with all leaders there the answer took %v", took)
		}

		tr.lose(lost) // and before failover has looked
		for _, r := range left {
			leaders, took := r.awaitLeaders(t.Context(), topic)
			for p, node := range leaders {
				if node < 0 || node == lost.NodeID() {
					t.Errorf("after %v node %d names node %d as the leader of partition %d, which is lost or none", took, r.NodeID(), node, p)
				}
			}
			if took > vacancyPatience/2 {
				t.Errorf("node %d took %v", r.NodeID(), took)
			}
		}

		tr.rest(time.Minute)
		second, last := left[0], left[1]
		if tr.leader(topic, 0) != second {
			second, last = last, second
		}
		tr.lose(second) // and with it the majority, and a leader
		if _, took := last.awaitLeaders(t.Context(), topic); took != 0 {
			t.Errorf("without a majority the answer took %v", took)
		}
	})
}

// TestFindCoordinatorAwaits: so is who asks for the coordinators of groups.
func TestFindCoordinatorAwaits(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		if err := tr.controller().EnsureOffsetsTopic(t.Context()); err != nil {
			t.Fatal(err)
		}
		tr.rest(10 * time.Second)
		find := func(r *rig) (nodes []int32) {
			for i := range 20 { // of several shards
				n, err := r.FindCoordinator(t.Context(), fmt.Sprint("group", i), Listener{Name: ClientListener})
				if err != nil {
					t.Errorf("node %d, group %d: %v", r.NodeID(), i, err)
				}
				nodes = append(nodes, n.ID)
			}
			return nodes
		}
		before := find(tr.controller())
		lost := tr.rigs[before[0]-1]
		left := tr.others(lost)
		tr.lose(lost)
		for _, r := range left {
			if after := find(r); slices.Contains(after, lost.NodeID()) {
				t.Errorf("node %d names node %d, which is lost: %v", r.NodeID(), lost.NodeID(), after)
			}
		}
	})
}

// TestAwaitLeadersBounds: leaders that do not come are waited for until a second
// after the loss, by so many requests at a time, and no longer than who asked waits
// or the broker runs.
func TestAwaitLeadersBounds(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		lost := tr.leader(topic, 0)
		left := tr.others(lost)
		// The two that are left are connected, and nothing that they say arrives.
		tr.hub.Cut(left[0].NodeID(), left[1].NodeID(), true)
		tr.hub.Cut(left[1].NodeID(), left[0].NodeID(), true)
		tr.lose(lost)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, took := left[0].awaitLeaders(ctx, topic); took != 100*time.Millisecond {
			t.Errorf("who waits for 100ms waited for %v", took)
		}
		for range maxVacancyWaits {
			left[0].vacancyWaits <- struct{}{}
		}
		if _, took := left[0].awaitLeaders(t.Context(), topic); took != 0 {
			t.Errorf("one more than may wait waited for %v", took)
		}
		for range maxVacancyWaits {
			<-left[0].vacancyWaits
		}
		if _, took := left[0].awaitLeaders(t.Context(), topic); took < vacancyPatience/2 || took > vacancyPatience {
			t.Errorf("100ms after the loss it took %v, want until %v after", took, vacancyPatience)
		}
		if _, took := left[0].awaitLeaders(t.Context(), topic); took > handoverPatience { // it may have heard of the loss from Raft alone
			t.Errorf("after that it took %v", took)
		}
		if _, took := left[0].awaitLeaders(t.Context(), topic); took != 0 {
			t.Errorf("long after the loss it took %v", took)
		}
		for _, cut := range []bool{false, true} { // or they take each other for lost by now
			tr.hub.Cut(left[0].NodeID(), left[1].NodeID(), cut)
			tr.hub.Cut(left[1].NodeID(), left[0].NodeID(), cut)
		}
		b := left[1]
		done := make(chan time.Duration)
		b.failover.lost.mu.Lock()
		b.failover.lost.at[lost.NodeID()] = time.Now() // it was there again, and went
		b.failover.lost.mu.Unlock()
		go func() { _, took := b.awaitLeaders(context.Background(), topic); done <- took }()
		tr.rest(50 * time.Millisecond)
		b.stop()
		if took := <-done; took != 50*time.Millisecond {
			t.Errorf("the broker stopped after 50ms, and it took %v", took)
		}
	})
}

// TestLosses: a node is lost when there was a way to it, for so long, and again when
// it comes back and goes.
func TestLosses(t *testing.T) {
	l, there, now := newLosses(), false, time.Unix(1_000_000_000, 0)
	for i, step := range []struct {
		there bool
		after time.Duration
		lost  bool
	}{
		{false, 0, false}, // not reached yet
		{true, time.Second, false},
		{false, time.Second, true},
		{false, vacancyPatience - 1, true},
		{false, 1, false},
		{true, time.Hour, false},
		{false, time.Hour, true},
		{true, 1, true}, // its shards have no leader yet, perhaps
	} {
		there, now = step.there, now.Add(step.after)
		got := l.note(now, slices.Values([]int32{7}), func(int32) bool { return there })
		if got != step.lost || l.recent(now, 7) != got {
			t.Errorf("step %d: lost %t, recent %t, want %t", i, got, l.recent(now, 7), step.lost)
		}
	}
}

// unaware are a node's Peers that take another one to be there until they call it.
type unaware struct {
	transport.Peers
	node   atomic.Int32 // 0: no other one
	called atomic.Int32
}

func (u *unaware) Connected(node int32) bool {
	return u.Peers.Connected(node) || node == u.node.Load() && u.called.Load() == 0
}

func (u *unaware) Call(ctx context.Context, node int32, m transport.Method, payload []byte) ([]byte, error) {
	answer, err := u.Peers.Call(ctx, node, m, payload)
	if node == u.node.Load() && m == methodAlive {
		u.called.Add(1)
	}
	return answer, err
}

// TestAwaitLeadersAsks: a client may hear of a leader's end before the node does that it
// asks for the next one.
func TestAwaitLeadersAsks(t *testing.T) {
	tune := func(o *Options) { o.Cluster.Peers = &unaware{Peers: o.Cluster.Peers} }
	inTunedTrio(t, tune, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 6, nil)
		tr.rest(time.Second)
		lost := tr.leader(topic, 0)
		r := tr.others(lost)[0]
		u := r.opt.Cluster.Peers.(*unaware)
		u.node.Store(lost.NodeID())
		tr.lose(lost)
		leaders, took := r.awaitLeaders(t.Context(), topic)
		if slices.Contains(leaders, lost.NodeID()) || slices.Contains(leaders, -1) {
			t.Errorf("after %v node %d names %v as leaders, and node %d is lost", took, r.NodeID(), leaders, lost.NodeID())
		}
		if u.called.Load() != 1 {
			t.Errorf("the lost node was called %d times for one request", u.called.Load())
		}
	})
}

// TestAwaitLeadersSilent: a leader that is there and silent is waited for a moment.
func TestAwaitLeadersSilent(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 6, nil)
		tr.rest(time.Second)
		silent := tr.leader(topic, 0)
		r := tr.others(silent)[0]
		tr.hub.Cut(silent.NodeID(), r.NodeID(), true)
		tr.hub.Cut(r.NodeID(), silent.NodeID(), true)
		if _, took := r.awaitLeaders(t.Context(), topic); took > 2*aliveTimeout {
			t.Errorf("it took %v, want at most %v", took, 2*aliveTimeout)
		}
		ctx, cancel := context.WithTimeout(t.Context(), aliveTimeout/4)
		defer cancel()
		if _, took := r.awaitLeaders(ctx, topic); took > aliveTimeout/4 {
			t.Errorf("who waits for %v waited for %v", aliveTimeout/4, took)
		}
	})
}

// overlooked is Peers without a way to one node, which says nothing about it: as that
// to a node that stands still is until its silence is noticed.
type overlooked struct {
	transport.Peers
	node atomic.Int32
}

func (o *overlooked) Connected(node int32) bool {
	return node != o.node.Load() && o.Peers.Connected(node)
}

// TestAwaitLeadersStandsStill: who asks when a leader has just been silent for too long
// has the others take over from it.
func TestAwaitLeadersStandsStill(t *testing.T) {
	tune := func(o *Options) { o.Cluster.Peers = &overlooked{Peers: o.Cluster.Peers} }
	inTunedTrio(t, tune, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 6, nil)
		tr.rest(time.Second)
		still := tr.leader(topic, 0)
		left := tr.others(still)
		for _, r := range left {
			tr.hub.Cut(still.NodeID(), r.NodeID(), true)
			tr.hub.Cut(r.NodeID(), still.NodeID(), true)
		}
		tr.rest(10 * time.Millisecond)
		for _, r := range left {
			r.opt.Cluster.Peers.(*overlooked).node.Store(still.NodeID())
		}
		leaders, took := left[0].awaitLeaders(t.Context(), topic)
		if slices.Contains(leaders, still.NodeID()) || slices.Contains(leaders, -1) || took > vacancyPatience/2 {
			t.Errorf("after %v node %d names %v as leaders, and node %d stands still", took, left[0].NodeID(), leaders, still.NodeID())
		}
	})
}

// TestSigns: a sign of life that was asked for before is none, and those who want one
// meanwhile share the next.
func TestSigns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, answers := 0, make(chan struct{})
		s := newSigns(func(context.Context, int32) {
			calls++
			<-answers
		}, func(run func()) { go run() })
		given := func(c <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		first := s.of(7)
		synctest.Wait()
		second, third := s.of(7), s.of(7)
		answers <- struct{}{}
		if !given(first) || given(second) {
			t.Error("the answer to the first call is to be a sign for who came before it, alone")
		}
		answers <- struct{}{}
		if !given(second) || !given(third) || calls != 2 {
			t.Errorf("%d calls, want 2: who comes during one shares the next", calls)
		}
		if len(s.next)+len(s.under) != 0 {
			t.Error("something is left of calls that have ended")
		}
	})
}
