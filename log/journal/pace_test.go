package journal

import (
	"path"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

const mib = 1 << 20

// growing is a journal that has yet to grow, with one shard that is written to.
type growing struct {
	t     *testing.T
	mem   *vfs.Mem
	j     *Journal
	s     *Shard
	next  uint64
	grown int
}

func newGrowing(t *testing.T, fileMiB int64) *growing {
	g := &growing{t: t, mem: vfs.NewMem(1), next: 1}
	opt := small()
	opt.FileBytes, opt.MaxBytes = fileMiB*mib, 6*fileMiB*mib
	opt.OnEvent = func(e Event) {
		if e.Kind == EventGrown {
			g.grown++
		}
	}
	g.j = mustOpen(t, g.mem, opt)
	g.s = g.j.Shard(1, 1)
	return g
}

// write appends so many bytes; if keep, they are needed.
func (g *growing) write(bytes int64, keep bool) {
	g.t.Helper()
	for ; bytes > 0; bytes -= mib / 4 {
		if err := g.s.Append(records(g.next, 1, mib/4-200)); err != nil {
			g.t.Fatal(err)
		}
		g.s.Commit(g.next)
		if !keep {
			g.s.Compact(g.next - 1)
		}
		g.next++
		synctest.Wait()
	}
}

// begun returns how many bytes there are of the file that is being made.
func (g *growing) begun() int64 {
	g.t.Helper()
	f, err := g.mem.Open(path.Join(testDir, tempName))
	if err != nil {
		return 0 // none is
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		g.t.Fatal(err)
	}
	return size
}

// TestGrowthKeepsPace: the next file grows as fast as the one before it is filled, is
// there before that is full, and at once if somebody waits for room.
func TestGrowthKeepsPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGrowing(t, 16)
		j := g.j
		defer mustClose(t, j)
		idle := j.Shard(2, 1)
		if err := idle.Append(records(1, 1, 100)); err != nil { // its file is not free for its next use
			t.Fatal(err)
		}
		g.write(15*mib, false)
		if got := g.begun(); got != 0 || g.grown != 0 {
			t.Errorf("%d bytes of a file are there, and %d files more, before the last is begun", got, g.grown)
		}
		g.write(2*mib, false)
		early := g.begun()
		if early == 0 || early > paceStepBytes+4*mib {
			t.Errorf("%d bytes of the next file are there when the last is begun; want a few", early)
		}
		g.write(6*mib, false)
		if got := g.begun(); got <= early || got == j.opt.FileBytes {
			t.Errorf("%d bytes of the next file are there when the last is half full, after %d; want half", got, early)
		}
		g.write(6*mib, false)
		if g.grown != 1 {
			t.Errorf("%d files more before the last is full, want the next one", g.grown)
		}
		g.write(4*mib, false)
		r, err := j.TryReserve(g.s, j.opt.MaxBytes/4)
		if err == nil {
			defer r.Release()
		}
		if synctest.Wait(); g.grown < 2 {
			t.Errorf("%d files more when room is wanted, want another at once", g.grown)
		}
	})
}

// TestGrowthBeforeTheLimit: when half of what may be kept is taken, the next file grows as
// the rest is, though a file is there to be written next, and is there before
// that.
func TestGrowthBeforeTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGrowing(t, 64)
		j := g.j
		defer mustClose(t, j)
		limit := j.Usage().LimitBytes
		g.write(limit/2-mib, true)
		if got := g.begun(); got != 0 || g.grown != 0 {
			t.Errorf("%d bytes of a file are there, and %d files more, before half of the limit is taken", got, g.grown)
		}
		g.write(2*mib, true)
		early := g.begun()
		if early == 0 || early > paceStepBytes+8*mib {
			t.Errorf("%d bytes of the next file are there when half of the limit is taken; want a few", early)
		}
		g.write(j.opt.FileBytes/2+2*mib-(limit/2+mib), true) // no copy would fit behind what is written
		if got := g.begun(); got <= early {
			t.Errorf("%d bytes of the next file are there when the one being written is half full, after %d, and %d files more; want more of it", got, early, g.grown)
		}
		g.write(limit-2*mib-(j.opt.FileBytes/2+2*mib), true)
		if g.grown != 1 {
			t.Errorf("%d files more before the limit is reached, want the next one", g.grown)
		}
	})
}
