package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

func TestProduceFetchRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("orders", 3, nil)
		want := make([][]string, 3)
		for round := range 40 {
			for p := range int32(3) {
				v := fmt.Sprintf("%d/%d %s", p, round, bytes.Repeat([]byte{'v'}, 3000))
				res := r.produce(topic, p, records(t, batch.NoProducer, v, "second"))
				if res.Err != nil || res.BaseOffset != int64(len(want[p])) {
					t.Fatalf("produce: %+v, want offset %d", res, len(want[p]))
				}
				want[p] = append(want[p], v, "second")
			}
			if round%10 == 5 {
				fsys := r.fs
				r.stop()
				*r = *startRig(t, fsys)
			}
		}
		for p := range int32(3) {
			if diff := cmp.Diff(want[p], r.read(topic, p, 0)); diff != "" {
				t.Errorf("partition %d (-want +got):\n%s", p, diff)
			}
			if diff := cmp.Diff(want[p][7:], r.read(topic, p, 7)); diff != "" {
				t.Errorf("partition %d from 7 (-want +got):\n%s", p, diff)
			}
		}
	})
}

// TestProduceTwice repeats an idempotent batch, also over a restart: it is
// appended once and answered with the first offset.
func TestProduceTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		p, err := r.InitProducer(t.Context(), Producer{ID: -1})
		if err != nil {
			t.Fatal(err)
		}
		seq := func(n int32) batch.Producer { return batch.Producer{ID: p.ID, Epoch: 0, Sequence: n} }
		for i := range int32(4) {
			for range 2 {
				if res := r.produce(topic, 0, records(t, seq(i), fmt.Sprint(i))); res.Err != nil || res.BaseOffset != int64(i) {
					t.Fatalf("batch %d: %+v", i, res)
				}
			}
		}
		fsys := r.fs
		r.stop()
		*r = *startRig(t, fsys)
		if res := r.produce(topic, 0, records(t, seq(3), "3")); res.Err != nil || res.BaseOffset != 3 {
			t.Errorf("a retry after a restart: %+v, want offset 3", res)
		}
		if res := r.produce(topic, 0, records(t, seq(9), "gap")); res.Err == nil || res.Err.Code != errcode.OutOfOrderSequenceNumber || res.LogStart != 0 {
			t.Errorf("a gap: %+v, want OUT_OF_ORDER_SEQUENCE_NUMBER", res)
		}
		if diff := cmp.Diff([]string{"0", "1", "2", "3"}, r.read(topic, 0, 0)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		next, err := r.InitProducer(t.Context(), Producer{ID: -1})
		if err != nil || next.ID == p.ID {
			t.Errorf("a second producer got id %d, %v; the first has %d", next.ID, err, p.ID)
		}
		bumped, err := r.InitProducer(t.Context(), p)
		if err != nil || bumped != (Producer{ID: p.ID, Epoch: 1}) {
			t.Errorf("the next epoch: %+v, %v", bumped, err)
		}
	})
}

func TestProduceRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 2, map[string]string{"max.message.bytes": "2000"})
		good := records(t, batch.NoProducer, "good")
		damaged := bytes.Clone(good)
		damaged[len(damaged)-1] ^= 1
		tests := []struct {
			name string
			part ProducePart
			want errcode.Code
		}{
			{"good", ProducePart{Topic: topic.ID, Batch: bytes.Clone(good)}, errcode.None},
			{"unknown topic", ProducePart{Topic: TopicID{9}, Batch: good}, errcode.UnknownTopicID},
			{"no such partition", ProducePart{Topic: topic.ID, Index: 2, Batch: good}, errcode.UnknownTopicOrPartition},
			{"negative partition", ProducePart{Topic: topic.ID, Index: -1, Batch: good}, errcode.UnknownTopicOrPartition},
			{"too large", ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, string(make([]byte, 2000)))}, errcode.MessageTooLarge},
			{"bad checksum", ProducePart{Topic: topic.ID, Batch: damaged}, errcode.CorruptMessage},
			{"cut off", ProducePart{Topic: topic.ID, Batch: good[:30]}, errcode.CorruptMessage},
			{"nothing", ProducePart{Topic: topic.ID}, errcode.CorruptMessage},
		}
		var all []ProducePart
		for _, tt := range tests {
			res := r.produceParts(time.Minute, tt.part)[0]
			if got := errcode.Of(asError(res.Err)); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, res.Err, tt.want)
			}
			all = append(all, tt.part)
		}
		// The same in one request: one bad part does not hurt the others.
		for i, res := range r.produceParts(time.Minute, all...) {
			if got := errcode.Of(asError(res.Err)); got != tests[i].want {
				t.Errorf("%s, among others: %v, want %v", tests[i].name, res.Err, tests[i].want)
			}
		}
		if got := r.read(topic, 0, 0); len(got) != 2 {
			t.Errorf("%d records, want the two good ones", len(got))
		}
	})
}

