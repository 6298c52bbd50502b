package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// modelFile is what may be left of a file, written down naively: sector by
// sector, with nothing shared.
type modelFile struct {
	f          File
	id         uint64
	now, saved [modelBytes]byte
	state      [modelBytes / sectorBytes]sectorState
	size       int64
	savedSize  int64
	resized    bool
}

const modelBytes = 24 << 10

type sectorState uint8

const (
	clean sectorState = iota
	dirty
	lost
)

func (f *modelFile) write(p []byte, off int64) {
	copy(f.now[off:], p)
	f.mark(off, off+int64(len(p)))
	end := off + int64(len(p))
	f.resized = f.resized || end > f.size || end > f.savedSize
	f.size = max(f.size, end)
}

func (f *modelFile) mark(lo, hi int64) {
	for s := lo / sectorBytes; s*sectorBytes < hi; s++ {
		f.state[s] = dirty
	}
}

func (f *modelFile) truncate(size int64) {
	if size < f.size {
		clear(f.now[size:])
		f.mark(size, modelBytes)
	}
	f.resized = f.resized || size != f.size
	f.size = size
}

func (f *modelFile) sync(ok bool) {
	for s, st := range f.state {
		lo, hi := s*sectorBytes, (s+1)*sectorBytes
		switch {
		case st != dirty:
		case ok:
			copy(f.saved[lo:hi], f.now[lo:hi])
			f.state[s] = clean
		default:
			f.state[s] = lost
		}
	}
	if ok && f.resized {
		f.savedSize = f.size
	}
	f.resized = false
}

// verify says what is wrong with data as what a crash left of f.
func (f *modelFile) verify(data []byte, how Unsynced) error {
	size := int64(len(data))
	lo, hi := min(f.size, f.savedSize), max(f.size, f.savedSize)
	switch {
	case how == Lose && size != f.savedSize, how == Keep && size != f.size:
		return fmt.Errorf("size %d, now %d, saved %d", size, f.size, f.savedSize)
	case size < lo || size > hi, size != f.size && size != f.savedSize && (size%sectorBytes != 0 || f.size < f.savedSize):
		return fmt.Errorf("size %d, now %d, saved %d", size, f.size, f.savedSize)
	}
	for at := int64(0); at < size; at += sectorBytes {
		end := min(size, at+sectorBytes)
		got, s := data[at:end], at/sectorBytes
		isNow, isSaved := bytes.Equal(got, f.now[at:end]), bytes.Equal(got, f.saved[at:end])
		switch {
		case how == Lose && !isSaved, how == Keep && !isNow, !isNow && !isSaved:
			return fmt.Errorf("sector %d is neither what was written nor what was saved, or the wrong one", s)
		case f.state[s] == clean && !isNow:
			return fmt.Errorf("sector %d was synced and is lost", s)
		}
	}
	return nil
}

// modelNames is a directory tree: path -> id of what is there.
type modelNames map[string]uint64

type modelOp struct {
	dirs  []string
	apply func(modelNames)
}

type model struct {
	m       *Mem
	rng     *rand.Rand
	files   []*modelFile
	saved   modelNames
	pending []modelOp
	log     []string
}

func (w *model) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *model) now() modelNames { return w.after(func(int) bool { return true }) }

// after returns the names if the pending operations that kept picks survive.
func (w *model) after(kept func(i int) bool) modelNames {
	out := maps.Clone(w.saved)
	for i, op := range w.pending {
		if kept(i) {
			op.apply(out)
		}
	}
	return out
}

// possible returns every state of the names that a crash may leave: in each
// directory the first few operations, and a rename in both or in neither.
func (w *model) possible() (out []modelNames) {
	for set := range 1 << len(w.pending) {
		cut := make(map[string]bool)
		ok := true
		for i, op := range w.pending {
			for _, d := range op.dirs {
				if set&(1<<i) != 0 && cut[d] {
					ok = false
				}
				if set&(1<<i) == 0 {
					cut[d] = true
				}
			}
		}
		if ok {
			out = append(out, w.after(func(i int) bool { return set&(1<<i) != 0 }))
		}
	}
	return out
}

