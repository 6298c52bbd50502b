// Package server is the clients' port and the native protocol's server: it reads
// frames, asks the broker, and writes the answers. docs/protocol.md specifies
// what it speaks. Connections that open in Kafka's protocol are taken, counted
// and held to the same limits, and handed on.
//
// A native connection has two goroutines. One reads requests and starts them in the
// order of their arrival; the other writes answers as they come, and in between
// what the connection's streams deliver, which it reads from the store only
// when it is about to write it. At most
// Options.MaxInFlight requests of a connection are unanswered at a time, and
// payload bytes on their way in are taken from a budget of the node: who finds
// no room is not read from, and TCP tells the sender.
package server

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// Options configures a Server. All fields are needed unless they say otherwise.
type Options struct {
	Broker   *broker.Broker
	Log      *slog.Logger
	Version  string // of the software, for the Hello
	Requests *broker.Budget
	// SmallRequests is the memory of requests of up to 64 KiB.
	SmallRequests *broker.Budget
	Answers       *broker.Budget

	// Groups looks after consumer groups; nil: they are not offered.
	Groups Groups

	// Kafka serves the connections that speak Kafka's protocol; nil: there are
	// none, they are refused.
	Kafka Protocol

	MaxFrameBytes    int           // default frame.DefaultMaxFrameBytes
	MaxInFlight      int           // requests of one connection; default 64
	MaxInFlightBytes int64         // memory of its requests; default an eighth of Requests
	MaxConnections   int           // default 10000
	MaxConnectionsIP int           // from one address; default MaxConnections
	HandshakeTimeout time.Duration // default 10 s
	IdleTimeout      time.Duration // default 10 min: a silent connection is closed
	WriteTimeout     time.Duration // default 1 min: a peer that takes nothing is closed
	PushHold         time.Duration // default 20 ms: how long memory waits for a peer to take it
	MaxFollowed      int           // default 500000: partitions of all streams together
}

// Protocol serves the connections of another protocol. All methods are safe for
// concurrent use.
type Protocol interface {
	// Serve serves a connection to its end, says what that was, and closes it.
	// read is what was read of it to tell the protocol.
	Serve(nc net.Conn, read []byte, via broker.Listener) broker.Ending
	// Drain makes all connections stop reading, later ones too; what is under way
	// is answered, and Serve then returns.
	Drain()
	// Abort makes Serve return, after Drain, whatever is under way.
	Abort()
}

// Reasons that a connection is not taken for, as its client is told.
var (
	ErrTooManyConnections      = errcode.Errorf(errcode.ThrottlingQuotaExceeded, "the node has as many connections as it takes (connections.max)")
	ErrTooManyConnectionsPerIP = errcode.Errorf(errcode.ThrottlingQuotaExceeded, "the node has as many connections from this address as it takes (connections.max.per.ip)")
)

const (
	// maxRefusing is how many connections are told at a time why they are not
	// taken; others are only closed.
	maxRefusing = 64

	// refuseTimeout is how long that may take.
	refuseTimeout = time.Second
)

// lender lends buffers, as frame.Buffers does.
type lender interface {
	Take(n int) []byte
	Give(buf []byte)
}

// Server accepts the clients' connections and serves the native ones.
type Server struct {
	opt     Options
	hello   *pb.ServerHello
	ctx     context.Context // ends when Close begins
	stop    context.CancelFunc
	group   sync.WaitGroup
	buffers lender // of payloads

	open     tally        // streams
	followed tally        // partitions of streams
	pushing  atomic.Int64 // bytes that deliveries of streams hold
	meter    *broker.Meter
	untold   *broker.Meter       // of connections that have not said what they speak
	strange  [frame.TLS + 1]gate // log lines about those that speak something else, by what

	mu        sync.Mutex
	links     map[*link]struct{}
	perIP     map[netip.Prefix]int
	refusing  int
	listeners []net.Listener
	closed    bool
}

