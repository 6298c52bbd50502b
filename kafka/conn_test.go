package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
)

// newTestServer returns a server without a broker.
func newTestServer(t testing.TB, opt Options, apis ...api) *Server {
	t.Helper()
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Requests, opt.SmallRequests, opt.Answers = broker.NewBudget(8<<20), broker.NewBudget(1<<20), broker.NewBudget(8<<20)
	return newServer(opt, newTable(apis))
}

// dial serves one end of a pipe, and returns the other.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(theirs, nil, broker.Listener{Name: broker.ClientListener, Advertise: "127.0.0.1:9092"})
	}()
	t.Cleanup(func() {
		_ = ours.Close()
		<-done
	})
	return ours
}

// frameOf is req as bytes, with its header and length.
func frameOf(req kmsg.Request, correlationID int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, correlationID)
}

// readAnswer reads the answer to req.
func readAnswer(t *testing.T, r io.Reader, req kmsg.Request) (correlationID int32, resp kmsg.Response) {
	t.Helper()
	var prefix [8]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(prefix[:])-4)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	if req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		b = b[1:]
	}
	resp = req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	return int32(binary.BigEndian.Uint32(prefix[4:])), resp
}

// pinger is an api whose requests h answers, with DescribeCluster's key.
func pinger(h func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response) api {
	return ordinary(kmsg.DescribeCluster, 0, 1, func(_ *Server, ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
		return h(ctx, p, req)
	})
}

// echo answers with the client's id, and the endpoint type that was sent.
func echo(_ context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.ClusterID, resp.ControllerID = p.clientID, int32(req.EndpointType)
	return resp
}

func ping(n int8) *kmsg.DescribeClusterRequest {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.Version, req.EndpointType = 1, n
	return req
}

// send writes b. That it was not taken shows in the answers.
func send(w io.Writer, b []byte) { _, _ = w.Write(b) }

// wantClosed wants the other end closed, without an answer.
func wantClosed(t *testing.T, nc net.Conn) {
	t.Helper()
	if b, err := io.ReadAll(nc); len(b) > 0 || err != nil {
		t.Errorf("read %x, %v, want a closed connection", b, err)
	}
}

// TestHeaders sends requests with flexible and other headers.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Options{}, pinger(echo), ordinary(kmsg.ListGroups, 0, 5,
		func(_ *Server, _ context.Context, p *peer, _ *kmsg.ListGroupsRequest) kmsg.Response {
			resp := kmsg.NewPtrListGroupsResponse()
			resp.Groups = append(resp.Groups, kmsg.ListGroupsResponseGroup{Group: p.clientID})
			return resp
		}))
	nc := dial(t, s)
	for v := range int16(6) { // flexible from 3 on
		req := kmsg.NewPtrListGroupsRequest()
		req.Version = v
		for _, id := range []string{"", "client-1"} {
			b := kmsg.NewRequestFormatter(kmsg.FormatterClientID(id)).AppendRequest(nil, req, 5)
			go send(nc, b)
			if n, resp := readAnswer(t, nc, req); n != 5 || resp.(*kmsg.ListGroupsResponse).Groups[0].Group != id {
				t.Errorf("version %d of client %q: %d, %+v", v, id, n, resp)
			}
		}
	}
	// A null client id, and a header with tags that nobody knows.
	b := frameOf(ping(3), 9)
	body := b[4+8+2+len("test")+1:]
	tagged := []byte{0xff, 0xff, 2, 5, 1, 'x', 9, 0}
	b = slices.Concat([]byte{0, 0, 0, 0}, b[4:12], tagged, body)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	go send(nc, b)
	_, resp := readAnswer(t, nc, ping(3))
	if r := resp.(*kmsg.DescribeClusterResponse); r.ClusterID != "" || r.ControllerID != 3 {
		t.Errorf("with tags: %+v", r)
	}
}

