package control

import (
	"errors"
	"flag"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/golden/v1 anew: only for a format that was never released")

// What the files of testdata/golden/v1 hold, once writeGolden has run.
var goldenEntries = []Entry{
	{Index: 1000, Term: 2, Type: 0, AppendedAt: 1_700_000_000_123_456_789, Data: []byte("an entry")},
	{Index: 1001, Term: 2, Type: 4, Extensions: []byte("extensions"), Data: []byte("and data")},
	{Index: 1002, Term: 3, Type: 1},
}

var goldenVotes = map[uint32]Vote{
	0: {Incarnation: 0x0123_4567_89ab_cdef, Term: 7, VoteTerm: 6, Candidate: []byte("2-00c0ffee")},
	9: {Incarnation: 1, Term: 1},
}

func writeGolden(fs vfs.FS, dir string) error {
	l, err := OpenLog(fs, dir+"/log", Options{})
	if err != nil {
		return err
	}
	v, err := OpenVotes(fs, dir+"/votes", Options{})
	if err != nil {
		return err
	}
	return errors.Join(
		l.Append(goldenEntries[:2]),
		l.Append(goldenEntries[2:]),
		v.Store(0, Vote{Incarnation: 5, Term: 5}),
		v.Store(4, Vote{Incarnation: 5, Term: 5}),
		v.Store(9, goldenVotes[9]),
		v.Delete(4),
		v.Store(0, goldenVotes[0]),
		l.Close(), v.Close(),
	)
}

// TestGolden opens the files of every released version, and writes those of the
// newest byte by byte, on tidwall/wal and on the double.
func TestGolden(t *testing.T) {
	t.Parallel()
	const dir = "testdata/golden/v1"
	if *update {
		if err := vfs.OS.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := writeGolden(vfs.OS, dir); err != nil {
			t.Fatal(err)
		}
	}
	log, votes := readImage(t, dir+"/log"), readImage(t, dir+"/votes")
	onBoth(t, func(t *testing.T, fs vfs.FS, at string) {
		if err := writeGolden(fs, at); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]image{at + "/log": log, at + "/votes": votes} {
			got := make(image)
			names, err := fs.ReadDir(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range names {
				if got[file], err = vfs.ReadFile(fs, filepath.Join(name, file)); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s is written differently (-golden +got):\n%s", name, diff)
			}
		}
		checkLog(t, openLog(t, log.on(t, fs, at+"/read/log"), at+"/read/log", Options{}), goldenEntries)
		fs = votes.on(t, fs, at+"/read/votes")
		if diff := cmp.Diff(goldenVotes, votesOf(openVotes(t, fs, at+"/read/votes", Options{}), 10)); diff != "" {
			t.Errorf("votes differ (-want +got):\n%s", diff)
		}
	})
}
