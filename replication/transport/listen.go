package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

const (
	// maxStrangers bounds the connections that have not said who they are, or whose
	// session is not complete. One more ends the oldest.
	maxStrangers = 64

	// maxSessions bounds the nodes that have dialled this one.
	maxSessions = 1024

	// logEvery is how often a line of one kind about strangers is logged.
	logEvery = 10 * time.Second

	// acceptPause is how long a listener rests that fails: for want of a file
	// descriptor, say.
	acceptPause = 50 * time.Millisecond
)

// stranger is a connection that is not part of a session yet.
type stranger struct {
	raw  net.Conn
	conn net.Conn
	said hello
	met  bool // it has said it, and waits for its session's other connection
	stop func() bool
}

func (s *stranger) close() {
	s.stop()
	_ = s.raw.Close()
}

// accept takes in connections until the mesh is closed.
func (m *Mesh) accept() {
	for {
		raw, err := m.opt.Listener.Accept()
		if err != nil {
			if m.ctx.Err() != nil {
				return
			}
			if errors.Is(err, net.ErrClosed) {
				m.log.Error("the listener for other nodes is closed", "cause", err)
				return
			}
			m.warn("accept", "a connection of another node could not be taken", "cause", err)
			over := make(chan struct{})
			stop := m.opt.Clock.AfterFunc(acceptPause, func() { close(over) })
			select {
			case <-over:
			case <-m.ctx.Done():
				stop()
				return
			}
			continue
		}
		m.admit(raw)
	}
}

// admit has a connection say who it is.
func (m *Mesh) admit(raw net.Conn) {
	s := &stranger{raw: raw, conn: raw}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		_ = raw.Close()
		return
	}
	s.stop = m.opt.Clock.AfterFunc(handshakeTimeout, func() { m.dismiss(s) })
	m.strangers = append(m.strangers, s)
	if len(m.strangers) > maxStrangers {
		m.strangers[0].close()
		m.strangers = m.strangers[1:]
	}
	m.group.Go(func() {
		if err := m.meet(s); err != nil {
			m.dismiss(s)
			if m.ctx.Err() == nil {
				m.warn(reason(err), "a connection to the port for other nodes was refused", "from", raw.RemoteAddr(), "cause", err)
			}
		}
	})
}

// dismiss closes a connection that did not become part of a session.
func (m *Mesh) dismiss(s *stranger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.strangers, s); i >= 0 {
		m.strangers = slices.Delete(m.strangers, i, i+1)
		s.close()
	}
}

// reason is what lines are counted by: the kind of an error.
func reason(err error) string {
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		return refused.text
	}
	return "handshake"
}

// warn logs a line unless one of its kind was, just now.
func (m *Mesh) warn(kind, msg string, args ...any) {
	m.mu.Lock()
	now := m.opt.Clock.Now()
	last, known := m.logged[kind]
	quiet := known && now.Sub(last) < logEvery || !known && len(m.logged) >= maxSessions
	if !quiet {
		m.logged[kind] = now
	}
	for k, at := range m.logged {
		if now.Sub(at) >= logEvery {
			delete(m.logged, k)
		}
	}
	m.mu.Unlock()
	if !quiet {
		m.log.Warn(msg, args...)
	}
}

// refusal is why a node that said who it is may not stay.
type refusal struct{ text string }

func (r *refusal) Error() string        { return ErrHandshake.Error() + ": " + r.text }
func (r *refusal) Is(target error) bool { return target == ErrHandshake }

