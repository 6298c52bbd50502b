package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// startNode starts a node in this process and returns its address.
func startNode(t *testing.T) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: t.TempDir(), NodeID: 1, Listener: l, Shards: 2,
		JournalBytes: 32 << 20, JournalFileBytes: 8 << 20, FlushAge: time.Second,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return []string{n.Advertised()}
}

// startKafka starts somebody else's idea of Kafka in this process, and returns
// its addresses.
func startKafka(t *testing.T) []string {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake.ListenAddrs()
}

func newNative(addrs []string) (Cluster, error) { return NewNative(client.Config{Bootstrap: addrs}) }

func newKafka(addrs []string) (Cluster, error) {
	return NewKafka(KafkaConfig{Bootstrap: addrs, ClientID: "test"})
}

// eachProtocol runs test once for each protocol and what serves it.
func eachProtocol(t *testing.T, test func(*testing.T, Cluster)) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		start   func(*testing.T) []string
		cluster func([]string) (Cluster, error)
	}{
		{"native", startNode, newNative},
		{"kafka", startKafka, newKafka},
		{"kafka on a node", startNode, newKafka},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := tt.cluster(tt.start(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			test(t, c)
		})
	}
}

// openSinks returns n sinks for the topic.
func openSinks(t *testing.T, c Cluster, topic string, n int, keys Keys) []Sink {
	t.Helper()
	var sinks []Sink
	for range n {
		s, err := c.NewSink(SinkConfig{ProducerConfig: client.ProducerConfig{Topic: topic, Linger: -1}, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(t.Context()) })
		sinks = append(sinks, s)
	}
	return sinks
}

// openSources returns n sources.
func openSources(t *testing.T, c Cluster, n int) []Source {
	t.Helper()
	var sources []Source
	for range n {
		s, err := c.NewSource(SourceConfig{FetchBytes: 1 << 20, PartitionBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		sources = append(sources, s)
	}
	return sources
}

func openTopic(t *testing.T, c Cluster, topic string, partitions int32) {
	t.Helper()
	if got, err := c.OpenTopic(t.Context(), topic, partitions); err != nil || got != (OpenedTopic{Partitions: partitions, Created: true}) {
		t.Fatal(got, err)
	}
}

// TestAgainstCluster sends loads through real sockets, counts what was
// acknowledged, and reads it all again.
func TestAgainstCluster(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c Cluster) {
		openTopic(t, c, "t", 4)
		watch := Watch{Now: time.Now, Progress: func(Progress) {}}
		shape := plainShape(100)
		shape.Keys, shape.KeyCount = KeysRandom, 100
		closed, err := Load{Shape: shape, Records: 500, InFlight: 20}.Run(t.Context(), watch, openSinks(t, c, "t", 2, KeysRandom))
		if err != nil {
			t.Fatal(err)
		}
		if closed.Records != 500 || closed.Bytes != 500*(100+keyBytes) || closed.Latency.Count != 500 || closed.Failed != 0 {
			t.Errorf("closed loop: %+v", closed)
		}
		before := offsets(t, c, "t")
		shape = Shape{ValueBytes: 50, Values: ValuesZero, Keys: KeysEven, Partitions: 4}
		open, err := Load{Shape: shape, Records: 100, Rate: 1e6}.Run(t.Context(), watch, openSinks(t, c, "t", 2, KeysEven))
		if err != nil {
			t.Fatal(err)
		}
		if open.Records != 100 || open.Bytes != 5000 || open.Lateness.Count != 100 {
			t.Errorf("open loop: %+v", open)
		}
		spans := offsets(t, c, "t")
		for p, s := range spans {
			// Each sink deals its own out, so the rest may fall to the first ones.
			if got := s.Until - before[p].Until; got < 24 || got > 26 || s.Partition != int32(p) {
				t.Errorf("partition %d got %d of 100 records", s.Partition, got)
			}
		}
		sources := openSources(t, c, 2)
		got, err := Replay{Spans: spans, Passes: 2, WarmupPasses: 1, Patience: time.Minute}.Run(t.Context(), watch, sources)
		if err != nil {
			t.Fatal(err)
		}
		if want := closed.Bytes + open.Bytes; got.Records != 1200 || got.Bytes != 2*want || got.Answered != 1800 {
			t.Errorf("replay: %+v, want 2 times 600 records of %d bytes", got, want)
		}
		// A part of a partition, and no more of it.
		part := []Span{{Topic: "t", Partition: 1, From: 5, Until: 25}}
		if got, err := (Replay{Spans: part, Passes: 1}).Run(t.Context(), watch, sources); err != nil || got.Records != 20 {
			t.Errorf("part: %+v, %v", got, err)
		}
		// An offset that does not exist ends it.
		beyond := []Span{{Topic: "t", Partition: 1, From: 1e6, Until: 2e6}}
		_, err = Replay{Spans: beyond, Passes: 1}.Run(t.Context(), watch, sources)
		if code, _ := client.CodeOf(err); code != errcode.OffsetOutOfRange || !strings.Contains(err.Error(), "t[1]") {
			t.Errorf("beyond the end: %v", err)
		}
	})
}

