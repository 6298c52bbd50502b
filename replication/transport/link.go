package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// handshakeTimeout is how long it may take, at either end, from a connection to
	// an agreement on it; and to dial.
	handshakeTimeout = 3 * time.Second

	// A node that could not be dialled is dialled again after a time that doubles
	// between these, of which up to a half is left to chance.
	firstBackoff = 20 * time.Millisecond
	lastBackoff  = time.Second
)

var (
	// errNoAddress is why a node whose address nobody knows is not dialled.
	errNoAddress = fmt.Errorf("%w: its address is not known", errDial)

	// errDial matches why there is no session, if there never was.
	errDial = errors.New("cannot be dialled")
)

// link is the way to another node: a session, or the attempts to have one.
type link struct {
	mesh *Mesh
	node int32
	wake chan struct{} // dial now

	mu      sync.Mutex
	closed  bool
	session *session    // nil: being dialled
	waiting []*outbound // for a session, while failed is nil
	failed  error       // why the last dial did, until the next may succeed
}

// link returns the way to a node, which it begins to dial if there was none.
func (m *Mesh) link(node int32) (*link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, fmt.Errorf("%w: call to node %d", ErrClosed, node)
	}
	l := m.links[node]
	if l == nil {
		l = &link{mesh: m, node: node, wake: make(chan struct{}, 1)}
		m.links[node] = l
		m.group.Go(l.run)
	}
	return l, nil
}

// submit sends a request, now or once there is a session, or lands it.
func (l *link) submit(o *outbound) {
	if err := l.trySubmit(o); err != nil {
		o.land(answerOK, nil, err)
	}
}

func (l *link) trySubmit(o *outbound) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == errNoAddress {
		if _, ok := l.mesh.opt.Address(l.node); ok {
			l.dialNowLocked()
		}
	}
	switch {
	case l.closed:
		return fmt.Errorf("%w: call to node %d", ErrClosed, l.node)
	case l.failed != nil:
		return fmt.Errorf("%w: node %d: %w", ErrUnreachable, l.node, l.failed)
	case len(l.waiting) >= maxOwed:
		return fmt.Errorf("%w: node %d: %d calls wait until it is dialled", ErrUnreachable, l.node, maxOwed)
	case l.session != nil:
		if alive, err := l.session.enqueue(o); alive {
			o.session = l.session
			return err
		}
	}
	l.waiting = append(l.waiting, o)
	return nil
}

// sessionOf returns the session that a request was given to, or nil.
func (l *link) sessionOf(o *outbound) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return o.session
}

// abandon says that nobody waits for the answer to a request any more.
func (l *link) abandon(o *outbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.session != nil {
		o.session.abandon(o)
	} else if i := slices.Index(l.waiting, o); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
}

// dialNow is told that the node is there: it has dialled this one.
func (l *link) dialNow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialNowLocked()
}

func (l *link) dialNowLocked() {
	if l.failed != nil {
		l.failed = nil // calls wait for the dial
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// run dials, again and again, until the mesh is closed. After a connection that
// lasted it dials at once.
func (l *link) run() {
	backoff, told := firstBackoff, ""
	for l.mesh.ctx.Err() == nil {
		began := l.mesh.opt.Clock.Now()
		err := l.connection()
		if l.mesh.ctx.Err() != nil {
			return
		}
		if l.mesh.opt.Clock.Now().Sub(began) >= lastBackoff && !errors.Is(err, errDial) {
			backoff, told = firstBackoff, ""
			continue
		}
		l.fail(err)
		if text := err.Error(); text != told && err != errNoAddress {
			told = text
			l.mesh.log.Warn("no way to another node", "node", l.node, "cause", err)
		}
		if l.pause(backoff) {
			backoff = firstBackoff
		} else {
			backoff = min(2*backoff, lastBackoff)
		}
	}
}

// connection is one attempt to have a session, and the session. It returns why
// there is none any more.
func (l *link) connection() error {
	s, err := l.dial()
	if err != nil {
		return err
	}
	if !l.up(s) {
		return ErrClosed
	}
	l.mesh.log.Info("connected to another node", "node", l.node, "address", s.addr)
	l.mesh.tell(l.node, true)
	<-s.done
	l.mesh.tell(l.node, false)
	if l.down() {
		l.mesh.log.Warn("the way to another node broke", "node", l.node, "address", s.addr, "cause", s.err)
	}
	return fmt.Errorf("the connection broke: %w", s.err)
}

// pause waits until the next dial, and reports whether it was asked for.
func (l *link) pause(backoff time.Duration) bool {
	l.mesh.mu.Lock()
	d := backoff/2 + time.Duration(l.mesh.opt.Rand.Int64N(int64(backoff/2)))
	l.mesh.mu.Unlock()
	over := make(chan struct{})
	stop := l.mesh.opt.Clock.AfterFunc(d, func() { close(over) })
	defer stop()
	select {
	case <-over:
	case <-l.wake:
		return true
	case <-l.mesh.ctx.Done():
	}
	return false
}

// up gives a session what waited for it. False says that the link is closed.
func (l *link) up(s *session) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		s.fail(ErrClosed)
		return false
	}
	l.session, l.failed = s, nil
	waiting := l.waiting
	l.waiting = nil
	errs := make([]error, len(waiting))
	for i, o := range waiting {
		alive, err := s.enqueue(o)
		if alive {
			o.session = s
		} else {
			err = fmt.Errorf("%w: node %d: the connection broke", ErrUnreachable, l.node)
		}
		errs[i] = err
	}
	l.mu.Unlock()
	for i, err := range errs {
		if err != nil {
			waiting[i].land(answerOK, nil, err)
		}
	}
	return true
}

