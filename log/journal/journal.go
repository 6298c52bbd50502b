// Package journal is the node-wide commit journal: every Raft entry of every
// shard on a node becomes durable here, and nowhere else on the produce path.
//
// One goroutine at a time writes for all shards. It takes everything that is
// queued, writes it with one vectored write, syncs once, and wakes all who
// waited. The time of one sync is the batching window; there is no timer. A
// caller who finds nobody writing does it himself, once; what is queued
// meanwhile is the journal's own goroutine's.
//
// # Files
//
// A journal is a directory of files 00000000.journal, 00000001.journal, ...
// of one fixed size, written once with zeros when they are made and then used
// as a ring. A file's number is its slot and never changes; its sequence is the
// number of its present use, one more than that of the use before it anywhere
// in the ring. Integers are little-endian, offsets are in bytes.
//
//	0          4096       8192
//	+----------+----------+--------+--------+- - -+------------+
//	| header A | header B | record | record |     | old bytes  |
//	+----------+----------+--------+--------+- - -+------------+
//
// Both headers hold the same block; the valid one with the higher sequence
// holds. Reuse writes B, syncs, then writes A, which the next sync of the file
// makes durable: a torn B leaves the old use intact, and once records of the
// new use are durable both copies are.
//
//	0       8         12      16       20     24      28
//	+-------+---------+-------+--------+------+-------+----------+
//	| magic | version | flags | key id | slot | slots | reserved |
//	+-------+---------+-------+--------+------+-------+----------+
//	32           40         48     56           64      4092
//	+------------+----------+------+------------+-------+--------+
//	| file bytes | sequence | salt | synced LSN | zeros | crc32c |
//	+------------+----------+------+------------+-------+--------+
//
// flags are incompatible features and key id names an encryption key: both are
// 0 in this version. slots counts the ring's files when the block was written.
// crc32c (Castagnoli) covers the 4092 bytes before it, in every version.
//
// The file RING counts the ring's files, so that the loss of the last ones is
// noticed. It is replaced when the ring has grown, before the new file takes a
// record; a file that it does not count is empty.
//
//	0       8         12      16           24         28       32
//	+-------+---------+-------+------------+----------+--------+
//	| magic | version | slots | file bytes | reserved | crc32c |
//	+-------+---------+-------+------------+----------+--------+
//
// # Records
//
// Records follow each other, each padded with zeros to a multiple of 8 bytes.
//
//	0            4             8               12
//	+------------+-------------+---------------+------------------+
//	| header crc | payload crc | payload bytes | extensions bytes |
//	+------------+-------------+---------------+------------------+
//	16    24           32      40            48      56     64
//	+-----+------------+-------+-------------+-------+------+-------------+
//	| LSN | synced LSN | order | incarnation | index | term | appended at |
//	+-----+------------+-------+-------------+-------+------+-------------+
//	72      76     77      78          79          80
//	+-------+------+-------+-----------+-----------+------------+------+-----+
//	| shard | kind | flags | raft type | placement | extensions | data | pad |
//	+-------+------+-------+-----------+-----------+------------+------+-----+
//
// The header crc is seeded by the file's salt and covers the header from offset
// 4 on, and so, through the payload crc, the payload and its padding: a record
// of an earlier use of the file never passes.
//
// The LSN counts records as they are written, by one, over files and restarts.
// A record copied forward (R7) gets a new LSN and keeps in order the LSN under
// which its content was first written; for all others the two are equal. Shards
// are rebuilt by order; what was torn is told by LSN. The synced LSN is the
// highest known durable when the record was written. Placement 0 is inline; 1
// (external) is reserved and refused. flags are 0.
//
// Kinds: an entry; a truncate, which kills the entries of its shard and
// incarnation with a lower order from its index on; a drop, which kills them
// all; a mark, which only carries its synced LSN. Kills need no copying forward:
// what they kill lies before them, and the ring is reused in the order in which
// it was written.
//
// # Recovery (R8)
//
// LSNs have no gaps, a file is synced before the next one is written, and all
// records that were not yet synced at a crash carry the same synced LSN, which
// is below theirs. So at the first LSN x that is missing: if any header in the
// ring, of a file or of a record, intact and found by searching on past the
// damage, says that x was synced, x is corrupt and Open refuses, with nothing
// changed on disk. Else x was torn, and the journal ends before it.
//
// Intact records that nobody proves synced may be in the page cache only. They
// are written again, the same bytes at the same place, and synced before Open
// returns: a crash in between leaves each sector with these bytes or as it was.
// With them intact headers past the end are overwritten with zeros, so that
// they cannot follow on from what is written next; their LSNs, which nobody
// ever saw, are given again.
//
// When the queue is empty after a commit, and at Close, a mark is written, so
// that damage to the last commit is recognised as well. Between commits the
// mark is not synced: it costs one small write and survives all but a power cut.
//
// # Room (R6)
//
// Nothing is appended without room, and what a leader needs on this node to show
// what is committed always finds some. The entries of the ring are of three kinds:
//
//   - what the next checkpoints free: applied, and no other replica lacks it;
//   - what is kept for replicas that lag: half of the limit at most, see Affordable;
//   - what is pinned, that is not applied, on its way, or the last of a checkpoint.
//
// A leader reserves half of the limit at most for what is not applied: a quarter
// that any shard may take, and a quarter in equal shares. So what a shard without a
// quorum pins leaves room for the others. But no such sum holds
//   - after a restart, when all that is above the checkpoints counts as not applied,
//     up to the whole ring, of several shards, until each of them has a leader that
//     has committed in a term of its own;
//   - on a follower, whose leaders have an account each, and what deposed ones have
//     left beside it;
//   - when the last entries of more shards than the limit is for are large.
//
// If such a follower refused its leader's entries, the leader could not commit, and
// without that nothing here is applied and can be freed: for ever, when both are
// needed for a majority. So a follower looks at no share, and the ring is bounded by
// MaxBytes and by what is pinned above half of the limit. Then, when the
// checkpoints are taken, what is pinned, the entries that are asked for and what is
// kept for others fit:
//
//	MaxBytes' limit + (pinned + asked for - half the limit) >= pinned + asked for + half the limit
//
// Only a disk that is full stands in the way, and only until it is not. What makes
// a leader, and commands that free space, may have the disk's reserve.
//
// All that is pinned here is or was in the ring of the leader that reserved for it,
// so a ring does not grow without end: at worst to as many times MaxBytes as nodes
// lead shards of this one. It stays as large. What it has grown by takes nothing but
// what is pinned, so that this does not add up over restarts.
package journal

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/internal/histogram"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Defaults and bounds of Options, in bytes.
const (
	DefaultFileBytes = 64 << 20
	DefaultMaxBytes  = 1 << 30

	minFileBytes = 32 << 10
	maxFileBytes = 4 << 30
	minFiles     = 4 // in MaxBytes
	startFiles   = 2
)

