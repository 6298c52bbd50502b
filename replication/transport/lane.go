package transport

import (
	"bufio"
	"net"
	"sync/atomic"
	"time"
)

// message is a request or an answer on its way out, or a cancel.
type message struct {
	h         frameHeader
	parts     [][]byte // what is left of it
	sent      uint32
	begun     bool      // counts in its window, if it has one
	taken     bool      // all of it is on its way
	cancelled bool      // what is left is not sent
	out       *outbound // the request that it is
	written   func()    // called when all of it is, with session.mu
}

// stream is messages that keep their order.
type stream struct {
	key   uint64
	queue []*message
}

// lane is one connection of a session. One goroutine writes, another reads. What
// is to be written waits in streams that take turns by frames.
type lane struct {
	s      *session
	number laneNumber
	raw    net.Conn // what is closed
	conn   net.Conn // raw, or TLS over it
	plain  bool     // not TLS: data has checksums
	wake   chan struct{}

	heard   atomic.Int64 // when something came in last, nanoseconds since Mesh.began
	traffic *traffic

	// Guarded by session.mu.
	pingDue, pongDue, reportDue bool
	ping, pong, report          uint64
	streams                     map[uint64]*stream
	ring                        []*stream
	turn                        int         // in ring
	sent                        uint64      // bytes written
	movedAt                     time.Time   // of sent
	reported                    uint64      // bytes received at the other end
	reportedAt                  time.Time   // of reported
	unarrived                   []*outbound // written, in order, and not known to have arrived

	// The reader's own.
	buffered   *bufio.Reader
	assemblies map[uint64]*assembly
	received   uint64
	told       uint64 // of received
}

// newLane adds a connection to a session.
func (s *session) newLane(n laneNumber, raw, conn net.Conn) {
	l := &lane{
		s: s, number: n, raw: raw, conn: conn, plain: raw == conn,
		wake:       make(chan struct{}, 1),
		traffic:    s.mesh.trafficOf(s.node),
		streams:    make(map[uint64]*stream),
		assemblies: make(map[uint64]*assembly),
	}
	l.hear(s.mesh.opt.Clock.Now())
	l.buffered = bufio.NewReaderSize(hearing{l}, readBytes)
	s.lanes[n] = l
}

// hear notes a sign of life.
func (l *lane) hear(now time.Time) { l.heard.Store(int64(now.Sub(l.s.mesh.began))) }

// silent is how long ago something came in last.
func (l *lane) silent(now time.Time) time.Duration {
	return now.Sub(l.s.mesh.began) - time.Duration(l.heard.Load())
}

func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pushLocked puts a message at the end of a stream.
func (l *lane) pushLocked(key uint64, m *message) {
	st := l.streams[key]
	if st == nil {
		st = &stream{key: key}
		l.streams[key] = st
		l.ring = append(l.ring, st)
	}
	st.queue = append(st.queue, m)
	l.poke()
}

// removeLocked takes out a message of which nothing was sent.
func (l *lane) removeLocked(m *message) {
	for i, st := range l.ring {
		for j, q := range st.queue {
			if q == m {
				st.queue = append(st.queue[:j:j], st.queue[j+1:]...)
				if len(st.queue) == 0 {
					l.dropStreamLocked(i)
				}
				if c, _ := m.h.weigh(); l.s.windows[c].next == m {
					l.s.windows[c].next = nil
					l.poke()
				}
				return
			}
		}
	}
}

func (l *lane) dropStreamLocked(i int) {
	delete(l.streams, l.ring[i].key)
	l.ring = append(l.ring[:i], l.ring[i+1:]...)
	if l.turn > i {
		l.turn--
	}
}
