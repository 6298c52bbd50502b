package batch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/pierrec/lz4/v4"
)

// The LZ4 frame format, as far as Kafka uses it (little-endian):
//
//	0         4     5    6                  6 or 14           7 or 15
//	+---------+-----+----+-----------------+------------------+- -
//	| magic   | flg | bd | content size: 8 | header checksum  | blocks
//	+---------+-----+----+-----------------+------------------+- -
//	+------------+------+--------------+- -+----------+---------------------+
//	| block size | data | checksum: 4  | .. | 00000000 | content checksum: 4 |
//	+------------+------+--------------+- -+----------+---------------------+
//
// Content size and the two checksums of data are there if flg says so. The top
// bit of a block's size says that its data is stored as it is. Checksums are
// xxh32 with seed 0; the header's is the second byte of it, over flg and on.
//
// Frames are taken apart here, not by lz4.Reader, as blocks then decode straight
// into the output, and no block buffer is allocated: writers declare blocks of
// 4 MiB, the frame format's default, for batches of a few KiB.

const (
	lz4Magic      = 0x184D2204
	lz4Stored     = 1 << 31
	lz4BlockBytes = 64 << 10 // of what we write, as Java's client does

	lz4Version        = 1 << 6 // flg
	lz4Independent    = 1 << 5
	lz4BlockChecksum  = 1 << 4
	lz4ContentSize    = 1 << 3
	lz4ContentSum     = 1 << 2
	lz4FlagsUndefined = 1<<7 | 1<<1 | 1<<0 // bit 0 is a dictionary: not in Kafka

	lz4MaxLevel  = 17
	lz4FastLevel = 9 // Kafka's default, for which it too takes the fast compressor
)

// lz4Frame is a parsed frame header.
type lz4Frame struct {
	flags       byte
	blockBytes  int // limit of a block, decompressed
	contentSize uint64
}

// decompressLZ4 reads exactly one frame of independent blocks, which is what
// Java's consumers can read, and checks each checksum that some consumer does.
func decompressLZ4(dst, src []byte, maxBytes int) ([]byte, error) {
	f, src, err := parseLZ4Header(src)
	if err != nil {
		return dst, err
	}
	if f.flags&lz4ContentSize != 0 && f.contentSize > uint64(maxBytes) {
		return dst, errInflated(LZ4, maxBytes)
	}
	for {
		if len(src) < 4 {
			return dst, errInflate(LZ4, "block size cut off")
		}
		size := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if size == 0 {
			break
		}
		n := int(size &^ lz4Stored)
		sum := 0
		if f.flags&lz4BlockChecksum != 0 {
			sum = 4
		}
		if n == 0 || n > f.blockBytes || n > len(src)-sum {
			return dst, errInflate(LZ4, "block empty, cut off or above the frame's block size")
		}
		block := src[:n]
		if sum > 0 && binary.LittleEndian.Uint32(src[n:]) != xxh32(block) {
			return dst, errInflate(LZ4, "block checksum")
		}
		src = src[n+sum:]
		if dst, err = f.appendBlock(dst, block, size&lz4Stored != 0, maxBytes); err != nil {
			return dst, err
		}
	}
	return dst, f.checkEnd(dst, src)
}

// checkEnd checks what follows the last block.
func (f lz4Frame) checkEnd(out, src []byte) error {
	if f.flags&lz4ContentSum != 0 {
		if len(src) < 4 {
			return errInflate(LZ4, "content checksum cut off")
		}
		if binary.LittleEndian.Uint32(src) != xxh32(out) {
			return errInflate(LZ4, "content checksum")
		}
		src = src[4:]
	}
	if f.flags&lz4ContentSize != 0 && f.contentSize != uint64(len(out)) {
		return errInflate(LZ4, "content size")
	}
	if len(src) > 0 {
		return errInflate(LZ4, "bytes after the frame")
	}
	return nil
}

