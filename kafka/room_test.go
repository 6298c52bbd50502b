package kafka

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
)

// roomyBody is a body of six bytes that is delivered with memory of the node's for
// answers: of the memory that it holds from Parts on, or waits for when it is
// written.
type roomyBody struct {
	testBody
	answers *broker.Budget
	ctx     context.Context
	bytes   int64
	late    bool // it waits
}

func (b *roomyBody) Parts() ([]frame.Part, error) {
	if !b.late && !b.answers.TryAcquire(b.bytes) {
		b.late = true // as a delivery does
	}
	return []frame.Part{{Source: b}}, nil
}

func (b *roomyBody) WriteTo(w io.Writer) (int64, error) {
	if b.late {
		if err := b.answers.Acquire(b.ctx, b.bytes); err != nil {
			return 0, err
		}
	}
	defer b.answers.Release(b.bytes)
	n, err := w.Write(make([]byte, 6))
	return int64(n), err
}

// TestWhoWaitsHoldsNothing: an answer that waits for memory when it is written
// does not do so while those before it, or behind it, hold that memory until it
// is written.
func TestWhoWaitsHoldsNothing(t *testing.T) {
	t.Parallel()
	const most = 6 << 20 // of 8 MiB
	for _, tt := range []struct {
		name  string
		first int64  // held by the answer of the first request
		late  []bool // the deliveries behind it
	}{
		{"behind an answer that holds memory", most, []bool{true}},
		{"before a delivery that holds memory", 0, []bool{true, false}},
		{"behind a delivery that holds memory", 0, []bool{false, true}},
	} {
		synctest.Test(t, func(t *testing.T) {
			let, begun := make(chan struct{}), 0
			s := newTestServer(t, Options{}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
				<-let // until all are there
				if !p.hold(ctx, tt.first) {
					return nil
				}
				return echo(ctx, p, req)
			}), immediate(kmsg.SASLHandshake, 0, 1, func(c *conn, q *request) error {
				body := &roomyBody{testBody: testBody{make(chan struct{})}, answers: c.s.opt.Answers, ctx: c.ctx, bytes: most, late: tt.late[begun]}
				begun++
				q.send(answer{body: body})
				return nil
			}))
			nc := dial(t, s)
			hello := kmsg.NewPtrSASLHandshakeRequest()
			hello.Version = 1
			all := frameOf(ping(1), 0)
			for i := range tt.late {
				all = append(all, frameOf(hello, int32(i+1))...)
			}
			go send(nc, all)
			synctest.Wait()
			close(let)
			if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			for i := range len(tt.late) + 1 {
				var b [8]byte
				_, err := io.ReadFull(nc, b[:])
				if err == nil {
					_, err = io.CopyN(io.Discard, nc, int64(b[3])-4)
				}
				if err != nil {
					t.Fatalf("%s: answer %d of %d has not come: it waits for memory that its own connection holds (%v)", tt.name, i+1, len(tt.late)+1, err)
				}
			}
			synctest.Wait()
			wantNothingHeld(t, s, tt.name)
		})
	}
}

// answersOf is a server whose DescribeCluster's answers hold some memory, of 8
// MiB.
func answersOf(t *testing.T, log *lines, bytes int64) *Server {
	t.Helper()
	return newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
		if !p.hold(ctx, bytes) {
			return nil
		}
		return echo(ctx, p, req)
	}))
}

// TestSlowAnswer: who does not take an answer that holds memory has its time while
// nobody else wants that memory, and is cut off when somebody does.
func TestSlowAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		s := answersOf(t, &log, 6<<20)
		slow, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		send(slow, frameOf(ping(1), 1))
		time.Sleep(50 * time.Second) // of a minute
		synctest.Wait()
		if held := s.opt.Answers.Used(); held != 6<<20 || len(ended) > 0 {
			t.Errorf("alone, it holds %d bytes, and ended: %t", held, len(ended) > 0)
		}
		began := time.Now()
		other := dial(t, s)
		go send(other, frameOf(ping(1), 1))
		readAnswer(t, other, ping(1))
		if took := time.Since(began); took > 250*time.Millisecond {
			t.Errorf("somebody else waited for %v for the memory of an answer that is not taken", took)
		}
		if end := <-ended; end != broker.EndedByError {
			t.Errorf("ended by %v", end)
		}
		if out := log.String(); !strings.Contains(out, "an answer was taken too slowly") {
			t.Errorf("log: %s", out)
		}
		synctest.Wait()
		wantNothingHeld(t, s, "in the end")
	})
}

// TestNoRoomForAnswer: a request waits for memory for its answer for half a
// minute; then its connection ends, and the log says what to do.
func TestNoRoomForAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		s := answersOf(t, &log, 6<<20)
		all := s.opt.Answers.Limit()
		if !s.opt.Answers.TryAcquire(all) {
			t.Fatal("no room")
		}
		ours, theirs := net.Pipe()
		began := time.Now()
		go send(ours, frameOf(ping(1), 1))
		end := s.Serve(theirs, nil, broker.Listener{})
		if took := time.Since(began); end != broker.EndedByError || took != 30*time.Second {
			t.Errorf("ended by %v after %v", end, took)
		}
		if out := log.String(); !strings.Contains(out, "6291456 bytes of 8388608 for DescribeCluster; raise memory.bytes") {
			t.Errorf("log: %s", out)
		}
		s.opt.Answers.Release(all)
		wantNothingHeld(t, s, "in the end")
	})
}

// TestRoomWithinTheTimeout: the requests that have a time-out wait for memory for
// their answers no longer than that.
func TestRoomWithinTheTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n, timeoutMS = 1000, 1500
		create := kmsg.NewPtrCreateTopicsRequest()
		create.Topics, create.TimeoutMillis = make([]kmsg.CreateTopicsRequestTopic, n), timeoutMS
		drop := kmsg.NewPtrDeleteTopicsRequest()
		drop.Version, drop.Topics, drop.TimeoutMillis = 6, make([]kmsg.DeleteTopicsRequestTopic, n), timeoutMS
		grow := kmsg.NewPtrCreatePartitionsRequest()
		grow.Topics, grow.TimeoutMillis = make([]kmsg.CreatePartitionsRequestTopic, n), timeoutMS
		records := kmsg.NewPtrDeleteRecordsRequest()
		records.Topics, records.TimeoutMillis = []kmsg.DeleteRecordsRequestTopic{{Partitions: make([]kmsg.DeleteRecordsRequestTopicPartition, n)}}, timeoutMS
		s := newTestServer(t, Options{}, adminAPIs...)
		if !s.opt.Answers.TryAcquire(s.opt.Answers.Limit()) {
			t.Fatal("no room")
		}
		for _, req := range []kmsg.Request{create, drop, grow, records} {
			a := s.apis.find(req.Key())
			q := &request{conn: &conn{s: s, log: s.log, ctx: t.Context()}, api: a, version: req.GetVersion()}
			q.peer.conn, q.peer.req = q.conn, q
			began := time.Now()
			if resp := a.handle(s, t.Context(), &q.peer, req); resp != nil || !errors.Is(q.refused, errNoRoom) {
				t.Errorf("%s: %v, %v; want no answer", a.name, resp, q.refused)
			}
			if took := time.Since(began); took != timeoutMS*time.Millisecond {
				t.Errorf("%s with a time-out of %d ms waited for memory for %v", a.name, timeoutMS, took)
			}
		}
	})
}
