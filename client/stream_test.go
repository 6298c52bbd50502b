package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// nothing wants no record to come for a while.
func nothing(t *testing.T, co *Consumer, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for r, err := range co.Records(ctx) {
		if err == nil {
			t.Fatalf("%s: record %d of partition %d", why, r.Offset, r.Partition)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: %v", why, err)
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	bothWays(t, 2, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 2)
		f.fill("a", 0, 0, 20, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}, {"a", 1, 0, time.Time{}}}})
		defer co.Close()
		if diff := cmp.Diff(map[int32][]string{0: numbered(7)}, read(t, co, 7)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		pause := func(partition int32) {
			t.Helper()
			if err := co.Pause("a", partition); err != nil {
				t.Fatal(err)
			}
		}
		resume := func(partition int32) {
			t.Helper()
			if err := co.Resume("a", partition); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		pause(0)
		if got := co.Buffered(); got != 0 {
			t.Errorf("%d bytes are held of a partition that is paused", got)
		}
		f.fill("a", 0, 20, 25, 5, batch.None)
		nothing(t, co, "while paused")
		f.fill("a", 1, 0, 3, 3, batch.None)
		if diff := cmp.Diff(map[int32][]string{1: numbered(3)}, read(t, co, 3)); diff != "" {
			t.Errorf("the other partition (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]Assignment{{"a", 0, 7, time.Time{}}}, co.Paused()); diff != "" {
			t.Errorf("Paused (-want +got):\n%s", diff)
		}
		resume(0)
		if diff := cmp.Diff(map[int32][]string{0: numbered(12)[7:]}, read(t, co, 5)); diff != "" {
			t.Errorf("after Resume (-want +got):\n%s", diff)
		}
		// A Seek of a paused partition takes effect when it is resumed.
		pause(0)
		if err := co.Seek("a", 0, 2); err != nil {
			t.Fatal(err)
		}
		nothing(t, co, "paused, after Seek")
		resume(0)
		if diff := cmp.Diff(map[int32][]string{0: numbered(25)[2:]}, read(t, co, 23)); diff != "" {
			t.Errorf("after Seek and Resume (-want +got):\n%s", diff)
		}
		// Pause within the loop: no record of it comes any more.
		if err := co.Seek("a", 0, 0); err != nil {
			t.Fatal(err)
		}
		read(t, co, 2)
		pause(0)
		nothing(t, co, "paused within a batch")
		pause(0) // again: no harm
		resume(0)
		if got := read(t, co, 1)[0][0]; got != "2" {
			t.Errorf("after a pause within a batch: %s, want 2", got)
		}
		if err := co.Pause("b", 0); !errors.Is(err, ErrNoPartition) {
			t.Errorf("Pause of another topic = %v", err)
		}
		if err := co.Resume("b", 0); !errors.Is(err, ErrNoPartition) {
			t.Errorf("Resume of another topic = %v", err)
		}
	})
}

func TestAssign(t *testing.T) {
	bothWays(t, 2, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 3)
		for part := range 3 {
			f.fill("a", part, 0, 10, 5, batch.None)
		}
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{})
		defer co.Close()
		nothing(t, co, "of nothing assigned")
		assign := func(as ...Assignment) {
			t.Helper()
			if err := co.Assign(as...); err != nil {
				t.Fatal(err)
			}
		}
		assign(Assignment{"a", 0, 4, time.Time{}}, Assignment{"a", 1, Beginning, time.Time{}})
		if diff := cmp.Diff(map[int32][]string{0: numbered(10)[4:], 1: numbered(10)}, read(t, co, 16)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if err := co.Assign(Assignment{"a", 2, 0, time.Time{}}, Assignment{"a", 1, 0, time.Time{}}); err == nil {
			t.Error("assigned twice")
		}
		if _, err := co.Position("a", 2); !errors.Is(err, ErrNoPartition) {
			t.Errorf("after a refused Assign: %v, want nothing assigned", err)
		}
		assign(Assignment{"a", 2, 8, time.Time{}})
		if err := co.Unassign("a", 1); err != nil {
			t.Fatal(err)
		}
		f.fill("a", 1, 10, 20, 5, batch.None)
		if diff := cmp.Diff(map[int32][]string{2: {"8", "9"}}, read(t, co, 2)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		nothing(t, co, "of a partition that is not assigned any more")
		if diff := cmp.Diff([]Assignment{{"a", 0, 10, time.Time{}}, {"a", 2, 10, time.Time{}}}, co.Assigned()); diff != "" {
			t.Errorf("Assigned (-want +got):\n%s", diff)
		}
		if err := co.Unassign("a", 1); !errors.Is(err, ErrNoPartition) {
			t.Errorf("Unassign twice = %v", err)
		}
		assign(Assignment{"a", 1, 10, time.Time{}}) // and back
		if diff := cmp.Diff(map[int32][]string{1: numbered(20)[10:]}, read(t, co, 10)); diff != "" {
			t.Errorf("assigned again (-want +got):\n%s", diff)
		}
	})
}

