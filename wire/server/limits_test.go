package server_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

func fetchRequest(topic []byte, waitMS, minBytes uint32) *pb.FetchRequest {
	return &pb.FetchRequest{MaxWaitMs: waitMS, MinBytes: minBytes, Parts: []*pb.FetchPart{{TopicId: topic, LeaderEpoch: -1}}}
}

func faultNode(t *testing.T, fsys vfs.FS, dir string) (*node.Node, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Options{
		FS: fsys, Dir: dir, NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, l.Addr().String()
}

func mustClose(t *testing.T, n *node.Node, grace, most time.Duration) {
	t.Helper()
	closed := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	go func() { _ = n.Close(ctx); close(closed) }()
	select {
	case <-closed:
	case <-time.After(most):
		t.Errorf("Close with %v of grace has not returned after %v", grace, most)
	}
}

// TestCloseWithFullConnection: a connection with as many parked fetches
// as it may have.
func TestCloseWithFullConnection(t *testing.T) {
	t.Parallel()
	n, addr := faultNode(t, vfs.OS, t.TempDir())
	p := connect(t, addr)
	topic := p.create("t", 1)
	c := connect(t, addr)
	for range 63 {
		c.start(frame.KindFetch, fetchRequest(topic, 60_000, 1))
	}
	c.start(frame.KindPing, &pb.Ping{}) // when it is answered, they are parked
	if f, _ := c.answer(&pb.Pong{}); f.Kind != frame.KindPing {
		t.Fatalf("answered by %v", f.Kind)
	}
	c.start(frame.KindFetch, fetchRequest(topic, 60_000, 1))
	mustClose(t, n, time.Second, 10*time.Second)
}

// TestExitAfterDiskFails: what serve does when the disk fails.
func TestExitAfterDiskFails(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	n, addr := faultNode(t, fsys, "data")
	p := connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, []byte("v"))
	p.ask(frame.KindProduce, produceRequest(topic, b), new(pb.ProduceResponse), b)
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	m := produceRequest(topic, b)
	m.TimeoutMs = 500
	p.start(frame.KindProduce, m, b)
	t.Log(<-n.Failed())
	mustClose(t, n, 5*time.Second, 15*time.Second)
}

// TestExitWithWaitingProduce: the same, and the client gave more time.
func TestExitWithWaitingProduce(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	n, addr := faultNode(t, fsys, "data")
	p := connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, []byte("v"))
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData && strings.Contains(op.Path, "journal") {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	m := produceRequest(topic, b)
	m.TimeoutMs = 25_000
	p.start(frame.KindProduce, m, b)
	t.Log(<-n.Failed())
	mustClose(t, n, time.Second, 10*time.Second)
}

// TestAnnouncedPayload: clients that announce payloads and send nothing
// must not hold up others.
func TestAnnouncedPayload(t *testing.T) {
	t.Parallel()
	n, addr := faultNode(t, vfs.OS, t.TempDir()) // 16 MiB for requests
	p := connect(t, addr)
	topic := p.create("t", 1)
	b := build(t, []byte("v"))
	hostile := connect(t, addr)
	pr, pw := io.Pipe()
	w := frame.NewWriter(pw)
	w.SetLimits(frame.DefaultLimits())
	go func() {
		_ = w.Queue(frame.KindProduce, 0, 9, produceRequest(topic, b), frame.Part{Bytes: make([]byte, 90<<20)})
		_ = w.Flush()
	}()
	head := make([]byte, 100)
	_, _ = io.ReadFull(pr, head) // prefix, header, and a few bytes of the payload
	_, _ = hostile.nc.Write(head)
	answered := make(chan struct{})
	go func() {
		id := p.start(frame.KindProduce, produceRequest(topic, b), b)
		_ = id
		if _, err := p.r.Read(); err == nil {
			close(answered)
		}
	}()
	select {
	case <-answered:
	case <-time.After(5 * time.Second):
		t.Error("one silent connection holds up everybody's produce")
	}
	_ = hostile.nc.Close()
	mustClose(t, n, time.Second, 20*time.Second)
}

