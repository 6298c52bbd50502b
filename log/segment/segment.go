// Package segment keeps committed record batches of one partition in files.
//
// A segment is a data file `<base offset>.seg` of contiguous batches, exactly
// as a Kafka log segment holds them, and an index `<base offset>.index` that
// finds a batch by offset, position or time. Names carry the base offset as 20
// decimal digits, so that they sort. Only committed batches are written, in
// offset order, so a segment never needs to undo anything but a torn tail.
//
// # Data file
//
// A header of 128 bytes, little-endian, written once when the file is created
// (it lies in one 512-byte sector, so it is never half old and half new):
//
//	0          8        10      12       16         32          36
//	+----------+--------+-------+--------+----------+-----------+----------+
//	| FLOTSEG1 | format | flags | key id | topic id | partition | reserved |
//	+----------+--------+-------+--------+----------+-----------+----------+
//	40            48                56                  64      80         124    128
//	+-------------+-----------------+-------------------+-------+----------+------+
//	| base offset | cleaned through | tombstone horizon | nonce | reserved | crc  |
//	+-------------+-----------------+-------------------+-------+----------+------+
//
// flags are incompatible flags: an unknown one means that this build must not
// read the file. Key id 0 means not encrypted, and then the nonce is zero.
// Offsets below cleaned through have been compacted, so there may be gaps
// between their batches; at and above it there are none. The tombstone horizon
// is the highest offset whose tombstone was dropped, or -1. crc is CRC32C over
// bytes [0, 124). Reserved bytes are zero.
//
// Batches follow from byte 128 without padding. Their first 16 bytes (base
// offset, length, leader epoch) lie outside the batch's own CRC; the index
// holds a running checksum over them.
//
// # Index file
//
// A header of 32 bytes, then blocks; each block describes the batches of one
// write to the data file:
//
//	0          8        10      12         16            24        28    32
//	+----------+--------+-------+----------+-------------+---------+-----+
//	| FLOTIDX1 | format | flags | reserved | base offset | seg crc | crc |
//	+----------+--------+-------+----------+-------------+---------+-----+
//
//	0     4         6       8           12        16           24              32           36         40
//	+-----+---------+-------+-----------+---------+------------+---------------+------------+----------+------- - -
//	| crc | entries | flags | start pos | end pos | end offset | max timestamp | prefix sum | reserved | entries
//	+-----+---------+-------+-----------+---------+------------+---------------+------------+----------+------- - -
//
// seg crc is the crc of the segment's header: an index belongs to one file.
// A block's crc is CRC32C over the rest of it. start pos is the end pos of the
// block before (128 in the first). End offset (the next offset), max timestamp
// and prefix sum (CRC32C) describe everything from the start of the segment to
// end pos. Block flag 1 marks the footer of a sealed segment: a block without
// entries, the last of the file.
//
// An entry of 16 bytes is written for the first batch of the segment and then
// for the first batch that starts 4 KiB or more after the last entry:
//
//	0                 4          8
//	+-----------------+----------+-----------------------------------+
//	| relative offset | position | max timestamp of the bytes before |
//	+-----------------+----------+-----------------------------------+
//
// so it serves look-ups by time too: the timestamps never decrease.
//
// An index is never needed: Open writes one again from the data if it is
// missing, damaged, or behind.
package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

const (
	// MaxBytes bounds a data file. Positions in an index are 32-bit.
	MaxBytes = 1 << 31

	// CopyBytes is the batch size below which batches are copied into runs
	// for a vectored write, which is cheaper than a vector each.
	CopyBytes = 4 << 10

	dataSuffix  = ".seg"
	indexSuffix = ".index"
	nameDigits  = 20
)

var (
	// ErrCorrupt matches every *CorruptError.
	ErrCorrupt = errors.New("segment: corrupt")

	// ErrVersion reports an intact file in a format, or with an incompatible
	// flag, of a newer build.
	ErrVersion = errors.New("segment: unsupported version")

	// ErrGone reports a read of a segment after Remove.
	ErrGone = errors.New("segment: removed")
)

// CorruptError says which file is damaged, from where on, and how.
type CorruptError struct {
	File     string
	Offset   int64 // first log offset that cannot be trusted
	Position int64 // byte in File, or -1 if it is the file as a whole
	Err      error
}

func (e *CorruptError) Error() string {
	if e.Position < 0 {
		return fmt.Sprintf("segment: corrupt at offset %d in %s: %v", e.Offset, e.File, e.Err)
	}
	return fmt.Sprintf("segment: corrupt at offset %d in %s, byte %d: %v", e.Offset, e.File, e.Position, e.Err)
}

// Is makes errors.Is(err, ErrCorrupt) true; Unwrap keeps the cause reachable.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
func (e *CorruptError) Unwrap() error        { return e.Err }

// Segment is one data file and its index.
//
// Append, Seal and Remove are called by one goroutine at a time; the other
// methods may run beside them and each other.
type Segment struct {
	files *Files
	dir   string
	hdr   Header

	mu     sync.Mutex // never held over I/O
	st     state      // what is written and may be read
	sealed bool
	gone   bool
	damage *CorruptError // set by Open only

	index    indexState
	hint     hint
	prefixes prefixes
	firstTS  int64 // greatest timestamp of the first batch; see FirstTimestamp
	hasTS    bool  // firstTS is known

	// data and idx are held from the first write to the sync that covers it:
	// a file that is closed with unsynced pages can lose its write error.
	// writing is set while the writer uses them.
	data, idx *handle
	writing   bool
}

