package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// lose returns what the least kind power cut leaves of m.
func lose(m *Mem) *Mem { return m.CrashClone(CrashOptions{Unsynced: Lose}) }

func TestDurability(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		do   func(m *Mem, f File) error // on /d/x, which holds "old", durably
		want string                     // what a losing crash leaves at /d/x, or at /d/y
	}{
		{"unsynced write", func(m *Mem, f File) error {
			return write(f, "new")
		}, "old"},
		{"sync", func(m *Mem, f File) error {
			return errors.Join(write(f, "new"), f.Sync())
		}, "new"},
		{"sync of data", func(m *Mem, f File) error {
			return errors.Join(write(f, "new and longer"), f.SyncData())
		}, "new and longer"},
		{"write-back", func(m *Mem, f File) error {
			err := write(f, "new")
			f.WriteBack(0, 3)
			return err
		}, "old"},
		{"sync through another open file", func(m *Mem, f File) error {
			g, err := m.Open("/d/x")
			return errors.Join(err, write(f, "new"), g.Sync())
		}, "new"},
		{"unsynced truncate", func(m *Mem, f File) error { return f.Truncate(1) }, "old"},
		{"synced truncate", func(m *Mem, f File) error {
			return errors.Join(f.Truncate(1), f.SyncData())
		}, "o"},
		{"unsynced rename", func(m *Mem, f File) error {
			return m.Rename("/d/x", "/d/y")
		}, "old"},
		{"rename, other directory synced", func(m *Mem, f File) error {
			return errors.Join(m.Rename("/d/x", "/d/y"), m.SyncDir("/"), f.Sync())
		}, "old"},
		{"synced rename of unsynced bytes", func(m *Mem, f File) error {
			return errors.Join(write(f, "new"), m.Rename("/d/x", "/d/y"), m.SyncDir("/d"))
		}, "old"},
		{"unsynced remove", func(m *Mem, f File) error { return m.Remove("/d/x") }, "old"},
		{"synced remove", func(m *Mem, f File) error {
			return errors.Join(m.Remove("/d/x"), m.SyncDir("/d"))
		}, "gone"},
		{"replaced by an unsynced file", func(m *Mem, f File) error {
			g, err := m.Create("/d/t")
			return errors.Join(err, write(g, "new"), m.Rename("/d/t", "/d/x"), m.SyncDir("/d"))
		}, ""},
		{"WriteFile", func(m *Mem, f File) error {
			return WriteFile(m, "/d/x", []byte("new"))
		}, "new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := NewMem(1)
			check(t, MkdirAllSync(m, "/d"))
			check(t, WriteFile(m, "/d/x", []byte("old")))
			f, err := m.Open("/d/x")
			check(t, err)
			check(t, tt.do(m, f))
			got := "gone"
			for _, name := range []string{"/d/x", "/d/y"} {
				if b, err := ReadFile(lose(m), name); err == nil {
					got = string(b)
				}
			}
			if got != tt.want {
				t.Errorf("after a crash %q, want %q", got, tt.want)
			}
		})
	}
}

func write(f File, data string) error {
	_, err := f.WriteAt([]byte(data), 0)
	return err
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMem(1)
		f := create(t, m, "/x", "data")
		check(t, m.SyncDir("/"))
		l, err := m.Lock("/LOCK")
		check(t, err)
		m.SetInjector(func(op Op) Fault { return Fault{Delay: time.Second} })
		done := make(chan error)
		go func() { done <- f.Sync() }()
		go func() { done <- m.Rename("/x", "/y") }()
		go func() { done <- m.SyncDir("/") }()
		synctest.Wait()
		m.Freeze()
		for range 3 {
			wantErr(t, "under way", <-done, ErrCrashed)
		}
		if got := contentOf(t, lose(m), "/x"); got != "" {
			t.Errorf("%q: a sync took effect after the disk was gone", got)
		}
		_, err = m.Create("/new")
		wantErr(t, "Create", err, ErrCrashed)
		_, err = f.ReadAt(make([]byte, 1), 0)
		wantErr(t, "ReadAt", err, ErrCrashed)
		_, err = f.WriteAt(make([]byte, 1), 0)
		wantErr(t, "WriteAt", err, ErrCrashed)
		_, err = f.Size()
		wantErr(t, "Size", err, ErrCrashed)
		wantErr(t, "SyncData", f.SyncData(), ErrCrashed)
		check(t, f.Close())
		check(t, l.Close())

		c := m.CrashClone(CrashOptions{Unsynced: Keep})
		if got := contentOf(t, c, "/x"); got != "data" {
			t.Errorf("the clone of a frozen Mem reads %q", got)
		}
		_, err = c.Lock("/LOCK")
		check(t, err)
	})
}

