package batch

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// minZstdMemoryBytes is what a decoder may use at least: RFC 8878 asks for
	// windows up to 8 MiB to be supported, and writers that do not know the
	// size of their data declare such windows even for a few records.
	minZstdMemoryBytes = 8 << 20

	// zstdWindowBytes is the window of what we write. Batches are about as
	// large, and a reader has to reserve as much.
	zstdWindowBytes = 1 << 20

	// maxZstdWindowBytes is the largest window that the reference decoder, and
	// with it Java's consumers, takes without being told to.
	maxZstdWindowBytes = 128 << 20

	zstdBlockBytes = 128 << 10 // the most that a block decompresses to

	minZstdLevel, maxZstdLevel = -131072, 22
)

// zstdDecoder is a decoder with the limit that it is set to. It has a
// concurrency of one and decodes from memory to memory, which starts no
// goroutine: so one dropped by the pool needs no Close.
type zstdDecoder struct {
	d        *zstd.Decoder
	maxBytes int
}

var (
	zstdDecoders sync.Pool
	zstdEncoders [zstd.SpeedBestCompression + 1]sync.Pool // by speed
)

// decompressZstd decodes all of src at once: dst itself is the window, so a
// large one costs nothing that the output does not fill.
func decompressZstd(dst, src []byte, maxBytes int) ([]byte, error) {
	limit := max(maxBytes, minZstdMemoryBytes)
	// The decoder knows one limit for windows and output. The highest levels
	// declare windows above it, however few the records: then the blocks have
	// to prove, before they are decoded, that the output is small.
	window, claimed, most := zstdBounds(src)
	if claimed > maxBytes {
		return dst, errInflated(Zstd, maxBytes)
	}
	if window > limit && window <= maxZstdWindowBytes && most <= maxBytes {
		limit = window
	}
	z, _ := zstdDecoders.Get().(*zstdDecoder)
	switch {
	case z == nil:
		z = makeOutside(func() *zstdDecoder { return newZstdDecoder(limit) })
	case z.maxBytes != limit:
		if err := z.d.ResetWithOptions(nil, zstd.WithDecoderMaxMemory(uint64(limit))); err != nil {
			panic("batch: zstd decoder: " + err.Error())
		}
		z.maxBytes = limit
	}
	defer zstdDecoders.Put(z)

	out, err := z.d.DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return out, fmt.Errorf("%w: %w", errInflated(Zstd, maxBytes), err)
	case err != nil:
		return out, errInflate(Zstd, err)
	case len(out) > maxBytes:
		return out, errInflated(Zstd, maxBytes)
	}
	return out, nil
}

func newZstdDecoder(maxBytes int) *zstdDecoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(maxBytes)))
	if err != nil {
		panic("batch: zstd decoder: " + err.Error())
	}
	return &zstdDecoder{d: d, maxBytes: maxBytes}
}

// zstdBounds walks the frames in src without decoding them. It returns the
// largest window and the largest content that one of them declares, and the
// most that all their blocks can decompress to. The walk ends where src stops
// being well-formed, which is where the decoder will.
func zstdBounds(src []byte) (window, claimed, most int) {
	for len(src) > 0 {
		var h zstd.Header
		if h.Decode(src) != nil {
			return window, claimed, most
		}
		src = src[h.HeaderSize:]
		if h.Skippable {
			src = src[min(len(src), int(h.SkippableSize)):]
			continue
		}
		window = max(window, int(min(h.WindowSize, math.MaxInt32)))
		claimed = max(claimed, int(min(h.FrameContentSize, math.MaxInt32)))
		for last := false; !last; {
			if len(src) < 3 {
				return window, claimed, most
			}
			head := int(src[0]) | int(src[1])<<8 | int(src[2])<<16
			last = head&1 != 0
			kind, size, out := head>>1&3, head>>3, head>>3
			switch kind {
			case 1: // one byte, repeated
				size = 1
			case 2: // compressed
				out = zstdBlockBytes
			}
			most += out
			src = src[min(len(src), 3+size):]
		}
		if h.HasCheckSum {
			src = src[min(len(src), 4):]
		}
	}
	return window, claimed, most
}

func compressZstd(dst, src []byte, level int) ([]byte, error) {
	if level < minZstdLevel || level > maxZstdLevel {
		return dst, fmt.Errorf("%w: %d, zstd has %d to %d", ErrLevel, level, minZstdLevel, maxZstdLevel)
	}
	speed := zstd.SpeedDefault
	if level != DefaultLevel {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	e, _ := zstdEncoders[speed].Get().(*zstd.Encoder)
	if e == nil {
		e = makeOutside(func() *zstd.Encoder { return newZstdEncoder(speed) })
	}
	defer zstdEncoders[speed].Put(e)
	return e.EncodeAll(src, dst), nil
}

// newZstdEncoder makes an encoder that is ready, with all that it makes at its
// first use.
func newZstdEncoder(speed zstd.EncoderLevel) *zstd.Encoder {
	// No checksum: the batch has one.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(speed),
		zstd.WithWindowSize(zstdWindowBytes), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("batch: zstd encoder: " + err.Error())
	}
	e.EncodeAll(nil, nil)
	return e
}
