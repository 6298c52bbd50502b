package control

import (
	"fmt"
	"path"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// single is the double: records in one segment file, for the file systems of
// tests and the simulator. It truncates by writing the file again, through the
// same .START and .END files as tidwall/wal, so recoverDir finishes for both.
type single struct {
	fs    vfs.FS
	dir   string
	file  vfs.File
	first uint64
	ends  []int // as segment.ends
}

func openSingle(fs vfs.FS, dir string, first uint64, last segment) (*single, error) {
	if last.first != first {
		return nil, fmt.Errorf("records %d and %d are in two segments, the double keeps one", first, last.first)
	}
	if last.name == "" {
		last.name = segmentName(first)
		if err := vfs.WriteFile(fs, path.Join(dir, last.name), nil); err != nil {
			return nil, err
		}
	}
	f, err := fs.Open(path.Join(dir, last.name))
	if err != nil {
		return nil, err
	}
	return &single{fs: fs, dir: dir, file: f, first: last.first, ends: last.ends}, nil
}

// offset returns where the first n records end.
func (s *single) offset(n int) int {
	if n == 0 {
		return 0
	}
	return s.ends[n-1]
}

func (s *single) write(frames [][]byte) error {
	var b []byte
	at := s.offset(len(s.ends))
	for _, fr := range frames {
		b = appendRecord(b, fr)
		s.ends = append(s.ends, at+len(b))
	}
	_, err := s.file.WriteAt(b, int64(at))
	return err
}

func (s *single) sync() error { return s.file.SyncData() }

func (s *single) read(index uint64) ([]byte, error) {
	i := int(index - s.first)
	b, err := s.bytes(i, i+1)
	if err != nil {
		return nil, err
	}
	fr, _, ok := splitRecord(b)
	if !ok {
		return nil, errDamaged
	}
	return fr, nil
}

// bytes reads the records [lo, hi), counted from the file's first.
func (s *single) bytes(lo, hi int) ([]byte, error) {
	from := s.offset(lo)
	b := make([]byte, s.offset(hi)-from)
	if n, err := s.file.ReadAt(b, int64(from)); n < len(b) {
		return nil, err
	}
	return b, nil
}

func (s *single) truncateFront(first uint64) error {
	return s.rewrite(int(first-s.first), len(s.ends), suffixStart)
}

func (s *single) truncateBack(next uint64) error {
	return s.rewrite(0, int(next-s.first), suffixEnd)
}

// rewrite leaves the records [lo, hi), counted from the file's first. As soon
// as the file with the suffix has its name, the truncation is decided.
func (s *single) rewrite(lo, hi int, suffix string) error {
	data, err := s.bytes(lo, hi)
	if err != nil {
		return err
	}
	old, name := segmentName(s.first), segmentName(s.first+uint64(lo))
	if err := vfs.WriteFile(s.fs, path.Join(s.dir, name+suffix), data); err != nil {
		return err
	}
	if err := s.fs.Remove(path.Join(s.dir, old)); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	from := s.offset(lo)
	ends := make([]int, 0, hi-lo)
	for _, end := range s.ends[lo:hi] {
		ends = append(ends, end-from)
	}
	s.first, s.ends = s.first+uint64(lo), ends
	return s.reopen(name+suffix, name)
}

func (s *single) reset(next uint64) error {
	old := segmentName(s.first)
	s.first = next
	return s.reopen(old, segmentName(next))
}

// reopen gives the file old its new name and goes on with it.
func (s *single) reopen(old, name string) error {
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := s.fs.Rename(path.Join(s.dir, old), path.Join(s.dir, name)); err != nil {
		return err
	}
	f, err := s.fs.Open(path.Join(s.dir, name))
	if err != nil {
		return err
	}
	s.file = f
	return s.fs.SyncDir(s.dir)
}

// rewind implements records.
func (s *single) rewind(next uint64) (first, end uint64, err error) {
	_ = s.file.Close() // it may be closed already
	first, last, err := rewindDir(s.fs, s.dir, next)
	if err != nil {
		return 0, 0, err
	}
	f, err := s.fs.Open(path.Join(s.dir, last.name))
	if err != nil {
		return 0, 0, err
	}
	s.file, s.first, s.ends = f, last.first, last.ends
	return first, last.next(), nil
}

func (s *single) close() error { return s.file.Close() }
