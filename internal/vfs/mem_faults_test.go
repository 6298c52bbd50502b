package vfs

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// once returns an injector that gives the first operation of a kind a fault.
func once(kind OpKind, ft Fault) Injector {
	done := false
	return func(op Op) Fault {
		if done || op.Kind != kind {
			return Fault{}
		}
		done = true
		return ft
	}
}

// TestFailedSync: after a failed sync the bytes are readable, the next sync
// succeeds, and they are lost all the same.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/x", "")
	check(t, m.SyncDir("/"))
	check(t, write(f, "acknowledged"))
	m.SetInjector(once(OpSyncData, Fault{Err: syscall.EIO}))
	wantErr(t, "SyncData", f.SyncData(), syscall.EIO)
	check(t, f.SyncData())
	check(t, f.Sync())
	if got := contentOf(t, m, "/x"); got != "acknowledged" {
		t.Errorf("reads %q", got)
	}
	if got := contentOf(t, lose(m), "/x"); got != "" {
		t.Errorf("after a crash %q: a later sync made it durable", got)
	}
	if got := contentOf(t, lose(m.KillClone()), "/x"); got != "" {
		t.Errorf("after a kill and a crash %q", got)
	}

	check(t, write(f, "acknowledged"))
	check(t, f.SyncData())
	if got := contentOf(t, lose(m), "/x"); got != "acknowledged" {
		t.Errorf("after a crash %q: written again and synced, yet lost", got)
	}
	if n := len(f.(*memFile).n.data.loose); n != 0 {
		t.Errorf("%d pages are not known to be durable", n)
	}
}

func TestFailedSyncDir(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	check(t, MkdirAllSync(m, "/d"))
	check(t, WriteFile(m, "/d/tmp", []byte("data")))
	check(t, m.Rename("/d/tmp", "/d/x"))
	m.SetInjector(once(OpSyncDir, Fault{Err: syscall.EIO}))
	wantErr(t, "SyncDir", m.SyncDir("/d"), syscall.EIO)
	check(t, m.SyncDir("/d"))
	create(t, m, "/d/other", "")
	check(t, m.SyncDir("/d"))
	names, err := lose(m).ReadDir("/d")
	check(t, err)
	if diff := cmp.Diff([]string{"other", "tmp"}, names); diff != "" {
		t.Errorf("after a crash (-want +got):\n%s", diff)
	}

	check(t, m.Rename("/d/x", "/d/y")) // says anew what becomes of tmp
	check(t, m.SyncDir("/d"))
	names, err = lose(m).ReadDir("/d")
	check(t, err)
	if diff := cmp.Diff([]string{"other", "y"}, names); diff != "" {
		t.Errorf("after a crash (-want +got):\n%s", diff)
	}
}

// TestSlowSync: a sync covers what was written before it began, takes effect
// when it ends, and holds up the next one on the same file.
func TestSlowSync(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMem(1)
		f := create(t, m, "/x", "before")
		check(t, m.SyncDir("/"))
		m.SetInjector(once(OpSyncData, Fault{Delay: 10 * time.Millisecond}))
		start := time.Now()
		done := make(chan error, 2)
		go func() { done <- f.SyncData() }()
		synctest.Wait()
		if got := contentOf(t, lose(m), "/x"); got != "" {
			t.Errorf("during the sync %q is durable", got)
		}
		killed := m.KillClone()
		check(t, write(f, "AFT"))
		go func() {
			err := f.Sync()
			if d := time.Since(start); d < 10*time.Millisecond {
				t.Errorf("the second sync overtook the first: %v", d)
			}
			done <- err
		}()
		synctest.Wait()
		check(t, <-done)
		check(t, <-done)
		if got := contentOf(t, lose(m), "/x"); got != "AFTore" {
			t.Errorf("after both syncs %q", got)
		}
		if got := contentOf(t, lose(killed), "/x"); got != "" {
			t.Errorf("killed during the sync, %q is durable", got)
		}
		g, err := killed.Open("/x")
		check(t, err)
		check(t, g.Sync())
		if got := contentOf(t, lose(killed), "/x"); got != "before" {
			t.Errorf("killed during the sync, and synced anew: %q", got)
		}

		check(t, write(f, "later!"))
		m.SetInjector(once(OpSyncData, Fault{Delay: time.Second}))
		go func() { done <- f.SyncData() }()
		synctest.Wait()
		if got := contentOf(t, lose(m.KillClone()), "/x"); got != "AFTore" {
			t.Errorf("killed during the next sync, %q is durable", got)
		}
		check(t, write(f, "LATER!"))
		check(t, <-done)
		if got := contentOf(t, lose(m), "/x"); got != "later!" {
			t.Errorf("%q is durable, want what was there when the sync began", got)
		}
	})
}

