package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
)

// tryRig is startRig, and returns Start's error.
func tryRig(t *testing.T, fsys *vfs.Mem) (*rig, error) {
	r := &rig{t: t, fs: fsys, failed: make(chan error, 16)}
	log := slog.New(slog.DiscardHandler)
	var err error
	if r.votes, err = control.OpenVotes(fsys, "votes", control.Options{}); err != nil {
		t.Fatal(err)
	}
	if r.meta, err = control.OpenLog(fsys, "metadata", control.Options{}); err != nil {
		t.Fatal(err)
	}
	if r.journal, err = journal.Open(fsys, "journal", journal.Options{
		FileBytes: 256 << 10, MaxBytes: 2 << 20, Rand: rand.NewChaCha8([32]byte{1}), Logger: log, OnFailed: func(err error) { r.failed <- err },
	}); err != nil {
		t.Fatal(err)
	}
	if r.store, err = store.Open(fsys, "partitions", store.Options{
		TailFlushBytes: 16 << 10, MemoryBytes: 4 << 20, SegmentBytes: 1 << 20, Logger: log, OnFailed: func(err error) { r.failed <- err },
	}); err != nil {
		t.Fatal(err)
	}
	b, err := Start(t.Context(), Options{
		NodeID: 1, ClusterID: "c", Incarnation: 9, Advertise: "localhost:9092", Shards: 2,
		FS: fsys, ShardsDir: "shards", Journal: r.journal, Votes: r.votes, MetadataLog: r.meta, Store: r.store,
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{2}), Log: log,
		OnFailed: func(err error) { r.failed <- err }, OnPhase: func(string, bool) {},
	})
	r.Broker = b
	return r, err
}

func (r *rig) quit() {
	if r.Broker != nil {
		_ = r.Close()
	}
	_ = r.store.Close()
	_ = r.journal.Close()
	_ = r.meta.Close()
	_ = r.votes.Close()
	time.Sleep(time.Minute)
}

// deletedAndBack leaves a disk as a crash between a durable checkpoint and its
// unlinks does: the topic is deleted, tombstone and all, and its directory is
// back.
func deletedAndBack(t *testing.T, fsys *vfs.Mem, partitions int32) string {
	t.Helper()
	r, err := tryRig(t, fsys)
	if err != nil {
		t.Fatal(err)
	}
	topic := r.create("t", partitions, nil)
	for i := range 10 * partitions {
		r.produce(topic, i%partitions, records(t, batch.NoProducer, string(bytes.Repeat([]byte{'o'}, 5000))))
	}
	time.Sleep(time.Minute)
	r.Checkpoint()
	names, _ := fsys.ReadDir("partitions")
	if len(names) != int(partitions) {
		t.Fatal(names)
	}
	// the unlink fails: as good as a crash before it
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if (op.Kind == vfs.OpRemove || op.Kind == vfs.OpRemoveAll) && strings.HasPrefix(op.Path, "partitions/") {
			return vfs.Fault{Err: syscall.EBUSY}
		}
		return vfs.Fault{}
	})
	if err := r.DeleteTopic(t.Context(), topic.ID); err != nil {
		t.Fatal(err)
	}
	r.Checkpoint()
	r.quit()
	fsys.SetInjector(nil)
	left, _ := fsys.ReadDir("partitions")
	if len(left) != int(partitions) {
		t.Fatal("setup: no orphan", left)
	}
	return path.Join("partitions", left[0])
}

// TestReviewTombstoneOutlivesUnlink: ADR 0002 and R17. The tombstone must not be
// purged before the unlink of the orphan is durable.
func TestReviewTombstoneOutlivesUnlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		dir := deletedAndBack(t, fsys, 1)
		r, err := tryRig(t, fsys)
		if err != nil {
			t.Skip("the race of TestReviewStartRace came first: ", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		clone := fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		fsys.Freeze()
		r.quit()
		r, err = tryRig(t, clone)
		if err != nil {
			t.Fatal(err)
		}
		defer r.quit()
		time.Sleep(time.Minute)
		tombs := 0
		for range r.image().Tombstones() {
			tombs++
		}
		if names, _ := clone.ReadDir(dir); len(names) > 0 {
			t.Errorf("after a power cut %s is back with %v, %d tombstones: nothing ever removes it", dir, names, tombs)
		}
	})
}

// TestReviewStartRace: Start's own pass and the reconciler's first one remove
// the same orphan.
func TestReviewStartRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		deletedAndBack(t, fsys, 6)
		fsys.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpRemoveAll {
				return vfs.Fault{Delay: time.Millisecond} // unlinking takes time
			}
			return vfs.Fault{}
		})
		r, err := tryRig(t, fsys)
		defer r.quit()
		if err != nil {
			t.Error("Start:", err)
		}
	})
}