// offsets returns what the topic holds.
func offsets(t *testing.T, c Cluster, topic string) []Span {
	t.Helper()
	spans, err := c.Spans(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

func TestTopics(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c Cluster) {
		openTopic(t, c, "t", 3)
		for _, partitions := range []int32{3, 5} { // what there is, whatever was asked for
			if got, err := c.OpenTopic(t.Context(), "t", partitions); err != nil || got != (OpenedTopic{Partitions: 3}) {
				t.Errorf("again, with %d partitions: %+v, %v", partitions, got, err)
			}
		}
		if spans := offsets(t, c, "t"); len(spans) != 3 || spans[2] != (Span{Topic: "t", Partition: 2}) {
			t.Errorf("empty: %v", spans)
		}
		if err := c.DeleteTopic(t.Context(), "t"); err != nil {
			t.Error(err)
		}
		_, err := c.Spans(t.Context(), "t")
		// At once: it is no use to wait for it to come back.
		if code, _ := client.CodeOf(err); code != errcode.UnknownTopicOrPartition || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("spans of a topic that is gone: %v", err)
		}
	})
}

// TestSinkCopies writes over a record's bytes as soon as Send has returned.
func TestSinkCopies(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c Cluster) {
		openTopic(t, c, "t", 2)
		sink := openSinks(t, c, "t", 1, KeysRandom)[0]
		const records = 100
		var key, value [1]byte
		for i := range byte(records) {
			key[0], value[0] = i, i+100
			if err := sink.Send(t.Context(), client.Record{Partition: client.AnyPartition, Key: key[:], Value: value[:]}, func(r client.RecordResult) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 { // so that some records use what others are done with
				if err := sink.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := sink.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		reader, err := openSources(t, c, 1)[0].Open(offsets(t, c, "t"))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		var seen [records]bool
		for n := 0; n < records; {
			got, err := reader.Poll(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range got {
				for rec, err := range p.Records {
					if err != nil || len(rec.Key) != 1 || len(rec.Value) != 1 || rec.Value[0] != rec.Key[0]+100 || seen[rec.Key[0]] {
						t.Fatalf("%x = %x, %v", rec.Key, rec.Value, err)
					}
					seen[rec.Key[0]] = true
					n++
				}
			}
		}
	})
}

func TestKafkaRefuses(t *testing.T) {
	t.Parallel()
	if _, err := NewKafka(KafkaConfig{}); err == nil {
		t.Error("a cluster without an address")
	}
	c, err := NewKafka(KafkaConfig{Bootstrap: []string{"127.0.0.1:1"}}) // asks nobody
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, cfg := range map[string]client.ProducerConfig{
		"batches": {BatchBytes: 1 << 31}, "acks": {Acks: client.AcksNone}, "compression": {Compression: 99},
	} {
		if s, err := c.NewSink(SinkConfig{ProducerConfig: cfg}); err == nil {
			t.Errorf("%s: %+v", name, cfg)
			_ = s.Close(t.Context())
		}
	}
	for _, cfg := range []SourceConfig{{PrefetchBytes: 1}, {FetchBytes: -1}, {FetchBytes: 1 << 31}, {PartitionBytes: 1 << 31}} {
		if s, err := c.NewSource(cfg); err == nil {
			t.Errorf("%+v", cfg)
			s.Close()
		}
	}
	large, err := c.NewSource(SourceConfig{FetchBytes: 500 << 20})
	if err != nil {
		t.Fatal(err)
	}
	r, err := large.Open([]Span{{Topic: "t"}})
	if err != nil {
		t.Fatalf("a fetch above what the client takes by default: %v", err)
	}
	r.Close()
}

func TestDelivery(t *testing.T) {
	eachProtocol(t, func(t *testing.T, c Cluster) {
		openTopic(t, c, "t", 3)
		sinks, source := openSinks(t, c, "t", 2, KeysNone), openSources(t, c, 1)[0]
		d := Delivery{
			Load:  Load{Shape: plainShape(100), Records: 200, InFlight: 10, Mark: 7},
			Topic: "t", Patience: time.Minute,
		}
		for _, d.Load.Mark = range []uint64{7, 8} { // the second one does not count the first one's
			got, err := d.Run(t.Context(), Watch{Now: time.Now}, c, source, sinks)
			if err != nil {
				t.Fatal(err)
			}
			if got.Records != 200 || got.EndToEnd.Count != 200 || got.Missing != 0 || got.Twice != 0 {
				t.Errorf("%+v", got)
			}
			if got.EndToEnd.Max < got.Latency.P50/100 {
				t.Errorf("arrived before it was sent: %+v, %+v", got.EndToEnd, got.Latency)
			}
		}
		// Acknowledged by a sink that sends nowhere: missing.
		d.Patience, d.Load.Mark = time.Millisecond, 9
		d.Load.Records, d.Load.InFlight = 3, 1
		got, err := d.Run(t.Context(), Watch{Now: time.Now}, c, source, []Sink{newFakeSink(0)})
		if err != nil || got.Missing != 3 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestDeal(t *testing.T) {
	t.Parallel()
	var spans, dealt []Span
	for p := range int32(10) {
		spans = append(spans, Span{Partition: p})
	}
	for i := range 3 {
		hand := deal(spans, 3, i)
		if len(hand) < 3 {
			t.Errorf("hand %d: %v", i, hand)
		}
		dealt = append(dealt, hand...)
	}
	slices.SortFunc(dealt, func(a, b Span) int { return int(a.Partition - b.Partition) })
	if !slices.Equal(dealt, spans) {
		t.Errorf("dealt %v", dealt)
	}
	if got := deal(spans[:1], 3, 2); got != nil {
		t.Errorf("nothing left, dealt %v", got)
	}
	read := []Span{{Topic: "t", From: 0, Until: 1}}
	if _, err := (Replay{Spans: read, Passes: 1}).Run(t.Context(), Watch{Now: time.Now}, nil); err == nil {
		t.Error("ran without sources")
	}
	if _, err := (Replay{Spans: spans, Passes: 1}).Run(t.Context(), Watch{Now: time.Now}, make([]Source, 1)); err == nil {
		t.Error("ran without records")
	}
}
