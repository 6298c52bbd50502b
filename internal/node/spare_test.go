package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestSpare: the file is made where there is room, gives its space up once, and
// is made again when there is room.
func TestSpare(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1)
	if err := m.MkdirAll("data"); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	free := func() int64 {
		n, err := m.Free("data")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	m.SetCapacity(spareBytes)
	if s := openSpare(m, "data", log); s.release() || free() != spareBytes {
		t.Error("made on a disk that is nearly full")
	}
	m.SetCapacity(4 * spareBytes)
	openSpare(m, "data", log)
	s := openSpare(m, "data", log) // finds it
	if free() != 3*spareBytes {
		t.Errorf("%d bytes free, want %d", free(), 3*spareBytes)
	}
	if !s.release() || free() != 4*spareBytes || s.release() {
		t.Error("the space was not given up, or twice")
	}
	s.look(broker.DiskState{Low: true, FreeBytes: 4 * spareBytes})
	s.look(broker.DiskState{FreeBytes: 2*spareBytes - 1, ReserveBytes: spareBytes})
	if free() != 4*spareBytes {
		t.Error("made again without room")
	}
	s.look(broker.DiskState{FreeBytes: 2 * spareBytes, ReserveBytes: spareBytes})
	if free() != 3*spareBytes || !s.release() {
		t.Error("not made again")
	}
}

// TestDefaultReserve: what the node may still owe the disk, and little of a small
// disk.
func TestDefaultReserve(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(1)
	for _, tt := range []struct{ disk, want int64 }{
		{-1, 512<<20 + 64<<20}, {1 << 40, 512<<20 + 64<<20}, {1 << 30, (1 << 30) / 20}, {10, 1},
	} {
		m.SetCapacity(tt.disk)
		got, err := defaultReserve(&Options{FS: m, Dir: "/", MemoryBytes: 1 << 30})
		if err != nil || got != tt.want {
			t.Errorf("a disk of %d bytes: reserve %d, %v; want %d", tt.disk, got, err, tt.want)
		}
	}
}

// TestSpareIsTaken fills the disk to the last byte: topics are deleted
// nevertheless, with the space of the spare file.
func TestSpareIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vfs.NewMem(1)
		n, err := startOn(t, m, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		var topics []broker.Topic
		for i := range 150 { // their deletions take more than the log's file has left
			topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: fmt.Sprint("t", i), Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			topics = append(topics, topic)
		}
		synctest.Wait() // or what is freed in the background leaves room for a deletion
		const much = 1 << 40
		m.SetCapacity(much)
		free, err := m.Free("data")
		if err != nil {
			t.Fatal(err)
		}
		m.SetCapacity(much - free)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, topic := range topics {
			if err := n.broker.DeleteTopic(ctx, topic.ID); err != nil {
				t.Errorf("DeleteTopic on a full disk: %v", err)
			}
		}
		if _, err := m.Stat("data/" + SpareName); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the spare file is still there: %v", err)
		}
		m.SetCapacity(-1)
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	})
}
