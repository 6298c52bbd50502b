package broker

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// at builds a batch of one record of some size with a timestamp.
func at(t *testing.T, ts time.Time, size int) []byte {
	t.Helper()
	var b batch.Builder
	b.Reset()
	if err := b.Append(ts.UnixMilli(), nil, []byte(strings.Repeat("v", size)), nil); err != nil {
		t.Fatal(err)
	}
	out, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) mustProduce(topic Topic, b []byte) {
	r.t.Helper()
	if res := r.produce(topic, 0, b); res.Err != nil {
		r.t.Fatal(res.Err)
	}
}

func (r *rig) wantStart(topic Topic, want int64, why string) PartitionState {
	r.t.Helper()
	synctest.Wait()
	s := r.DescribePartition(topic.ID, 0)
	if s.LogStart != want {
		r.t.Errorf("log start %d, want %d: %s", s.LogStart, want, why)
	}
	return s
}

func (r *rig) alter(topic Topic, set map[string]string) {
	r.t.Helper()
	if _, err := r.AlterTopic(r.t.Context(), TopicChange{Topic: topic.ID, Set: set}); err != nil {
		r.t.Fatal(err)
	}
}

// TestRetentionByTime follows two segments and the tail until all of it has
// expired, and the disk is free, without anything being appended.
func TestRetentionByTime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"retention.ms": "3600000", "segment.ms": "60000"})
		time.Sleep(time.Minute) // the topic has been looked at
		for range 3 {
			r.mustProduce(topic, at(t, time.Now(), 50_000))
			time.Sleep(20 * time.Minute)
		}
		r.wantStart(topic, 0, "the first is 60 minutes old, not more")
		time.Sleep(defaultRetentionInterval + time.Second)
		r.wantStart(topic, 1, "the first segment has expired")
		time.Sleep(2 * time.Hour)
		if s := r.wantStart(topic, 3, "all has expired"); s.HighWatermark != 3 || s.DiskBytes != 0 {
			t.Errorf("%d bytes on disk, high watermark %d; want 0, 3: no checkpoint let the files go", s.DiskBytes, s.HighWatermark)
		}
		if s := r.Stats(); s.RemovedByRetention != 3 || s.RemovedByRequest != 0 || s.Store.SegmentBytes != 0 || s.Store.UnlinkedBytes < 150_000 {
			t.Errorf("removed by retention %d, by request %d; segments of %d bytes, unlinked %d",
				s.RemovedByRetention, s.RemovedByRequest, s.Store.SegmentBytes, s.Store.UnlinkedBytes)
		}
		r.mustProduce(topic, at(t, time.Now(), 10))
		if got := r.read(topic, 0, 3); len(got) != 1 {
			t.Errorf("%d records after the gap, want 1", len(got))
		}
		r.stop()
		r2 := startRig(t, r.fs)
		*r = *r2
		r.wantStart(topic, 3, "after a restart")
		if got := r.read(topic, 0, 3); len(got) != 1 {
			t.Errorf("%d records after a restart, want 1", len(got))
		}
	})
}

// TestRetentionOfTheFuture: a timestamp in the future keeps its segment, and
// what comes after it, until then; nothing else waits.
func TestRetentionOfTheFuture(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{
			"retention.ms": "60000", "segment.ms": "1000", "message.timestamp.after.max.ms": "86400000",
		})
		time.Sleep(time.Minute)
		r.mustProduce(topic, at(t, time.Now(), 10))
		r.mustProduce(topic, at(t, time.Now().Add(3*time.Hour), 10))
		r.mustProduce(topic, at(t, time.Now(), 10))
		time.Sleep(time.Hour)
		r.wantStart(topic, 1, "the second is of the future")
		time.Sleep(4 * time.Hour)
		r.wantStart(topic, 3, "the future has passed")
	})
}

// TestRetentionWarnsOfTheFuture: one line about many partitions, another one
// after a while that counts them, and none for a clock that is a little ahead.
func TestRetentionWarnsOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		r := startRig(t, vfs.NewMem(1), func(o *Options) { o.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
		defer func() { r.stop() }()
		lines := func() (found []string) {
			synctest.Wait()
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "timestamp in the future") {
					found = append(found, line)
				}
			}
			return found
		}
		configs := map[string]string{"retention.ms": "60000", "message.timestamp.after.max.ms": "604800000"}
		ahead, topic := r.create("ahead", 1, configs), r.create("a", 3, configs)
		r.mustProduce(ahead, at(t, time.Now().Add(futureMargin), 10))
		time.Sleep(defaultRetentionInterval + time.Minute)
		if got := lines(); len(got) != 0 {
			t.Errorf("a clock that is a little ahead: %q", got)
		}
		for i := range int32(3) {
			if res := r.produce(topic, i, at(t, time.Now().Add(48*time.Hour), 10)); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		time.Sleep(defaultRetentionInterval + time.Minute)
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], `"topic":"a"`) || !strings.Contains(got[0], `"other_partitions_since_the_last_line":0`) {
			t.Errorf("logged %q", got)
		}
		time.Sleep(futureInterval)
		r.alter(topic, map[string]string{"retention.ms": "60001"}) // all are looked at again
		time.Sleep(time.Minute)
		if got := lines(); len(got) != 2 || !strings.Contains(got[1], `"other_partitions_since_the_last_line":2`) {
			t.Errorf("logged %q", got)
		}
	})
}

