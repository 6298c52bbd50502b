package batch

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

const (
	// DefaultMaxBatchBytes is Kafka's message.max.bytes.
	DefaultMaxBatchBytes = 1<<20 + 12

	// DefaultMaxDecompressedBytes bounds what one payload may decompress to.
	DefaultMaxDecompressedBytes = 32 << 20

	// DefaultMaxHeaders bounds the headers of one record.
	DefaultMaxHeaders = 10_000

	// MaxRecordErrors bounds the records that RecordErrors names.
	MaxRecordErrors = 100
)

// Limits say what Validate lets pass. A zero number means its default, or, for
// those without one, no limit.
type Limits struct {
	MaxBatchBytes        int // of the batch as it came; default DefaultMaxBatchBytes
	MaxDecompressedBytes int // of its records; default DefaultMaxDecompressedBytes
	MaxHeaders           int // of one record; default DefaultMaxHeaders
	MaxRecords           int

	// MinTimestamp and MaxTimestamp bound the records' timestamps, in ms, both
	// included. A record without a timestamp (-1) always passes.
	MinTimestamp, MaxTimestamp int64

	RequireKeys   bool // the topic is compacted
	LogAppendTime bool // the topic keeps the leader's time: a client's batch may not say that it does

	// Room is what decompressing takes its memory from; nil: it is not counted.
	Room Room
}

// Summary is what Validate found out about a batch.
type Summary struct {
	Header

	// LatestTimestamp is the greatest of the records' timestamps. If the
	// header's MaxTimestamp differs, or the log append time bit is set, the broker
	// overwrites both (SetCreateTime), as Kafka's does; clients are known that fill
	// the former wrongly.
	LatestTimestamp int64

	// RecordBytes is the size of the records, decompressed.
	RecordBytes int
}

// RecordError says what is wrong with one record of a batch.
type RecordError struct {
	Index int32 // counted from 0, in the batch
	Err   error
}

func (e RecordError) Error() string { return fmt.Sprintf("record %d: %v", e.Index, e.Err) }

// Unwrap returns the cause.
func (e RecordError) Unwrap() error { return e.Err }

// RecordErrors are the records for which an otherwise intact batch is refused,
// in order, at most MaxRecordErrors. Every cause is visible to errors.Is. If
// both ErrTimestamp and ErrNoKey are among them, Kafka answers for the former.
type RecordErrors []RecordError

func (e RecordErrors) Error() string {
	var sb strings.Builder
	sb.WriteString("batch: refused")
	for i, re := range e {
		if i == 3 {
			fmt.Fprintf(&sb, "; and %d more", len(e)-i)
			break
		}
		fmt.Fprintf(&sb, "; %v", re)
	}
	return sb.String()
}

// Unwrap returns the errors, each a RecordError.
func (e RecordErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, re := range e {
		errs[i] = re
	}
	return errs
}

var errOffset = errors.New("offset delta is not the record's index")

// Validate decides whether b, which came from a client, may be appended. Base
// offset and leader epoch are ignored; everything else must be as the format
// and lim demand, down to the last header of the last record, so that every
// consumer can read what was let in.
//
// b must be exactly one batch. Its records must have the offset deltas 0, 1, 2
// and so on. Bits 5 (control) and above 5 of the attributes must be clear.
// Producer id, epoch and sequence must all be at least 0, or the id -1; then the
// other two are not looked at, as clients send anything there. A transactional
// batch needs a producer id. Timestamps must be -1 or more. With bit 3 (log append
// time) set, which Kafka's validator lets clients do, the header's MaxTimestamp
// must be there and within lim too; the broker clears the bit (SetCreateTime).
//
// It returns ErrShort, ErrCorrupt, ErrMagic, ErrCodec, ErrTooLarge, ErrControl,
// ErrTimestamp, ErrInvalid, or RecordErrors (find it with errors.As) if single
// records are to blame; those match ErrInvalid, ErrTimestamp or ErrNoKey too.
//
// A compressed payload is decompressed piece by piece, and no piece is kept:
// whatever it unfolds to, Validate takes no more memory than a window of the
// codec, at most MaxWindowBytes and 640 KiB, which it takes from lim.Room, or
// returns ErrNoRoom. What needs more is ErrTooLarge. The memory is pooled: it
// allocates nothing for a batch that passes.
func Validate(b []byte, lim Limits) (Summary, error) {
	lim.setDefaults()
	if len(b) > lim.MaxBatchBytes {
		return Summary{}, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(b), lim.MaxBatchBytes)
	}
	h, err := parseOne(b)
	if err != nil {
		return Summary{}, err
	}
	if err := h.checkCRC(b); err != nil {
		return Summary{}, err
	}
	if err := h.checkForeign(lim); err != nil {
		return Summary{}, err
	}
	var r recordReader
	if err := r.open(b[HeaderBytes:], h.Attributes.Codec(), lim.MaxDecompressedBytes, lim.Room, 0); err != nil {
		return Summary{}, err
	}
	defer r.close()
	latest, err := h.checkRecords(&r, lim)
	if err != nil {
		return Summary{}, err
	}
	return Summary{Header: h, LatestTimestamp: latest, RecordBytes: r.total}, nil
}