// asError avoids an error that holds a nil pointer.
func asError(e *errcode.Error) error {
	if e == nil {
		return nil
	}
	return e
}

func TestFetchWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 2, nil)
		one := records(t, batch.NoProducer, "0123456789")
		parts := []FetchPart{{Topic: topic.ID, Index: 0, MaxBytes: 1 << 20, Epoch: -1}, {Topic: topic.ID, Index: 1, MaxBytes: 1 << 20, Epoch: -1}}

		start := time.Now()
		if res := r.fetch(FetchRequest{MaxWait: 3 * time.Second, MinBytes: 1, MaxBytes: 1 << 20, Parts: parts}); res[0].Bytes()+res[1].Bytes() != 0 {
			t.Errorf("records of an empty partition: %+v", res)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("an empty fetch waited %v, want 3 s", took)
		}

		start = time.Now()
		time.AfterFunc(time.Second, func() { r.produce(topic, 1, bytes.Clone(one)) })
		res := r.fetch(FetchRequest{MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1 << 20, Parts: parts})
		if took := time.Since(start); took < time.Second || took > 2*time.Second || res[1].Bytes() != int64(len(one)) {
			t.Errorf("a fetch that a produce ends: %v, %d bytes; want 1 s and %d", took, res[1].Bytes(), len(one))
		}
		res[1].Release()

		// MinBytes of two batches: the first alone does not end it.
		start = time.Now()
		parts[1].Offset = 1
		time.AfterFunc(time.Second, func() { r.produce(topic, 1, bytes.Clone(one)) })
		time.AfterFunc(5*time.Second, func() { r.produce(topic, 0, bytes.Clone(one)) })
		res = r.fetch(FetchRequest{MaxWait: time.Minute, MinBytes: 2 * len(one), MaxBytes: 1 << 20, Parts: parts})
		if took := time.Since(start); took < 5*time.Second || took > 6*time.Second || res[0].Bytes()+res[1].Bytes() != int64(2*len(one)) {
			t.Errorf("MinBytes: %v, %d bytes; want 5 s and %d", took, res[0].Bytes()+res[1].Bytes(), 2*len(one))
		}
		res[0].Release()
		res[1].Release()

		// Cancelled, and ended by the deletion of the topic.
		got := make(chan []FetchResult, 1)
		parts[0].Offset, parts[1].Offset = 1, 2
		f := r.Fetch(FetchRequest{MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1 << 20, Parts: parts}, func(res []FetchResult) { got <- res })
		f.Cancel()
		if res := <-got; res[0].Err != nil || res[0].Bytes() != 0 {
			t.Errorf("a cancelled fetch: %+v", res)
		}
		time.AfterFunc(time.Second, func() { _ = r.DeleteTopic(context.Background(), topic.ID) })
		res = r.fetch(FetchRequest{MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1 << 20, Parts: parts})
		if res[0].Err == nil && res[1].Err == nil {
			t.Errorf("a fetch of a deleted topic: %+v", res)
		}
		synctest.Wait()
	})
}

func TestFetchRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		r.produce(topic, 0, records(t, batch.NoProducer, "a"))
		epoch := r.leaders(topic)[0].Epoch
		tests := []struct {
			name string
			part FetchPart
			want errcode.Code
		}{
			{"at the end", FetchPart{Topic: topic.ID, Offset: 1, Epoch: -1}, errcode.None},
			{"above the end", FetchPart{Topic: topic.ID, Offset: 2, Epoch: -1}, errcode.OffsetOutOfRange},
			{"negative", FetchPart{Topic: topic.ID, Offset: -1, Epoch: -1}, errcode.OffsetOutOfRange},
			{"known epoch", FetchPart{Topic: topic.ID, Epoch: epoch}, errcode.None},
			{"old epoch", FetchPart{Topic: topic.ID, Epoch: epoch - 1}, errcode.FencedLeaderEpoch},
			{"future epoch", FetchPart{Topic: topic.ID, Epoch: epoch + 1}, errcode.UnknownLeaderEpoch},
			{"unknown topic", FetchPart{Topic: TopicID{7}, Epoch: -1}, errcode.UnknownTopicID},
			{"no such partition", FetchPart{Topic: topic.ID, Index: 1, Epoch: -1}, errcode.UnknownTopicOrPartition},
		}
		for _, tt := range tests {
			tt.part.MaxBytes = 1 << 20
			res := r.fetch(FetchRequest{MaxBytes: 1 << 20, Parts: []FetchPart{tt.part}})[0]
			if got := errcode.Of(asError(res.Err)); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, res.Err, tt.want)
			}
			res.Release()
		}
	})
}

