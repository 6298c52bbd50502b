package server_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// metered is a node with limits, and where its metrics are.
type metered struct {
	t           *testing.T
	addr, admin string
}

func startLimited(t *testing.T, fsys vfs.FS, limits node.ClientLimits) metered {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	clients, admin := listen(), listen()
	dir := "data"
	if fsys == vfs.OS {
		dir = t.TempDir()
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: fsys, Dir: dir, NodeID: 1, Version: "test", Listener: clients, Admin: admin, Clients: limits,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 256 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error("close:", err)
		}
	})
	return metered{t, clients.Addr().String(), admin.Addr().String()}
}

// metric returns the value of a series.
func (m metered) metric(series string) float64 {
	resp, err := http.Get("http://" + m.admin + "/metrics")
	if err != nil {
		m.t.Error(err)
		return -1
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindSubmatch(body)
	if found == nil {
		m.t.Errorf("no series %s in\n%s", series, body)
		return -1
	}
	v, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		m.t.Error(err)
	}
	return v
}

// await waits until a series has a value: what it counts happens on another
// goroutine.
func (m metered) await(series string, want float64) {
	m.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); m.metric(series) != want; <-tick.C {
		if m.t.Failed() || time.Now().After(deadline) {
			m.t.Fatalf("%s is %v, want %v", series, m.metric(series), want)
		}
	}
}

// refused connects and wants to be told why that is not taken.
func (m metered) refused(text string) {
	m.t.Helper()
	nc := dial(m.t, m.addr)
	_, err := frame.Connect(frame.NewReader(nc), frame.NewWriter(nc), &pb.ClientHello{})
	if errcode.Of(err) != errcode.ThrottlingQuotaExceeded || !strings.Contains(err.Error(), text) {
		m.t.Errorf("refused with %v, want %v with %q", err, errcode.ThrottlingQuotaExceeded, text)
	}
}

func TestConnectionsMax(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{Connections: 2})
	first := connect(t, m.addr)
	connect(t, m.addr)
	m.refused("(connections.max)")
	if got := m.metric(`flotilla_connections_refused_total{protocol="unknown",reason="max"}`); got != 1 {
		t.Errorf("%v refused", got)
	}
	if got := m.metric("flotilla_connections_limit"); got != 2 {
		t.Errorf("limit %v", got)
	}
	_ = first.nc.Close()
	m.await(`flotilla_connections{protocol="native"}`, 1)
	mustServe(t, m.addr) // there is room again
}

func TestConnectionsMaxPerIP(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{Connections: 10, ConnectionsPerIP: 1})
	first := connect(t, m.addr)
	m.refused("(connections.max.per.ip)")
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := other.DialContext(t.Context(), "tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := frame.Connect(frame.NewReader(nc), frame.NewWriter(nc), &pb.ClientHello{}); err != nil {
		t.Errorf("another address is refused too: %v", err)
	}
	_ = first.nc.Close()
	m.await(`flotilla_connections{protocol="native"}`, 1)
	mustServe(t, m.addr)
	if got := m.metric(`flotilla_connections_refused_total{protocol="unknown",reason="max_per_ip"}`); got != 1 {
		t.Errorf("%v refused", got)
	}
}

// TestRefusedAreBounded: many connections that are refused and say nothing cost
// no more than so many goroutines, and nobody else anything.
func TestRefusedAreBounded(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{Connections: 1})
	p := connect(t, m.addr)
	for range 200 {
		dial(t, m.addr)
	}
	p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
	m.await(`flotilla_connections_refused_total{protocol="unknown",reason="max"}`, 200)
}

func TestConnectionsIdleTimeout(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{IdleTimeout: 50 * time.Millisecond})
	p := connect(t, m.addr)
	if _, err := p.r.Read(); err == nil {
		t.Error("a silent connection is answered")
	}
	m.await(`flotilla_connections_closed_total{protocol="native",reason="timeout"}`, 1)
}

func TestRequestBytesMax(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{RequestBytes: 3 << 20})
	p := connect(t, m.addr)
	topic := p.create("t", 1)
	if err := p.w.Queue(frame.KindProduce, 0, 1, produceRequest(topic, make([]byte, 4<<20)), frame.Part{Bytes: make([]byte, 4<<20)}); err == nil {
		t.Error("the Hello did not tell the limit")
	}
	p.w.SetLimits(frame.DefaultLimits()) // those of a client that does not care
	if err := p.w.Queue(frame.KindProduce, 0, 1, produceRequest(topic, make([]byte, 4<<20)), frame.Part{Bytes: make([]byte, 4<<20)}); err != nil {
		t.Fatal(err)
	}
	_ = p.w.Flush() // fails when the server closes first
	m.await(`flotilla_connections_closed_total{protocol="native",reason="too_large"}`, 1)
}

// TestInFlightBytesMax: one connection's requests hold no more memory than they
// may, though its client sends as many as it can.
func TestInFlightBytesMax(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	fsys := vfs.NewMem(1)
	m := startLimited(t, fsys, node.ClientLimits{InFlightBytes: limit})
	p := connect(t, m.addr)
	topic := p.create("t", 1)
	b := build(t, make([]byte, 900_000))
	var mu sync.Mutex
	most := 0.0
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			used := m.metric(`flotilla_memory_used_bytes{for="requests"}`)
			mu.Lock()
			most = max(most, used)
			mu.Unlock()
		}
		return vfs.Fault{}
	})
	const n = 40
	go func() {
		w := frame.NewWriter(p.nc)
		w.SetLimits(frame.DefaultLimits())
		for i := range n {
			if w.Queue(frame.KindProduce, 0, uint32(1000+i), produceRequest(topic, b), frame.Part{Bytes: b}) != nil || w.Flush() != nil {
				return // the reader below fails
			}
		}
	}()
	for range n {
		resp := new(pb.ProduceResponse)
		if _, refused := p.answer(resp); refused != nil || resp.Results[0].Error != nil {
			t.Fatal(refused, resp)
		}
	}
	fsys.SetInjector(nil)
	mu.Lock()
	defer mu.Unlock()
	if most > limit || most < 900_000 {
		t.Errorf("requests of one connection held %v bytes, at most %d", most, limit)
	}
}

