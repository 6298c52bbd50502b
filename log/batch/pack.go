package batch

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// packerBytes returns what compressing takes at most, beside what it makes.
func packerBytes(codec Codec, level int) int64 {
	switch codec {
	case None, Snappy:
		return 256 << 10
	case Zstd:
		switch speed, err := zstdSpeed(level); {
		case err != nil:
			return 0
		case speed == zstd.SpeedBestCompression:
			return 40 << 20
		case speed == zstd.SpeedBetterCompression:
			return 8 << 20
		}
	}
	return 4 << 20
}

// pack appends to dst what u gives, compressed. dst becomes at most most bytes
// long, or the error is ErrTooLarge.
func pack(dst []byte, u *unfolder, codec Codec, level, most int) ([]byte, error) {
	w := limitedWriter{b: dst, most: most}
	var err error
	switch codec {
	case None:
		err = eachPiece(u, &w)
	case Gzip:
		err = packGzip(&w, u, level)
	case Snappy:
		err = packSnappy(&w, u)
	case LZ4:
		err = packLZ4(&w, u, level)
	case Zstd:
		err = packZstd(&w, u, level)
	default:
		err = fmt.Errorf("%w: %d", ErrCodec, uint8(codec))
	}
	return w.b, err
}

// limitedWriter appends up to a length.
type limitedWriter struct {
	b    []byte
	most int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if err := w.check(len(p)); err != nil {
		return 0, err
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

// check returns an error if n bytes more are too many.
func (w *limitedWriter) check(n int) error {
	if len(w.b)+n > w.most {
		return fmt.Errorf("%w: more than %d bytes once it is compressed anew", ErrTooLarge, w.most)
	}
	return nil
}

// eachPiece writes all pieces to w.
func eachPiece(u *unfolder, w io.Writer) error {
	for {
		piece, err := u.next()
		if err != nil {
			return atEnd(err)
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
}

// blocks hands what is written to it on in blocks of one size, but for the last.
type blocks struct {
	buf   []byte // its capacity is a block's size
	block func(b []byte) error
}

func (w *blocks) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		m := copy(w.buf[len(w.buf):cap(w.buf)], p)
		w.buf, p = w.buf[:len(w.buf)+m], p[m:]
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (w *blocks) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.block(w.buf)
	w.buf = w.buf[:0]
	return err
}

// eachBlock calls block with what u gives, in blocks of size bytes, at most
// 64 KiB.
func eachBlock(u *unfolder, size int, block func(b []byte) error) error {
	class := classOf(size)
	scratch := takeScratch(class)
	defer putScratch(scratch, class)
	if cap(*scratch) < size {
		*scratch = make([]byte, 0, size)
	}
	w := blocks{buf: (*scratch)[:0:size], block: block}
	if err := eachPiece(u, &w); err != nil {
		return err
	}
	return w.flush()
}

func packSnappy(w *limitedWriter, u *unfolder) error {
	if _, err := w.Write(snappyHeader); err != nil {
		return err
	}
	return eachBlock(u, snappyBlockBytes, func(b []byte) error {
		w.b = appendSnappyBlock(w.b, b)
		return w.check(0)
	})
}

func packLZ4(w *limitedWriter, u *unfolder, level int) error {
	if err := checkLZ4Level(level); err != nil {
		return err
	}
	c := lz4Compressors.Get().(*lz4Compressor)
	defer lz4Compressors.Put(c)
	w.b = appendLZ4Header(w.b)
	err := eachBlock(u, lz4BlockBytes, func(b []byte) error {
		w.b = c.appendBlock(w.b, b, level)
		return w.check(0)
	})
	if err == nil {
		_, err = w.Write(binary.LittleEndian.AppendUint32(nil, 0))
	}
	return err
}

func packGzip(w *limitedWriter, u *unfolder, level int) error {
	z, err := takeGzipWriter(level)
	if err != nil {
		return err
	}
	defer gzipWriters[level].Put(z)
	z.zw.Reset(w)
	defer z.zw.Reset(nil)
	if err := eachPiece(u, z.zw); err != nil {
		return err
	}
	return z.zw.Close()
}

func packZstd(w *limitedWriter, u *unfolder, level int) error {
	speed, err := zstdSpeed(level)
	if err != nil {
		return err
	}
	e, _ := zstdPackers[speed].Get().(*zstd.Encoder)
	if e == nil {
		e = makeOutside(func() *zstd.Encoder { return newZstdEncoder(speed) })
	}
	defer zstdPackers[speed].Put(e)
	e.Reset(w)
	defer e.Reset(nil)
	if err := eachPiece(u, e); err != nil {
		return err
	}
	return e.Close()
}
