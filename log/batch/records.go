package batch

import (
	"errors"
	"io"
	"math"
)

// recordReader takes records off an unfolder, piece by piece: how large they are
// does not matter, as it keeps no record that lies in more than one piece.
type recordReader struct {
	unfolder
	b    []byte // of the piece at hand, not yet read
	left int    // bytes of the record at hand, not yet read
	num  [10]byte
}

// noBytes is the key, or the value, of a record that was not kept.
var noBytes = []byte{}

// at returns how many bytes were read.
func (r *recordReader) at() int { return r.total - len(r.b) }

// read takes the next record, with offset and timestamp as deltas still. Of one
// that lies in more than one piece, it says only whether there are key and value.
// The error is that of readRecord, also for a payload that is damaged: see settle.
func (r *recordReader) read(rec *Record, maxHeaders int) error {
	if len(r.b) == 0 && !r.fill() {
		return errRecordLength
	}
	rest, err := readRecord(r.b, rec, maxHeaders)
	switch {
	case err == nil:
		r.b = rest
	case errors.Is(err, errRecordLength):
		return r.readLong(rec, maxHeaders)
	}
	return err
}

// settle is called after an error of read, or after the last record. It reads
// what is left of the payload, and returns the payload's error, if it has one: it
// comes before that of any record.
func (r *recordReader) settle() (trailing int, err error) {
	at := r.at()
	r.b = nil
	if err := r.drain(); err != nil {
		return 0, err
	}
	return r.total - at, nil
}

// fill goes on with the next piece. It returns false at the end of the payload,
// or of what is intact of it.
func (r *recordReader) fill() bool {
	for {
		var err error
		if r.b, err = r.next(); err != nil {
			return false
		}
		if len(r.b) > 0 {
			return true
		}
	}
}

// readLong is read for a record that the piece at hand has not all of.
func (r *recordReader) readLong(rec *Record, maxHeaders int) error {
	r.left = math.MaxInt
	size, ok := r.int32()
	if !ok || size < minRecordBytes-1 {
		return errRecordLength
	}
	end := r.at() + int(size)
	r.left = int(size)
	err := r.readBody(rec, maxHeaders)
	if err == nil {
		return nil
	}
	if missing := end - r.at(); missing > 0 { // it may reach beyond the payload: that comes first
		r.left = missing
		if !r.skip(missing) {
			return errRecordLength
		}
	}
	return err
}

// readBody reads a record behind its length, which is in r.left.
func (r *recordReader) readBody(rec *Record, maxHeaders int) error {
	if !r.skip(1) { // attributes
		return errRecordLength
	}
	var n int
	if rec.Timestamp, n = varint64(r.varint(10)); n == 0 {
		return errTimestampDelta
	}
	delta, ok := r.int32()
	if !ok {
		return errOffsetDelta
	}
	rec.Offset = int64(delta)
	if rec.Key, ok = r.bytes(); !ok {
		return errKeyLength
	}
	if rec.Value, ok = r.bytes(); !ok {
		return errValueLength
	}
	count, ok := r.int32()
	if !ok || count < 0 || int(count) > maxHeaders || int(count) > r.left/2 {
		return errHeaderCount
	}
	rec.Headers = Headers{}
	for range count {
		if key, ok := r.bytes(); !ok || key == nil {
			return errHeaderKey
		}
		if _, ok := r.bytes(); !ok {
			return errHeaderValue
		}
	}
	if r.left != 0 {
		return errRecordBytes
	}
	return nil
}

// bytes passes over a length and as many bytes: nil is null.
func (r *recordReader) bytes() ([]byte, bool) {
	size, ok := r.int32()
	switch {
	case !ok || size < -1 || int(size) > r.left:
		return nil, false
	case size < 0:
		return nil, true
	}
	return noBytes, r.skip(int(size))
}

// int32 reads a varint of 32 bits.
func (r *recordReader) int32() (int32, bool) {
	v, n := varint32(r.varint(5))
	return v, n > 0
}

// varint returns the bytes of a varint: those up to the first that ends one, at
// most n.
func (r *recordReader) varint(n int) []byte {
	num := r.num[:0]
	for range min(n, r.left) {
		if len(r.b) == 0 && !r.fill() {
			break
		}
		c := r.b[0]
		r.b = r.b[1:]
		r.left--
		if num = append(num, c); c < 0x80 {
			break
		}
	}
	return num
}

// skip passes over n bytes, which the record has.
func (r *recordReader) skip(n int) bool {
	r.left -= n
	for n > len(r.b) {
		n -= len(r.b)
		if !r.fill() {
			return false
		}
	}
	r.b = r.b[n:]
	return true
}

// Stamps calls yield with the offset and the timestamp, in ms, of each record of
// b, in order, until that returns false. b is as for Iterator.Reset, and is
// decompressed piece by piece: whatever it unfolds to, Stamps takes the memory
// that Validate does. Of lim it looks at MaxDecompressedBytes and Room.
//
// Errors are ErrNoRoom and those of Iterator.Reset and Next.
func Stamps(b []byte, lim Limits, yield func(offset, timestampMS int64) bool) error {
	lim.setDefaults()
	h, err := parseOne(b)
	if err != nil {
		return err
	}
	if h.Records == 0 && len(b) == HeaderBytes {
		return nil
	}
	var r recordReader
	if err := r.open(b[HeaderBytes:], h.Attributes.Codec(), lim.MaxDecompressedBytes, lim.Room, 0); err != nil {
		return err
	}
	defer r.close()
	last := int64(-1)
	for i := range h.Records {
		var rec Record
		err := r.read(&rec, noHeaderLimit)
		ts, ok := addTimestamp(h.BaseTimestamp, rec.Timestamp)
		switch {
		case err != nil:
		case rec.Offset <= last:
			err = errOrder
		case rec.Offset > int64(h.LastOffsetDelta):
			err = errBeyond
		case !ok:
			err = errOverflow
		}
		if err != nil {
			if r.err != nil && !errors.Is(r.err, io.EOF) {
				return r.err
			}
			return invalidRecord(i, err)
		}
		last = rec.Offset
		if h.Attributes.LogAppendTime() {
			ts = h.MaxTimestamp
		}
		if !yield(h.BaseOffset+rec.Offset, ts) {
			return nil
		}
	}
	trailing, err := r.settle()
	if err == nil && trailing > 0 {
		err = errTrailing(trailing)
	}
	return err
}