// TestInFlightRequestsMax: no more requests of a connection are under way than
// may be, though its client sends all that it has, and all are answered.
func TestInFlightRequestsMax(t *testing.T) {
	t.Parallel()
	const limit, n = 4, 40
	fsys := vfs.NewMem(1)
	m := startLimited(t, fsys, node.ClientLimits{InFlight: limit})
	p := connect(t, m.addr)
	topic := p.create("t", 1)
	b := build(t, []byte("v"))
	const series = `flotilla_requests_in_flight{protocol="native"}`
	full := make(chan struct{})
	var mu sync.Mutex
	most := 0.0
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			<-full
			now := m.metric(series)
			mu.Lock()
			most = max(most, now)
			mu.Unlock()
		}
		return vfs.Fault{}
	})
	for range n {
		p.start(frame.KindProduce, produceRequest(topic, b), b)
	}
	func() {
		defer close(full)
		m.await(series, limit)
	}()
	for range n {
		resp := new(pb.ProduceResponse)
		if _, refused := p.answer(resp); refused != nil || resp.Results[0].Error != nil {
			t.Fatal(refused, resp)
		}
	}
	fsys.SetInjector(nil)
	mu.Lock()
	defer mu.Unlock()
	if most > limit {
		t.Errorf("%v requests of one connection were under way, at most %d may be", most, limit)
	}
}

// TestErrorsAreCounted by kind and code, for requests and for parts.
func TestErrorsAreCounted(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{})
	p := connect(t, m.addr)
	p.start(frame.KindDescribeTopic, &pb.DescribeTopicRequest{Name: "nope"})
	p.answer(&pb.DescribeTopicResponse{})
	p.start(99, &pb.Ping{})
	p.answer(&pb.Pong{})
	b := build(t, []byte("v"))
	p.ask(frame.KindProduce, produceRequest(make([]byte, 16), b, b), new(pb.ProduceResponse), b, b)
	for series, want := range map[string]float64{
		`flotilla_errors_total{code="UNKNOWN_TOPIC_OR_PARTITION",kind="describe_topic",protocol="native"}`: 1,
		`flotilla_errors_total{code="INVALID_REQUEST",kind="unknown",protocol="native"}`:                   1,
		`flotilla_errors_total{code="UNKNOWN_TOPIC_ID",kind="produce",protocol="native"}`:                  2,
		`flotilla_request_seconds_count{kind="produce",protocol="native"}`:                                 1,
		`flotilla_request_seconds_count{kind="unknown",protocol="native"}`:                                 1,
		`flotilla_requests_in_flight{protocol="native"}`:                                                   0,
		`flotilla_memory_used_bytes{for="requests"}`:                                                       0,
	} {
		if got := m.metric(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}

// TestStreamsAreCounted: streams, what they follow, and the errors that they
// push.
func TestStreamsAreCounted(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{})
	p, c := connect(t, m.addr), connect(t, m.addr)
	topic := p.create("t", 2)
	c.ask(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1, CreditBytes: 100, Parts: []*pb.StreamPart{
		streamPart(topic, 0, 0, 1), streamPart(topic, 1, 0, 1), streamPart(topic, 2, 0, 1),
	}}, &pb.SubscribeResponse{})
	if d, _ := c.deliver(); d.Parts[0].Error == nil {
		t.Fatalf("delivered %v, want an error of the partition that is not there", d)
	}
	c.ask(frame.KindChangeStream, &pb.ChangeStreamRequest{Stream: 1, Pause: []*pb.PartitionRef{{TopicId: topic}}}, &pb.ChangeStreamResponse{})
	for series, want := range map[string]float64{
		"flotilla_streams":                 1,
		"flotilla_stream_partitions":       2,
		"flotilla_stream_partitions_limit": 500_000,
		"flotilla_stream_held_bytes":       0,
		`flotilla_errors_total{code="UNKNOWN_TOPIC_OR_PARTITION",kind="deliver",protocol="native"}`: 1,
	} {
		if got := m.metric(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	c.start(frame.KindCredit, &pb.Credit{Stream: 1, TotalBytes: 1})
	if d, _ := c.deliver(); d.Error == nil {
		t.Fatalf("delivered %v, want the end of the stream", d)
	}
	for series, want := range map[string]float64{
		"flotilla_streams":           0,
		"flotilla_stream_partitions": 0,
		`flotilla_errors_total{code="INVALID_REQUEST",kind="deliver",protocol="native"}`: 1,
	} {
		if got := m.metric(series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}

func TestReadyWhileServing(t *testing.T) {
	t.Parallel()
	m := startLimited(t, vfs.OS, node.ClientLimits{})
	for _, path := range []string{"/healthz", "/readyz"} {
		resp, err := http.Get(fmt.Sprintf("http://%s%s", m.admin, path))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}