func parseLZ4Header(src []byte) (f lz4Frame, rest []byte, err error) {
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic {
		return f, nil, errInflate(LZ4, "no frame")
	}
	f.flags = src[4]
	bd := src[5]
	end := 6
	if f.flags&lz4ContentSize != 0 {
		if end += 8; len(src) <= end {
			return f, nil, errInflate(LZ4, "header cut off")
		}
		f.contentSize = binary.LittleEndian.Uint64(src[6:])
	}
	if byte(xxh32(src[4:end])>>8) != src[end] {
		return f, nil, errInflate(LZ4, "header checksum")
	}
	if f.flags&(0xc0|lz4FlagsUndefined|lz4Independent) != lz4Version|lz4Independent {
		return f, nil, errInflate(LZ4, fmt.Sprintf("unsupported frame flags %#02x", f.flags))
	}
	if bd&0x8f != 0 || bd < 4<<4 {
		return f, nil, errInflate(LZ4, fmt.Sprintf("unsupported block descriptor %#02x", bd))
	}
	f.blockBytes = 1 << (8 + 2*(bd>>4)) // 4: 64 KiB .. 7: 4 MiB
	return f, src[end+1:], nil
}

// appendBlock appends one block to dst. The size that a block decompresses to
// is nowhere to be read, so room is made step by step, as far as it may be.
func (f lz4Frame) appendBlock(dst, block []byte, stored bool, maxBytes int) ([]byte, error) {
	room := min(f.blockBytes, maxBytes-len(dst))
	if stored {
		if len(block) > room {
			return dst, errInflated(LZ4, maxBytes)
		}
		return append(grow(dst, len(block), maxBytes), block...), nil
	}
	// One byte of a block stands for at most 255.
	most := min(room, 255*len(block))
	for try := min(most, max(4*len(block), cap(dst)-len(dst))); ; try = min(most, 4*try) {
		dst = grow(dst, try, maxBytes)
		at := len(dst)
		n, err := lz4.UncompressBlock(block, dst[at:at+try])
		switch {
		case err == nil:
			return dst[:at+n], nil
		case try < most:
		case room < f.blockBytes && most == room:
			return dst, errInflated(LZ4, maxBytes) // or corrupt: nobody can tell
		default:
			return dst, errInflate(LZ4, err)
		}
	}
}

type lz4Compressor struct {
	fast lz4.Compressor
	high lz4.CompressorHC
}

var lz4Compressors = sync.Pool{New: func() any { return new(lz4Compressor) }}

var lz4Levels = [...]lz4.CompressionLevel{
	lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
}

// compressLZ4 writes the frame that Java's client does: 64 KiB blocks, no
// checksums beyond the header's. Levels above 9 are taken as the library's best.
func compressLZ4(dst, src []byte, level int) ([]byte, error) {
	if level < 0 || level > lz4MaxLevel {
		return dst, fmt.Errorf("%w: %d, lz4 has 1 to %d", ErrLevel, level, lz4MaxLevel)
	}
	c := lz4Compressors.Get().(*lz4Compressor)
	defer lz4Compressors.Put(c)

	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	at := len(dst)
	dst = append(dst, lz4Version|lz4Independent, 4<<4)
	dst = append(dst, byte(xxh32(dst[at:])>>8))
	for len(src) > 0 {
		n := min(len(src), lz4BlockBytes)
		at := len(dst)
		dst = slices.Grow(dst, 4+n)[:at+4+n]
		size, stored := c.compress(dst[at+4:], src[:n], level), uint32(0)
		if size == 0 {
			size, stored = copy(dst[at+4:], src[:n]), lz4Stored
		}
		binary.LittleEndian.PutUint32(dst[at:], uint32(size)|stored)
		dst = dst[:at+4+size]
		src = src[n:]
	}
	return binary.LittleEndian.AppendUint32(dst, 0), nil
}

// compress returns 0 for a block that does not get smaller.
func (c *lz4Compressor) compress(dst, src []byte, level int) int {
	var n int
	var err error
	if level == DefaultLevel || level == lz4FastLevel {
		n, err = c.fast.CompressBlock(src, dst)
	} else {
		c.high.Level = lz4Levels[min(level, len(lz4Levels))-1]
		n, err = c.high.CompressBlock(src, dst)
	}
	if err != nil || n >= len(src) {
		return 0
	}
	return n
}
