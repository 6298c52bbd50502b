package batch

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
)

// minRecordBytes is the size of a record with nothing in it: length,
// attributes, two deltas, two lengths and the number of headers.
const minRecordBytes = 7

// What can be wrong with a record. Each is wrapped in ErrInvalid, with the
// record's index.
var (
	errRecordLength   = errors.New("length beyond the batch, or negative")
	errRecordBytes    = errors.New("contents do not fill its length")
	errTimestampDelta = errors.New("timestamp delta is no varint")
	errOffsetDelta    = errors.New("offset delta is no varint")
	errKeyLength      = errors.New("key length beyond the record")
	errValueLength    = errors.New("value length beyond the record")
	errHeaderCount    = errors.New("header count beyond the record or its limit")
	errHeaderKey      = errors.New("header key length beyond the record, or null")
	errHeaderValue    = errors.New("header value length beyond the record")
)

// Record is one record of a batch. Its bytes alias the batch, or the buffer of
// the Iterator that returned it.
type Record struct {
	Offset    int64
	Timestamp int64  // ms; -1: none
	Key       []byte // nil: null, which is not the same as empty
	Value     []byte // nil: null, a tombstone in a compacted topic
	Headers   Headers
}

// RecordHeader is a name and value beside a record.
type RecordHeader struct {
	Key   []byte // never null
	Value []byte // nil: null
}

// Headers are a record's headers, in order, still encoded.
type Headers struct {
	b     []byte // checked by readRecord
	count int
}

// Len returns the number of headers.
func (h Headers) Len() int { return h.count }

// All yields the headers. Their bytes alias the record's.
func (h Headers) All() iter.Seq[RecordHeader] {
	return func(yield func(RecordHeader) bool) {
		b := h.b
		for range h.count {
			var rh RecordHeader
			var ok bool
			if rh.Key, b, ok = lengthAndBytes(b); !ok {
				panic("batch: headers changed after they were checked")
			}
			if rh.Value, b, ok = lengthAndBytes(b); !ok {
				panic("batch: headers changed after they were checked")
			}
			if !yield(rh) {
				return
			}
		}
	}
}

// readRecord takes one record off b into r, with offset and timestamp as deltas
// still, and returns the bytes behind it. Once it succeeds, every length inside
// the record has been checked, those of the headers included.
func readRecord(b []byte, r *Record, maxHeaders int) (rest []byte, err error) {
	size, n := varint32(b)
	if n == 0 || size < minRecordBytes-1 || int(size) > len(b)-n {
		return nil, errRecordLength
	}
	b, rest = b[n:n+int(size)], b[n+int(size):]

	b = b[1:] // attributes: none are defined, and any are ignored
	if r.Timestamp, n = varint64(b); n == 0 {
		return nil, errTimestampDelta
	}
	b = b[n:]
	delta, n := varint32(b)
	if n == 0 {
		return nil, errOffsetDelta
	}
	r.Offset, b = int64(delta), b[n:]

	var ok bool
	if r.Key, b, ok = lengthAndBytes(b); !ok {
		return nil, errKeyLength
	}
	if r.Value, b, ok = lengthAndBytes(b); !ok {
		return nil, errValueLength
	}
	count, n := varint32(b)
	if n == 0 || count < 0 || int(count) > maxHeaders || int(count) > (len(b)-n)/2 {
		return nil, errHeaderCount
	}
	b = b[n:]
	r.Headers = Headers{b: b, count: int(count)}
	if b, err = skipHeaders(b, int(count)); err != nil {
		return nil, err
	}
	if len(b) != 0 {
		return nil, errRecordBytes
	}
	return rest, nil
}

func skipHeaders(b []byte, count int) (rest []byte, err error) {
	for range count {
		key, b1, ok := lengthAndBytes(b)
		if !ok || key == nil {
			return nil, errHeaderKey
		}
		if _, b, ok = lengthAndBytes(b1); !ok {
			return nil, errHeaderValue
		}
	}
	return b, nil
}

// lengthAndBytes takes a length and as many bytes off b. Length -1 gives nil,
// and length 0 an empty slice.
func lengthAndBytes(b []byte) (v, rest []byte, ok bool) {
	size, n := varint32(b)
	if n == 0 || size < -1 || int(size) > len(b)-n {
		return nil, nil, false
	}
	if size < 0 {
		return nil, b[n:], true
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

// varint32 decodes a zig-zag varint and says how many bytes it took: none if b
// is cut off, or the number above five bytes or 32 bits. As in Kafka, a number
// may take more bytes than it needs.
func varint32(b []byte) (int32, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return int32(b[0]>>1) ^ -int32(b[0]&1), 1
	}
	var u uint32
	for i, c := range b {
		if i == 4 && c > 0x0f {
			break
		}
		u |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			return int32(u>>1) ^ -int32(u&1), i + 1
		}
	}
	return 0, 0
}

// varint64 is varint32 for ten bytes and 64 bits.
func varint64(b []byte) (int64, int) {
	var u uint64
	for i, c := range b {
		if i == 9 && c > 0x01 {
			break
		}
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), i + 1
		}
	}
	return 0, 0
}

func appendVarint(b []byte, v int64) []byte {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

func varintBytes(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

func appendLengthAndBytes(b, v []byte) []byte {
	if v == nil {
		return appendVarint(b, -1)
	}
	return append(appendVarint(b, int64(len(v))), v...)
}

func lengthAndBytesBytes(v []byte) int {
	if v == nil {
		return 1
	}
	return varintBytes(int64(len(v))) + len(v)
}

// addTimestamp returns base + delta, if that is an int64.
func addTimestamp(base, delta int64) (int64, bool) {
	sum := base + delta
	return sum, (sum > base) == (delta > 0)
}

// invalidRecord says which record of a batch is malformed.
func invalidRecord(index int32, cause error) error {
	return fmt.Errorf("%w: record %d: %w", ErrInvalid, index, cause)
}

// noHeaderLimit leaves the number of headers to the size of their record.
const noHeaderLimit = math.MaxInt32
