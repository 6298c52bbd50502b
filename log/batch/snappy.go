package batch

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/klauspost/compress/snappy"
)

// Java's clients do not write a bare Snappy block but the framing of the
// snappy-java library, known by its maker as xerial:
//
//	0                      8         12           16
//	+----------------------+---------+------------+- - +--------+-------+- -
//	| 82 S N A P P Y 00    | version | compatible | .. | length | block | ..
//	+----------------------+---------+------------+- - +--------+-------+- -
//
// Numbers are big-endian and 4 bytes long; version and compatible are 1. A
// second header may stand where a length could, as the library allows streams
// to be concatenated. Other clients write one bare block for the whole payload.

const (
	snappyHeaderBytes = 16
	snappyBlockBytes  = 32 << 10 // uncompressed, as snappy-java cuts them
)

var (
	snappyMagic  = []byte("\x82SNAPPY\x00")
	snappyHeader = append(slices.Clone(snappyMagic), 0, 0, 0, 1, 0, 0, 0, 1)
)

// decompressSnappy reads both forms. It uses the strict decoder, because what
// we let in must be readable for those who do not know s2's extension.
func decompressSnappy(dst, src []byte, maxBytes int) ([]byte, error) {
	if !bytes.HasPrefix(src, snappyMagic) {
		return decodeSnappyBlock(dst, src, maxBytes)
	}
	for len(src) > 0 {
		if bytes.HasPrefix(src, snappyMagic) {
			if len(src) < snappyHeaderBytes {
				return dst, errInflate(Snappy, "header cut off")
			}
			// Version 1 is all there is, and what later ones must stay readable as.
			if compatible := binary.BigEndian.Uint32(src[12:]); compatible > 1 {
				return dst, errInflate(Snappy, "framing of a later version")
			}
			src = src[snappyHeaderBytes:]
			continue
		}
		if len(src) < 4 {
			return dst, errInflate(Snappy, "block length cut off")
		}
		n := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(n) > uint64(len(src)) {
			return dst, errInflate(Snappy, "block cut off")
		}
		var err error
		if dst, err = decodeSnappyBlock(dst, src[:n], maxBytes); err != nil {
			return dst, err
		}
		src = src[n:]
	}
	return dst, nil
}

// decodeSnappyBlock appends one block to dst. The length that the block claims
// is checked against maxBytes before anything is allocated for it, and against
// what a block of its size could hold at most.
func decodeSnappyBlock(dst, block []byte, maxBytes int) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return dst, errInflate(Snappy, err)
	}
	if n > maxBytes-len(dst) {
		return dst, errInflated(Snappy, maxBytes)
	}
	// The densest element copies 64 bytes and takes 3.
	if n > 64*len(block)/3 {
		return dst, errInflate(Snappy, "length beyond what the block can hold")
	}
	dst = grow(dst, n, maxBytes)
	at := len(dst)
	out, err := snappy.DecodeStrict(dst[at:at:at+n], block)
	if err != nil {
		return dst, errInflate(Snappy, err)
	}
	return dst[:at+len(out)], nil
}

func compressSnappy(dst, src []byte) []byte {
	dst = append(dst, snappyHeader...)
	for len(src) > 0 {
		n := min(len(src), snappyBlockBytes)
		at := len(dst)
		dst = slices.Grow(dst, 4+snappy.MaxEncodedLen(n))
		block := snappy.Encode(dst[at+4:cap(dst)], src[:n])
		binary.BigEndian.PutUint32(dst[at:at+4], uint32(len(block)))
		dst = dst[:at+4+len(block)]
		src = src[n:]
	}
	return dst
}
