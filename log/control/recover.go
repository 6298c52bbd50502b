package control

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Suffixes of tidwall/wal. A .START file is what a truncation of the front
// leaves of its segment, an .END file what one of the back leaves; either is
// complete and synced once it has that name. Files on their way to a name end in
// .TEMP (tidwall/wal's) or .tmp (vfs.WriteFile's), and never counted.
const (
	suffixStart = ".START"
	suffixEnd   = ".END"
)

// segmentName names the segment whose first record is index.
func segmentName(index uint64) string { return fmt.Sprintf("%020d", index) }

// contents is what the names in a log's directory amount to.
type contents struct {
	names []string // the segments that count, in order
	drop  []string // those that an interrupted truncation still has to remove
	temp  []string // never finished
}

// recoverDir makes the files in dir those of an intact log, all of it durable:
// it finishes a truncation that was under way, cuts a torn tail, and writes the
// last segment again. It returns the log's first index and that segment, which
// has no name in a directory without any.
//
// Nothing is changed before everything has been read and accepted.
func recoverDir(fs vfs.FS, dir string, accept accept) (first uint64, last segment, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return 0, segment{}, err
	}
	c, err := classify(dir, names)
	if err != nil {
		return 0, segment{}, err
	}
	if first, last, err = c.scan(fs, dir, accept); err != nil {
		return 0, segment{}, err
	}
	if err := c.finish(fs, dir); err != nil {
		return 0, segment{}, err
	}
	if len(c.names) > 0 {
		name, data := path.Join(dir, last.name), last.data[:last.intact]
		err := vfs.WriteFile(fs, name, data)
		if vfs.NoSpace(err) {
			err = writeInPlace(fs, name, data)
		}
		if err != nil {
			return 0, segment{}, err
		}
	}
	last.data = nil
	return first, last, nil
}

// writeInPlace writes data, which is what the file begins with, over itself,
// cuts off the rest, and syncs. It needs no space, and a crash leaves each
// sector with these bytes or as it was.
func writeInPlace(fs vfs.FS, name string, data []byte) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	if err = f.Truncate(int64(len(data))); err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// rewindDir makes the files in dir those of a log that ends before record next,
// or earlier if that is how far they reach: after a change of this process that
// found no room. What is left was synced before the change, or by its
// truncation. It returns the first index and the last segment.
func rewindDir(fs vfs.FS, dir string, next uint64) (first uint64, last segment, err error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return 0, segment{}, err
	}
	c, err := classify(dir, names)
	if err != nil {
		return 0, segment{}, err
	}
	if err := c.finish(fs, dir); err != nil {
		return 0, segment{}, err
	}
	if len(c.names) == 0 {
		return 0, segment{}, fmt.Errorf("no segment in %s", dir)
	}
	for n := len(c.names) - 1; n > 0 && indexOf(c.names[n]) >= next; n-- {
		if err := fs.Remove(path.Join(dir, c.names[n][:20])); err != nil {
			return 0, segment{}, err
		}
		c.names = c.names[:n]
	}
	name := c.names[len(c.names)-1][:20]
	last = segment{name: name, first: indexOf(name)}
	if err := last.cut(fs, path.Join(dir, name), next); err != nil {
		return 0, segment{}, err
	}
	return indexOf(c.names[0]), last, fs.SyncDir(dir)
}

// cut shortens the segment's file to its records below next, durably.
func (s *segment) cut(fs vfs.FS, file string, next uint64) error {
	data, err := vfs.ReadFile(fs, file)
	if err != nil {
		return err
	}
	for s.next() < next && s.intact < len(data) {
		n, err := checkRecord(data[s.intact:], s.next(), func(frame) error { return nil })
		if err != nil {
			break // written by the change
		}
		s.intact += n
		s.ends = append(s.ends, s.intact)
	}
	f, err := fs.Open(file)
	if err != nil {
		return err
	}
	if err = f.Truncate(int64(s.intact)); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// scan reads all segments, and returns the first index and the last segment.
func (c contents) scan(fs vfs.FS, dir string, accept accept) (first uint64, last segment, err error) {
	last.first = 1
	for i, name := range c.names {
		file := path.Join(dir, name)
		data, err := vfs.ReadFile(fs, file)
		if err != nil {
			return 0, segment{}, err
		}
		s := segment{name: name[:20], first: indexOf(name), data: data}
		if i == 0 {
			first = s.first
		} else if s.first != last.next() {
			err := fmt.Errorf("begins at record %d, the segment before it ends before %d", s.first, last.next())
			return 0, segment{}, &CorruptError{Path: file, Err: err}
		}
		if err := s.scan(file, i == len(c.names)-1, accept); err != nil {
			return 0, segment{}, err
		}
		last = s
	}
	return max(first, 1), last, nil
}

// classify sorts the names in dir. Like tidwall/wal it takes no notice of names
// that are not a log's.
func classify(dir string, names []string) (contents, error) {
	var c contents
	start, end := -1, -1
	for _, name := range names {
		if indexOf(name) == 0 {
			continue
		}
		switch suffix := name[20:]; {
		case strings.HasSuffix(suffix, ".TEMP") || strings.HasSuffix(suffix, ".tmp"):
			c.temp = append(c.temp, name)
			continue
		case suffix == suffixStart && start < 0:
			start = len(c.names)
		case suffix == suffixEnd && end < 0:
			end = len(c.names)
		case suffix == "":
		default:
			continue
		}
		c.names = append(c.names, name)
	}
	switch {
	case start >= 0 && end >= 0:
		err := errors.New("a truncation of the front and one of the back are both unfinished")
		return contents{}, &CorruptError{Path: path.Join(dir, c.names[end]), Err: err}
	case start >= 0:
		c.drop, c.names = c.names[:start], c.names[start:]
	case end >= 0:
		c.drop, c.names = c.names[end+1:], c.names[:end+1]
		// The segment that the .END file replaces sorts before it.
		if end > 0 && indexOf(c.names[end-1]) == indexOf(c.names[end]) {
			c.names = append(c.names[:end-1:end-1], c.names[end])
		}
	}
	return c, nil
}

// indexOf returns the index in a segment's name, or 0 if it has none.
func indexOf(name string) uint64 {
	if len(name) < 20 {
		return 0
	}
	index, err := strconv.ParseUint(name[:20], 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// finish does what is left of an interrupted truncation. The unfinished file
// keeps its name until the others are gone for good, so that finish can itself
// be interrupted.
func (c contents) finish(fs vfs.FS, dir string) error {
	if err := fs.SyncDir(dir); err != nil {
		return err
	}
	for _, name := range append(c.temp, c.drop...) {
		if err := fs.Remove(path.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := fs.SyncDir(dir); err != nil {
		return err
	}
	for _, name := range c.names {
		if plain := name[:20]; plain != name {
			if err := fs.Rename(path.Join(dir, name), path.Join(dir, plain)); err != nil {
				return err
			}
		}
	}
	return fs.SyncDir(dir)
}
