package broker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestUnfoldingWaits: batches are decompressed in memory that the whole node has
// for it: who finds none waits for it, and at the latest fails. What is not
// compressed needs none, and what was needed is given back.
func TestUnfoldingWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, nil)
		fresh := func(codec batch.Codec) ProducePart {
			b := coded(t, codec, strings.Repeat("x", 9_000))
			batch.SetProducer(b, batch.NoProducer)
			return ProducePart{Topic: topic.ID, Batch: b}
		}
		const timeout = 7 * time.Second
		for codec := batch.Gzip; codec <= batch.Zstd; codec++ {
			r.unfolding.TryAcquire(maxUnfoldingBytes)
			began := time.Now()
			res := r.produceParts(timeout, fresh(codec))[0]
			if res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "decompress") || time.Since(began) != timeout {
				t.Fatalf("%s, without memory: %+v after %v", codec, res, time.Since(began))
			}
			time.AfterFunc(time.Second, func() { r.unfolding.Release(maxUnfoldingBytes) })
			if res := r.produceParts(timeout, fresh(codec))[0]; res.Err != nil {
				t.Errorf("%s, with memory in a second: %+v", codec, res)
			}
			if used := r.unfolding.Used(); used != 0 {
				t.Errorf("%s: %d bytes stay taken", codec, used)
			}
		}
		r.unfolding.TryAcquire(maxUnfoldingBytes)
		if res := r.produceParts(timeout, fresh(batch.None))[0]; res.Err != nil {
			t.Errorf("uncompressed: %+v", res)
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		byTime := OffsetPart{Topic: topic.ID, Epoch: -1, At: OffsetForTime, TimestampMS: 1}
		if res := r.Offset(ctx, byTime); res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "decompress") {
			t.Errorf("a look-up by time, without memory: %+v", res)
		}
		r.unfolding.Release(maxUnfoldingBytes)
		if res := r.Offset(t.Context(), byTime); res.Err != nil || res.Offset != 0 {
			t.Errorf("a look-up by time: %+v", res)
		}
		if used := r.unfolding.Used(); used != 0 {
			t.Errorf("%d bytes stay taken", used)
		}
	})
}

// TestRecompressedIsCounted: what a batch is recompressed to is counted from
// before it is made until it is in the log, also if it is smaller than what was
// sent, which its request holds as well.
func TestRecompressedIsCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"compression.type": "zstd"})
		b := coded(t, batch.None, strings.Repeat("x", 9_000))
		r.grown.TryAcquire(maxGrownBytes)
		res := r.produceParts(time.Second, ProducePart{Topic: topic.ID, Batch: b})[0]
		if res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "recompression") {
			t.Errorf("without room: %+v", res)
		}
		r.grown.Release(maxGrownBytes)
		if res := r.produceParts(time.Second, ProducePart{Topic: topic.ID, Batch: b})[0]; res.Err != nil {
			t.Errorf("with room: %+v", res)
		}
		if grown, unfolding := r.grown.Used(), r.unfolding.Used(); grown != 0 || unfolding != 0 {
			t.Errorf("%d and %d bytes stay taken", grown, unfolding)
		}
	})
}
