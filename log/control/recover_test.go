package control

import (
	"bytes"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// segmentedImage returns tidwall/wal's files for entries [1, 13), each appended
// by itself, and the name of the last segment.
func segmentedImage(t *testing.T) (im image, last string) {
	t.Helper()
	dir := t.TempDir()
	l := openLog(t, vfs.OS, dir, Options{SegmentBytes: 300})
	for _, e := range entries(1, 13, 0x0101, 20) {
		if err := l.Append([]Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	im = readImage(t, dir)
	names := slices.Sorted(maps.Keys(im))
	if len(names) < 3 || len(im[names[len(names)-1]]) < 100 {
		t.Fatalf("segments %v are not what this test needs", names)
	}
	return im, names[len(names)-1]
}

// eachCut calls test with every state that a cut at a byte may leave: the file
// short, and its rest zero-filled.
func eachCut(data []byte, test func(cut int, torn []byte)) {
	for cut := range len(data) {
		test(cut, data[:cut:cut])
		test(cut, append(data[:cut:cut], make([]byte, len(data)-cut)...))
	}
}

// TestOpenAfterCut cuts the last segment at every byte. Whatever the cut,
// OpenLog must keep exactly the entries that were whole before it, and take the
// next one; the other files are complete by then.
func TestOpenAfterCut(t *testing.T) {
	t.Parallel()
	im, last := segmentedImage(t)
	whole := segment{first: indexOf(last), data: im[last]}
	if err := whole.scan(last, true, acceptAll); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	eachCut(im[last], func(cut int, torn []byte) {
		next := whole.first
		for _, end := range whole.ends {
			if end <= cut {
				next++
			}
		}
		if err := vfs.OS.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		im.with(last, torn).write(t, dir)
		l, err := OpenLog(vfs.OS, dir, Options{SegmentBytes: 300})
		if err != nil {
			t.Fatalf("cut=%d of %d bytes: %v", cut, len(torn), err)
		}
		defer l.Close()
		if l.First() != 1 || l.Last() != next-1 {
			t.Fatalf("cut=%d of %d bytes: [%d, %d], want [1, %d]", cut, len(torn), l.First(), l.Last(), next-1)
		}
		if err := l.Append(entries(next, next+1, 9, 20)); err != nil {
			t.Fatalf("cut=%d of %d bytes: Append: %v", cut, len(torn), err)
		}
	})
}

// TestOpenSealedCut cuts a segment that has a successor: no crash does that.
func TestOpenSealedCut(t *testing.T) {
	t.Parallel()
	im, last := segmentedImage(t)
	for name, data := range im {
		if name == last {
			continue
		}
		eachCut(data, func(cut int, torn []byte) {
			m := im.with(name, torn).mem(t, "/log")
			_, err := OpenLog(m, "/log", Options{})
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut=%d of %d bytes: %v, want ErrCorrupt", name, cut, len(torn), err)
			}
		})
	}
}

// TestOpenFlipped flips every bit, and every byte whole, of every file. All of
// it had been synced, so none of it may pass for a torn tail, not even in the
// last record, and the files stay as they are.
func TestOpenFlipped(t *testing.T) {
	t.Parallel()
	im, last := segmentedImage(t)
	dir := filepath.Join(t.TempDir(), "log")
	im.write(t, dir)
	for name, data := range im {
		for i := range data {
			for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
				hurt := bytes.Clone(data)
				hurt[i] ^= flip
				s := segment{first: indexOf(name), data: hurt}
				err := s.scan(name, name == last, acceptAll)
				var ce *CorruptError
				if !errors.As(err, &ce) || !errors.Is(err, ErrCorrupt) || ce.Path != name {
					t.Fatalf("%s byte %d ^ %#x: %v, want a CorruptError", name, i, flip, err)
				}
				if end := int(ce.Offset); end > i || end+100 < i {
					t.Fatalf("%s byte %d ^ %#x: reported at %d", name, i, flip, ce.Offset)
				}
			}
			if i%16 != 0 {
				continue
			}
			hurt := im.with(name, bytes.Clone(data))
			hurt[name][i] ^= 1
			hurt.write(t, dir)
			if _, err := OpenLog(vfs.OS, dir, Options{}); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s byte %d: OpenLog = %v, want ErrCorrupt", name, i, err)
			}
			if diff := cmp.Diff(hurt, readImage(t, dir)); diff != "" {
				t.Fatalf("%s byte %d: OpenLog changed a corrupt log:\n%s", name, i, diff)
			}
			im.write(t, dir)
		}
	}
}

