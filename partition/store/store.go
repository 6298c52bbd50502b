// Package store keeps the bytes of a node's partitions.
//
// A partition's committed batches lie in extents. The newest are its tail: in
// memory, as slices of the Raft entries that carried them. A flusher moves
// tails, in large writes, to segment files (package segment), in the directory
//
//	<dir>/<topic id, 32 hex digits>-<partition index>/
//
// whose name holds the topic id and never the shard, so that a partition can
// move between shards without its files. What a shard that catches up has pulled
// waits in a directory beside them (see prefetch.go).
//
// # What is durable when
//
// Nothing here is durable by itself: an entry is safe in the journal until a
// checkpoint of its shard is. Shard.FlushTo writes and syncs what a checkpoint
// relies on. At restart Shard.Restore cuts every partition to the checkpoint's
// end, by offset (R14), and the journal is applied again from there.
//
// The other direction holds too: nothing that an older checkpoint needs goes
// away before a newer one is durable (R13). Files of deleted partitions and
// below a moved log start wait for Checkpointed, or, on a disk that has no room
// for a checkpoint, go with FreeEarly.
//
// # Who may wait
//
// The apply side (Create, Delete, Append, Configure, SetLogStart, Capture,
// AppliedBatch) is called by one goroutine per shard and never waits for a
// disk: what it needs of one is left to the flusher and to FlushTo. A full
// memory budget holds up proposers, in Admit, and never Apply.
//
// Lock order: Shard.mu, then Store.mu, then a segment's. None is held over I/O
// or a callback.
package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/histogram"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

var (
	// ErrUnknownPartition reports a key that was never created, or deleted.
	ErrUnknownPartition = errors.New("store: unknown partition")

	// ErrOutOfRange matches every *RangeError.
	ErrOutOfRange = errors.New("store: offset out of range")

	// ErrFailed reports that an earlier write or sync failed (R9).
	ErrFailed = errors.New("store: failed by an earlier write error")

	// ErrClosed reports a call on a closed store.
	ErrClosed = errors.New("store: closed")

	// ErrCorrupt matches the *segment.CorruptError of a read of damaged or
	// missing bytes.
	ErrCorrupt = segment.ErrCorrupt
)

// RangeError says which offsets a partition holds: [Start, End).
type RangeError struct{ Offset, Start, End int64 }

func (e *RangeError) Error() string {
	return fmt.Sprintf("store: offset %d out of range [%d, %d)", e.Offset, e.Start, e.End)
}

// Is makes errors.Is(err, ErrOutOfRange) true.
func (e *RangeError) Is(target error) bool { return target == ErrOutOfRange }

// Options of a Store. The zero value of a field means its default.
type Options struct {
	TailFlushBytes int64         // a tail this long is flushed; default 1 MiB
	TailMaxAge     time.Duration // so is, when its turn comes, one whose first batch is this old; default 10 s
	MemoryBytes    int64         // budget of all tails, see Admit; default 512 MiB
	SegmentBytes   int64         // default of Config.SegmentBytes; default 256 MiB
	IdleFiles      int           // files kept open beside those read or not yet synced; default 1024
	Flushers       int           // goroutines that flush; default 2
	SyncWorkers    int           // syncs under way at once in FlushTo; default 4
	FullDiskRetry  time.Duration // pause after a write met a full disk; default 1 s
	KeepFreeBytes  int64         // what segments leave free on the disk, for who needs it more

	Logger   *slog.Logger     // default: none
	Now      func() time.Time // default time.Now
	OnFailed func(error)      // called once, with the first write or sync error
	OnEvent  func(Event)      // called where the work is done, without locks
}

