// Package batch reads, checks and writes Kafka's record batches, format 2: the
// one form in which records travel, are replicated and are stored.
//
// Layout of a batch (big-endian, offsets in bytes):
//
//	0             8        12             16      17      21
//	+-------------+--------+--------------+-------+-------+----- - -
//	| base offset | length | leader epoch | magic | crc   | body
//	+-------------+--------+--------------+-------+-------+----- - -
//	|<---------------- prefix ----------->|
//
//	21           23                  27               35
//	+------------+-------------------+----------------+--------------- - -
//	| attributes | last offset delta | base timestamp | max timestamp
//	+------------+-------------------+----------------+--------------- - -
//	43            51               53              57        61
//	+-------------+----------------+---------------+---------+------- - -
//	| producer id | producer epoch | base sequence | records | payload
//	+-------------+----------------+---------------+---------+------- - -
//
// length counts the bytes after itself, so a batch takes 12 + length bytes.
// crc is CRC32C over everything from attributes on: the prefix is outside, and
// may be given anew to every reader (R1). payload is the records, compressed as
// a whole by the codec named in the attributes:
//
//	+--------+------------+-----------------+--------------+
//	| length | attributes | timestamp delta | offset delta |
//	+--------+------------+-----------------+--------------+
//	+------------+-----+--------------+-------+---------+---------+- - -
//	| key length | key | value length | value | headers | header  |
//	+------------+-----+--------------+-------+---------+---------+- - -
//
// Numbers in a record are zig-zag varints, except its attributes, one byte that
// no version uses. Key and value may be null (length -1). A header is a key,
// never null, and a value, which may be.
//
// Validate judges bytes that come from outside; nothing else in the package
// needs to have seen it first: whatever the bytes, each function returns or
// reports an error, and never panics or takes memory beyond its stated bound.
// Only PutPrefix and the Set functions are for whole batches and panic on less.
// All functions are safe for concurrent use, as long as nobody changes the
// bytes meanwhile. An Iterator or a Builder belongs to one goroutine.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

const (
	// HeaderBytes is the size of a batch before its payload.
	HeaderBytes = 61

	// PrefixBytes is the size of the part that readers see rewritten: base
	// offset, length and leader epoch.
	PrefixBytes = 16

	// Magic is the only format that this package reads or writes.
	Magic = 2
)

const (
	lengthEnd  = 12 // length counts from here
	crcAt      = 17
	bodyAt     = 21 // crc covers from here
	attrsAt    = bodyAt
	deltaAt    = 23
	baseTimeAt = 27
	maxTimeAt  = 35
	producerAt = 43
	countAt    = 57
)

