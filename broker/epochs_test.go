package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestEpochEnds: an epoch ends where the next one that wrote something begins, and
// one that wrote nothing where the one before it ends (R16). The earliest offset
// has the epoch of its record.
func TestEpochEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		epoch := func() int32 { return r.DescribePartition(topic.ID, 0).Epoch }
		again := func() {
			fsys := r.fs
			r.stop()
			*r = *startRig(t, fsys)
		}
		end := func(e int32) EpochResult {
			return r.EpochEnds(t.Context(), []EpochPart{{Topic: topic.ID, Epoch: e, Current: -1}})[0]
		}
		first := epoch()
		r.produce(topic, 0, records(t, batch.NoProducer, "a", "b", "c"))
		again()
		idle := epoch()
		again()
		last := epoch()
		if !(first < idle && idle < last) {
			t.Fatalf("epochs %d, %d, %d", first, idle, last)
		}
		r.produce(topic, 0, records(t, batch.NoProducer, "d"))
		for _, tt := range []struct {
			epoch int32
			want  EpochResult
		}{
			{first, EpochResult{Epoch: first, End: 3}}, {idle, EpochResult{Epoch: first, End: 3}}, {last, EpochResult{Epoch: last, End: 4}},
			{last + 1, EpochResult{Epoch: -1, End: -1}}, {-1, EpochResult{Epoch: -1, End: -1}},
		} {
			if got := end(tt.epoch); got != tt.want {
				t.Errorf("epoch %d: %+v, want %+v", tt.epoch, got, tt.want)
			}
		}
		for _, tt := range []struct {
			part EpochPart
			want errcode.Code
		}{
			{EpochPart{Topic: topic.ID, Epoch: first, Current: idle}, errcode.FencedLeaderEpoch},
			{EpochPart{Topic: topic.ID, Epoch: first, Current: last + 1}, errcode.UnknownLeaderEpoch},
			{EpochPart{Topic: topic.ID, Index: 1, Epoch: first, Current: -1}, errcode.UnknownTopicOrPartition},
			{EpochPart{Topic: TopicID{9}, Epoch: first, Current: -1}, errcode.UnknownTopicID},
		} {
			if got := r.EpochEnds(t.Context(), []EpochPart{tt.part})[0]; got.Err == nil || got.Err.Code != tt.want || got.Epoch != -1 || got.End != -1 {
				t.Errorf("%+v: %+v, want %v", tt.part, got, tt.want)
			}
		}

		at := func(kind OffsetAt) OffsetResult {
			return r.Offset(t.Context(), OffsetPart{Topic: topic.ID, At: kind, Epoch: -1})
		}
		if got := at(OffsetEarliest); got.Offset != 0 || got.Epoch != first {
			t.Errorf("earliest: %+v, want offset 0 of epoch %d", got, first)
		}
		if got := at(OffsetLatest); got.Offset != 4 || got.Epoch != last {
			t.Errorf("latest: %+v, want offset 4 of epoch %d", got, last)
		}
		r.DeleteRecords(t.Context(), []DeletePart{{Topic: topic.ID, Before: 3}})
		if got := at(OffsetEarliest); got.Offset != 3 || got.Epoch != last {
			t.Errorf("earliest now: %+v, want offset 3 of epoch %d", got, last)
		}
	})
}

// TestEpochEndsUnconfirmed: who cannot tell whether it leads answers no end: it may
// lie below what a consumer has read from the next leader (R19).
func TestEpochEndsUnconfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		part := EpochPart{Topic: topic.ID, Epoch: r.DescribePartition(topic.ID, 0).Epoch, Current: -1}
		asked := 0
		confirm := func(*placed) *errcode.Error {
			asked++
			return errcode.Errorf(errcode.NotLeaderOrFollower, "not any more")
		}
		if _, err := r.epochEnd(&part, confirm); asked != 1 || err == nil || err.Code != errcode.NotLeaderOrFollower {
			t.Errorf("asked %d times, and answered %v", asked, err)
		}
	})
}

func TestProducersOfPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 2, nil)
		var ids []int64
		for range 2 {
			p, err := r.InitProducer(t.Context(), Producer{ID: -1})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, p.ID)
		}
		r.produce(topic, 0, records(t, batch.Producer{ID: ids[1], Epoch: 5}, "a"))
		var late batch.Builder
		late.Reset()
		late.SetProducer(batch.Producer{ID: ids[0], Sequence: 2}, false)
		for _, ms := range []int64{946_684_800_000 + 9, 946_684_800_000} { // the newest counts
			if err := late.Append(ms, nil, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		b, err := late.Build(nil, batch.None, batch.DefaultLevel)
		if err != nil {
			t.Fatal(err)
		}
		r.produce(topic, 0, b)
		got, refused := r.Producers(topic.ID, 0)
		if refused != nil {
			t.Fatal(refused)
		}
		want := []ProducerState{
			{ID: ids[0], LastSequence: 3, LastTimestamp: 946_684_800_000 + 9}, {ID: ids[1], Epoch: 5, LastTimestamp: 946_684_800_000},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if n := r.ProducerCount(topic.ID, 0); n != 2 {
			t.Errorf("%d producers counted, want 2", n)
		}
		if got, err := r.Producers(topic.ID, 1); len(got) != 0 || err != nil {
			t.Errorf("nobody wrote: %v, %v", got, err)
		}
		if _, err := r.Producers(topic.ID, 2); err == nil || err.Code != errcode.UnknownTopicOrPartition {
			t.Errorf("no such partition: %v", err)
		}
	})
}

// TestLogBytes: a partition's size is that of its batches, whether they are in
// memory or in files, and without those that were deleted.
func TestLogBytes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		one := records(t, batch.NoProducer, string(make([]byte, 10_000)))
		var want int64
		for range 5 { // of which some are flushed meanwhile
			r.produce(topic, 0, append([]byte(nil), one...))
			want += int64(len(one))
			if got := r.DescribePartition(topic.ID, 0).LogBytes; got != want {
				t.Errorf("%d bytes, want %d", got, want)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.DescribePartition(topic.ID, 0); s.DiskBytes == 0 || s.LogBytes != want {
			t.Errorf("%d bytes of data files, %d of batches; want some, and %d", s.DiskBytes, s.LogBytes, want)
		}
		for _, none := range []int32{9, -1} {
			if got := r.DescribePartition(topic.ID, none).LogBytes; got != -1 {
				t.Errorf("%d bytes of partition %d, want -1", got, none)
			}
		}
	})
}
