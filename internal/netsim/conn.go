package netsim

import (
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"
)

// pipe is one direction of a connection. Guarded by Network.mu.
type pipe struct {
	link
	queue   []chunk   // in order of arrival
	bytes   int       // in queue
	last    time.Time // the latest arrival so far
	isCut   bool
	ended   bool // the writer wrote its end
	writing bool // a Write is under way

	// changed tells of everything that may let a Read or a Write go on.
	changed signal
}

// chunk is bytes on their way, or the end of them.
type chunk struct {
	data   []byte
	at     time.Time // of arrival
	held   bool      // by a cut: arrives some time after heal
	end    bool
	closed bool // an end: whoever wrote it does not read any more either
}

func (p *pipe) push(c chunk) {
	if c.at.Before(p.last) {
		c.at = p.last
	}
	p.last = c.at
	c.held = p.isCut
	p.queue = append(p.queue, c)
	p.bytes += len(c.data)
	p.changed.broadcast()
}

// arrived reports whether c is there, and else when it will be, if that is
// known.
func (c *chunk) arrived() (ok bool, at time.Time) {
	if c.held {
		return false, time.Time{}
	}
	return !c.at.After(time.Now()), c.at
}

// cut holds what has not arrived by now. Time may stand still, so what is
// written next cannot be told by its time: see push.
func (p *pipe) cut(now time.Time) {
	p.isCut = true
	for i := range p.queue {
		if c := &p.queue[i]; c.at.After(now) {
			c.held = true
		}
	}
	p.changed.broadcast()
}

// heal lets what is held arrive from a time on.
func (p *pipe) heal(from time.Time) {
	p.isCut = false
	for i := range p.queue {
		c := &p.queue[i]
		if c.held && c.at.Before(from) {
			c.at = from
		}
		c.held = false
		p.last = c.at
	}
	p.changed.broadcast()
}

// conn is one end of a connection. It implements net.Conn and CloseWrite.
// Guarded by n.mu.
type conn struct {
	n             *Network
	peer          *conn
	local, remote Addr
	in, out       *pipe
	reset, closed bool
	readBy        time.Time // deadlines; zero: none
	writeBy       time.Time
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "netsim", Source: c.local, Addr: c.remote, Err: err}
}

// brokenLocked returns why nothing can be read or written any more, if so.
func (c *conn) brokenLocked(by time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.reset:
		return syscall.ECONNRESET
	case !by.IsZero() && !by.After(time.Now()):
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (c *conn) Read(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		if err := c.brokenLocked(c.readBy); err != nil {
			return 0, c.fail("read", err)
		}
		if len(p) == 0 {
			return 0, nil
		}
		until := c.readBy
		if len(c.in.queue) > 0 {
			ok, at := c.in.queue[0].arrived()
			if ok {
				return c.takeLocked(p)
			}
			until = earlier(until, at)
		}
		c.n.waitLocked(nil, until, &c.in.changed)
	}
}

// takeLocked reads from what has arrived.
func (c *conn) takeLocked(p []byte) (n int, err error) {
	for n < len(p) && len(c.in.queue) > 0 {
		head := &c.in.queue[0]
		if ok, _ := head.arrived(); !ok {
			break
		}
		if head.end {
			if n == 0 {
				return 0, io.EOF // and it stays, for the next Read
			}
			break
		}
		took := copy(p[n:], head.data)
		n += took
		head.data = head.data[took:]
		if len(head.data) == 0 {
			c.in.queue = c.in.queue[1:]
		}
	}
	c.in.bytes -= n
	c.in.changed.broadcast()
	return n, nil
}

// Write returns once all of p is in the buffer. It is not mixed with another
// Write at the same time.
func (c *conn) Write(p []byte) (n int, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	mine := false
	defer func() {
		if mine {
			c.out.writing = false
			c.out.changed.broadcast()
		}
	}()
	for {
		if n > 0 && n == len(p) {
			return n, nil
		}
		if err := c.brokenLocked(c.writeBy); err != nil {
			return n, c.fail("write", err)
		}
		gone, at := c.peerGoneLocked()
		if gone || c.out.ended {
			return n, c.fail("write", syscall.EPIPE)
		}
		if len(p) == 0 {
			return 0, nil
		}
		room := bufferBytes - c.out.bytes
		if (mine || !c.out.writing) && room > 0 {
			mine, c.out.writing = true, true
			data := append([]byte(nil), p[n:min(len(p), n+room)]...)
			c.out.push(chunk{data: data, at: time.Now().Add(c.n.drawLocked(c.out.link))})
			n += len(data)
			continue
		}
		c.n.waitLocked(nil, earlier(c.writeBy, at), &c.out.changed, &c.in.changed)
	}
}

// peerGoneLocked reports whether the news has arrived that the peer closed its
// end, and else when it will arrive, if that is known.
func (c *conn) peerGoneLocked() (gone bool, at time.Time) {
	if last := len(c.in.queue) - 1; last >= 0 && c.in.queue[last].closed {
		return c.in.queue[last].arrived()
	}
	return false, time.Time{}
}

// CloseWrite ends what this end writes; it can still read. The peer reads the
// end after all that was written before.
func (c *conn) CloseWrite() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if err := c.brokenLocked(time.Time{}); err != nil {
		return c.fail("close", err)
	}
	c.endLocked(false)
	return nil
}

func (c *conn) endLocked(closed bool) {
	at := time.Now().Add(c.n.drawLocked(c.out.link))
	if closed || !c.out.ended {
		c.out.push(chunk{end: true, closed: closed, at: at})
	}
	c.out.ended = true
}

// Close lets the peer read what was written before; what the peer has yet to
// write fails with EPIPE once it knows.
func (c *conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.fail("close", net.ErrClosed)
	}
	c.closeLocked()
	return nil
}

func (c *conn) closeLocked() {
	if c.closed {
		return
	}
	if !c.reset {
		c.endLocked(true)
	}
	c.closed = true
	c.in.changed.broadcast()
	c.out.changed.broadcast()
	c.n.conns = slices.DeleteFunc(c.n.conns, func(o *conn) bool { return o == c })
}

// resetLocked breaks both ends.
func (c *conn) resetLocked() {
	c.reset, c.peer.reset = true, true
	c.in.changed.broadcast()
	c.out.changed.broadcast()
}

func (c *conn) SetDeadline(t time.Time) error      { return c.setDeadlines(&t, &t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(&t, nil) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return c.fail("set", net.ErrClosed)
	}
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	c.in.changed.broadcast()
	c.out.changed.broadcast()
	return nil
}

// earlier returns the earlier of two times; a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
