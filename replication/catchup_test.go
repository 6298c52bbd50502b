package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/journal"
)

// leaveBehind kills a follower, and has the others write and drop so much that
// their logs do not reach back to it. It returns the leader, the follower, and
// what was written.
func (tr *trio) leaveBehind() (node, away int, want []string) {
	tr.t.Helper()
	node = tr.leader(1, 2, 3)
	tr.mustWrite(node, "first")
	away = tr.others(node)[0]
	tr.agree([]string{"first"}, 1, 2, 3)
	tr.kill(away)
	return node, away, append([]string{"first"}, tr.writeMuch(node, "away")...)
}

// writeMuch writes more than the ring keeps for those who are away, or catch up.
func (tr *trio) writeMuch(node int, prefix string) (lines []string) {
	tr.t.Helper()
	for i := range 40 {
		some := numbered(fmt.Sprint(prefix, i), 10, 1000)
		tr.mustWrite(node, some...)
		lines = append(lines, some...)
		for n := 1; n <= 3; n++ {
			if tr.rigs[n] != nil && tr.rigs[n].replica.CatchUp().Since.IsZero() {
				if err := tr.rigs[n].replica.Checkpoint(); err != nil {
					tr.t.Fatal(err)
				}
			}
		}
	}
	return lines
}

// TestCatchUp brings a replica back that is behind its leader's log, and has it
// lead.
func TestCatchUp(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node, away, want := tr.leaveBehind()
		tr.start(away)
		tr.agree(want, 1, 2, 3)
		tr.mustWrite(node, "next")
		want = append(want, "next")
		tr.agree(want, 1, 2, 3)
		pause(time.Second)
		if got := tr.rigs[node].replica.Behind(); len(got) > 0 {
			t.Errorf("the leader says that %v are behind", got)
		}
		if got := tr.rigs[away].replica.CatchUp(); !got.Since.IsZero() {
			t.Errorf("it still catches up: %+v", got)
		}
		for _, n := range []int{away, node} {
			tr.cutPower(n)
			tr.start(n)
		}
		tr.leader(1, 2, 3)
		tr.agree(want, 1, 2, 3)
		tr.kill(tr.others(away)[0])
		tr.mustWrite(tr.leader(1, 2, 3), "last")
	})
}

// copies are disks as they were at a moment.
func (tr *trio) copies() (all [4]*vfs.Mem) {
	for n := 1; n <= 3; n++ {
		tr.mem[n].Freeze()
		all[n] = tr.mem[n].KillClone()
		tr.kill(n)
	}
	return all
}

// resume starts all nodes from copies.
func (tr *trio) resume(from [4]*vfs.Mem) {
	for n := 1; n <= 3; n++ {
		tr.kill(n)
		tr.mem[n] = from[n].KillClone()
		tr.disks[n] = tr.mem[n]
	}
}

// TestCatchUpCrash takes the power from a replica that catches up before and after
// each operation on its disk. It comes back, by itself, with everything.
func TestCatchUpCrash(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		_, away, want := tr.leaveBehind()
		tr.crashCatchingUp(away, want, 20, "")
	})
}

// TestCatchUpCrashOverADivergentLog does so from when the install is marked on, of a
// replica whose log has other entries at the checkpoint and beyond: what is not put
// right then is by the next start.
func TestCatchUpCrashOverADivergentLog(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		_, away, want := tr.leaveDivergent(50)
		tr.crashCatchingUp(away, want, 10, installMarkSuffix)
	})
}

