package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestFetchCode: consumers are told codes that they know, or the one for what
// they do not.
func TestFetchCode(t *testing.T) {
	t.Parallel()
	for code, want := range map[errcode.Code]errcode.Code{
		errcode.None:                    errcode.None,
		errcode.OffsetOutOfRange:        errcode.OffsetOutOfRange,
		errcode.OffsetNotAvailable:      errcode.OffsetNotAvailable,
		errcode.UnknownTopicID:          errcode.UnknownTopicID,
		errcode.UnknownTopicOrPartition: errcode.UnknownTopicOrPartition,
		errcode.NotLeaderOrFollower:     errcode.NotLeaderOrFollower,
		errcode.FencedLeaderEpoch:       errcode.FencedLeaderEpoch,
		errcode.UnknownLeaderEpoch:      errcode.UnknownLeaderEpoch,
		errcode.KafkaStorageError:       errcode.KafkaStorageError,
		errcode.CorruptMessage:          errcode.CorruptMessage,
		errcode.LeaderNotAvailable:      errcode.NotLeaderOrFollower,
		errcode.InvalidRequest:          errcode.UnknownServer,
		errcode.RequestTimedOut:         errcode.UnknownServer,
		errcode.ThrottlingQuotaExceeded: errcode.UnknownServer,
		errcode.UnknownServer:           errcode.UnknownServer,
	} {
		if got := fetchCode(code); got != want {
			t.Errorf("%v is told as %v, want %v", code, got, want)
		}
	}
}

// TestProduceError: a producer is told to try again with a code that all clients
// know from a Produce.
func TestProduceError(t *testing.T) {
	t.Parallel()
	for code, want := range map[errcode.Code]errcode.Code{
		errcode.ThrottlingQuotaExceeded:  errcode.KafkaStorageError,
		errcode.InvalidProducerIDMapping: errcode.InvalidProducerIDMapping,
		errcode.NotEnoughReplicas:        errcode.NotEnoughReplicas,
	} {
		if e := produceError(&errcode.Error{Code: code, Detail: "why"}); e.Code != want || e.Detail != "why" {
			t.Errorf("%v is told as %v, %q, want %v", code, e.Code, e.Detail, want)
		}
	}
}

// TestNamed: who names topics by name is not told of ids, nor that no topic can
// have a name.
func TestNamed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code       errcode.Code
		version    int16
		want       errcode.Code
		wantDetail string
	}{
		{errcode.UnknownTopicID, 12, errcode.UnknownTopicOrPartition, "why"},
		{errcode.UnknownTopicID, 13, errcode.UnknownTopicID, "why"},
		{errcode.InvalidTopic, 12, errcode.UnknownTopicOrPartition, "why"},
		{errcode.MessageTooLarge, 12, errcode.MessageTooLarge, "why"},
	} {
		q := &request{version: tt.version}
		if e := q.named(&errcode.Error{Code: tt.code, Detail: "why"}); e.Code != tt.want || e.Detail != tt.wantDetail {
			t.Errorf("version %d: %v is told as %v, %q", tt.version, tt.code, e.Code, e.Detail)
		}
	}
}

// TestPanicInAnswer: what panics where the broker answers a Produce, on its
// goroutine, ends the connection of the Produce.
func TestPanicInAnswer(t *testing.T) {
	t.Parallel()
	var log lines
	var p *producing
	started := make(chan struct{})
	s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, immediate(kmsg.Produce, 9, 9, func(_ *conn, q *request) error {
		p = &producing{request: q, m: &produceRequest{acks: -1}}
		close(started)
		return nil
	}))
	ours, theirs := net.Pipe()
	ended := make(chan broker.Ending, 1)
	go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
	req := kmsg.NewPtrProduceRequest()
	req.Version = 9
	go send(ours, frameOf(req, 1))
	<-started
	p.done(make([]broker.ProduceResult, 1)) // of a part that it does not have
	if end := <-ended; end != broker.EndedByPanic {
		t.Errorf("ended by %v", end)
	}
	if out := log.String(); !strings.Contains(out, "request=Produce") || !strings.Contains(out, "index out of range") {
		t.Errorf("log: %s", out)
	}
}

