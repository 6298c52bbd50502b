package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// windowBytes is how much of a data file is read at once to walk its headers:
// the distance of two index entries and a little more.
const windowBytes = 8 << 10

// Range is a run of whole batches in a data file. The file stays open, and its
// bytes unchanged, until Release. A file that was handed out is never reused
// for other bytes (R15).
type Range struct {
	File       vfs.File
	Pos, Bytes int64 // half-open: [Pos, Pos+Bytes)
	Start, End int64 // offsets: the first batch's base, and the next to read

	h *handle
}

// Release gives the file back. It must be called once.
func (r *Range) Release() {
	if r.h != nil {
		r.h.release()
		r.h = nil
	}
}

// Range finds the batches from the one that contains offset (or, where
// compaction left a gap, the next one) up to maxBytes in all, or one batch if
// that alone is larger. offset lies in [Base, End).
//
// It reads an index region of some KiB and a few batch headers, with positioned
// reads. A header that contradicts the index is a *CorruptError; so is the first
// read of a write of which some batch's first 16 bytes are not as they were when
// the segment was written, if that was before Open. The batches' own checksums
// are left to the reader. After Remove it returns ErrGone.
func (s *Segment) Range(offset, maxBytes int64) (Range, error) {
	s.mu.Lock()
	st, hint, gone := s.st, s.hint, s.gone
	s.mu.Unlock()
	if offset < s.hdr.Base || offset >= st.end {
		panic(fmt.Sprintf("segment: offset %d outside [%d, %d)", offset, s.hdr.Base, st.end))
	}
	if gone {
		return Range{}, ErrGone
	}
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return Range{}, s.openError(offset, err)
	}
	held := false
	defer func() { // after an error, and after a panic
		if !held {
			h.release()
		}
	}()
	r, err := s.find(h, st, hint, offset, maxBytes)
	if err == nil {
		err = s.verified(h.File, &r)
	}
	if err != nil {
		return Range{}, err
	}
	held = true
	r.File, r.h = h.File, h
	s.mu.Lock()
	s.hint.offset, s.hint.pos = r.End, r.Pos+r.Bytes
	s.mu.Unlock()
	return r, nil
}

// openError tells a file that was removed in the meantime from one that is
// missing.
func (s *Segment) openError(offset int64, err error) error {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	switch {
	case gone:
		return ErrGone
	case errors.Is(err, fs.ErrNotExist):
		return &CorruptError{File: s.Name(), Offset: offset, Position: -1, Err: err}
	}
	return err
}

func (s *Segment) find(h *handle, st state, hint hint, offset, maxBytes int64) (Range, error) {
	at := walkPoint(hint)
	if hint.pos == 0 || hint.offset != offset {
		p, err := s.floor(st, func(e entry) bool { return s.hdr.Base+int64(e.rel) <= offset })
		if err != nil {
			return Range{}, err
		}
		at = p
	}
	first, err := s.walkHeaders(h.File, st, at, func(p walkPoint, hd batch.Header) bool {
		return hd.BaseOffset+int64(hd.LastOffsetDelta) >= offset
	})
	if err != nil {
		return Range{}, err
	}
	r := Range{Pos: first.pos, Start: first.offset}
	limit := first.pos + max(maxBytes, 0)
	if limit >= st.size {
		r.End, r.Bytes = st.end, st.size-first.pos
		return r, nil
	}
	// The end is the last boundary at or below limit, or the first one if that
	// is above.
	near, err := s.floor(st, func(e entry) bool { return int64(e.pos) <= limit })
	if err != nil {
		return Range{}, err
	}
	if near.pos < first.pos {
		near = first
	}
	last, err := s.walkHeaders(h.File, st, near, func(p walkPoint, hd batch.Header) bool {
		return p.pos > first.pos && p.pos+int64(hd.Size()) > limit
	})
	if err != nil && !(errors.Is(err, ErrCorrupt) && last.pos > first.pos) {
		return Range{}, err // else what lies before the damage is read
	}
	r.End, r.Bytes = last.offset, last.pos-first.pos
	return r, nil
}

// walkPoint is a batch boundary: the batch at pos has base offset offset, or,
// where there are gaps, a greater one.
type walkPoint struct{ offset, pos int64 }

// walkHeaders reads batch headers from a boundary on until stop says that the
// wanted one is reached, and returns that batch's place, or the end of the
// segment.
func (s *Segment) walkHeaders(f vfs.File, st state, at walkPoint, stop func(walkPoint, batch.Header) bool) (walkPoint, error) {
	buf := s.files.buffer()
	defer s.files.bufs.Put(buf)
	var win []byte // what is read of the file from winPos on
	var winPos int64
	for at.pos < st.size {
		if at.pos < winPos || at.pos+batch.HeaderBytes > winPos+int64(len(win)) {
			win, winPos = (*buf)[:min(windowBytes, st.size-at.pos)], at.pos
			if err := readFull(f, win, winPos); err != nil {
				return at, s.readError(at, err)
			}
		}
		hd, err := s.checkHeader(win[at.pos-winPos:], at, st)
		if err != nil {
			return at, s.corruptAt(at, err)
		}
		at.offset = hd.BaseOffset
		if stop(at, hd) {
			return at, nil
		}
		at = walkPoint{offset: hd.BaseOffset + int64(hd.LastOffsetDelta) + 1, pos: at.pos + int64(hd.Size())}
	}
	return walkPoint{offset: st.end, pos: st.size}, nil
}

