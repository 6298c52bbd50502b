package segment

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// BadOffsets is a part of a segment, [From, To), whose batches are damaged.
type BadOffsets struct {
	From, To int64
	Err      *CorruptError
}

// Scrub reads the files of the segment as they are on the disk now, up to where
// it ended at the call, and returns what is damaged, ascending: each batch is
// checked by its checksum, their first 16 bytes by the index's running checksum,
// and where no index vouches for them by check, if that is not nil. Range fails
// from then on for what it returned, and no more for what it did not.
//
// An index that is damaged or missing, while all batches are intact, is a
// *CorruptError that names the index.
//
// pace is called before each read with how many bytes it takes, a write's at the
// least, and ends Scrub with its error. Scrub runs beside everything else; after
// Remove it returns ErrGone. Other errors are the file system's: nothing is known
// then.
func (s *Segment) Scrub(pace func(bytes int64) error, check func(batch.Header) error) ([]BadOffsets, error) {
	s.mu.Lock()
	st, x, gone := s.st, s.index, s.gone
	s.mu.Unlock()
	if gone {
		return nil, ErrGone
	}
	w := &scrub{s: s, st: st, pace: pace, check: check}
	err := w.run(x.size)
	s.mu.Lock()
	defer s.mu.Unlock()
	var damage *CorruptError
	switch {
	case s.gone:
		return nil, ErrGone
	case err != nil && !errors.As(err, &damage):
		return nil, err
	}
	s.prefixes.bad = w.bad // all that is known of the segment, and newer
	return w.ranges(), err
}

// scrub is one Scrub under way.
type scrub struct {
	s     *Segment
	st    state // where it ends
	pace  func(int64) error
	check func(batch.Header) error
	bad   []badPrefixes
}

// run reads the segment. indexBytes is the length of the index, 0 if there may be
// none. The error is pace's, the disk's, or says that the index is damaged.
func (w *scrub) run(indexBytes int64) error {
	s := w.s
	// Not by the open file: the name may be gone, or another file's.
	f, err := s.files.opened(s.files.fs.Open, s.Name())
	if errors.Is(err, fs.ErrNotExist) {
		w.spoil(startState(s.hdr.Base), w.st, &CorruptError{File: s.Name(), Offset: s.hdr.Base, Position: -1, Err: err})
		return nil
	}
	if err != nil {
		return fmt.Errorf("segment: scrub: %w", err)
	}
	defer f.Close()
	var damage *CorruptError
	if err := s.checkOwnHeader(f); errors.As(err, &damage) {
		w.spoil(startState(s.hdr.Base), w.st, damage)
		return nil
	} else if err != nil {
		return err
	}
	blocks, indexErr, err := w.index(indexBytes)
	if err != nil {
		return err
	}
	at := startState(s.hdr.Base)
	for _, to := range blocks {
		if err := w.block(f, at, to, true); err != nil {
			return err
		}
		at = to
	}
	if at.size < w.st.size { // no index vouches for it
		if err := w.block(f, at, w.st, false); err != nil {
			return err
		}
	}
	if indexErr != nil && len(w.bad) == 0 {
		return indexErr
	}
	return nil
}

// checkOwnHeader reads the header of the segment's file again.
func (s *Segment) checkOwnHeader(f vfs.File) error {
	other := &Segment{files: s.files, dir: s.dir, hdr: s.hdr}
	err := other.readHeader(f, OpenOptions{TopicID: s.hdr.TopicID, Partition: s.hdr.Partition, Base: s.hdr.Base})
	if errors.Is(err, ErrVersion) || err == nil && other.hdr != s.hdr {
		return &CorruptError{File: s.Name(), Offset: s.hdr.Base, Position: 0, Err: errors.New("the header is not the one that this process has read")}
	}
	return err
}

// index returns where the writes end that the index on the disk vouches for, and
// what is wrong with it, if something is.
func (w *scrub) index(size int64) (blocks []state, damage, err error) {
	s := w.s
	if size == 0 {
		return nil, nil, nil // it could not be written: see readByMarks
	}
	bad := func(err error) error {
		return &CorruptError{File: s.indexName(), Offset: s.hdr.Base, Position: -1, Err: err}
	}
	f, err := s.files.opened(s.files.fs.Open, s.indexName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, bad(err), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("segment: scrub: %w", err)
	}
	defer f.Close()
	if size > maxIndexBytes {
		return nil, nil, nil // the next start makes it shorter
	}
	raw := make([]byte, size)
	if err := readFull(f, raw, 0); err != nil {
		return nil, bad(err), nil
	}
	x, reached, _, err := scanIndex(raw, s.hdr, w.st.end, w.st.size)
	switch {
	case err != nil:
		return nil, bad(err), nil
	case x.size != size:
		damage = bad(fmt.Errorf("block at byte %d: %w", x.size, errIndex))
	case reached != w.st:
		damage = bad(fmt.Errorf("it ends at offset %d, the segment at %d", reached.end, w.st.end))
	}
	for at := int64(indexHeaderBytes); at < x.size; {
		blk, n, err := parseBlock(raw[at:])
		if err != nil {
			break // not reached: scanIndex has been here
		}
		if blk.flags != blockSealed {
			blocks = append(blocks, blk.end)
		}
		at += int64(n)
	}
	return blocks, damage, nil
}

// block reads the batches of [from, to). vouched says that to.sum is the index's.
func (w *scrub) block(f vfs.File, from, to state, vouched bool) error {
	if err := w.pace(to.size - from.size); err != nil {
		return err
	}
	if vouched {
		bad, err := w.s.checkWrite(f, from, to)
		w.bad = append(w.bad, bad...)
		return err
	}
	err := w.s.walk(f, from, to, func(before state, h batch.Header, prefix []byte) error {
		if w.check != nil {
			if err := w.check(h); err != nil {
				return w.s.corruptAt(walkPoint{before.end, before.size}, err)
			}
		}
		from = before.advance(h, prefix) // what was intact is kept
		return nil
	})
	var damage *CorruptError
	if errors.As(err, &damage) {
		w.spoil(from, to, damage)
		return nil
	}
	return err
}

// spoil notes that [from, to) is damaged.
func (w *scrub) spoil(from, to state, err *CorruptError) {
	if from.size < to.size || from.end < to.end {
		w.bad = append(w.bad, badPrefixes{walkPoint{from.end, from.size}, walkPoint{to.end, to.size}, err.Err})
	}
}

// ranges returns what is damaged, by offsets.
func (w *scrub) ranges() (all []BadOffsets) {
	for _, b := range w.bad {
		all = append(all, BadOffsets{From: b.from.offset, To: b.to.offset, Err: w.s.corruptAt(b.from, b.err).(*CorruptError)})
	}
	return all
}

// Freeze ends the segment without a write: it takes no more appends. The next
// Open seals it.
func (s *Segment) Freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
}

// Retire lets go of a segment whose files another one has taken the names of: a
// Range call returns ErrGone from now on. Ranges that are out stay readable.
func (s *Segment) Retire() {
	s.mu.Lock()
	s.gone = true
	data, idx := s.takeHoldLocked()
	s.mu.Unlock()
	releaseAll(data, idx)
}
