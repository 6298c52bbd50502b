package frame

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"

	"google.golang.org/protobuf/proto"
)

// arenaBytes is the size of the buffers that prefixes and headers are encoded
// into.
const arenaBytes = 4 << 10

// ErrShortPart reports a part that wrote another number of bytes than it had
// announced. The stream is unusable, since the frame's length was sent already.
var ErrShortPart = errors.New("frame: part did not write the bytes it announced")

// Part is a stretch of a payload: bytes in memory, or, if Source is set, what a
// Source writes.
type Part struct {
	Bytes  []byte
	Source Source
}

// Source writes a payload's bytes itself. WriteTo is handed the stream that the
// Writer was made with: a range of an *os.File that copies itself to a
// *net.TCPConn is sent by sendfile.
type Source interface {
	// Len returns how many bytes WriteTo will write. It does not change while
	// the Source is queued.
	Len() int64

	io.WriterTo
}

// len returns the number of bytes of p.
func (p Part) len() int64 {
	if p.Source != nil {
		return p.Source.Len()
	}
	return int64(len(p.Bytes))
}

// Writer gathers frames and writes them, payloads uncopied, with as few
// vectored writes as it can: one for each Flush, and two more for each Source.
//
// The first write error is final: this and every later Flush return it.
// A Writer is not safe for concurrent use.
type Writer struct {
	w      io.Writer
	lim    Limits
	arena  []byte // prefixes and headers; vecs alias it
	vecs   net.Buffers
	steps  []step
	queued int64
	err    error
}

// step is a run of vecs ending at vecs[:end], then a source, if any.
type step struct {
	end    int
	source Source
}

// NewWriter returns a Writer on w with the limits of the handshake, which
// Accept and Connect replace by those agreed upon.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, lim: Limits{MaxFrameBytes: HandshakeMaxBytes, MaxHeaderBytes: HandshakeMaxBytes}}
}

// SetLimits replaces the limits from the next frame on.
func (w *Writer) SetLimits(lim Limits) { w.lim = lim }

// Queue adds a frame to what the next Flush writes. The header is encoded at
// once; the payload's bytes and sources must stay unchanged until Flush
// returned.
//
// A frame above the limits is ErrTooLarge, and a header that cannot be encoded
// (a string that is not UTF-8) ErrMalformed; nothing is queued then, and the
// Writer can be used on.
func (w *Writer) Queue(kind Kind, flags Flags, correlationID uint32, header proto.Message, payload ...Part) error {
	if kind == 0 || flags&^knownFlags != 0 {
		panic(fmt.Sprintf("frame: Queue of kind %d, flags %#x", kind, flags))
	}
	p := Prefix{Kind: kind, Flags: flags, CorrelationID: correlationID, HeaderBytes: proto.Size(header)}
	var total int64
	for _, part := range payload {
		total += part.len()
	}
	if total > math.MaxUint32 {
		return fmt.Errorf("%w: payload of %d bytes", ErrTooLarge, total)
	}
	p.PayloadBytes = int(total)
	if err := p.check(w.lim); err != nil {
		return err
	}

	need := PrefixBytes + p.HeaderBytes
	if cap(w.arena)-len(w.arena) < need {
		w.arena = make([]byte, 0, max(arenaBytes, need)) // vecs keep the old one
	}
	start := len(w.arena)
	// The size computed above is cached in the message and taken from there.
	head, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(p.append(w.arena), header)
	if err != nil {
		return fmt.Errorf("%w: %s header: %w", ErrMalformed, kind, err)
	}
	w.arena = head
	w.pushBytes(head[start:])
	w.queued += int64(need)
	w.QueueRaw(payload...)
	return nil
}

// QueueRaw adds parts, which must stay unchanged until Flush returned, to what
// the next Flush writes, as they are: for another protocol than this package's.
func (w *Writer) QueueRaw(parts ...Part) {
	for _, part := range parts {
		switch {
		case part.Source != nil:
			w.steps = append(w.steps, step{end: len(w.vecs), source: part.Source})
		case len(part.Bytes) > 0:
			w.pushBytes(part.Bytes)
		}
		w.queued += part.len()
	}
}

// Magic adds the magic, which opens the stream.
func (w *Writer) Magic() {
	w.pushBytes([]byte(Magic))
	w.queued += MagicBytes
}

func (w *Writer) pushBytes(b []byte) { w.vecs = append(w.vecs, b) }

// Queued returns the number of bytes that the next Flush will write.
func (w *Writer) Queued() int64 { return w.queued }

// Flush writes all that is queued. When it returns, the Writer holds no
// reference to any payload.
func (w *Writer) Flush() error {
	if w.err == nil && w.queued > 0 {
		w.err = w.flush()
	}
	clear(w.vecs)
	clear(w.steps)
	w.vecs, w.steps, w.queued = w.vecs[:0], w.steps[:0], 0
	if cap(w.arena) > arenaBytes {
		w.arena = nil
	}
	w.arena = w.arena[:0]
	return w.err
}

func (w *Writer) flush() error {
	from := 0
	for _, s := range w.steps {
		if err := w.writeVecs(from, s.end); err != nil {
			return err
		}
		from = s.end
		want := s.source.Len()
		n, err := s.source.WriteTo(w.w)
		if err != nil {
			return err
		}
		if n != want {
			return fmt.Errorf("%w: %d, want %d", ErrShortPart, n, want)
		}
	}
	return w.writeVecs(from, len(w.vecs))
}

// writeVecs writes vecs[from:to]. A single vector is written plainly: writev
// has a price, and is emulated by one Write each on anything but a socket.
func (w *Writer) writeVecs(from, to int) error {
	switch to - from {
	case 0:
		return nil
	case 1:
		_, err := w.w.Write(w.vecs[from])
		return err
	}
	run := w.vecs[from:to] // consumed by WriteTo, while w.vecs keeps its backing
	_, err := run.WriteTo(w.w)
	return err
}
