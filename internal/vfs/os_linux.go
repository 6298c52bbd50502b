package vfs

import (
	"errors"
	"io"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxIovecs is Linux's IOV_MAX: a longer vector is refused with EINVAL.
const maxIovecs = 1024

func (f *osFile) WriteVecAt(bufs [][]byte, off int64) (n int64, err error) {
	if off < 0 {
		return 0, &fs.PathError{Op: "pwritev", Path: f.Name(), Err: syscall.EINVAL}
	}
	err = f.control("pwritev", func(fd int) error {
		for {
			bufs = skipBytes(bufs, 0)
			if len(bufs) == 0 {
				return nil
			}
			w, err := unix.Pwritev(fd, bufs[:min(len(bufs), maxIovecs)], off+n)
			if err != nil {
				return err // control repeats it, from off+n, after EINTR
			}
			if w == 0 {
				return io.ErrShortWrite
			}
			n += int64(w)
			bufs = skipBytes(bufs, w)
		}
	})
	return n, err
}

// skipBytes returns bufs without their first n bytes and without empty buffers
// in front. It changes the slice of slices.
func skipBytes(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

func (f *osFile) SyncData() error {
	return f.control("fdatasync", unix.Fdatasync)
}

func (f *osFile) Preallocate(size int64) error {
	if size <= 0 {
		return nil
	}
	err := f.control("fallocate", func(fd int) error {
		return unix.Fallocate(fd, 0, 0, size)
	})
	if errors.Is(err, errors.ErrUnsupported) {
		return f.extendWithZeros(size)
	}
	return err
}

func (f *osFile) WriteBack(off, n int64) {
	if n <= 0 {
		return // to the kernel, 0 means up to the end of the file
	}
	// A hint: an error here is reported again by the sync that matters.
	_ = f.control("sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}
