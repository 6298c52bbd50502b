package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
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

// snappyReader reads both forms. It uses the strict decoder, because what we let
// in must be readable for those who do not know s2's extension.
type snappyReader struct {
	src      []byte // not yet read
	framed   bool
	started  bool // a bare block was taken
	maxBytes int  // of all blocks, decompressed
}

func newSnappyReader(src []byte, maxBytes int) snappyReader {
	return snappyReader{src: src, framed: bytes.HasPrefix(src, snappyMagic), maxBytes: maxBytes}
}

// largest returns the most that a block decompresses to, as the blocks say, each
// no more than it can hold. It looks as far as next will.
func (r snappyReader) largest() (int, error) {
	most := 0
	for {
		block, err := r.block()
		if err != nil {
			return min(most, r.maxBytes), nil // next meets it
		}
		n, err := snappy.DecodedLen(block)
		switch {
		case err != nil || n > snappyDensest(block) || n > r.maxBytes:
			return min(most, r.maxBytes), nil
		case n > MaxWindowBytes:
			return 0, fmt.Errorf("%w: a snappy block of %d bytes, decompressed: at most %d; send smaller batches", ErrTooLarge, n, MaxWindowBytes)
		}
		most = max(most, n)
	}
}

// snappyDensest is how many bytes a block can hold at most: the densest element
// copies 64 bytes and takes 3.
func snappyDensest(block []byte) int { return 64 * len(block) / 3 }

// block returns the next block, still compressed; io.EOF after the last.
func (r *snappyReader) block() ([]byte, error) {
	if !r.framed {
		if r.started {
			return nil, io.EOF
		}
		r.started = true
		return r.src, nil
	}
	for bytes.HasPrefix(r.src, snappyMagic) {
		if len(r.src) < snappyHeaderBytes {
			return nil, errInflate(Snappy, "header cut off")
		}
		// Version 1 is all there is, and what later ones must stay readable as.
		if compatible := binary.BigEndian.Uint32(r.src[12:]); compatible > 1 {
			return nil, errInflate(Snappy, "framing of a later version")
		}
		r.src = r.src[snappyHeaderBytes:]
	}
	switch {
	case len(r.src) == 0:
		return nil, io.EOF
	case len(r.src) < 4:
		return nil, errInflate(Snappy, "block length cut off")
	}
	n := binary.BigEndian.Uint32(r.src)
	r.src = r.src[4:]
	if uint64(n) > uint64(len(r.src)) {
		return nil, errInflate(Snappy, "block cut off")
	}
	block := r.src[:n]
	r.src = r.src[n:]
	return block, nil
}

// next appends a block to dst, which holds most bytes at the most, or returns
// io.EOF after the last one. left is how many bytes may still come. The length
// that the block claims is checked against that before anything is allocated for
// it, and against what a block of its size could hold.
func (r *snappyReader) next(dst []byte, left, most int) ([]byte, error) {
	block, err := r.block()
	if err != nil {
		return dst, err
	}
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return dst, errInflate(Snappy, err)
	}
	if n > left {
		return dst, errInflated(Snappy, r.maxBytes)
	}
	if n > snappyDensest(block) {
		return dst, errInflate(Snappy, "length beyond what the block can hold")
	}
	dst = grow(dst, n, most)
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
		dst = appendSnappyBlock(dst, src[:n])
		src = src[n:]
	}
	return dst
}

func appendSnappyBlock(dst, src []byte) []byte {
	at := len(dst)
	dst = slices.Grow(dst, 4+snappy.MaxEncodedLen(len(src)))
	block := snappy.Encode(dst[at+4:cap(dst)], src)
	binary.BigEndian.PutUint32(dst[at:at+4], uint32(len(block)))
	return dst[:at+4+len(block)]
}