// down takes the session away, which has ended. False says that the link is
// closed.
func (l *link) down() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = nil
	return !l.closed
}

// fail lands what waited for a dial.
func (l *link) fail(err error) {
	l.mu.Lock()
	l.failed = err
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, o := range waiting {
		o.land(answerOK, nil, fmt.Errorf("%w: node %d: %w", ErrUnreachable, l.node, err))
	}
}

// close ends the link; run ends by the mesh's context.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	s, waiting := l.session, l.waiting
	l.waiting = nil
	l.mu.Unlock()
	if s != nil {
		s.fail(ErrClosed)
	}
	for _, o := range waiting {
		o.land(answerOK, nil, fmt.Errorf("%w: call to node %d", ErrClosed, l.node))
	}
}

// dial makes a session.
func (l *link) dial() (*session, error) {
	m := l.mesh
	addr, ok := m.opt.Address(l.node)
	if !ok {
		return nil, errNoAddress
	}
	m.mu.Lock()
	h := hello{min: minVersion, max: maxVersion, from: m.opt.Node, to: l.node, session: m.opt.Rand.Uint64(), cluster: m.opt.ClusterID}
	m.mu.Unlock()
	s := newSession(m, l.node, addr, true)
	ctx, cancel := context.WithCancelCause(m.ctx)
	defer cancel(nil)
	stop := m.opt.Clock.AfterFunc(handshakeTimeout, func() { cancel(fmt.Errorf("no answer within %v", handshakeTimeout)) })
	defer stop()
	for n := range s.lanes {
		h.lane = laneNumber(n)
		raw, err := m.opt.Dial(ctx, addr)
		var conn net.Conn
		if err == nil {
			conn, err = s.greet(ctx, raw, h)
		}
		if err != nil {
			s.closeLanes()
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, fmt.Errorf("%w at %s: %w", errDial, addr, err)
		}
		s.newLane(h.lane, raw, conn)
	}
	s.start()
	return s, nil
}

// greet agrees with the other end on a connection, or closes it.
func (s *session) greet(ctx context.Context, raw net.Conn, h hello) (net.Conn, error) {
	quiet := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := s.shake(ctx, raw, h)
	if !quiet() && err == nil {
		err = ctx.Err() // closed just now
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func (s *session) shake(ctx context.Context, raw net.Conn, h hello) (net.Conn, error) {
	conn, err := secure(ctx, raw, s.addr, s.mesh.opt.TLS)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(h.append(nil)); err != nil {
		return nil, err
	}
	w, err := readWelcome(conn)
	if err != nil {
		return nil, err
	}
	if err := h.judge(w); err != nil {
		return nil, err
	}
	s.windows[raftClass].limit, s.windows[callClass].limit = w.window, w.calls
	return conn, nil
}

// judge says why the caller does not agree with what it was answered.
func (h hello) judge(w welcome) error {
	switch {
	case w.refused:
		return fmt.Errorf("%w: node %d refuses node %d: %s", ErrHandshake, w.node, h.from, w.reason)
	case w.cluster != h.cluster || w.node != h.to:
		return fmt.Errorf("%w: node %d of cluster %q answers where node %d of cluster %q is looked for: the address of one of them is wrong",
			ErrHandshake, w.node, w.cluster, h.to, h.cluster)
	case w.version < minVersion || w.version > maxVersion:
		return fmt.Errorf("%w: node %d chose version %d, of %d to %d", ErrHandshake, w.node, w.version, minVersion, maxVersion)
	case w.window <= 0 || w.calls <= 0:
		return fmt.Errorf("%w: node %d takes no requests", ErrHandshake, w.node)
	}
	return nil
}
