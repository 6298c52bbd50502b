// Package netsim is a network in memory, with faults, for tests.
//
// Hosts are names; addresses are "host:port". A connection carries bytes in
// order, through a bounded buffer for each direction, with a latency that a
// seed draws. Directions between hosts can be cut and healed, connections reset.
//
// Everything that waits does so on a channel or a timer and holds no lock, so a
// network works inside a testing/synctest bubble; it must not be used from
// inside and outside of one at the same time. It starts no goroutine.
package netsim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// bufferBytes bounds what one direction of a connection holds: bytes
	// written and not yet read. A writer waits beyond it.
	bufferBytes = 64 << 10

	// backlog bounds the connections of a listener that wait for Accept. Dial
	// waits beyond it.
	backlog = 128

	firstPort = 32768 // of those that are chosen for the caller
)

// Network connects named hosts. It is safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	rng       *rand.Rand
	listeners map[string]*listener // by address
	conns     []*conn              // open ends, in the order they were made
	cuts      map[link]struct{}
	latency   map[link]span
	lastPort  int
	closed    bool
	changed   signal // cuts, listeners, backlogs, closed
}

// link is a direction between hosts; an empty name stands for any host.
type link struct{ from, to string }

// span is a range of durations, [lo, hi].
type span struct{ lo, hi time.Duration }

// New returns a network without latency or faults.
func New(seed uint64) *Network {
	return &Network{
		rng:       rand.New(rand.NewPCG(seed, 0)),
		listeners: make(map[string]*listener),
		cuts:      make(map[link]struct{}),
		latency:   make(map[link]span),
		lastPort:  firstPort - 1,
	}
}

// Listen listens on addr, a "host:port"; port 0 chooses one. An address in use
// is an error matching syscall.EADDRINUSE.
func (n *Network) Listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, opError("listen", "", addr, net.ErrClosed)
	}
	if port == "0" {
		addr = n.freeAddrLocked(host)
	}
	if n.listeners[addr] != nil {
		return nil, opError("listen", "", addr, syscall.EADDRINUSE)
	}
	l := &listener{n: n, addr: Addr(addr)}
	n.listeners[addr] = l
	return l, nil
}

func (n *Network) freeAddrLocked(host string) string {
	n.lastPort++
	return fmt.Sprintf("%s:%d", host, n.lastPort)
}

// Dial connects from a host, or from one of its addresses, to addr. It takes a
// round trip, and waits while the way there or back is cut or the listener's
// backlog is full, until ctx ends. Where nobody listens is an error matching
// syscall.ECONNREFUSED.
func (n *Network) Dial(ctx context.Context, from, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fail := func(err error) (net.Conn, error) { return nil, opError("dial", from, addr, err) }
	there, back := link{hostOf(from), hostOf(addr)}, link{hostOf(addr), hostOf(from)}
	arrival := time.Now().Add(n.drawLocked(there) + n.drawLocked(back))
	for {
		if n.closed {
			return fail(net.ErrClosed)
		}
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		until := time.Time{}
		if !n.isCutLocked(there) && !n.isCutLocked(back) {
			if until = arrival; !until.After(time.Now()) {
				l := n.listeners[addr]
				if l == nil {
					return fail(syscall.ECONNREFUSED)
				}
				if len(l.waiting) < backlog {
					return n.connectLocked(l, there.from), nil
				}
				until = time.Time{}
			}
		}
		n.waitLocked(ctx.Done(), until, &n.changed)
	}
}

// connectLocked hands one end of a new connection to l and returns the other.
func (n *Network) connectLocked(l *listener, from string) *conn {
	local, remote := Addr(n.freeAddrLocked(from)), l.addr
	there := &pipe{link: link{from, hostOf(string(remote))}}
	back := &pipe{link: link{there.to, from}}
	dialed := &conn{n: n, local: local, remote: remote, in: back, out: there}
	accepted := &conn{n: n, local: remote, remote: local, in: there, out: back}
	dialed.peer, accepted.peer = accepted, dialed
	n.conns = append(n.conns, dialed, accepted)
	l.waiting = append(l.waiting, accepted)
	l.changed.broadcast()
	return dialed
}

// SetLatency makes every later write from one host to another, and every later
// Dial, take between lo and hi, drawn by the seed. Bytes of one connection
// never overtake each other. An empty name is any host that has no setting of
// its own.
func (n *Network) SetLatency(from, to string, lo, hi time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency[link{from, to}] = span{lo, hi}
}

func (n *Network) drawLocked(l link) time.Duration {
	for _, l := range []link{l, {l.from, ""}, {"", l.to}, {}} {
		if s, ok := n.latency[l]; ok {
			return s.lo + time.Duration(n.rng.Int64N(int64(max(0, s.hi-s.lo))+1))
		}
	}
	return 0
}