func (l *Limits) setDefaults() {
	if l.MaxBatchBytes == 0 {
		l.MaxBatchBytes = DefaultMaxBatchBytes
	}
	if l.MaxDecompressedBytes == 0 {
		l.MaxDecompressedBytes = DefaultMaxDecompressedBytes
	}
	if l.MaxHeaders == 0 {
		l.MaxHeaders = DefaultMaxHeaders
	}
	if l.MaxRecords == 0 {
		l.MaxRecords = math.MaxInt32
	}
	if l.MaxTimestamp == 0 {
		l.MaxTimestamp = math.MaxInt64
	}
}

// checkForeign checks the header of a client's batch.
func (h Header) checkForeign(lim Limits) error {
	a := h.Attributes
	switch {
	case a.Control():
		return ErrControl
	case a&(reservedAttribute|deleteHorizonBit) != 0:
		return fmt.Errorf("%w: attributes %#04x", ErrInvalid, uint16(a))
	case !a.Codec().valid():
		return fmt.Errorf("%w: %d", ErrCodec, a.Codec())
	case h.Records <= 0:
		return fmt.Errorf("%w: %d records", ErrInvalid, h.Records)
	case h.LastOffsetDelta != h.Records-1:
		return fmt.Errorf("%w: last offset delta %d of %d records", ErrInvalid, h.LastOffsetDelta, h.Records)
	case int(h.Records) > lim.MaxRecords:
		return fmt.Errorf("%w: %d records, limit %d", ErrTooLarge, h.Records, lim.MaxRecords)
	case h.ID < -1 || h.ID >= 0 && (h.Epoch < 0 || h.Sequence < 0):
		return fmt.Errorf("%w: producer id %d, epoch %d, sequence %d", ErrInvalid, h.ID, h.Epoch, h.Sequence)
	case a.Transactional() && !h.Idempotent():
		return fmt.Errorf("%w: transactional without a producer id", ErrInvalid)
	}
	return nil
}

// checkRecords checks the records of a client's batch, and returns the latest
// timestamp. A malformed record ends it; refused ones are collected.
func (h Header) checkRecords(r *recordReader, lim Limits) (latest int64, err error) {
	var refused RecordErrors
	latest = -1
	for i := range h.Records {
		var rec Record
		err := r.read(&rec, lim.MaxHeaders)
		ts, ok := addTimestamp(h.BaseTimestamp, rec.Timestamp)
		switch {
		case err != nil:
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		case rec.Offset != int64(i):
			err = fmt.Errorf("%w: %w: %d", ErrInvalid, errOffset, rec.Offset)
		case !ok:
			err = fmt.Errorf("%w: %w", ErrInvalid, errOverflow)
		}
		if err != nil {
			return 0, h.malformed(r, RecordErrors{{i, err}})
		}
		latest = max(latest, ts)
		if len(refused) < MaxRecordErrors {
			if err := lim.refuse(&h, &rec, ts); err != nil {
				refused = append(refused, RecordError{i, err})
			}
		}
	}
	switch trailing, err := r.settle(); {
	case err != nil:
		return 0, err
	case trailing > 0:
		return 0, errTrailing(trailing)
	case refused != nil:
		return 0, refused
	}
	return latest, nil
}

// malformed is the error of a batch with a malformed record: what is wrong with
// the payload as a whole comes first.
func (h Header) malformed(r *recordReader, record error) error {
	if _, err := r.settle(); err != nil {
		return err
	}
	if err := h.checkCount(r.total); err != nil {
		return err
	}
	return record
}

// refuse says why a well-formed record may not be appended, if so.
func (l *Limits) refuse(h *Header, r *Record, timestampMS int64) error {
	appended := h.Attributes.LogAppendTime()
	switch {
	case appended && (l.LogAppendTime || h.MaxTimestamp == -1):
		return fmt.Errorf("%w: log append time is the broker's to set", ErrTimestamp)
	case l.outside(timestampMS):
		return l.errOutside(timestampMS)
	case appended && l.outside(h.MaxTimestamp):
		return l.errOutside(h.MaxTimestamp)
	case l.RequireKeys && r.Key == nil:
		return ErrNoKey
	}
	return nil
}

// outside reports whether there is a timestamp, and one out of bounds.
func (l *Limits) outside(timestampMS int64) bool {
	return timestampMS != -1 && (timestampMS < max(0, l.MinTimestamp) || timestampMS > l.MaxTimestamp)
}

func (l *Limits) errOutside(timestampMS int64) error {
	return fmt.Errorf("%w: %d outside %d to %d", ErrTimestamp, timestampMS, max(0, l.MinTimestamp), l.MaxTimestamp)
}
