package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// strangeEvery is how often a line about connections that speak one strange
// protocol is logged at most.
const strangeEvery = 10 * time.Second

// link is a connection that was taken, whatever it speaks.
type link struct {
	nc     net.Conn
	via    broker.Listener
	native atomic.Pointer[conn] // once it is known to be one
}

// drain makes a connection stop reading; see Protocol for those handed on.
func (l *link) drain() { _ = l.nc.SetReadDeadline(time.Unix(1, 0)) }

// abort ends a connection, whatever is under way.
func (l *link) abort() {
	if c := l.native.Load(); c != nil {
		c.abort()
		return
	}
	_ = l.nc.Close()
}

// Serve accepts connections from l, whose clients are told via.Advertise, until
// Close, and then returns nil, or returns the listener's error. It closes l. It
// may be called for several listeners, whose connections are counted together.
func (s *Server) Serve(l net.Listener, via broker.Listener) error {
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
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
		if err := s.start(nc, via); err != nil {
			s.opt.Log.Warn("connection refused", "remote", nc.RemoteAddr(), "err", err)
			s.refuse(nc, err)
		}
	}
}

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
// Kafka's protocol has no way to say so.
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
			var err error // or a panic
			defer intake.Survive(s.opt.Log, &err, "remote", nc.RemoteAddr().String())
			if p, _, err := frame.ReadMagic(nc); err == nil && p == frame.Native && frame.Refuse(frame.NewReader(nc), frame.NewWriter(nc), e) == nil {
				intake.Linger(nc)
			}
		})
	}
	s.mu.Unlock()
	if !tell {
		_ = nc.Close()
	}
}

// start takes a connection, or returns why not.
func (s *Server) start(nc net.Conn, via broker.Listener) error {
	l := &link{nc: nc, via: via}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	from := source(nc.RemoteAddr())
	switch {
	case len(s.links) >= s.opt.MaxConnections:
		s.untold.Refused(broker.RefusedMax)
		return ErrTooManyConnections
	case s.perIP[from] >= s.opt.MaxConnectionsIP:
		s.untold.Refused(broker.RefusedMaxPerIP)
		return ErrTooManyConnectionsPerIP
	}
	s.links[l] = struct{}{}
	s.perIP[from]++
	s.untold.Comes()
	s.group.Go(func() {
		count := s.serve(l)
		s.mu.Lock()
		delete(s.links, l)
		if s.perIP[from]--; s.perIP[from] == 0 {
			delete(s.perIP, from)
		}
		s.mu.Unlock()
		count()
	})
	return nil
}

// serve finds out what a connection speaks, and serves it to its end. What it
// returns counts that, and is to be called when the connection is not counted
// against the limits any more.
func (s *Server) serve(l *link) (count func()) {
	defer l.nc.Close()
	protocol, read, err := s.tell(l.nc)
	switch {
	case err == nil && protocol == frame.Native:
		return s.serveNative(l)
	case err == nil && protocol == frame.Kafka && s.opt.Kafka != nil:
		s.untold.Goes()
		s.opt.Kafka.Serve(l.nc, read, l.via) // which counts it
		return func() {}
	}
	return s.turnAway(l, protocol, read, err)
}

// serveNative serves a connection that speaks the native protocol, as serve does.
func (s *Server) serveNative(l *link) (count func()) {
	s.meter.Opened()
	s.untold.Goes()
	c := newConn(s, l.nc, l.via)
	l.native.Store(c)
	ended := c.serve()
	return func() { s.meter.Ended(ended) }
}

// turnAway says why a connection is not served, as serve does.
func (s *Server) turnAway(l *link, protocol frame.Protocol, read []byte, err error) (count func()) {
	if err == nil {
		s.logStrange(l, protocol, read)
	} else if !intake.Quiet(err) {
		s.opt.Log.Info("connection refused", "remote", l.nc.RemoteAddr().String(), "err", err)
	}
	ended := broker.EndedHandshake
	if errors.Is(err, intake.ErrPanic) {
		ended = broker.EndedByPanic
	}
	if s.ctx.Err() != nil {
		ended = broker.EndedByListener
	}
	return func() {
		s.untold.Opened() // counted as taken, now that it is known to be nobody else's
		s.untold.Ended(ended)
		s.untold.Goes()
	}
}

// tell reads what a connection opens with.
func (s *Server) tell(nc net.Conn) (protocol frame.Protocol, read []byte, err error) {
	defer intake.Survive(s.opt.Log, &err, "remote", nc.RemoteAddr().String())
	if err := nc.SetDeadline(time.Now().Add(s.opt.HandshakeTimeout)); err != nil {
		return frame.Unknown, nil, err
	}
	if s.ctx.Err() != nil { // Close may have set its deadline before ours
		return frame.Unknown, nil, net.ErrClosed
	}
	return frame.ReadMagic(nc)
}

// advice says what to do about a peer that speaks a protocol.
var advice = map[frame.Protocol]string{
	frame.HTTP:    "this port takes the native and Kafka's protocol; metrics and health are at admin.listen",
	frame.TLS:     "this port takes connections without TLS; turn it off in the client (security.protocol=PLAINTEXT)",
	frame.Kafka:   "this port takes the native protocol alone",
	frame.Unknown: "these bytes open neither the native nor Kafka's protocol",
}

// logStrange says that a connection speaks something else, unless it was just
// said: nobody shall fill a disk with it.
func (s *Server) logStrange(l *link, protocol frame.Protocol, read []byte) {
	unsaid, ok := s.strange[protocol].pass(time.Now(), strangeEvery)
	if !ok {
		return
	}
	s.opt.Log.Warn("a connection was closed: "+protocol.String()+" spoken to the port of clients", "remote", l.nc.RemoteAddr().String(),
		"listener", l.via.Name, "first_bytes", read, "advice", advice[protocol], "others_unsaid", unsaid)
}
