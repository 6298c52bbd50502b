// Package section frames a checkpoint as a list of checked, versioned sections,
// so that an older build can tell what it may skip from what it must refuse.
//
// A list is sections one after another, closed by an end section. Each section
// (little-endian, offsets in bytes):
//
//	0        4      6         8       9          12       16
//	+--------+------+---------+-------+----------+--------+--------- - -
//	| crc32c | kind | version | flags | reserved | length | payload
//	+--------+------+---------+-------+----------+--------+--------- - -
//
// crc32c (Castagnoli) covers every byte from offset 4 to the end of the
// payload. Bit 0 of flags marks a section as mandatory; the other bits and
// reserved are zero. The end section has kind 0xffff and a payload of 4 bytes:
// the number of sections before it. Without it a list that was cut between two
// sections could pass for a shorter one.
//
// Several lists may follow each other in one stream, such as a base and the
// deltas on top of it.
package section

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// HeaderBytes is the size of a section's header.
	HeaderBytes = 16

	// MaxPayloadBytes bounds the payload of one section. Writers split what is
	// longer over several sections of the same kind.
	MaxPayloadBytes = 64 << 20

	flagMandatory = 1
	endBytes      = 4
)

// Kind says what a section holds. Its meaning belongs to whoever writes the
// list; zero is never written, and the highest value ends a list.
type Kind uint16

const kindEnd Kind = 0xffff

var (
	// ErrDamaged reports bytes that are not a section list as written: cut off
	// or changed.
	ErrDamaged = errors.New("section: damaged")

	// ErrTooLarge reports a payload above MaxPayloadBytes handed to a Writer.
	ErrTooLarge = errors.New("section: payload too large")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Section is one section of a list.
type Section struct {
	Kind      Kind
	Version   uint16
	Mandatory bool   // a reader that does not know Kind and Version must stop
	Payload   []byte // at most MaxPayloadBytes
}

// Writer writes one list. The first error is final: later calls return it.
// Not safe for concurrent use.
type Writer struct {
	dst   io.Writer
	count uint32
	err   error
}

// NewWriter returns a Writer that starts a list on dst. It does not buffer.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// Write writes s. It panics if s.Kind is zero or the end's, which is a bug in
// the caller, and returns ErrTooLarge for a payload above MaxPayloadBytes.
func (w *Writer) Write(s Section) error {
	if s.Kind == 0 || s.Kind == kindEnd {
		panic(fmt.Sprintf("section: kind %d is reserved", s.Kind))
	}
	if err := w.write(s); err != nil {
		return err
	}
	w.count++
	return nil
}

// Close ends the list. It does not close the io.Writer underneath.
func (w *Writer) Close() error {
	end := binary.LittleEndian.AppendUint32(nil, w.count)
	return w.write(Section{Kind: kindEnd, Mandatory: true, Payload: end})
}

func (w *Writer) write(s Section) error {
	if w.err != nil {
		return w.err
	}
	if len(s.Payload) > MaxPayloadBytes {
		return fmt.Errorf("%w: kind %d, %d bytes, limit %d", ErrTooLarge, s.Kind, len(s.Payload), MaxPayloadBytes)
	}
	var h [HeaderBytes]byte
	binary.LittleEndian.PutUint16(h[4:], uint16(s.Kind))
	binary.LittleEndian.PutUint16(h[6:], s.Version)
	if s.Mandatory {
		h[8] = flagMandatory
	}
	binary.LittleEndian.PutUint32(h[12:], uint32(len(s.Payload)))
	crc := crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, s.Payload)
	binary.LittleEndian.PutUint32(h[:], crc)
	if _, err := w.dst.Write(h[:]); err != nil {
		w.err = err
		return err
	}
	if _, err := w.dst.Write(s.Payload); err != nil {
		w.err = err
	}
	return w.err
}

// Reader reads the lists of a stream. Not safe for concurrent use.
type Reader struct {
	src   io.Reader
	buf   bytes.Buffer
	count uint32 // sections read of the current list
	at    int64  // stream offset of the next section
	first []byte // the byte that More took of the next header, or empty
}

// NewReader returns a Reader over src. It reads no further than the sections
// that it returns.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// At returns the offset in the stream, in bytes, of the section that the next
// call of Next reads.
func (r *Reader) At() int64 { return r.at }

// Next returns the next section of the current list, io.EOF at its end, or an
// error that matches ErrDamaged; a failed read of the stream is returned as it
// is. After io.EOF, Next goes on with the next list: see More.
//
// The payload stays valid until the next call. Memory grows with the bytes that
// arrive, never with a length that a header merely claims.
func (r *Reader) Next() (Section, error) {
	var h [HeaderBytes]byte
	n := copy(h[:], r.first)
	r.first = nil
	if _, err := io.ReadFull(r.src, h[n:]); err != nil {
		return Section{}, r.short(err)
	}
	return r.body(h)
}

// More reports whether another list follows. Call it only at the start of a
// list: first of all, or after Next returned io.EOF.
func (r *Reader) More() (bool, error) {
	b := make([]byte, 1)
	switch _, err := io.ReadFull(r.src, b); err {
	case nil:
		r.first = b
		return true, nil
	case io.EOF:
		return false, nil
	default:
		return false, err
	}
}

func (r *Reader) body(h [HeaderBytes]byte) (Section, error) {
	s := Section{
		Kind:      Kind(binary.LittleEndian.Uint16(h[4:])),
		Version:   binary.LittleEndian.Uint16(h[6:]),
		Mandatory: h[8] == flagMandatory,
	}
	length := binary.LittleEndian.Uint32(h[12:])
	if length > MaxPayloadBytes {
		return Section{}, r.damaged("kind %d claims %d bytes, limit %d", s.Kind, length, MaxPayloadBytes)
	}
	r.buf.Reset()
	if _, err := io.CopyN(&r.buf, r.src, int64(length)); err != nil {
		return Section{}, r.short(err)
	}
	s.Payload = r.buf.Bytes()
	got := crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, s.Payload)
	if want := binary.LittleEndian.Uint32(h[:]); got != want {
		return Section{}, r.damaged("kind %d: crc32c %08x, want %08x", s.Kind, got, want)
	}
	if h[8]&^flagMandatory != 0 || h[9]|h[10]|h[11] != 0 || s.Kind == 0 {
		return Section{}, r.damaged("kind %d, flags and reserved bytes %x", s.Kind, h[8:12])
	}
	if s.Kind == kindEnd {
		return Section{}, r.end(s)
	}
	r.at += HeaderBytes + int64(length)
	r.count++
	return s, nil
}

func (r *Reader) end(s Section) error {
	if !s.Mandatory || s.Version != 0 || len(s.Payload) != endBytes {
		return r.damaged("end section of version %d with %d bytes", s.Version, len(s.Payload))
	}
	if n := binary.LittleEndian.Uint32(s.Payload); n != r.count {
		return r.damaged("list ends after %d sections, %d were written", r.count, n)
	}
	r.at += HeaderBytes + endBytes
	r.count = 0
	return io.EOF
}

// short turns the end of the stream inside a list into damage.
func (r *Reader) short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.damaged("the list is cut off")
	}
	return err
}

func (r *Reader) damaged(format string, args ...any) error {
	return fmt.Errorf("%w: at %d: %s", ErrDamaged, r.at, fmt.Sprintf(format, args...))
}
