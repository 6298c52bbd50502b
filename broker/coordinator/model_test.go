package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// world is a log that is slow, refuses, and loses terms, with those who ask a
// coordinator, and somebody who starts the next one.
type world struct {
	*script
	seed uint64

	mu        sync.Mutex
	rand      *rand.Rand
	runner    *Runner
	calm      bool // nothing goes wrong any more
	clock     int  // counts events
	confirmed int  // when the newest question began to which a majority agreed

	answered map[errcode.Code]int
}

// TestModel has many ask at once while all that can go wrong does, and checks each
// answer against what is applied at that moment:
//   - a commit that succeeds is applied, and what is fetched is what was committed last,
//     or what was tried since and may have been,
//   - what is fetched was confirmed by a question that was asked after the fetch,
//   - an assignment is told after it is applied, and to whom it is meant for,
//   - each call returns, and the decided state is the applied one in the end.
func TestModel(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 30
	}
	all := make(map[errcode.Code]int)
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := &world{script: newScript(t), seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), answered: all}
			w.run()
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if all[errcode.None] < 1000 || all[errcode.NotCoordinator] < 100 {
		t.Errorf("answers %v: want many of NONE, and of NOT_COORDINATOR", all)
	}
}

func (w *world) run() {
	w.script.propose, w.script.confirm = w.slowly, w.ask
	w.script.extend = func([]record.Record) bool { return w.n(2) == 0 }
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(w.t.Context())
	w.runner = w.begin()
	wg.Go(func() { w.restart(ctx) })
	var clients sync.WaitGroup
	for i := range 5 {
		clients.Go(func() { w.commits(fmt.Sprint("solo", i)) })
		clients.Go(func() { w.member("both", w.n(2) == 0) })
	}
	clients.Wait()
	w.locked(func() { w.calm = true })
	time.Sleep(time.Minute)
	r := w.current()
	decided, ok := r.do(ctx, 0, nil, func(c *consumergroup.Coordinator, _ time.Time, token consumergroup.Token, out *consumergroup.Decision) bool {
		out.Replies = append(out.Replies, consumergroup.Reply{Token: token, Response: c.Decided().Hash()})
		return true
	})
	_ = w.Groups(func(g *consumergroup.Groups) {
		if !ok || decided != g.Hash() {
			w.t.Errorf("decided %v, %t; applied %v", decided, ok, g.Hash())
		}
	})
	cancel()
	wg.Wait()
	w.current().Stop()
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// n returns a number below n.
func (w *world) n(n int) (got int) {
	w.locked(func() { got = w.rand.IntN(n) })
	return got
}

// sometimes is true once in n times, until all is calm.
func (w *world) sometimes(n int) (yes bool) {
	w.locked(func() { yes = !w.calm && w.rand.IntN(n) == 0 })
	return yes
}

func (w *world) current() (r *Runner) {
	w.locked(func() { r = w.runner })
	return r
}

func (w *world) rest(most int) { time.Sleep(time.Duration(w.n(most)) * time.Millisecond) }

// begin starts a Runner, sometimes with bounds that are met all the time.
func (w *world) begin() *Runner {
	return w.start(func(o *Options) {
		if w.n(2) == 0 {
			o.MaxParked, o.MaxBehindBytes, o.MaxProposalBytes, o.Queue = 1+w.n(3), 300, 100, 1
		}
	})
}

// restart starts the next Runner when one has ended: in the same term if all
// outcomes are known, else in the next.
func (w *world) restart(ctx context.Context) {
	for {
		r := w.current()
		select {
		case <-r.Done():
		case <-ctx.Done():
			return
		}
		out := r.Stop()
		w.script.mu.Lock()
		if !out.Known {
			w.term++
			w.number = 0
		} else if out.Number != w.number {
			w.t.Errorf("known to be applied up to %d, and %d is", out.Number, w.number)
		}
		w.script.mu.Unlock()
		w.rest(10)
		next := w.begin()
		w.locked(func() { w.runner = next })
	}
}

// slowly is how proposals fare.
func (w *world) slowly(ctx context.Context, _ uint64, _ []record.Record) (bool, error) {
	w.rest(5)
	switch {
	case w.sometimes(40):
		return false, fmt.Errorf("%w: no room", ErrRefused)
	case w.sometimes(60):
		return w.n(2) == 0, errLost
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	return true, nil
}

// ask is how questions to the majority fare.
func (w *world) ask(context.Context) error {
	var began int
	w.locked(func() { w.clock++; began = w.clock })
	w.rest(5)
	if w.sometimes(10) {
		return errors.New("nobody agrees")
	}
	w.locked(func() { w.confirmed = max(w.confirmed, began) })
	return nil
}

// patience ends some calls before they are answered.
func (w *world) patience() (context.Context, context.CancelFunc) {
	if w.sometimes(10) {
		return context.WithTimeout(w.t.Context(), time.Duration(w.n(8))*time.Millisecond)
	}
	return context.WithCancel(w.t.Context())
}

// note counts an answer, and reports whether it is a success.
func (w *world) note(err *errcode.Error) bool {
	code := errcode.None
	if err != nil {
		code = err.Code
	}
	w.locked(func() { w.answered[code]++ })
	return err == nil
}

// commits commits ever greater offsets for a group that is its own, and fetches them.
func (w *world) commits(group string) {
	acked, tried := int64(-1), int64(-1)
	for range 20 + w.n(20) {
		w.rest(4)
		ctx, cancel := w.patience()
		if w.n(2) == 0 {
			tried++
			reply := w.current().CommitOffsets(ctx, commits(group, tried))
			if w.note(reply.Err) {
				acked = tried
				if got := w.offset(group); got != tried {
					w.t.Errorf("%s: %d was committed, and %d is applied", group, tried, got)
				}
			}
		} else {
			var began, confirmed int
			w.locked(func() { w.clock++; began = w.clock })
			reply := w.current().FetchOffsets(ctx, &consumergroup.FetchRequest{Group: group, Partitions: []consumergroup.FetchPartition{{Topic: "t"}}})
			w.locked(func() { confirmed = w.confirmed })
			if w.note(reply.Err) {
				got := reply.Offsets[0].Offset
				if got < acked || got > tried || got != w.offset(group) {
					w.t.Errorf("%s: fetched %d; acknowledged is %d, tried %d, applied %d", group, got, acked, tried, w.offset(group))
				}
				if confirmed < began {
					w.t.Errorf("%s: fetched without a majority's word: asked for at %d, and the newest question is of %d", group, began, confirmed)
				}
				acked = got // it is not to go back from there
			}
		}
		cancel()
	}
}

// member joins a group, has what it is assigned for a while, and leaves or is lost.
func (w *world) member(group string, leaves bool) {
	id := ""
	for range 6 {
		w.rest(20)
		ctx, cancel := w.patience()
		join := w.current().JoinGroup(ctx, joins(group, id))
		cancel()
		if !w.note(join.Err) {
			id = ""
			continue
		}
		id = join.MemberID
		req := &consumergroup.SyncRequest{Group: group, MemberID: id, Generation: join.Generation}
		for _, m := range join.Members {
			req.Assignments = append(req.Assignments, consumergroup.Assignment{MemberID: m.MemberID, Bytes: []byte(m.MemberID)})
		}
		ctx, cancel = w.patience()
		sync := w.current().SyncGroup(ctx, req)
		cancel()
		if w.note(sync.Err) {
			if string(sync.Assignment) != id {
				w.t.Errorf("%s is told what %q is assigned", id, sync.Assignment)
			}
			if got := w.generation(group); got < join.Generation {
				w.t.Errorf("%s has an assignment of generation %d, and %d is applied", id, join.Generation, got)
			}
		}
		for range w.n(4) {
			w.rest(3)
			w.note(w.current().HeartbeatGroup(w.t.Context(), &consumergroup.HeartbeatRequest{Group: group, MemberID: id, Generation: join.Generation}).Err)
		}
	}
	if leaves {
		w.current().LeaveGroup(w.t.Context(), &consumergroup.LeaveRequest{Group: group, Members: []consumergroup.LeaveMember{{MemberID: id}}})
	}
}

// generation returns that of the group's record which is applied.
func (w *world) generation(group string) (generation int32) {
	generation = -1
	_ = w.Groups(func(g *consumergroup.Groups) {
		for r := range g.All {
			e, err := record.Decode(r.Key, r.Value)
			if m, ok := e.(*record.GroupMetadata); err == nil && ok && m.Group == group {
				generation = m.Value.Generation
			}
		}
	})
	return generation
}
