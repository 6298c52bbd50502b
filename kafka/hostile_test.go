package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/kafka/guard"
)

// everything is every request that there is a definition of, in all versions,
// answered with nothing but defaults.
func everything() []api {
	var apis []api
	for key := range int16(kmsg.MaxKey + 1) {
		first, last, ok := guard.Versions(key)
		req := kmsg.RequestForKey(key)
		if !ok || req == nil {
			continue
		}
		apis = append(apis, ordinary(kmsg.Key(key), first, min(last, req.MaxVersion()),
			func(_ *Server, _ context.Context, _ *peer, req kmsg.Request) kmsg.Response { return req.ResponseKind() }))
	}
	return apis
}

// feed serves a connection that sends b and ends, and returns what it is
// answered, and how it ended. Everything that it held is given back.
func feed(t testing.TB, s *Server, b []byte) ([]byte, broker.Ending) {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan broker.Ending, 1)
	go func() { ended <- s.Serve(theirs, nil, broker.Listener{}) }()
	answers := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(ours)
		answers <- b
	}()
	_, _ = ours.Write(b)
	_ = ours.Close()
	end := <-ended
	for _, held := range []*broker.Budget{s.opt.Requests, s.opt.SmallRequests, s.opt.Answers, s.decoding} {
		if n := held.Used(); n != 0 {
			t.Fatalf("%x: %d bytes are held in the end", b, n)
		}
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Fatalf("%x: %d requests are in flight in the end", b, n)
	}
	return <-answers, end
}

// TestHostileBytes sends every request in every version, cut at every byte, with
// each byte changed, and with its largest counts. Nothing may panic.
func TestHostileBytes(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Options{MaxRequestBytes: 1 << 20}, everything()...)
	send := func(b []byte) {
		binary.BigEndian.PutUint32(b, uint32(len(b)-lengthBytes))
		if _, end := feed(t, s, b); end == broker.EndedByPanic {
			t.Fatalf("%x: a panic", b)
		}
	}
	for i := range s.apis.all {
		a := &s.apis.all[i]
		for v := a.min; v <= a.max; v++ {
			req := kmsg.RequestForKey(a.key)
			req.SetVersion(v)
			whole := frameOf(req, 1)
			for cut := lengthBytes + fixedHeaderBytes; cut < len(whole); cut++ {
				send(bytes.Clone(whole[:cut]))
			}
			for at := lengthBytes; at < len(whole); at++ {
				for _, to := range []byte{0x7f, 0xff} {
					b := bytes.Clone(whole)
					b[at] = to
					send(append(b, 0xff, 0xff, 0xff, 0x07, 0, 0, 0, 0))
				}
			}
		}
	}
}

// TestAllocation sends 1 MiB of each request, of bytes that a decoder could take
// for many elements. Each may allocate 8 MiB, and what the connection takes.
func TestAllocation(t *testing.T) {
	s := newTestServer(t, Options{MaxRequestBytes: 2 << 20}, everything()...)
	for i := range s.apis.all {
		a := &s.apis.all[i]
		for _, fill := range []byte{0, 1, 2, 0x7f, 0xff} {
			head := kmsg.RequestForKey(a.key)
			head.SetVersion(a.max)
			b := frameOf(head, 1)
			b = append(b, bytes.Repeat([]byte{fill}, 1<<20-len(b))...)
			binary.BigEndian.PutUint32(b, uint32(len(b)-lengthBytes))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			feed(t, s, b)
			runtime.ReadMemStats(&after)
			// The body grows to 1 MiB by quadrupling: a third more.
			if n := after.TotalAlloc - before.TotalAlloc; n > 10<<20 {
				t.Errorf("%s filled with %#x: %d bytes allocated", a.name, fill, n)
			}
		}
	}
}

// FuzzRead feeds a connection any bytes: it ends without a panic, holds nothing
// in the end, and what it answered is whole responses.
func FuzzRead(f *testing.F) {
	s := newTestServer(f, Options{MaxRequestBytes: 1 << 20}, everything()...)
	f.Add([]byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(binary.BigEndian.AppendUint32(nil, math.MaxUint32))
	for i := range s.apis.all {
		req := kmsg.RequestForKey(s.apis.all[i].key)
		req.SetVersion(s.apis.all[i].max)
		f.Add(append(frameOf(req, 1), frameOf(req, 2)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answers, end := feed(t, s, b)
		if end == broker.EndedByPanic {
			t.Fatalf("%x: a panic", b)
		}
		for len(answers) > 0 {
			if len(answers) < 8 || int(binary.BigEndian.Uint32(answers)) > len(answers)-4 {
				return // the connection ended within it
			}
			answers = answers[4+binary.BigEndian.Uint32(answers):]
		}
	})
}
