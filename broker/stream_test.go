package broker

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// values returns what results hold, as "partition:generation:value", and
// gives them back.
func (r *rig) values(results []StreamResult) (all []string) {
	r.t.Helper()
	for i := range results {
		res := &results[i]
		name := string(rune('0'+res.Index)) + ":" + string(rune('0'+res.Generation)) + ":"
		if res.Err != nil {
			all = append(all, name+res.Err.Code.Name())
			continue
		}
		var b []byte
		var err error
		for _, c := range res.Chunks {
			if b, err = c.AppendTo(b); err != nil {
				r.t.Fatal(err)
			}
		}
		res.Release()
		var it batch.Iterator
		for len(b) > 0 {
			var one []byte
			if one, b, err = batch.Split(b); err == nil {
				err = it.Reset(one, 0)
			}
			if err != nil {
				r.t.Fatal(err)
			}
			for rec, ok := it.Next(); ok; rec, ok = it.Next() {
				all = append(all, name+string(rec.Value))
			}
		}
	}
	return all
}

func (r *rig) next(s *Stream, maxBytes, maxPartitionBytes int) []string {
	r.t.Helper()
	results, _ := s.Next(maxBytes, maxPartitionBytes)
	return r.values(results)
}

func (r *rig) change(s *Stream, c StreamChange) {
	r.t.Helper()
	if err := s.Change(c, 1000); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) put(topic Topic, index int32, values ...string) {
	r.t.Helper()
	if res := r.produce(topic, index, records(r.t, batch.NoProducer, values...)); res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

func same(t *testing.T, why string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", why, got, want)
	}
}

func TestStream(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 3, nil)
		part := func(index int32, offset int64, generation uint32) StreamPart {
			return StreamPart{Topic: topic.ID, Index: index, Offset: offset, Epoch: -1, Generation: generation}
		}
		ref := func(index int32) []PartitionRef { return []PartitionRef{{topic.ID, index}} }
		var readied atomic.Int32
		s := r.NewStream(func() { readied.Add(1) })
		defer s.Close()
		told := func(why string, want int32) {
			t.Helper()
			synctest.Wait()
			if got := readied.Swap(0); got != want {
				t.Errorf("%s: told %d times that something is ready, want %d", why, got, want)
			}
		}
		r.put(topic, 0, "a")
		r.change(s, StreamChange{Set: []StreamPart{part(0, 0, 1), part(1, 0, 2)}})
		told("two partitions added", 1)
		same(t, "what is there", r.next(s, 1000, 1000), "0:1:a")
		same(t, "nothing more", r.next(s, 1000, 1000))
		if n := s.queue.len(); n != 0 {
			t.Errorf("%d idle partitions are queued", n)
		}
		r.put(topic, 1, "b")
		told("one moved", 1)
		r.put(topic, 1, "c")
		r.put(topic, 0, "d")
		told("more moved before Next", 0)
		if n := s.queue.len(); n != 2 {
			t.Errorf("%d partitions are queued, want the 2 that moved", n)
		}
		same(t, "what moved", r.next(s, 1000, 1000), "1:2:b", "1:2:c", "0:1:d")

		r.change(s, StreamChange{Pause: ref(1)})
		r.put(topic, 1, "e")
		told("while paused", 0)
		r.change(s, StreamChange{Resume: ref(1)})
		told("resumed", 1)
		same(t, "after resume", r.next(s, 1000, 1000), "1:2:e")

		err := s.Change(StreamChange{Set: []StreamPart{part(1, 0, 2)}}, 1000)
		if errcode.Of(err) != errcode.InvalidRequest {
			t.Errorf("the same generation: %v", err)
		}
		r.change(s, StreamChange{Set: []StreamPart{part(1, 2, 3)}})
		told("after seek", 1)
		same(t, "after seek", r.next(s, 1000, 1000), "1:3:e")

		err = s.Change(StreamChange{Set: []StreamPart{part(2, 0, 1)}}, 2)
		if errcode.Of(err) != errcode.PolicyViolation || s.Partitions() != 2 {
			t.Errorf("a third partition of two: %v, %d", err, s.Partitions())
		}
		err = s.Change(StreamChange{Set: []StreamPart{part(2, 0, 1)}, Pause: ref(2)}, 1000)
		if errcode.Of(err) != errcode.InvalidRequest || s.Partitions() != 2 {
			t.Errorf("a partition twice: %v, %d", err, s.Partitions())
		}
		r.change(s, StreamChange{Remove: ref(1)})
		r.put(topic, 1, "f")
		told("removed", 0)
		same(t, "after remove", r.next(s, 1000, 1000))

		r.change(s, StreamChange{Set: []StreamPart{part(1, 9, 1), part(7, 0, 1), {Topic: topic.ID, Index: 2, Epoch: 99, Generation: 1}}})
		same(t, "errors", r.next(s, 1000, 1000), "1:1:OFFSET_OUT_OF_RANGE", "7:1:UNKNOWN_TOPIC_OR_PARTITION", "2:1:UNKNOWN_LEADER_EPOCH")
		if n := s.Partitions(); n != 1 {
			t.Errorf("%d partitions after their errors, want 1", n)
		}
		told("the end of the above", 1)
		if err := r.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		told("deleted", 1)
		if got := r.next(s, 1000, 1000); len(got) != 1 || !strings.HasPrefix(got[0], "0:1:UNKNOWN_TOPIC") {
			t.Errorf("after deletion: %v", got)
		}
	})
}