// TestOpenLostSector zeroes a sector in the middle of a log. If its entry was
// answered, that is corruption; if it was part of an Append that never was, a
// torn tail, although intact entries follow.
func TestOpenLostSector(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		for _, tt := range []struct {
			name    string
			appends [][]Entry
			want    error
		}{
			{"answered", [][]Entry{entries(1, 3, 1, 1000), entries(3, 4, 1, 1000), entries(4, 5, 1, 1000)}, ErrCorrupt},
			{"one append", [][]Entry{entries(1, 3, 1, 1000), entries(3, 5, 1, 1000)}, nil},
		} {
			dir := dir + "/" + tt.name
			l := openLog(t, fs, dir, Options{})
			for _, es := range tt.appends {
				if err := l.Append(es); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			f, err := fs.Open(dir + "/" + segmentName(1))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(make([]byte, sectorBytes), 5*sectorBytes); err != nil { // within entry 3
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			l, err = OpenLog(fs, dir, Options{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("%s: OpenLog = %v, want %v", tt.name, err, tt.want)
			}
			if err == nil {
				defer l.Close()
				checkLog(t, l, entries(1, 3, 1, 1000))
			}
		}
	})
}

// TestOpenInterrupted opens what truncations leave when they are interrupted.
func TestOpenInterrupted(t *testing.T) {
	t.Parallel()
	im, _ := segmentedImage(t)
	names := slices.Sorted(maps.Keys(im))
	second := segment{first: indexOf(names[1]), data: im[names[1]]}
	if err := second.scan(names[1], false, acceptAll); err != nil {
		t.Fatal(err)
	}
	cutFront := second.data[second.ends[0]:] // without its first record
	cutBack := second.data[:second.ends[0]]  // only that
	startName := segmentName(second.first+1) + suffixStart
	endName := names[1] + suffixEnd
	without := func(im image, names ...string) image {
		out := maps.Clone(im)
		for _, n := range names {
			delete(out, n)
		}
		return out
	}
	start, end := im.with(startName, cutFront), im.with(endName, cutBack)
	tests := []struct {
		name     string
		im       image
		lo, hi   uint64 // the entries, half-open
		want     error
		extra    string // a foreign file that stays
		leftOver int    // files that are not segments
	}{
		{name: "unfinished files", im: im.with(startName+".TEMP", cutFront).with(names[0]+".tmp", nil), lo: 1, hi: 13},
		{name: "front, decided", im: start, lo: second.first + 1, hi: 13},
		{name: "front, one removed", im: without(start, names[0]), lo: second.first + 1, hi: 13},
		{name: "front, all removed", im: without(start, names[0], names[1]), lo: second.first + 1, hi: 13},
		{name: "back, decided", im: end, lo: 1, hi: second.first + 1},
		{name: "back, one removed", im: without(end, names[1]), lo: 1, hi: second.first + 1},
		{name: "back, all removed", im: without(end, names[1:]...), lo: 1, hi: second.first + 1},
		{name: "back, to nothing", im: image{names[0]: im[names[0]], names[0] + suffixEnd: nil}, lo: 0, hi: 1},
		{name: "both", im: start.with(endName, cutBack), want: ErrCorrupt},
		{name: "segment missing", im: without(im, names[1]), want: ErrCorrupt},
		{name: "segment under another name", im: without(im.with(segmentName(2), im[names[0]]), names[0]), want: ErrCorrupt},
		{name: "foreign files", im: im.with("README", []byte("x")).with("00000000000000000000", nil), lo: 1, hi: 13, leftOver: 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			tt.im.write(t, dir)
			l, err := OpenLog(vfs.OS, dir, Options{SegmentBytes: 300})
			if !errors.Is(err, tt.want) {
				t.Fatalf("OpenLog = %v, want %v", err, tt.want)
			}
			if err != nil {
				if diff := cmp.Diff(tt.im, readImage(t, dir)); diff != "" {
					t.Errorf("OpenLog changed a corrupt log:\n%s", diff)
				}
				return
			}
			defer l.Close()
			if l.First() != tt.lo || l.Last() != tt.hi-1 {
				t.Errorf("[%d, %d], want [%d, %d)", l.First(), l.Last(), tt.lo, tt.hi)
			}
			foreign := 0
			for name := range readImage(t, dir) {
				if len(name) != 20 || indexOf(name) == 0 {
					foreign++
				}
			}
			if foreign != tt.leftOver {
				t.Errorf("%d files are no segments, want %d", foreign, tt.leftOver)
			}
		})
	}
}