func TestTopics(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		create := func(spec TopicSpec) error {
			_, err := r.CreateTopic(t.Context(), spec)
			return err
		}
		r.create("b.one", 5, nil)
		tests := []struct {
			name string
			spec TopicSpec
			want errcode.Code
		}{
			{"again", TopicSpec{Name: "b.one"}, errcode.TopicAlreadyExists},
			{"collides", TopicSpec{Name: "b_one"}, errcode.InvalidTopic},
			{"bad name", TopicSpec{Name: "a/b"}, errcode.InvalidTopic},
			{"no name", TopicSpec{}, errcode.InvalidTopic},
			{"partitions", TopicSpec{Name: "x", Partitions: -1}, errcode.InvalidPartitions},
			{"replicas", TopicSpec{Name: "x", Replication: 2}, errcode.InvalidReplicationFactor},
			{"unknown config", TopicSpec{Name: "x", Configs: map[string]string{"cleanup.policy": "compact"}}, errcode.InvalidConfig},
			{"bad config", TopicSpec{Name: "x", Configs: map[string]string{"segment.bytes": "many"}}, errcode.InvalidConfig},
			{"larger than a journal file takes", TopicSpec{Name: "x", Configs: map[string]string{"max.message.bytes": "1000000"}}, errcode.InvalidConfig},
			{"only checked", TopicSpec{Name: "x", ValidateOnly: true}, errcode.None},
			{"fine", TopicSpec{Name: "a"}, errcode.None},
		}
		for _, tt := range tests {
			if got := errcode.Of(create(tt.spec)); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
			}
		}
		var names []string
		for topic := range r.Topics("") {
			names = append(names, topic.Name)
		}
		if diff := cmp.Diff([]string{"a", "b.one"}, names); diff != "" {
			t.Errorf("topics (-want +got):\n%s", diff)
		}
		if got := r.Nodes(ClientListener); len(got) != 1 || got[0] != (Node{ID: 1, Address: "localhost:9092"}) {
			t.Errorf("nodes %+v", got)
		}
	})
}

// TestDeleteTopic deletes and makes again: another id, offsets from 0, and
// after restarts nothing of the first is left, on disk neither.
func TestDeleteTopic(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		old := r.create("t", 2, nil)
		for range 20 {
			r.produce(old, 0, records(t, batch.NoProducer, string(bytes.Repeat([]byte{'o'}, 5000))))
		}
		if err := r.DeleteTopic(t.Context(), old.ID); err != nil {
			t.Fatal(err)
		}
		if err := r.DeleteTopic(t.Context(), old.ID); errcode.Of(err) != errcode.UnknownTopicID {
			t.Errorf("deleted twice: %v", err)
		}
		again := r.create("t", 1, nil)
		if again.ID == old.ID {
			t.Error("the new topic has the old one's id")
		}
		if res := r.produce(again, 0, records(t, batch.NoProducer, "first")); res.BaseOffset != 0 {
			t.Errorf("the first record of a new topic has offset %d", res.BaseOffset)
		}
		for range 3 {
			r.Checkpoint()
			fsys := r.fs
			r.stop()
			*r = *startRig(t, fsys)
			if res := r.produce(old, 0, records(t, batch.NoProducer, "x")); errcode.Of(asError(res.Err)) != errcode.UnknownTopicID {
				t.Errorf("produce to the deleted topic: %v", res.Err)
			}
		}
		if got := r.read(again, 0, 0); len(got) != 1 || got[0] != "first" {
			t.Errorf("the new topic holds %q", got)
		}
		dirs, err := r.fs.ReadDir("partitions")
		if err != nil || len(dirs) > 1 {
			t.Errorf("partition directories %v, %v; want those of the new topic alone", dirs, err)
		}
		for range r.image().Tombstones() {
			t.Error("a tombstone is left of which nothing needs to be told any more")
		}
	})
}

