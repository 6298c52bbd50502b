package sim

import (
	"path"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// forgetful is a disk that does not sync what it is told to forget, and says
// that it did.
type forgetful struct {
	vfs.FS
	files func(name string) bool
	dirs  func(name string) bool
}

// Create implements vfs.FS.
func (f *forgetful) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return f.file(name, file), err
}

// Open implements vfs.FS.
func (f *forgetful) Open(name string) (vfs.File, error) {
	file, err := f.FS.Open(name)
	return f.file(name, file), err
}

func (f *forgetful) file(name string, file vfs.File) vfs.File {
	if file != nil && f.files(name) {
		return forgetfulFile{file}
	}
	return file
}

// SyncDir implements vfs.FS.
func (f *forgetful) SyncDir(name string) error {
	if f.dirs(name) {
		return nil
	}
	return f.FS.SyncDir(name)
}

type forgetfulFile struct{ vfs.File }

// Sync implements vfs.File.
func (forgetfulFile) Sync() error { return nil }

// SyncData implements vfs.File.
func (forgetfulFile) SyncData() error { return nil }

// TestSimCatches shows that the simulator would see the syncs missing that
// matter: with those of one kind of file left out, some seed must fail, within
// so few that the random histories cannot all have been lucky.
func TestSimCatches(t *testing.T) {
	t.Parallel()
	const within = uint64(60) // seeds; a few are enough, mostly
	none := func(string) bool { return false }
	under := func(dir, suffix string) func(string) bool {
		return func(name string) bool {
			return strings.HasPrefix(name, path.Join(dataDir, dir)) && strings.HasSuffix(name, suffix)
		}
	}
	for _, tt := range []struct {
		name        string
		files, dirs func(string) bool
	}{
		{"journal", under("journal", ".journal"), none},
		{"journal being made", under("journal", ".tmp"), none},
		{"votes", under("votes", ""), none},
		{"metadata", under("metadata", ""), none},
		{"segments", under("partitions", ".seg"), none},
		{"checkpoints", under("shards", ".tmp"), none},
		{"journal directory", none, under("journal", "")},
		{"votes directory", none, under("votes", "")},
		{"metadata directory", none, under("metadata", "")},
		{"partition directories", none, under("partitions", "")},
		{"shard directories", none, under("shards", "")},
		{"data directory", none, func(name string) bool { return name == dataDir }},
		{"identity", func(name string) bool { return strings.Contains(name, "IDENTITY") }, none},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for seed := range within {
				problems, tr := run(t, seed, func(w *world) {
					w.wrap = func(fs vfs.FS) vfs.FS { return &forgetful{FS: fs, files: tt.files, dirs: tt.dirs} }
					randomHistory(w)
				})
				if problems = verdict(problems, tr.history); len(problems) == 0 {
					continue
				}
				sound, tr := run(t, seed, randomHistory)
				if sound = verdict(sound, tr.history); len(sound) > 0 {
					t.Fatalf("seed %d fails with all syncs as well: %s", seed, firstLine(sound[0]))
				}
				t.Logf("seed %d: %s", seed, firstLine(problems[0]))
				return
			}
			t.Errorf("no seed below %d noticed that %s is never synced", within, tt.name)
		})
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