// New returns a Server that has to Serve a listener.
func New(opt Options) *Server {
	opt = opt.withDefaults()
	// A request is counted as memory before it has come, so one may claim a
	// quarter of the node's budget, or a largest batch.
	opt.MaxFrameBytes = min(opt.MaxFrameBytes, max(int(opt.Requests.Limit()/4), opt.Broker.MaxBatchBytes()+frame.HandshakeMaxBytes))
	features := []string{frame.FeatureStream}
	if opt.Groups != nil {
		features = append(features, frame.FeatureGroups)
	}
	return newServer(opt, &pb.ServerHello{
		NodeId:          opt.Broker.NodeID(),
		ClusterId:       opt.Broker.ClusterID(),
		SoftwareName:    "flotilla",
		SoftwareVersion: opt.Version,
		MaxFrameBytes:   uint32(opt.MaxFrameBytes),
		MaxHeaderBytes:  frame.DefaultMaxHeaderBytes,
		MaxInFlight:     uint32(opt.MaxInFlight),
		MaxBatchBytes:   uint32(opt.Broker.MaxBatchBytes()),
		IdleTimeoutMs:   uint32(opt.IdleTimeout.Milliseconds()),
		Features:        features,
	})
}

func (opt Options) withDefaults() Options {
	opt.MaxFrameBytes = cmp.Or(opt.MaxFrameBytes, frame.DefaultMaxFrameBytes)
	opt.MaxInFlight = cmp.Or(opt.MaxInFlight, 64)
	opt.MaxConnections = cmp.Or(opt.MaxConnections, 10000)
	opt.MaxConnectionsIP = cmp.Or(opt.MaxConnectionsIP, opt.MaxConnections)
	opt.MaxInFlightBytes = cmp.Or(opt.MaxInFlightBytes, opt.Requests.Limit()/intake.ConnectionShare)
	opt.HandshakeTimeout = cmp.Or(opt.HandshakeTimeout, 10*time.Second)
	opt.IdleTimeout = cmp.Or(opt.IdleTimeout, 10*time.Minute)
	opt.WriteTimeout = cmp.Or(opt.WriteTimeout, time.Minute)
	opt.PushHold = cmp.Or(opt.PushHold, 20*time.Millisecond)
	opt.MaxFollowed = cmp.Or(opt.MaxFollowed, 500_000)
	return opt
}

// newServer returns a Server with all options, which greets clients with hello.
func newServer(opt Options, hello *pb.ServerHello) *Server {
	ctx, stop := context.WithCancel(context.Background())
	return &Server{
		opt:      opt,
		hello:    hello,
		ctx:      ctx,
		stop:     stop,
		links:    make(map[*link]struct{}),
		open:     tally{limit: math.MaxInt64},
		followed: tally{limit: int64(opt.MaxFollowed)},
		perIP:    make(map[netip.Prefix]int),
		meter:    newMeter(),
		untold:   broker.NewMeter("unknown", nil),
		buffers:  new(frame.Buffers),
	}
}

// StreamStats says what the streams of a server cost.
type StreamStats struct {
	Streams        int
	Partitions     int // of all of them
	PartitionLimit int
	HeldBytes      int64 // memory of the store's that is held while it is written
}

// Streams returns what the streams cost now.
func (s *Server) Streams() StreamStats {
	return StreamStats{
		Streams: int(s.open.used.Load()), Partitions: int(s.followed.used.Load()), PartitionLimit: s.opt.MaxFollowed,
		HeldBytes: s.pushing.Load(),
	}
}

// Stats returns what was counted of native connections, and of those that have
// not said, or never said, which protocol they speak. Refused connections are
// among the latter.
func (s *Server) Stats() []broker.MeterStats {
	return []broker.MeterStats{s.meter.Stats(), s.untold.Stats()}
}

// MaxConnections returns how many connections are taken at a time.
func (s *Server) MaxConnections() int { return s.opt.MaxConnections }

// Close stops accepting and reading, lets the requests under way be answered
// until ctx ends, and closes all connections. It waits for their goroutines.
// After ctx has ended the broker is interrupted: it serves no more.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.stop() // before the listener's end, which Serve must not take for an error
	for _, l := range s.listeners {
		_ = l.Close()
	}
	links := make([]*link, 0, len(s.links))
	for l := range s.links {
		links = append(links, l)
	}
	s.mu.Unlock()
	if s.opt.Kafka != nil {
		s.opt.Kafka.Drain()
	}
	for _, l := range links {
		l.drain()
	}
	done := make(chan struct{})
	go func() {
		s.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.opt.Broker.Interrupt() // produces are answered, whatever they wait for
		if s.opt.Kafka != nil {
			s.opt.Kafka.Abort()
		}
		for _, l := range links {
			l.abort()
		}
		<-done
	}
}
