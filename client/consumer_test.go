package client

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// fill appends the values first to last-1 to a partition, so many a batch.
func (f *fakeCluster) fill(name string, partition, first, last, each int, codec batch.Codec) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.topics[name].partitions[partition]
	var b batch.Builder
	for i := first; i < last; {
		b.Reset()
		for range min(each, last-i) {
			h := []batch.RecordHeader{{Key: []byte("h"), Value: []byte("x")}}
			if err := b.Append(int64(i), []byte("key"), []byte(strconv.Itoa(i)), h); err != nil {
				f.t.Fatal(err)
			}
			i++
		}
		out, err := b.Build(nil, codec, batch.DefaultLevel)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, refused := p.append(out); refused != nil {
			f.t.Fatal(refused)
		}
	}
	close(f.grown)
	f.grown = make(chan struct{})
}

func newConsumer(t *testing.T, c *Client, cfg ConsumerConfig) *Consumer {
	t.Helper()
	co, err := c.NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return co
}

// read returns the next n values of a Consumer, by partition.
func read(t *testing.T, co *Consumer, n int) map[int32][]string {
	t.Helper()
	got := make(map[int32][]string)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for r, err := range co.Records(ctx) {
		if err != nil {
			t.Fatalf("with %d records to come: %v", n, err)
		}
		got[r.Partition] = append(got[r.Partition], string(r.Value))
		if n--; n == 0 {
			break
		}
	}
	return got
}

func TestConsume(t *testing.T) {
	// Not zstd: its encoders are pooled, and have channels, which no two bubbles
	// can share.
	for _, codec := range []batch.Codec{batch.None, batch.LZ4} {
		t.Run(codec.String(), func(t *testing.T) {
			bothWays(t, 3, func(t *testing.T, f *fakeCluster) {
				f.createTopic("a", 3)
				for part := range 3 {
					f.fill("a", part, 0, 100, 7, codec)
				}
				c := f.client()
				defer c.Close()
				co := newConsumer(t, c, ConsumerConfig{MaxPartitionBytes: 500, Assignments: []Assignment{
					{"a", 0, Beginning, time.Time{}}, {"a", 1, 10, time.Time{}}, {"a", 2, End, time.Time{}},
				}})
				defer co.Close()
				want := map[int32][]string{0: numbered(100), 1: numbered(100)[10:]}
				if diff := cmp.Diff(want, read(t, co, 190)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				time.Sleep(3 * time.Second) // at the end of all, fetches wait
				f.fill("a", 2, 100, 103, 1, codec)
				want = map[int32][]string{2: {"100", "101", "102"}}
				if diff := cmp.Diff(want, read(t, co, 3)); diff != "" {
					t.Errorf("after the end (-want +got):\n%s", diff)
				}
				for part, want := range []int64{100, 100, 103} {
					if got, err := co.Position("a", int32(part)); got != want || err != nil {
						t.Errorf("position of %d = %d, %v, want %d", part, got, err, want)
					}
				}
			})
		})
	}
}

func TestConsumedRecord(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 3, 3, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 2, time.Time{}}}})
		defer co.Close()
		for r, err := range co.Records(t.Context()) {
			want := Record{
				Topic: "a", Offset: 2, Timestamp: time.UnixMilli(2), Key: []byte("key"), Value: []byte("2"),
				Headers: []Header{{Key: []byte("h"), Value: []byte("x")}},
			}
			if diff := cmp.Diff(want, r); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			break
		}
	})
}

// TestBreakOffRecords leaves the loop within a batch and enters it again.
func TestBreakOffRecords(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 20, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, Beginning, time.Time{}}}})
		defer co.Close()
		var all []string
		for i := range 10 {
			all = append(all, read(t, co, 2)[0]...)
			if pos, _ := co.Position("a", 0); pos != int64(2*i+2) {
				t.Errorf("position %d after %d records", pos, 2*i+2)
			}
		}
		if diff := cmp.Diff(numbered(20), all); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range co.Records(ctx) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after the end: %v, want the context's error", err)
			}
		}
	})
}

func TestPoll(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 10, 5, batch.LZ4)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 3, time.Time{}}}})
		defer co.Close()
		got, err := co.Poll(t.Context())
		if err != nil || len(got) != 1 {
			t.Fatalf("Poll = %v, %v, want one", got, err)
		}
		if got[0].HighWatermark != 10 || got[0].LogStartOffset != 0 || got[0].Partition != 0 {
			t.Errorf("Poll = %+v", got[0])
		}
		var values []string
		for r, err := range got[0].Records() {
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(r.Value))
		}
		if diff := cmp.Diff(numbered(10)[3:], values); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if pos, err := co.Position("a", 0); pos != 10 || err != nil {
			t.Errorf("Position = %d, %v", pos, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := co.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Poll of nothing = %v", err)
		}
		co.Close()
		if _, err := co.Poll(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Poll after Close = %v", err)
		}
	})
}

