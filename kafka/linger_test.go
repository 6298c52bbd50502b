package kafka

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/netsim"
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
// connection ends arrives all the same, though more came than was read: one that was
// under way when reading ended, and one that had been written before.
func TestLastAnswersArrive(t *testing.T) {
	t.Parallel()
	for _, underWay := range []bool{true, false} {
		t.Run(fmt.Sprint("under way=", underWay), func(t *testing.T) {
			t.Parallel()
			lastAnswersArrive(t, underWay)
		})
	}
}

// lastAnswersArrive has a server answer with more than the peer's window takes, and
// less than the smallest send buffer that a machine may be set to.
func lastAnswersArrive(t *testing.T, underWay bool) {
	const requests, size = 10, 2000
	refused := &told{ch: make(chan struct{})} // which the log says
	inFlight := 1                             // nothing is under way when the next is read
	if underWay {
		inFlight = 2 * requests
	}
	s := newTestServer(t, Options{MaxInFlight: inFlight, Log: slog.New(slog.NewTextHandler(refused, nil))}, pinger(func(context.Context, *peer, *kmsg.DescribeClusterRequest) kmsg.Response {
		if underWay {
			<-refused.ch
		}
		resp := kmsg.NewPtrDescribeClusterResponse()
		resp.ClusterID = strings.Repeat("x", size)
		return resp
	}))
	ours, theirs, err := netsim.Narrow()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
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
	if err != nil || len(got) < requests*size {
		t.Errorf("%d bytes, %v; want %d answers of more than %d", len(got), err, requests, size)
	}
}