// TestSlowSyncDir: what changes while it runs is left to the next one.
func TestSlowSyncDir(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMem(1)
		create(t, m, "/before", "")
		m.SetInjector(once(OpSyncDir, Fault{Delay: time.Second}))
		done := make(chan error)
		go func() { done <- m.SyncDir("/") }()
		synctest.Wait()
		create(t, m, "/during", "")
		check(t, <-done)
		names, err := lose(m).ReadDir("/")
		check(t, err)
		if diff := cmp.Diff([]string{"before"}, names); diff != "" {
			t.Errorf("after a crash (-want +got):\n%s", diff)
		}
	})
}

// TestSlowWrite: a write that a power cut finds under way is torn by sectors.
func TestSlowWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMem(1)
		f := create(t, m, "/x", strings.Repeat("o", 4096))
		check(t, f.Sync())
		check(t, m.SyncDir("/"))
		m.SetInjector(func(Op) Fault { return Fault{Delay: time.Minute} })
		done := make(chan error)
		go func() { done <- write(f, strings.Repeat("n", 4096)) }()
		synctest.Wait()
		torn := contentOf(t, m.CrashClone(CrashOptions{Seed: 3, Unsynced: Coin}), "/x")
		if n := strings.Count(torn, "n"); n == 0 || n == 4096 || n%sectorBytes != 0 {
			t.Errorf("%d bytes of the write survived", n)
		}
		m.Freeze()
		wantErr(t, "write", <-done, ErrCrashed)
	})
}

func TestFaults(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/x", "")
	inject := func(ft Fault) { m.SetInjector(func(Op) Fault { return ft }) }
	size := func() int64 { n, _ := f.Size(); return n }

	inject(Fault{Err: syscall.EIO})
	wantErr(t, "WriteAt", write(f, "data"), syscall.EIO)
	wantErr(t, "Rename", m.Rename("/x", "/y"), syscall.EIO)
	_, err := m.Open("/x")
	wantErr(t, "Open", err, syscall.EIO)
	if size() != 0 {
		t.Error("a failed write wrote")
	}
	inject(Fault{Err: syscall.EIO, Short: 3})
	n, err := f.WriteVecAt([][]byte{[]byte("ab"), []byte("cd")}, 0)
	if n != 3 || !errors.Is(err, syscall.EIO) || size() != 3 {
		t.Errorf("short write = %d, %v, size %d", n, err, size())
	}
	inject(Fault{Short: 1})
	n, err = f.WriteVecAt([][]byte{[]byte("ab"), []byte("cd")}, 0)
	if n != 1 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("short write = %d, %v", n, err)
	}
	inject(Fault{Full: true})
	check(t, write(f, "room is there"))
	wantErr(t, "Preallocate", f.Preallocate(pageBytes+1), syscall.ENOSPC)
	if free, err := m.Free("/"); free != 0 || err != nil {
		t.Errorf("Free = %d, %v", free, err)
	}
	inject(Fault{Err: syscall.EIO, Applied: true})
	wantErr(t, "Sync", f.Sync(), syscall.EIO)
	wantErr(t, "Rename", m.Rename("/x", "/y"), syscall.EIO)
	wantErr(t, "SyncDir", m.SyncDir("/"), syscall.EIO)
	m.SetInjector(nil)
	if got := contentOf(t, lose(m), "/y"); got != "room is there" {
		t.Errorf("after faults that applied, %q", got)
	}
	st := m.Stats()
	if st.Ops[OpRename] != 2 || st.Ops[OpSync] != 1 || st.WrittenBytes != 3+1+13 {
		t.Errorf("Stats = %+v", st)
	}
}