func TestSeek(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 20, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 18, time.Time{}}}})
		defer co.Close()
		read(t, co, 2)
		for _, step := range []struct {
			to    int64
			first string
		}{{7, "7"}, {Beginning, "0"}, {19, "19"}} {
			if err := co.Seek("a", 0, step.to); err != nil {
				t.Fatal(err)
			}
			if got := read(t, co, 1)[0][0]; got != step.first {
				t.Errorf("after Seek to %d: %s, want %s", step.to, got, step.first)
			}
		}
		// A Seek within the loop takes effect with the next record.
		seeks := map[string]int64{"19": 0, "1": 10, "11": 3}
		if err := co.Seek("a", 0, 19); err != nil {
			t.Fatal(err)
		}
		var got []string
		for r, err := range co.Records(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(r.Value))
			if to, ok := seeks[string(r.Value)]; ok {
				if err := co.Seek("a", 0, to); err != nil {
					t.Fatal(err)
				}
			}
			if len(got) == 7 {
				break
			}
		}
		if diff := cmp.Diff([]string{"19", "0", "1", "10", "11", "3", "4"}, got); diff != "" {
			t.Errorf("with seeks in the loop (-want +got):\n%s", diff)
		}
		if err := co.Seek("a", 1, 0); !errors.Is(err, ErrNoPartition) {
			t.Errorf("Seek of another partition = %v", err)
		}
		if err := co.Seek("a", 0, -3); err == nil {
			t.Error("Seek to -3 succeeded")
		}
	})
}

func TestOutOfRange(t *testing.T) {
	tests := []struct {
		policy int64
		want   string // first value read; "" for an error
	}{{0, ""}, {Beginning, "5"}, {End, "20"}}
	for _, tt := range tests {
		bubbleRun(t, strconv.FormatInt(tt.policy, 10), 1, func(t *testing.T, f *fakeCluster) {
			tp := f.createTopic("a", 1)
			f.fill("a", 0, 0, 20, 5, batch.None)
			tp.partitions[0].start = 5
			tp.partitions[0].batches = tp.partitions[0].batches[1:]
			c := f.client()
			defer c.Close()
			co := newConsumer(t, c, ConsumerConfig{OutOfRange: tt.policy, Assignments: []Assignment{{"a", 0, 2, time.Time{}}}})
			defer co.Close()
			if tt.want != "" {
				time.Sleep(time.Second)
				f.fill("a", 0, 20, 25, 5, batch.None)
				if got := read(t, co, 1)[0][0]; got != tt.want {
					t.Errorf("first value %s, want %s", got, tt.want)
				}
				return
			}
			got, err := co.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var pe *PartitionError
			if code, _ := CodeOf(got[0].Err); code != errcode.OffsetOutOfRange || !errors.As(got[0].Err, &pe) || pe.Offset != 2 {
				t.Errorf("error %v, want OFFSET_OUT_OF_RANGE at 2", got[0].Err)
			}
			if err := co.Seek("a", 0, 6); err != nil {
				t.Fatal(err)
			}
			if got := read(t, co, 1)[0][0]; got != "6" {
				t.Errorf("after Seek: %s, want 6", got)
			}
		})
	}
}

// bubbleRun is bubble as a subtest.
func bubbleRun(t *testing.T, name string, nodes int32, test func(t *testing.T, f *fakeCluster)) {
	t.Run(name, func(t *testing.T) { bothWays(t, nodes, test) })
}

// bothWays is bubble, with servers that offer streams and with some that do
// not. Both have to be used.
func bothWays(t *testing.T, nodes int32, test func(t *testing.T, f *fakeCluster)) {
	for name, noStreams := range map[string]bool{"stream": false, "fetch": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nodes, func(t *testing.T, f *fakeCluster) {
				f.noStreams = noStreams
				test(t, f)
				if pushed, asked := f.count(frame.KindSubscribe) > 0, f.count(frame.KindFetch) > 0; pushed && noStreams || asked && !noStreams {
					t.Errorf("streams %t, fetches %t", pushed, asked)
				}
			})
		})
	}
}

