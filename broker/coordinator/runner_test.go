package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestGathers commits while a proposal is under way: the commits that come meanwhile are
// one proposal, and each is answered when its own records are applied.
func TestGathers(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		s.proposes(after(10 * time.Millisecond))
		var got answers
		ask := func(group string) { got.ask(t, r, group) }
		ask("a")
		ask("b")
		ask("c")
		got.check(t, "nothing applied", nil)
		time.Sleep(10 * time.Millisecond)
		got.check(t, "one applied", map[string]errcode.Code{"a": 0})
		if s.offset("b") != -1 {
			t.Error("the second was applied with the first")
		}
		time.Sleep(10 * time.Millisecond)
		got.check(t, "both applied", map[string]errcode.Code{"a": 0, "b": 0, "c": 0})
		if got, want := s.proposals(), []int{1, 2}; !slices.Equal(got, want) {
			t.Errorf("proposals of %v records, want %v", got, want)
		}
	})
}

// TestExtends commits while a proposal waits for its turn in the log: what comes is added
// to it, up to a bound, and as soon as it has its turn no more. Nothing is answered before it is
// applied.
func TestExtends(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		most := 0 // bytes that a proposal was extended to
		extend := func(rs []record.Record) bool {
			bytes := 0
			for _, rec := range rs {
				bytes += bytesOf(rec)
			}
			most = max(most, bytes)
			return true
		}
		s.extends(extend)
		s.proposes(after(10 * time.Millisecond))
		var got answers
		ask := func(group string) { got.ask(t, r, group) }
		ask("a")
		ask("b")
		ask("c")
		s.extends(func([]record.Record) bool { return false })
		ask("d")
		ask("e")
		got.check(t, "nothing applied", nil)
		time.Sleep(10 * time.Millisecond)
		got.check(t, "what waited together is applied", map[string]errcode.Code{"a": 0, "b": 0, "c": 0})
		time.Sleep(10 * time.Millisecond)
		got.check(t, "all", map[string]errcode.Code{"a": 0, "b": 0, "c": 0, "d": 0, "e": 0})
		if got, want := s.proposals(), []int{3, 2}; !slices.Equal(got, want) {
			t.Errorf("proposals of %v records, want %v", got, want)
		}

		s.extends(extend)
		for i := range 100 {
			ask(fmt.Sprint("many", i))
		}
		if most > maxExtendBytes || most < maxExtendBytes/2 {
			t.Errorf("a proposal was extended to %d bytes, want about %d and no more", most, maxExtendBytes)
		}
	})
}

// TestRefusedAmongOthers has a commit refused that is decided together with others: they
// are one proposal without it, and succeed.
func TestRefusedAmongOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		s.proposes(after(10 * time.Millisecond))
		var got answers
		ask := func(group string, generation int32) {
			req := commits(group, 1)
			req.Generation = generation
			go func() {
				reply := r.CommitOffsets(t.Context(), req)
				err := reply.Err
				if err == nil {
					err = reply.Offsets[0]
				}
				code := errcode.None
				if err != nil {
					code = err.Code
				}
				got.add(group, code)
			}()
			synctest.Wait()
		}
		ask("first", -1)
		ask("a", -1)
		ask("wrong", 5)
		ask("b", -1)
		time.Sleep(20 * time.Millisecond)
		got.check(t, "all", map[string]errcode.Code{"first": 0, "a": 0, "b": 0, "wrong": errcode.IllegalGeneration})
		if got, want := s.proposals(), []int{1, 2}; !slices.Equal(got, want) {
			t.Errorf("proposals of %v records, want %v", got, want)
		}
		if s.offset("wrong") != -1 {
			t.Error("what was refused is applied")
		}
	})
}

// TestWaitsForThoseBefore has a request that decides no record told what one before it
// has decided: it is answered with that, not before.
func TestWaitsForThoseBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		member := alone(t, r, "g")
		s.proposes(after(10 * time.Millisecond))
		var got answers
		go func() { got.add("commit", commit(t.Context(), r, "other", 1)) }()
		synctest.Wait()
		go func() { got.add("beat", beat(t.Context(), r, "g", member)) }()
		go func() {
			_, code := fetch(t.Context(), r, "other")
			got.add("fetch", code)
		}()
		got.check(t, "under way", nil)
		time.Sleep(10 * time.Millisecond)
		got.check(t, "applied", map[string]errcode.Code{"commit": 0, "beat": 0, "fetch": 0})
		start := time.Now()
		if code := beat(t.Context(), r, "g", member); code != 0 || time.Since(start) != 0 {
			t.Errorf("a heartbeat with nothing under way: %v, after %v", code, time.Since(start))
		}
	})
}

