package kafka

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
)

// newTestServer returns a server without a broker.
func newTestServer(t *testing.T, opt Options) *Server {
	t.Helper()
	opt.Log = slog.New(slog.DiscardHandler)
	opt.Requests, opt.SmallRequests, opt.Answers = broker.NewBudget(8<<20), broker.NewBudget(1<<20), broker.NewBudget(8<<20)
	return New(opt)
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
func frameOf(req kmsg.Request, correlationID int32, clientID *string) []byte {
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

func TestAPIVersions(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Options{})
	nc := dial(t, s)
	for v := range int16(5) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = v, "test", "1"
		go func() { _, _ = nc.Write(frameOf(req, int32(v)+7, nil)) }()
		id, resp := readAnswer(t, nc, req)
		r := resp.(*kmsg.ApiVersionsResponse)
		if id != int32(v)+7 || r.ErrorCode != 0 || len(r.ApiKeys) != len(s.apis.all) {
			t.Errorf("version %d: id %d, %+v", v, id, r)
		}
	}
}