func TestCorruptRecords(t *testing.T) {
	flip := func(b []byte, at int) []byte {
		b = slices.Clone(b)
		b[at] ^= 1
		return b
	}
	const batchBytes = 61 + 15*2 // two records of one digit
	tests := []struct {
		name   string
		damage func([]byte) []byte
		good   int // records before the damage
	}{
		{"payload of the third batch", func(b []byte) []byte { return flip(b, 2*batchBytes+70) }, 4},
		{"payload of the first", func(b []byte) []byte { return flip(b, 70) }, 0},
		{"base offset of the second", func(b []byte) []byte { return flip(b, batchBytes+7-7) }, 2},
		{"cut off", func(b []byte) []byte { return b[:2*batchBytes+30] }, 4},
		{"a batch missing is no damage", func(b []byte) []byte { return append(slices.Clone(b[:batchBytes]), b[2*batchBytes:]...) }, -1},
		{"a batch twice", func(b []byte) []byte { return append(slices.Clone(b[:batchBytes]), b...) }, 2},
	}
	for _, tt := range tests {
		bubbleRun(t, tt.name, 1, func(t *testing.T, f *fakeCluster) {
			f.createTopic("a", 1)
			f.fill("a", 0, 0, 8, 2, batch.None)
			if got := len(f.topic("a").partitions[0].batches[0]); got != batchBytes {
				t.Fatalf("batches of %d bytes, want %d", got, batchBytes)
			}
			f.onFetch = func(part *pb.FetchPart, data []byte) ([]byte, errcode.Code) {
				if part.Offset == 0 && len(data) > 0 {
					return tt.damage(data), errcode.None
				}
				if part.Offset == int64(tt.good) { // the damage is still there
					return flip(data, 70), errcode.None
				}
				return data, errcode.None
			}
			c := f.client()
			defer c.Close()
			co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
			defer co.Close()
			n := 0
			for r, err := range co.Records(t.Context()) {
				if err == nil {
					if n++; n == 6 && tt.good < 0 {
						if r.Offset != 7 {
							t.Errorf("offset %d, want 7", r.Offset)
						}
						return
					}
					continue
				}
				var pe *PartitionError
				if !errors.Is(err, ErrCorrupt) || !errors.As(err, &pe) || pe.Offset != int64(tt.good) || pe.Topic != "a" {
					t.Errorf("error %v, want corrupt records of a[0] at %d", err, tt.good)
				}
				break
			}
			if n != tt.good {
				t.Errorf("%d records before the damage, want %d", n, tt.good)
			}
		})
	}
}

// TestConsumerFollowsLeader moves, cuts and refuses while records flow.
func TestConsumerFollowsLeader(t *testing.T) {
	bothWays(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 2)
		n := 0
		f.onFetch = func(_ *pb.FetchPart, data []byte) ([]byte, errcode.Code) {
			if n++; n%7 == 0 {
				return nil, errcode.OffsetNotAvailable
			}
			return data, errcode.None
		}
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}, {"a", 1, 0, time.Time{}}}})
		defer co.Close()
		for i := range 30 {
			f.fill("a", i%2, i/2*10, i/2*10+10, 3, batch.None)
			switch i % 3 {
			case 0:
				f.move("a", i%2, int32(i)%3)
			case 1:
				f.cut(f.nodes[int32(i)%3])
			}
			time.Sleep(100 * time.Millisecond)
		}
		want := map[int32][]string{0: numbered(150), 1: numbered(150)}
		if diff := cmp.Diff(want, read(t, co, 300)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestPrefetchIsBounded(t *testing.T) {
	const partitions, maxPrefetched, maxFetch = 16, 20_000, 8_000
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", partitions)
		for part := range partitions {
			f.fill("a", part, 0, 1000, 50, batch.None)
		}
		c := f.client()
		defer c.Close()
		cfg := ConsumerConfig{MaxPrefetchedBytes: maxPrefetched, MaxPartitionBytes: maxFetch, MaxFetchBytes: maxFetch}
		for part := range int32(partitions) {
			cfg.Assignments = append(cfg.Assignments, Assignment{"a", part, 0, time.Time{}})
		}
		co := newConsumer(t, c, cfg)
		defer co.Close()
		time.Sleep(time.Minute)
		co.mu.Lock()
		held := 0
		for _, r := range co.ready {
			held += len(r.data)
		}
		if held != co.bytes || held < maxPrefetched || held > maxPrefetched+maxNodeFetches*maxFetch {
			t.Errorf("%d bytes held (counted %d), want %d and at most %d fetches", held, co.bytes, maxPrefetched, maxNodeFetches)
		}
		co.mu.Unlock()
		before := f.count(frame.KindFetch)
		time.Sleep(time.Minute)
		if got := f.count(frame.KindFetch); got != before {
			t.Errorf("%d fetches while nobody polls", got-before)
		}
		got := read(t, co, partitions*1000)
		for part := range int32(partitions) {
			if !slices.Equal(got[part], numbered(1000)) {
				t.Errorf("partition %d: %d values, out of order or missing: %s", part, len(got[part]), brief(got[part]))
			}
		}
		co.mu.Lock()
		defer co.mu.Unlock()
		if co.bytes != 0 {
			t.Errorf("%d bytes counted as held at the end", co.bytes)
		}
	})
}

