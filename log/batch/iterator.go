package batch

import (
	"errors"
	"fmt"
)

var (
	errOrder    = errors.New("offset delta not above the one before it")
	errBeyond   = errors.New("offset delta above the batch's last")
	errOverflow = errors.New("timestamp beyond 64 bits")
)

// Iterator walks the records of one batch after another, and reuses its memory:
// a walk allocates nothing once the buffer, which holds the largest payload
// that was decompressed, has grown. The zero value is ready for Reset.
type Iterator struct {
	header Header
	rest   []byte // records not yet returned
	index  int32  // of the next record
	last   int64  // offset delta of the record before it; -1: none
	err    error
	buf    []byte
}

// Reset starts a walk over b, which must be exactly one batch, control batches
// and compacted ones included. Records alias b, or the Iterator's own buffer
// until the next Reset if the batch is compressed. A payload that decompresses
// to more than maxDecompressedBytes is ErrTooLarge; 0 means
// DefaultMaxDecompressedBytes.
//
// Reset does not look at the checksum. It returns ErrShort, ErrMagic,
// ErrCorrupt, ErrCodec, ErrInvalid or ErrTooLarge; then Next yields nothing,
// and Err the same error.
func (it *Iterator) Reset(b []byte, maxDecompressedBytes int) error {
	*it = Iterator{buf: it.buf, last: -1}
	it.header, it.err = parseOne(b)
	if it.err != nil {
		return it.err
	}
	if maxDecompressedBytes == 0 {
		maxDecompressedBytes = DefaultMaxDecompressedBytes
	}
	it.rest, it.err = it.header.payload(b, &it.buf, maxDecompressedBytes)
	if it.err == nil {
		it.err = it.header.checkCount(len(it.rest))
	}
	if it.err != nil {
		it.rest = nil
	}
	return it.err
}

// Header returns the header of the batch that Reset was given.
func (it *Iterator) Header() Header { return it.header }

// Next returns the next record, or false at the end of the batch or at an
// error, which Err then returns. The record's bytes are valid until Reset.
func (it *Iterator) Next() (Record, bool) {
	if it.err != nil || it.index == it.header.Records {
		return Record{}, false
	}
	var r Record
	rest, err := readRecord(it.rest, &r, noHeaderLimit)
	switch {
	case err != nil:
	case r.Offset <= it.last:
		err = errOrder
	case r.Offset > int64(it.header.LastOffsetDelta):
		err = errBeyond
	}
	ts, ok := addTimestamp(it.header.BaseTimestamp, r.Timestamp)
	if err == nil && !ok {
		err = errOverflow
	}
	if err != nil {
		it.err = invalidRecord(it.index, err)
		return Record{}, false
	}
	it.rest, it.last = rest, r.Offset
	it.index++
	if it.index == it.header.Records && len(rest) > 0 {
		// Found late, so that what the batch does hold was still returned.
		it.err = errTrailing(len(rest))
	}
	r.Offset += it.header.BaseOffset
	r.Timestamp = ts
	if it.header.Attributes.LogAppendTime() {
		r.Timestamp = it.header.MaxTimestamp
	}
	return r, true
}

// Err returns the error that ended the walk: nil if every record was returned.
func (it *Iterator) Err() error { return it.err }

// payload returns the records of b, decompressed into *buf where necessary.
func (h Header) payload(b []byte, buf *[]byte, maxBytes int) ([]byte, error) {
	p := b[HeaderBytes:]
	codec := h.Attributes.Codec()
	if codec == None || len(p) == 0 && h.Records == 0 {
		return p, nil
	}
	out, err := decompress((*buf)[:0], p, codec, maxBytes)
	if cap(out) > cap(*buf) {
		*buf = out[:0]
	}
	return out, err
}

// checkCount compares the number of records with what can be in the payload,
// so that a number that lies is found before anything relies on it.
func (h Header) checkCount(payloadBytes int) error {
	if h.Records < 0 || int64(h.Records)*minRecordBytes > int64(payloadBytes) {
		return fmt.Errorf("%w: %d records in %d bytes", ErrInvalid, h.Records, payloadBytes)
	}
	if h.Records == 0 && payloadBytes > 0 {
		return errTrailing(payloadBytes)
	}
	return nil
}

func errTrailing(bytes int) error {
	return fmt.Errorf("%w: %d bytes after the last record", ErrInvalid, bytes)
}
