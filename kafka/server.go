// Package kafka serves clients that speak Kafka's protocol: it reads their
// requests, asks the broker, and writes the answers. docs/kafka.md says which
// requests it takes, in which versions, and where it differs from Apache Kafka.
//
// One goroutine of a connection reads requests; it starts Produce and Fetch as they
// come, which the broker then works on while more is read. Another one answers, for as
// long as there is something to answer, in the order of arrival, as Kafka does: a request
// of any other kind is handled when all before it are answered, so one connection
// holds one such answer in memory, and sees what its own requests have done. So is
// a Fetch that has one of another kind before it: see api.inTurn. A heartbeat with nothing
// before it is answered by the goroutine that has read it.
//
// Connections come from the listener of package wire/server, which shares its
// port and its limits between the protocols. Bytes of requests and answers are
// taken from the same budgets of the node as the native protocol's.
package kafka

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// Options configures a Server. All fields are needed unless they say otherwise.
type Options struct {
	Broker   *broker.Broker
	Groups   Groups // nil: requests about consumer groups are not offered
	Log      *slog.Logger
	Version  string         // of the software
	Requests *broker.Budget // memory of requests above 64 KiB on their way in
	// SmallRequests is the memory of those up to that.
	SmallRequests *broker.Budget
	Answers       *broker.Budget // memory of answers on their way out

	MaxRequestBytes  int           // largest request; default frame.DefaultMaxFrameBytes
	MaxInFlight      int           // requests of one connection; default 64
	MaxInFlightBytes int64         // memory of its requests; default an eighth of Requests
	ArrivalTimeout   time.Duration // default 10 s: beside the time that its bytes may take, a request is whole by then
	IdleTimeout      time.Duration // default 10 min: a silent connection is closed
	WriteTimeout     time.Duration // default 1 min: a peer that takes nothing is closed
	PushHold         time.Duration // default 20 ms: how long memory waits for a peer to take it
	MaxSessions      int           // fetch sessions of the node (KIP-227); default 1000, negative: none

	Rand io.Reader        // of the sessions' ids; default crypto/rand
	Now  func() time.Time // by which they are evicted; default time.Now

	// Resolve looks an advertised host up; default: by the machine's resolver.
	Resolve func(ctx context.Context, host string) error

	AutoCreateTopics  bool          // that Metadata asks for (auto.create.topics.enable)
	AutoCreateTimeout time.Duration // default 10 s: how long Metadata may wait for them
}

// decodingShare is which part of it, beside it, decoded requests may take.
const decodingShare = 4

// lender lends buffers, as frame.Buffers does.
type lender interface {
	Take(n int) []byte
	Give(buf []byte)
}

// Server serves Kafka's connections.
type Server struct {
	opt     Options
	broker  *broker.Broker
	groups  Groups
	log     *slog.Logger
	apis    *table
	ctx     context.Context // ends when Drain is called
	stop    context.CancelFunc
	buffers lender // of requests
	// sessions are those of Fetch.
	sessions *sessions

	// decoding is memory of decoded requests: kmsg makes more of their bytes. It
	// is taken after a request's own, and before its answer's, so nobody waits in
	// a circle.
	decoding *broker.Budget
	fetches  fetchMemory
	meter    *broker.Meter

	background sync.WaitGroup // look-ups

	mu      sync.Mutex
	conns   map[*conn]struct{}
	checked map[string]struct{} // listeners and what was said of their addresses
}

// New returns a Server.
func New(opt Options) *Server {
	opt.MaxRequestBytes = cmp.Or(opt.MaxRequestBytes, frame.DefaultMaxFrameBytes)
	// A request is counted as memory before it has come, so one may claim a
	// quarter of the node's budget, or a largest batch.
	opt.MaxRequestBytes = min(opt.MaxRequestBytes, max(int(opt.Requests.Limit()/4), opt.Broker.MaxBatchBytes()+intake.SmallBytes))
	if opt.Groups == nil {
		return newServer(opt, newTable(coreAPIs, dataAPIs, adminAPIs))
	}
	return newServer(opt, newTable(coreAPIs, dataAPIs, adminAPIs, groupAPIs))
}

// newServer returns a Server of some requests.
func newServer(opt Options, apis *table) *Server {
	opt.MaxRequestBytes = cmp.Or(opt.MaxRequestBytes, frame.DefaultMaxFrameBytes)
	opt.MaxInFlight = cmp.Or(opt.MaxInFlight, 64)
	opt.MaxInFlightBytes = cmp.Or(opt.MaxInFlightBytes, opt.Requests.Limit()/intake.ConnectionShare)
	opt.ArrivalTimeout = cmp.Or(opt.ArrivalTimeout, 10*time.Second)
	opt.IdleTimeout = cmp.Or(opt.IdleTimeout, 10*time.Minute)
	opt.WriteTimeout = cmp.Or(opt.WriteTimeout, time.Minute)
	opt.PushHold = cmp.Or(opt.PushHold, 20*time.Millisecond)
	opt.MaxSessions = cmp.Or(opt.MaxSessions, 1000)
	opt.Rand = cmp.Or(opt.Rand, rand.Reader)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.AutoCreateTimeout = cmp.Or(opt.AutoCreateTimeout, 10*time.Second)
	if opt.Resolve == nil {
		opt.Resolve = func(ctx context.Context, host string) error {
			_, err := net.DefaultResolver.LookupHost(ctx, host)
			return err
		}
	}
	s := &Server{
		opt: opt, broker: opt.Broker, groups: opt.Groups, log: opt.Log, apis: apis, buffers: new(frame.Buffers),
		conns: make(map[*conn]struct{}), checked: make(map[string]struct{}),
	}
	s.sessions = newSessions(max(opt.MaxSessions, 0), opt.Requests.Limit()/sessionShare, opt.Rand, opt.Now)
	s.decoding = broker.NewBudget(opt.Requests.Limit() / decodingShare)
	s.fetches = newFetchMemory(opt.Requests.Limit() / fetchShare)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.meter = broker.NewMeter("kafka", s.apis.names())
	return s
}

// Stats returns what the server has counted.
func (s *Server) Stats() broker.MeterStats { return s.meter.Stats() }

// Memory returns the server's own budgets of memory, by name.
func (s *Server) Memory() map[string]*broker.Budget {
	return map[string]*broker.Budget{"decoding": s.decoding, "small fetches": s.fetches.small, "fetches": s.fetches.large}
}

// Sessions returns what the fetch sessions of the node are.
func (s *Server) Sessions() SessionStats { return s.sessions.stats() }

// Serve serves a connection to its end, says what that was, and closes it. read
// is what was read of it already: at least the first four bytes, to tell the
// protocol.
func (s *Server) Serve(nc net.Conn, read []byte, via broker.Listener) broker.Ending {
	s.meter.Opened()
	why := s.serve(nc, read, via)
	s.meter.Ended(why)
	return why
}

// serve is Serve without counting a client's connection.
func (s *Server) serve(nc net.Conn, read []byte, via broker.Listener) broker.Ending {
	c := newConn(s, nc, read, via)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	why := c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	return why
}

// Drain makes all connections stop reading, those too that come later. What is
// under way is answered.
func (s *Server) Drain() {
	s.stop()
	for _, c := range s.all() {
		c.drain()
	}
}

// Close ends what else is under way. It is called last, when no Serve runs.
func (s *Server) Close() {
	s.stop()
	s.background.Wait()
}

// Abort closes all connections, after Drain.
func (s *Server) Abort() {
	for _, c := range s.all() {
		c.abort()
	}
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}
