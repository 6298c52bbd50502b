package batch

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"
)

// Room is memory that many share. Validate and what else decompresses take what
// they need at most of it before they do, and give it back at the end.
type Room interface {
	// Take takes bytes, or waits for them. After an error none were taken.
	Take(bytes int64) error
	// Give gives back what Take took.
	Give(bytes int64)
}

// ErrNoRoom reports that a Room had no memory, and why: nothing is wrong with the
// batch.
var ErrNoRoom = errors.New("batch: no memory to decompress in")

const (
	// MaxWindowBytes is the most of what a payload decompresses to that has to be
	// in memory at once, whatever the payload: an LZ4 frame's blocks have 4 MiB,
	// a zstd window, or what is in it, as much as this, and so has a block of
	// Snappy. A payload that needs more is ErrTooLarge.
	MaxWindowBytes = 32 << 20

	// codecBytes is what a decompressor takes at most beside pieces and window,
	// and beside what they are rounded up to.
	codecBytes = 640 << 10

	// wholeBytes is up to where a zstd payload is decoded in one piece: for so
	// little the decoder needs no window of its own.
	wholeBytes = 1 << 20

	// pieceBytes is the size of a piece, if the codec leaves the choice.
	pieceBytes = 64 << 10
)

// unfolder gives what a payload holds piece by piece, so that no more than a
// window of it is in memory, however much it is in all. Between open and close
// it holds pooled memory, which is counted in a Room.
type unfolder struct {
	codec    Codec
	maxBytes int // of all pieces
	total    int // bytes of those that were given
	err      error

	room Room
	held int64 // of room

	src    []byte // without a codec, or decoded in one piece: what is left
	lz4    lz4Reader
	snappy snappyReader
	gzip   *gzipReader
	zstd   *zstdStream
	class  int
	buf    *[]byte // of class: the piece that was given last
	most   int     // bytes that the largest piece has at most
}