// TestOnOp cuts the power before and after every operation of a small history
// and checks that only the finished part is there.
func TestOnOp(t *testing.T) {
	t.Parallel()
	history := func(m *Mem) (synced int) {
		for i := range 5 {
			if WriteFile(m, "/x", []byte(strings.Repeat("x", i+1))) != nil {
				return synced
			}
			synced = i + 1
		}
		return synced
	}
	var ops []Op
	m := NewMem(1)
	m.OnOp(func(op Op, phase Phase) {
		if phase == Before {
			ops = append(ops, op)
		}
	})
	history(m)
	if len(ops) != 5*6 || ops[0].Kind != OpRemove || ops[4].Kind != OpRename || ops[4].From != "/x.tmp" || ops[29].Seq != 30 {
		t.Fatalf("operations %v", ops)
	}
	for _, cut := range ops {
		for _, phase := range []Phase{Before, After} {
			m := NewMem(1)
			m.OnOp(func(op Op, p Phase) {
				if op.Seq == cut.Seq && p == phase {
					m.Freeze()
				}
			})
			synced := history(m)
			got, _ := ReadFile(lose(m), "/x")
			// The operation that was cut may have made the next one durable.
			most := synced
			if cut.Kind == OpSyncDir && phase == After {
				most = int(cut.Seq) / 6
			}
			if len(got) < synced || len(got) > most {
				t.Errorf("cut %v %v: %d, want %d to %d", phase, cut, len(got), synced, most)
			}
			for seed := range uint64(20) {
				got, _ := ReadFile(m.CrashClone(CrashOptions{Seed: seed, Unsynced: Coin}), "/x")
				if len(got) < synced || len(got) > synced+1 || strings.Trim(string(got), "x") != "" {
					t.Errorf("cut %v %v, seed %d: %q after %d", phase, cut, seed, got, synced)
				}
			}
		}
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/x", strings.Repeat("x", 3*pageBytes))
	m.SetCapacity(5*pageBytes + 100)
	if free, err := m.Free("/"); free != 2*pageBytes+100 || err != nil {
		t.Errorf("Free = %d, %v", free, err)
	}
	if u, err := m.Usage("/"); u != (Usage{2*pageBytes + 100, 5*pageBytes + 100}) || err != nil {
		t.Errorf("Usage = %+v, %v", u, err)
	}
	n, err := f.WriteAt(make([]byte, 5*pageBytes), pageBytes/2)
	wantErr(t, "WriteAt", err, syscall.ENOSPC)
	if !NoSpace(err) {
		t.Errorf("NoSpace(%v) = false", err)
	}
	if n != 5*pageBytes-pageBytes/2 {
		t.Errorf("WriteAt = %d, want up to the end of the fifth page", n)
	}
	if n, err := f.WriteAt(make([]byte, 5*pageBytes), 0); n != 5*pageBytes || err != nil {
		t.Errorf("WriteAt over what is there = %d, %v", n, err)
	}
	g := create(t, m, "/y", "")
	wantErr(t, "Preallocate", g.Preallocate(1), syscall.ENOSPC)
	if size, _ := g.Size(); size != 0 {
		t.Errorf("a failed Preallocate made the file %d bytes long", size)
	}
	check(t, f.Truncate(pageBytes+1))
	check(t, g.Preallocate(3*pageBytes))
	n, err = g.WriteAt([]byte("x"), 3*pageBytes)
	wantErr(t, "WriteAt", err, syscall.ENOSPC)
	if n != 0 {
		t.Errorf("WriteAt = %d on a full disk", n)
	}

	check(t, m.Remove("/x"))
	wantErr(t, "space of a removed file that is open", g.Preallocate(4*pageBytes), syscall.ENOSPC)
	check(t, f.Close())
	check(t, g.Preallocate(5*pageBytes))
	check(t, g.Close())
	check(t, m.Rename("/y", "/w"))
	if free, err := m.Free("/"); free != 100 || err != nil {
		t.Errorf("Free = %d, %v after a rename", free, err)
	}
	g, err = m.Open("/w")
	check(t, err)
	m.SetCapacity(0)
	wantErr(t, "WriteAt", write(create(t, m, "/z", ""), "x"), syscall.ENOSPC)
	m.SetCapacity(-1)
	check(t, g.Preallocate(50*pageBytes))
}

// TestSparse: what was only preallocated, or written as zeros, takes no memory.
func TestSparse(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/x", "")
	check(t, f.Preallocate(64<<20))
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		_, err := f.WriteAt(zeros, off)
		check(t, err)
	}
	check(t, write(f, "x"))
	check(t, f.Sync())
	c := f.(*memFile).n.data
	if len(c.pages) != 1 || len(c.loose) != 0 {
		t.Errorf("%d pages, %d unsynced, want 1 and 0", len(c.pages), len(c.loose))
	}
	if m.used != 64<<20 {
		t.Errorf("used %d bytes", m.used)
	}
}