var (
	// ErrNotFound reports an index outside [First, Last].
	ErrNotFound = errors.New("journal: entry not found")

	// ErrGap reports entries that do not continue the log: the first index is
	// not Last()+1, or one is not the index before it plus one.
	ErrGap = errors.New("journal: entries are not contiguous")

	// ErrTooLarge reports a record above MaxRecordBytes, or a reservation that
	// the ring can never meet.
	ErrTooLarge = errors.New("journal: too large")

	// ErrNoSpace is TryReserve's answer where Reserve would wait.
	ErrNoSpace = errors.New("journal: no space now")

	// ErrCorrupt matches every *CorruptError.
	ErrCorrupt = errors.New("journal: corrupt")

	// ErrVersion reports intact bytes that a newer build wrote.
	ErrVersion = errors.New("journal: unsupported format")

	// ErrFailed reports that an earlier write or sync failed, so that what is
	// on disk past the last durable record is unknown (R9). Only a new Open,
	// which repairs the tail, clears it.
	ErrFailed = errors.New("journal: failed by an earlier error")

	// ErrDropped reports a shard that was dropped, or replaced by another
	// incarnation.
	ErrDropped = errors.New("journal: shard dropped")

	// ErrClosed reports a call on a closed journal.
	ErrClosed = errors.New("journal: closed")
)