// checkHeader parses the header of the batch at a boundary of a segment that
// ends at st, and checks what the place implies.
func (s *Segment) checkHeader(b []byte, at walkPoint, st state) (batch.Header, error) {
	hd, err := batch.ParseHeader(b)
	if err != nil {
		return hd, err
	}
	next := hd.BaseOffset + int64(hd.LastOffsetDelta) + 1
	switch {
	case hd.BaseOffset < at.offset || hd.BaseOffset > at.offset && at.offset >= s.hdr.CleanedThrough:
		return hd, fmt.Errorf("base offset %d, want %d", hd.BaseOffset, at.offset)
	case next <= hd.BaseOffset || next > st.end || next-s.hdr.Base > math.MaxUint32:
		return hd, fmt.Errorf("batch of offsets [%d, %d), the segment ends at %d", hd.BaseOffset, next, st.end)
	case hd.Size() < batch.HeaderBytes || at.pos+int64(hd.Size()) > st.size:
		return hd, fmt.Errorf("batch of %d bytes, the segment ends at byte %d", hd.Size(), st.size)
	}
	return hd, nil
}

// corruptAt reports that what lies at a boundary is not the batch it should be.
func (s *Segment) corruptAt(at walkPoint, err error) error {
	return &CorruptError{File: s.Name(), Offset: at.offset, Position: at.pos, Err: err}
}

// readError says what a failed read at a boundary means: a file that is too
// short is damage, anything else is the disk's error.
func (s *Segment) readError(at walkPoint, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return s.corruptAt(at, err)
	}
	return fmt.Errorf("segment: read %s at byte %d: %w", s.Name(), at.pos, err)
}

// floor returns the last indexed batch boundary for which below is true; below
// is true for a prefix of the entries, the start of the segment included.
func (s *Segment) floor(st state, below func(entry) bool) (walkPoint, error) {
	marks, size, err := s.marks()
	if err != nil {
		return walkPoint{}, err
	}
	if len(marks) == 0 {
		return walkPoint{offset: s.hdr.Base, pos: HeaderBytes}, nil
	}
	k, _ := slices.BinarySearchFunc(marks, struct{}{}, func(m mark, _ struct{}) int {
		if below(m.entry()) {
			return -1
		}
		return 1
	})
	k = max(k-1, 0)
	best := marks[k].entry()
	to := size
	if k+1 < len(marks) {
		to = int64(marks[k+1].indexPos)
	}
	// Without the region, the mark is a boundary all the same; the walk from
	// it is longer. A later load reports and replaces a damaged index.
	for raw := s.readIndex(int64(marks[k].indexPos), to); len(raw) > 0; {
		blk, n, err := parseBlock(raw)
		if err != nil {
			break
		}
		for i := range blk.len() {
			if e := blk.entry(i); below(e) && e.pos > best.pos && int64(e.pos) < st.size {
				best = e
			}
		}
		raw = raw[n:]
	}
	return walkPoint{offset: s.hdr.Base + int64(best.rel), pos: int64(best.pos)}, nil
}

// readIndex returns [from, to) of the index file, or nil if it cannot.
func (s *Segment) readIndex(from, to int64) []byte {
	if to <= from {
		return nil
	}
	h, err := s.files.acquire(s.indexName())
	if err != nil {
		return nil
	}
	defer h.release()
	raw := make([]byte, to-from)
	if readFull(h.File, raw, from) != nil {
		return nil
	}
	return raw
}

// marks returns the marks and the length of the index, and loads them first if
// the segment was opened by its footer.
func (s *Segment) marks() ([]mark, int64, error) {
	s.mu.Lock()
	x, st := s.index, s.st
	s.mu.Unlock()
	if x.loaded {
		return x.marks, x.size, nil
	}
	loaded, err := s.loadMarks(st, x.size)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.index.loaded {
		s.index = loaded
	}
	return s.index.marks, s.index.size, nil
}

// loadMarks reads the index of a sealed segment. If it is damaged it is
// unlinked, so that the next start writes a new one, and until then marks made
// from the data serve.
func (s *Segment) loadMarks(st state, size int64) (indexState, error) {
	var x indexState
	var reached state
	var err error
	if raw := s.readIndex(0, size); size <= maxIndexBytes && raw != nil {
		x, reached, _, err = scanIndex(raw, s.hdr, st.end, st.size)
	}
	if err == nil && reached == st {
		return x, nil
	}
	s.files.log.Warn("segment index damaged, reading the segment instead", "file", s.indexName())
	if err := s.files.remove(s.indexName()); err != nil {
		return x, err
	}
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return x, s.openError(s.hdr.Base, err)
	}
	defer h.release()
	x = indexState{loaded: true, last: -1}
	err = s.walk(h.File, startState(s.hdr.Base), st, func(before state, _ batch.Header, _ []byte) error {
		x.add(s.hdr.Base, before, 0, -1)
		return nil
	})
	return x, err
}

// readFull fills b from off. A file that ends before is io.ErrUnexpectedEOF.
func readFull(f io.ReaderAt, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