// TestStartEndsTheInstall takes the power from a replica whose log has other entries
// at the leader's checkpoint, when that has its name and the log is as it was: the
// next start has the log go on where the checkpoint ends, before Raft reads it.
func TestStartEndsTheInstall(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node, away, _ := tr.leaveDivergent(50)
		index, term := tr.rigs[node].replica.checkpoints.Newest()
		mem, named, frozen := tr.mem[away], new(atomic.Bool), make(chan struct{})
		mem.OnOp(func(op vfs.Op, ph vfs.Phase) {
			switch {
			case op.Kind == vfs.OpRename && ph == vfs.After && path.Base(op.Path) == (&checkpointFile{index: index}).name():
				named.Store(true)
			case named.Load() && ph == vfs.Before && op.Kind == vfs.OpWriteAt && strings.HasPrefix(op.Path, "journal/"):
				if named.Swap(false) {
					mem.Freeze()
					close(frozen)
				}
			}
		})
		tr.start(away)
		select {
		case <-frozen:
		case <-time.After(time.Minute):
			t.Error("nothing was installed")
		}
		mem.OnOp(nil)
		next := mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
		for n := 1; n <= 3; n++ {
			tr.kill(n)
		}
		tr.mem[away], tr.disks[away] = next, next
		tr.start(away)
		log := tr.rigs[away].replica.store.log
		var l raft.Log
		if err := log.read(index, &l, true); err != nil || l.Term != term || log.first() != index || log.last() != index {
			t.Errorf("the log has [%d, %d], and the entry at the checkpoint %d is of term %d, %v; want that alone, of term %d", log.first(), log.last(), index, l.Term, err, term)
		}
		if got, _ := tr.rigs[away].replica.checkpoints.Newest(); got != index || tr.rigs[away].replica.checkpoints.installing != 0 {
			t.Errorf("the newest checkpoint is at %d, want %d, and no install to be under way", got, index)
		}
	})
}

// crashCatchingUp takes the power from a replica that is down, behind its leader's
// log, before and after each operation on its disk, from the first on a file whose
// name ends in suffix, once it is started again and catches up: so many times at
// least. Each time it comes back with what is wanted.
func (tr *trio) crashCatchingUp(away int, want []string, least int, suffix string) {
	t := tr.t
	t.Helper()
	from := tr.copies()
	crashes := 0
	for at := 1; ; at++ {
		tr.resume(from)
		var ops atomic.Int32
		var begun atomic.Bool
		frozen := make(chan struct{})
		mem := tr.mem[away]
		for _, n := range tr.others(away) {
			tr.start(n)
		}
		tr.leader(tr.others(away)...)
		mem.OnOp(func(op vfs.Op, _ vfs.Phase) {
			if strings.HasSuffix(op.Path, suffix) {
				begun.Store(true)
			}
			switch op.Kind {
			case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
				return
			}
			if begun.Load() && ops.Add(1) == int32(at) {
				mem.Freeze()
				close(frozen)
			}
		})
		to := tr.hub.Join(1, tr.ids[away-1])
		r, err := startVoter(mem, tr.ids[away-1], to, tr.ids)
		if err == nil {
			tr.rigs[away] = r
			for range 1000 { // until it has caught up, or its power is gone
				if len(r.fsm.all()) == len(want) {
					break
				}
				select {
				case <-frozen:
				default:
					pause(10 * time.Millisecond)
					continue
				}
				break
			}
		}
		select {
		case <-frozen:
			crashes++
		default:
			if crashes < least {
				t.Errorf("the power was gone %d times, want more", crashes)
			}
			return
		}
		mem.OnOp(nil)
		next := mem.CrashClone(vfs.CrashOptions{Unsynced: []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin}[at%3], Seed: uint64(at)})
		tr.kill(away)
		tr.mem[away], tr.disks[away] = next, next
		tr.start(away)
		tr.agree(want, 1, 2, 3)
		if t.Failed() {
			t.Fatalf("the power was gone at operation %d", at)
		}
	}
}

// TestCatchUpBesideACheckpoint: a checkpoint of the replica's own that ended after
// an install would move Raft's last index back (trap 18), so neither begins beside
// the other.
func TestCatchUpBesideACheckpoint(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		_, away, want := tr.leaveBehind()
		tr.start(away)
		r := tr.rigs[away]
		r.replica.checkpointing <- struct{}{} // so that the pull waits
		r.replica.opt.CatchUp = &checkpointer{taking: r.replica.checkpointing}
		<-r.replica.checkpointing
		pause(20 * time.Second)
		if got := len(r.fsm.all()); got == len(want) {
			t.Fatal("a checkpoint was installed beside another that was being taken")
		}
		if got := r.replica.CatchUp(); got.Since.IsZero() || got.Index == 0 {
			t.Errorf("it does not say that it catches up: %+v", got)
		}
		<-r.replica.checkpointing
		tr.agree(want, 1, 2, 3)
	})
}

