package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// OS is the operating system's file system. New files are readable and
// writable by their owner and readable by its group; the umask applies.
var OS FS = osFS{}

// OSFile is implemented by the files of OS, for calls that need a descriptor,
// such as sendfile. The caller must not close or seek the *os.File, which is
// valid until the File is closed.
type OSFile interface {
	OSFile() *os.File
}

const (
	filePerm = 0o640
	dirPerm  = 0o750
)

type osFS struct{}

func (osFS) Create(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) RemoveAll(name string) error { return os.RemoveAll(name) }

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

func (osFS) MkdirAll(name string) error { return os.MkdirAll(name, dirPerm) }

func (osFS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (osFS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	// A name that is no directory would sync as a file, and tell the caller
	// that its names are durable.
	info, err := d.Stat()
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "syncdir", Path: name, Err: syscall.ENOTDIR}
	}
	if err == nil {
		err = d.Sync()
	}
	return errors.Join(err, d.Close())
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, err
	}
	// flock belongs to the open file, so a second Lock in this process fails
	// too, and the kernel releases it whichever way the process ends.
	err = retryEINTR(func() error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, name)
	}
	return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
}

func (osFS) Free(name string) (int64, error) {
	u, err := OS.Usage(name)
	return u.FreeBytes, err
}

func (osFS) Usage(name string) (Usage, error) {
	var st syscall.Statfs_t
	if err := retryEINTR(func() error { return syscall.Statfs(name, &st) }); err != nil {
		return Usage{}, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	block := int64(st.Bsize)
	// Bavail can be less than nothing on file systems that keep blocks for root.
	free := max(0, int64(st.Bavail)) * block
	return Usage{FreeBytes: free, TotalBytes: int64(st.Blocks-st.Bfree)*block + free}, nil
}

// osFile is an open file of OS. What differs between platforms is in
// os_linux.go and os_other.go.
type osFile struct {
	*os.File
	raw syscall.RawConn
}

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, filePerm)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{File: f, raw: raw}, nil
}

func (f *osFile) OSFile() *os.File { return f.File }

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// control calls fn with the descriptor, which a Close at the same time cannot
// take away, and repeats it while it is interrupted.
func (f *osFile) control(op string, fn func(fd int) error) error {
	var err error
	if f.raw.Control(func(fd uintptr) {
		err = retryEINTR(func() error { return fn(int(fd)) })
	}) != nil {
		err = fs.ErrClosed // the one reason for which Control does not call
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

// extendWithZeros writes zeros from the end of the file up to size.
func (f *osFile) extendWithZeros(size int64) error {
	at, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, min(1<<20, max(0, size-at)))
	for at < size {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

func retryEINTR(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
