package node

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
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
		{"another's identity", []string{identityName}, identityName, &errcode.Error{Code: errcode.InconsistentClusterID}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, other := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "o")
			fill(t, dir)
			for _, name := range tt.remove {
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
			n, err := startIn(t, dir)
			if err == nil {
				_ = n.Close(context.Background())
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("Start = %v, want %v", err, tt.want)
			}
		})
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
