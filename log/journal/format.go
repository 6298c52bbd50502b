package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of the disk format, in bytes. To change one takes a new version.
const (
	blockBytes        = 4096           // of a file header
	headerBytes       = 2 * blockBytes // before the first record
	recordHeaderBytes = 80
	alignBytes        = 8
)

// version is the only file version that this build writes or reads.
const version = 1

var magic = [8]byte{'F', 'L', 'O', 'T', 'J', 'R', 'N', 'L'}

// kind says what a record is. Zero is never written, so that a run of zeros
// cannot pass for a record.
type kind uint8

const (
	kindEntry    kind = 1
	kindTruncate kind = 2
	kindDrop     kind = 3
	kindMark     kind = 4
)

const placementInline = 0

var (
	errChecksum = errors.New("checksum does not match")
	errMagic    = errors.New("not a journal file")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// RecordBytes is what an entry takes in the ring, in bytes: the unit of
// reservations. The lengths are those of Record.Data and Record.Extensions.
func RecordBytes(dataLen, extLen int) int64 {
	return align(recordHeaderBytes + int64(dataLen) + int64(extLen))
}

func align(n int64) int64 { return (n + alignBytes - 1) &^ (alignBytes - 1) }

// fileHeader is a decoded header block.
type fileHeader struct {
	slot, slots uint32
	fileBytes   int64
	sequence    uint64
	salt        uint64
	synced      uint64 // LSN known durable when the block was written
}

func (h fileHeader) encode() []byte {
	b := make([]byte, blockBytes)
	copy(b, magic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[20:], h.slot)
	le.PutUint32(b[24:], h.slots)
	le.PutUint64(b[32:], uint64(h.fileBytes))
	le.PutUint64(b[40:], h.sequence)
	le.PutUint64(b[48:], h.salt)
	le.PutUint64(b[56:], h.synced)
	le.PutUint32(b[blockBytes-4:], crc32.Checksum(b[:blockBytes-4], castagnoli))
	return b
}

// decodeFileHeader decodes one block. An intact block of another version is
// ErrVersion; all else that is wrong with it is damage.
func decodeFileHeader(b []byte) (fileHeader, error) {
	le := binary.LittleEndian
	if crc32.Checksum(b[:blockBytes-4], castagnoli) != le.Uint32(b[blockBytes-4:]) {
		return fileHeader{}, errChecksum
	}
	if !bytes.Equal(b[:8], magic[:]) {
		return fileHeader{}, errMagic
	}
	if v, flags, key := le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]); v != version || flags != 0 || key != 0 {
		return fileHeader{}, fmt.Errorf("%w: version %d, flags %#x, key %d; this build reads version %d without flags or key", ErrVersion, v, flags, key, version)
	}
	h := fileHeader{
		slot:      le.Uint32(b[20:]),
		slots:     le.Uint32(b[24:]),
		fileBytes: int64(le.Uint64(b[32:])),
		sequence:  le.Uint64(b[40:]),
		salt:      le.Uint64(b[48:]),
		synced:    le.Uint64(b[56:]),
	}
	if h.fileBytes < minFileBytes || h.fileBytes > maxFileBytes || h.fileBytes%blockBytes != 0 || h.sequence == 0 {
		return fileHeader{}, fmt.Errorf("file bytes %d, sequence %d", h.fileBytes, h.sequence)
	}
	return h, nil
}

// seedOf turns a file's salt into the start value of its header checksums.
func seedOf(salt uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	return crc32.Checksum(b[:], castagnoli)
}

// recordHeader is a decoded record header.
type recordHeader struct {
	payloadCRC   uint32
	payloadBytes uint32 // extensions and data, without padding
	extBytes     uint32
	lsn          uint64
	synced       uint64 // LSN known durable when the record was written
	order        uint64 // LSN under which the content was first written
	incarnation  uint64
	index        uint64
	term         uint64
	appendedAt   int64
	shard        ShardID
	kind         kind
	flags        uint8
	raftType     uint8
	placement    uint8
}

// size is the record's length on disk.
func (h *recordHeader) size() int64 { return align(recordHeaderBytes + int64(h.payloadBytes)) }

// encode appends the header to dst, with its checksum under seed.
func (h *recordHeader) encode(dst []byte, seed uint32) []byte {
	le := binary.LittleEndian
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = le.AppendUint32(dst, h.payloadCRC)
	dst = le.AppendUint32(dst, h.payloadBytes)
	dst = le.AppendUint32(dst, h.extBytes)
	dst = le.AppendUint64(dst, h.lsn)
	dst = le.AppendUint64(dst, h.synced)
	dst = le.AppendUint64(dst, h.order)
	dst = le.AppendUint64(dst, h.incarnation)
	dst = le.AppendUint64(dst, h.index)
	dst = le.AppendUint64(dst, h.term)
	dst = le.AppendUint64(dst, uint64(h.appendedAt))
	dst = le.AppendUint32(dst, uint32(h.shard))
	dst = append(dst, byte(h.kind), h.flags, h.raftType, h.placement)
	le.PutUint32(dst[at:], crc32.Update(seed, castagnoli, dst[at+4:]))
	return dst
}

// decodeRecordHeader decodes the header at the start of b, which holds at least
// recordHeaderBytes; ok is false unless it is intact under seed.
func decodeRecordHeader(b []byte, seed uint32) (h recordHeader, ok bool) {
	le := binary.LittleEndian
	if crc32.Update(seed, castagnoli, b[4:recordHeaderBytes]) != le.Uint32(b) {
		return recordHeader{}, false
	}
	h = recordHeader{
		payloadCRC:   le.Uint32(b[4:]),
		payloadBytes: le.Uint32(b[8:]),
		extBytes:     le.Uint32(b[12:]),
		lsn:          le.Uint64(b[16:]),
		synced:       le.Uint64(b[24:]),
		order:        le.Uint64(b[32:]),
		incarnation:  le.Uint64(b[40:]),
		index:        le.Uint64(b[48:]),
		term:         le.Uint64(b[56:]),
		appendedAt:   int64(le.Uint64(b[64:])),
		shard:        ShardID(le.Uint32(b[72:])),
		kind:         kind(b[76]),
		flags:        b[77],
		raftType:     b[78],
		placement:    b[79],
	}
	return h, h.lsn != 0 && h.synced < h.lsn && h.order <= h.lsn && h.extBytes <= h.payloadBytes
}

// check reports an intact record that this build cannot read.
func (h *recordHeader) check() error {
	switch {
	case h.placement != placementInline:
		return fmt.Errorf("%w: record placement %d", ErrVersion, h.placement)
	case h.flags != 0:
		return fmt.Errorf("%w: record flags %#x", ErrVersion, h.flags)
	case h.kind == 0 || h.kind > kindMark:
		return fmt.Errorf("%w: record kind %d", ErrVersion, h.kind)
	}
	return nil
}

// zeroPad is the longest padding.
var zeroPad [alignBytes]byte

// payloadCRC covers a payload with its padding.
func payloadCRC(ext, data []byte) uint32 {
	c := crc32.Update(0, castagnoli, ext)
	c = crc32.Update(c, castagnoli, data)
	n := int64(len(ext) + len(data))
	return crc32.Update(c, castagnoli, zeroPad[:align(n)-n])
}

// payloadCRCPadded is payloadCRC of a payload that has its padding behind it.
func payloadCRCPadded(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