// checkpointer is a CatchUp that has everything, and after whose pulls a checkpoint
// begins at once.
type checkpointer struct {
	pulls
	taking chan struct{}
}

func (c *checkpointer) Pull(context.Context, Pull) error {
	c.taking <- struct{}{} // as Checkpoint does
	return nil
}

// pulls is a CatchUp that has everything, and counts how often it is asked.
type pulls struct{ n atomic.Int32 }

func (p *pulls) Pull(context.Context, Pull) error { p.n.Add(1); return nil }
func (*pulls) Settle() error                      { return nil }
func (*pulls) Abandon() error                     { return nil }

// TestPullWaitsForSettle: Settle removes what was pulled and is not needed, so no
// pull for the next checkpoint begins before it has ended.
func TestPullWaitsForSettle(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		tr.mustWrite(node, "first")
		tr.agree([]string{"first"}, 1, 2, 3)
		r := tr.rigs[tr.others(node)[0]].replica
		if err := r.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		c := new(pulls)
		r.opt.CatchUp = c
		r.checkpointing <- struct{}{} // as settle does
		done := make(chan error, 1)
		go func() {
			_, err := r.pullFor(t.Context(), &offer{index: r.Checkpointed() + 1}, 1)
			done <- err
		}()
		pause(time.Second)
		if n := c.n.Load(); n != 0 {
			t.Errorf("%d pulls began beside a Settle", n)
		}
		<-r.checkpointing
		if err := <-done; err != nil || c.n.Load() != 1 {
			t.Errorf("after it: %v, %d pulls", err, c.n.Load())
		}
	})
}

// TestCatchUpToANewerCheckpoint: a checkpoint is left aside from which the leader's log
// does not go on any more when all that it needs is there; however much that was, one from
// which it does is taken.
func TestCatchUpToANewerCheckpoint(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node, away, want := tr.leaveBehind()
		tr.start(away)
		r := tr.rigs[away]
		r.replica.checkpointing <- struct{}{} // it gets no further than to hold what it is offered
		for r.replica.CatchUp().Index == 0 {
			pause(time.Millisecond)
		}
		offered := r.replica.CatchUp().Index
		restores := r.fsm.restored()
		want = append(want, tr.writeMuch(node, "meanwhile")...)
		<-r.replica.checkpointing
		tr.agree(want, 1, 2, 3)
		if got := r.fsm.restored() - restores; got != 1 {
			t.Errorf("%d checkpoints were installed, want one: the log behind the first, at %d, begins at %d", got, offered, tr.rigs[node].replica.store.log.first())
		}
	})
}

// TestCatchUpToAnOlderCheckpoint has the leader die whose checkpoint a replica
// holds, and another one lead whose newest is older: nothing can be committed until
// the replica has taken that one.
func TestCatchUpToAnOlderCheckpoint(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node, away, want := tr.leaveBehind()
		more := numbered("more", 10, 10)
		tr.mustWrite(node, more...)
		want = append(want, more...)
		if err := tr.rigs[node].replica.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		tr.start(away)
		r := tr.rigs[away].replica
		r.checkpointing <- struct{}{} // it gets no further than to hold it
		for r.CatchUp().Index != tr.rigs[node].replica.Checkpointed() {
			pause(time.Millisecond)
		}
		tr.kill(node)
		<-r.checkpointing
		next := 6 - node - away
		tr.mustWrite(tr.leader(next), "next")
		tr.agree(append(want, "next"), next, away)
	})
}

