package control

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

func checkLog(t *testing.T, l *Log, want []Entry) {
	t.Helper()
	got, err := contentsOf(l)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("log differs (-want +got):\n%s", diff)
	}
	var first, last uint64
	if len(want) > 0 {
		first, last = want[0].Index, want[len(want)-1].Index
	}
	if l.First() != first || l.Last() != last {
		t.Fatalf("log holds [%d, %d], want [%d, %d]", l.First(), l.Last(), first, last)
	}
	for _, index := range []uint64{0, first - 1, last + 1} {
		e := Entry{Term: 99}
		if err := l.Read(index, &e); err != ErrNotFound || e.Term != 99 {
			t.Fatalf("Read(%d) = %v, and set term %d; want plain ErrNotFound", index, err, e.Term)
		}
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		opt := Options{SegmentBytes: 300, MaxEntryBytes: 100}
		l := openLog(t, fs, dir, opt)
		reopen := func(want []Entry) {
			t.Helper()
			checkLog(t, l, want)
			if err := l.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			l = openLog(t, fs, dir, opt)
			checkLog(t, l, want)
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		reopen(nil)
		do(l.TruncateFront(7))
		do(l.TruncateBack(0))
		do(l.Append(nil))
		if err := l.Append(entries(0, 2, 1, 1)); !errors.Is(err, ErrGap) {
			t.Errorf("index 0 into an empty log: Append = %v, want ErrGap", err)
		}
		do(l.Append(entries(501, 506, 1, 20))) // any first index
		reopen(entries(501, 506, 1, 20))

		for name, bad := range map[string][]Entry{
			"gap":        entries(507, 508, 1, 1),
			"overlap":    entries(505, 506, 1, 1),
			"inner gap":  {entry(506, 1, 1), entry(508, 1, 1)},
			"index zero": {entry(0, 1, 1)},
		} {
			if err := l.Append(bad); !errors.Is(err, ErrGap) {
				t.Errorf("%s: Append = %v, want ErrGap", name, err)
			}
		}
		if err := l.Append([]Entry{entry(506, 1, 1), entry(507, 1, 99)}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("Append = %v, want ErrTooLarge", err)
		}
		checkLog(t, l, entries(501, 506, 1, 20))

		do(l.Append(entries(506, 521, 1, 20))) // over several segments
		reopen(entries(501, 521, 1, 20))
		do(l.TruncateFront(400))
		do(l.TruncateBack(600))
		reopen(entries(501, 521, 1, 20))
		do(l.TruncateFront(504))
		reopen(entries(504, 521, 1, 20))
		do(l.TruncateBack(510))
		do(l.Append(entries(511, 513, 2, 20))) // a divergent suffix replaced
		reopen(append(entries(504, 511, 1, 20), entries(511, 513, 2, 20)...))
		do(l.TruncateFront(512))
		reopen(entries(512, 513, 2, 20))

		do(l.TruncateFront(9000)) // all of it, and go on elsewhere
		reopen(nil)
		do(l.Append(entries(9001, 9010, 3, 20)))
		reopen(entries(9001, 9010, 3, 20))
		do(l.TruncateBack(9000)) // all of it, and go on below
		reopen(nil)
		do(l.Append(entries(40, 43, 3, 20)))
		do(l.TruncateBack(3))
		do(l.Append(entries(1, 3, 3, 20)))
		reopen(entries(1, 3, 3, 20))
		do(l.Append([]Entry{{Index: 3, Term: 256}})) // nothing in it
		reopen(append(entries(1, 3, 3, 20), Entry{Index: 3, Term: 256}))

		do(l.Close())
		if err := l.Read(1, new(Entry)); err != ErrClosed {
			t.Errorf("Read after Close = %v", err)
		}
		for _, err := range []error{l.Append(entries(4, 5, 1, 1)), l.TruncateFront(2), l.TruncateBack(9), l.Close()} {
			if err != ErrClosed {
				t.Errorf("after Close: %v, want ErrClosed", err)
			}
		}
	})
}

