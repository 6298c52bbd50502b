package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	frameVersion = 1
	headerBytes  = 28
	frameBytes   = headerBytes + 1 // all of a frame but its payload
	endMark      = 0xe7            // not zero, and no single flip away from it
)

// kind says what a record holds. Each has more than one bit set, so that no
// single flip makes a kind zero, which stands for bytes never written.
type kind byte

const (
	kindVote   kind = 'V'
	kindDelete kind = 'D'
	kindEntry  kind = 'E'
)

// errDamaged reports bytes that are not a frame as written. Whether they are
// torn or rotten only their place can tell: see scan.
var errDamaged = errors.New("damaged record")

// errMalformed reports an intact frame whose payload is not one of its kind.
var errMalformed = errors.New("malformed record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is one record, decoded.
type frame struct {
	index   uint64
	durable uint64 // every record below it was synced when this one was written
	kind    kind
	payload []byte
}

// appendFrame appends the encoding of f to dst and returns the longer slice.
func appendFrame(dst []byte, f frame) []byte {
	if f.kind == 0 {
		panic("control: zero kind")
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(f.payload)))
	dst = binary.LittleEndian.AppendUint64(dst, f.index)
	dst = binary.LittleEndian.AppendUint64(dst, f.durable)
	dst = append(dst, 0, 0, frameVersion, byte(f.kind))
	dst = append(dst, f.payload...)
	dst = append(dst, endMark)
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}

// decodeFrame decodes b, which is one whole frame. The payload aliases b. It
// returns errDamaged or ErrVersion, wrapped with detail, and never panics.
func decodeFrame(b []byte) (frame, error) {
	if len(b) < frameBytes {
		return frame{}, fmt.Errorf("%w: %d bytes, want at least %d", errDamaged, len(b), frameBytes)
	}
	if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want {
		return frame{}, fmt.Errorf("%w: crc32c %08x, want %08x", errDamaged, got, want)
	}
	if v := b[26]; v != frameVersion {
		return frame{}, fmt.Errorf("%w: record version %d, this build reads %d", ErrVersion, v, frameVersion)
	}
	f := frame{
		index:   binary.LittleEndian.Uint64(b[8:]),
		durable: binary.LittleEndian.Uint64(b[16:]),
		kind:    kind(b[27]),
		payload: b[headerBytes : len(b)-1 : len(b)-1],
	}
	switch {
	case payloadLen(b) != uint64(len(f.payload)):
		return frame{}, fmt.Errorf("%w: payload of %d bytes in a frame for %d", errDamaged, payloadLen(b), len(f.payload))
	case f.kind == 0 || b[24] != 0 || b[25] != 0 || b[len(b)-1] != endMark:
		return frame{}, fmt.Errorf("%w: kind %d, reserved %x, end %#x", errDamaged, f.kind, b[24:26], b[len(b)-1])
	case f.durable > f.index:
		return frame{}, fmt.Errorf("%w: record %d says that %d is durable", errDamaged, f.index, f.durable)
	}
	return f, nil
}

// payloadLen reads the length field of a header.
func payloadLen(header []byte) uint64 { return uint64(binary.LittleEndian.Uint32(header[4:])) }

// splitRecord finds the frame at the start of b, as tidwall/wal would, without
// looking into it. n is the record's length with its size; ok is false if b
// does not hold a whole record.
func splitRecord(b []byte) (fr []byte, n int, ok bool) {
	size, w := binary.Uvarint(b)
	if w <= 0 || uint64(len(b)-w) < size {
		return nil, 0, false
	}
	n = w + int(size)
	return b[w:n], n, true
}

// appendRecord appends a frame with its size, as tidwall/wal stores it.
func appendRecord(dst, fr []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(fr)))
	return append(dst, fr...)
}
