package coordinator

import (
	"bytes"
	"errors"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestToldBefore: what was told before a request came is known when it is decided, also
// where it is asked, before the Runner's goroutine has heard it.
func TestToldBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		tell := func(i int32) {
			r.Tell(consumergroup.NewTopics(int64(i), []consumergroup.TopicInfo{{Name: "t", ID: record.TopicID{1}, Partitions: i}}), nil)
		}
		has := func(i int32, reply *consumergroup.ConsumerHeartbeatReply) bool {
			t.Helper()
			ok := reply.Err == nil && reply.Assignment != nil && len(reply.Assignment.Partitions[0].Partitions) == int(i)
			if !ok {
				t.Errorf("a member with %d partitions: %+v", i, reply)
			}
			return ok
		}
		tell(1)
		req := &consumergroup.ConsumerHeartbeatRequest{Group: "g", MemberID: "m", RebalanceTimeoutMS: 60_000, Topics: []string{"t"}}
		reply := r.ConsumerHeartbeat(t.Context(), req)
		req.RebalanceTimeoutMS, req.Topics = -1, nil
		for i := int32(1); has(i, reply) && i < 100; {
			i++
			req.Epoch = reply.Epoch
			tell(i)
			reply = r.ConsumerHeartbeat(t.Context(), req)
		}
	})
}

// TestHere: a heartbeat is decided in the goroutine that asks, and a request that may go
// deep is not; nor is anything before what is queued.
func TestHere(t *testing.T) {
	var here atomic.Bool // the clock was read where the test has asked
	now := func() time.Time {
		if bytes.Contains(debug.Stack(), []byte("coordinator.beat(")) {
			here.Store(true)
		}
		return time.Now()
	}
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		member := alone(t, r, "g")
		if here.Load() {
			t.Error("joining is decided where it is asked")
		}
		if code := beat(t.Context(), r, "g", member); code != 0 || !here.Swap(false) {
			t.Errorf("a heartbeat is answered %v, and not decided where it is asked", code)
		}
		queued := &call{answer: make(chan any, 1), ask: func(*consumergroup.Coordinator, time.Time, consumergroup.Token, *consumergroup.Decision) bool {
			return true
		}}
		r.calls <- queued // and the Runner's goroutine has not heard of it
		if code := beat(t.Context(), r, "g", member); code != 0 || here.Load() {
			t.Errorf("a heartbeat is answered %v, decided before what was queued: %t", code, here.Load())
		}
	}, func(o *Options) { o.Now = now })
}

// TestPatience has a heartbeat wait in the queue, and another one, which was taken from
// it, for an answer: both are refused in time. The members are there afterwards.
func TestPatience(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		member := alone(t, r, "g")
		ask := func(what string) {
			t.Helper()
			began := time.Now()
			code := beat(t.Context(), r, "g", member)
			if waited := time.Since(began); code != errcode.NotCoordinator || waited != 5*time.Second {
				t.Errorf("%s: answered %v after %v, want NOT_COORDINATOR after 5s", what, code, waited)
			}
		}
		s.proposes(after(8 * time.Second))
		var got answers
		began := time.Now()
		got.ask(t, r, "a")
		ask("behind a proposal")
		got.check(t, "the commit of the proposal", map[string]errcode.Code{"a": errcode.NotCoordinator})
		if waited := time.Since(began); waited != 5*time.Second {
			t.Errorf("it has waited %v, want 5s", waited)
		}
		got.ask(t, r, "b") // with two that wait there is no room
		if n, _ := r.Counts(); n.Parked != 2 {
			t.Errorf("%d replies are parked, there is room for 2", n.Parked)
		}
		ask("in the queue")
		time.Sleep(7 * time.Second)
		if code := beat(t.Context(), r, "g", member); code != 0 {
			t.Errorf("afterwards: %v", code)
		}
		if n, _ := r.Counts(); n.Parked != 0 {
			t.Errorf("%d replies are parked", n.Parked)
		}
	}, func(o *Options) { o.MaxParked, o.Patience = 2, 5*time.Second })
}

// TestEarlier: what is decided where it is asked may have the time decide something
// earlier than the Runner's goroutine waits for.
func TestEarlier(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		alone(t, r, "g")
		synctest.Wait() // its session is waited for, 10 s
		asks := func(c *consumergroup.Coordinator, now time.Time, token consumergroup.Token, out *consumergroup.Decision) bool {
			c.JoinGroup(now, token, joins("new", ""), out)
			return true
		}
		began := time.Now()
		_, ok := r.do(t.Context(), 0, asks, nil)
		if took := time.Since(began); !ok || took != 3*time.Second {
			t.Errorf("the first rebalance of a group is over after %v, %t; want 3s", took, ok)
		}
	}, func(o *Options) { o.Groups.InitialRebalanceDelay = 3 * time.Second })
}

// TestTurns queues more than is decided in a turn, and rouses the Runner's goroutine once.
func TestTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		synctest.Wait()
		all := make([]*call, 3*maxTurn)
		for i := range all {
			all[i] = &call{answer: make(chan any, 1), ask: func(_ *consumergroup.Coordinator, _ time.Time, token consumergroup.Token, out *consumergroup.Decision) bool {
				out.Replies = append(out.Replies, consumergroup.Reply{Token: token, Response: i})
				return true
			}}
			r.calls <- all[i]
		}
		r.rouse()
		synctest.Wait()
		answered := 0
		for _, c := range all {
			answered += len(c.answer)
		}
		if answered != len(all) {
			t.Errorf("%d of %d are answered", answered, len(all))
		}
	}, func(o *Options) { o.Queue = 3 * maxTurn })
}

// TestPanicHere has the clock panic where a heartbeat is asked: that ends the Runner, and
// the heartbeat is refused.
func TestPanicHere(t *testing.T) {
	var broken atomic.Bool
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		member := alone(t, r, "g")
		broken.Store(true)
		code := beat(t.Context(), r, "g", member)
		broken.Store(false)
		synctest.Wait()
		select {
		case <-r.Done():
		default:
			t.Errorf("after a panic the Runner goes on, and has answered %v", code)
			return
		}
		if out := r.Stop(); code != errcode.NotCoordinator || !out.Known || !errors.Is(out.Err, ErrPanicked) {
			t.Errorf("answered %v, ended %+v", code, out)
		}
	}, func(o *Options) {
		o.Now = func() time.Time {
			if broken.Load() && bytes.Contains(debug.Stack(), []byte("coordinator.beat(")) {
				panic("the clock is broken")
			}
			return time.Now()
		}
	})
}