// TestOrder sends many requests at once: those that are started at once and
// complete in the reverse order, and others between them.
func TestOrder(t *testing.T) {
	t.Parallel()
	const n = 10
	var started []*request
	late := immediate(kmsg.Fetch, 4, 4, func(_ *conn, q *request) error {
		if started = append(started, q); len(started) == n {
			for i := range started {
				started[n-1-i].send(answer{head: []byte{byte(n - 1 - i)}})
			}
		}
		return nil
	})
	nc := dial(t, newTestServer(t, Options{}, late, pinger(echo)))
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version = 4
	var all []byte
	for i := range int32(n) {
		all = append(all, frameOf(fetch, 2*i)...)
		all = append(all, frameOf(ping(int8(i)), 2*i+1)...)
	}
	go send(nc, all)
	for i := range int32(n) {
		var b [9]byte
		if _, err := io.ReadFull(nc, b[:]); err != nil || int32(binary.BigEndian.Uint32(b[4:])) != 2*i || b[8] != byte(i) {
			t.Fatalf("answer %d: %x, %v", 2*i, b, err)
		}
		id, resp := readAnswer(t, nc, ping(0))
		if r := resp.(*kmsg.DescribeClusterResponse); id != 2*i+1 || r.ControllerID != i {
			t.Fatalf("answer %d: %d, %+v", 2*i+1, id, r)
		}
	}
}

// TestPanic has a handler panic: that connection ends, with a log line, and the
// other one goes on.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log lines
	s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
		if req.EndpointType == 13 {
			panic("thirteen")
		}
		return echo(ctx, p, req)
	}))
	good := dial(t, s)
	bad, theirs := net.Pipe()
	go send(bad, frameOf(ping(13), 1))
	if end := s.Serve(theirs, nil, broker.Listener{}); end != broker.EndedByPanic {
		t.Errorf("ended by %v", end)
	}
	wantClosed(t, bad)
	go send(good, frameOf(ping(1), 2))
	readAnswer(t, good, ping(1))
	if out := log.String(); !strings.Contains(out, "thirteen") || !strings.Contains(out, "TestPanic") || !strings.Contains(out, "DescribeCluster") {
		t.Errorf("log: %s", out)
	}
	if n := s.Stats().Ended["panic"]; n != 1 {
		t.Errorf("%d connections ended by a panic", n)
	}
}

// TestImmediatePanic has the start of an immediate request panic, on the
// connection's reader, and what it left for later, on another goroutine: what
// came before is answered, that connection ends, with a log line, and the other
// one goes on. An answer that is sent all the same gives back what it holds.
func TestImmediatePanic(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"at once", "later", "after its answer was on its way"} {
		var log lines
		held := make(chan *testBody, 1)
		s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, pinger(echo),
			immediate(kmsg.SASLHandshake, 0, 1, func(c *conn, q *request) error {
				body := &testBody{released: make(chan struct{})}
				held <- body
				switch when {
				case "at once":
					defer func() {
						go func() {
							<-q.ready // the panic is its answer by then
							q.send(answer{body: body})
						}()
					}()
					panic("thirteen")
				case "later":
					go func() {
						defer q.send(answer{body: body})
						defer q.survive()
						panic("thirteen")
					}()
					return nil
				}
				q.send(answer{body: body})
				panic("thirteen")
			}))
		good, bad := dial(t, s), dial(t, s)
		hello := kmsg.NewPtrSASLHandshakeRequest()
		hello.Version = 1
		go send(bad, append(frameOf(ping(1), 1), frameOf(hello, 2)...))
		readAnswer(t, bad, ping(1))
		if when != "after its answer was on its way" { // there the answer goes out, and the panic is logged
			wantClosed(t, bad)
		} else {
			go send(bad, frameOf(ping(1), 3))
			readAnswer(t, bad, hello)
			readAnswer(t, bad, ping(1))
		}
		<-(<-held).released // else the test's time-out says so
		go send(good, frameOf(ping(1), 2))
		readAnswer(t, good, ping(1))
		if out := log.String(); !strings.Contains(out, "thirteen") || !strings.Contains(out, "TestImmediatePanic") || !strings.Contains(out, "SASLHandshake") {
			t.Errorf("%s: log: %s", when, out)
		}
	}
}

// testBody is an empty answer to SaslHandshake, but for what it holds.
type testBody struct{ released chan struct{} }

func (b *testBody) Parts() ([]frame.Part, error) { return []frame.Part{{Bytes: make([]byte, 6)}}, nil }
func (b *testBody) Len() int64                   { return 6 }
func (b *testBody) LetGo()                       {}
func (b *testBody) Release()                     { close(b.released) }