// from is a connection that comes from an address.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// TestAdvertisedHint: the log says once for each listener which address clients
// cannot mean, and why: a loopback one is all right for who is on this machine.
func TestAdvertisedHint(t *testing.T) {
	t.Parallel()
	const here, there = "127.0.0.1:5", "192.0.2.7:5"
	for _, tt := range []struct {
		advertise, client string
		want              string // "": nothing is said
	}{
		{"127.0.0.1:9092", there, "because=\"127.0.0.1 is the client's own machine, and the client is on another\""},
		{"127.0.0.1:9092", here, ""},
		{"[::1]:9092", there, "because=\"::1 is the client's own machine"},
		{"[::ffff:127.0.0.1]:9092", there, "is the client's own machine"},
		{"127.0.0.1:9092", "[::1]:5", ""},
		{"127.0.0.1:9092", "[::ffff:127.0.0.1]:5", ""},
		{"localhost:9092", there, "because=\"localhost is the client's own machine"},
		{"localhost:9092", here, ""},
		{"0.0.0.0:9092", here, "because=\"0.0.0.0 is every address of a machine, and none to connect to\""},
		{"[::]:9092", there, "because=\":: is every address of a machine"},
		{"192.0.2.1:9092", there, ""},
		{"known.example.org:9092", there, ""},
		{"container:9092", there, "because=\"container is not a name that this machine can resolve (no such host)"},
		{"container:9092", here, "because=\"container is not a name that this machine can resolve (no such host)"},
	} {
		var log lines
		s := newTestServer(t, Options{
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			Resolve: func(_ context.Context, host string) error {
				if host == "container" {
					return errors.New("no such host")
				}
				return nil
			},
		})
		for _, name := range []string{broker.ClientListener, "outside", broker.ClientListener} {
			nc := from{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.client))}
			c := &conn{s: s, nc: nc, via: broker.Listener{Name: name, Advertise: tt.advertise}}
			for range 3 {
				s.checkAdvertised(&peer{conn: c})
			}
		}
		s.background.Wait()
		out, want := log.String(), 2 // listeners
		if tt.want == "" {
			want = 0
		}
		if got := strings.Count(out, "set advertise to the HOST:PORT"); got != want || !strings.Contains(out, tt.want) ||
			want > 0 && !(strings.Contains(out, "advertise="+tt.advertise) || strings.Contains(out, `advertise="`+tt.advertise)) {
			t.Errorf("%s for %s: %d lines, want %d with %q: %s", tt.advertise, tt.client, got, want, tt.want, out)
		}
	}
}

// TestOwnMemory: a connection's requests that are not answered hold no more than
// it may, whatever the node has, and it goes on when they are answered.
func TestOwnMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var started []*request
		late := immediate(kmsg.Fetch, 4, 4, func(_ *conn, q *request) error {
			started = append(started, q)
			return nil
		})
		s := newTestServer(t, Options{MaxInFlightBytes: 300_000}, late, pinger(echo))
		nc, other := dial(t, s), dial(t, s)
		req := kmsg.NewPtrFetchRequest()
		req.Version = 4
		b := append(frameOf(req, 1), make([]byte, 100_000)...)
		binary.BigEndian.PutUint32(b, uint32(len(b)-lengthBytes))
		const n = 5
		go func() {
			for range n {
				send(nc, b)
			}
		}()
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		synctest.Wait()
		if used := s.opt.Requests.Used(); len(started) != 2 || used > 300_000 {
			t.Errorf("%d requests of 100,000 bytes are under way and hold %d, of 300,000 bytes that they may", len(started), used)
		}
		go send(other, frameOf(ping(1), 1))
		readAnswer(t, other, ping(1)) // another connection is not concerned
		for i := range n {
			started[i].send(answer{none: true})
			synctest.Wait()
			if want := min(n, i+3); len(started) != want {
				t.Errorf("%d requests were begun when %d are answered, want %d", len(started), i+1, want)
			}
		}
		if used := s.opt.Requests.Used(); used != 0 {
			t.Errorf("%d bytes are held in the end", used)
		}
	})
}

// TestManyAtOnce: as many requests of a connection are under way as may be, and
// no more.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var started []*request
		s := newTestServer(t, Options{MaxInFlight: 4}, immediate(kmsg.Fetch, 4, 4, func(_ *conn, q *request) error {
			started = append(started, q)
			return nil
		}))
		nc := dial(t, s)
		req := kmsg.NewPtrFetchRequest()
		req.Version = 4
		go func() {
			for i := range int32(10) {
				send(nc, frameOf(req, i))
			}
		}()
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		for i := range 10 {
			synctest.Wait()
			if want := min(10, i+4); len(started) != want {
				t.Errorf("%d requests were begun when %d are answered, want %d", len(started), i, want)
			}
			started[i].send(answer{})
		}
	})
}

// TestAnswerNotTaken: an answer that the peer does not take ends the connection
// when its time is up: a minute, and its bytes at 256 KiB a second.
func TestAnswerNotTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Options{WriteTimeout: time.Minute}, immediate(kmsg.Fetch, 4, 4, func(_ *conn, q *request) error {
			q.send(answer{head: make([]byte, 1<<20)})
			return nil
		}))
		ours, theirs := net.Pipe()
		defer ours.Close()
		ended := make(chan broker.Ending, 1)
		go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
		req := kmsg.NewPtrFetchRequest()
		req.Version = 4
		began := time.Now()
		send(ours, frameOf(req, 1))
		if end := <-ended; end != broker.EndedByTimeout {
			t.Errorf("ended by %v", end)
		}
		if took := time.Since(began).Round(time.Second); took != 64*time.Second {
			t.Errorf("after %v, want 64 s", took)
		}
	})
}