// Cut stops what flows from one host to another, until Mend or Heal: bytes that
// have not arrived yet wait, and a Dial in either direction waits. Cut the other
// direction too for a full partition. An empty name is every host.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[link{from, to}] = struct{}{}
	now := time.Now()
	for _, c := range n.conns {
		for _, p := range []*pipe{c.in, c.out} {
			if !p.isCut && n.isCutLocked(p.link) {
				p.cut(now)
			}
		}
	}
	n.changed.broadcast()
}

// isCutLocked reports whether l is cut. A host always reaches itself.
func (n *Network) isCutLocked(l link) bool {
	if l.from == l.to {
		return false
	}
	for _, l := range []link{l, {l.from, ""}, {"", l.to}, {}} {
		if _, ok := n.cuts[l]; ok {
			return true
		}
	}
	return false
}

// Mend undoes one Cut, by the same names. What waited arrives after the latency,
// unless another Cut holds it.
func (n *Network) Mend(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cuts, link{from, to})
	n.mendedLocked()
}

// Heal undoes all cuts. What waited arrives after the latency.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
	n.mendedLocked()
}

// mendedLocked lets go of what no cut holds any more.
func (n *Network) mendedLocked() {
	now := time.Now()
	for _, c := range n.conns {
		for _, p := range []*pipe{c.in, c.out} {
			if p.isCut && !n.isCutLocked(p.link) {
				p.heal(now.Add(n.drawLocked(p.link)))
			}
		}
	}
	n.changed.broadcast()
}

// Reset breaks every connection to or from addr, a host or one of its
// addresses, at once and at both ends: reads and writes fail with an error
// matching syscall.ECONNRESET, and what was on its way is lost.
func (n *Network) Reset(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		for _, end := range []string{string(c.local), string(c.remote)} {
			if end == addr || hostOf(end) == addr {
				c.resetLocked()
			}
		}
	}
}

// Close closes every listener and connection. Everything on the network, from
// now on and what waits now, fails with net.ErrClosed.
func (n *Network) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, l := range n.listeners {
		l.closeLocked()
	}
	for _, c := range slices.Clone(n.conns) { // each takes itself out
		c.closeLocked()
	}
	n.changed.broadcast()
	return nil
}

// waitLocked gives mu up until one of the signals, until stop is closed, or
// until a time, if that is not zero.
func (n *Network) waitLocked(stop <-chan struct{}, until time.Time, signals ...*signal) {
	var timeout <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		timeout = timer.C
	}
	var ch [2]<-chan struct{}
	for i, s := range signals {
		ch[i] = s.wait()
	}
	n.mu.Unlock()
	select {
	case <-ch[0]:
	case <-ch[1]:
	case <-stop:
	case <-timeout:
	}
	n.mu.Lock()
}

// signal wakes all who wait. Its channel is made by the first of them, so that
// it belongs to the synctest bubble in which they wait.
type signal struct{ ch chan struct{} }

func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// listener implements net.Listener. Its fields are guarded by n.mu.
type listener struct {
	n       *Network
	addr    Addr
	waiting []*conn // at most backlog
	closed  bool
	changed signal
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for {
		if l.closed {
			return nil, opError("accept", "", string(l.addr), net.ErrClosed)
		}
		if len(l.waiting) > 0 {
			c := l.waiting[0]
			l.waiting = l.waiting[1:]
			l.n.changed.broadcast()
			return c, nil
		}
		l.n.waitLocked(nil, time.Time{}, &l.changed)
	}
}

// Close resets the connections that nobody has accepted.
func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.closed {
		return opError("close", "", string(l.addr), net.ErrClosed)
	}
	l.closeLocked()
	return nil
}

func (l *listener) closeLocked() {
	l.closed = true
	delete(l.n.listeners, string(l.addr))
	for _, c := range l.waiting {
		c.resetLocked()
		c.closeLocked()
	}
	l.waiting = nil
	l.changed.broadcast()
	l.n.changed.broadcast()
}

// Addr is a "host:port" on a Network.
type Addr string

func (Addr) Network() string  { return "netsim" }
func (a Addr) String() string { return string(a) }

func hostOf(addr string) string {
	host, _, found := strings.Cut(addr, ":")
	if !found {
		return addr
	}
	return host
}

func opError(op, from, to string, err error) error {
	e := &net.OpError{Op: op, Net: "netsim", Err: err}
	if from != "" {
		e.Source = Addr(from)
	}
	if to != "" {
		e.Addr = Addr(to)
	}
	return e
}