// CorruptError says where the journal is damaged below what was synced.
type CorruptError struct {
	File   string
	Offset int64  // bytes
	LSN    uint64 // of the damaged record; 0 if it is not known
	Err    error  // what is wrong there
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal: corrupt: %s at offset %d, LSN %d: %v", e.File, e.Offset, e.LSN, e.Err)
}

// Is makes errors.Is(err, ErrCorrupt) true; Unwrap keeps the cause reachable.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
func (e *CorruptError) Unwrap() error        { return e.Err }

// Options are the settings of a journal. The zero value is the default.
type Options struct {
	// FileBytes is the size of a file, a multiple of 4096 from 32 KiB to 4 GiB.
	// It holds for a new journal; an existing one keeps its own. Default 64 MiB.
	FileBytes int64

	// MaxBytes bounds the ring, and holds at least four files. A ring that is
	// larger keeps its size, and holds no more. For what no checkpoint can free
	// it grows beyond: see Room in the package comment. Default 1 GiB.
	MaxBytes int64

	// Uncounted lets a journal without a RING file open: it was written before
	// there was one. Open then makes it.
	Uncounted bool

	// KeepFreeBytes is what growing the ring leaves free on the disk, unless
	// nothing could be appended without it, or nothing urgent that nothing else
	// makes room for.
	KeepFreeBytes int64

	// Rand gives the salts. Default crypto/rand.
	Rand io.Reader

	// Now is the clock of the commit latency in Usage. Default time.Now.
	Now func() time.Time

	// Logger gets recovery, growth and failure. Default slog.Default.
	Logger *slog.Logger

	// OnFailed is called once, with the latched error (R9), on a goroutine of
	// the journal. It must not call Close.
	OnFailed func(error)

	// OnEvent is called at each phase, on the goroutine that goes through it:
	// Open's, the writer's or the preparer's. It must not call the journal.
	OnEvent func(Event)
}

func (o *Options) setDefaults() error {
	o.FileBytes = cmp.Or(o.FileBytes, DefaultFileBytes)
	o.MaxBytes = cmp.Or(o.MaxBytes, max(DefaultMaxBytes, minFiles*o.FileBytes))
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.FileBytes < minFileBytes || o.FileBytes > maxFileBytes || o.FileBytes%blockBytes != 0:
		return fmt.Errorf("journal: file bytes %d: want a multiple of %d in [%d, %d]", o.FileBytes, blockBytes, minFileBytes, int64(maxFileBytes))
	case o.MaxBytes < minFiles*o.FileBytes:
		return fmt.Errorf("journal: max bytes %d: want at least %d files of %d bytes", o.MaxBytes, minFiles, o.FileBytes)
	}
	return nil
}

// Journal is an open journal. Its methods are safe for concurrent use. The
// caller holds a lock on the directory; two journals on one destroy it.
type Journal struct {
	fs           vfs.FS
	dir          string
	opt          Options
	maxFiles     int // the ring's bound, but for what no checkpoint can free
	maxRecovered int // a bound that has room for all that recovery brought back
	recovery     Recovery

	wake     chan struct{} // 1-buffered: the queue is not empty, or closing
	prepare  chan struct{} // 1-buffered: plan may have something to do
	prepared chan struct{} // 1-buffered: the preparer did something
	pressure chan struct{} // 1-buffered: see Pressure
	stopped  chan struct{} // closed when failed or closing
	stopPrep chan struct{}
	wg       sync.WaitGroup // the preparer
	writer   chan struct{}  // closed when the writer has ended

	w run // the writer's own

	syncTimes, commitTimes, commitSizes *histogram.Histogram

	mu sync.Mutex // never held over I/O or a callback

	// files is the ring in order of sequence: the ones that hold records, of
	// which files[at] is being written, then the prepared ones. Guarded by mu,
	// as is all below.
	files []*file
	slots []*file // by slot
	at    int

	shards  map[shardKey]*Shard
	queue   []*request
	writing bool // somebody is the writer, who owns w
	markDue bool // the last commit is not proven synced yet
	space   space
	stats   Usage
	failed  error
	closed  bool
	nextLSN uint64 // written by the writer only
	synced  uint64 // highest LSN known durable; written by the writer only
	sealed  bool   // the last record is a mark; written by the writer only

	sincePressure int64 // bytes written since the last signal
	diskFull      bool  // the last growth met a full disk and nobody asked again
	awaited       bool  // the writer waits for the preparer
}