func TestRetentionBySize(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"retention.bytes": "2000000", "retention.ms": "-1", "segment.bytes": "1048576"})
		time.Sleep(time.Minute)
		const count = 200
		for range count {
			r.mustProduce(topic, at(t, time.Now(), 50_000))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		s := r.DescribePartition(topic.ID, 0)
		kept := (s.HighWatermark - s.LogStart) * 50_000
		if kept < 2_000_000 || kept > 2_000_000+2<<20 || s.DiskBytes > 2_000_000+2<<20 {
			t.Errorf("%d bytes of records and %d of files are kept, want 2,000,000 and at most two segments more", kept, s.DiskBytes)
		}
		if got := r.read(topic, 0, s.LogStart); int64(len(got)) != s.HighWatermark-s.LogStart {
			t.Errorf("%d records from the log start on, want %d", len(got), s.HighWatermark-s.LogStart)
		}
	})
}

// TestRetentionFollowsTheTopic: a change is acted upon without waiting for the
// interval, and no limit means none.
func TestRetentionFollowsTheTopic(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"retention.ms": "-1"})
		r.mustProduce(topic, at(t, time.Now(), 10))
		time.Sleep(2 * time.Hour)
		r.wantStart(topic, 0, "there is no limit")
		r.alter(topic, map[string]string{"retention.ms": "1000"})
		time.Sleep(time.Second)
		r.wantStart(topic, 1, "the limit is a second")
	})
}

// TestRetentionSleeps: what has nothing to expire is looked at no more.
func TestRetentionSleeps(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range 10 {
			r.create(fmt.Sprint("idle", i), 100, nil)
		}
		topic := r.create("a", 1, nil)
		r.mustProduce(topic, at(t, time.Now(), 10))
		time.Sleep(time.Hour)
		synctest.Wait()
		r.retention.mu.Lock()
		defer r.retention.mu.Unlock()
		if n := len(r.retention.queue); n != 1 || len(r.retention.byKey) != 1 {
			t.Fatalf("%d of 1001 partitions wait to be looked at, want the one with a record", n)
		}
		if until := time.Until(r.retention.queue[0].due); until < 6*24*time.Hour {
			t.Errorf("it is looked at in %v, nothing expires for days", until)
		}
	})
}

// TestDeleteRecordsFreesDisk: files go soon after, though nothing is appended,
// and the log goes on behind the gap, also after a crash at that moment.
func TestDeleteRecordsFreesDisk(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"segment.bytes": "1048576"})
		for range 30 {
			r.mustProduce(topic, at(t, time.Now(), 50_000))
		}
		time.Sleep(time.Minute) // flushed
		res := r.DeleteRecords(t.Context(), []DeletePart{{Topic: topic.ID, Before: 24}})
		if res[0].Err != nil || res[0].LogStart != 24 {
			t.Fatalf("DeleteRecords = %+v", res[0])
		}
		before := r.DescribePartition(topic.ID, 0)
		if before.UnlinkBytes == 0 || before.UnlinkBytes >= before.DiskBytes {
			t.Errorf("%d of %d bytes wait to be unlinked", before.UnlinkBytes, before.DiskBytes)
		}
		time.Sleep(2 * reclaimDelay)
		synctest.Wait()
		after := r.DescribePartition(topic.ID, 0)
		if after.UnlinkBytes != 0 || after.DiskBytes != before.DiskBytes-before.UnlinkBytes {
			t.Errorf("after a while %d of %d bytes wait to be unlinked", after.UnlinkBytes, after.DiskBytes)
		}
		if again := r.DeleteRecords(t.Context(), []DeletePart{{Topic: topic.ID, Before: 20}, {Topic: topic.ID, Before: 31}}); again[0].Err != nil || again[1].Err == nil {
			t.Errorf("DeleteRecords = %+v", again)
		}
		if s := r.Stats(); s.RemovedByRequest != 24 || s.RemovedByRetention != 0 || s.Store.SegmentBytes != after.DiskBytes {
			t.Errorf("removed by request %d, by retention %d; segments of %d bytes, described are %d",
				s.RemovedByRequest, s.RemovedByRetention, s.Store.SegmentBytes, after.DiskBytes)
		}
		r.stop()
		*r = *startRig(t, r.fs)
		if s := r.Stats(); s.RemovedByRequest != 0 || s.Store.SegmentBytes != after.DiskBytes {
			t.Errorf("after a restart: removed by request %d, segments of %d bytes", s.RemovedByRequest, s.Store.SegmentBytes)
		}
		r.wantStart(topic, 24, "after a restart")
		if got := r.read(topic, 0, 24); len(got) != 6 {
			t.Errorf("%d records, want 6", len(got))
		}
	})
}
