// Package vfs is the seam between Flotilla and the file system.
//
// Every byte that must survive a crash goes through an FS: the real one (OS)
// in production, and in tests a memory double (Mem) that can lose power at any
// operation and fails on command. The seam is narrow: positioned reads and
// writes, the two kinds of sync, and the few directory operations the formats
// need. There is no append mode and no shared file position.
//
// # What is assumed of a disk
//
//   - After Sync or SyncData returned nil, the bytes written before it survive
//     a power cut. SyncData also makes the file's size durable, if it grew.
//   - A file's name (after a create, a rename or a remove) is durable only once
//     SyncDir of its directory returned nil.
//   - A rename is atomic: after a crash, the old or the new name holds, never a
//     mixture.
//   - Bytes that were written but not synced may be there after a crash, or the
//     old ones, or zeros, independently for every 512-byte sector. A sector is
//     never a mixture of old and new bytes.
//   - After a failed sync nothing is known about any byte written since the
//     last good one, and no later sync makes it known.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// ErrLocked reports that another process, or another holder in this one, holds
// the lock on a file.
var ErrLocked = errors.New("vfs: locked")

// Usage is how full a file system is, in bytes.
type Usage struct {
	FreeBytes  int64 // available to this process for new files
	TotalBytes int64 // in use or available; what only root may use is not counted
}

// NoSpace reports an error of a disk, or a quota, that is full: what was asked
// has not happened, or not wholly, and can be asked again when there is space.
// It is false for an error of a sync, which is final whatever its cause (R9).
func NoSpace(err error) bool {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return false
	}
	var pe *fs.PathError
	return !errors.As(err, &pe) || !slices.Contains(syncOps, pe.Op)
}

// syncOps are the operations in the *fs.PathErrors of failed syncs: those of
// package os, of OS and of Mem.
var syncOps = []string{"sync", "fsync", "fdatasync", "syncdir"}

// NoFiles reports that the process, or the system, has as many files open as it
// may: nothing was opened, and so nothing was synced either.
func NoFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// FS is a file system. Names are slash-separated paths that OS hands to the
// operating system unchanged. All methods are safe for concurrent use, and
// return errors that match fs.ErrNotExist and fs.ErrExist where those apply,
// and syscall.ENOSPC for a full disk.
type FS interface {
	// Create opens name for reading and writing, and creates it empty. A file
	// of that name that exists already is an error matching fs.ErrExist.
	Create(name string) (File, error)

	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)

	// Remove unlinks a file or an empty directory. Open Files of it stay usable.
	Remove(name string) error

	// RemoveAll unlinks name and all below it; no error if it does not exist.
	RemoveAll(name string) error

	// Rename moves a file, replacing a file at newName atomically.
	Rename(oldName, newName string) error

	// MkdirAll creates a directory and its missing parents. It syncs nothing:
	// see SyncDir, and MkdirAllSync for both.
	MkdirAll(name string) error

	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)

	// Stat describes a file or a directory.
	Stat(name string) (fs.FileInfo, error)

	// SyncDir makes the names in a directory durable: what was created, renamed
	// or removed in it before the call.
	SyncDir(name string) error

	// Lock creates name if needed and locks it for this process until the
	// Closer is closed or the process ends, or returns an error matching
	// ErrLocked.
	Lock(name string) (io.Closer, error)

	// Free returns the bytes available for new files in the file system that
	// holds the directory name: FreeBytes of Usage.
	Free(name string) (bytes int64, err error)

	// Usage returns how large the file system is that holds the directory name,
	// and how much of it is available.
	Usage(name string) (Usage, error)
}

// File is an open file. ReadAt, WriteAt, WriteVecAt, WriteBack and Size are
// safe to call at the same time as each other and as a sync.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Name returns the name that the file was opened with.
	Name() string

	// WriteVecAt writes the buffers one after the other from offset off, as one
	// vectored write where the platform has it. It returns an error if fewer
	// bytes were written than the buffers hold. It keeps no reference to bufs,
	// and may change the slice of slices, not the bytes.
	WriteVecAt(bufs [][]byte, off int64) (n int64, err error)

	// Size returns the file's length in bytes.
	Size() (int64, error)

	// Truncate sets the file's length.
	Truncate(size int64) error

	// Preallocate makes sure that writes in [0, size) need no new space, and
	// extends the file to size if it is shorter; new bytes read as zeros. A full
	// disk is an error matching syscall.ENOSPC. Where the platform cannot, it
	// writes zeros.
	Preallocate(size int64) error

	// Sync makes the file's bytes and its metadata durable (fsync).
	Sync() error

	// SyncData makes the file's bytes durable, and its size if it changed
	// (fdatasync).
	SyncData() error

	// WriteBack asks the system to start writing [off, off+n) to the disk and
	// does not wait. It is a hint, and makes nothing durable.
	WriteBack(off, n int64)
}