// TestCatchUpOverADivergentLog gives a replica that is behind a suffix which
// nobody has committed, longer than the checkpoint that it gets reaches. What is
// not the leader's is hidden at once, and dropped by Raft: dropping all of it would
// have the leader install one checkpoint after the other for ever (trap 19).
func TestCatchUpOverADivergentLog(t *testing.T) {
	for _, beyond := range []uint64{0, 1, 500} {
		t.Run(fmt.Sprint(beyond), func(t *testing.T) {
			withTrio(t, func(t *testing.T, tr *trio) {
				node, away, want := tr.leaveDivergent(beyond)
				tr.start(away)
				tr.agree(want, 1, 2, 3)
				tr.mustWrite(node, "next")
				want = append(want, "next")
				tr.agree(want, 1, 2, 3)
				index, term := tr.rigs[away].replica.checkpoints.Newest()
				var l raft.Log
				if err := tr.rigs[away].replica.store.log.read(index, &l, true); err != nil || l.Term != term {
					t.Errorf("the entry at the checkpoint is of term %d, %v, want %d", l.Term, err, term)
				}
				if first := tr.rigs[away].replica.store.log.first(); first != index {
					t.Errorf("the log begins at %d, want %d: what is before is another log's", first, index)
				}
				tr.cutPower(away)
				tr.start(away)
				tr.agree(want, 1, 2, 3)
				tr.kill(tr.others(away)[0])
				tr.mustWrite(tr.leader(1, 2, 3), "last")
			})
		})
	}
}

// leaveDivergent leaves a replica down that is behind its leader's log, and has other
// entries in its own up to the leader's checkpoint and so many beyond.
func (tr *trio) leaveDivergent(beyond uint64) (node, away int, want []string) {
	tr.t.Helper()
	node = tr.leader(1, 2, 3)
	want = []string{"first"}
	tr.mustWrite(node, want...)
	away = tr.others(node)[0]
	tr.agree(want, 1, 2, 3)
	tr.kill(away)
	tr.kill(node) // the next leader's term is higher than the suffix's
	tr.start(node)
	node = tr.leader(tr.others(away)...)
	want = append(want, tr.writeMuch(node, "away")...)
	tr.diverge(away, tr.rigs[node].replica.Checkpointed()+beyond)
	return node, away, want
}

// diverge appends to a replica's log, while it is down, what an old leader might
// have left there, up to an index.
func (tr *trio) diverge(node int, upTo uint64) {
	tr.t.Helper()
	j, err := journal.Open(tr.disks[node], "journal", journal.Options{
		FileBytes: 64 << 10, MaxBytes: 512 << 10, Rand: rand.NewChaCha8([32]byte{}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	s := j.Shard(1, tr.ids[node-1].Incarnation)
	term, _, _ := s.Head(s.Last())
	for s.Last() < upTo {
		line := encodeList(term, 0, []*Proposal[int]{{Payload: []byte("never committed")}})
		if err := s.Append([]journal.Record{{Index: s.Last() + 1, Term: term, Data: line}}); err != nil {
			tr.t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		tr.t.Fatal(err)
	}
}

// TestCatchUpFailsForGood: a checkpoint that the FSM refuses stops the replica,
// with the log and the state before it out of use; Raft itself would go on.
func TestCatchUpFailsForGood(t *testing.T) {
	withTrio(t, func(t *testing.T, tr *trio) {
		node := tr.leader(1, 2, 3)
		away := tr.others(node)[0]
		tr.kill(away)
		tr.mustWrite(node, "?") // Restore refuses it
		tr.writeMuch(node, "away")
		tr.start(away)
		select {
		case err := <-tr.rigs[away].failed:
			if !errors.Is(err, errUnrestorable) {
				t.Errorf("stopped with %v, want %v", err, errUnrestorable)
			}
		case <-time.After(time.Minute):
			t.Error("it goes on after an install that failed")
		}
	})
}

// TestInstallOfAnotherBody: what is not as long as announced is no checkpoint.
func TestInstallOfAnotherBody(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{3, 5, 0} {
		if b, err := bodyOf(strings.NewReader("four"), size); err == nil {
			t.Errorf("%d bytes announced, four came: %q", size, b)
		}
	}
	if b, err := bodyOf(strings.NewReader("four"), 4); err != nil || string(b) != "four" {
		t.Errorf("%q, %v", b, err)
	}
}
