package batch

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
)

type gzipReader struct {
	src bytes.Reader
	zr  gzip.Reader
}

type gzipWriter struct {
	dst sliceWriter
	zw  *gzip.Writer
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzipReader) }}
	gzipWriters [gzip.BestCompression + 1]sync.Pool // by level
)

func openGzip(src []byte) (*gzipReader, error) {
	r := gzipReaders.Get().(*gzipReader)
	r.src.Reset(src)
	if err := r.zr.Reset(&r.src); err != nil {
		r.close()
		return nil, errInflate(Gzip, err)
	}
	return r, nil
}

func (r *gzipReader) close() {
	r.src.Reset(nil)
	gzipReaders.Put(r)
}

func decompressGzip(dst, src []byte, maxBytes int) ([]byte, error) {
	r, err := openGzip(src)
	if err != nil {
		return dst, err
	}
	defer r.close()
	return readAll(dst, &r.zr, Gzip, maxBytes)
}

func compressGzip(dst, src []byte, level int) ([]byte, error) {
	w, err := takeGzipWriter(level)
	if err != nil {
		return dst, err
	}
	w.dst.b = dst
	w.zw.Reset(&w.dst)
	_, err = w.zw.Write(src)
	if err == nil {
		err = w.zw.Close()
	}
	if err != nil {
		panic("batch: gzip into memory: " + err.Error())
	}
	dst, w.dst.b = w.dst.b, nil
	gzipWriters[level].Put(w)
	return dst, nil
}

// takeGzipWriter returns a writer of a level, which goes back to gzipWriters.
func takeGzipWriter(level int) (*gzipWriter, error) {
	if level < 0 || level > gzip.BestCompression {
		return nil, fmt.Errorf("%w: %d, gzip has 1 to %d", ErrLevel, level, gzip.BestCompression)
	}
	if w, ok := gzipWriters[level].Get().(*gzipWriter); ok {
		return w, nil
	}
	w := new(gzipWriter)
	at := level
	if level == DefaultLevel {
		at = gzip.DefaultCompression
	}
	var err error
	if w.zw, err = gzip.NewWriterLevel(&w.dst, at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLevel, err)
	}
	return w, nil
}