// TestLogAgainstModel runs random calls and compares the log with a slice.
func TestLogAgainstModel(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		for seed := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, 0))
			dir := fmt.Sprintf("%s/%d", dir, seed)
			opt := Options{SegmentBytes: 100 + rng.IntN(600)}
			l := openLog(t, fs, dir, opt)
			var model []Entry
			for step := range 60 {
				what, err := randomStep(rng, l, &model)
				if err != nil {
					t.Fatalf("seed %d step %d: %s: %v", seed, step, what, err)
				}
				if rng.IntN(8) == 0 {
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					opt.SegmentBytes = 100 + rng.IntN(600)
					l = openLog(t, fs, dir, opt)
				}
				got, err := contentsOf(l)
				if diff := cmp.Diff(model, got); diff != "" || err != nil {
					t.Fatalf("seed %d step %d: after %s: %v\n%s", seed, step, what, err, diff)
				}
			}
		}
	})
}

// randomStep changes the log and the model alike, and says how.
func randomStep(rng *rand.Rand, l *Log, model *[]Entry) (what string, err error) {
	m := *model
	var first, next uint64
	if len(m) > 0 {
		first, next = m[0].Index, m[len(m)-1].Index+1
	}
	near := func() uint64 { return max(2, first) - 2 + rng.Uint64N(next-first+5) }
	switch rng.IntN(5) {
	case 0:
		at := near()
		for len(m) > 0 && m[0].Index < at {
			m = m[1:]
		}
		what, err = fmt.Sprintf("TruncateFront(%d)", at), l.TruncateFront(at)
	case 1:
		at := near()
		for len(m) > 0 && m[len(m)-1].Index > at {
			m = m[:len(m)-1]
		}
		what, err = fmt.Sprintf("TruncateBack(%d)", at), l.TruncateBack(at)
	default:
		if len(m) == 0 {
			next = 1 + rng.Uint64N(100)
		}
		add := entries(next, next+1+rng.Uint64N(6), rng.Uint64N(1000), rng.IntN(120))
		for i := range add {
			if len(add[i].Data) == 0 {
				add[i].Data = nil
			}
		}
		m = append(m[:len(m):len(m)], add...)
		what, err = fmt.Sprintf("Append [%d, %d)", next, next+uint64(len(add))), l.Append(add)
	}
	if *model = m; len(m) == 0 {
		*model = nil
	}
	return what, err
}

// TestFailureIsFinal fails one write or sync and expects that nothing is tried
// again, that durable entries stay readable, and that a new Open goes on.
func TestFailureIsFinal(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, kind := range []vfs.OpKind{vfs.OpWriteAt, vfs.OpSyncData} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			m := vfs.NewMem(1)
			l := openLog(t, m, "/log", Options{})
			if err := l.Append(entries(1, 4, 1, 10)); err != nil {
				t.Fatal(err)
			}
			m.SetInjector(func(op vfs.Op) vfs.Fault {
				if op.Kind == kind {
					return vfs.Fault{Err: boom, Short: 7}
				}
				return vfs.Fault{}
			})
			if err := l.Append(entries(4, 6, 1, 10)); !errors.Is(err, ErrFailed) || !errors.Is(err, boom) {
				t.Fatalf("Append = %v, want ErrFailed for boom", err)
			}
			m.SetInjector(nil)
			before := m.Stats()
			for _, err := range []error{l.Append(entries(4, 5, 1, 1)), l.TruncateFront(2), l.TruncateBack(2), l.TruncateBack(9)} {
				if !errors.Is(err, ErrFailed) || !errors.Is(err, boom) {
					t.Errorf("after the failure: %v, want ErrFailed for boom", err)
				}
			}
			if diff := cmp.Diff(before, m.Stats()); diff != "" {
				t.Errorf("the disk was used after the failure:\n%s", diff)
			}
			checkLog(t, l, entries(1, 4, 1, 10))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			// What the reopened log shows has to outlast a power cut, although the
			// sync of some of it failed before.
			shown, err := contentsOf(openLog(t, m, "/log", Options{}))
			if err != nil || len(shown) < 3 {
				t.Fatalf("reopened: %d entries, %v", len(shown), err)
			}
			m = m.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
			checkLog(t, openLog(t, m, "/log", Options{}), shown)
		})
	}
}

// TestDamageSinceOpen changes a sealed segment that tidwall/wal reads late.
func TestDamageSinceOpen(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(b []byte) []byte{
		"flip":         func(b []byte) []byte { b[60] ^= 1; return b },
		"shrunk":       func(b []byte) []byte { return nil },
		"cut":          func(b []byte) []byte { return b[:len(b)-3] },
		"another size": func(b []byte) []byte { b[0]++; return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := openLog(t, vfs.OS, dir, Options{SegmentBytes: 200})
			if err := l.Append(entries(1, 30, 1, 20)); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openLog(t, vfs.OS, dir, Options{SegmentBytes: 200})
			im := readImage(t, dir)
			name := segmentName(1)
			image{name: hurt(bytes.Clone(im[name]))}.write(t, dir)
			var errs []error
			for i := uint64(1); i < 5; i++ {
				errs = append(errs, l.Read(i, new(Entry)))
			}
			if err := errors.Join(errs...); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Read = %v, want ErrCorrupt", err)
			}
			if err := l.Read(29, new(Entry)); err != nil {
				t.Errorf("Read of an intact segment: %v", err)
			}
		})
	}
}