var (
	// ErrShort reports bytes that end before the batch does: the last batch of
	// a fetch answer, or a write that was cut off.
	ErrShort = errors.New("batch: incomplete")

	// ErrCorrupt reports bytes that are no batch as it was written: an
	// impossible length, a wrong checksum, a payload that does not decompress.
	ErrCorrupt = errors.New("batch: corrupt")

	// ErrMagic reports a batch of another format.
	ErrMagic = errors.New("batch: unsupported magic")

	// ErrCodec reports a compression that is not one of Kafka's five.
	ErrCodec = errors.New("batch: unknown codec")

	// ErrTooLarge reports a batch, or what it decompresses to, above a limit.
	ErrTooLarge = errors.New("batch: too large")

	// ErrInvalid reports an intact batch with impossible contents: counts that
	// disagree, offsets out of order, lengths beyond their record.
	ErrInvalid = errors.New("batch: invalid")

	// ErrControl reports a control batch where only the broker may write one.
	ErrControl = errors.New("batch: control batch from a client")

	// ErrTimestamp reports a timestamp that may not be stored.
	ErrTimestamp = errors.New("batch: invalid timestamp")

	// ErrNoKey reports a record without a key where each must have one.
	ErrNoKey = errors.New("batch: record without a key")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is the part of a batch before its payload.
type Header struct {
	BaseOffset      int64 // offset that the offset deltas are relative to
	Length          int32 // bytes after the length field: Size() - 12
	LeaderEpoch     int32 // of the leader that took the batch; -1 from a client
	Magic           int8
	CRC             uint32
	Attributes      Attributes
	LastOffsetDelta int32 // of the last record, even if compaction removed it
	BaseTimestamp   int64 // ms that the timestamp deltas are relative to
	MaxTimestamp    int64 // ms; see Attributes.LogAppendTime
	Producer
	Records int32 // 0 if compaction kept only the batch
}

// Producer says who wrote a batch, and as which of its records. The zero value
// is a real producer, with id 0.
type Producer struct {
	ID       int64 // -1: not idempotent; then the other fields mean nothing
	Epoch    int16
	Sequence int32 // of the batch's first record
}

// NoProducer stands in the batches of a producer that is not idempotent.
var NoProducer = Producer{ID: -1, Epoch: -1, Sequence: -1}

// Idempotent reports whether the batch carries a producer's identity.
func (p Producer) Idempotent() bool { return p.ID >= 0 }

// Attributes are a batch's flags, bit by bit:
//
//	15 .. 7    6                5         4               3                 2 .. 0
//	reserved   delete horizon   control   transactional   log append time   codec
type Attributes uint16

const (
	codecMask         Attributes = 0x07
	logAppendTimeBit  Attributes = 0x08
	transactionalBit  Attributes = 0x10
	controlBit        Attributes = 0x20
	deleteHorizonBit  Attributes = 0x40
	reservedAttribute Attributes = 0xff80
)

// Codec returns the payload's compression, which may be an unknown one.
func (a Attributes) Codec() Codec { return Codec(a & codecMask) }

// LogAppendTime reports that MaxTimestamp, the broker's clock at append, is the
// timestamp of every record, whatever the records say.
func (a Attributes) LogAppendTime() bool { return a&logAppendTimeBit != 0 }

// Transactional reports that the batch is part of a transaction.
func (a Attributes) Transactional() bool { return a&transactionalBit != 0 }

// Control reports that the records are markers, not a user's.
func (a Attributes) Control() bool { return a&controlBit != 0 }

// DeleteHorizon reports that BaseTimestamp is the time from which compaction
// may drop the batch's tombstones or markers. Deltas are relative to it still.
func (a Attributes) DeleteHorizon() bool { return a&deleteHorizonBit != 0 }

// Size returns the batch's size in bytes, prefix included.
func (h Header) Size() int { return lengthEnd + int(h.Length) }

// LastOffset returns the offset of the batch's last record.
func (h Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// LastSequence returns the sequence of the batch's last record. Sequences wrap
// from math.MaxInt32 to 0. It means nothing unless the producer is idempotent.
func (h Header) LastSequence() int32 {
	return int32((int64(h.Sequence) + int64(h.LastOffsetDelta)) & math.MaxInt32)
}

// ParseHeader reads the header of the batch that b begins with. It looks at
// nothing behind the header: see CheckCRC and Validate.
//
// It returns ErrShort for fewer than HeaderBytes, ErrMagic for another format,
// and ErrCorrupt for a length that cannot be.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderBytes {
		return Header{}, fmt.Errorf("%w: %d bytes, a header has %d", ErrShort, len(b), HeaderBytes)
	}
	be := binary.BigEndian
	h := Header{
		BaseOffset:      int64(be.Uint64(b)),
		Length:          int32(be.Uint32(b[8:])),
		LeaderEpoch:     int32(be.Uint32(b[12:])),
		Magic:           int8(b[16]),
		CRC:             be.Uint32(b[crcAt:]),
		Attributes:      Attributes(be.Uint16(b[attrsAt:])),
		LastOffsetDelta: int32(be.Uint32(b[deltaAt:])),
		BaseTimestamp:   int64(be.Uint64(b[baseTimeAt:])),
		MaxTimestamp:    int64(be.Uint64(b[maxTimeAt:])),
		Producer: Producer{
			ID:       int64(be.Uint64(b[producerAt:])),
			Epoch:    int16(be.Uint16(b[producerAt+8:])),
			Sequence: int32(be.Uint32(b[producerAt+10:])),
		},
		Records: int32(be.Uint32(b[countAt:])),
	}
	if h.Magic != Magic {
		return Header{}, fmt.Errorf("%w: %d, want %d", ErrMagic, h.Magic, Magic)
	}
	if h.Length < HeaderBytes-lengthEnd {
		return Header{}, fmt.Errorf("%w: length %d, at least %d", ErrCorrupt, h.Length, HeaderBytes-lengthEnd)
	}
	return h, nil
}