// state describes a segment up to a batch boundary.
type state struct {
	end   int64  // offset after the last batch
	size  int64  // position after the last batch
	maxTS int64  // greatest timestamp so far, math.MinInt64 if none
	sum   uint32 // CRC32C of the batches' prefixes
}

// hint remembers where the last range ended, for a reader that goes on there.
type hint struct{ offset, pos int64 }

// DataName and IndexName return the names of the files of a segment.
func DataName(base int64) string  { return fmt.Sprintf("%0*d%s", nameDigits, base, dataSuffix) }
func IndexName(base int64) string { return fmt.Sprintf("%0*d%s", nameDigits, base, indexSuffix) }

// ParseName returns the base offset in a data file's name, and false for any
// other name.
func ParseName(name string) (base int64, ok bool) {
	digits, ok := strings.CutSuffix(name, dataSuffix)
	if !ok || len(digits) != nameDigits {
		return 0, false
	}
	u, err := strconv.ParseUint(digits, 10, 63)
	return int64(u), err == nil
}

// Base returns the offset that the segment starts at.
func (s *Segment) Base() int64 { return s.hdr.Base }

// Header returns the header of the data file.
func (s *Segment) Header() Header { return s.hdr }

// Name returns the path of the data file.
func (s *Segment) Name() string { return path.Join(s.dir, DataName(s.hdr.Base)) }

func (s *Segment) indexName() string { return path.Join(s.dir, IndexName(s.hdr.Base)) }

// End returns the offset after the last batch.
func (s *Segment) End() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.end
}

// Bytes returns the length of the data file, its header included.
func (s *Segment) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.size
}

// Extent returns End and Bytes of one moment, while batches may be appended.
func (s *Segment) Extent() (end, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.end, s.st.size
}

// MaxTimestamp returns the greatest timestamp in the segment in milliseconds,
// or math.MinInt64 if it holds no batch.
func (s *Segment) MaxTimestamp() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.maxTS
}

// FirstTimestamp returns the greatest timestamp of the first batch, in
// milliseconds, and false if there is no batch, or none was appended or loaded
// since Open.
func (s *Segment) FirstTimestamp() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.firstTS, s.hasTS
}

// Sealed reports whether the segment takes no more appends.
func (s *Segment) Sealed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sealed
}

// Damage returns what Open found below the end it was asked for, or nil. The
// segment then serves [Base, End) and takes no appends.
func (s *Segment) Damage() *CorruptError { return s.damage }

// Remove unlinks both files. Ranges that are out stay readable until they are
// released; a Range call after Remove returns ErrGone. It syncs nothing: a
// name may come back after a power cut.
func (s *Segment) Remove() error {
	s.mu.Lock()
	s.gone = true
	data, idx := s.takeHoldLocked()
	s.mu.Unlock()
	releaseAll(data, idx)
	if err := s.files.remove(s.Name()); err != nil {
		return err
	}
	return s.files.remove(s.indexName())
}

// Remove unlinks the files of a segment of dir that is not open, as far as they
// are there. It syncs nothing.
func Remove(fsys vfs.FS, dir string, base int64) error {
	if err := unlink(fsys, path.Join(dir, DataName(base))); err != nil {
		return err
	}
	return unlink(fsys, path.Join(dir, IndexName(base)))
}

// Discard is Remove for a segment that was opened by files and is in nobody's use.
func Discard(files *Files, dir string, base int64) error {
	if err := files.remove(path.Join(dir, DataName(base))); err != nil {
		return err
	}
	return files.remove(path.Join(dir, IndexName(base)))
}

// Move moves the files of a segment, which is whole, synced, and in nobody's use,
// to another directory, where it can be opened then; files of the same names are
// replaced, also those of a segment that is read meanwhile. It syncs nothing. A crash may leave the data file alone where it was:
// moving it again is right then.
func Move(files *Files, from, to string, base int64) error {
	for _, name := range []string{IndexName(base), DataName(base)} {
		files.forget(path.Join(from, name))
		files.forget(path.Join(to, name))
		err := files.fs.Rename(path.Join(from, name), path.Join(to, name))
		if err != nil && !(name == IndexName(base) && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("segment: move: %w", err)
		}
		files.forget(path.Join(to, name)) // a reader may have opened the file that was there
	}
	return nil
}

func (s *Segment) takeHoldLocked() (data, idx *handle) {
	data, idx = s.data, s.idx
	s.data, s.idx = nil, nil
	return data, idx
}

// startState is the state of a segment without batches.
func startState(base int64) state {
	return state{end: base, size: HeaderBytes, maxTS: math.MinInt64}
}

// advance returns the state after the batch with header h and its 16-byte
// prefix.
func (st state) advance(h batch.Header, prefix []byte) state {
	return state{
		end:   h.BaseOffset + int64(h.LastOffsetDelta) + 1,
		size:  st.size + int64(h.Size()),
		maxTS: max(st.maxTS, h.MaxTimestamp),
		sum:   checksum(st.sum, prefix),
	}
}
