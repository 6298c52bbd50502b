package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
)

func newProducer(t *testing.T, c *Client, cfg ProducerConfig) *Producer {
	t.Helper()
	p, err := c.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProduceInOrder(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 3)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", BatchBytes: 200, Compression: batch.LZ4})
		var results []RecordResult
		const n = 300
		for i := range n {
			r := Record{Partition: int32(i % 3), Value: []byte(strconv.Itoa(i))}
			if err := p.Send(t.Context(), r, func(r RecordResult) { results = append(results, r) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(results) != n {
			t.Fatalf("%d results, want %d", len(results), n)
		}
		next := [3]int64{}
		for _, r := range results {
			if r.Err != nil || r.Offset != next[r.Partition] {
				t.Fatalf("result %+v, want offset %d", r, next[r.Partition])
			}
			next[r.Partition]++
		}
		for part := range 3 {
			var want []string
			for i := part; i < n; i += 3 {
				want = append(want, strconv.Itoa(i))
			}
			if diff := cmp.Diff(want, f.values("a", part)); diff != "" {
				t.Errorf("partition %d (-want +got):\n%s", part, diff)
			}
		}
	})
}

// TestStamp numbers a batch twice: bytes that were sent once stay as they were.
// TestProduceFitsFrame: many full batches wait for one node, which takes small
// frames only.
func TestProduceFitsFrame(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.frame = 128 << 10
		f.createTopic("a", 8)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", BatchBytes: 60_000})
		failed := 0
		for i := range 100 {
			r := Record{Partition: int32(i % 8), Value: make([]byte, 20_000)}
			err := p.Send(t.Context(), r, func(r RecordResult) {
				if r.Err != nil {
					failed++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil || failed != 0 {
			t.Fatalf("%d of 100 records failed; close: %v", failed, err)
		}
	})
}

func TestStamp(t *testing.T) {
	t.Parallel()
	var b batch.Builder
	b.Reset()
	if err := b.Append(0, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	built, err := b.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	s := &sending{bytes: built, numbered: true, pid: producerID{true, 7, 1}, sequence: 5}
	stamp(s)
	if &s.bytes[0] != &built[0] {
		t.Error("copied before it was ever sent")
	}
	first := s.bytes
	s.pid.epoch, s.sequence = 2, 0
	stamp(s)
	for _, tt := range []struct {
		b    []byte
		want batch.Producer
	}{{first, batch.Producer{ID: 7, Epoch: 1, Sequence: 5}}, {s.bytes, batch.Producer{ID: 7, Epoch: 2}}} {
		h, err := batch.ParseHeader(tt.b)
		if err != nil || h.Producer != tt.want || batch.CheckCRC(tt.b) != nil {
			t.Errorf("numbers %+v (%v), want %+v", h.Producer, err, tt.want)
		}
	}
}

func TestLingerGathers(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", Linger: 10 * time.Millisecond})
		if _, err := p.SendSync(t.Context(), Record{Value: []byte("first")}); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := p.Send(t.Context(), Record{Value: []byte{byte(i)}}, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if got := f.count(frame.KindProduce); got != 1 {
			t.Errorf("%d produce requests after 5 ms, want 1", got)
		}
		time.Sleep(5 * time.Millisecond)
		synctest.Wait()
		if got := f.count(frame.KindProduce); got != 2 {
			t.Errorf("%d produce requests after 10 ms, want 2", got)
		}
		if got := len(f.topic("a").partitions[0].batches); got != 2 {
			t.Errorf("%d batches, want 2", got)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSendWaitsForSpace(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", MaxBufferedBytes: 1000})
		if _, err := p.SendSync(t.Context(), Record{Value: []byte("0")}); err != nil {
			t.Fatal(err)
		}
		f.setDown("node0:9092", true)
		value := make([]byte, 800)
		if err := p.Send(t.Context(), Record{Value: value}, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Send(ctx, Record{Value: value}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Send without space = %v, want a deadline", err)
		}
		if err := p.Send(t.Context(), Record{Value: make([]byte, 1000)}, nil); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("Send = %v, want ErrTooLarge", err)
		}
		sent := make(chan error, 1)
		go func() { sent <- p.Send(t.Context(), Record{Value: value}, nil) }()
		synctest.Wait()
		select {
		case err := <-sent:
			t.Fatalf("Send = %v without space", err)
		default:
		}
		f.setDown("node0:9092", false)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(f.values("a", 0)); got != 3 {
			t.Errorf("%d records, want 3", got)
		}
	})
}

// TestFlushRacesCallbacks flushes at every moment of a callback's life.
func TestFlushRacesCallbacks(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", Linger: -1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 2000 {
			done := false
			if err := p.Send(ctx, Record{}, func(RecordResult) { done = true }); err != nil {
				t.Fatal(err)
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatalf("Flush = %v", err)
			}
			if !done {
				t.Fatal("Flush returned before the callback")
			}
			if _, err := p.SendSync(ctx, Record{}); err != nil { // returns within its callback
				t.Fatal(err)
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatalf("Flush beside a callback that returns = %v", err)
			}
		}
		if err := p.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		if _, err := p.SendSync(t.Context(), Record{Value: []byte("0")}); err != nil {
			t.Fatal(err)
		}
		f.setDown("node0:9092", true)
		var got error
		if err := p.Send(t.Context(), Record{Value: []byte("1")}, func(r RecordResult) { got = r.Err }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v, want a deadline", err)
		}
		if !errors.Is(got, ErrClosed) || errors.Is(got, ErrUnknownOutcome) {
			t.Errorf("result %v, want ErrClosed and a known outcome", got)
		}
		if err := p.Send(t.Context(), Record{}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Close = %v, want ErrClosed", err)
		}
		if err := p.Close(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("second Close = %v, want ErrClosed", err)
		}
	})
}

func TestAcksNone(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", Acks: AcksNone, NotIdempotent: true})
		for i := range 5 {
			res, err := p.SendSync(t.Context(), Record{Value: []byte(strconv.Itoa(i))})
			if err != nil || res.Offset != -1 {
				t.Fatalf("SendSync = %+v, %v; want offset -1", res, err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if diff := cmp.Diff(numbered(5), f.values("a", 0)); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func TestRecreatedTopic(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		for i := range 3 {
			if i == 2 {
				f.createTopic("a", 1)
			}
			if _, err := p.SendSync(t.Context(), Record{Value: []byte(strconv.Itoa(i))}); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]string{"2"}, f.values("a", 0)); diff != "" {
			t.Errorf("new topic's log (-want +got):\n%s", diff)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSendErrors(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 2)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		defer p.Close(t.Context())
		tests := []struct {
			name   string
			record Record
			want   error
		}{
			{name: "no such partition", record: Record{Partition: 2}, want: ErrNoPartition},
			{name: "negative partition", record: Record{Partition: -2}, want: ErrNoPartition},
			{name: "no such topic", record: Record{Topic: "b"}, want: &errcode.Error{Code: errcode.UnknownTopicOrPartition}},
			{name: "negative time", record: Record{Timestamp: time.UnixMilli(-5)}, want: batch.ErrTimestamp},
		}
		for _, tt := range tests {
			if err := p.Send(t.Context(), tt.record, nil); !errors.Is(err, tt.want) {
				t.Errorf("%s: Send = %v, want %v", tt.name, err, tt.want)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Errorf("Flush of nothing = %v", err)
		}
	})
}

func TestProducerConfig(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		for _, cfg := range []ProducerConfig{
			{Acks: AcksNone}, {Acks: AcksLeader}, {Acks: 3, NotIdempotent: true}, {MaxInFlight: 6},
			{BatchBytes: -1}, {Compression: 5}, {DeliveryTimeout: -1},
		} {
			if p, err := c.NewProducer(cfg); err == nil {
				t.Errorf("NewProducer(%+v) succeeded", cfg)
				p.Close(t.Context())
			}
		}
	})
}

// TestSticky checks that records without a key share a batch, and move to
// another partition with the next one.
func TestSticky(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 4)
		c := f.client(func(cfg *Config) { cfg.Rand = rand.NewPCG(1, 1) })
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		last := int32(-1)
		for range 8 {
			var got []int32
			for range 10 {
				err := p.Send(t.Context(), Record{Partition: AnyPartition, Value: []byte("v")}, func(r RecordResult) {
					got = append(got, r.Partition)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(slices.Compact(got)) != 1 || got[0] == last {
				t.Errorf("partitions %v after %d, want one other", got, last)
			}
			last = got[0]
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestStickyFull checks the same of batches that are full: the record that
// finds no room goes on in another partition, not in the next batch of the same.
func TestStickyFull(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 4)
		c := f.client(func(cfg *Config) { cfg.Rand = rand.NewPCG(1, 1) })
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", BatchBytes: 1000})
		const records, fit = 40, 4 // in a batch
		got := make([]int32, records)
		for i := range records {
			err := p.Send(t.Context(), Record{Partition: AnyPartition, Value: make([]byte, 200)}, func(r RecordResult) {
				got[i] = r.Partition
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < records; i += fit {
			if len(slices.Compact(slices.Clone(got[i:i+fit]))) != 1 {
				t.Errorf("records %d to %d went to %v, want one partition", i, i+fit-1, got[i:i+fit])
			}
			if i > 0 && got[i] == got[i-1] {
				t.Errorf("record %d opened a batch in partition %d again", i, got[i])
			}
		}
	})
}

// BenchmarkProduce sends records of 100 bytes to a node in this process: what a
// client costs, validation by the node included.
func BenchmarkProduce(b *testing.B) {
	f := newFake(b, 1)
	f.createTopic("a", 8)
	f.forget = true
	c := f.client()
	defer c.Close()
	p, err := c.NewProducer(ProducerConfig{Topic: "a"})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 100)
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	i := int32(0)
	for b.Loop() {
		i++
		if err := p.Send(b.Context(), Record{Partition: i % 8, Value: value}, nil); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
