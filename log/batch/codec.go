package batch

import (
	"errors"
	"fmt"
	"io"
)

// Codec says how a payload is compressed. The numbers are Kafka's.
type Codec uint8

// The codecs.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

// DefaultLevel asks for a codec's usual level. The others are, as in Kafka, 1
// to 9 for Gzip, 1 to 17 for LZ4 and up to 22, also negative, for Zstd.
const DefaultLevel = 0

// ErrLevel reports a compression level that the codec does not have.
var ErrLevel = errors.New("batch: unknown compression level")

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String returns the name that Kafka's configurations use.
func (c Codec) String() string {
	if !c.valid() {
		return fmt.Sprintf("codec(%d)", uint8(c))
	}
	return codecNames[c]
}

// ParseCodec is the inverse of String. It returns ErrCodec for other names.
func ParseCodec(name string) (Codec, error) {
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrCodec, name)
}

func (c Codec) valid() bool { return int(c) < len(codecNames) }

// compress appends src, compressed, to dst.
func compress(dst, src []byte, c Codec, level int) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return compressGzip(dst, src, level)
	case Snappy:
		return compressSnappy(dst, src), nil
	case LZ4:
		return compressLZ4(dst, src, level)
	case Zstd:
		return compressZstd(dst, src, level)
	}
	return dst, fmt.Errorf("%w: %d", ErrCodec, uint8(c))
}

// decompress appends what src holds to dst, which must be empty, and returns
// it, also with an error, so that the caller may keep the memory. The result is
// at most maxBytes long. Whatever src claims, no buffer is made that is larger
// than that, or for Zstd than minZstdMemoryBytes, by more than a quarter.
//
// It returns ErrCodec, ErrTooLarge or ErrCorrupt.
func decompress(dst, src []byte, c Codec, maxBytes int) ([]byte, error) {
	switch c {
	case Gzip:
		return decompressGzip(dst, src, maxBytes)
	case Snappy:
		r := newSnappyReader(src, maxBytes)
		var err error
		for err == nil {
			dst, err = r.next(dst, maxBytes-len(dst), maxBytes)
		}
		return dst, atEnd(err)
	case LZ4:
		r, err := newLZ4Reader(src, maxBytes)
		for err == nil {
			dst, err = r.next(dst, maxBytes-len(dst), maxBytes)
		}
		return dst, atEnd(err)
	case Zstd:
		return decompressZstd(dst, src, maxBytes)
	}
	return dst, fmt.Errorf("%w: %d", ErrCodec, uint8(c))
}

// atEnd is the error of what was read to err, the end included.
func atEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func errInflated(c Codec, maxBytes int) error {
	return fmt.Errorf("%w: %s payload decompresses to more than %d bytes", ErrTooLarge, c, maxBytes)
}

func errInflate(c Codec, cause any) error {
	return fmt.Errorf("%w: %s: %v", ErrCorrupt, c, cause)
}

// grow returns b with room for n more bytes, at least doubling it so that a
// buffer grown step by step is copied seldom, but never beyond maxBytes.
func grow(b []byte, n, maxBytes int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	size := min(max(len(b)+n, 2*cap(b)), max(maxBytes, len(b)+n))
	return append(make([]byte, 0, size), b...)
}

// readAll appends all of r to b. One byte above maxBytes is ErrTooLarge.
func readAll(b []byte, r io.Reader, c Codec, maxBytes int) ([]byte, error) {
	for {
		if len(b) > maxBytes {
			return b, errInflated(c, maxBytes)
		}
		if len(b) == cap(b) {
			b = grow(b, min(4096, maxBytes+1-len(b)), maxBytes+1)
		}
		n, err := r.Read(b[len(b):min(cap(b), maxBytes+1)])
		b = b[:len(b)+n]
		if err == io.EOF && len(b) <= maxBytes {
			return b, nil
		}
		if err != nil && err != io.EOF {
			return b, errInflate(c, err)
		}
	}
}

// sliceWriter is an io.Writer that appends.
type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}
