package segment

import (
	"math"

	"github.com/flotilla-log/flotilla/log/batch"
)

// LoadFirstTimestamp reads what FirstTimestamp returns, one batch header, if the
// segment holds a batch. Errors are those of Range.
func (s *Segment) LoadFirstTimestamp() error {
	s.mu.Lock()
	st, known := s.st, s.hasTS
	s.mu.Unlock()
	if known || st.size == HeaderBytes {
		return nil
	}
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return s.openError(s.hdr.Base, err)
	}
	defer h.release()
	_, err = s.walkHeaders(h.File, st, walkPoint{offset: s.hdr.Base, pos: HeaderBytes}, func(_ walkPoint, hd batch.Header) bool {
		s.setFirstTimestamp(hd.MaxTimestamp)
		return true
	})
	return err
}

func (s *Segment) setFirstTimestamp(ts int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.firstTS, s.hasTS = ts, true
}

// FindTime finds the first batch that ends above offset from and whose header
// says that one of its records has a timestamp of at least ts (ms). The Range
// holds that batch alone; its owner releases it. Which record it is, and
// whether that one is at or above from, only the batch's records tell.
//
// Without such a batch it returns false. It reads an index region of some KiB
// and then batch headers: a few, or, if a batch below from has a timestamp of
// at least ts, perhaps those of the whole segment. Errors are those of Range.
func (s *Segment) FindTime(ts, from int64) (Range, bool, error) {
	s.mu.Lock()
	st, gone := s.st, s.gone
	s.mu.Unlock()
	if st.maxTS < ts || from >= st.end {
		return Range{}, false, nil
	}
	if gone {
		return Range{}, false, ErrGone
	}
	from = max(from, s.hdr.Base)
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return Range{}, false, s.openError(from, err)
	}
	r, found, err := s.findTime(h, st, ts, from)
	if err != nil || !found {
		h.release()
		return Range{}, false, err
	}
	r.File, r.h = h.File, h
	return r, true, nil
}

func (s *Segment) findTime(h *handle, st state, ts, from int64) (r Range, found bool, err error) {
	// Whatever lies before either of the two boundaries is not it.
	at, err := s.floor(st, func(e entry) bool { return e.maxTS < ts })
	if err != nil {
		return r, false, err
	}
	byOffset, err := s.floor(st, func(e entry) bool { return s.hdr.Base+int64(e.rel) <= from })
	if err != nil {
		return r, false, err
	}
	if byOffset.pos > at.pos {
		at = byOffset
	}
	_, err = s.walkHeaders(h.File, st, at, func(p walkPoint, hd batch.Header) bool {
		end := hd.BaseOffset + int64(hd.LastOffsetDelta) + 1
		if found = end > from && hd.MaxTimestamp >= ts; found {
			r = Range{Pos: p.pos, Bytes: int64(hd.Size()), Start: hd.BaseOffset, End: end}
		}
		return found
	})
	return r, found, err
}

// MaxTimestampFrom returns the greatest timestamp (ms) that the header of a
// batch which starts at or above offset from says, or math.MinInt64 if there is
// no such batch. For from at or below Base it reads nothing; else it reads the
// headers from there on. Errors are those of Range.
func (s *Segment) MaxTimestampFrom(from int64) (int64, error) {
	s.mu.Lock()
	st, gone := s.st, s.gone
	s.mu.Unlock()
	greatest := int64(math.MinInt64)
	switch {
	case from <= s.hdr.Base:
		return st.maxTS, nil
	case from >= st.end:
		return greatest, nil
	case gone:
		return greatest, ErrGone
	}
	h, err := s.files.acquire(s.Name())
	if err != nil {
		return greatest, s.openError(from, err)
	}
	defer h.release()
	at, err := s.floor(st, func(e entry) bool { return s.hdr.Base+int64(e.rel) <= from })
	if err != nil {
		return greatest, err
	}
	_, err = s.walkHeaders(h.File, st, at, func(_ walkPoint, hd batch.Header) bool {
		if hd.BaseOffset >= from {
			greatest = max(greatest, hd.MaxTimestamp)
		}
		return false
	})
	return greatest, err
}