// lines is a log that a test reads.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRefused sends what ends a connection before its body is there, or needed.
func TestRefused(t *testing.T) {
	t.Parallel()
	head := func(length uint32, key, version uint16) []byte {
		b := binary.BigEndian.AppendUint32(nil, length)
		b = binary.BigEndian.AppendUint16(b, key)
		return append(binary.BigEndian.AppendUint16(b, version), 0, 0, 0, 1)
	}
	tests := []struct {
		name string
		in   []byte
		log  string
	}{
		{"negative length", head(0xffff_fff0, 60, 0), "a length of -16"},
		{"length 0", head(0, 60, 0)[:4], "a length of 0"},
		{"too long", head(2<<20, 60, 0), "(request.bytes.max)"},
		{"unknown key", head(1<<20, 7, 0), "key 7 (ControlledShutdown)"},
		{"key of none", head(1<<20, 12345, 0), "key 12345"},
		{"negative key", head(1<<20, 0xffff, 0), "key -1"},
		{"too new", head(1<<20, 60, 2), "DescribeCluster version 2, want 0 to 1"},
		{"negative version", head(1<<20, 60, 0xffff), "DescribeCluster version -1"},
		{"no client id", head(8, 60, 0), "RequestHeader.ClientId"},
		{"client id too long", append(head(14, 60, 0), 0, 100, 'a', 'b', 'c', 'd'), "RequestHeader.ClientId at byte 10: 100 bytes are needed"},
		{"many tags", append(head(16, 60, 0), 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0), "4294967295 tagged fields"},
		{"body cut off", append(head(11, 60, 0), 0, 0, 0), "IncludeClusterAuthorizedOperations at byte 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log lines
			s := newTestServer(t, Options{MaxRequestBytes: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))}, pinger(echo))
			nc := dial(t, s)
			go send(nc, tt.in)
			wantClosed(t, nc)
			if out := log.String(); !strings.Contains(out, tt.log) {
				t.Errorf("log %q, want %q in it", out, tt.log)
			}
			for _, b := range []*broker.Budget{s.opt.Requests, s.opt.SmallRequests, s.opt.Answers} {
				if b.Used() != 0 {
					t.Errorf("%d bytes are held", b.Used())
				}
			}
			if f := s.Stats().InFlight; f != 0 {
				t.Errorf("%d requests in flight", f)
			}
		})
	}
}

// TestSlowBody announces much and sends little: in the end the connection is
// closed, and until then it has made the server allocate little.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{}, pinger(echo))
		ours, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		b := frameOf(ping(1), 1)
		binary.BigEndian.PutUint32(b, 4<<20)
		began := time.Now()
		send(ours, b)
		synctest.Wait()
		if used := s.opt.Requests.Used(); used != 4<<20 {
			t.Errorf("%d bytes are claimed", used)
		}
		if end := <-ended; end != broker.EndedByTimeout {
			t.Errorf("ended by %v", end)
		}
		// 10 s, and 4 MiB at 256 KiB/s.
		if took := time.Since(began); took != 26*time.Second {
			t.Errorf("after %v", took)
		}
		if used := s.opt.Requests.Used(); used != 0 {
			t.Errorf("%d bytes are held", used)
		}
	})
}

// TestIdle: a silent connection is closed.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{IdleTimeout: time.Minute}, pinger(echo))
		_, theirs := net.Pipe()
		began := time.Now()
		if end := s.Serve(theirs, nil, broker.Listener{}); end != broker.EndedByTimeout || time.Since(began) != time.Minute {
			t.Errorf("ended by %v after %v", end, time.Since(began))
		}
	})
}

// TestSlowReader: a peer that takes no answers holds no more than its requests
// in flight, and is closed.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most = 8
		handled := 0
		s := newTestServer(t, Options{MaxInFlight: most}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
			handled++
			return echo(ctx, p, req)
		}))
		ours, theirs := net.Pipe()
		go func() {
			for i := range int32(100) {
				if _, err := ours.Write(frameOf(ping(1), i)); err != nil {
					return
				}
			}
		}()
		end := s.Serve(theirs, nil, broker.Listener{})
		if handled != 1 { // it is handled in its turn, and the first one's never ends
			t.Errorf("%d requests were handled", handled)
		}
		if n := s.Stats().Kinds[0].Times.Count(); n > most {
			t.Errorf("%d requests were taken, ended by %v", n, end)
		}
	})
}