// TestReadsAreConfirmed asks for offsets while a majority is asked: the question that is
// under way is not for who came later, and the next one is for all of them.
func TestReadsAreConfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		var fail error
		s.confirm = func(ctx context.Context) error {
			time.Sleep(10 * time.Millisecond)
			return fail
		}
		var got answers
		ask := func(name string) {
			go func() {
				_, code := fetch(t.Context(), r, name)
				got.add(name, code)
			}()
			synctest.Wait()
		}
		ask("a")
		time.Sleep(5 * time.Millisecond)
		ask("b")
		ask("c")
		got.check(t, "asked", nil)
		time.Sleep(5 * time.Millisecond)
		got.check(t, "the first question is answered", map[string]errcode.Code{"a": 0})
		time.Sleep(10 * time.Millisecond)
		got.check(t, "the second one is", map[string]errcode.Code{"a": 0, "b": 0, "c": 0})
		if s.asked != 2 {
			t.Errorf("a majority was asked %d times, want 2", s.asked)
		}

		fail = errLost
		ask("d")
		time.Sleep(10 * time.Millisecond)
		got.check(t, "nobody has agreed", map[string]errcode.Code{"a": 0, "b": 0, "c": 0, "d": errcode.NotCoordinator})
		if code := commit(t.Context(), r, "e", 1); code != 0 {
			t.Errorf("a commit after that: %v", code)
		}

		// A majority agrees before what is told is applied.
		fail = nil
		s.proposes(after(50 * time.Millisecond))
		go func() { got.add("f", commit(t.Context(), r, "f", 3)) }()
		synctest.Wait()
		go func() {
			offset, code := fetch(t.Context(), r, "f")
			if offset != 3 || s.offset("f") != 3 {
				t.Errorf("fetched %d, and applied is %d, want 3", offset, s.offset("f"))
			}
			got.add("fetch", code)
		}()
		time.Sleep(20 * time.Millisecond)
		got.check(t, "confirmed, not applied", map[string]errcode.Code{"a": 0, "b": 0, "c": 0, "d": errcode.NotCoordinator})
		time.Sleep(30 * time.Millisecond)
		got.check(t, "both", map[string]errcode.Code{"a": 0, "b": 0, "c": 0, "d": errcode.NotCoordinator, "f": 0, "fetch": 0})
	})
}

// TestEnds ends a Runner with requests in each place that they can be in, and checks
// that all are refused, once, and what its successor may rely on.
func TestEnds(t *testing.T) {
	var release chan struct{}
	var panics bool // the clock
	tests := []struct {
		name string
		end  func(s *script, r *Runner) // with the proposal of number 3 under way
		// What comes of that proposal.
		apply bool
		err   error
		want  Outcome // without Err
		is    error   // that Err matches; nil: Err is nil
	}{
		{
			name: "refused", end: func(*script, *Runner) { close(release) },
			err: fmt.Errorf("%w: no room", ErrRefused), want: Outcome{Known: true, Number: 2}, is: ErrRefused,
		},
		{name: "not known, and not applied", end: func(*script, *Runner) { close(release) }, err: errLost, want: Outcome{Number: 2}, is: errLost},
		{
			name: "not known, and applied", end: func(*script, *Runner) { close(release) },
			apply: true, err: errLost, want: Outcome{Number: 2}, is: errLost,
		},
		{name: "stopped", end: func(_ *script, r *Runner) { go r.Stop() }, want: Outcome{Number: 2}},
		{
			name: "a panic, and then applied", apply: true, want: Outcome{Known: true, Number: 3}, is: ErrPanicked,
			end: func(_ *script, r *Runner) {
				panics = true
				r.Tell(consumergroup.NewTopics(1, nil), nil)
				synctest.Wait()
				close(release)
			},
		},
		{
			name: "a panic, and then refused", err: ErrRefused, want: Outcome{Known: true, Number: 2}, is: ErrPanicked,
			end: func(_ *script, r *Runner) {
				panics = true
				r.Tell(consumergroup.NewTopics(1, nil), nil)
				synctest.Wait()
				close(release)
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(t)
				release = make(chan struct{})
				r := s.start(func(o *Options) {
					o.MaxParked = 3
					o.Now = func() time.Time {
						if panics {
							panic("the clock is broken")
						}
						return time.Now()
					}
				})
				member := alone(t, r, "g")
				if code := commit(t.Context(), r, "a", 1); code != 0 {
					t.Fatal(code)
				}
				s.propose = func(ctx context.Context, number uint64, _ []record.Record) (bool, error) {
					if number != 3 {
						return true, nil
					}
					select {
					case <-release:
						return tt.apply, tt.err
					case <-ctx.Done():
						return false, ctx.Err()
					}
				}
				s.confirm = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
				var got answers
				want := make(map[string]errcode.Code)
				ask := func(name string, ask func(context.Context, *Runner) errcode.Code) {
					go func() { got.add(name, ask(t.Context(), r)) }()
					want[name] = errcode.NotCoordinator
					synctest.Wait()
				}
				ask("held", func(ctx context.Context, r *Runner) errcode.Code { // the member does not join again
					return r.JoinGroup(ctx, joins("g", "")).Err.Code
				})
				ask("proposed", func(ctx context.Context, r *Runner) errcode.Code { return commit(ctx, r, "b", 1) })
				ask("read", func(ctx context.Context, r *Runner) errcode.Code { _, code := fetch(ctx, r, "b"); return code })
				ask("gathered", func(ctx context.Context, r *Runner) errcode.Code { return commit(ctx, r, "c", 1) })
				ask("queued", func(ctx context.Context, r *Runner) errcode.Code { return beat(ctx, r, "g", member) })
				got.check(t, "before", nil)
				tt.end(s, r)
				got.check(t, "after", want)
				for name, code := range map[string]errcode.Code{"beat": beat(t.Context(), r, "g", member), "of none": beat(t.Context(), nil, "g", member)} {
					if code != errcode.NotCoordinator {
						t.Errorf("%s: %v", name, code)
					}
				}
				out := r.Stop()
				if out.Known != tt.want.Known || out.Number != tt.want.Number || !errors.Is(out.Err, tt.is) {
					t.Errorf("outcome known %t, of decision %d, error as wanted %t; want %t, %d and %v",
						out.Known, out.Number, errors.Is(out.Err, tt.is), tt.want.Known, tt.want.Number, tt.is)
				}
				if !out.Known {
					return
				}
				s.proposes(nil)
				s.confirms(nil)
				panics = false
				next := s.start(func(o *Options) { o.Number = out.Number })
				if code := beat(t.Context(), next, "g", member); code != 0 {
					t.Errorf("the member's heartbeat to the successor: %v", code)
				}
				if code := commit(t.Context(), next, "d", 5); code != 0 || s.offset("d") != 5 {
					t.Errorf("a commit to the successor: %v, applied is %d", code, s.offset("d"))
				}
				next.Stop()
			})
		})
	}
}

