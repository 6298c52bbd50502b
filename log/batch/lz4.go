package batch

import (
	"encoding/binary"
	"fmt"
	"io"
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
	lz4Densest    = 255      // that one byte of a block stands for at most

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

// lz4Reader reads exactly one frame of independent blocks, which is what Java's
// consumers can read, and checks each checksum that some consumer does.
type lz4Reader struct {
	lz4Frame
	src      []byte // blocks not yet read, and what follows them
	maxBytes int    // of all blocks, decompressed
	total    int    // of those that were read
	sum      xxh32  // of them, if the frame has it
}

// newLZ4Reader reads a frame's header.
func newLZ4Reader(src []byte, maxBytes int) (lz4Reader, error) {
	f, src, err := parseLZ4Header(src)
	if err != nil {
		return lz4Reader{}, err
	}
	if f.flags&lz4ContentSize != 0 && f.contentSize > uint64(maxBytes) {
		return lz4Reader{}, errInflated(LZ4, maxBytes)
	}
	return lz4Reader{lz4Frame: f, src: src, maxBytes: maxBytes, sum: newXXH32()}, nil
}

// largest returns the most that a block can decompress to. It looks no further
// than the blocks go, as far as next will.
func (r *lz4Reader) largest() (bytes int) {
	for src := r.src; len(src) >= 4; {
		size := binary.LittleEndian.Uint32(src)
		n := int(size &^ lz4Stored)
		if size == 0 || n > min(len(src)-4, r.blockBytes) {
			break
		}
		out := n
		if size&lz4Stored == 0 {
			out = min(lz4Densest*n, r.blockBytes)
		}
		bytes = max(bytes, out)
		src = src[min(len(src), 4+n+r.blockSumBytes()):]
	}
	return min(bytes, r.maxBytes)
}

// blockSumBytes is the size of what follows each block.
func (f lz4Frame) blockSumBytes() int {
	if f.flags&lz4BlockChecksum != 0 {
		return 4
	}
	return 0
}

// next appends a block to dst, which holds most bytes at the most, or returns
// io.EOF after the last one, if all is as the frame says. left is how many bytes
// may still come.
func (r *lz4Reader) next(dst []byte, left, most int) ([]byte, error) {
	if len(r.src) < 4 {
		return dst, errInflate(LZ4, "block size cut off")
	}
	size := binary.LittleEndian.Uint32(r.src)
	r.src = r.src[4:]
	if size == 0 {
		if err := r.checkEnd(); err != nil {
			return dst, err
		}
		return dst, io.EOF
	}
	n, sum := int(size&^lz4Stored), r.blockSumBytes()
	if n == 0 || n > r.blockBytes || n > len(r.src)-sum {
		return dst, errInflate(LZ4, "block empty, cut off or above the frame's block size")
	}
	block := r.src[:n]
	if sum > 0 && binary.LittleEndian.Uint32(r.src[n:]) != xxh32Of(block) {
		return dst, errInflate(LZ4, "block checksum")
	}
	r.src = r.src[n+sum:]
	at := len(dst)
	dst, err := r.appendBlock(dst, block, size&lz4Stored != 0, left, most)
	if err != nil {
		return dst, err
	}
	r.total += len(dst) - at
	if r.flags&lz4ContentSum != 0 {
		r.sum.write(dst[at:])
	}
	return dst, nil
}

// checkEnd checks what follows the last block.
func (r *lz4Reader) checkEnd() error {
	if r.flags&lz4ContentSum != 0 {
		if len(r.src) < 4 {
			return errInflate(LZ4, "content checksum cut off")
		}
		if binary.LittleEndian.Uint32(r.src) != r.sum.sum() {
			return errInflate(LZ4, "content checksum")
		}
		r.src = r.src[4:]
	}
	if r.flags&lz4ContentSize != 0 && r.contentSize != uint64(r.total) {
		return errInflate(LZ4, "content size")
	}
	if len(r.src) > 0 {
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
	if byte(xxh32Of(src[4:end])>>8) != src[end] {
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
func (r *lz4Reader) appendBlock(dst, block []byte, stored bool, left, most int) ([]byte, error) {
	room := min(r.blockBytes, left)
	if stored {
		if len(block) > room {
			return dst, errInflated(LZ4, r.maxBytes)
		}
		return append(grow(dst, len(block), most), block...), nil
	}
	end := min(room, lz4Densest*len(block))
	for try := min(end, max(4*len(block), cap(dst)-len(dst))); ; try = min(end, 4*try) {
		dst = grow(dst, try, most)
		at := len(dst)
		n, err := lz4.UncompressBlock(block, dst[at:at+try])
		switch {
		case err == nil:
			return dst[:at+n], nil
		case try < end:
		case room < r.blockBytes && end == room:
			return dst, errInflated(LZ4, r.maxBytes) // or corrupt: nobody can tell
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
	if err := checkLZ4Level(level); err != nil {
		return dst, err
	}
	c := lz4Compressors.Get().(*lz4Compressor)
	defer lz4Compressors.Put(c)

	dst = appendLZ4Header(dst)
	for len(src) > 0 {
		n := min(len(src), lz4BlockBytes)
		dst = c.appendBlock(dst, src[:n], level)
		src = src[n:]
	}
	return binary.LittleEndian.AppendUint32(dst, 0), nil
}

func checkLZ4Level(level int) error {
	if level < 0 || level > lz4MaxLevel {
		return fmt.Errorf("%w: %d, lz4 has 1 to %d", ErrLevel, level, lz4MaxLevel)
	}
	return nil
}

func appendLZ4Header(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, lz4Magic)
	at := len(dst)
	dst = append(dst, lz4Version|lz4Independent, 4<<4)
	return append(dst, byte(xxh32Of(dst[at:])>>8))
}

// appendBlock appends a block of src, stored as it is if it does not get smaller.
func (c *lz4Compressor) appendBlock(dst, src []byte, level int) []byte {
	at := len(dst)
	dst = slices.Grow(dst, 4+len(src))[:at+4+len(src)]
	size, stored := c.compress(dst[at+4:], src, level), uint32(0)
	if size == 0 {
		size, stored = copy(dst[at+4:], src), lz4Stored
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(size)|stored)
	return dst[:at+4+size]
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
