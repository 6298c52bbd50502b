package broker

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

func (u *unfolding) used() int64 { return u.small.Used() + u.large.Used() }

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
			r.unfolding.small.TryAcquire(smallUnfoldingBytes)
			began := time.Now()
			res := r.produceParts(timeout, fresh(codec))[0]
			if res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "decompress") || time.Since(began) != timeout {
				t.Fatalf("%s, without memory: %+v after %v", codec, res, time.Since(began))
			}
			time.AfterFunc(time.Second, func() { r.unfolding.small.Release(smallUnfoldingBytes) })
			if res := r.produceParts(timeout, fresh(codec))[0]; res.Err != nil {
				t.Errorf("%s, with memory in a second: %+v", codec, res)
			}
			if used := r.unfolding.used(); used != 0 {
				t.Errorf("%s: %d bytes stay taken", codec, used)
			}
		}
		r.unfolding.small.TryAcquire(smallUnfoldingBytes)
		if res := r.produceParts(timeout, fresh(batch.None))[0]; res.Err != nil {
			t.Errorf("uncompressed: %+v", res)
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		byTime := OffsetPart{Topic: topic.ID, Epoch: -1, At: OffsetForTime, TimestampMS: 1}
		if res := r.Offset(ctx, byTime); res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "decompress") {
			t.Errorf("a look-up by time, without memory: %+v", res)
		}
		r.unfolding.small.Release(smallUnfoldingBytes)
		if res := r.Offset(t.Context(), byTime); res.Err != nil || res.Offset != 0 {
			t.Errorf("a look-up by time: %+v", res)
		}
		if used := r.unfolding.used(); used != 0 {
			t.Errorf("%d bytes stay taken", used)
		}
	})
}

// TestMuchIsApart: a batch that needs much memory to be recompressed in waits for
// others that do, and those that need little do not wait for it: neither while it
// has its memory, nor while it waits for it.
func TestMuchIsApart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		part := func(topic string, config map[string]string) ProducePart {
			b := coded(t, batch.Gzip, strings.Repeat("x", 9_000))
			batch.SetProducer(b, batch.NoProducer)
			return ProducePart{Topic: r.create(topic, 1, config).ID, Batch: b}
		}
		const timeout, free = 7 * time.Second, 3 * time.Second
		most := part("best", map[string]string{"compression.type": "zstd", "compression.zstd.level": "22"})
		little := part("better", map[string]string{"compression.type": "zstd", "compression.zstd.level": "9"})
		r.unfolding.large.TryAcquire(1) // somebody has some of it
		time.AfterFunc(free, func() { r.unfolding.large.Release(1) })
		began := time.Now()
		waited := make(chan time.Duration)
		go func() {
			if res := r.produceParts(timeout, most)[0]; res.Err != nil {
				t.Errorf("at the highest level: %+v", res)
			}
			waited <- time.Since(began)
		}()
		synctest.Wait()
		if res := r.produceParts(timeout, little)[0]; res.Err != nil || time.Since(began) != 0 {
			t.Errorf("behind a batch that waits for much memory, one that needs little: %+v after %v", res, time.Since(began))
		}
		if took := <-waited; took != free {
			t.Errorf("at the highest level: after %v, want %v", took, free)
		}
		if used := r.unfolding.used(); used != 0 {
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
		if grown, unfolding := r.grown.Used(), r.unfolding.used(); grown != 0 || unfolding != 0 {
			t.Errorf("%d and %d bytes stay taken", grown, unfolding)
		}
	})
}