// open begins with a payload, and takes from room what the unfolder needs and
// beside bytes more: at once, since who held some and waited for more could wait
// for somebody who does the same. It returns ErrCodec, ErrTooLarge, ErrCorrupt,
// or ErrNoRoom; then the unfolder holds nothing.
func (u *unfolder) open(src []byte, codec Codec, maxBytes int, room Room, beside int64) error {
	*u = unfolder{codec: codec, maxBytes: maxBytes, src: src}
	held, window := beside, 0
	if codec != None {
		var err error
		if u.most, window, err = u.measure(src); err != nil {
			return err
		}
		u.class = classOf(u.most)
		held += int64(classBytes(u.class)) + codecBytes
		if window > 0 {
			held += int64(classBytes(classOf(window)))
		}
	}
	if room != nil && held > 0 {
		if err := room.Take(held); err != nil {
			return fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
		u.room, u.held = room, held
	}
	if codec == None {
		return nil
	}
	u.buf = takeScratch(u.class)
	switch {
	case codec == Gzip:
		var err error
		if u.gzip, err = openGzip(src); err != nil {
			u.close()
			return err
		}
	case window > 0:
		u.zstd = openZstd(src, window)
	}
	return nil
}

// measure finds out how large the pieces are that src decompresses to, and the
// window beside them, if there is one: upper bounds, which the payload's bytes
// prove.
func (u *unfolder) measure(src []byte) (mostBytes, windowBytes int, err error) {
	switch u.codec {
	case Gzip:
		return pieceBytes, 0, nil
	case Snappy:
		u.snappy = newSnappyReader(src, u.maxBytes)
		mostBytes, err = u.snappy.largest()
	case LZ4:
		if u.lz4, err = newLZ4Reader(src, u.maxBytes); err == nil {
			mostBytes = u.lz4.largest()
		}
	case Zstd:
		return measureZstd(src, u.maxBytes)
	default:
		err = fmt.Errorf("%w: %d", ErrCodec, uint8(u.codec))
	}
	return mostBytes, 0, err
}

// next returns the next piece, which is valid until the next call; io.EOF after
// the last one. Any error stays.
func (u *unfolder) next() ([]byte, error) {
	if u.err != nil {
		return nil, u.err
	}
	piece, err := u.piece(u.maxBytes - u.total)
	u.total += len(piece)
	u.err = err
	if err == nil && u.total > u.maxBytes {
		u.err = errInflated(u.codec, u.maxBytes)
	}
	if u.err != nil {
		return nil, u.err
	}
	return piece, nil
}

// piece returns the next piece, of at most left bytes, or a few more.
func (u *unfolder) piece(left int) (piece []byte, err error) {
	switch {
	case u.codec == None:
		if piece, u.src = u.src, nil; len(piece) == 0 {
			return nil, io.EOF
		}
		return piece, nil
	case u.codec == LZ4:
		piece, err = u.lz4.next((*u.buf)[:0], left, classBytes(u.class))
	case u.codec == Snappy:
		piece, err = u.snappy.next((*u.buf)[:0], left, classBytes(u.class))
	case u.codec == Gzip:
		return readPiece(&u.gzip.zr, u.buf, left, Gzip)
	case u.zstd != nil:
		return readPiece(u.zstd.d, u.buf, left, Zstd)
	case u.src == nil: // zstd, in one piece, which was given
		return nil, io.EOF
	default:
		// The decoder wants room for a whole block more than there will be.
		piece, err = decodeZstd(slices.Grow((*u.buf)[:0], u.most+zstdBlockBytes+1<<10), u.src, u.maxBytes, maxZstdWindowBytes)
		u.src = nil
	}
	if cap(piece) > cap(*u.buf) {
		*u.buf = piece[:0]
	}
	return piece, err
}

// drain gives up what is left, and returns nil if the payload is intact to its
// end.
func (u *unfolder) drain() error {
	var err error
	for err == nil {
		_, err = u.next()
	}
	return atEnd(err)
}

// close gives everything back. It may be called again.
func (u *unfolder) close() {
	if u.buf != nil {
		putScratch(u.buf, u.class)
		u.buf = nil
	}
	if u.gzip != nil {
		u.gzip.close()
		u.gzip = nil
	}
	if u.zstd != nil {
		u.zstd.close()
		u.zstd = nil
	}
	if u.held > 0 {
		u.room.Give(u.held)
		u.held = 0
	}
}

// readPiece reads as much as is there, up to a buffer's worth, and one byte above
// left.
func readPiece(r io.Reader, buf *[]byte, left int, c Codec) ([]byte, error) {
	if cap(*buf) < pieceBytes {
		*buf = make([]byte, 0, pieceBytes)
	}
	b := (*buf)[:min(pieceBytes, max(left, 0)+1)]
	n := 0
	for n < len(b) {
		m, err := r.Read(b[n:])
		n += m
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && n > 0:
			return b[:n], nil // the next one meets it
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		default:
			return nil, errInflate(c, err)
		}
	}
	return b, nil
}

// Memory is pooled by its size, so that what is counted for a payload is what
// its buffers have, and not what one before it needed: class n is up to
// minClassBytes << n.
const (
	minClassBytes  = 64 << 10
	classes        = 10 // up to MaxWindowBytes
	maxPooledClass = 7  // 8 MiB; a larger one goes back to the garbage collector
)

func classOf(bytes int) int { return max(0, bits.Len(uint(max(bytes, 1)-1))-16) }

func classBytes(class int) int { return minClassBytes << class }

var scratchPools [maxPooledClass + 1]sync.Pool

// takeScratch returns an empty buffer of a class, which may have to grow first.
func takeScratch(class int) *[]byte {
	if class <= maxPooledClass {
		if b, ok := scratchPools[class].Get().(*[]byte); ok {
			return b
		}
	}
	return new([]byte)
}

func putScratch(b *[]byte, class int) {
	if class <= maxPooledClass {
		scratchPools[class].Put(b)
	}
}