// TestReviewManyAtOnce produces more at once than a record of the journal
// takes: 256 KiB files, 64 KiB records.
func TestReviewManyAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 8, nil)
		var parts []ProducePart
		for i := range int32(8) {
			parts = append(parts, ProducePart{Topic: topic.ID, Index: i, Batch: records(t, batch.NoProducer, string(make([]byte, 30_000)))})
		}
		for _, res := range r.produceParts(time.Minute, parts...) {
			if res.Err != nil {
				t.Error(res.Err)
			}
		}
		select {
		case err := <-r.failed:
			t.Error("the node stopped:", err)
		default:
		}
	})
}

// TestReviewCloseAfterDiskFails: the shutdown that Node does after Failed.
func TestReviewCloseAfterDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := tryRig(t, vfs.NewMem(1))
		if err != nil {
			t.Fatal(err)
		}
		topic := r.create("t", 1, nil)
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "x")); res.Err != nil {
			t.Fatal(res.Err)
		}
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData && strings.HasPrefix(op.Path, "journal") {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, "x")})
		<-r.failed
		done := make(chan struct{})
		go func() { r.Checkpoint(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Hour):
			t.Error("Checkpoint after a failed disk has not returned in an hour")
		}
		r.quit()
	})
}

// TestReviewCloseWhileCheckpoint: the disk is slow, then fails, while the
// background checkpoint has begun: Close must return.
func TestReviewCloseWhileCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := tryRig(t, vfs.NewMem(1))
		if err != nil {
			t.Fatal(err)
		}
		topic := r.create("t", 1, nil)
		shard := r.dir.find(topic.ID, 0).shard.replica
		for before := shard.Checkpointed(); shard.Checkpointed() == before; synctest.Wait() {
			r.produce(topic, 0, records(t, batch.NoProducer, string(make([]byte, 29_000))))
		}
		for left := int64(r.journal.Usage().Files)*(256<<10)/8 - 35_000; left > 0; left -= 10_000 {
			r.produce(topic, 0, records(t, batch.NoProducer, string(make([]byte, 9_700))))
		}
		var mu sync.Mutex
		syncs := 0
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind != vfs.OpSyncData || !strings.HasPrefix(op.Path, "journal") {
				return vfs.Fault{}
			}
			mu.Lock()
			defer mu.Unlock()
			if syncs++; syncs < 3 {
				return vfs.Fault{Delay: time.Second}
			}
			return vfs.Fault{Delay: 5 * time.Second, Err: syscall.EIO}
		})
		for range 10 {
			r.Produce([]ProducePart{{Topic: topic.ID, Batch: records(t, batch.NoProducer, string(make([]byte, 9_700)))}}, time.Minute, func([]ProduceResult) {})
			time.Sleep(400 * time.Millisecond)
		}
		err = <-r.failed
		t.Log(err)
		closed := make(chan struct{})
		go func() { _ = r.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(time.Hour):
			t.Error("Close after a failed disk has not returned in an hour")
			for _, s := range r.shards {
				_ = s.replica.Close() // let the test end
			}
			<-closed
		}
		r.quit()
	})
}

// TestReviewFullDiskMetadata: a full disk must not stop the node.
func TestReviewFullDiskMetadata(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("t", 1, nil)
		r.fs.SetCapacity(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := range 60 {
			if _, err := r.CreateTopic(ctx, TopicSpec{Name: fmt.Sprint("u", i)}); err != nil {
				t.Log("create:", i, err)
				break
			}
		}
		select {
		case err := <-r.failed:
			t.Error("the node stopped at a full disk:", err)
		default:
		}
		r.fs.SetCapacity(-1)
	})
}

// TestReviewFullDiskDelete: the journal is full and the disk too; deleting a
// topic has to pass (design: commands that free space still pass).
func TestReviewFullDiskDelete(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		victim := r.create("v", 1, nil)
		// segments, checkpoints and the journal cannot grow; the rest can
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpWriteAt && !strings.HasPrefix(op.Path, "journal") && !strings.HasPrefix(op.Path, "metadata") ||
				op.Kind == vfs.OpPreallocate {
				return vfs.Fault{Err: syscall.ENOSPC}
			}
			return vfs.Fault{}
		})
		for range 200 {
			res := r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, string(make([]byte, 30_000)))})[0]
			if res.Err != nil {
				t.Log(res.Err)
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// the client goes on trying to produce meanwhile
		r.Produce([]ProducePart{{Topic: topic.ID, Batch: records(t, batch.NoProducer, string(make([]byte, 30_000)))}}, time.Hour, func([]ProduceResult) {})
		for _, id := range []Topic{victim, topic} {
			if err := r.DeleteTopic(ctx, id.ID); err != nil {
				t.Errorf("delete %s: %v", id.Name, err)
			}
		}
		r.fs.SetInjector(nil)
		time.Sleep(time.Minute)
	})
}

// TestReviewCreateDeleted: a topic deleted while its creation waits.
func TestReviewErrors(t *testing.T) {
	if c := CodeOf(errors.New("read: input/output error")).Code; c == errcode.UnknownServer {
		t.Log("EIO of a read is UNKNOWN_SERVER_ERROR")
	}
}