// TestClonesAreSeparate: a clone and its original share bytes, not changes.
func TestClonesAreSeparate(t *testing.T) {
	t.Parallel()
	for name, clone := range map[string]func(*Mem) *Mem{
		"crash": func(m *Mem) *Mem { return m.CrashClone(CrashOptions{Unsynced: Keep}) },
		"kill":  (*Mem).KillClone,
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMem(1)
			f := create(t, m, "/x", "original")
			c := clone(m)
			check(t, write(f, "ORIGINAL"))
			if got := contentOf(t, c, "/x"); got != "original" {
				t.Errorf("the clone reads %q", got)
			}
			g, err := c.Open("/x")
			check(t, err)
			check(t, write(g, "cl"))
			check(t, c.Remove("/x"))
			if got := contentOf(t, m, "/x"); got != "ORIGINAL" {
				t.Errorf("the original reads %q", got)
			}
			if m.Stats().Ops[OpRemove] != 0 || c.Stats().Ops[OpRemove] != 1 {
				t.Error("clone and original count operations together")
			}
		})
	}
}

func TestKillClone(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	create(t, m, "/x", "cached")
	_, err := m.Lock("/LOCK")
	check(t, err)
	k := m.KillClone()
	if got := contentOf(t, k, "/x"); got != "cached" {
		t.Errorf("the next process reads %q", got)
	}
	_, err = k.Lock("/LOCK")
	check(t, err)
	if _, err := lose(k).Stat("/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the kill made a name durable: %v", err)
	}
	check(t, k.SyncDir("/"))
	if got := contentOf(t, lose(k), "/x"); got != "" {
		t.Errorf("the kill made %q durable", got)
	}
	f, err := k.Open("/x")
	check(t, err)
	check(t, f.Sync())
	if got := contentOf(t, lose(k), "/x"); got != "cached" {
		t.Errorf("after a sync %q", got)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	check(t, MkdirAllSync(m, "/d/e"))
	check(t, WriteFile(m, "/d/x", bytes.Repeat([]byte("x"), 2000)))
	f, err := m.Open("/d/x")
	check(t, err)
	check(t, write(f, "new"))
	check(t, m.Corrupt("/d/x", 1500, func(b []byte) {
		if len(b) != 500 {
			t.Errorf("%d bytes to damage, want 500", len(b))
		}
		b[0] ^= 1
		b[499] = 0
	}))
	want := bytes.Repeat([]byte("x"), 2000)
	want[1500], want[1999] = 'y', 0
	if got := contentOf(t, lose(m), "/d/x"); got != string(want) {
		t.Error("the damage is not durable, or it made more durable than itself")
	}
	copy(want, "new")
	if got := contentOf(t, m, "/d/x"); got != string(want) {
		t.Error("the damage does not show")
	}
	_, err = f.WriteAt([]byte("later"), 1500)
	check(t, err)
	if got := contentOf(t, lose(m), "/d/x"); got[1500:1505] != "yxxxx" {
		t.Errorf("after an unsynced write over the damage %q is durable", got[1500:1505])
	}
	if err := m.Corrupt("/d/x", 2000, func([]byte) {}); err == nil {
		t.Error("Corrupt past the end succeeded")
	}
	wantErr(t, "Corrupt", m.Corrupt("/d/no", 0, nil), fs.ErrNotExist)
	wantErr(t, "Lose", m.Lose("/d/no"), fs.ErrNotExist)
	check(t, m.Lose("/d"))
	if _, err := lose(m).Stat("/d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
}

// TestMemConcurrent is for the race detector: everything at once, and clones
// of clones.
func TestMemConcurrent(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/shared", "")
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			p := make([]byte, 3000)
			for range 100 {
				off := rng.Int64N(50_000)
				_, _ = f.WriteAt(p, off)
				_, _ = f.ReadAt(p, off)
				p[rng.IntN(len(p))]++
				name := fmt.Sprint("/", rng.IntN(5))
				if g, err := m.Create(name); err == nil {
					_ = errors.Join(write(g, name), g.Sync(), m.SyncDir("/"), m.Rename(name, name+"x"), g.Close())
				}
				_ = errors.Join(f.SyncData(), m.Remove(name+"x"))
				c := m.CrashClone(CrashOptions{Seed: rng.Uint64(), Unsynced: Coin}).KillClone()
				if g, err := c.Open("/shared"); err == nil {
					_ = errors.Join(write(g, name), g.Sync())
				}
			}
		})
	}
	wg.Wait()
}

// TestFilesCrash cuts MkdirAllSync and WriteFile at each operation, by a kill
// that a restart and then a power cut follow.
func TestFilesCrash(t *testing.T) {
	t.Parallel()
	history := func(fsys FS) error {
		return errors.Join(MkdirAllSync(fsys, "/a/b/c"), WriteFile(fsys, "/a/b/c/x", []byte("data")))
	}
	m := NewMem(1)
	check(t, history(m))
	total := m.Stats()
	ops := uint64(0)
	for _, n := range total.Ops {
		ops += uint64(n)
	}
	for cut := uint64(1); cut <= ops; cut++ {
		m := NewMem(1)
		m.OnOp(func(op Op, phase Phase) {
			if op.Seq == cut && phase == Before {
				m.Freeze()
			}
		})
		wantErr(t, "history", history(m), ErrCrashed)
		k := m.KillClone()
		check(t, history(k))
		if got := contentOf(t, lose(k), "/a/b/c/x"); got != "data" {
			t.Errorf("killed before operation %d: %q", cut, got)
		}
	}
}