// TestDrain: what is under way is answered, and nothing else is read.
func TestDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		s := newTestServer(t, Options{}, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
			<-let
			return echo(ctx, p, req)
		}))
		ours, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		send(ours, frameOf(ping(1), 1))
		synctest.Wait()
		s.Drain()
		synctest.Wait()
		select {
		case end := <-ended:
			t.Fatalf("ended by %v before it has answered", end)
		default:
		}
		close(let)
		readAnswer(t, ours, ping(1))
		wantClosed(t, ours)
		if end := <-ended; end != broker.EndedByListener {
			t.Errorf("ended by %v", end)
		}
		_, late := net.Pipe()
		if end := s.Serve(late, nil, broker.Listener{}); end != broker.EndedByListener {
			t.Errorf("a late one ended by %v", end)
		}
	})
}

// TestAbort ends a connection whose handler waits for its context.
func TestAbort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{}, pinger(func(ctx context.Context, _ *peer, _ *kmsg.DescribeClusterRequest) kmsg.Response {
			<-ctx.Done()
			return nil
		}))
		ours, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		send(ours, frameOf(ping(1), 1))
		s.Drain()
		synctest.Wait()
		s.Abort()
		<-ended
		if s.opt.SmallRequests.Used() != 0 {
			t.Error("memory is held")
		}
	})
}

// TestHeldUp: memory that a slow request holds is given to others who wait for
// it, and the slow one's connection is closed.
func TestHeldUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{MaxInFlightBytes: 8 << 20}, pinger(echo))
		big := func(n uint32) []byte {
			b := append(frameOf(ping(1), 1), make([]byte, n)...) // bytes after a request are nobody's
			binary.BigEndian.PutUint32(b, uint32(len(b)-4))
			return b
		}
		slow, theirs := net.Pipe()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		send(slow, big(8 << 20)[:100])
		synctest.Wait()
		other := dial(t, s)
		began := time.Now()
		go send(other, big(1<<20))
		readAnswer(t, other, ping(1))
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second { // 1 s, and 8 MiB at 8 MiB/s
			t.Errorf("the other one waited for %v", took)
		}
		if end := <-ended; end != broker.EndedByError {
			t.Errorf("ended by %v", end)
		}
	})
}

// keptBody is a body that tells when it is let go of.
type keptBody struct {
	testBody
	letGo chan<- bool
}

func (b *keptBody) LetGo()   { b.letGo <- true }
func (b *keptBody) Release() { b.letGo <- false }

// TestAnswerOfALoneRequestIsKept: what was read for the only request of a
// connection is written as it is. Behind others it is let go of, to be read again
// when its turn comes.
func TestAnswerOfALoneRequestIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		letGo := make(chan bool, 4)
		hellos := immediate(kmsg.SASLHandshake, 0, 1, func(_ *conn, q *request) error {
			q.send(answer{body: &keptBody{letGo: letGo}})
			return nil
		})
		wait := make(chan struct{})
		s := newTestServer(t, Options{}, hellos, pinger(func(ctx context.Context, p *peer, req *kmsg.DescribeClusterRequest) kmsg.Response {
			<-wait
			return echo(ctx, p, req)
		}))
		hello := kmsg.NewPtrSASLHandshakeRequest()
		hello.Version = 1
		alone, behind := dial(t, s), dial(t, s)
		go send(alone, frameOf(hello, 1))
		readAnswer(t, alone, hello)
		synctest.Wait()
		if <-letGo { // else it is given back, once it is written
			t.Error("the only answer was let go of")
		}
		go send(behind, append(frameOf(ping(1), 1), frameOf(hello, 2)...))
		synctest.Wait()
		select {
		case early := <-letGo:
			if !early {
				t.Error("the second answer was written before the first")
			}
		default:
			t.Error("an answer behind one that waits is not let go of")
		}
		close(wait)
		readAnswer(t, behind, ping(1))
		readAnswer(t, behind, hello)
		synctest.Wait()
		if n := len(letGo); n != 1 || <-letGo {
			t.Errorf("it is let go of, or given back, %d times more, want it given back once", n)
		}
	})
}