func (w *model) syncDir(dir string) {
	in := make([]bool, len(w.pending))
	reach := map[string]bool{dir: true}
	for i := len(w.pending) - 1; i >= 0; i-- {
		if slices.ContainsFunc(w.pending[i].dirs, func(d string) bool { return reach[d] }) {
			in[i] = true
			for _, d := range w.pending[i].dirs {
				reach[d] = true
			}
		}
	}
	w.saved = w.after(func(i int) bool { return in[i] })
	var rest []modelOp
	for i, op := range w.pending {
		if !in[i] {
			rest = append(rest, op)
		}
	}
	w.pending = rest
}

var modelDirs = []string{"/a", "/b"}

func (w *model) path() (dir, name string) {
	dir = modelDirs[w.rng.IntN(len(modelDirs))]
	return dir, dir + "/" + string(rune('p'+w.rng.IntN(4)))
}

func (w *model) step() error {
	limit := len(w.pending) > 5 // keeps possible small
	dir, name := w.path()
	kind := w.rng.IntN(16)
	switch {
	case kind == 0 || limit:
		w.note("syncdir %s", dir)
		w.syncDir(dir)
		return w.m.SyncDir(dir)
	case kind <= 2:
		f, err := w.m.Create(name)
		w.note("create %s: %v", name, err)
		if err != nil {
			return nil
		}
		id := f.(*memFile).n.id
		w.files = append(w.files, &modelFile{f: f, id: id})
		w.pending = append(w.pending, modelOp{[]string{dir}, func(n modelNames) { n[name] = id }})
		return nil
	case kind == 3:
		if w.m.Remove(name) == nil {
			w.note("remove %s", name)
			w.pending = append(w.pending, modelOp{[]string{dir}, func(n modelNames) { delete(n, name) }})
		}
		return nil
	case kind == 4:
		to, target := w.path()
		id, ok := w.now()[name]
		if err := w.m.Rename(name, target); ok != (err == nil) {
			return fmt.Errorf("rename %s: %v, known %v", name, err, ok)
		}
		if ok && name != target {
			w.note("rename %s to %s", name, target)
			w.pending = append(w.pending, modelOp{[]string{dir, to}, func(n modelNames) { delete(n, name); n[target] = id }})
		}
		return nil
	case len(w.files) == 0:
		return nil
	}
	f := w.files[w.rng.IntN(len(w.files))]
	off := w.rng.Int64N(modelBytes / 2)
	switch {
	case kind <= 10:
		p := make([]byte, w.rng.IntN(modelBytes/2))
		if w.rng.IntN(3) > 0 {
			p = p[:w.rng.IntN(700)%(len(p)+1)]
		}
		if w.rng.IntN(5) > 0 { // else zeros
			for i := range p {
				p[i] = byte(w.rng.Uint32() >> 8)
			}
		}
		w.note("write %d: %d at %d", f.id, len(p), off)
		if len(p) > 0 {
			f.write(p, off)
		}
		_, err := f.f.WriteAt(p, off)
		return err
	case kind == 11:
		w.note("truncate %d to %d", f.id, off)
		f.truncate(off)
		return f.f.Truncate(off)
	case kind == 12:
		w.note("preallocate %d to %d", f.id, off)
		f.truncate(max(off, f.size))
		return f.f.Preallocate(off)
	case kind == 13:
		w.note("failing sync %d", f.id)
		f.sync(false)
		w.m.SetInjector(func(Op) Fault { return Fault{Err: syscall.EIO} })
		defer w.m.SetInjector(nil)
		if err := f.f.Sync(); !errors.Is(err, syscall.EIO) {
			return fmt.Errorf("sync = %v, want EIO", err)
		}
		return nil
	default:
		w.note("sync %d", f.id)
		f.sync(true)
		return f.f.SyncData()
	}
}

// crash checks one crash of each kind.
func (w *model) crash() error {
	for _, how := range []Unsynced{Lose, Keep, Coin, Coin} {
		opt := CrashOptions{Seed: w.rng.Uint64(), Unsynced: how}
		if err := w.verify(w.m.CrashClone(opt), how); err != nil {
			return fmt.Errorf("%v crash, seed %d: %w", how, opt.Seed, err)
		}
		if err := w.verify(w.m.KillClone().CrashClone(opt), how); err != nil {
			return fmt.Errorf("%v crash after a kill, seed %d: %w", how, opt.Seed, err)
		}
	}
	return w.verify(w.m.KillClone(), Keep)
}

