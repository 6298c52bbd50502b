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

func decompressGzip(dst, src []byte, maxBytes int) ([]byte, error) {
	r := gzipReaders.Get().(*gzipReader)
	defer gzipReaders.Put(r)
	r.src.Reset(src)
	defer r.src.Reset(nil)
	if err := r.zr.Reset(&r.src); err != nil {
		return dst, errInflate(Gzip, err)
	}
	return readAll(dst, &r.zr, Gzip, maxBytes)
}

func compressGzip(dst, src []byte, level int) ([]byte, error) {
	if level < 0 || level > gzip.BestCompression {
		return dst, fmt.Errorf("%w: %d, gzip has 1 to %d", ErrLevel, level, gzip.BestCompression)
	}
	w, _ := gzipWriters[level].Get().(*gzipWriter)
	if w == nil {
		w = new(gzipWriter)
		at := level
		if level == DefaultLevel {
			at = gzip.DefaultCompression
		}
		var err error
		if w.zw, err = gzip.NewWriterLevel(&w.dst, at); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrLevel, err)
		}
	}
	w.dst.b = dst
	w.zw.Reset(&w.dst)
	_, err := w.zw.Write(src)
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
