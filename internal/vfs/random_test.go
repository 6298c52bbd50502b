package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// player does random operations on a file system and says what came of each.
type player struct {
	fsys FS
	dir  string
	rng  *rand.Rand
	open map[string]File
}

var playNames = []string{"x", "y", "z", "d", "d/x", "d/y", "d/e", "d/e/z"}

func (p *player) step() string {
	name := func() string { return p.dir + "/" + playNames[p.rng.IntN(len(playNames))] }
	a, b := name(), name()
	off, n := p.rng.Int64N(12_000), p.rng.IntN(9_000)
	f, kind := p.open[a], p.rng.IntN(18)
	switch {
	case kind <= 1:
		f, err := p.fsys.Create(a)
		p.keep(a, f, err)
		return p.say("create", a, err)
	case kind == 2:
		f, err := p.fsys.Open(a)
		p.keep(a, f, err)
		return p.say("open", a, err)
	case kind == 3:
		return p.say("remove", a, p.fsys.Remove(a))
	case kind == 4 && p.rng.IntN(4) == 0:
		return p.say("removeall", a, p.fsys.RemoveAll(a))
	case kind == 5 || kind == 6:
		return p.say("rename "+a+" to", b, p.fsys.Rename(a, b))
	case kind == 7:
		return p.say("mkdir", a, p.fsys.MkdirAll(a))
	case kind == 8:
		names, err := p.fsys.ReadDir(a)
		return p.say(fmt.Sprint("readdir ", names), a, err)
	case kind == 9:
		return p.say("syncdir", a, p.fsys.SyncDir(a))
	case f == nil:
		_, err := p.fsys.Stat(a)
		return p.say("stat", a, err)
	case kind <= 12:
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(p.rng.Uint32() >> 8)
		}
		w, err := f.WriteVecAt([][]byte{data[:n/3], data[n/3:]}, off)
		return p.say(fmt.Sprintf("write %d at %d: %d", n, off, w), a, err)
	case kind == 13:
		return p.say(fmt.Sprint("truncate ", off), a, f.Truncate(off))
	case kind == 14:
		return p.say(fmt.Sprint("preallocate ", off), a, f.Preallocate(off))
	case kind == 15:
		return p.say("sync", a, errors.Join(f.Sync(), f.SyncData()))
	default:
		data := make([]byte, n)
		r, err := f.ReadAt(data, off)
		size, sizeErr := f.Size()
		return p.say(fmt.Sprintf("read %d at %d: %x of %d", n, off, data[:r], size), a, errors.Join(err, sizeErr))
	}
}

func (p *player) keep(name string, f File, err error) {
	if err != nil {
		return
	}
	if old := p.open[name]; old != nil {
		old.Close()
	}
	p.open[name] = f
}

// say reports an outcome without the directory, and an error by what it is.
func (p *player) say(what, name string, err error) string {
	kind := "ok"
	for _, known := range []error{fs.ErrExist, fs.ErrNotExist, fs.ErrClosed, io.EOF, syscall.EISDIR, syscall.EINVAL} {
		if errors.Is(err, known) {
			kind = known.Error()
		}
	}
	if kind == "ok" && err != nil {
		kind = "error"
	}
	return strings.ReplaceAll(what+" "+name+": "+kind, p.dir, "")
}

// TestMemIsLikeOS plays the same random operations on both.
func TestMemIsLikeOS(t *testing.T) {
	t.Parallel()
	for range 20 {
		seed := rand.Uint64()
		m := NewMem(seed)
		check(t, m.MkdirAll("/work"))
		play := func(fsys FS, dir string) (log []string) {
			p := player{fsys: fsys, dir: dir, rng: rand.New(rand.NewPCG(seed, 0)), open: make(map[string]File)}
			for range 250 {
				log = append(log, p.step())
			}
			for _, f := range p.open {
				f.Close()
			}
			return log
		}
		want, got := play(OS, t.TempDir()), play(m, "/work")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: Mem differs from OS (-OS +Mem):\n%s", seed, diff)
		}
		if left := m.root; usedBy(left) != m.used {
			t.Fatalf("seed %d: used %d bytes, the files take %d", seed, m.used, usedBy(left))
		}
	}
}