// TestSlowRequests: clients that announce the largest requests there are, until
// no memory for requests is left, and send next to nothing of them. Small
// requests do not wait for them at all; a large one waits until those that are
// too slow are cut off, which would take minutes if nobody waited.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	n, addr := faultNode(t, vfs.OS, t.TempDir()) // 16 MiB for requests
	p := connect(t, addr)
	topic := p.create("t", 1)
	small, large := build(t, []byte("v")), build(t, make([]byte, 900_000))
	slow := make([]*peer, 12) // room for four at a time
	for i := range slow {
		slow[i] = connect(t, addr)
		var prefix [frame.PrefixBytes]byte
		binary.BigEndian.PutUint32(prefix[:], 4<<20)
		prefix[8] = byte(frame.KindProduce)
		prefix[15] = 1
		if _, err := slow[i].nc.Write(append(prefix[:], make([]byte, 1000)...)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); n.RequestBytes() < 15<<20; {
		p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
		if time.Now().After(deadline) {
			t.Fatalf("requests hold %d bytes, want nearly all of 16 MiB", n.RequestBytes())
		}
	}
	p.ask(frame.KindProduce, produceRequest(topic, small), new(pb.ProduceResponse), small)
	if n.RequestBytes() < 15<<20 {
		t.Error("the small request waited until a large one had gone")
	}
	p.ask(frame.KindProduce, produceRequest(topic, large), new(pb.ProduceResponse), large)
	mustClose(t, n, time.Second, 20*time.Second)
}

// TestStalledConsumer: a consumer that reads nothing must not hold up the
// others' fetches.
func TestStalledConsumer(t *testing.T) {
	t.Parallel()
	n, addr := faultNode(t, vfs.OS, t.TempDir()) // 16 MiB for answers
	p := connect(t, addr)
	topic := p.create("t", 1)
	other := p.create("o", 1)
	big := build(t, make([]byte, 900_000))
	for range 12 {
		p.ask(frame.KindProduce, produceRequest(topic, big), new(pb.ProduceResponse), big)
	}
	small := build(t, []byte("v"))
	p.ask(frame.KindProduce, produceRequest(other, small), new(pb.ProduceResponse), small)
	stalled := connect(t, addr)
	for i := range 40 {
		m := fetchRequest(topic, 0, 1)
		m.Parts[0].Offset = int64(i % 3 * 4)
		stalled.start(frame.KindFetch, m)
	}
	answered := make(chan struct{})
	go func() {
		p.start(frame.KindFetch, fetchRequest(other, 0, 1))
		if _, err := p.r.Read(); err == nil {
			close(answered)
		}
	}()
	select {
	case <-answered:
	case <-time.After(5 * time.Second):
		t.Error("a consumer that does not read holds up another's fetch")
	}
	_ = stalled.nc.Close()
	mustClose(t, n, time.Second, 20*time.Second)
}

// TestManyErrors: the errors of a large fetch have to fit in the answer.
func TestManyErrors(t *testing.T) {
	t.Parallel()
	n, addr := faultNode(t, vfs.OS, t.TempDir())
	p := connect(t, addr)
	m := new(pb.FetchRequest)
	for i := range 10_000 {
		m.Parts = append(m.Parts, &pb.FetchPart{TopicId: make([]byte, 16), Partition: int32(i), LeaderEpoch: -1})
	}
	p.start(frame.KindFetch, m)
	resp := new(pb.FetchResponse)
	if _, refused := p.answer(resp); refused != nil {
		t.Errorf("%v", refused)
	}
	mustClose(t, n, time.Second, 20*time.Second)
}

// TestExitAfterMetadataDiskFails: the same for the metadata's log, which
// has no OnFailed of its own.
func TestExitAfterMetadataDiskFails(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	n, addr := faultNode(t, fsys, "data")
	p := connect(t, addr)
	p.create("t", 1)
	fsys.SetInjector(func(op vfs.Op) vfs.Fault {
		if (op.Kind == vfs.OpSyncData || op.Kind == vfs.OpSync) && strings.Contains(op.Path, "metadata") {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	p.start(frame.KindCreateTopic, &pb.CreateTopicRequest{Name: "u", TimeoutMs: 500})
	t.Log(<-n.Failed())
	mustClose(t, n, 5*time.Second, 15*time.Second)
}