// TestGone ends the connections of requests, before and after they are decided.
func TestGone(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		member := alone(t, r, "g")
		newcomer, leave := context.WithCancel(t.Context())
		var got answers
		go func() { got.add("newcomer", r.JoinGroup(newcomer, joins("g", "")).Err.Code) }()
		synctest.Wait()
		if code := beat(t.Context(), r, "g", member); code != errcode.RebalanceInProgress {
			t.Errorf("while one joins: %v", code)
		}
		leave()
		got.check(t, "left", map[string]errcode.Code{"newcomer": errcode.NotCoordinator})
		again := r.JoinGroup(t.Context(), joins("g", member.MemberID))
		if again.Err != nil || len(again.Members) != 1 {
			t.Errorf("the group after that: %+v", again)
		}

		// With no room for decisions, what is left is not decided at all.
		s.proposes(after(10 * time.Millisecond))
		go commit(t.Context(), r, "a", 1)
		synctest.Wait()
		queued, leave := context.WithCancel(t.Context())
		go func() { got.add("queued", commit(queued, r, "b", 1)) }()
		synctest.Wait()
		leave()
		time.Sleep(time.Second)
		got.check(t, "left the queue", map[string]errcode.Code{"newcomer": errcode.NotCoordinator, "queued": errcode.NotCoordinator})
		if s.offset("a") != 1 || s.offset("b") != -1 {
			t.Errorf("offsets applied: %d, %d; want 1 and none", s.offset("a"), s.offset("b"))
		}
	}, func(o *Options) { o.MaxParked = 1 })
}

// TestStallKeepsSessions has no proposal applied for longer than a session: members
// whose heartbeats came in time, and waited, are there afterwards, and who sent none is not.
func TestStallKeepsSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		well, silent := alone(t, r, "well"), alone(t, r, "silent")
		s.proposes(after(time.Minute))
		go commit(t.Context(), r, "a", 1)
		synctest.Wait()
		time.Sleep(9 * time.Second)
		var got answers
		go func() { got.add("beat", beat(t.Context(), r, "well", well)) }()
		time.Sleep(30 * time.Second)
		got.check(t, "in the stall", nil)
		s.proposes(nil) // the next ones are applied at once
		time.Sleep(21 * time.Second)
		got.check(t, "after it", map[string]errcode.Code{"beat": 0})
		if code := beat(t.Context(), r, "silent", silent); code != errcode.UnknownMemberID {
			t.Errorf("the silent member: %v", code)
		}
		if code := beat(t.Context(), r, "well", well); code != 0 {
			t.Errorf("the other: %v", code)
		}
	}, func(o *Options) { o.MaxParked, o.Patience = 1, time.Hour })
}

