package kafka

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// told is closed by the first line that is logged.
type told struct {
	once sync.Once
	ch   chan struct{}
}

func (w *told) Write(b []byte) (int, error) {
	w.once.Do(func() { close(w.ch) })
	return len(b), nil
}

// TestLastAnswersArrive: an answer that lies in the kernel's buffer when the
// connection ends arrives all the same, though more came than was read.
func TestLastAnswersArrive(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused := &told{ch: make(chan struct{})} // which the log says
	large := strings.Repeat("x", 30_000)
	const requests = 10
	s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(refused, nil))}, pinger(func(context.Context, *peer, *kmsg.DescribeClusterRequest) kmsg.Response {
		<-refused.ch
		resp := kmsg.NewPtrDescribeClusterResponse()
		resp.ClusterID = large
		return resp
	}))
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{ours.(*net.TCPConn).SetReadBuffer(32 << 10), theirs.(*net.TCPConn).SetWriteBuffer(1 << 20)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan broker.Ending, 1)
	go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
	var b []byte
	for i := range int32(requests) {
		b = append(b, frameOf(ping(1), i)...)
	}
	b = append(b, 0xff, 0xff, 0xff, 0xff)          // no request has such a length
	send(ours, append(b, make([]byte, 64<<10)...)) // nor is this read
	if end := <-ended; end != broker.EndedTooLarge {
		t.Errorf("ended by %v", end)
	}
	got, err := io.ReadAll(ours)
	if err != nil || len(got) < requests*len(large) {
		t.Errorf("%d bytes, %v; want %d answers of more than %d", len(got), err, requests, len(large))
	}
}
