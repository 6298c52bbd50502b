package bench

import (
	"crypto/rand"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// startNode starts a node in this process and returns clients of it.
func startNode(t *testing.T, clients int) []*client.Client {
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
	var all []*client.Client
	for range clients {
		cl, err := client.New(client.Config{Bootstrap: []string{n.Advertised()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cl.Close() })
		all = append(all, cl)
	}
	return all
}

// producers returns a producer on each client.
func producers(t *testing.T, clients []*client.Client, topic string) []Sink {
	t.Helper()
	var sinks []Sink
	for _, cl := range clients {
		p, err := cl.NewProducer(client.ProducerConfig{Topic: topic, Linger: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close(t.Context()) })
		sinks = append(sinks, p)
	}
	return sinks
}

// TestAgainstNode sends loads through a real node, counts what was
// acknowledged, and reads it all again.
func TestAgainstNode(t *testing.T) {
	t.Parallel()
	clients := startNode(t, 2)
	admin := clients[0].Admin()
	if _, err := admin.CreateTopic(t.Context(), client.TopicSpec{Name: "t", Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	watch := Watch{Now: time.Now, Progress: func(Progress) {}}
	shape := plainShape(100)
	shape.Keys, shape.KeyCount = KeysRandom, 100
	closed, err := Load{Shape: shape, Records: 500, InFlight: 20}.Run(t.Context(), watch, producers(t, clients, "t"))
	if err != nil {
		t.Fatal(err)
	}
	if closed.Records != 500 || closed.Bytes != 500*(100+keyBytes) || closed.Latency.Count != 500 || closed.Failed != 0 {
		t.Errorf("closed loop: %+v", closed)
	}
	shape = Shape{ValueBytes: 50, Values: ValuesZero, Keys: KeysEven, Partitions: 4}
	open, err := Load{Shape: shape, Records: 100, Rate: 1e6}.Run(t.Context(), watch, producers(t, clients, "t"))
	if err != nil {
		t.Fatal(err)
	}
	if open.Records != 100 || open.Bytes != 5000 || open.Lateness.Count != 100 {
		t.Errorf("open loop: %+v", open)
	}
	spans, err := Spans(t.Context(), admin, "t")
	if err != nil || len(spans) != 4 {
		t.Fatal(spans, err)
	}
	got, err := Replay{Spans: spans, Passes: 2, WarmupPasses: 1}.Run(t.Context(), watch, clients)
	if err != nil {
		t.Fatal(err)
	}
	if want := closed.Bytes + open.Bytes; got.Records != 1200 || got.Bytes != 2*want || got.Answered != 1800 {
		t.Errorf("replay: %+v, want 2 times 600 records of %d bytes", got, want)
	}
	// A part of a partition, and no more of it.
	part := []Span{{Topic: "t", Partition: 1, From: 5, Until: 25}}
	if got, err := (Replay{Spans: part, Passes: 1}).Run(t.Context(), watch, clients); err != nil || got.Records != 20 {
		t.Errorf("part: %+v, %v", got, err)
	}
	// An offset that does not exist ends it.
	beyond := []Span{{Topic: "t", Partition: 1, From: 1e6, Until: 2e6}}
	if _, err := (Replay{Spans: beyond, Passes: 1}).Run(t.Context(), watch, clients); err == nil || !strings.Contains(err.Error(), "t[1]") {
		t.Errorf("beyond the end: %v", err)
	}
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	clients := startNode(t, 2)
	if _, err := clients[0].Admin().CreateTopic(t.Context(), client.TopicSpec{Name: "t", Partitions: 3}); err != nil {
		t.Fatal(err)
	}
	sinks := producers(t, clients, "t")
	d := Delivery{
		Load:  Load{Shape: plainShape(100), Records: 200, InFlight: 10, Mark: 7},
		Topic: "t", Patience: time.Minute,
	}
	for _, d.Load.Mark = range []uint64{7, 8} { // the second one does not count the first one's
		got, err := d.Run(t.Context(), Watch{Now: time.Now}, clients[0], sinks)
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
	got, err := d.Run(t.Context(), Watch{Now: time.Now}, clients[0], []Sink{newFakeSink(0)})
	if err != nil || got.Missing != 3 {
		t.Errorf("%+v, %v", got, err)
	}
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
	if _, err := (Replay{Spans: spans, Passes: 1}).Run(t.Context(), Watch{Now: time.Now}, nil); err == nil {
		t.Error("ran without clients")
	}
	if _, err := (Replay{Passes: 1}).Run(t.Context(), Watch{Now: time.Now}, make([]*client.Client, 1)); err == nil {
		t.Error("ran without spans")
	}
}
