package node

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

func startIn(t *testing.T, dir string) (*Node, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Start(t.Context(), Options{
		FS: vfs.OS, Dir: dir, NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 4 << 20, JournalFileBytes: 1 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		_ = l.Close()
	}
	return n, err
}

// fill makes a directory with acknowledged records in every shard.
func fill(t *testing.T, dir string) {
	t.Helper()
	n, err := startIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "t", Partitions: 8})
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(8) {
		var b batch.Builder
		b.Reset()
		if err := b.Append(1, nil, []byte("acknowledged"), nil); err != nil {
			t.Fatal(err)
		}
		one, err := b.Build(nil, batch.None, batch.DefaultLevel)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []broker.ProduceResult, 1)
		n.broker.Produce([]broker.ProducePart{{Topic: topic.ID, Index: p, Batch: one}}, time.Minute, func(r []broker.ProduceResult) { got <- r })
		if r := <-got; r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-n.Failed():
		t.Errorf("a clean stop reports %v", err)
	default:
	}
}

// TestLostParts takes parts of a directory away, or puts another node's in their
// place: the node refuses to start, and gives no offset a second time.
func TestLostParts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		remove  []string
		foreign string // taken from another node's directory
		want    error
	}{
		{"journal", []string{journalDir}, "", replication.ErrLostLog},
		{"another journal", []string{journalDir}, journalDir, replication.ErrLostLog},
		{"metadata", []string{metadataDir}, "", replication.ErrLostLog},
		{"votes", []string{votesDir}, "", broker.ErrForgotten},
		{"another's votes", []string{votesDir}, votesDir, replication.ErrCorrupt},
		{"another's checkpoints", []string{shardsDir}, shardsDir, replication.ErrCorrupt},
		{"votes, journal and metadata", []string{votesDir, journalDir, metadataDir}, "", broker.ErrForgotten},
		{"everything but the identity", []string{votesDir, journalDir, metadataDir, shardsDir, dataDir}, "", broker.ErrForgotten},
		{"the identity", []string{identityName}, "", ErrNotOurs},
		{"another's identity", []string{identityName}, identityName, ErrMismatched},
	}
	for _, tt := range tests {
		for _, counted := range []bool{false, true} {
			name, want := tt.name, tt.want
			if counted {
				// Each folder keeps its own count: what is in it has to tell.
				name += ", counts kept"
			} else if slices.Contains(countedDirs, tt.remove[0]) {
				want = ErrMismatched
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir, other := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "o")
				fill(t, dir)
				counts := make(map[string][]byte)
				for _, name := range tt.remove {
					if b, err := os.ReadFile(filepath.Join(dir, name, generationName)); err == nil && counted {
						counts[name] = b
					}
					if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
				if tt.foreign != "" {
					fill(t, other)
					if err := os.Rename(filepath.Join(other, tt.foreign), filepath.Join(dir, tt.foreign)); err != nil {
						t.Fatal(err)
					}
				}
				for name, b := range counts {
					if err := errors.Join(os.MkdirAll(filepath.Join(dir, name), 0o750), os.WriteFile(filepath.Join(dir, name, generationName), b, 0o640)); err != nil {
						t.Fatal(err)
					}
				}
				n, err := startIn(t, dir)
				if err == nil {
					_ = n.Close(context.Background())
				}
				if !errors.Is(err, want) {
					t.Errorf("Start = %v, want %v", err, want)
				}
			})
		}
	}
}

// TestOlderParts puts each part back from a copy that was taken one start
// earlier: it is intact by itself, and the start is refused and changes nothing.
func TestOlderParts(t *testing.T) {
	t.Parallel()
	for _, part := range append([]string{identityName}, countedDirs...) {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			dir, copied := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "c")
			fill(t, dir)
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			n, err := startIn(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.RemoveAll(filepath.Join(dir, part)), os.Rename(filepath.Join(copied, part), filepath.Join(dir, part))); err != nil {
				t.Fatal(err)
			}
			if n, err := startIn(t, dir); !errors.Is(err, ErrMismatched) {
				t.Errorf("Start = %v, %v, want ErrMismatched", n, err)
			}
		})
	}
}

