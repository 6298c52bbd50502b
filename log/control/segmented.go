package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/tidwall/wal"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// segmented is records on tidwall/wal. It adds what that library leaves out:
// syncs of the directory, a first index other than 1, and an error in place of
// a panic for a segment that changed under it.
type segmented struct {
	fs   vfs.FS
	dir  string
	wal  *wal.Log
	opt  wal.Options
	next uint64

	// tail is the number of bytes in the last segment, reckoned as tidwall/wal
	// does, so as to know when it has begun another, whose name needs a sync.
	tail   int
	cycled bool
}

func openSegmented(fsys vfs.FS, dir string, last segment, segmentBytes int) (*segmented, error) {
	s := &segmented{fs: fsys, dir: dir, next: last.next(), tail: last.intact}
	// NoSync only moves the sync from the end of a write to our own call: a
	// segment that is full is synced in any case before the next is created.
	s.opt = wal.Options{SegmentSize: segmentBytes, NoSync: true, NoCopy: true, AllowEmpty: true}
	return s, s.open()
}

func (s *segmented) open() error {
	w, err := wal.Open(s.dir, &s.opt)
	if err != nil {
		return err
	}
	s.wal = w
	if last, err := w.LastIndex(); err != nil || last+1 != s.next {
		return errors.Join(fmt.Errorf("tidwall/wal ends at %d, want %d", last, s.next-1), err, w.Close())
	}
	return s.fs.SyncDir(s.dir)
}

func (s *segmented) write(frames [][]byte) error {
	var b wal.Batch
	if s.tail > s.opt.SegmentSize { // opened with a smaller size than before
		s.tail, s.cycled = 0, true
	}
	for i, fr := range frames {
		b.Write(s.next+uint64(i), fr)
		s.tail += uvarintBytes(len(fr)) + len(fr)
		if s.tail >= s.opt.SegmentSize {
			s.tail, s.cycled = 0, true
		}
	}
	s.next += uint64(len(frames))
	return s.wal.WriteBatch(&b)
}

func uvarintBytes(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }

func (s *segmented) sync() error {
	if err := s.wal.Sync(); err != nil {
		return err
	}
	if !s.cycled {
		return nil
	}
	s.cycled = false
	return s.fs.SyncDir(s.dir)
}

func (s *segmented) read(index uint64) (fr []byte, err error) {
	defer catch(&err)
	b, err := s.wal.Read(index)
	if errors.Is(err, wal.ErrCorrupt) {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return bytes.Clone(b), err // b is tidwall/wal's own
}

func (s *segmented) truncateFront(first uint64) (err error) {
	defer catch(&err)
	if err := s.wal.TruncateFront(first); err != nil {
		return err
	}
	return s.resume()
}

func (s *segmented) truncateBack(next uint64) (err error) {
	defer catch(&err)
	if err := s.wal.TruncateBack(next - 1); err != nil {
		return err
	}
	s.next = next
	return s.resume()
}

// resume makes a truncation's renames durable, and finds the size of what is
// now the last segment.
func (s *segmented) resume() error {
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	name, err := s.lastSegment()
	if err != nil {
		return err
	}
	info, err := s.fs.Stat(path.Join(s.dir, name))
	if err != nil {
		return err
	}
	s.tail, s.cycled = int(info.Size()), false
	return nil
}

func (s *segmented) lastSegment() (string, error) {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return "", err
	}
	for i := len(names) - 1; i >= 0; i-- {
		if len(names[i]) == 20 && indexOf(names[i]) > 0 {
			return names[i], nil
		}
	}
	return "", fmt.Errorf("no segment in %s", s.dir)
}

// reset names the only segment, which is empty, after the record to come.
func (s *segmented) reset(next uint64) error {
	name, err := s.lastSegment()
	if err != nil {
		return err
	}
	if err := s.wal.Close(); err != nil {
		return err
	}
	if err := s.fs.Rename(path.Join(s.dir, name), path.Join(s.dir, segmentName(next))); err != nil {
		return err
	}
	s.next, s.tail, s.cycled = next, 0, false
	return s.open()
}

// rewind implements records. tidwall/wal's memory is ahead of its files after a
// failed write, and it may have lost its file, so another is opened.
func (s *segmented) rewind(next uint64) (first, end uint64, err error) {
	// Close syncs, and the system tells of a failed sync only once (R9). That
	// tidwall/wal has no file any more, or a closed one, is no such error.
	var pe *fs.PathError
	if err := s.wal.Close(); errors.As(err, &pe) && pe.Op == "sync" && !errors.Is(err, fs.ErrClosed) {
		return 0, 0, err
	}
	first, last, err := rewindDir(s.fs, s.dir, next)
	if err != nil {
		return 0, 0, err
	}
	s.next, s.tail, s.cycled = last.next(), last.intact, false
	return first, last.next(), s.open()
}

func (s *segmented) close() error { return s.wal.Close() }

// catch turns a panic into an error. tidwall/wal reads sealed segments when
// they are asked for, and indexes past what it finds if one has shrunk since
// Open checked it.
func catch(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: tidwall/wal: %v", errDamaged, v)
	}
}