// TestOpenOtherKind opens each log as the other.
func TestOpenOtherKind(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		l, v := openLog(t, fs, dir+"/log", Options{}), openVotes(t, fs, dir+"/votes", Options{})
		if err := errors.Join(l.Append(entries(1, 2, 1, 1)), v.Store(1, vote(1)), l.Close(), v.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenLog(fs, dir+"/votes", Options{}); !errors.Is(err, ErrVersion) {
			t.Errorf("OpenLog of votes = %v, want ErrVersion", err)
		}
		if _, err := OpenVotes(fs, dir+"/log", Options{}); !errors.Is(err, ErrVersion) {
			t.Errorf("OpenVotes of a log = %v, want ErrVersion", err)
		}
	})
}

// TestOpenRefused opens logs with an intact record that makes no sense, and a
// torn tail, which must not be repaired either.
func TestOpenRefused(t *testing.T) {
	t.Parallel()
	log := func(fs vfs.FS, dir string) error { _, err := OpenLog(fs, dir, Options{}); return err }
	votes := func(fs vfs.FS, dir string) error { _, err := OpenVotes(fs, dir, Options{}); return err }
	for _, tt := range []struct {
		name string
		open func(fs vfs.FS, dir string) error
		f    frame
		want error
	}{
		{"unknown kind in a log", log, frame{index: 1, kind: 'X'}, ErrVersion},
		{"unknown kind among votes", votes, frame{index: 1, kind: 'X'}, ErrVersion},
		{"short entry", log, frame{index: 1, kind: kindEntry, payload: make([]byte, entryBytes-1)}, ErrCorrupt},
		{"long extensions", log, frame{index: 1, kind: kindEntry, payload: bytes.Repeat([]byte{1}, 60)}, ErrCorrupt},
		{"short vote", votes, frame{index: 1, kind: kindVote, payload: make([]byte, voteBytes-1)}, ErrCorrupt},
		{"long candidate", votes, frame{index: 1, kind: kindVote, payload: make([]byte, voteBytes+MaxCandidateBytes+1)}, ErrCorrupt},
		{"long delete", votes, frame{index: 1, kind: kindDelete, payload: make([]byte, 5)}, ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			im := image{segmentName(1): append(appendRecord(nil, appendFrame(nil, tt.f)), 90, 1)}
			im.write(t, dir)
			if err := tt.open(vfs.OS, dir); !errors.Is(err, tt.want) {
				t.Errorf("Open = %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(im, readImage(t, dir)); diff != "" {
				t.Errorf("Open changed the log:\n%s", diff)
			}
		})
	}
}