func (w *model) verify(c *Mem, how Unsynced) error {
	got := make(modelNames)
	for _, dir := range modelDirs {
		for base, n := range c.root.dir.now[dir[1:]].dir.now {
			got[dir+"/"+base] = n.id
		}
	}
	allowed := w.possible()
	switch how {
	case Lose:
		allowed = []modelNames{w.saved}
	case Keep:
		allowed = []modelNames{w.now()}
	}
	if !slices.ContainsFunc(allowed, func(n modelNames) bool { return maps.Equal(n, got) }) {
		return fmt.Errorf("names %v, allowed %v", got, allowed)
	}
	for name, id := range got {
		f := w.files[slices.IndexFunc(w.files, func(f *modelFile) bool { return f.id == id })]
		data, err := readPlus(c, name)
		if err != nil {
			return err
		}
		if err := f.verify(data, how); err != nil {
			return fmt.Errorf("file %d at %s: %w", id, name, err)
		}
	}
	if c.used != usedBy(c.root) {
		return fmt.Errorf("used %d bytes, the files take %d", c.used, usedBy(c.root))
	}
	return nil
}

// readPlus reads a file, and then checks that it has its place on the disk and
// grows by zeros.
func readPlus(c *Mem, name string) ([]byte, error) {
	data, err := ReadFile(c, name)
	if err != nil {
		return nil, err
	}
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(modelBytes); err != nil {
		return nil, err
	}
	grown, err := ReadFile(c, name)
	if err == nil && len(bytes.Trim(grown[len(data):], "\x00")) > 0 {
		err = fmt.Errorf("%s grows by more than zeros", name)
	}
	for i, pg := range f.(*memFile).n.data.pages {
		if pg.cur != nil && !f.(*memFile).n.data.space.has(i) {
			err = fmt.Errorf("%s: page %d takes no space", name, i)
		}
	}
	return data, err
}

// TestCrashModel plays random operations, failed syncs among them, on a Mem and
// on a naive model, and cuts the power now and then.
func TestCrashModel(t *testing.T) {
	t.Parallel()
	for range 15 {
		seed := rand.Uint64()
		w := &model{m: NewMem(seed), rng: rand.New(rand.NewPCG(seed, 1)), saved: make(modelNames)}
		for _, dir := range modelDirs {
			check(t, MkdirAllSync(w.m, dir))
		}
		for i := range 150 {
			err := w.step()
			if err == nil && i%3 == 0 {
				err = w.crash()
			}
			if err != nil {
				t.Fatalf("seed %d, step %d: %v\n%s", seed, i, err, strings.Join(w.log, "\n"))
			}
		}
	}
}

// TestCoinDraws checks that Coin does not always do the same: every outcome of
// a small history turns up.
func TestCoinDraws(t *testing.T) {
	t.Parallel()
	m := NewMem(1)
	f := create(t, m, "/x", strings.Repeat("o", 2*sectorBytes))
	check(t, f.Sync())
	check(t, m.SyncDir("/"))
	_, err := f.WriteAt(bytes.Repeat([]byte("n"), 4*sectorBytes), 0)
	check(t, err)
	check(t, m.Rename("/x", "/y"))
	create(t, m, "/z", "")

	seen := make(map[string]int)
	for seed := range uint64(4000) {
		c := m.CrashClone(CrashOptions{Seed: seed, Unsynced: Coin})
		names, err := c.ReadDir("/")
		check(t, err)
		data := contentOf(t, c, "/"+names[0])
		sum := strings.Join(names, ",") + " "
		for at := 0; at < len(data); at += sectorBytes {
			sum += string(max(data[at], '-'))
		}
		seen[sum]++
		if again := m.CrashClone(CrashOptions{Seed: seed, Unsynced: Coin}); contentOf(t, again, "/"+names[0]) != data {
			t.Fatalf("seed %d gave two states", seed)
		}
	}
	// Names: x, y, or y and z. Sectors: 2 old or new ones, alone or with one or
	// two more, new or zeros.
	if want := 3 * (4 + 4*2 + 4*4); len(seen) != want {
		t.Errorf("%d outcomes, want %d: %v", len(seen), want, slices.Sorted(maps.Keys(seen)))
	}
}
