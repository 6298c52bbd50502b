package frame

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

const (
	// readBufferBytes holds prefixes and small headers; larger reads go past it.
	readBufferBytes = 8 << 10

	// firstReadBytes is what a frame may make a Reader allocate before the
	// first of its bytes has arrived. From there the buffer grows as it fills.
	firstReadBytes = 128 << 10

	// keepHeaderBytes is the largest header buffer that an idle Reader keeps.
	keepHeaderBytes = 16 << 10
)

// Frame is a frame as read.
type Frame struct {
	Prefix
	Header  []byte // valid until the Reader's next call of Next or Read
	Payload []byte // the caller's; nil if empty
}

// Reader reads frames from a stream. A frame is read in three steps, so that
// the caller may wait for memory, or pick a buffer, once it knows the size and
// the request: Next, Header, Payload. What a step was not asked for is skipped
// by Next. Read does all three.
//
// Memory grows only with bytes that arrive: a length field alone costs at most
// 128 KiB, whatever it claims. A buffer may be an eighth larger than what it is
// for: see Buffers.
//
// The first error is final: every later call returns it. A stream that ends
// between frames is io.EOF, and within one ErrTruncated; an error of the stream
// itself, a deadline for example, is returned as it is.
//
// A Reader is not safe for concurrent use. It reads ahead, so the stream must
// be read by nobody else.
type Reader struct {
	r   *bufio.Reader
	lim Limits

	at          Prefix // the current frame
	headerLeft  int    // bytes of its header not yet read
	payloadLeft int    // bytes of its payload not yet read
	header      []byte // reused from frame to frame
	prefix      [PrefixBytes]byte
	err         error
}

// NewReader returns a Reader of r with the limits of the handshake, which
// Accept and Connect replace by those agreed upon.
func NewReader(r io.Reader) *Reader {
	return &Reader{
		r:   bufio.NewReaderSize(r, readBufferBytes),
		lim: Limits{MaxFrameBytes: HandshakeMaxBytes, MaxHeaderBytes: HandshakeMaxBytes},
	}
}

// SetLimits replaces the limits from the next frame on.
func (r *Reader) SetLimits(lim Limits) { r.lim = lim }

// Next skips what is left of the current frame and reads the next one's
// prefix. It returns io.EOF at the end of the stream, and ErrMalformed,
// ErrTooLarge or ErrTruncated for bytes that are no frame within the limits.
func (r *Reader) Next() (Prefix, error) {
	if r.err != nil {
		return Prefix{}, r.err
	}
	if skip := r.headerLeft + r.payloadLeft; skip > 0 {
		if _, err := r.r.Discard(skip); err != nil {
			return Prefix{}, r.fail(err, "skipping the rest of a frame")
		}
	}
	r.headerLeft, r.payloadLeft = 0, 0
	if n, err := io.ReadFull(r.r, r.prefix[:]); err != nil {
		if n == 0 && errors.Is(err, io.EOF) {
			r.err = io.EOF
			return Prefix{}, r.err
		}
		return Prefix{}, r.fail(err, "prefix")
	}
	p, err := decodePrefix(&r.prefix, r.lim)
	if err != nil {
		r.err = err
		return Prefix{}, err
	}
	r.at, r.headerLeft, r.payloadLeft = p, p.HeaderBytes, p.PayloadBytes
	return p, nil
}

// Header reads the current frame's header. It is valid until the next call of
// Next or Read.
func (r *Reader) Header() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.headerLeft == 0 && r.at.HeaderBytes > 0 {
		panic("frame: Header called twice or after Payload")
	}
	b, err := r.fill(r.header, r.headerLeft)
	if err != nil {
		return nil, r.fail(err, "header")
	}
	r.header, r.headerLeft = b, 0
	if cap(b) > keepHeaderBytes {
		r.header = nil // one large header must not pin its size to the connection
	}
	return b, nil
}

// Payload reads the current frame's payload into buf if its capacity suffices,
// and into a new buffer if not. The result is the caller's.
func (r *Reader) Payload(buf []byte) ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.headerLeft > 0 {
		if _, err := r.r.Discard(r.headerLeft); err != nil {
			return nil, r.fail(err, "skipping a header")
		}
		r.headerLeft = 0
	}
	b, err := r.fill(buf, r.payloadLeft)
	if err != nil {
		return nil, r.fail(err, "payload")
	}
	r.payloadLeft = 0
	return b, nil
}

// Read reads a whole frame, with a payload buffer of its own.
func (r *Reader) Read() (Frame, error) {
	p, err := r.Next()
	if err != nil {
		return Frame{}, err
	}
	header, err := r.Header()
	if err != nil {
		return Frame{}, err
	}
	payload, err := r.Payload(nil)
	if err != nil {
		return Frame{}, err
	}
	return Frame{Prefix: p, Header: header, Payload: payload}, nil
}

// fill reads n bytes into buf, or into a new buffer that starts small and
// quadruples, so that a sender pays with bytes for every byte allocated.
func (r *Reader) fill(buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n {
		if len(buf) == cap(buf) || (len(buf) == 0 && cap(buf) < n) {
			buf = Grow(buf, n, firstReadBytes)
		}
		m, err := io.ReadFull(r.r, buf[len(buf):min(n, cap(buf))])
		buf = buf[:len(buf)+m]
		if err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// fail latches err. The end of the stream within a frame is ErrTruncated.
func (r *Reader) fail(err error, doing string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = ErrTruncated
	}
	r.err = fmt.Errorf("%w (%s)", err, doing)
	return r.err
}
