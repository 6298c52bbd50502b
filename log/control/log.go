package control

import (
	"encoding/binary"
	"fmt"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Entry is one entry of a Raft log.
type Entry struct {
	Index      uint64 // at least 1
	Term       uint64
	Type       uint8 // Raft's log type
	AppendedAt int64 // by the leader's clock, Unix ns; 0 if it did not say
	Extensions []byte
	Data       []byte
}

// Log is the Raft log of one shard: a contiguous range of entries, by index.
// All methods are safe for concurrent use; they run one at a time.
type Log struct {
	lock          lock
	maxEntryBytes int
	seq           *sequence // guarded by lock
}

// OpenLog opens the log in dir, which it creates if needed, and repairs its
// tail; what it then holds is durable. Only one Log may be open on a directory,
// which the caller sees to.
//
// It returns a *CorruptError if records that had been synced are damaged, and
// ErrVersion for those of a newer build; either leaves the directory as it was.
func OpenLog(fs vfs.FS, dir string, opt Options) (*Log, error) {
	opt = opt.withDefaults()
	seq, err := openRecords(fs, dir, opt, func(f frame) error {
		_, err := decodeEntry(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Log{lock: newLock(), maxEntryBytes: opt.MaxEntryBytes, seq: seq}, nil
}

// First returns the index of the first entry, or 0 if there is none.
func (l *Log) First() uint64 {
	l.lock.lock()
	defer l.lock.unlock()
	if l.seq.empty() {
		return 0
	}
	return l.seq.first
}

// Last returns the index of the last entry, or 0 if there is none.
func (l *Log) Last() uint64 {
	l.lock.lock()
	defer l.lock.unlock()
	if l.seq.empty() {
		return 0
	}
	return l.seq.next - 1
}

// Append writes entries at the end and returns once they are durable.
//
// entries[0].Index has to be Last()+1, or any index above 0 if the log is empty,
// and each next one more; else Append returns ErrGap. More than
// Options.MaxEntryBytes of data and extensions in one entry is ErrTooLarge.
// Neither writes anything.
//
// A change that finds no room is undone and returns ErrNoRoom. Any other I/O error
// is final: this and every later
// change returns an error matching ErrFailed, while entries that were durable
// before stay readable. After a crash or an error, the log may hold a prefix of
// the entries of the Append that failed.
//
// Append keeps no reference to entries.
func (l *Log) Append(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	l.lock.lock()
	defer l.lock.unlock()
	next := l.seq.next
	if l.seq.empty() {
		next = entries[0].Index
	}
	items := make([]item, len(entries))
	for i, e := range entries {
		if e.Index == 0 || e.Index != next+uint64(i) {
			return fmt.Errorf("%w: entry %d, want %d", ErrGap, e.Index, max(1, next+uint64(i)))
		}
		if n := len(e.Data) + len(e.Extensions); n > l.maxEntryBytes {
			return fmt.Errorf("%w: entry %d of %d bytes, limit %d", ErrTooLarge, e.Index, n, l.maxEntryBytes)
		}
		items[i] = item{kindEntry, encodeEntry(e)}
	}
	if l.seq.empty() {
		if err := l.seq.reset(next); err != nil {
			return err
		}
	}
	return l.seq.append(items)
}

// Read sets *e to the entry at index, whose bytes the caller owns. An index out
// of range is ErrNotFound, damage since Open an error matching ErrCorrupt; then
// *e is unchanged.
func (l *Log) Read(index uint64, e *Entry) error {
	l.lock.lock()
	defer l.lock.unlock()
	f, err := l.seq.read(index)
	if err != nil {
		return err
	}
	got, err := decodeEntry(f)
	if err != nil {
		return fmt.Errorf("%w: entry %d in %s: %w", ErrCorrupt, index, l.seq.dir, err)
	}
	*e = got
	return nil
}

// TruncateFront removes the entries below first, durably and atomically. If
// first is above Last, that is all of them, and the next Append may begin
// anywhere. If it is at or below First, nothing happens. Errors are as for
// Append.
func (l *Log) TruncateFront(first uint64) error {
	l.lock.lock()
	defer l.lock.unlock()
	return l.seq.truncateFront(first)
}

// TruncateBack removes the entries above last, durably and atomically. If last
// is below First, that is all of them, and the next Append may begin anywhere.
// If it is at or above Last, nothing happens. Errors are as for Append.
func (l *Log) TruncateBack(last uint64) error {
	l.lock.lock()
	defer l.lock.unlock()
	if last >= l.seq.next {
		return l.seq.failed
	}
	return l.seq.truncateBack(last + 1)
}

// Close waits for a call that is under way and releases the files. Later calls
// return ErrClosed, except First and Last.
func (l *Log) Close() error {
	l.lock.lock()
	defer l.lock.unlock()
	return l.seq.close()
}

// entryBytes is the size of an entry's fixed part: see the package comment.
const entryBytes = 8 + 8 + 4 + 1

// encodeEntry returns the payload of e's record.
func encodeEntry(e Entry) []byte {
	b := make([]byte, 0, entryBytes+len(e.Extensions)+len(e.Data))
	b = binary.LittleEndian.AppendUint64(b, e.Term)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.AppendedAt))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Extensions)))
	b = append(b, e.Type)
	b = append(b, e.Extensions...)
	return append(b, e.Data...)
}

// decodeEntry is the inverse of encodeEntry. The entry aliases f; empty
// extensions and data are nil.
func decodeEntry(f frame) (Entry, error) {
	b := f.payload
	if f.kind != kindEntry {
		return Entry{}, fmt.Errorf("%w: record of kind %q in a Raft log", ErrVersion, f.kind)
	}
	if len(b) < entryBytes {
		return Entry{}, fmt.Errorf("%w: entry of %d bytes", errMalformed, len(b))
	}
	extensions := uint64(binary.LittleEndian.Uint32(b[16:]))
	rest := b[entryBytes:]
	if extensions > uint64(len(rest)) {
		return Entry{}, fmt.Errorf("%w: extensions of %d bytes in %d", errMalformed, extensions, len(rest))
	}
	e := Entry{
		Index:      f.index,
		Term:       binary.LittleEndian.Uint64(b),
		AppendedAt: int64(binary.LittleEndian.Uint64(b[8:])),
		Type:       b[20],
	}
	if extensions > 0 {
		e.Extensions = rest[:extensions:extensions]
	}
	if data := rest[extensions:]; len(data) > 0 {
		e.Data = data
	}
	return e, nil
}

// Dir returns the directory that the log lies in.
func (l *Log) Dir() string { return l.seq.dir }