// TestBehindIsBounded commits while nothing is applied.
func TestBehindIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		s.proposes(after(time.Minute))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if code := commit(t.Context(), r, fmt.Sprint("g", i), 1); code != 0 {
					t.Errorf("commit %d: %v", i, code)
				}
			})
		}
		synctest.Wait()
		n, ok := r.Counts()
		if !ok || n.Parked < 3 || n.Parked > 10 {
			t.Errorf("%d replies are parked, want as many as 500 bytes of records have: %t", n.Parked, ok)
		}
		wg.Wait()
		if n, _ := r.Counts(); n.Groups.Offsets != 50 || n.Parked != 0 {
			t.Errorf("in the end %+v", n)
		}
	}, func(o *Options) { o.MaxBehindBytes, o.Patience = 500, time.Hour })
}

// TestCutsDecisions deletes a group with many offsets: the records are cut into several
// proposals, and the answer comes with the last.
func TestCutsDecisions(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		req := commits("g", 1)
		for i := range int32(100) {
			req.Offsets = append(req.Offsets, consumergroup.CommitOffset{Topic: "u", Partition: i, Offset: 5, LeaderEpoch: -1})
		}
		if reply := r.CommitOffsets(t.Context(), req); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		before := len(s.proposals())
		s.proposes(after(time.Millisecond))
		start := time.Now()
		reply := r.DeleteGroups(t.Context(), []string{"g"})
		cut := s.proposals()[before:]
		if reply.Groups[0].Err != nil || len(cut) < 4 || time.Since(start) != time.Duration(len(cut))*time.Millisecond {
			t.Errorf("%v, after %v and proposals of %v records", reply.Groups[0].Err, time.Since(start), cut)
		}
		if s.offset("g") != -1 {
			t.Error("it is still there")
		}
	}, func(o *Options) { o.MaxProposalBytes = 1000 })
}

// TestTold tells topics: of several that come at once the last ones count, and offsets
// of those that were deleted are forgotten, whenever they were told of.
func TestTold(t *testing.T) {
	inBubble(t, func(t *testing.T, s *script, r *Runner) {
		id := func(b byte) record.TopicID { return record.TopicID{b} }
		heartbeat := func(epoch int32) *consumergroup.ConsumerHeartbeatReply {
			req := &consumergroup.ConsumerHeartbeatRequest{Group: "g", MemberID: "m", Epoch: epoch, RebalanceTimeoutMS: -1}
			if epoch == 0 {
				req.RebalanceTimeoutMS, req.Topics = 60_000, []string{"t"}
			}
			return r.ConsumerHeartbeat(t.Context(), req)
		}
		if reply := heartbeat(0); reply.Err == nil || reply.Err.Code != errcode.CoordinatorLoadInProgress {
			t.Errorf("before any topics are known: %+v", reply)
		}
		for _, name := range []string{"t", "u", "v"} {
			req := commits(name, 1)
			req.Offsets[0].Topic, req.Offsets[0].TopicID = name, id(name[0])
			if reply := r.CommitOffsets(t.Context(), req); reply.Err != nil {
				t.Fatal(reply.Err)
			}
		}
		one := consumergroup.NewTopics(1, []consumergroup.TopicInfo{{Name: "t", ID: id('t'), Partitions: 1}})
		two := consumergroup.NewTopics(2, []consumergroup.TopicInfo{{Name: "t", ID: id('t'), Partitions: 2}})
		r.Tell(one, []consumergroup.Topic{{Name: "u", ID: id('u')}})
		r.Tell(two, []consumergroup.Topic{{Name: "v", ID: id('v')}})
		synctest.Wait()
		reply := heartbeat(0)
		if reply.Err != nil || reply.Assignment == nil || len(reply.Assignment.Partitions[0].Partitions) != 2 {
			t.Errorf("a member that joins: %+v", reply)
		}
		time.Sleep(time.Second) // the sweep
		var names []string
		_ = s.Groups(func(g *consumergroup.Groups) {
			for _, topic := range g.Topics() {
				names = append(names, topic.Name)
			}
		})
		if !slices.Equal(names, []string{"t"}) {
			t.Errorf("offsets of %v are left, want of t", names)
		}
	})
}

// TestTimeDoesNotGoBack has the clock do so.
func TestTimeDoesNotGoBack(t *testing.T) {
	var back atomic.Int64
	inBubble(t, func(t *testing.T, _ *script, r *Runner) {
		member := alone(t, r, "g")
		back.Store(int64(time.Hour))
		for range 3 {
			if code := beat(t.Context(), r, "g", member); code != 0 {
				t.Errorf("an hour back: %v", code)
			}
			time.Sleep(time.Minute)
		}
	}, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) } })
}

func TestStartRefuses(t *testing.T) {
	if _, err := Start(Options{Groups: consumergroup.DefaultOptions()}); !errors.Is(err, consumergroup.ErrOptions) {
		t.Errorf("Start without a source of ids: %v", err)
	}
}
