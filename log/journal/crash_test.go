package journal

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// crashes are the states that one moment's crash is tried in.
var crashes = []struct {
	name string
	of   func(m *vfs.Mem, seed uint64) *vfs.Mem
}{
	{"lose", func(m *vfs.Mem, _ uint64) *vfs.Mem { return m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}) }},
	{"keep", func(m *vfs.Mem, _ uint64) *vfs.Mem { return m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}) }},
	{"coin", func(m *vfs.Mem, seed uint64) *vfs.Mem {
		return m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: seed})
	}},
	{"coin2", func(m *vfs.Mem, seed uint64) *vfs.Mem {
		return m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: ^seed})
	}},
	{"kill", func(m *vfs.Mem, _ uint64) *vfs.Mem { return m.KillClone() }},
}

// TestCrashEveryOp cuts the power, and kills the process, before and after
// every operation of a history. Whatever is left: the journal opens, every call
// that had returned nil has its effect, and nothing else is there. Then the
// same is done to that recovery, at each of its own operations.
func TestCrashEveryOp(t *testing.T) {
	t.Parallel()
	steps := map[uint64]int{1: 60, 2: 25}
	if testing.Short() {
		steps = map[uint64]int{1: 30}
	}
	for seed, steps := range steps {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			var cuts []cut
			n := uint64(0)
			events := history(t, seed, steps, small(), func(mem *vfs.Mem, m *model, where string) {
				for _, c := range crashes {
					n++
					cuts = append(cuts, cut{c.of(mem, n), m.clone(), fmt.Sprintf("seed %d, %s, %s, coin %d", seed, c.name, where, n)})
				}
			})
			if steps > 50 {
				for _, k := range []EventKind{EventGrown, EventRecycled, EventCopiedForward, EventSwitch} {
					if events[k] == 0 {
						t.Errorf("the history has no %q", k)
					}
				}
			}
			verify(t, cuts, 2)
		})
	}
}

// verify checks all cuts, and levels-1 deep those of their recoveries.
func verify(t *testing.T, cuts []cut, levels int) {
	work := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				if err := recoverCut(cuts[i], uint64(i), levels); err != nil && !t.Failed() {
					t.Errorf("%s: %v", cuts[i].where, err)
				}
			}
		})
	}
	for i := range cuts {
		work <- i
	}
	close(work)
	wg.Wait()
}

// recoverCut opens a cut, and every eleventh time cuts its recovery too. It ends
// by losing what Open left unsynced: what was seen must still be there (R8).
func recoverCut(c cut, seed uint64, levels int) error {
	var deeper []cut
	deep := levels > 1 && seed%11 == 0
	c.mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpWriteAt, vfs.OpSync, vfs.OpSyncData, vfs.OpSyncDir, vfs.OpRename, vfs.OpRemove, vfs.OpCreate:
		default:
			return
		}
		for i, cr := range crashes {
			if deep && (i == 0 || i > 1) {
				s := seed<<16 | uint64(len(deeper))
				deeper = append(deeper, cut{cr.of(c.mem, s), c.model.clone(), fmt.Sprintf("then %s, %s op %d, %s %s", cr.name, phase, op.Seq, op.Kind, op.Path)})
			}
		}
	})
	j, err := Open(c.mem, testDir, small())
	c.mem.OnOp(nil)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	lost := c.mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	seen := c.model.clone()
	if err := seen.restart(j); err != nil {
		return err
	}
	if err := j.Close(); err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	if levels > 0 {
		again := cut{lost, seen, ""}
		if err := recoverCut(again, 1, 0); err != nil {
			return fmt.Errorf("after losing what recovery had not synced: %w", err)
		}
	}
	for i, d := range deeper {
		if err := recoverCut(d, uint64(i), 1); err != nil {
			return fmt.Errorf("%s: %w", d.where, err)
		}
	}
	return nil
}

// TestUnsyncedName: a process that is killed between the rename of a new file
// and the sync of its directory leaves a name that a power cut still takes
// back. The next Open makes it durable before anything is written there.
func TestUnsyncedName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		var killed *vfs.Mem
		mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
			if op.Kind == vfs.OpRename && phase == vfs.After {
				killed = mem.KillClone()
			}
		})
		s := j.Shard(1, 1)
		for i := uint64(1); killed == nil; i++ {
			if err := s.Append([]Record{newRecord(i, 1, 1000, i)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		mustClose(t, j)

		j = mustOpen(t, killed, small())
		s = j.Shard(1, 1)
		next := s.Last() + 1
		for j.files[j.at].slot != startFiles {
			s.Compact(next - 2)
			if err := s.Append([]Record{newRecord(next, 1, 1000, next)}); err != nil {
				t.Fatal(err)
			}
			next++
			synctest.Wait()
		}
		want, err := contents(s)
		if err != nil {
			t.Fatal(err)
		}
		lost := killed.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		mustClose(t, j)
		j = mustOpen(t, lost, small())
		s = j.Shard(1, 1)
		s.Compact(want[0].Index - 1)
		wantLog(t, s, want)
		mustClose(t, j)
	})
}