// meet makes a stranger part of a session, or says why not.
func (m *Mesh) meet(s *stranger) error {
	if m.opt.TLS != nil {
		t := tls.Server(s.raw, m.opt.TLS)
		if err := t.HandshakeContext(m.ctx); err != nil {
			if err = explainTLS(err); errors.Is(err, errPlain) {
				_, _ = s.raw.Write(tlsAlert) // so that the other end knows, too
			}
			return err
		}
		s.conn = t
	}
	h, err := readHello(s.conn)
	w := welcome{
		min: minVersion, max: maxVersion, version: min(h.max, maxVersion), node: m.opt.Node, cluster: m.opt.ClusterID,
		window: m.opt.MaxHeldBytes, calls: callWindowBytes,
	}
	if err == nil && h.asks() {
		w.refused, w.reason = true, "it was asked who is here, and nothing else"
		_, err = s.conn.Write(w.append(nil))
		m.dismiss(s)
		return err
	}
	if err == nil {
		err = m.judge(h)
	} else if h.max == 0 && err != errSpeaksTLS {
		return err // it is no node
	}
	if err != nil {
		w.refused, w.reason = true, err.Error()[len(ErrHandshake.Error())+2:]
		w.reason = w.reason[:min(len(w.reason), maxReasonBytes)]
		_, _ = s.conn.Write(w.append(nil))
		return err
	}
	// The other connection finds this one before its end may speak.
	m.mu.Lock()
	if !slices.Contains(m.strangers, s) {
		m.mu.Unlock()
		return fmt.Errorf("%w: no agreement within %v, or too many others at a time", ErrHandshake, handshakeTimeout)
	}
	var other *stranger
	for _, o := range m.strangers {
		if o.met && o.said.session == h.session && o.said.from == h.from {
			other = o
		}
	}
	if other == nil {
		s.said, s.met = h, true
		m.mu.Unlock()
		_, err := s.conn.Write(w.append(nil))
		return err
	}
	m.strangers = slices.DeleteFunc(m.strangers, func(o *stranger) bool { return o == s || o == other })
	m.mu.Unlock()
	return m.join(h, w, s, other)
}

// judge says why a node may not stay.
func (m *Mesh) judge(h hello) error {
	switch {
	case h.cluster != m.opt.ClusterID:
		return &refusal{fmt.Sprintf("node %d belongs to cluster %q, and node %d, which it called, to cluster %q: an address is wrong, or a data directory is another cluster's",
			h.from, h.cluster, m.opt.Node, m.opt.ClusterID)}
	case h.to != m.opt.Node:
		return &refusal{fmt.Sprintf("node %d looks for node %d of cluster %q, and here is node %d: the address that is known for node %d is wrong",
			h.from, h.to, h.cluster, m.opt.Node, h.to)}
	case h.from == m.opt.Node:
		return &refusal{fmt.Sprintf("two nodes of cluster %q say that they are node %d: give one of them another node id and an empty data directory",
			h.cluster, h.from)}
	}
	return nil
}

// join makes a session of two connections.
func (m *Mesh) join(h hello, w welcome, second, first *stranger) error {
	second.stop()
	first.stop()
	if first.said.lane == h.lane {
		first.close()
		return fmt.Errorf("%w: two connections %d of one session of node %d", ErrHandshake, h.lane, h.from)
	}
	s := newSession(m, h.from, second.raw.RemoteAddr().String(), false)
	s.windows[raftClass].limit, s.windows[callClass].limit = w.window, w.calls
	s.newLane(first.said.lane, first.raw, first.conn)
	s.newLane(h.lane, second.raw, second.conn)
	m.mu.Lock()
	old := m.inbound[h.from]
	full := old == nil && len(m.inbound) >= maxSessions
	if !full && !m.ended {
		m.inbound[h.from] = s
	}
	ended := m.ended
	l := m.links[h.from]
	m.mu.Unlock()
	if full || ended {
		s.closeLanes()
		return fmt.Errorf("%w: node %d, beyond %d that are connected", ErrHandshake, h.from, maxSessions)
	}
	if old != nil {
		old.fail(fmt.Errorf("%w: node %d has connected anew", ErrBroken, h.from))
	}
	if l != nil {
		l.dialNow()
	}
	stop := m.opt.Clock.AfterFunc(handshakeTimeout, func() { _ = second.raw.Close() })
	_, err := second.conn.Write(w.append(nil))
	stop()
	if err != nil {
		s.closeLanes()
		m.forget(s)
		return err
	}
	s.start()
	m.group.Go(func() {
		<-s.done
		m.forget(s)
	})
	return nil
}

// forget takes a session out that has ended.
func (m *Mesh) forget(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbound[s.node] == s {
		delete(m.inbound, s.node)
	}
}
