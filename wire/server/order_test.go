package server_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// holdingListener accepts connections of which one can be held: its writes reach
// the client, and return only when they are let go.
type holdingListener struct {
	net.Listener
	held atomic.Pointer[hold]
}

// hold holds the connection of the client at addr until released is closed.
type hold struct {
	addr     string
	released chan struct{}
}

func (l *holdingListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &holdingConn{nc, l}, nil
}

type holdingConn struct {
	net.Conn
	of *holdingListener
}

func (c *holdingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if h := c.of.held.Load(); h != nil && h.addr == c.RemoteAddr().String() {
		<-h.released
	}
	return n, err
}

// TestSubscribeAnsweredFirst: the answer of Subscribe comes before what the stream
// delivers, also if the request came while the one before was being answered:
// after the server looked for answers to write, and before it looks for
// deliveries.
func TestSubscribeAnsweredFirst(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &holdingListener{Listener: tcp}
	n, err := node.Start(t.Context(), node.Options{
		FS: vfs.OS, Dir: t.TempDir(), NodeID: 1, Version: "test", Listener: l,
		JournalBytes: 64 << 20, JournalFileBytes: 8 << 20, MemoryBytes: 64 << 20,
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
	addr := tcp.Addr().String()
	p, c := connect(t, addr), connect(t, addr)
	topic := p.create("t", 1)
	p.produce(topic, 0, build(t, []byte("v")))

	h := &hold{addr: c.nc.LocalAddr().String(), released: make(chan struct{})}
	l.held.Store(h)
	c.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{}) // its answer is here, its write is held
	parts := []*pb.StreamPart{streamPart(topic, 0, 0, 1)}
	ids := []uint32{
		c.start(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 1, CreditBytes: 1 << 20, Parts: parts}),
		c.start(frame.KindSubscribe, &pb.SubscribeRequest{Stream: 2, CreditBytes: 1 << 20, Parts: parts}),
	}
	// Once the second stream is open, all of the first Subscribe is done but for
	// the writing.
	for deadline := time.Now().Add(patience); n.Streams().Streams < 2; {
		p.ask(frame.KindPing, &pb.Ping{}, &pb.Pong{})
		if time.Now().After(deadline) {
			t.Fatalf("%+v, want two streams", n.Streams())
		}
	}
	l.held.Store(nil)
	close(h.released)

	var answered, delivered uint32 // streams
	for answered < 2 || delivered < 2 {
		m := new(pb.Deliver)
		f, refused := c.answer(m)
		switch {
		case refused == nil && f.Kind == frame.KindSubscribe && answered < 2 && f.CorrelationID == ids[answered]:
			answered++
		case refused == nil && f.Kind == frame.KindDeliver && m.Stream == delivered+1 && m.Stream <= answered:
			delivered++
		default:
			t.Fatalf("%v %d %v %v, with %d streams answered and %d delivered", f.Kind, f.CorrelationID, m, refused, answered, delivered)
		}
	}
}
