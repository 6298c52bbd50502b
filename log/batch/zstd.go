package batch

import (
	"bytes"
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

	minZstdWindowBytes = 1 << 10 // of a frame that is its own window

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

// zstdStream is a decoder that keeps a window and no more. It too starts no
// goroutine.
type zstdStream struct {
	src   bytes.Reader
	d     *zstd.Decoder
	class int // of its window
}

var (
	zstdDecoders sync.Pool
	zstdStreams  [maxPooledClass + 1]sync.Pool            // by class
	zstdEncoders [zstd.SpeedBestCompression + 1]sync.Pool // by speed
	zstdPackers  [zstd.SpeedBestCompression + 1]sync.Pool // those that write to a stream
)

// decompressZstd decodes all of src at once: dst itself is the window, so a
// large one costs nothing that the output does not fill.
func decompressZstd(dst, src []byte, maxBytes int) ([]byte, error) {
	limit := max(maxBytes, minZstdMemoryBytes)
	// The decoder knows one limit for windows and output. The highest levels
	// declare windows above it, however few the records: then the blocks have
	// to prove, before they are decoded, that the output is small.
	s := surveyZstd(src)
	if s.claimed > maxBytes {
		return dst, errInflated(Zstd, maxBytes)
	}
	if s.window > limit && s.window <= maxZstdWindowBytes && s.most <= maxBytes {
		limit = s.window
	}
	return decodeZstd(dst, src, maxBytes, limit)
}

// decodeZstd decodes all of src at once. limit is for windows, and for what a
// frame says of its content.
func decodeZstd(dst, src []byte, maxBytes, limit int) ([]byte, error) {
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

// openZstd begins to decode a payload of which no frame has a larger window.
func openZstd(src []byte, windowBytes int) *zstdStream {
	class := classOf(windowBytes)
	var z *zstdStream
	if class <= maxPooledClass {
		z, _ = zstdStreams[class].Get().(*zstdStream)
	}
	if z == nil {
		z = makeOutside(func() *zstdStream { return newZstdStream(class) })
	}
	z.src.Reset(src)
	if err := z.d.Reset(&z.src); err != nil {
		panic("batch: zstd decoder: " + err.Error())
	}
	return z
}

func newZstdStream(class int) *zstdStream {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(classBytes(class))))
	if err != nil {
		panic("batch: zstd decoder: " + err.Error())
	}
	return &zstdStream{d: d, class: class}
}

func (z *zstdStream) close() {
	z.src.Reset(nil)
	if err := z.d.Reset(nil); err != nil {
		panic("batch: zstd decoder: " + err.Error())
	}
	if z.class <= maxPooledClass {
		zstdStreams[z.class].Put(z)
	}
}

// measureZstd decides how a payload is decoded: in one piece, of at most
// pieceBytes, or if windowBytes is not 0 with a window of that size.
func measureZstd(src []byte, maxBytes int) (piece, windowBytes int, err error) {
	s := surveyZstd(src)
	switch {
	case s.claimed > maxBytes:
		return 0, 0, errInflated(Zstd, maxBytes)
	case s.window > maxZstdWindowBytes:
		return 0, 0, fmt.Errorf("%w: a zstd window of %d bytes: at most %d", ErrTooLarge, s.window, maxZstdWindowBytes)
	case s.lies:
		return 0, 0, errInflate(Zstd, "content size beyond what the blocks can hold")
	case min(s.window, s.most) > MaxWindowBytes:
		return 0, 0, fmt.Errorf("%w: a zstd window of %d bytes, and more in it than %d; send smaller batches, or compress them at a lower level",
			ErrTooLarge, s.window, MaxWindowBytes)
	case s.most > wholeBytes && s.window < s.most:
		return pieceBytes, s.window, nil
	}
	return s.most, 0, nil
}

// zstdSurvey is what the frames of a payload say of themselves.
type zstdSurvey struct {
	window  int  // the largest
	claimed int  // the largest content
	most    int  // bytes that all their blocks can decompress to
	lies    bool // a frame claims more content than its blocks can decompress to
}

// surveyZstd walks the frames in src without decoding them. The walk ends where
// src stops being well-formed, which is where the decoder will.
func surveyZstd(src []byte) (s zstdSurvey) {
	for len(src) > 0 {
		var h zstd.Header
		if h.Decode(src) != nil {
			return s
		}
		src = src[h.HeaderSize:]
		if h.Skippable {
			src = src[min(len(src), int(h.SkippableSize)):]
			continue
		}
		content := int(min(h.FrameContentSize, math.MaxInt32))
		if h.SingleSegment {
			s.window = max(s.window, content, minZstdWindowBytes)
		}
		s.window = max(s.window, int(min(h.WindowSize, math.MaxInt32)))
		s.claimed = max(s.claimed, content)
		var most int
		var whole bool
		most, src, whole = surveyZstdBlocks(src)
		if h.HasFCS {
			s.lies = s.lies || content > most
			most = min(most, content)
		}
		s.most += most
		if !whole {
			return s
		}
		if h.HasCheckSum {
			src = src[min(len(src), 4):]
		}
	}
	return s
}

// surveyZstdBlocks walks the blocks of a frame, and returns the most that they
// can decompress to, what follows them, and whether they are all there.
func surveyZstdBlocks(src []byte) (most int, rest []byte, whole bool) {
	for last := false; !last; {
		if len(src) < 3 {
			return most, nil, false
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
	return most, src, true
}

func compressZstd(dst, src []byte, level int) ([]byte, error) {
	speed, err := zstdSpeed(level)
	if err != nil {
		return dst, err
	}
	e, _ := zstdEncoders[speed].Get().(*zstd.Encoder)
	if e == nil {
		e = makeOutside(func() *zstd.Encoder {
			e := newZstdEncoder(speed)
			e.EncodeAll(nil, nil) // it makes what it needs at its first use
			return e
		})
	}
	defer zstdEncoders[speed].Put(e)
	return e.EncodeAll(src, dst), nil
}

// zstdSpeed returns what the library has for a level.
func zstdSpeed(level int) (zstd.EncoderLevel, error) {
	switch {
	case level < minZstdLevel || level > maxZstdLevel:
		return 0, fmt.Errorf("%w: %d, zstd has %d to %d", ErrLevel, level, minZstdLevel, maxZstdLevel)
	case level == DefaultLevel:
		return zstd.SpeedDefault, nil
	}
	return zstd.EncoderLevelFromZstd(level), nil
}

// newZstdEncoder makes an encoder.
func newZstdEncoder(speed zstd.EncoderLevel) *zstd.Encoder {
	// No checksum: the batch has one.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(speed),
		zstd.WithWindowSize(zstdWindowBytes), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("batch: zstd encoder: " + err.Error())
	}
	return e
}