// TestStreamTakesTurns: a partition with much does not hold up one with
// little, and a batch that finds no room is the first of the next delivery.
func TestStreamTakesTurns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 3, nil)
		s := r.NewStream(func() {})
		defer s.Close()
		one := len(records(t, batch.NoProducer, "x"))
		for range 5 {
			r.put(topic, 0, "a")
		}
		r.put(topic, 1, "b")
		r.put(topic, 2, strings.Repeat("c", one))
		for i := range int32(3) {
			r.change(s, StreamChange{Set: []StreamPart{{Topic: topic.ID, Index: i, Epoch: -1}}})
		}
		same(t, "one of each", r.next(s, 3*one, one), "0:0:a", "1:0:b")
		if got := r.next(s, 3*one, one); len(got) == 0 || got[0][0] != '2' {
			t.Errorf("the large batch had no room; next came %v", got)
		}
		for n := 1; n < 5; {
			got := r.next(s, 1, 1)
			same(t, "at least a batch", got, "0:0:a")
			n += len(got)
		}
		if got, more := s.Next(1, 1); len(got) != 0 || more {
			t.Errorf("at the end: %d results, more %t", len(got), more)
		}
	})
}

// TestStreamSeesLeaderChange: partitions that nothing moves leave the stream
// when this node does not lead them any more.
func TestStreamSeesLeaderChange(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 4, nil)
		var readied atomic.Int32
		s := r.NewStream(func() { readied.Add(1) })
		defer s.Close()
		for i := range int32(4) {
			r.change(s, StreamChange{Set: []StreamPart{{Topic: topic.ID, Index: i, Epoch: -1}}})
		}
		same(t, "nothing there", r.next(s, 1000, 1000))
		readied.Store(0)
		time.Sleep(time.Minute)
		if n := readied.Load(); n != 0 {
			t.Errorf("told %d times that something is ready while nothing happened", n)
		}
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault { return vfs.Fault{Err: syscall.EIO} })
		for i := range int32(4) { // the disk fails, so the replicas stop
			_ = r.produce(topic, i, records(t, batch.NoProducer, "x"))
		}
		synctest.Wait()
		if readied.Load() == 0 {
			t.Fatal("not told that the leader is gone")
		}
		results, _ := s.Next(1000, 1000)
		for _, res := range results {
			if res.Err.Code != errcode.NotLeaderOrFollower {
				t.Errorf("partition %d: %v", res.Index, res.Err)
			}
		}
		if len(results) != 4 || s.Partitions() != 0 {
			t.Errorf("%d partitions left the stream, want 4; %d still there", len(results), s.Partitions())
		}
	})
}

// TestStreamOfLatePartition: a partition that comes to this node after it was
// set, and before it is looked at, is followed.
func TestStreamOfLatePartition(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		s := r.NewStream(func() {})
		defer s.Close()
		key := partitionKey{topic.ID, 0}
		p := r.dir.find(topic.ID, 0)
		r.dir.mu.Lock()
		delete(r.dir.byKey, key)
		r.dir.mu.Unlock()
		r.change(s, StreamChange{Set: []StreamPart{{Topic: topic.ID, Epoch: -1}}})
		r.dir.put(p)
		same(t, "nothing yet", r.next(s, 1000, 1000))
		r.put(topic, 0, "a")
		synctest.Wait()
		same(t, "what came", r.next(s, 1000, 1000), "0:0:a")
	})
}