// Open opens the journal in dir, and makes it, of two files, if there is none.
// All recovery (R8) is done when it returns: what Shards then lists is durable.
// Entries that were compacted can be back. Compact each shard up to its
// checkpoint, and Drop what no replica owns, before anything is appended: until
// then their space counts as taken.
//
// Damage below what was synced is a *CorruptError and a newer format an
// ErrVersion; both leave the disk as it was.
func Open(fs vfs.FS, dir string, opt Options) (*Journal, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	j := &Journal{
		fs:       fs,
		dir:      dir,
		opt:      opt,
		wake:     make(chan struct{}, 1),
		prepare:  make(chan struct{}, 1),
		prepared: make(chan struct{}, 1),
		pressure: make(chan struct{}, 1),
		stopped:  make(chan struct{}),
		stopPrep: make(chan struct{}),
		writer:   make(chan struct{}),
		shards:   make(map[shardKey]*Shard),

		syncTimes:   histogram.New(histogram.Disk),
		commitTimes: histogram.New(histogram.Disk),
		commitSizes: histogram.New(histogram.Sizes),
	}
	if err := j.recover(); err != nil {
		for _, f := range j.slots {
			f.f.Close()
		}
		return nil, err
	}
	j.maxFiles = max(int(opt.MaxBytes/j.opt.FileBytes), minFiles)
	for j.maxRecovered = len(j.files) + 1; j.limitOf(j.maxRecovered) < j.space.live; {
		j.maxRecovered++
	}
	j.w.start(j)
	j.wg.Go(j.runPreparer)
	go j.runWriter()
	signal(j.prepare)
	return j, nil
}

// Close waits for what is queued, proves it synced with a mark, and ends the
// journal's goroutines. No data is lost without it. It returns the latched
// error if the journal had failed. No Read may run beside it.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closed = true
	if j.failed == nil {
		close(j.stopped)
	}
	j.mu.Unlock()

	signal(j.wake)
	<-j.writer
	close(j.stopPrep)
	j.wg.Wait()

	j.mu.Lock()
	err := j.failed
	j.mu.Unlock()
	for _, f := range j.slots {
		if cerr := f.f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("journal: close %s: %w", f.path, cerr)
		}
	}
	return err
}

// MaxRecordBytes is the largest extensions plus data of one record: a quarter
// of a file.
func (j *Journal) MaxRecordBytes() int64 { return j.opt.FileBytes / 4 }

// Recovery says what Open found.
func (j *Journal) Recovery() Recovery { return j.recovery }

// Pressure gives a signal each time that an eighth of the ring was written, and
// when a reservation begins to wait: the time to checkpoint the oldest shard.
// Signals that nobody takes are merged.
func (j *Journal) Pressure() <-chan struct{} { return j.pressure }

// fail latches the first error and returns the latched one. A second sync after
// a failed one may report success for pages that the kernel has dropped, so
// nothing here ever tries again (R9).
func (j *Journal) fail(op, path string, err error) error {
	j.mu.Lock()
	if j.failed != nil {
		defer j.mu.Unlock()
		return j.failed
	}
	j.failed = fmt.Errorf("%w: %s %s: %w", ErrFailed, op, path, err)
	if !j.closed {
		close(j.stopped)
	}
	err = j.failed
	j.mu.Unlock()

	j.opt.Logger.Error("journal failed", "op", op, "file", path, "err", err)
	if j.opt.OnFailed != nil {
		j.opt.OnFailed(err)
	}
	signal(j.wake)
	signal(j.prepared)
	return err
}

// usableLocked says why the journal takes no more calls, or nil.
func (j *Journal) usableLocked() error {
	if j.failed != nil {
		return j.failed
	}
	if j.closed {
		return ErrClosed
	}
	return nil
}

func (j *Journal) event(e Event) {
	if j.opt.OnEvent != nil {
		j.opt.OnEvent(e)
	}
}

// signal sets a 1-buffered flag.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
