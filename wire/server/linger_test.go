package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
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

// TestLastAnswersArrive: answers that lie in the kernel's buffer when the connection
// ends arrive all the same, though more came than was read: those that were under
// way when reading ended, and those that had been written before; and so does the
// last word.
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
	const requests = 250                      // answered with some 80 bytes each
	refused := &told{ch: make(chan struct{})} // which the log says
	p := newPoisoned(t)
	p.opt.Log = slog.New(slog.NewTextHandler(refused, nil))
	if p.opt.MaxInFlight = requests + 1; !underWay {
		p.opt.MaxInFlight = 1 // all are answered when the next is read
	}
	ours, theirs, err := netsim.Narrow()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := p.start(theirs, broker.Listener{}); err != nil {
		t.Fatal(err)
	}
	r, w := frame.NewReader(ours), frame.NewWriter(ours)
	if _, err := frame.Connect(r, w, &pb.ClientHello{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Queue(frame.KindPing, 0, 0, &pb.Ping{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if f, err := r.Read(); err != nil || f.Kind != frame.KindPing {
		t.Fatal(f.Kind, err)
	}
	var sent bytes.Buffer
	w = frame.NewWriter(&sent)
	var under []*request
	for i := range uint32(requests) {
		if underWay {
			under = append(under, asked(p.conn()))
			under[i].CorrelationID = i
		} else if err := w.Queue(99, 0, i, &pb.Ping{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	sent.Write(make([]byte, frame.PrefixBytes+64<<10)) // a length of 0, and nor is the rest read
	if _, err := ours.Write(sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	<-refused.ch
	for _, q := range under {
		q.fail(errcode.Errorf(errcode.InvalidRequest, "a text that is as long as the server's on requests that it does not know"))
	}
	p.group.Wait()
	for i := range uint32(requests) {
		if f, err := r.Read(); err != nil || f.CorrelationID != i || len(f.Header) == 0 {
			t.Fatalf("answer %d of %d is lost: %v %d, %v", i, requests, f.Kind, f.CorrelationID, err)
		}
	}
	if f, err := r.Read(); err != nil || f.Kind != frame.KindError {
		t.Errorf("behind them: %v, %v; want the last word", f.Kind, err)
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("behind that: %v, want the end", err)
	}
}

// TestRefusedArrives: who is told that there are too many connections, and had sent
// more than a Hello, can read that.
func TestRefusedArrives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPoisoned(t)
		network := netsim.New(1)
		defer network.Close()
		l, err := network.Listen("node:9092")
		if err != nil {
			t.Fatal(err)
		}
		ours, err := network.Dial(t.Context(), "client", "node:9092")
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p.refuse(theirs, ErrTooManyConnections)
		_, err = frame.Connect(frame.NewReader(ours), frame.NewWriter(ours), &pb.ClientHello{})
		var e *errcode.Error
		if !errors.As(err, &e) || e.Code != errcode.ThrottlingQuotaExceeded {
			t.Errorf("refused by %v", err)
		}
		time.Sleep(100 * time.Millisecond) // who closes at once has closed
		if _, err := ours.Write([]byte{0}); err != nil {
			t.Errorf("the connection is closed at once, by which its refusal may be lost: %v", err)
		}
		time.Sleep(2 * time.Second)
		if _, err := ours.Write([]byte{0}); err == nil {
			t.Error("the connection takes bytes yet, two seconds after")
		}
		p.group.Wait()
	})
}