func (o Options) withDefaults() Options {
	orDefault(&o.TailFlushBytes, 1<<20)
	orDefault(&o.TailMaxAge, 10*time.Second)
	orDefault(&o.MemoryBytes, 512<<20)
	orDefault(&o.SegmentBytes, 256<<20)
	orDefault(&o.IdleFiles, 1024)
	orDefault(&o.Flushers, 2)
	orDefault(&o.SyncWorkers, 4)
	orDefault(&o.FullDiskRetry, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnFailed == nil {
		o.OnFailed = func(error) {}
	}
	if o.OnEvent == nil {
		o.OnEvent = func(Event) {}
	}
	return o
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// EventKind says what an Event reports.
type EventKind uint8

const (
	EventFlushStart EventKind = 1 + iota // a chunk of Bytes is about to be written from Offset on
	EventFlushEnd                        // it is written, not synced
	EventRoll                            // a segment that starts at Offset was created
	EventSync                            // a partition's files are synced up to Offset
	EventUnlink                          // a segment that started at Offset, or (-1) a partition, is unlinked
	EventFullDisk                        // a write found no space, or no file: see Err; it will be tried again
)

// Event is something that a Store did, for metrics and tests.
type Event struct {
	Kind    EventKind
	TopicID [16]byte
	Index   int32
	Offset  int64
	Bytes   int64
	Err     error // of EventFullDisk
}

// Store holds the partitions of all shards of a node. Safe for concurrent use.
type Store struct {
	fs    vfs.FS
	dir   string
	opt   Options
	files *segment.Files

	memory   atomic.Int64 // see MemoryUsed
	stats    counters
	appended atomic.Int64 // bytes ever appended: the journal distance

	wake chan struct{} // 1-buffered: a flusher should look again
	stop chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex
	notBusy   sync.Cond // on mu: some partition's busy was cleared, or the root was synced
	shards    map[uint32]*Shard
	unclaimed map[string]struct{} // directories found at Open that no shard claimed
	pulled    map[string]struct{} // what shards had pulled or were repairing by then, see prefetch.go, repair.go; not changed since
	aging     agingList
	full      []*part // tails of TailFlushBytes or more, first come first served
	admitting []*admission
	retryAt   time.Time // a full disk: no background flush before
	rest      time.Time // nothing is flushed for its age alone before
	stalled   error     // see Stalled
	stalledAt time.Time
	failed    error
	closed    bool

	// The root directory's names: rootMade counts partition directories made,
	// rootSynced those that are durable.
	rootMade, rootSynced uint64
	rootSyncing          bool
}

// Open returns a store in dir, which is created, durably, if it does not exist.
// The caller holds the lock of the data directory, and then restores each
// shard. Close stops the store's goroutines.
func Open(fsys vfs.FS, dir string, opt Options) (*Store, error) {
	if err := vfs.MkdirAllSync(fsys, dir); err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("store: open: %w", err)
	}
	opt = opt.withDefaults()
	st := &Store{
		fs: fsys, dir: dir, opt: opt,
		files:     segment.NewFiles(fsys, opt.IdleFiles, opt.Logger),
		wake:      make(chan struct{}, 1),
		stop:      make(chan struct{}),
		shards:    make(map[uint32]*Shard),
		unclaimed: make(map[string]struct{}),
		pulled:    make(map[string]struct{}),
	}
	st.notBusy.L = &st.mu
	st.stats.flushTimes = histogram.New(histogram.Disk)
	for _, name := range names {
		if _, ok := parseDir(name); ok {
			st.unclaimed[name] = struct{}{}
		}
		if strings.HasPrefix(name, prefetchPrefix) || strings.HasPrefix(name, repairPrefix) {
			st.pulled[name] = struct{}{}
		}
	}
	for range opt.Flushers {
		st.wg.Go(st.runFlusher)
	}
	return st, nil
}

// Close stops the flushers, joins them, and closes the files. It flushes
// nothing: what no checkpoint covers is in the journal. Chunks that are out
// stay readable; other calls return ErrClosed or an error of the file system.
func (st *Store) Close() error {
	st.mu.Lock()
	if st.closed {
		st.mu.Unlock()
		return nil
	}
	st.closed = true
	waiting := st.admitting
	st.admitting = nil
	st.mu.Unlock()
	for _, a := range waiting {
		a.done <- ErrClosed
	}
	close(st.stop)
	st.wg.Wait()
	return st.files.Close()
}

// Shard returns the replica of that shard, new and empty at the first call.
func (st *Store) Shard(id uint32) *Shard {
	st.mu.Lock()
	defer st.mu.Unlock()
	sh := st.shards[id]
	if sh == nil {
		sh = &Shard{st: st, id: id, parts: make(map[uint32]*part), dying: make(map[uint32]*part)}
		st.shards[id] = sh
	}
	return sh
}

// Failed returns the error that was latched (R9), or nil.
func (st *Store) Failed() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.failed
}

