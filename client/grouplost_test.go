package client

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// TestGroupLost: a member that is silent for a session learns that others have its
// partitions, commits nothing more, and joins again.
func TestGroupLost(t *testing.T) {
	inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
		o := newOwnership(t)
		a := f.works(t, o, "a", func(cfg *GroupConfig) { cfg.CommitInterval = time.Hour })
		a.next(10)
		f.hook(func() {
			f.groups.onGroup = func(_ int32, req proto.Message) fault {
				if m, ok := req.(*pb.GroupHeartbeatRequest); ok && m.MemberId == a.MemberID() {
					return loseRequest
				}
				return noFault
			}
		})
		time.Sleep(time.Minute)
		o.mu.Lock() // the coordinator has given them away: what a has heard is for later
		clear(o.by)
		o.mu.Unlock()
		b := f.works(t, o, "b")
		b.next(200)
		if err := a.Commit(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("a commits: %v, want that it is lost", err)
		}
		if err := a.CommitOffsets(t.Context(), map[TopicPartition]int64{{"a", 0}: 10}); !errors.Is(err, ErrLost) {
			t.Errorf("a commits an offset: %v, want that it is lost", err)
		}
		f.hook(func() { f.groups.onGroup = nil })
		if got := f.committed(t); len(got) > 0 && (got[0] == 10 || got[1] == 10) {
			t.Errorf("committed %v by a member that is lost", got)
		}
		b.run(t.Context(), 0)
		f.fill("a", 0, 100, 110, 5, batch.None)
		f.fill("a", 1, 100, 110, 5, batch.None)
		ctx, cancel := context.WithCancel(t.Context())
		a.run(ctx, 0)
		time.Sleep(time.Minute)
		if got := a.heard(); len(got) < 3 || got[0] != "assigned2" || got[1] != "lost2" || got[2] != "assigned1" {
			t.Errorf("a heard %v, want that it has lost both partitions, and one that it has again", got)
		}
		cancel()
		<-a.ended
		a.leaves()
		b.leaves()
	})
}

// TestGroupCommitsNothingWhenLost: a member that has heard by a heartbeat that it is
// lost is told so when it commits, the first time as well: nothing is committed of what
// it has worked off. It is of no epoch until it has joined again.
func TestGroupCommitsNothingWhenLost(t *testing.T) {
	inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
		a := f.works(t, newOwnership(t), "a", func(cfg *GroupConfig) { cfg.CommitInterval = -1 })
		a.next(10)
		if epoch := a.MemberEpoch(); epoch <= 0 {
			t.Errorf("epoch %d", epoch)
		}
		f.hook(func() {
			f.groups.onGroup = func(_ int32, req proto.Message) fault {
				if _, ok := req.(*pb.GroupHeartbeatRequest); ok {
					return loseRequest
				}
				return noFault
			}
		})
		time.Sleep(time.Minute) // longer than a session
		f.hook(func() { f.groups.onGroup = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if epoch := a.MemberEpoch(); epoch != 0 {
			t.Errorf("lost, and of epoch %d", epoch)
		}
		if err := a.Commit(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("Commit: %v, want that the member is lost", err)
		}
		if got := f.committed(t); len(got) > 0 {
			t.Errorf("committed %v by a member that is lost", got)
		}
		a.leaves()
	})
}

// TestGroupHearsNothing: a member that the coordinator does not answer for a session stops
// by itself, as nobody can tell it that others have its partitions.
func TestGroupHearsNothing(t *testing.T) {
	for name, silence := range map[string]fault{"the answers are lost": loseResponse, "nobody answers": hang} {
		t.Run(name, func(t *testing.T) {
			inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
				o := newOwnership(t)
				a := f.works(t, o, "a", func(cfg *GroupConfig) { cfg.CommitInterval = time.Hour })
				a.run(t.Context(), 0)
				time.Sleep(20*time.Second + 500*time.Millisecond) // between two heartbeats
				f.hook(func() {
					f.groups.onGroup = func(int32, proto.Message) fault { return silence }
				})
				session := consumergroup.DefaultOptions().ConsumerSessionTimeout
				time.Sleep(session - 2*time.Second)
				if got := a.heard(); !slices.Equal(got, []string{"assigned2"}) {
					t.Errorf("within its session the program heard %v", got)
				}
				time.Sleep(2 * time.Second)
				if got := a.heard(); !slices.Equal(got, []string{"assigned2", "lost2"}) {
					t.Errorf("after its session the program heard %v, want that it has lost both partitions", got)
				}
				before := a.count()
				f.fill("a", 0, 100, 110, 5, batch.None)
				time.Sleep(time.Minute)
				if a.count() != before {
					t.Errorf("it has read %d records since", a.count()-before)
				}
				f.hook(func() { f.groups.onGroup = nil })
				time.Sleep(time.Minute)
				if got := a.heard(); !slices.Equal(got, []string{"assigned2", "lost2", "assigned2"}) {
					t.Errorf("answered again, the program heard %v", got)
				}
				a.leaves()
			})
		})
	}
}

// TestGroupAheadOfMetadata: a partition that no node the client asks knows of yet is
// consumed once one does, and the program hears at once of the others.
func TestGroupAheadOfMetadata(t *testing.T) {
	inGroups(t, 2, func(t *testing.T, f *fakeCluster) {
		f.hook(func() { f.behind = map[int32]int{0: 1, 1: 1, 2: 1} }) // partitions that are known
		a := f.works(t, newOwnership(t), "a")
		a.run(t.Context(), 0)
		time.Sleep(time.Minute)
		if got := a.heard(); !slices.Equal(got, []string{"assigned1"}) || a.count() != 100 {
			t.Errorf("with one partition known the program heard %v and read %d records, want one partition's 100", got, a.count())
		}
		f.hook(func() { f.behind = nil })
		time.Sleep(10 * time.Second)
		if got := a.heard(); !slices.Equal(got, []string{"assigned1", "assigned1"}) || a.count() != 200 {
			t.Errorf("with both known it heard %v and read %d records, want 200", got, a.count())
		}
		a.leaves()
	})
}