// TestSyncs counts what a change on tidwall/wal waits for.
func TestSyncs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, vfs.OS, dir, Options{})
	if err := errors.Join(l.Append(entries(1, 6, 1, 20)), l.Close()); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, vfs.OS, dir, Options{SegmentBytes: 150}) // less than it has
	s := l.seq.rec.(*segmented)
	counted := &countedFS{FS: vfs.OS}
	s.fs = counted
	for i := uint64(6); i < 20; i++ {
		counted.dirs = 0
		before := len(readImage(t, dir))
		if err := l.Append(entries(i, i+1, 1, 20)); err != nil {
			t.Fatal(err)
		}
		if added := len(readImage(t, dir)) - before; counted.dirs != added {
			t.Errorf("entry %d: %d directory syncs for %d new segments", i, counted.dirs, added)
		}
	}
	for _, truncate := range []func() error{
		func() error { return l.TruncateFront(5) },
		func() error { return l.TruncateBack(12) },
		func() error { return l.TruncateFront(13) }, // all that is left
		func() error { return l.Append(entries(77, 78, 1, 1)) },
	} {
		counted.dirs = 0
		if err := truncate(); err != nil || counted.dirs == 0 {
			t.Errorf("truncation: %v, %d directory syncs", err, counted.dirs)
		}
	}
	// The sync of a change is tidwall/wal's own: on a closed log it must fail.
	if err := s.wal.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(); err == nil {
		t.Error("sync did not reach tidwall/wal")
	}
}

type countedFS struct {
	vfs.FS
	dirs int
}

func (c *countedFS) SyncDir(name string) error {
	c.dirs++
	return c.FS.SyncDir(name)
}

// TestSlowDisk lets calls wait for one another in virtual time, which stands
// still if one of them waits in a way that the bubble cannot see.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMem(1)
		l := openLog(t, m, "/log", Options{})
		v := openVotes(t, m, "/votes", Options{})
		m.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: time.Second}
			}
			return vfs.Fault{}
		})
		start := time.Now()
		done := make(chan error)
		go func() { done <- l.Append(entries(1, 5, 1, 10)) }()
		for shard := range uint32(100) {
			go func() { done <- v.Store(shard, Vote{Term: 1}) }()
		}
		synctest.Wait()
		if got := l.Last(); got != 4 { // waits for the sync
			t.Errorf("Last = %d", got)
		}
		for range 101 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("100 votes took %v at 1 s a sync, want two syncs at most", took)
		}
	})
}

// TestReadBesideAppend reads sealed segments from several goroutines while entries are
// appended and dropped: what is underneath takes one call at a time.
func TestReadBesideAppend(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		l := openLog(t, fs, dir, Options{SegmentBytes: 300})
		if err := l.Append(entries(1, 101, 1, 40)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for reader := range uint64(6) {
			wg.Go(func() {
				for n := range uint64(400) {
					index := 20 + (n*7+reader*13)%80
					var e Entry
					if err := l.Read(index, &e); err != nil || e.Index != index {
						t.Errorf("Read(%d) = entry %d, %v", index, e.Index, err)
						return
					}
				}
			})
		}
		for n := range uint64(20) {
			if err := l.Append(entries(101+n, 102+n, 1, 40)); err != nil {
				t.Error(err)
			}
			if err := l.TruncateFront(n + 1); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
	})
}

func BenchmarkLogAppend(b *testing.B) {
	for _, bc := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{{"tidwall", vfs.OS, b.TempDir()}, {"double", vfs.NewMem(1), "/"}} {
		b.Run("fs="+bc.name, func(b *testing.B) {
			l, err := OpenLog(bc.fs, path.Join(bc.dir, "log"), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			const size = 256
			b.SetBytes(size)
			b.ReportAllocs()
			for next := l.Last() + 1; b.Loop(); next++ {
				if err := l.Append([]Entry{entry(next, 1, size)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