// TestPartitionBackPressure: a partition with much leaves room for another,
// though nobody polls, if the server hears that it is to pause before the credit is
// used up.
func TestPartitionBackPressure(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.pace = time.Millisecond
		f.createTopic("a", 2)
		f.fill("a", 0, 0, 5000, 50, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{
			MaxPrefetchedBytes: 40_000, MaxPartitionBytes: 1_000, Assignments: []Assignment{{"a", 0, 0, time.Time{}}, {"a", 1, 0, time.Time{}}},
		})
		defer co.Close()
		time.Sleep(time.Minute)
		f.fill("a", 1, 0, 5, 5, batch.None)
		time.Sleep(time.Minute)
		co.mu.Lock()
		held := make(map[int32]int)
		for _, r := range co.ready {
			held[r.Partition] += len(r.data)
		}
		co.mu.Unlock()
		if held[1] == 0 || held[0] == 0 || held[0]+held[1] > 45_000 {
			t.Errorf("%v bytes held, want some of both", held)
		}
		if f.hook(func() {}); !f.noStreams && f.pauses == 0 {
			t.Error("the server was not told to pause the partition")
		}
		if diff := cmp.Diff(map[int32][]string{0: numbered(5000), 1: numbered(5)}, read(t, co, 5005)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestStreamsRefused: a server that has no room for a stream is asked instead.
func TestStreamsRefused(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.refuseStreams = errcode.PolicyViolation
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 10, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
		defer co.Close()
		if diff := cmp.Diff(map[int32][]string{0: numbered(10)}, read(t, co, 10)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if f.count(frame.KindSubscribe) != 1 {
			t.Errorf("%d times refused, want 1", f.count(frame.KindSubscribe))
		}
	})
}

// TestStreamEndsWithConsumer: Close leaves no stream behind, and the
// connection goes on.
func TestStreamEndsWithConsumer(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 10, 5, batch.None)
		c := f.client()
		defer c.Close()
		for range 3 {
			co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
			read(t, co, 10)
			co.Close()
			synctest.Wait()
		}
		if n := f.count(frame.KindUnsubscribe); n != 3 {
			t.Errorf("%d streams ended, want 3", n)
		}
		if n := f.dials["node0:9092"]; n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// TestQuietListenerIsKept: a client that is pushed to and has nothing to say
// says so before the server gives it up.
func TestQuietListenerIsKept(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
		defer co.Close()
		synctest.Wait()
		before := f.count(frame.KindPing)
		for i := range 60 { // the fake's idle time-out is a minute
			f.fill("a", 0, i, i+1, 1, batch.None)
			time.Sleep(5 * time.Second)
		}
		if got := f.count(frame.KindPing) - before; got < 5 || got > 20 {
			t.Errorf("%d pings in five minutes, want about 10", got)
		}
	})
}

// TestStaleDelivery: what was delivered for the place before a Seek is dropped,
// however late it comes, and its bytes are given back as credit.
func TestStaleDelivery(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		tp := f.createTopic("a", 1)
		f.fill("a", 0, 0, 20, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 10, time.Time{}}}})
		defer co.Close()
		read(t, co, 10)
		if err := co.Seek("a", 0, 20); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		co.mu.Lock()
		st, generation := co.byStream[0], co.cursors[0].generation
		consumed := st.consumed
		co.mu.Unlock()
		late := tp.partitions[0].batches[3]
		d := &pb.Deliver{Stream: st.id, Parts: []*pb.DeliverPart{{
			TopicId: tp.id[:], Generation: generation - 1, HighWatermark: 20, Length: uint32(len(late)),
		}}}
		if err := co.delivered(st, d, late); err != nil {
			t.Fatal(err)
		}
		nothing(t, co, "of before the Seek")
		co.mu.Lock()
		defer co.mu.Unlock()
		if got := st.consumed - consumed; got != uint64(len(late)) {
			t.Errorf("%d bytes of credit given back, want %d", got, len(late))
		}
	})
}

