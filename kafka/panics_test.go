package kafka

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
)

// wantNothingHeld wants all memory of a server given back.
func wantNothingHeld(t *testing.T, s *Server, what string) {
	t.Helper()
	for name, b := range map[string]*broker.Budget{
		"requests": s.opt.Requests, "small requests": s.opt.SmallRequests, "answers": s.opt.Answers, "decoding": s.decoding,
		"small fetches": s.fetches.small, "fetches": s.fetches.large,
	} {
		if n := b.Used(); n != 0 {
			t.Errorf("%s: %d bytes of %s are held", what, n, name)
		}
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Errorf("%s: %d requests are in flight", what, n)
	}
}

// panickyBody is a body of six bytes that panics in one of its methods.
type panickyBody struct {
	in       string
	released int
	held     *broker.Budget // a byte of which it holds
}

func (b *panickyBody) may(what string) {
	if b.in == what {
		panic("planted in " + what)
	}
}

func (b *panickyBody) Parts() ([]frame.Part, error) {
	b.may("Parts")
	return []frame.Part{{Source: b}}, nil
}

func (b *panickyBody) Len() int64 {
	b.may("Len")
	return 6
}

func (b *panickyBody) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(make([]byte, 3))
	b.may("WriteTo")
	m, err2 := w.Write(make([]byte, 3))
	return int64(n + m), errors.Join(err, err2)
}

func (b *panickyBody) LetGo() { b.may("LetGo") }

func (b *panickyBody) Release() {
	b.held.Release(1)
	b.released++
	b.may("Release")
}

// TestPanicOfAnswer plants a panic wherever the writer, or who sends an answer to
// it, touches the answer: that connection ends, with a line in the log, what it
// held is given back once, what it had answered before is answered, and another
// one goes on.
func TestPanicOfAnswer(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"Parts", "Len", "WriteTo", "LetGo", "Release"} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			var log lines
			var bodies []*panickyBody
			hellos := immediate(kmsg.SASLHandshake, 0, 1, func(c *conn, q *request) error {
				body := &panickyBody{in: in, held: c.s.opt.Answers}
				bodies = append(bodies, body)
				if !body.held.TryAcquire(1) {
					t.Error("no room")
				}
				q.send(answer{body: body})
				return nil
			})
			s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, pinger(echo), hellos)
			good := dial(t, s)
			bad, theirs := net.Pipe()
			hello := kmsg.NewPtrSASLHandshakeRequest()
			hello.Version = 1
			go send(bad, append(append(frameOf(ping(1), 1), frameOf(hello, 2)...), frameOf(hello, 3)...))
			ended := make(chan broker.Ending, 1)
			go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
			readAnswer(t, bad, ping(1))
			rest, _ := io.ReadAll(bad)
			if want := map[string]int{"WriteTo": 8 + 3, "Release": 8 + 6}[in]; len(rest) < want || want == 0 && len(rest) > 0 && in != "LetGo" {
				t.Errorf("%d bytes of the answer, want %d", len(rest), want)
			}
			if end := <-ended; end != broker.EndedByPanic {
				t.Errorf("ended by %v", end)
			}
			for i, b := range bodies {
				if b.released != 1 {
					t.Errorf("answer %d was given back %d times", i, b.released)
				}
			}
			if out := log.String(); !strings.Contains(out, "planted in "+in) || !strings.Contains(out, "panickyBody") {
				t.Errorf("log: %s", out)
			}
			go send(good, frameOf(ping(1), 4))
			readAnswer(t, good, ping(1))
			wantNothingHeld(t, s, "in the end")
		})
	}
}

// panickyConn panics at its second read, or at each write.
type panickyConn struct {
	net.Conn
	atWrite bool
	reads   int
}

func (c *panickyConn) Read(b []byte) (int, error) {
	if c.reads++; c.reads > 1 && !c.atWrite {
		panic("planted in Read")
	}
	return c.Conn.Read(b)
}

func (c *panickyConn) Write(b []byte) (int, error) {
	if c.atWrite {
		panic("planted in Write")
	}
	return c.Conn.Write(b)
}

// TestPanicOfConnection has the connection itself panic, while a request comes
// in, whose memory is claimed, and while an answer goes out.
func TestPanicOfConnection(t *testing.T) {
	t.Parallel()
	for _, atWrite := range []bool{false, true} {
		var log lines
		s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, pinger(echo))
		good := dial(t, s)
		bad, theirs := net.Pipe()
		b := frameOf(ping(1), 1)
		if !atWrite {
			b = b[:len(b)-1]
		}
		go send(bad, b)
		if end := s.Serve(&panickyConn{Conn: theirs, atWrite: atWrite}, nil, broker.Listener{}); end != broker.EndedByPanic {
			t.Errorf("at write %t: ended by %v", atWrite, end)
		}
		wantClosed(t, bad)
		if out := log.String(); !strings.Contains(out, "planted in") || !strings.Contains(out, "panickyConn") {
			t.Errorf("log: %s", out)
		}
		go send(good, frameOf(ping(1), 2))
		readAnswer(t, good, ping(1))
		wantNothingHeld(t, s, "in the end")
	}
}

// TestPanicOfFetch has a Fetch panic when its records are read, and its answer is
// made: in the session cache, whose clock panics. The records are given back.
func TestPanicOfFetch(t *testing.T) {
	t.Parallel()
	chunk := &broker.Chunk{Vectors: [][]byte{[]byte("records")}, Bytes: 7}
	s := newTestServer(t, Options{Now: func() time.Time { panic("planted in Now") }}, immediate(kmsg.Fetch, fetchMin, fetchMax, func(c *conn, q *request) error {
		m, err := decodeFetch(q.version, q.body)
		f := &fetching{request: q, m: m, begins: true, want: make([]wanted, 1), asked: []int{0}}
		f.respond([]broker.FetchResult{{Chunks: []*broker.Chunk{chunk}}})
		return err
	}))
	bad, theirs := net.Pipe()
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.ReplicaID = fetchMax, consumerReplica
	go send(bad, frameOf(req, 1))
	if end := s.Serve(theirs, nil, broker.Listener{}); end != broker.EndedByPanic {
		t.Errorf("ended by %v", end)
	}
	if chunk.Vectors != nil {
		t.Error("the records are held")
	}
	wantNothingHeld(t, s, "in the end")
}

// TestPanicInSession: a session that a request panicked in can be used on.
func TestPanicInSession(t *testing.T) {
	t.Parallel()
	ss, _ := newTestSessions(2)
	id := ss.begin(fetchOf("a", 2), false, nil)
	wrong := fetchOf("a", 1)
	wrong.sessionID, wrong.sessionEpoch, wrong.parts[0].topic = id, 1, 7 // there is one topic
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = ss.use(wrong, false)
	}()
	if code := ss.goOn(id, 1); code != 0 {
		t.Errorf("%v", code)
	}
}