// TestTurnCut cuts the power at every operation with which a generation moves
// on: the directory opens, and moves on again.
func TestTurnCut(t *testing.T) {
	t.Parallel()
	base := vfs.NewMem(1)
	id, _, lock, err := openDir(base, "d", identity{NodeID: 1, Shards: 1}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range countedDirs {
		if err := vfs.MkdirAllSync(base, "d/"+part); err != nil {
			t.Fatal(err)
		}
	}
	if err := id.turn(base, "d"); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	cuts := 0
	for seed := range uint64(4) {
		var clones []*vfs.Mem
		work := base.KillClone()
		work.OnOp(func(vfs.Op, vfs.Phase) {
			clones = append(clones, work.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: seed}))
		})
		again := id
		if err := again.turn(work, "d"); err != nil {
			t.Fatal(err)
		}
		for i, mem := range clones {
			cuts++
			got, _, lock, err := openDir(mem, "d", identity{NodeID: 1}, rand.Reader)
			if err != nil {
				t.Fatalf("seed %d, cut %d: %v", seed, i, err)
			}
			// The power fails once more while it moves on again.
			twice := mem.KillClone()
			twice.OnOp(func(op vfs.Op, _ vfs.Phase) {
				if op.Seq == uint64(10+i%40) {
					twice.Freeze()
				}
			})
			half := got
			_ = half.turn(twice, "d")
			twice = twice.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: seed})
			if _, _, lock, err := openDir(twice, "d", identity{NodeID: 1}, rand.Reader); err != nil {
				t.Fatalf("seed %d, cut %d and again: %v", seed, i, err)
			} else {
				_ = lock.Close()
			}
			if err := got.turn(mem, "d"); err != nil {
				t.Fatal(err)
			}
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			if _, _, lock, err = openDir(mem, "d", identity{NodeID: 1}, rand.Reader); err != nil {
				t.Fatalf("seed %d, cut %d, after another turn: %v", seed, i, err)
			}
			_ = lock.Close()
		}
	}
	if cuts < 100 {
		t.Errorf("only %d cuts", cuts)
	}
}

// TestOpenDirRefuses opens directories that are not to be served: each is an
// error of its own, and the lock is free again.
func TestOpenDirRefuses(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	want := identity{NodeID: 1, Shards: 4}
	open := func(want identity) error {
		_, _, lock, err := openDir(fsys, "d", want, rand.Reader)
		if err == nil {
			err = lock.Close()
		}
		return err
	}
	if err := open(want); err != nil {
		t.Fatal(err)
	}
	if err := open(identity{NodeID: 2}); !errors.Is(err, ErrWrongIdentity) {
		t.Errorf("another node id: %v", err)
	}
	if err := open(identity{NodeID: 1, ClusterID: "x"}); !errors.Is(err, ErrWrongIdentity) {
		t.Errorf("another cluster id: %v", err)
	}
	lock, err := fsys.Lock("d/" + lockName)
	if err != nil {
		t.Fatal("a refused open keeps the lock:", err)
	}
	if err := open(want); !errors.Is(err, ErrInUse) {
		t.Errorf("in use: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFile(fsys, "d/"+identityName, []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := open(want); !errors.Is(err, ErrDamagedIdentity) {
		t.Errorf("damaged: %v", err)
	}
}

// TestOlderVotes puts the vote log back as it was one start earlier, and leaves
// its count: the log and the checkpoints have entries of later terms, and going
// on below these would write a log that no start takes any more.
func TestOlderVotes(t *testing.T) {
	t.Parallel()
	dir, copied := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "c")
	fill(t, dir)
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(dir, votesDir))); err != nil {
		t.Fatal(err)
	}
	n, err := startIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for name := range bytesIn(t, copied) {
		if filepath.Base(name) == generationName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(copied, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, votesDir, name), b, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	refused(t, dir, replication.ErrOldVote)
}

// TestDamagedCheckpoint damages the checkpoint of the last shard: neither the
// start that is refused nor the one after it changes a byte, though all else is
// intact and could have run.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	fill(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, shardsDir, "4", "*.checkpoint"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[50] ^= 1
	if err := os.WriteFile(names[0], b, 0o640); err != nil {
		t.Fatal(err)
	}
	refused(t, dir, replication.ErrCorrupt)
}

// refused starts a node twice, and wants the same error and the same directory.
func refused(t *testing.T, dir string, want error) {
	t.Helper()
	before := bytesIn(t, dir)
	for range 2 {
		if _, err := startIn(t, dir); !errors.Is(err, want) {
			t.Fatalf("Start = %v, want %v", err, want)
		}
		after := bytesIn(t, dir)
		for name, b := range after {
			if before[name] != b {
				t.Errorf("a refused start changed %s", name)
			}
		}
		if len(after) != len(before) {
			t.Errorf("a refused start leaves %d files of %d", len(after), len(before))
		}
	}
}

// bytesIn returns the files below dir.
func bytesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		rel, relErr := filepath.Rel(dir, name)
		all[rel] = string(b)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
