package journal

import (
	"path"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestGrowthKeepsPace: the next file grows as fast as the one before it is filled, is
// there before that is full, and at once if somebody waits for room.
func TestGrowthKeepsPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const step = 1 << 20
		mem := vfs.NewMem(1)
		opt := small()
		opt.FileBytes, opt.MaxBytes = 16*step, 6*16*step
		grown := 0
		opt.OnEvent = func(e Event) {
			if e.Kind == EventGrown {
				grown++
			}
		}
		j := mustOpen(t, mem, opt)
		defer mustClose(t, j)
		idle, s := j.Shard(2, 1), j.Shard(1, 1)
		if err := idle.Append(records(1, 1, 100)); err != nil { // its file is not free for its next use
			t.Fatal(err)
		}
		next := uint64(1)
		write := func(bytes int64) {
			t.Helper()
			for ; bytes > 0; bytes -= step / 4 {
				if err := s.Append(records(next, 1, step/4-200)); err != nil {
					t.Fatal(err)
				}
				s.Commit(next)
				s.Compact(next - 1)
				next++
				synctest.Wait()
			}
		}
		begun := func() int64 {
			f, err := mem.Open(path.Join(testDir, tempName))
			if err != nil {
				return 0 // no file is being made
			}
			defer f.Close()
			size, err := f.Size()
			if err != nil {
				t.Fatal(err)
			}
			return size
		}
		write(opt.FileBytes - step)
		if got := begun(); got != 0 || grown != 0 {
			t.Errorf("%d bytes of a file are there, and %d files more, before the last is begun", got, grown)
		}
		write(2 * step)
		early := begun()
		if early == 0 || early > paceStepBytes+4*step {
			t.Errorf("%d bytes of the next file are there when the last is begun; want a few", early)
		}
		write(6 * step)
		if got := begun(); got <= early || got == opt.FileBytes {
			t.Errorf("%d bytes of the next file are there when the last is half full, after %d; want half", got, early)
		}
		write(6 * step)
		if grown != 1 {
			t.Errorf("%d files more before the last is full, want the next one", grown)
		}
		write(4 * step)
		r, err := j.TryReserve(s, opt.MaxBytes/4)
		if err == nil {
			defer r.Release()
		}
		if synctest.Wait(); grown < 2 {
			t.Errorf("%d files more when half of the room is taken, want another at once", grown)
		}
	})
}
