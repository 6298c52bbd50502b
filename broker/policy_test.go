package broker

import (
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// fetchOne reads the only batch at an offset.
func (r *rig) fetchOne(topic Topic, offset int64) []byte {
	r.t.Helper()
	done := make(chan []FetchResult, 1)
	r.Fetch(FetchRequest{MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topic.ID, Offset: offset, MaxBytes: 1, Epoch: -1}}}, func(res []FetchResult) { done <- res })
	res := (<-done)[0]
	if res.Err != nil {
		r.t.Fatal(res.Err)
	}
	defer res.Release()
	var b []byte
	for _, c := range res.Chunks {
		var err error
		if b, err = c.AppendTo(b); err != nil {
			r.t.Fatal(err)
		}
	}
	return b
}

// coded is a batch of one record in a codec.
func coded(t *testing.T, codec batch.Codec, value string) []byte {
	t.Helper()
	var w batch.Builder
	w.Reset()
	w.SetProducer(batch.Producer{ID: 5, Epoch: 2, Sequence: 0}, false)
	if err := w.Append(time.Now().UnixMilli(), []byte("k"), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
	b, err := w.Build(nil, codec, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCompressionType: whatever the codec of a batch, it is stored in the
// topic's, with the same records and the same producer.
func TestCompressionType(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		value := strings.Repeat("value ", 100)
		for _, to := range []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"} {
			for codec := batch.None; codec <= batch.Zstd; codec++ {
				want := codec
				switch to {
				case "producer":
				case "uncompressed":
					want = batch.None
				default:
					want, _ = batch.ParseCodec(to)
				}
				topic := r.create(to+"-"+codec.String(), 1, map[string]string{"compression.type": to})
				b := coded(t, codec, value)
				sent := string(b)
				if res := r.produce(topic, 0, b); res.Err != nil {
					t.Fatal(res.Err)
				}
				got := r.fetchOne(topic, 0)
				h, err := batch.ParseHeader(got)
				if err != nil || batch.CheckCRC(got) != nil {
					t.Fatal(err, batch.CheckCRC(got))
				}
				if h.Attributes.Codec() != want || h.Producer != (batch.Producer{ID: 5, Epoch: 2}) || h.Records != 1 {
					t.Errorf("%s to a topic of %s: %+v", codec, to, h)
				}
				if want == codec && string(got[batch.PrefixBytes:]) != sent[batch.PrefixBytes:] {
					t.Errorf("%s to a topic of %s: the bytes changed", codec, to)
				}
				var it batch.Iterator
				if err := it.Reset(got, 0); err != nil {
					t.Fatal(err)
				}
				if rec, ok := it.Next(); !ok || string(rec.Value) != value {
					t.Errorf("%s to a topic of %s: %+v", codec, to, rec)
				}
				if used := r.grown.Used(); used != 0 {
					t.Fatalf("%s to a topic of %s: %d bytes stay taken", codec, to, used)
				}
			}
		}
	})
}

// TestCompressionTypeTooLarge: what a batch becomes has to fit as well.
func TestCompressionTypeTooLarge(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"compression.type": "uncompressed", "max.message.bytes": "2000"})
		res := r.produce(topic, 0, coded(t, batch.Gzip, strings.Repeat("x", 3000)))
		if res.Err == nil || res.Err.Code != errcode.MessageTooLarge || !strings.Contains(res.Err.Detail, "compression.type") {
			t.Errorf("%+v", res)
		}
		if res := r.produce(topic, 0, coded(t, batch.Gzip, strings.Repeat("x", 1000))); res.Err != nil || res.BaseOffset != 0 {
			t.Errorf("%+v", res)
		}
	})
}

// TestRecompressionWaits: what batches grow by is bounded for all of a node; one
// that finds no room waits for the others, whose parts of its own request are on
// their way by then, and at the latest fails.
func TestRecompressionWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"compression.type": "uncompressed"})
		r.grown = NewBudget(10_000)
		value := strings.Repeat("x", 9_000)
		many := make([]ProducePart, 5)
		for i := range many {
			b := coded(t, batch.Zstd, value)
			batch.SetProducer(b, batch.NoProducer)
			many[i] = ProducePart{Topic: topic.ID, Batch: b}
		}
		done := make(chan []ProduceResult, 1)
		r.Produce(many, time.Minute, func(res []ProduceResult) { done <- res })
		for i, res := range <-done {
			if res.Err != nil || res.BaseOffset != int64(i) {
				t.Errorf("part %d: %+v", i, res)
			}
		}
		if used := r.grown.Used(); used != 0 {
			t.Errorf("%d bytes stay taken", used)
		}
		r.grown.TryAcquire(5_000)
		began := time.Now()
		res := r.produce(topic, 0, coded(t, batch.Zstd, value))
		if res.Err == nil || res.Err.Code != errcode.RequestTimedOut || !strings.Contains(res.Err.Detail, "recompression") || time.Since(began) == 0 {
			t.Errorf("without room: %+v after %v", res, time.Since(began))
		}
	})
}

