package broker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition/store"
)

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
	r.stop()
	fsys.SetInjector(nil)
	left, _ := fsys.ReadDir("partitions")
	if len(left) != int(partitions) {
		t.Fatal("setup: no orphan", left)
	}
	return path.Join("partitions", left[0])
}

// TestTombstoneOutlivesUnlink: ADR 0002 and R17. The tombstone must not be
// purged before the unlink of the orphan is durable.
func TestTombstoneOutlivesUnlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		dir := deletedAndBack(t, fsys, 1)
		r, err := tryRig(t, fsys)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		clone := fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		fsys.Freeze()
		r.stop()
		r, err = tryRig(t, clone)
		if err != nil {
			t.Fatal(err)
		}
		defer r.stop()
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

// TestStartRace: Start's own pass and the reconciler's first one remove
// the same orphan.
func TestStartRace(t *testing.T) {
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
		defer r.stop()
		if err != nil {
			t.Error("Start:", err)
		}
	})
}

// TestManyAtOnce produces more at once than a record of the journal
// takes: 256 KiB files, 64 KiB records.
func TestManyAtOnce(t *testing.T) {
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

// TestCloseAfterDiskFails: the shutdown that Node does after Failed.
func TestCloseAfterDiskFails(t *testing.T) {
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
		r.stop()
	})
}

// TestCloseWhileCheckpoint: the disk is slow, then fails, while the
// background checkpoint has begun: Close must return.
func TestCloseWhileCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := tryRig(t, vfs.NewMem(1))
		if err != nil {
			t.Fatal(err)
		}
		topic := r.create("t", 1, nil)
		r.Checkpoint() // the other shards have nothing new
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "x")); res.Err != nil {
			t.Fatal(res.Err)
		}
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData && strings.HasPrefix(op.Path, "journal") {
				return vfs.Fault{Delay: 5 * time.Second, Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		r.Produce([]ProducePart{{Topic: topic.ID, Batch: records(t, batch.NoProducer, "y")}}, time.Minute, func([]ProduceResult) {})
		time.Sleep(time.Second)
		// an eighth of the ring is full just now, or somebody waits for room
		id := r.dir.find(topic.ID, 0).shard.id
		v, _ := r.votes.Load(uint32(id))
		_, _ = r.journal.TryReserve(r.journal.Shard(journal.ShardID(id), v.Incarnation), r.journal.Usage().LimitBytes)
		err = <-r.failed
		t.Log(err)
		closed := make(chan struct{})
		go func() { _ = r.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(time.Hour):
			t.Error("Close after a failed disk has not returned in an hour")
			for _, s := range r.carried() {
				_ = s.replica.Close() // let the test end
			}
			<-closed
		}
		r.stop()
	})
}

// TestCreateDeleted: a topic is deleted while its creation waits for the
// reconciler: the creator must not wait for what never comes.
func TestCreateDeleted(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData && strings.HasPrefix(op.Path, "journal") {
				return vfs.Fault{Delay: 10 * time.Second}
			}
			return vfs.Fault{}
		})
		go func() { _, _ = r.CreateTopic(t.Context(), TopicSpec{Name: "a"}) }()
		time.Sleep(time.Second) // the reconciler is busy with a
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		created := make(chan error, 1)
		go func() { _, err := r.CreateTopic(ctx, TopicSpec{Name: "b"}); created <- err }()
		time.Sleep(time.Second)
		b, missing := r.TopicByName("b")
		if missing != nil {
			t.Fatal(missing)
		}
		if err := r.DeleteTopic(ctx, b.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case <-created:
		case <-time.After(5 * time.Minute):
			t.Errorf("CreateTopic still waits; in the end it says %v", <-created)
		}
	})
}

func BenchmarkProduce(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("batch=%dB", n), func(b *testing.B) {
			fsys := vfs.NewMem(1)
			r := benchRig(b, fsys)
			defer func() {
				_ = r.Close()
				_ = r.store.Close()
				_ = r.journal.Close()
				_ = r.meta.Close()
				_ = r.votes.Close()
			}()
			topic, err := r.CreateTopic(context.Background(), TopicSpec{Name: "t", Partitions: 16})
			if err != nil {
				b.Fatal(err)
			}
			one := buildOne(n)
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			b.SetParallelism(64)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i := int32(0)
				for pb.Next() {
					i++
					done := make(chan struct{})
					r.Produce([]ProducePart{{Topic: topic.ID, Index: i % 16, Batch: bytes.Clone(one)}}, time.Minute, func(res []ProduceResult) {
						if res[0].Err != nil {
							b.Error(res[0].Err)
						}
						close(done)
					})
					<-done
				}
			})
		})
	}
}

func buildOne(n int) []byte {
	var bb batch.Builder
	bb.Reset()
	_ = bb.Append(946_684_800_000, nil, make([]byte, n), nil)
	out, _ := bb.Build(nil, batch.None, batch.DefaultLevel)
	return out
}

func benchRig(b *testing.B, fsys *vfs.Mem) *rig {
	r := &rig{fs: fsys, failed: make(chan error, 16)}
	log := slog.New(slog.DiscardHandler)
	var err error
	must := func() {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	r.votes, err = control.OpenVotes(fsys, "votes", control.Options{})
	must()
	r.meta, err = control.OpenLog(fsys, "metadata", control.Options{})
	must()
	r.journal, err = journal.Open(fsys, "journal", journal.Options{FileBytes: 8 << 20, MaxBytes: 64 << 20, Rand: rand.NewChaCha8([32]byte{1}), Logger: log})
	must()
	r.store, err = store.Open(fsys, "partitions", store.Options{Logger: log})
	must()
	r.Broker, err = Start(context.Background(), Options{
		NodeID: 1, ClusterID: "c", Incarnation: 9, Listeners: []Listener{{Name: ClientListener, Advertise: "localhost:9092"}}, Shards: 4,
		FS: fsys, ShardsDir: "shards", Journal: r.journal, Votes: r.votes, MetadataLog: r.meta, Store: r.store,
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{2}), Log: log,
		OnFailed: func(err error) { b.Error(err) }, OnPhase: func(string, bool) {},
	})
	must()
	return r
}

// BenchmarkCreateTopic creates a topic of one partition beside many.
func BenchmarkCreateTopic(b *testing.B) {
	for _, have := range []int32{10, 50_000} {
		b.Run(fmt.Sprintf("partitions=%d", have), func(b *testing.B) {
			r := benchRig(b, vfs.NewMem(1))
			defer func() {
				_ = r.Close()
				_ = r.store.Close()
				_ = r.journal.Close()
				_ = r.meta.Close()
				_ = r.votes.Close()
			}()
			if _, err := r.CreateTopic(context.Background(), TopicSpec{Name: "many", Partitions: have}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := r.CreateTopic(context.Background(), TopicSpec{Name: fmt.Sprint("t", i)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
