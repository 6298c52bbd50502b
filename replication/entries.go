package replication

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
)

// entryLog stores a replica's entries. Two logs of the node do: the journal for
// data shards, the control log for the metadata shard.
type entryLog interface {
	first() uint64
	last() uint64
	read(index uint64, to *raft.Log, commands bool) error // raft.ErrLogNotFound as it is; commands: with their data
	append(logs []*raft.Log) error
	truncateFrom(index uint64) error // drops index and what follows
	compact(upTo uint64) error       // upTo and what precedes it is needed no more
	dir() string                     // where it lies, for errors
}

// errRefused reports a change that Raft must not ask for; the replica stops and
// reads its log again from disk.
var errRefused = errors.New("replication: raft asked for an impossible change of its log")

// logStore is a replica's raft.LogStore. It is safe for concurrent use: Raft
// compacts on its snapshot goroutine.
//
// It is not a raft.MonotonicLogStore: Raft would then empty the log at an
// install, and a divergent suffix has to stay.
type logStore struct {
	log     entryLog
	applied func() uint64
	durable func() uint64 // index of the newest durable checkpoint
	fail    func(error)   // stops the replica
	halt    func(error)   // likewise, and does not return before it is closed
	noRoom  func(error)   // waits a while; does not return once the replica stops

	droppable func(upTo uint64) uint64 // the last index, at most upTo, that a compaction may drop

	started *atomic.Bool
	strokes *strokes
}

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (uint64, error) { return s.log.first(), nil }

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (uint64, error) { return s.log.last(), nil }

// GetLog implements raft.LogStore. Raft panics on any error of it but
// raft.ErrLogNotFound, so a damaged entry stops the replica here.
//
// NewRaft asks for every entry above the checkpoint, once, to find
// configurations: what it asks for before the replica is started comes without
// the payload of commands.
func (s *logStore) GetLog(index uint64, to *raft.Log) error {
	err := s.patiently(func() error { return s.log.read(index, to, s.started.Load()) })
	if err != nil && err != raft.ErrLogNotFound {
		s.halt(err)
	}
	return err
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. The entries are durable when it returns.
// It never waits for space in the journal (R6). The metadata shard's log has a
// file set aside for it; if that is used up too and the disk is full, it waits.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if last := max(s.log.last(), s.durable()); last != 0 && logs[0].Index != last+1 {
		err := fmt.Errorf("%w: append at %d after %d", errRefused, logs[0].Index, last)
		s.halt(err)
		return err
	}
	if err := s.write(func() error { return s.log.append(logs) }); err != nil {
		s.halt(err)
		return err
	}
	return nil
}

// write is patiently for what Raft's main goroutine writes; see Replica.Writing.
func (s *logStore) write(do func() error) error {
	return s.patiently(func() error { return s.strokes.do(do) })
}

// patiently does what the control log has no room for when it has, once the
// replica is started: until then the error is for who starts it.
func (s *logStore) patiently(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, control.ErrNoRoom) || !s.started.Load() {
			return err
		}
		s.noRoom(err)
	}
}

// DeleteRange implements raft.LogStore. Up to the newest durable checkpoint it
// is a compaction, which leaves what other voters may still ask for; anything
// else is a truncation.
func (s *logStore) DeleteRange(lo, hi uint64) error {
	if hi <= s.durable() {
		upTo := s.droppable(hi)
		if upTo < lo {
			return nil
		}
		err := s.log.compact(upTo)
		if errors.Is(err, control.ErrNoRoom) {
			return nil // the entries do no harm; the next checkpoint lets go of them
		}
		if err != nil {
			s.fail(err) // Raft only logs it
		}
		return err
	}
	if lo <= s.applied() || hi != s.log.last() {
		err := fmt.Errorf("%w: truncate [%d, %d], applied %d, last %d", errRefused, lo, hi, s.applied(), s.log.last())
		s.halt(err)
		return err
	}
	if err := s.write(func() error { return s.log.truncateFrom(lo) }); err != nil {
		s.halt(err)
		return err
	}
	return nil
}

// journalLog is an entryLog in the node's journal.
type journalLog struct {
	s *journal.Shard
}

func (j *journalLog) first() uint64               { return j.s.First() }
func (j *journalLog) last() uint64                { return j.s.Last() }
func (j *journalLog) truncateFrom(i uint64) error { return j.s.TruncateFrom(i) }
func (j *journalLog) compact(upTo uint64) error   { j.s.Compact(upTo); return nil }
func (j *journalLog) dir() string                 { return j.s.Dir() }

func (j *journalLog) read(index uint64, to *raft.Log, commands bool) error {
	if term, kind, ok := j.s.Head(index); ok && !commands && raft.LogType(kind) == raft.LogCommand {
		*to = raft.Log{Index: index, Term: term, Type: raft.LogCommand}
		return nil
	}
	var r journal.Record
	if err := j.s.Read(index, &r); err != nil {
		if errors.Is(err, journal.ErrNotFound) {
			return raft.ErrLogNotFound
		}
		return err
	}
	*to = raft.Log{Index: r.Index, Term: r.Term, Type: raft.LogType(r.Type), Data: r.Data, Extensions: r.Extensions, AppendedAt: unixNano(r.AppendedAt)}
	return nil
}

func (j *journalLog) append(logs []*raft.Log) error {
	recs := make([]journal.Record, len(logs))
	for i, l := range logs {
		recs[i] = journal.Record{Index: l.Index, Term: l.Term, Type: uint8(l.Type), AppendedAt: nanos(l.AppendedAt), Extensions: l.Extensions, Data: l.Data}
	}
	return j.s.Append(recs)
}

// controlLog is an entryLog in a control log.
type controlLog struct{ l *control.Log }

func (c *controlLog) first() uint64               { return c.l.First() }
func (c *controlLog) last() uint64                { return c.l.Last() }
func (c *controlLog) truncateFrom(i uint64) error { return c.l.TruncateBack(i - 1) }
func (c *controlLog) compact(upTo uint64) error   { return c.l.TruncateFront(upTo + 1) }
func (c *controlLog) dir() string                 { return c.l.Dir() }

func (c *controlLog) read(index uint64, to *raft.Log, commands bool) error {
	var e control.Entry
	if err := c.l.Read(index, &e); err != nil {
		if errors.Is(err, control.ErrNotFound) {
			return raft.ErrLogNotFound
		}
		return err
	}
	*to = raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data, Extensions: e.Extensions, AppendedAt: unixNano(e.AppendedAt)}
	return nil
}

func (c *controlLog) append(logs []*raft.Log) error {
	es := make([]control.Entry, len(logs))
	for i, l := range logs {
		es[i] = control.Entry{Index: l.Index, Term: l.Term, Type: uint8(l.Type), AppendedAt: nanos(l.AppendedAt), Extensions: l.Extensions, Data: l.Data}
	}
	return c.l.Append(es)
}

// Logs keep times as Unix nanoseconds, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func unixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
