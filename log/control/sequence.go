package control

import (
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// records is what Votes and Log need of tidwall/wal: frames by number, of which
// the directory holds one contiguous range. Its two implementations, segmented
// and single, are not safe for concurrent use. After an error other than from
// read they are not used again before a rewind has succeeded.
type records interface {
	// write appends frames. They are durable once sync has returned.
	write(frames [][]byte) error
	sync() error

	// read returns the frame of a record in range. The caller owns it.
	read(index uint64) ([]byte, error)

	// truncateFront removes all records below first, which is in the range or
	// its end; truncateBack those at and above next, which is in the range or
	// its start. Both are durable on return, and atomic.
	truncateFront(first uint64) error
	truncateBack(next uint64) error

	// reset makes next the number of the next record. There are none now.
	reset(next uint64) error

	// rewind undoes a change that failed for want of room: it finishes or drops
	// a truncation, cuts off the records at and above next, durably, and opens
	// the files again. It needs no space and returns the range that is left. It
	// may be tried again after an error that is one of room.
	rewind(next uint64) (first, end uint64, err error)

	close() error
}

// sequence numbers, frames and checks the records of one directory, and latches
// the first error of a change. It is not safe for concurrent use.
//
// Invariant: the directory holds the records [first, next), and those below
// durable are synced.
type sequence struct {
	dir      string
	rec      records
	makeRoom func() bool // nil: nobody can
	first    uint64
	next     uint64
	durable  uint64
	failed   error // matches ErrFailed or ErrClosed
	undone   *undo // a change that found no room is still to be undone
}

// undo is what is to be undone before the records are used again.
type undo struct {
	op   string
	err  error
	ends []uint64 // where the records may end then
}

// item is a record to be written.
type item struct {
	kind    kind
	payload []byte
}

func (s *sequence) empty() bool { return s.first == s.next }

// append writes items at the end and returns once they are durable.
func (s *sequence) append(items []item) error {
	return s.change(func() error { return s.tryAppend(items) })
}

// change tries a change, and once more if somebody can make room for it.
func (s *sequence) change(try func() error) error {
	err := s.ready()
	if err == nil {
		err = try()
	}
	if errors.Is(err, ErrNoRoom) && s.makeRoom != nil && s.makeRoom() {
		if err = s.ready(); err == nil {
			err = try()
		}
	}
	return err
}

// ready undoes what is still to be undone.
func (s *sequence) ready() error {
	u := s.undone
	if s.failed != nil || u == nil {
		return s.failed
	}
	first, end, err := s.rec.rewind(s.next)
	switch {
	case noRoom(err):
		return fmt.Errorf("%w: undo %s %s: %w", ErrNoRoom, u.op, s.dir, err)
	case err == nil && !slices.Contains(u.ends, end):
		err = fmt.Errorf("ends at record %d, want %d", end, u.ends)
	}
	if err != nil {
		return s.fail("undo "+u.op, errors.Join(err, u.err))
	}
	s.undone, s.first, s.next = nil, first, end
	s.durable = end
	return nil
}

func noRoom(err error) bool { return vfs.NoSpace(err) || vfs.NoFiles(err) }

// giveUp ends a change that failed: for want of room it is undone, so that the
// records end at one of ends; after another error nothing is known.
func (s *sequence) giveUp(op string, err error, ends ...uint64) error {
	if !noRoom(err) {
		return s.fail(op, err)
	}
	s.undone = &undo{op: op, err: err, ends: ends}
	if failed := s.ready(); failed != nil && !errors.Is(failed, ErrNoRoom) {
		return failed
	}
	return fmt.Errorf("%w: %s %s: %w", ErrNoRoom, op, s.dir, err)
}

func (s *sequence) tryAppend(items []item) error {
	frames := make([][]byte, len(items))
	for i, it := range items {
		f := frame{index: s.next + uint64(i), durable: s.durable, kind: it.kind, payload: it.payload}
		frames[i] = appendFrame(make([]byte, 0, frameBytes+len(it.payload)), f)
	}
	if err := s.rec.write(frames); err != nil {
		return s.giveUp("write", err, s.next)
	}
	if err := s.rec.sync(); err != nil {
		if vfs.NoFiles(err) { // the directory could not be opened, so no sync was tried
			return s.giveUp("sync", err, s.next)
		}
		return s.fail("sync", err)
	}
	s.next += uint64(len(items))
	s.durable = s.next
	return nil
}

// read returns the kind and payload of record index, which the caller owns. An
// index out of range is ErrNotFound.
func (s *sequence) read(index uint64) (frame, error) {
	if s.failed == ErrClosed {
		return frame{}, ErrClosed
	}
	if s.undone != nil {
		if err := s.ready(); err != nil {
			return frame{}, err
		}
	}
	if index < s.first || index >= s.next {
		return frame{}, ErrNotFound
	}
	fr, err := s.rec.read(index)
	if err == nil {
		var f frame
		if f, err = decodeFrame(fr); err == nil && f.index == index {
			return f, nil
		}
	}
	switch {
	case s.failed != nil:
		return frame{}, s.failed
	case err == nil || errors.Is(err, errDamaged):
		return frame{}, fmt.Errorf("%w: record %d in %s: %w", ErrCorrupt, index, s.dir, errors.Join(errDamaged, err))
	default:
		return frame{}, fmt.Errorf("control: read record %d in %s: %w", index, s.dir, err)
	}
}

// truncateFront removes the records below first, and all of them if first is
// beyond the end.
func (s *sequence) truncateFront(first uint64) error {
	return s.change(func() error {
		first := min(first, s.next)
		if first <= s.first {
			return nil
		}
		if err := s.rec.truncateFront(first); err != nil {
			return s.giveUp("truncate the front of", err, s.next)
		}
		s.first = first
		return nil
	})
}

// truncateBack removes the records at and above next, and all of them if next
// is before the start.
func (s *sequence) truncateBack(next uint64) error {
	return s.change(func() error {
		next := max(next, s.first)
		if next >= s.next {
			return nil
		}
		if err := s.rec.truncateBack(next); err != nil {
			return s.giveUp("truncate the back of", err, s.next, next)
		}
		s.next = next
		s.durable = next
		return nil
	})
}

// reset makes next the number of the next record of an empty sequence.
func (s *sequence) reset(next uint64) error {
	if !s.empty() {
		panic("control: reset of a sequence that is not empty")
	}
	return s.change(func() error {
		if next == s.next {
			return nil
		}
		if err := s.rec.reset(next); err != nil {
			return s.giveUp("reset", err, s.next, next)
		}
		s.first, s.next, s.durable = next, next, next
		return nil
	})
}

// fail latches the first error. A sync after a failed one may report success
// for pages that the kernel has already dropped, so nothing is tried again.
func (s *sequence) fail(op string, err error) error {
	s.failed = fmt.Errorf("%w: %s %s: %w", ErrFailed, op, s.dir, err)
	return s.failed
}

// close releases the files. All that was appended is durable already.
func (s *sequence) close() error {
	if s.failed == ErrClosed {
		return ErrClosed
	}
	s.failed = ErrClosed
	// What is still to be undone may have lost its file already.
	if err := s.rec.close(); err != nil && s.undone == nil {
		return fmt.Errorf("control: close %s: %w", s.dir, err)
	}
	return nil
}
