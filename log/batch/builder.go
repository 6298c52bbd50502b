package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrEmpty reports a Build without records.
var ErrEmpty = errors.New("batch: no records")

// Builder gathers records and encodes them as a client's batch: base offset 0,
// leader epoch -1. The zero value is not ready: begin with Reset, which also
// begins the next batch and keeps the memory.
type Builder struct {
	b             []byte // an unfinished header, then the records, uncompressed
	producer      Producer
	transactional bool
	count         int32
	baseTimestamp int64 // of the first record
	maxTimestamp  int64
}

// Reset drops all records, and the producer with its transaction.
func (w *Builder) Reset() {
	*w = Builder{
		b:             append(w.b[:0], make([]byte, HeaderBytes)...),
		producer:      NoProducer,
		baseTimestamp: -1,
		maxTimestamp:  -1,
	}
}

// SetProducer sets the producer of the batch, and whether it is part of a
// transaction. If the sequence is known only later, see the function of the
// same name.
func (w *Builder) SetProducer(p Producer, transactional bool) {
	w.producer, w.transactional = p, transactional
}

// Append adds a record. A nil key or value is null, which is not the same as an
// empty one. It copies what it is given.
//
// It returns ErrTimestamp for one below -1 (-1: none), and ErrTooLarge if the
// batch would take more bytes than the format can say; then nothing is added.
func (w *Builder) Append(timestampMS int64, key, value []byte, headers []RecordHeader) error {
	if timestampMS < -1 {
		return fmt.Errorf("%w: %d", ErrTimestamp, timestampMS)
	}
	body := w.recordBytes(timestampMS, key, value, headers)
	if int64(len(w.b))+int64(varintBytes(int64(body))+body) > math.MaxInt32 {
		return fmt.Errorf("%w: a record of %d bytes after %d", ErrTooLarge, body, len(w.b))
	}
	if w.count == 0 {
		w.baseTimestamp = timestampMS
	}
	b := appendVarint(w.b, int64(body))
	b = append(b, 0) // attributes
	b = appendVarint(b, timestampMS-w.baseTimestamp)
	b = appendVarint(b, int64(w.count))
	b = appendLengthAndBytes(b, key)
	b = appendLengthAndBytes(b, value)
	b = appendVarint(b, int64(len(headers)))
	for _, h := range headers {
		b = appendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendLengthAndBytes(b, h.Value)
	}
	w.b = b
	w.count++
	w.maxTimestamp = max(w.maxTimestamp, timestampMS)
	return nil
}

// Len returns the number of records.
func (w *Builder) Len() int { return int(w.count) }

// Size returns the size of the batch in bytes, were it built uncompressed.
func (w *Builder) Size() int { return len(w.b) }

// SizeWith returns what Size would be after an Append of the same record.
func (w *Builder) SizeWith(timestampMS int64, key, value []byte, headers []RecordHeader) int {
	body := w.recordBytes(timestampMS, key, value, headers)
	return len(w.b) + varintBytes(int64(body)) + body
}

// recordBytes returns the size of a record without its length.
func (w *Builder) recordBytes(timestampMS int64, key, value []byte, headers []RecordHeader) int {
	var delta int64
	if w.count > 0 {
		delta = timestampMS - w.baseTimestamp
	}
	n := 1 + varintBytes(delta) + varintBytes(int64(w.count)) +
		lengthAndBytesBytes(key) + lengthAndBytesBytes(value) + varintBytes(int64(len(headers)))
	for _, h := range headers {
		n += varintBytes(int64(len(h.Key))) + len(h.Key) + lengthAndBytesBytes(h.Value)
	}
	return n
}

// Build appends the batch to dst, compressed by codec, and returns the longer
// slice. The Builder keeps its records. level is the codec's own, and
// DefaultLevel suits most; None and Snappy have none and ignore it.
//
// It returns ErrEmpty without records, ErrCodec for a codec that is none of
// the five, and ErrLevel.
func (w *Builder) Build(dst []byte, codec Codec, level int) ([]byte, error) {
	if w.count == 0 {
		return dst, ErrEmpty
	}
	start := len(dst)
	dst = append(dst, w.b[:HeaderBytes]...)
	dst, err := compress(dst, w.b[HeaderBytes:], codec, level)
	if err != nil {
		return dst[:start], err
	}
	attrs := Attributes(codec)
	if w.transactional {
		attrs |= transactionalBit
	}
	b, be := dst[start:], binary.BigEndian
	PutPrefix(b, 0, int32(len(b)-lengthEnd), -1)
	b[16] = Magic
	be.PutUint16(b[attrsAt:], uint16(attrs))
	be.PutUint32(b[deltaAt:], uint32(w.count-1))
	be.PutUint64(b[baseTimeAt:], uint64(w.baseTimestamp))
	be.PutUint64(b[maxTimeAt:], uint64(w.maxTimestamp))
	putProducer(b, w.producer)
	be.PutUint32(b[countAt:], uint32(w.count))
	putCRC(b)
	return dst, nil
}

// Recompress appends to dst the batch b, which must have passed Validate or
// CheckCRC, with its payload compressed by another codec. Nothing else changes.
// It has to be done before the batch is proposed (R1).
//
// The payload goes from the one codec to the other piece by piece: beside dst,
// which has no more than lim.MaxBatchBytes added to it, Recompress takes from
// lim.Room what Validate does, and what the new codec needs: at most 40 MiB, for
// the highest levels of Zstd, and 4 MiB for others.
//
// A payload above lim.MaxDecompressedBytes is ErrTooLarge, and so is a result
// above lim.MaxBatchBytes. Other errors are ErrNoRoom, and as in
// Iterator.Reset and Build. After an error dst is as it was.
func Recompress(dst, b []byte, codec Codec, level int, lim Limits) ([]byte, error) {
	lim.setDefaults()
	h, err := parseOne(b)
	if err != nil {
		return dst, err
	}
	src, from := b[HeaderBytes:], h.Attributes.Codec()
	if h.Records == 0 && len(src) == 0 {
		from = None
	}
	var u unfolder
	if err := u.open(src, from, lim.MaxDecompressedBytes, lim.Room, packerBytes(codec, level)); err != nil {
		return dst, err
	}
	defer u.close()
	start := len(dst)
	out, err := pack(append(dst, b[:HeaderBytes]...), &u, codec, level, start+lim.MaxBatchBytes)
	if err != nil {
		return dst, err
	}
	rebuilt := out[start:]
	binary.BigEndian.PutUint16(rebuilt[attrsAt:], uint16(h.Attributes&^codecMask|Attributes(codec)))
	putLength(rebuilt)
	putCRC(rebuilt)
	return out, nil
}
