package transport

import (
	"fmt"
	"io"
)

const (
	// readBytes is the size of a connection's buffer for reading. Larger pieces of
	// data are read past it, to where they stay.
	readBytes = 64 << 10

	// reportBytes is after how many bytes the bulk connection's callee says how much
	// it has received. What is within that of the caller's end counts as received.
	reportBytes = 64 << 10

	// firstBytes is how much is allocated at once for a message. For a larger one it
	// grows with what has come.
	firstBytes = 8 << 20
)

// hearing notes that the other end is alive, and tells it how much has come.
type hearing struct{ l *lane }

func (r hearing) Read(b []byte) (int, error) {
	l := r.l
	n, err := l.conn.Read(b)
	if n == 0 {
		return n, err
	}
	l.traffic.in.Add(int64(n))
	l.hear(l.s.mesh.opt.Clock.Now())
	l.received += uint64(n)
	if l.number == bulk && !l.s.dialled && l.received-l.told >= reportBytes {
		l.told = l.received
		l.s.mu.Lock()
		l.report, l.reportDue = l.received, true
		l.s.mu.Unlock()
		l.poke()
	}
	return n, err
}

// assembly is a message on its way in.
type assembly struct {
	h   frameHeader // of its first frame
	in  *inbound    // the request that it is
	buf []byte
}

// read takes in what comes until the session ends.
func (l *lane) read() error {
	var head [frameHeaderBytes]byte
	for {
		if _, err := io.ReadFull(l.buffered, head[:]); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		h, err := decodeFrameHeader(head[:])
		if err != nil {
			return err
		}
		if h.kind == frameRequest || h.kind == frameAnswer {
			err = l.data(h)
		} else {
			err = l.control(h)
		}
		if err != nil {
			return err
		}
	}
}

// data reads a frame with data.
func (l *lane) data(h frameHeader) error {
	a := l.assemblies[h.number]
	if first := h.flags&frameFirst != 0; first != (a == nil) {
		return fmt.Errorf("%w: a message begins twice, or goes on without a beginning: %+v", errFrame, h)
	} else if first {
		in, err := l.s.expect(h)
		if err != nil {
			return err
		}
		a = &assembly{h: h, in: in, buf: make([]byte, 0, min(h.total, firstBytes))}
		l.assemblies[h.number] = a
	}
	have := len(a.buf)
	if h.total != a.h.total || h.kind != a.h.kind || h.op != a.h.op || h.code != a.h.code || h.shard != a.h.shard ||
		have+int(h.length) > int(h.total) || (h.flags&frameLast != 0) != (have+int(h.length) == int(h.total)) {
		return fmt.Errorf("%w: a frame does not fit its message: %+v after %d bytes of %+v", errFrame, h, have, a.h)
	}
	if need := have + int(h.length); need > cap(a.buf) {
		a.buf = append(make([]byte, 0, min(int(h.total), 4*cap(a.buf))), a.buf...)
	}
	a.buf = a.buf[:have+int(h.length)]
	piece := a.buf[have:]
	if _, err := io.ReadFull(l.buffered, piece); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if l.plain {
		if got := sum([][]byte{piece}); got != h.dataCRC {
			return fmt.Errorf("%w: data with crc32c %08x, want %08x: %+v", errFrame, got, h.dataCRC, h)
		}
	}
	if h.flags&frameLast == 0 {
		return nil
	}
	delete(l.assemblies, h.number)
	if h.kind == frameAnswer {
		return l.s.answered(h, a.buf)
	}
	return l.s.take(a.in, a.buf)
}

// control does what a frame without data says.
func (l *lane) control(h frameHeader) error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.mesh.opt.Clock.Now()
	switch {
	case h.kind == framePing && !s.dialled:
		l.pong, l.pongDue = h.number, true
		l.poke()
		return nil
	case h.kind == framePong && s.dialled:
		if l.number == small && h.number == s.pings {
			s.trip = now.Sub(s.pinged)
		}
		return nil
	case h.kind == frameReceived && s.dialled && l.number == bulk && h.number >= l.reported && h.number <= l.sent+2*batchBytes:
		l.reported, l.reportedAt = h.number, now
		l.arrivedLocked(now)
		return nil
	case h.kind == frameCancel && !s.dialled:
		if a := l.assemblies[h.number]; a != nil {
			delete(l.assemblies, h.number)
			s.answerLocked(a.in, answerWithdrawn, nil)
		} else {
			s.cancelLocked(h.number)
		}
		return nil
	}
	return fmt.Errorf("%w: not from this end, or not here: %+v", errFrame, h)
}