// TestStaleDeliveryAssignedAgain: what was under way to a partition when it was taken
// away is dropped if it comes after the partition was assigned again, elsewhere, in the
// same stream.
func TestStaleDeliveryAssignedAgain(t *testing.T) {
	for name, between := range map[string]func(){"the server hears of one change": func() {}, "of two": synctest.Wait} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, f *fakeCluster) {
				tp := f.createTopic("a", 2)
				f.fill("a", 0, 0, 20, 5, batch.None)
				c := f.client()
				defer c.Close()
				co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 10, time.Time{}}, {"a", 1, 0, time.Time{}}}})
				defer co.Close()
				read(t, co, 10)
				co.mu.Lock()
				st, generation := co.byStream[0], co.cursors[0].generation
				co.mu.Unlock()
				if err := co.Unassign("a", 0); err != nil {
					t.Fatal(err)
				}
				between()
				if err := co.Assign(Assignment{"a", 0, 5, time.Time{}}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				late := tp.partitions[0].batches[3]
				d := &pb.Deliver{Stream: st.id, Parts: []*pb.DeliverPart{{
					TopicId: tp.id[:], Generation: generation, HighWatermark: 20, Length: uint32(len(late)),
				}}}
				if err := co.delivered(st, d, late); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(map[int32][]string{0: numbered(20)[5:]}, read(t, co, 15)); diff != "" {
					t.Errorf("assigned again (-want +got):\n%s", diff)
				}
				nothing(t, co, "that was under way to the partition when it was taken away")
				co.mu.Lock()
				defer co.mu.Unlock()
				if st != co.byStream[0] {
					t.Error("the stream has ended")
				}
			})
		})
	}
}

// TestStreamOfManyParts: what is said about many partitions is said in pieces
// that fit in the smallest frames there are.
func TestStreamOfManyParts(t *testing.T) {
	const partitions = 5000
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.frame = frame.HandshakeMaxBytes
		f.createTopic("a", partitions)
		c := f.client()
		defer c.Close()
		var all []Assignment
		for p := range int32(partitions) {
			f.move("a", int(p), 0)
			all = append(all, Assignment{Topic: "a", Partition: p})
		}
		f.fill("a", partitions-1, 0, 1, 1, batch.None)
		co := newConsumer(t, c, ConsumerConfig{Assignments: all})
		defer co.Close()
		read(t, co, 1)
		for _, a := range all[:partitions-1] {
			if err := co.Unassign(a.Topic, a.Partition); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		f.fill("a", partitions-1, 1, 2, 1, batch.None)
		if diff := cmp.Diff(map[int32][]string{partitions - 1: {"1"}}, read(t, co, 1)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		f.hook(func() {
			for _, st := range f.open {
				if len(st.parts) != 1 {
					t.Errorf("%d partitions are left in the stream, want 1", len(st.parts))
				}
			}
		})
	})
}

// TestConsumeFromTime begins at a timestamp, at one that no record has yet, and
// seeks to one. (The fake's records have their offsets for timestamps.)
func TestConsumeFromTime(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 2)
		f.fill("a", 0, 0, 20, 5, batch.None)
		f.fill("a", 1, 0, 3, 3, batch.None)
		c := f.client()
		defer c.Close()
		at := func(ms int64) time.Time { return time.UnixMilli(ms) }
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{
			{Topic: "a", Partition: 0, From: at(12)}, {Topic: "a", Partition: 1, From: at(1000)},
		}})
		defer co.Close()
		if diff := cmp.Diff(map[int32][]string{0: numbered(20)[12:]}, read(t, co, 8)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		nothing(t, co, "as late as was asked for")
		f.fill("a", 1, 3, 5, 2, batch.None)
		if diff := cmp.Diff(map[int32][]string{1: {"3", "4"}}, read(t, co, 2)); diff != "" {
			t.Errorf("what came after (-want +got):\n%s", diff)
		}
		if err := co.SeekTime("a", 0, at(18)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[int32][]string{0: {"18", "19"}}, read(t, co, 2)); diff != "" {
			t.Errorf("after SeekTime (-want +got):\n%s", diff)
		}
		if err := co.Assign(Assignment{Topic: "a", Partition: 1, Offset: 1, From: at(1)}); err == nil {
			t.Error("an offset and a time")
		}
	})
}
