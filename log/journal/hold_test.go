package journal

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestHold: while a journal is held, reservations wait, those that free space
// pass, and the ring does not grow for who waits.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, vfs.NewMem(1), small())
		s := j.Shard(1, 1)
		j.Hold(true)
		if _, err := j.TryReserve(s, 100); !errors.Is(err, ErrNoSpace) {
			t.Errorf("TryReserve = %v, want ErrNoSpace", err)
		}
		got := make(chan error, 1)
		go func() {
			r, err := j.Reserve(t.Context(), s, 100)
			if err == nil {
				r.Release()
			}
			got <- err
		}()
		synctest.Wait()
		if len(got) > 0 {
			t.Error("Reserve does not wait")
		}
		urgent, err := j.TryReserveUrgent(s, 100)
		if err != nil {
			t.Fatal("what frees space:", err)
		}
		if err := s.Append([]Record{newRecord(1, 1, 10, 1)}); err != nil {
			t.Fatal(err)
		}
		urgent.Release()
		if u := j.Usage(); u.Waiting != 1 || u.Files != startFiles {
			t.Errorf("%d wait, %d files", u.Waiting, u.Files)
		}
		j.Hold(false)
		if err := <-got; err != nil {
			t.Errorf("Reserve = %v", err)
		}
		mustClose(t, j)
	})
}

// TestGrowthKeepsFree: the ring does not grow into what is to be left free, and
// does when there is more; too many open files are no reason to stop either.
func TestGrowthKeepsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		opt := small()
		opt.KeepFreeBytes = 100 << 10
		j := mustOpen(t, mem, opt)
		s := j.Shard(1, 1)
		ask := func() {
			_, _ = j.TryReserve(s, j.Usage().LimitBytes+1)
			synctest.Wait()
		}
		const ring = 4 << 10 // more than the RING file, which is there twice while it is replaced
		mem.SetCapacity(2*minFileBytes + 100<<10 + minFileBytes - 1)
		if ask(); j.Usage().Files != 2 {
			t.Errorf("%d files, want 2: a third takes what is to be left", j.Usage().Files)
		}
		mem.SetCapacity(2*minFileBytes + 100<<10 + minFileBytes + ring)
		script(t, mem, "create err=EMFILE")
		if ask(); j.Usage().Files != 2 {
			t.Errorf("%d files, want 2", j.Usage().Files)
		}
		mem.SetInjector(nil)
		if ask(); j.Usage().Files != 3 {
			t.Errorf("%d files, want 3", j.Usage().Files)
		}
		mustClose(t, j)
	})
}

func script(t *testing.T, mem *vfs.Mem, text string) {
	t.Helper()
	inject, err := vfs.ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	mem.SetInjector(inject)
}
