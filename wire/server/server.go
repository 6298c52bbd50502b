// Package server is the native protocol's listener: it reads frames, asks the
// broker, and writes the answers. docs/protocol.md specifies what it speaks.
//
// A connection has two goroutines. One reads requests and starts them in the
// order of their arrival; the other writes answers as they come, and in between
// what the connection's streams deliver, which it reads from the store only
// when it is about to write it. At most
// Options.MaxInFlight requests of a connection are unanswered at a time, and
// payload bytes on their way in are taken from a budget of the node: who finds
// no room is not read from, and TCP tells the sender.
package server

import (
	"context"
	"errors"
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

// Reasons that a connection is not taken for, as its client is told.
var (
	ErrTooManyConnections      = errcode.Errorf(errcode.ThrottlingQuotaExceeded, "the node has as many connections as it takes (connections.max)")
	ErrTooManyConnectionsPerIP = errcode.Errorf(errcode.ThrottlingQuotaExceeded, "the node has as many connections from this address as it takes (connections.max.per.ip)")
)

const (
	// maxRefusing is how many connections are told at a time why they are not
	// taken; others are only closed.
	maxRefusing = 64

	// connectionShare is which part of the node's budget for requests one
	// connection may hold, if nothing else is set.
	connectionShare = 8

	// refuseTimeout is how long that may take.
	refuseTimeout = time.Second
)

// Server accepts native connections.
type Server struct {
	opt     Options
	hello   *pb.ServerHello
	ctx     context.Context // ends when Close begins
	stop    context.CancelFunc
	group   sync.WaitGroup
	buffers frame.Buffers // of payloads

	open     tally        // streams
	followed tally        // partitions of streams
	pushing  atomic.Int64 // bytes that deliveries of streams hold
	meter    *broker.Meter

	mu       sync.Mutex
	conns    map[*conn]struct{}
	perIP    map[netip.Prefix]int
	refusing int
	listener net.Listener
	closed   bool
}

// New returns a Server that has to Serve a listener.
func New(opt Options) *Server {
	setDefault(&opt.MaxFrameBytes, frame.DefaultMaxFrameBytes)
	setDefault(&opt.MaxInFlight, 64)
	setDefault(&opt.MaxConnections, 10000)
	setDefault(&opt.MaxConnectionsIP, opt.MaxConnections)
	setDefault(&opt.MaxInFlightBytes, opt.Requests.Limit()/connectionShare)
	setDefault(&opt.HandshakeTimeout, 10*time.Second)
	setDefault(&opt.IdleTimeout, 10*time.Minute)
	setDefault(&opt.WriteTimeout, time.Minute)
	setDefault(&opt.PushHold, 20*time.Millisecond)
	setDefault(&opt.MaxFollowed, 500_000)
	// A request is counted as memory before it has come, so one may claim a
	// quarter of the node's budget, or a largest batch.
	opt.MaxFrameBytes = min(opt.MaxFrameBytes, max(int(opt.Requests.Limit()/4), opt.Broker.MaxBatchBytes()+frame.HandshakeMaxBytes))
	ctx, stop := context.WithCancel(context.Background())
	return &Server{
		opt: opt,
		hello: &pb.ServerHello{
			NodeId:          opt.Broker.NodeID(),
			ClusterId:       opt.Broker.ClusterID(),
			SoftwareName:    "flotilla",
			SoftwareVersion: opt.Version,
			MaxFrameBytes:   uint32(opt.MaxFrameBytes),
			MaxHeaderBytes:  frame.DefaultMaxHeaderBytes,
			MaxInFlight:     uint32(opt.MaxInFlight),
			MaxBatchBytes:   uint32(opt.Broker.MaxBatchBytes()),
			IdleTimeoutMs:   uint32(opt.IdleTimeout.Milliseconds()),
			Features:        []string{frame.FeatureStream},
		},
		ctx:      ctx,
		stop:     stop,
		conns:    make(map[*conn]struct{}),
		open:     tally{limit: math.MaxInt64},
		followed: tally{limit: int64(opt.MaxFollowed)},
		perIP:    make(map[netip.Prefix]int),
		meter:    newMeter(),
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
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

// Serve accepts connections from l until Close, and then returns nil, or
// returns the listener's error. It closes l.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.listener = l
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return l.Close()
	}
	for {
		nc, err := l.Accept()
		if s.ctx.Err() != nil {
			return nil
		}
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() { // out of file descriptors, most likely
				s.opt.Log.Warn("accept failed", "err", err)
				time.Sleep(10 * time.Millisecond)
				continue
			}
			_ = l.Close()
			return err
		}
		if err := s.start(nc); err != nil {
			s.opt.Log.Warn("connection refused", "remote", nc.RemoteAddr(), "err", err)
			s.refuse(nc, err)
		}
	}
}

// Stats returns what the listener has counted.
func (s *Server) Stats() broker.MeterStats { return s.meter.Stats() }

// MaxConnections returns how many connections are taken at a time.
func (s *Server) MaxConnections() int { return s.opt.MaxConnections }

// source is what connections of one client have in common: an IPv4 address, or
// the /64 of an IPv6 one, which is what one customer is given. What has no
// address counts as one client.
func source(a net.Addr) netip.Prefix {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	ip := ap.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // in range
	return p
}

// refuse tells the client why it is not taken, unless too many are being told.
func (s *Server) refuse(nc net.Conn, why error) {
	var e *errcode.Error
	s.mu.Lock()
	tell := errors.As(why, &e) && !s.closed && s.refusing < maxRefusing
	if tell {
		s.refusing++
		s.group.Go(func() {
			defer func() {
				_ = nc.Close()
				s.mu.Lock()
				s.refusing--
				s.mu.Unlock()
			}()
			defer context.AfterFunc(s.ctx, func() { _ = nc.Close() })()
			if nc.SetDeadline(time.Now().Add(refuseTimeout)) != nil {
				return
			}
			if p, _, err := frame.ReadMagic(nc); err == nil && p == frame.Native {
				_ = frame.Refuse(frame.NewReader(nc), frame.NewWriter(nc), e) // it is closed either way
			}
		})
	}
	s.mu.Unlock()
	if !tell {
		_ = nc.Close()
	}
}

func (s *Server) start(nc net.Conn) error {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	from := source(nc.RemoteAddr())
	switch {
	case len(s.conns) >= s.opt.MaxConnections:
		s.meter.Refused(broker.RefusedMax)
		return ErrTooManyConnections
	case s.perIP[from] >= s.opt.MaxConnectionsIP:
		s.meter.Refused(broker.RefusedMaxPerIP)
		return ErrTooManyConnectionsPerIP
	}
	s.conns[c] = struct{}{}
	s.perIP[from]++
	s.meter.Opened()
	s.group.Go(func() {
		ended := c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		if s.perIP[from]--; s.perIP[from] == 0 {
			delete(s.perIP, from)
		}
		s.mu.Unlock()
		s.meter.Ended(ended)
	})
	return nil
}

// Close stops accepting and reading, lets the requests under way be answered
// until ctx ends, and closes all connections. It waits for their goroutines.
// After ctx has ended the broker is interrupted: it serves no more.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.stop() // before the listener's end, which Serve must not take for an error
	if s.listener != nil {
		_ = s.listener.Close()
	}
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
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
		for _, c := range conns {
			c.cancel()
			c.polls.end()
			_ = c.nc.Close()
		}
		<-done
	}
}