// TestProduceTimesOut stalls the disk: the answer comes at the deadline.
func TestProduceTimesOut(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: 20 * time.Second}
			}
			return vfs.Fault{}
		})
		start := time.Now()
		res := r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, "slow")})[0]
		if took := time.Since(start); took != 5*time.Second || errcode.Of(asError(res.Err)) != errcode.RequestTimedOut {
			t.Errorf("after %v: %v, want REQUEST_TIMED_OUT after 5 s", took, res.Err)
		}
		r.fs.SetInjector(nil)
		time.Sleep(time.Minute)
		if got := r.read(topic, 0, 0); len(got) != 1 {
			t.Errorf("%d records; the batch was under way and must have been appended", len(got))
		}
	})
}

// TestDiskErrorStops breaks a sync: the node is told to stop, and nothing is
// acknowledged any more.
func TestDiskErrorStops(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Err: syscall.EIO}
			}
			return vfs.Fault{}
		})
		res := r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, "x")})[0]
		if res.Err == nil {
			t.Error("acknowledged although it could not be synced")
		}
		if err := <-r.failed; !errors.Is(err, syscall.EIO) {
			t.Errorf("OnFailed(%v), want EIO", err)
		}
		if err := <-r.failed; err == nil {
			t.Error("no replica reported the journal's failure")
		}
	})
}

// TestIdleShardsDoNotHoldTheRing writes several times what the journal holds to
// one shard, while the last entries of the others stay the oldest.
func TestIdleShardsDoNotHoldTheRing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		for i := range 300 {
			res := r.produce(topic, 0, records(t, batch.NoProducer, string(bytes.Repeat([]byte{'b'}, 30_000))))
			if res.Err != nil || res.BaseOffset != int64(i) {
				t.Fatalf("batch %d: %+v", i, res)
			}
		}
	})
}

// TestProduceWaitsForMemory stalls the flusher: produce is admitted up to the
// budget of the tails, then waits, then fails and says that nothing was
// appended; when the disk is back so is produce.
func TestProduceWaitsForMemory(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpWriteAt && strings.HasPrefix(op.Path, "partitions/") {
				return vfs.Fault{Delay: time.Hour}
			}
			return vfs.Fault{}
		})
		appended := 0
		var last ProduceResult
		for range 1000 {
			last = r.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, string(make([]byte, 20_000)))})[0]
			if last.Err != nil {
				break
			}
			appended++
		}
		if errcode.Of(asError(last.Err)) != errcode.RequestTimedOut || appended == 0 {
			t.Fatalf("%d appended, then %v; want REQUEST_TIMED_OUT after some", appended, last.Err)
		}
		r.fs.SetInjector(nil)
		time.Sleep(2 * time.Hour)
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "again")); res.Err != nil {
			t.Errorf("after the stall: %v", res.Err)
		}
	})
}

// TestClosesWhileCheckpointFails breaks the disk under a checkpoint and writes:
// the node can be closed all the same.
func TestClosesWhileCheckpointFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		var broken atomic.Bool
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if broken.Load() && op.Kind == vfs.OpSyncData {
				return vfs.Fault{Err: syscall.EIO, Delay: time.Second}
			}
			return vfs.Fault{}
		})
		for range 60 { // so much that checkpoints run
			if res := r.produce(topic, 0, records(t, batch.NoProducer, string(make([]byte, 30_000)))); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		broken.Store(true)
		go r.Checkpoint()
		r.Produce([]ProducePart{{Topic: topic.ID, Batch: records(t, batch.NoProducer, "x")}}, time.Second, func([]ProduceResult) {})
		<-r.failed
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		ctx := t.Context()
		if err := b.Acquire(ctx, 500); err != nil {
			t.Fatal("more than the limit, alone:", err)
		}
		order := make(chan int64, 10)
		for _, n := range []int64{60, 30, 30} {
			go func() {
				if b.Acquire(ctx, n) == nil {
					order <- n
				}
			}()
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if err := b.Acquire(short, 1); err == nil {
			t.Error("passed those that wait")
		}
		if b.TryAcquire(1) {
			t.Error("TryAcquire passed those that wait")
		}
		b.Release(500)
		synctest.Wait()
		if len(order) != 2 || b.Used() != 90 {
			t.Errorf("%d admitted, %d bytes; want 60 and 30", len(order), b.Used())
		}
		b.Release(60)
		synctest.Wait()
		if len(order) != 3 || b.Used() != 60 {
			t.Errorf("%d admitted, %d bytes; want all three and 60", len(order), b.Used())
		}
	})
}
