// Package control keeps the two small logs that a node writes rarely and must
// never lose: Votes, the term and vote of every shard, and Log, the Raft log of
// the metadata shard. Both sit on tidwall/wal. Over any file system but vfs.OS
// they sit on a double with the same contract and the same files, because
// tidwall/wal calls the operating system itself and no simulated power cut
// would reach it.
//
// # Format
//
// A directory holds tidwall/wal's binary segments. A segment is named after the
// index of its first record, 20 digits; a record is a uvarint size and a frame
// (little-endian, offsets in bytes):
//
//	0        4        8       16        24         26        27     28
//	+--------+--------+-------+---------+----------+---------+------+--------- - - -+-----+
//	| crc32c | length | index | durable | reserved | version | kind | payload       | end |
//	+--------+--------+-------+---------+----------+---------+------+--------- - - -+-----+
//
// crc32c (Castagnoli) covers every byte from offset 4 to the end. length counts
// the payload. index is the record's own number. Every record below durable had
// been synced when this one was written. reserved is zero; kind and end never
// are. Payloads by kind:
//
//	'V' a vote   | incarnation 8 | term 8 | vote term 8 | shard 4 | candidate ... |
//	'D' a delete | shard 4 |
//	'E' an entry | term 8 | appended at, Unix ns 8 | extensions length 4 | type 1 | extensions | data ... |
//
// # Torn or corrupt
//
// Open reads every byte before tidwall/wal sees the directory. A segment that
// has a successor was synced before the successor was created, so any damage in
// it is corruption. In the last segment, a damaged record is a torn write, and
// is cut off with all that follows, if two things hold:
//
//   - no intact record after it says, by its durable field, that the damaged one
//     had been synced (design R8), and
//   - something of it is missing as a power cut would leave it: the file ends
//     too early, the bytes from some point on are zeros, or the whole part of
//     it that lies in one 512-byte sector is zeros.
//
// All other damage is a *CorruptError, and nothing on disk is changed: a flipped
// bit in the newest vote must not pass for a vote that was never cast. What the
// bytes cannot tell is a damaged newest record that holds zeros for a sector or
// at its end; it is taken for torn.
//
// What Open keeps of the last segment is written to a new file, synced and
// renamed into place before Open returns: found bytes may exist in the page
// cache only, and a sync of them would prove nothing after a failed one. On a
// full disk they are written again in place instead, which takes no space.
//
// # Full disk
//
// A change that finds no room is undone: what it left of itself is cut off, and
// tidwall/wal, whose memory is ahead of its files then, is opened again. So the
// log is as it was, and is not latched.
//
// tidwall/wal truncates by removing and renaming files, without syncing the
// directory in between. That survives a power cut on file systems that make the
// operations on one directory durable in order (ext4, XFS, Btrfs, APFS); where
// that does not hold, Open finds segments that do not join, and reports them.
package control

import (
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

const (
	// DefaultSegmentBytes is the default of Options.SegmentBytes.
	DefaultSegmentBytes = 4 << 20

	// DefaultMaxEntryBytes is the default of Options.MaxEntryBytes.
	DefaultMaxEntryBytes = 8 << 20

	// DefaultCompactRecords is the default of Options.CompactRecords.
	DefaultCompactRecords = 4096

	// MaxCandidateBytes is the longest Vote.Candidate that Votes stores.
	MaxCandidateBytes = 1 << 10
)

var (
	// ErrNotFound reports an index below First or above Last. It is returned
	// unwrapped, since Raft compares its counterpart with ==.
	ErrNotFound = errors.New("control: not found")

	// ErrGap reports entries that do not continue the log.
	ErrGap = errors.New("control: gap in the log")

	// ErrTooLarge reports an entry or a candidate above its limit.
	ErrTooLarge = errors.New("control: too large")

	// ErrCorrupt matches every *CorruptError.
	ErrCorrupt = errors.New("control: corrupt")

	// ErrVersion reports an intact record that a newer build wrote.
	ErrVersion = errors.New("control: unsupported version")

	// ErrFailed reports that an earlier write or sync failed, so that what is
	// on disk past the last durable record is unknown. Only Close and a new
	// Open clear it.
	ErrFailed = errors.New("control: failed by an earlier write error")

	// ErrNoRoom reports a change for which the disk had no space, or the process
	// no file: nothing has changed, and it can be asked again. A full disk that
	// shows in a sync only is ErrFailed.
	ErrNoRoom = errors.New("control: no room now")

	// ErrClosed reports a call after Close.
	ErrClosed = errors.New("control: closed")
)

// Options tunes a log. The zero value is what production uses.
type Options struct {
	// SegmentBytes is the size at which a segment file is closed and the next
	// one begun. The double, which keeps one file, ignores it.
	SegmentBytes int

	// MaxEntryBytes limits the data and extensions of one entry of a Log.
	MaxEntryBytes int

	// CompactRecords is the number of records above which Votes rewrites
	// itself, once no more than a quarter of them are current.
	CompactRecords int

	// MakeRoom, if not nil, is called when a change finds no room, before it is
	// given up, and reports whether it is worth while to try once more.
	MakeRoom func() bool
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.MaxEntryBytes <= 0 {
		o.MaxEntryBytes = DefaultMaxEntryBytes
	}
	o.MaxEntryBytes = min(o.MaxEntryBytes, 1<<30) // a frame's length has 32 bits
	if o.CompactRecords <= 0 {
		o.CompactRecords = DefaultCompactRecords
	}
	return o
}

// CorruptError says which file is damaged where, and how. It matches
// ErrCorrupt.
type CorruptError struct {
	Path   string
	Offset int64 // of the damaged record, in bytes
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("control: corrupt at byte %d of %s: %v", e.Offset, e.Path, e.Err)
}

// Is makes errors.Is(err, ErrCorrupt) true; Unwrap keeps the cause reachable.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
func (e *CorruptError) Unwrap() error        { return e.Err }

// lock serialises calls that wait for the disk. It is a channel and not a
// sync.Mutex because a goroutine that waits for a channel counts as blocked in
// a testing/synctest bubble, so that a delayed write does not stop its clock.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) lock()   { l <- struct{}{} }
func (l lock) unlock() { <-l }

// openRecords repairs dir and opens it with what fits the file system. All of
// its records have been accepted then.
func openRecords(fs vfs.FS, dir string, opt Options, accept accept) (*sequence, error) {
	if err := vfs.MkdirAllSync(fs, dir); err != nil {
		return nil, fmt.Errorf("control: open %s: %w", dir, err)
	}
	first, last, err := recoverDir(fs, dir, accept)
	if noRoom(err) && opt.MakeRoom != nil && opt.MakeRoom() {
		first, last, err = recoverDir(fs, dir, accept)
	}
	if err != nil {
		return nil, fmt.Errorf("control: open %s: %w", dir, err)
	}
	s := &sequence{dir: dir, makeRoom: opt.MakeRoom, first: first, next: last.next(), durable: last.next()}
	if fs == vfs.OS {
		s.rec, err = openSegmented(fs, dir, last, opt.SegmentBytes)
	} else {
		s.rec, err = openSingle(fs, dir, first, last)
	}
	if err != nil {
		return nil, fmt.Errorf("control: open %s: %w", dir, err)
	}
	return s, nil
}
