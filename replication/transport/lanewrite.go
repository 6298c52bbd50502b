package transport

import (
	"fmt"
	"net"
	"time"
)

const (
	// batchBytes is how much one write takes, more or less, and batchFrames of how
	// many frames.
	batchBytes  = 512 << 10
	batchFrames = 128
)

// outFrame is a frame about to be written.
type outFrame struct {
	h     frameHeader
	parts [][]byte
	last  *message // that ends with it
}

// nextLocked appends the frames of the next write to dst.
func (l *lane) nextLocked(dst []outFrame) []outFrame {
	for _, c := range []struct {
		due    *bool
		kind   frameKind
		number uint64
	}{{&l.pingDue, framePing, l.ping}, {&l.pongDue, framePong, l.pong}, {&l.reportDue, frameReceived, l.report}} {
		if *c.due {
			*c.due = false
			dst = append(dst, outFrame{h: frameHeader{kind: c.kind, number: c.number}})
		}
	}
	for bytes, passed := 0, 0; bytes < batchBytes && len(dst) < batchFrames && passed < len(l.ring); {
		if l.turn >= len(l.ring) {
			l.turn = 0
		}
		st := l.ring[l.turn]
		m := st.queue[0]
		if !l.beginLocked(m) {
			passed++
			l.turn++
			continue
		}
		passed = 0
		f := m.frame()
		dst = append(dst, f)
		bytes += frameHeaderBytes + int(f.h.length)
		if f.last == nil {
			l.turn++
			continue
		}
		st.queue[0] = nil
		if st.queue = st.queue[1:]; len(st.queue) == 0 {
			l.dropStreamLocked(l.turn)
		} else {
			l.turn++
		}
	}
	return dst
}

// beginLocked reports whether m may be sent: a request waits for its window.
func (l *lane) beginLocked(m *message) bool {
	if m.begun || m.h.kind != frameRequest {
		return true
	}
	c, weight := m.h.weigh()
	w := &l.s.windows[c]
	if weight > 0 && w.next != nil && w.next != m || !w.fits(weight) {
		if w.next == nil {
			w.next = m
		}
		return false
	}
	if w.next == m {
		w.next = nil
	}
	w.used += weight
	m.begun = true
	return true
}

// frame cuts the next frame off m.
func (m *message) frame() outFrame {
	if m.cancelled || m.h.kind == frameCancel {
		m.taken = true
		return outFrame{h: frameHeader{kind: frameCancel, number: m.h.number}, last: m}
	}
	f := outFrame{h: m.h}
	n := min(m.h.total-m.sent, maxFrameBytes)
	if m.sent == 0 {
		f.h.flags |= frameFirst
	}
	f.h.length = n
	if m.sent += n; m.sent == m.h.total {
		f.h.flags |= frameLast
		f.last, m.taken = m, true
	}
	f.parts, m.parts = cut(m.parts, int(n))
	return f
}

// cut splits parts, which it takes over, after n bytes.
func cut(parts [][]byte, n int) (head, tail [][]byte) {
	for i, p := range parts {
		if n < len(p) {
			head = parts[:i:i]
			if n > 0 {
				head = append(head, p[:n:n]) // elsewhere: there is no room behind i
				parts[i] = p[n:]
			}
			return head, parts[i:]
		}
		n -= len(p)
	}
	return parts, nil
}

// write writes what is queued until the session ends.
func (l *lane) write() error {
	var frames []outFrame
	var w vector
	for {
		l.s.mu.Lock()
		frames = l.nextLocked(frames[:0])
		l.s.mu.Unlock()
		if len(frames) == 0 {
			select {
			case <-l.wake:
				continue
			case <-l.s.done:
				return ErrClosed
			}
		}
		n, err := w.write(l.conn, l.plain, frames)
		l.traffic.out.Add(n)
		l.wrote(frames, uint64(n))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		clear(frames)
	}
}

// wrote says that n bytes of frames are written: all but after an error.
func (l *lane) wrote(frames []outFrame, n uint64) {
	now := l.s.mesh.opt.Clock.Now()
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	at := l.sent
	l.sent += n
	l.movedAt = now
	for _, f := range frames {
		at += frameHeaderBytes + uint64(f.h.length)
		if at > l.sent {
			return
		}
		if f.last == nil {
			continue
		}
		if o := f.last.out; o != nil {
			o.end, o.message = at, nil
			l.unarrived = append(l.unarrived, o)
		}
		if f.last.written != nil {
			f.last.written()
		}
	}
	l.arrivedLocked(now)
}

// arrivedLocked notes which requests are at the other end.
func (l *lane) arrivedLocked(now time.Time) {
	for len(l.unarrived) > 0 {
		o := l.unarrived[0]
		if l.number == bulk && l.reported+reportBytes < o.end {
			return
		}
		o.arrivedAt = now
		l.unarrived[0] = nil
		l.unarrived = l.unarrived[1:]
	}
}

// vector writes frames in one go. Its memory is used again.
type vector struct {
	headers []byte
	flat    []byte
	bufs    net.Buffers
}

func (v *vector) write(conn net.Conn, sums bool, frames []outFrame) (int64, error) {
	v.headers = v.headers[:0]
	for _, f := range frames {
		if sums {
			f.h.dataCRC = sum(f.parts)
		}
		v.headers = f.h.append(v.headers)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		bufs := v.bufs[:0]
		for i, f := range frames {
			bufs = append(bufs, v.headers[i*frameHeaderBytes:(i+1)*frameHeaderBytes])
			bufs = append(bufs, f.parts...)
		}
		v.bufs = bufs
		n, err := bufs.WriteTo(tcp) // empties its copy of the slice
		clear(v.bufs)
		return n, err
	}
	v.flat = v.flat[:0] // a record of TLS, or a lock, for each piece would cost more
	for i, f := range frames {
		v.flat = append(v.flat, v.headers[i*frameHeaderBytes:(i+1)*frameHeaderBytes]...)
		for _, p := range f.parts {
			v.flat = append(v.flat, p...)
		}
	}
	n, err := conn.Write(v.flat)
	return int64(n), err
}