// TestProducePanics: of a produce that panics when some of its batches are made
// ready, nothing stays counted, and others go on.
func TestProducePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left atomic.Int32 // batches to make ready until the clock panics
		r := startRig(t, vfs.NewMem(1), func(opt *Options) {
			opt.Now = func() time.Time {
				if left.Load() > 0 && strings.Contains(string(debug.Stack()), "(*Broker).prepare") && left.Add(-1) == 0 {
					panic("planted in Now")
				}
				return time.Now()
			}
		})
		defer func() { r.stop() }()
		topic := r.create("a", 1, map[string]string{"compression.type": "uncompressed"})
		part := func() ProducePart {
			return ProducePart{Topic: topic.ID, Batch: coded(t, batch.Zstd, strings.Repeat("x", 9_000))}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			left.Store(2)
			r.Produce([]ProducePart{part(), part()}, time.Minute, func([]ProduceResult) { t.Error("answered") })
		}()
		if used := r.grown.Used(); used != 0 {
			t.Errorf("%d bytes stay taken", used)
		}
		if res := r.produceParts(time.Minute, part())[0]; res.Err != nil || res.BaseOffset != 0 {
			t.Errorf("after it: %+v", res)
		}
	})
}

// TestTimestampLimits: records too far from the clock are refused, and named,
// unless the topic keeps the leader's time.
func TestTimestampLimits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		limits := map[string]string{"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "30000"}
		own := r.create("a", 1, limits)
		limits["message.timestamp.type"] = "LogAppendTime"
		leaders := r.create("b", 1, limits)
		usual := r.create("c", 1, nil)
		time.Sleep(time.Hour)
		tests := []struct {
			after time.Duration
			ok    bool
		}{{-time.Minute, true}, {-time.Minute - time.Millisecond, false}, {0, true}, {30 * time.Second, true}, {30*time.Second + time.Millisecond, false}}
		for _, tt := range tests {
			res := r.produce(own, 0, at(t, time.Now().Add(tt.after), 10))
			switch {
			case tt.ok && res.Err != nil:
				t.Errorf("%v: %v", tt.after, res.Err)
			case !tt.ok && (res.Err == nil || res.Err.Code != errcode.InvalidTimestamp || len(res.Records) != 1 || res.Records[0].Index != 0 || res.LogStart != 0):
				t.Errorf("%v: %+v", tt.after, res)
			}
			if res := r.produce(leaders, 0, at(t, time.Now().Add(tt.after), 10)); res.Err != nil || res.LogAppendTimeMS != time.Now().UnixMilli() {
				t.Errorf("LogAppendTime, %v: %+v", tt.after, res)
			}
		}
		if res := r.produce(usual, 0, at(t, time.Now().Add(time.Hour), 10)); res.Err != nil {
			t.Errorf("an hour ahead: %v", res.Err)
		}
		if res := r.produce(usual, 0, at(t, time.Now().Add(time.Hour+time.Millisecond), 10)); res.Err == nil {
			t.Error("more than an hour ahead: taken, and that is Kafka's default")
		}
		if res := r.produce(usual, 0, at(t, time.UnixMilli(0), 10)); res.Err != nil {
			t.Errorf("of 1970: %v", res.Err)
		}
	})
}

// TestPolicyChanges: a batch is judged by what the topic says when it comes.
func TestPolicyChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, nil)
		codecOf := func(offset int64) batch.Codec {
			if res := r.produce(topic, 0, records(t, batch.NoProducer, strings.Repeat("x", 500))); res.Err != nil || res.BaseOffset != offset {
				t.Fatalf("%+v", res)
			}
			h, _ := batch.ParseHeader(r.fetchOne(topic, offset))
			return h.Attributes.Codec()
		}
		if c := codecOf(0); c != batch.None {
			t.Errorf("before: %s", c)
		}
		if _, err := r.AlterTopic(t.Context(), TopicChange{Topic: topic.ID, Set: map[string]string{"compression.type": "zstd"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c := codecOf(1); c != batch.Zstd {
			t.Errorf("after: %s", c)
		}
	})
}

// TestMinInsyncReplicas: a topic cannot ask for more replicas than there are,
// which is all that one node can show.
func TestMinInsyncReplicas(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("a", 1, map[string]string{"min.insync.replicas": "3"})
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "x")); res.Err != nil {
			t.Errorf("on one node: %v", res.Err)
		}
	})
}
