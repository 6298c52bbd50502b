package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

func TestAdminAlterTopic(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		f.createTopic("a", 1)
		got, err := c.Admin().AlterTopic(t.Context(), "a", TopicChange{
			Set: map[string]string{"y": "2", "x": "1"}, Delete: []string{"z"},
		})
		want := []TopicConfig{{Name: "x", Value: "1"}, {Name: "y", Value: "2"}, {Name: "z", Value: "d", Default: true}}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("AlterTopic: %v (-want +got):\n%s", err, diff)
		}
		_, err = c.Admin().AlterTopic(t.Context(), "a", TopicChange{})
		if code, _ := CodeOf(err); code != errcode.InvalidRequest {
			t.Errorf("AlterTopic without a change = %v", err)
		}
	})
}

// TestAdminAddPartitions: a producer whose topic grows sends to the new
// partitions after a refresh of its metadata.
func TestAdminAddPartitions(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		f.createTopic("a", 1)
		ctx := t.Context()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		if _, err := p.SendSync(ctx, Record{Partition: 0}); err != nil {
			t.Fatal(err)
		}
		if err := c.Admin().AddPartitions(ctx, "a", 3, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(c.cfg.MetadataMaxAge)
		synctest.Wait()
		if got, err := p.SendSync(ctx, Record{Partition: 2}); err != nil || got.Partition != 2 {
			t.Errorf("send to a new partition = %+v, %v", got, err)
		}
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestAdminAddPartitionsIsSeen: what is asked next knows of the new partitions,
// though some node does not yet, now or later; the wait ends with the context.
func TestAdminAddPartitionsIsSeen(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		for _, node := range []int32{0, 1} {
			total := int(node) + 2
			f.hook(func() { f.behind = map[int32]int{node: 1} })
			c := f.client(func(c *Config) { c.Bootstrap = []string{"node0:9092", "node1:9092"} })
			a := c.Admin()
			if _, err := a.Offsets(t.Context(), "a", Latest); err != nil {
				t.Fatal(err)
			}
			if err := a.AddPartitions(t.Context(), "a", int32(total), false); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if ends, err := a.Offsets(t.Context(), "a", Latest); err != nil || len(ends) != total {
					t.Errorf("node %d is behind: ends %v, %v; want those of %d partitions", node, ends, err, total)
				}
				time.Sleep(c.cfg.MetadataMaxAge) // refreshes, from whichever node
			}
			c.Close()
		}

		f.hook(func() { f.behind = map[int32]int{0: 1, 1: 1} })
		c := f.client()
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := c.Admin().AddPartitions(ctx, "a", 9, false); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("AddPartitions that nobody tells of = %v after %v", err, time.Since(began))
		}
		f.hook(func() { delete(f.topics, "a") })
		if err := c.awaitPartitions(t.Context(), "a", 9); err != nil {
			t.Errorf("a topic that is gone: %v", err)
		}
	})
}

func TestAdminDeleteRecords(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		tp := f.createTopic("a", 4)
		for i, p := range tp.partitions {
			p.end = int64(10 * (i + 1))
		}
		a, ctx := c.Admin(), t.Context()
		if _, err := a.Offsets(ctx, "a", Latest); err != nil {
			t.Fatal(err)
		}
		f.move("a", 1, 0) // the client has to find out
		f.move("a", 2, 1)
		got, err := a.DeleteRecords(ctx, "a", map[int32]int64{1: 7, 2: BeforeEnd, 3: 0})
		if diff := cmp.Diff(map[int32]int64{1: 7, 2: 30, 3: 0}, got); diff != "" || err != nil {
			t.Errorf("DeleteRecords: %v (-want +got):\n%s", err, diff)
		}
		if starts, err := a.Offsets(ctx, "a", Earliest); err != nil || !cmp.Equal(starts, []int64{0, 7, 30, 0}) {
			t.Errorf("log starts %v, %v", starts, err)
		}
		_, err = a.DeleteRecords(ctx, "a", map[int32]int64{0: 11})
		var pe *PartitionError
		if code, _ := CodeOf(err); code != errcode.OffsetOutOfRange || !errors.As(err, &pe) || pe.Partition != 0 {
			t.Errorf("above the end: %v", err)
		}
		for _, p := range []int32{-1, 4} {
			if _, err := a.DeleteRecords(ctx, "a", map[int32]int64{p: BeforeEnd}); !errors.Is(err, ErrNoPartition) {
				t.Errorf("partition %d: %v", p, err)
			}
		}
		if _, err := a.DeleteRecords(ctx, "a", nil); err == nil {
			t.Error("no partitions: no error")
		}
	})
}

func TestAdminOffsetsForTime(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		f.createTopic("a", 2).partitions[1].end = 9
		a, ctx := c.Admin(), t.Context()
		got, err := a.OffsetsForTime(ctx, "a", time.UnixMilli(4).Add(time.Microsecond))
		if err != nil || got[0] != (TimedOffset{Offset: -1, LeaderEpoch: -1}) || got[1].Offset != 5 || !got[1].Timestamp.Equal(time.UnixMilli(5)) {
			t.Errorf("OffsetsForTime = %+v, %v; a millisecond that has begun is over", got, err)
		}
		if got, err := a.OffsetsForTime(ctx, "a", time.UnixMilli(-7)); err != nil || got[1].Offset != 0 {
			t.Errorf("OffsetsForTime before 1970 = %+v, %v", got, err)
		}
		if got, err := a.OffsetsOfMaxTimestamp(ctx, "a"); err != nil || got[1].Offset != 8 {
			t.Errorf("OffsetsOfMaxTimestamp = %+v, %v", got, err)
		}
	})
}