// parseOne reads the header of b, which must be exactly one batch. Besides
// ParseHeader's errors it returns ErrShort if b ends too early, and ErrCorrupt
// if bytes follow the batch.
func parseOne(b []byte) (Header, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return Header{}, err
	}
	if len(b) < h.Size() {
		return Header{}, fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), h.Size())
	}
	if len(b) > h.Size() {
		return Header{}, fmt.Errorf("%w: %d bytes after a batch of %d", ErrCorrupt, len(b)-h.Size(), h.Size())
	}
	return h, nil
}

// Split cuts the first batch off b, a run of batches. Both results alias b. It
// checks length and magic only, so that a run can be walked cheaply.
//
// It returns ErrShort if b, also an empty one, ends before the batch does, as
// fetch answers may; ErrMagic and ErrCorrupt as ParseHeader does.
func Split(b []byte) (first, rest []byte, err error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, b, err
	}
	n := h.Size()
	if len(b) < n {
		return nil, b, fmt.Errorf("%w: %d bytes of %d", ErrShort, len(b), n)
	}
	return b[:n:n], b[n:], nil
}

// CheckCRC reports whether b is exactly one batch with the checksum that it was
// written with. Recovery and catch-up rely on it: such batches were validated
// before they were first written. The prefix is outside the checksum.
//
// It returns ErrShort, ErrMagic or ErrCorrupt.
func CheckCRC(b []byte) error {
	h, err := parseOne(b)
	if err != nil {
		return err
	}
	return h.checkCRC(b)
}

func (h Header) checkCRC(b []byte) error {
	if got := crc32.Checksum(b[bodyAt:], castagnoli); got != h.CRC {
		return fmt.Errorf("%w: crc32c %08x, want %08x, over %d bytes", ErrCorrupt, got, h.CRC, len(b)-bodyAt)
	}
	return nil
}

// PutPrefix writes the first PrefixBytes of a batch as its readers shall see
// them into dst, which must be that long. length is the batch's own, unchanged.
func PutPrefix(dst []byte, baseOffset int64, length, leaderEpoch int32) {
	_ = dst[PrefixBytes-1]
	binary.BigEndian.PutUint64(dst, uint64(baseOffset))
	binary.BigEndian.PutUint32(dst[8:], uint32(length))
	binary.BigEndian.PutUint32(dst[lengthEnd:], uint32(leaderEpoch))
}

// SetProducer writes p, and the checksum that follows from it, into b, which
// must be one whole batch. A client gives sequences when it sends, which is
// after it built the batch.
func SetProducer(b []byte, p Producer) {
	_ = b[HeaderBytes-1]
	putProducer(b, p)
	putCRC(b)
}

// SetCreateTime makes the timestamps of the records in b, which must be one whole
// batch, those that each of them has; latestMS is the latest of them. It has to be
// done before the batch is proposed (R1).
func SetCreateTime(b []byte, latestMS int64) {
	_ = b[HeaderBytes-1]
	a := Attributes(binary.BigEndian.Uint16(b[attrsAt:])) &^ logAppendTimeBit
	putTime(b, a, latestMS)
}

// SetLogAppendTime makes timestampMS the timestamp of every record in b, which
// must be one whole batch. It has to be done before the batch is proposed (R1).
func SetLogAppendTime(b []byte, timestampMS int64) {
	_ = b[HeaderBytes-1]
	a := Attributes(binary.BigEndian.Uint16(b[attrsAt:])) | logAppendTimeBit
	putTime(b, a, timestampMS)
}

// putTime writes attributes and the latest timestamp, and the checksum that follows
// from them.
func putTime(b []byte, a Attributes, maxTimestampMS int64) {
	binary.BigEndian.PutUint16(b[attrsAt:], uint16(a))
	binary.BigEndian.PutUint64(b[maxTimeAt:], uint64(maxTimestampMS))
	putCRC(b)
}

func putProducer(b []byte, p Producer) {
	binary.BigEndian.PutUint64(b[producerAt:], uint64(p.ID))
	binary.BigEndian.PutUint16(b[producerAt+8:], uint16(p.Epoch))
	binary.BigEndian.PutUint32(b[producerAt+10:], uint32(p.Sequence))
}

// putLength writes the length of b, which must be one whole batch.
func putLength(b []byte) {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-lengthEnd))
}

// putCRC writes the checksum of b, which must be one whole batch.
func putCRC(b []byte) {
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[bodyAt:], castagnoli))
}
