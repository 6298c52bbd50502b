package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var errNoSpace = fmt.Errorf("injected: %w", syscall.ENOSPC)

// TestFirstErrorIsFinal: the first write or sync error latches (R9), though the
// disk is well again at once. What was acknowledged stays readable and is there
// after a power cut and a restart.
func TestFirstErrorIsFinal(t *testing.T) {
	t.Parallel()
	for _, kind := range []vfs.OpKind{vfs.OpWriteAt, vfs.OpSyncData} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem(1)
				var failures atomic.Int32
				opt := small()
				opt.OnFailed = func(error) { failures.Add(1) }
				j := mustOpen(t, mem, opt)
				s := j.Shard(1, 1)
				want := records(1, 3, 100)
				if err := s.Append(want); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				var once atomic.Bool
				mem.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
					if op.Kind == kind && once.CompareAndSwap(false, true) {
						ft.Err = syscall.EIO
					}
					return ft
				})
				err := s.Append(records(4, 1, 100))
				if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), j.files[0].path) {
					t.Errorf("Append = %v, want ErrFailed that names the file and EIO", err)
				}
				_, rerr := j.TryReserve(s, 100)
				for _, err := range []error{s.Append(records(4, 1, 100)), j.Shard(2, 1).Append(records(1, 1, 1)), s.TruncateFrom(2), s.Drop(), rerr} {
					if !errors.Is(err, ErrFailed) {
						t.Errorf("later call = %v, want ErrFailed", err)
					}
				}
				wantLog(t, s, want)
				if err := j.Close(); !errors.Is(err, ErrFailed) {
					t.Errorf("Close = %v", err)
				}
				if n := failures.Load(); n != 1 {
					t.Errorf("OnFailed called %d times", n)
				}
				j = mustOpen(t, mem.CrashClone(vfs.CrashOptions{}), small())
				defer j.Close()
				wantLog(t, j.Shard(1, 1), want)
			})
		})
	}
}

// TestFailedSyncThenRestart: after a failed sync a new process finds bytes in
// the page cache that will never be written. What Open shows must survive a
// power cut after it (R8).
func TestFailedSyncThenRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		if err := j.Shard(1, 1).Append(records(1, 3, 100)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mem.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
			if op.Kind == vfs.OpSyncData {
				ft.Err = syscall.EIO
			}
			return ft
		})
		if err := j.Shard(1, 1).Append(records(4, 2, 3000)); !errors.Is(err, ErrFailed) {
			t.Fatalf("Append = %v", err)
		}
		j.Close()
		mem.SetInjector(nil)

		j = mustOpen(t, mem, small())
		seen, err := contents(j.Shard(1, 1))
		if err != nil || len(seen) != 5 {
			t.Fatalf("restart shows %v, %v; the double keeps what was written", indexes(seen), err)
		}
		after := mem.CrashClone(vfs.CrashOptions{})
		mustClose(t, j)
		j = mustOpen(t, after, small())
		defer j.Close()
		wantLog(t, j.Shard(1, 1), seen)
	})
}

// TestPreparerFails: an error while the next file is made ready is as final as
// one of the writer, and nobody is left waiting.
func TestPreparerFails(t *testing.T) {
	t.Parallel()
	for _, kind := range []vfs.OpKind{vfs.OpCreate, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem(1)
			j := mustOpen(t, mem, small())
			mem.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
				if op.Kind == kind && op.Path != "/" {
					ft.Err = syscall.EIO
				}
				return ft
			})
			s := j.Shard(1, 1)
			var err error
			for i := uint64(1); i < 200 && err == nil; i++ {
				err = s.Append([]Record{newRecord(i, 1, 1000, i)})
			}
			if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: Append = %v", kind, err)
			}
			j.Close()
			mem.SetInjector(nil)
			mustClose(t, mustOpen(t, mem, small()))
		})
	}
}