// TestSeekDropsAnswers seeks while a fetch waits, which is then answered.
func TestSeekDropsAnswers(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 20, 5, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, End, time.Time{}}}})
		defer co.Close()
		time.Sleep(100 * time.Millisecond) // the fetch from offset 20 waits
		if err := co.Seek("a", 0, 0); err != nil {
			t.Fatal(err)
		}
		f.fill("a", 0, 20, 25, 5, batch.None)
		if diff := cmp.Diff(numbered(25), read(t, co, 25)[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestConsumerErrors(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 4, 2, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"none", 0, 0, time.Time{}}, {"a", 5, 0, time.Time{}}, {"a", 0, 0, time.Time{}}}})
		defer co.Close()
		errs := make(map[string]error)
		values := 0
		for r, err := range co.Records(t.Context()) {
			var pe *PartitionError
			if errors.As(err, &pe) {
				errs[pe.Topic+strconv.Itoa(int(pe.Partition))] = err
			} else if err != nil {
				t.Fatal(err)
			} else if r.Partition == 0 {
				values++
			}
			if len(errs) == 2 && values == 4 {
				break
			}
		}
		if code, _ := CodeOf(errs["none0"]); code != errcode.UnknownTopicOrPartition {
			t.Errorf("missing topic: %v", errs["none0"])
		}
		if !errors.Is(errs["a5"], ErrNoPartition) {
			t.Errorf("missing partition: %v", errs["a5"])
		}
		f.createTopic("a", 1) // again, with another id
		f.cut("node0:9092")
		var err error
		for _, err = range co.Records(t.Context()) {
			break
		}
		if !errors.Is(err, ErrRecreated) {
			t.Errorf("recreated topic: %v, want ErrRecreated", err)
		}
		f.fill("a", 0, 50, 51, 1, batch.None)
		if err := co.Seek("a", 0, Beginning); err != nil {
			t.Fatal(err)
		}
		if got := read(t, co, 1)[0][0]; got != "50" {
			t.Errorf("after Seek: %s, want 50", got)
		}
		if _, err := co.Position("b", 0); !errors.Is(err, ErrNoPartition) {
			t.Errorf("Position of another topic = %v", err)
		}
	})
}

func TestConsumerConfig(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		for _, cfg := range []ConsumerConfig{
			{Assignments: []Assignment{{"a", 0, -3, time.Time{}}}}, {Assignments: []Assignment{{"", 0, 0, time.Time{}}}}, {Assignments: []Assignment{{"a", -1, 0, time.Time{}}}},
			{Assignments: []Assignment{{"a", 0, 0, time.Time{}}, {"a", 0, End, time.Time{}}}}, {OutOfRange: 5}, {MaxWait: -1}, {MaxFetchBytes: -1},
		} {
			if co, err := c.NewConsumer(cfg); err == nil {
				t.Errorf("NewConsumer(%+v) succeeded", cfg)
				co.Close()
			}
		}
	})
}

// TestProducedIsConsumed sends every kind of record there and back.
func TestProducedIsConsumed(t *testing.T) {
	bothWays(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", Compression: batch.Snappy})
		sent := []Record{
			{Value: []byte("plain")},
			{Key: []byte{}, Value: []byte{}},
			{Key: []byte("tombstone")},
			{Value: bytes.Repeat([]byte("large"), 5_000)},
			{Value: []byte("old"), Timestamp: time.UnixMilli(12345), Headers: []Header{{Key: []byte("a"), Value: nil}, {Key: []byte{}, Value: []byte{}}}},
		}
		for i := range sent {
			if err := p.Send(t.Context(), sent[i], nil); err != nil {
				t.Fatal(err)
			}
			sent[i].Topic, sent[i].Offset = "a", int64(i)
			if sent[i].Timestamp.IsZero() {
				sent[i].Timestamp = time.Now().Truncate(time.Millisecond)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, Beginning, time.Time{}}}})
		defer co.Close()
		i := 0
		for r, err := range co.Records(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			sent[i].Timestamp, r.Timestamp = sent[i].Timestamp.UTC(), r.Timestamp.UTC()
			if diff := cmp.Diff(sent[i], r); diff != "" {
				t.Errorf("record %d (-sent +got):\n%s", i, diff)
			}
			if i++; i == len(sent) {
				break
			}
		}
		synctest.Wait()
	})
}
