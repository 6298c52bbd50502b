package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

const (
	// HeaderBytes is the size of a data file's header, in bytes.
	HeaderBytes = 128

	// Format is the only format of data and index files that this build
	// writes or reads.
	Format = 1

	dataMagic   = "FLOTSEG1"
	headerCRCAt = HeaderBytes - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// Header is the identity of a data file; see the package comment.
type Header struct {
	TopicID          [16]byte
	Partition        int32
	Base             int64 // offset of the first batch
	CleanedThrough   int64 // offsets below have been compacted
	TombstoneHorizon int64 // highest offset of a dropped tombstone, or -1
}

// append appends the encoded header to dst.
func (h Header) append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, HeaderBytes)...)
	b := dst[at:]
	copy(b, dataMagic)
	binary.LittleEndian.PutUint16(b[8:], Format)
	copy(b[16:], h.TopicID[:])
	binary.LittleEndian.PutUint32(b[32:], uint32(h.Partition))
	binary.LittleEndian.PutUint64(b[40:], uint64(h.Base))
	binary.LittleEndian.PutUint64(b[48:], uint64(h.CleanedThrough))
	binary.LittleEndian.PutUint64(b[56:], uint64(h.TombstoneHorizon))
	binary.LittleEndian.PutUint32(b[headerCRCAt:], checksum(0, b[:headerCRCAt]))
	return dst
}

// crc is the checksum that binds an index to its data file.
func (h Header) crc() uint32 {
	b := h.append(nil)
	return binary.LittleEndian.Uint32(b[headerCRCAt:])
}

// parseHeader decodes a data file's header. The error matches ErrVersion for
// an intact header of a newer build; any other error means damage.
func parseHeader(b []byte) (Header, error) {
	if len(b) < HeaderBytes {
		return Header{}, fmt.Errorf("header of %d bytes, want %d", len(b), HeaderBytes)
	}
	b = b[:HeaderBytes]
	if string(b[:8]) != dataMagic {
		return Header{}, fmt.Errorf("magic %x", b[:8])
	}
	if got, want := checksum(0, b[:headerCRCAt]), binary.LittleEndian.Uint32(b[headerCRCAt:]); got != want {
		return Header{}, fmt.Errorf("header crc32c %08x, want %08x", got, want)
	}
	format, flags := binary.LittleEndian.Uint16(b[8:]), binary.LittleEndian.Uint16(b[10:])
	if format != Format || flags != 0 {
		return Header{}, fmt.Errorf("%w: format %d, flags %#x; this build reads format %d without flags", ErrVersion, format, flags, Format)
	}
	if key := binary.LittleEndian.Uint32(b[12:]); key != 0 {
		return Header{}, fmt.Errorf("%w: key id %d; this build reads no encrypted files", ErrVersion, key)
	}
	h := Header{
		TopicID:          [16]byte(b[16:32]),
		Partition:        int32(binary.LittleEndian.Uint32(b[32:])),
		Base:             int64(binary.LittleEndian.Uint64(b[40:])),
		CleanedThrough:   int64(binary.LittleEndian.Uint64(b[48:])),
		TombstoneHorizon: int64(binary.LittleEndian.Uint64(b[56:])),
	}
	if h.Partition < 0 || h.Base < 0 || h.Base == math.MaxInt64 {
		return Header{}, fmt.Errorf("partition %d, base offset %d", h.Partition, h.Base)
	}
	return h, nil
}

// Encode returns the bytes of the header.
func (h Header) Encode() []byte { return h.append(nil) }