// TestCopyForwardOfDamage: a damaged record that has to be copied is named, and
// not left behind.
func TestCopyForwardOfDamage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		idle, s := j.Shard(1, 1), j.Shard(2, 1)
		if err := idle.Append(records(1, 3, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := mem.Corrupt(j.files[0].path, idle.entries[1].offset()+500, func(b []byte) { b[0]++ }); err != nil {
			t.Fatal(err)
		}
		var err error
		for i := uint64(1); i < 400 && err == nil; i++ {
			err = s.Append([]Record{newRecord(i, 1, 1000, i)})
			s.Compact(i)
		}
		if !errors.Is(err, ErrFailed) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("Append = %v, want ErrFailed and ErrCorrupt", err)
		}
		j.Close()
	})
}

// TestCommitsTogether: while one sync is under way all that arrives waits for
// the next one, which is the same for all.
func TestCommitsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		opt := small()
		opt.Now = time.Now
		j := mustOpen(t, mem, opt)
		mem.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
			if op.Kind == vfs.OpSyncData {
				ft.Delay = time.Second
			}
			return ft
		})
		var wg sync.WaitGroup
		start := time.Now()
		for id := range ShardID(8) {
			wg.Go(func() {
				time.Sleep(time.Duration(id) * time.Millisecond)
				if err := j.Shard(id, 1).Append(records(1, 2, 100)); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(1500 * time.Millisecond)
		if u := j.Usage(); u.CommitStarted.IsZero() || u.Commits != 1 {
			t.Errorf("in the second commit: %+v", u)
		}
		wg.Wait()
		synctest.Wait()
		if u := j.Usage(); u.SyncTimes.Count() != 2 || u.SyncTimes.Sum != int64(2*time.Second) || u.CommitTimes.Sum != int64(2*time.Second) ||
			u.CommitSizes.Count() != 2 || u.CommitSizes.Sum != u.WrittenBytes {
			t.Errorf("times of syncs %+v, of commits %+v, sizes %+v", u.SyncTimes, u.CommitTimes, u.CommitSizes)
		}
		if u := j.Usage(); u.Syncs != 2 || time.Since(start) != 2*time.Second || u.LastCommit != time.Second {
			t.Errorf("8 shards took %d syncs and %v, want 2 and 2s; last commit %v", u.Syncs, time.Since(start), u.LastCommit)
		}
		mem.SetInjector(nil)
		mustClose(t, j)
	})
}

// TestRandomRestarts compares journals with the model through random calls of
// several shards at a time, restarts, kills and power cuts.
func TestRandomRestarts(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 5))
			opt := small()
			opt.MaxBytes = int64(4+rng.IntN(3)) * minFileBytes
			mem, m := vfs.NewMem(seed), newModel(5)
			j := mustOpen(t, mem, opt)
			for range 12 {
				var wg sync.WaitGroup
				for id := ShardID(1); id <= 5; id++ {
					rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
					wg.Go(func() {
						for range rng.IntN(12) {
							if err := m.randomStep(rng, j, id, 3000); err != nil {
								if !errors.Is(err, ErrFailed) {
									t.Errorf("seed %d: %v", seed, err)
								}
								return
							}
						}
					})
				}
				end := rng.IntN(3)
				if end > 0 { // cut it while it runs
					time.AfterFunc(time.Duration(rng.IntN(2000))*time.Microsecond, mem.Freeze)
				}
				wg.Wait()
				mem.Freeze()
				j.Close()
				switch end {
				case 1:
					mem = mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: rng.Uint64()})
				default:
					mem = mem.KillClone()
				}
				j = mustOpen(t, mem, opt)
				if err := m.restart(j); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			mustClose(t, j)
		})
	}
}

// TestNames: only journal files have a place among journal files.
func TestNames(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	mustClose(t, mustOpen(t, mem, small()))
	if err := vfs.WriteFile(mem, path.Join(testDir, "2.journal"), make([]byte, minFileBytes)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(mem, testDir, small()); err == nil || !strings.Contains(err.Error(), "2.journal") {
		t.Errorf("Open = %v", err)
	}
}