// usable returns why nothing may be written any more, or nil.
func (st *Store) usable() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.failed == nil && st.closed {
		return ErrClosed
	}
	return st.failed
}

// fail latches the first error and returns the latched one.
func (st *Store) fail(err error) error {
	st.mu.Lock()
	first := st.failed == nil
	if first {
		st.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	err = st.failed
	var waiting []*admission
	if first {
		waiting, st.admitting = st.admitting, nil
	}
	st.mu.Unlock()
	for _, a := range waiting {
		a.done <- err
	}
	if first {
		st.opt.OnFailed(err)
	}
	return err
}

// Orphan is a partition directory that no shard claimed.
type Orphan struct {
	TopicID [16]byte
	Index   int32
}

// Orphans returns the partition directories that were there at Open and were
// neither restored nor created since, in order of their names. They are kept
// until RemoveOrphan: that a partition is not known never deletes it (R17).
func (st *Store) Orphans() []Orphan {
	st.mu.Lock()
	defer st.mu.Unlock()
	names := make([]string, 0, len(st.unclaimed))
	for name := range st.unclaimed {
		names = append(names, name)
	}
	slices.Sort(names)
	orphans := make([]Orphan, len(names))
	for i, name := range names {
		orphans[i], _ = parseDir(name)
	}
	return orphans
}

// RemoveOrphan unlinks an orphan with all that it holds. The caller has a
// tombstone for it. Another directory than an orphan's is an error matching
// fs.ErrNotExist. The name may come back, as an orphan, after a power cut.
func (st *Store) RemoveOrphan(o Orphan) error {
	name := dirName(o.TopicID, o.Index)
	st.mu.Lock()
	_, ok := st.unclaimed[name]
	delete(st.unclaimed, name)
	st.mu.Unlock()
	if !ok {
		return fmt.Errorf("store: remove orphan %s: %w", name, fs.ErrNotExist)
	}
	if err := st.fs.RemoveAll(path.Join(st.dir, name)); err != nil {
		st.mu.Lock()
		st.unclaimed[name] = struct{}{}
		st.mu.Unlock()
		return fmt.Errorf("store: remove orphan %s: %w", name, err)
	}
	return nil
}

// SyncNames makes durable which partition directories there are: those that were
// unlinked before do not come back after a power cut.
func (st *Store) SyncNames() error {
	if err := st.fs.SyncDir(st.dir); err != nil {
		return st.fail(fmt.Errorf("store: sync %s: %w", st.dir, err))
	}
	return nil
}

// claim takes a directory off the orphans, and reports whether it was one.
func (st *Store) claim(name string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	_, ok := st.unclaimed[name]
	delete(st.unclaimed, name)
	return ok
}

func (st *Store) event(kind EventKind, p *part, offset, n int64) {
	st.tell(Event{Kind: kind, TopicID: p.topicID, Index: p.index, Offset: offset, Bytes: n})
}

// tell counts what was done, and reports it.
func (st *Store) tell(e Event) {
	st.stats.note(e.Kind, e.Offset, e.Bytes)
	st.opt.OnEvent(e)
}

func dirName(topicID [16]byte, index int32) string {
	return hex.EncodeToString(topicID[:]) + "-" + strconv.Itoa(int(index))
}

// parseDir is the inverse of dirName, and refuses every other spelling.
func parseDir(name string) (o Orphan, ok bool) {
	id, index, ok := strings.Cut(name, "-")
	n, err := strconv.ParseInt(index, 10, 32)
	if !ok || err != nil || n < 0 || len(id) != 2*len(o.TopicID) {
		return o, false
	}
	if _, err := hex.Decode(o.TopicID[:], []byte(id)); err != nil {
		return o, false
	}
	o.Index = int32(n)
	return o, dirName(o.TopicID, o.Index) == name
}
