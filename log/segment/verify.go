package segment

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// The first 16 bytes of a batch lie outside its checksum: a reader would take a
// wrong offset or leader epoch for a right one. What this process found in a
// file is compared with the index's running checksum over them once, at the
// first read of each interval between two marks (1 MiB of data, or one write if
// that is longer): a walk over the batches' headers. Damage after that is found
// by Verify, or by the next process.

// prefixes is what is known of the prefixes of a segment. Guarded by
// Segment.mu, but for opened.
type prefixes struct {
	opened  state    // at Open: what lies behind was written by this process
	checked []uint64 // a bit for each interval, by mark
	bad     []badPrefixes
}

// badPrefixes is a write whose batches' prefixes are not as they were written.
type badPrefixes struct {
	from, to walkPoint
	err      error
}

func (p *prefixes) isChecked(k int) bool {
	return k/64 < len(p.checked) && p.checked[k/64]&(1<<(k%64)) != 0
}

func (p *prefixes) setChecked(k int, bad []badPrefixes) {
	if p.isChecked(k) {
		return
	}
	for len(p.checked) <= k/64 {
		p.checked = append(p.checked, 0)
	}
	p.checked[k/64] |= 1 << (k % 64)
	p.bad = append(p.bad, bad...)
}

// verified cuts r before the first write of it whose prefixes are damaged. If
// that is where it begins, it returns a *CorruptError.
func (s *Segment) verified(f vfs.File, r *Range) error {
	limit := min(r.Pos+r.Bytes, s.prefixes.opened.size)
	if r.Pos >= limit {
		return nil
	}
	marks, size, err := s.marks()
	if err != nil {
		return err
	}
	k, found := slices.BinarySearchFunc(marks, r.Pos, func(m mark, pos int64) int { return int(int64(m.pos) - pos) })
	if !found {
		k = max(k-1, 0)
	}
	for ; k < len(marks) && int64(marks[k].pos) < limit; k++ {
		s.mu.Lock()
		done := s.prefixes.isChecked(k)
		s.mu.Unlock()
		if done {
			continue
		}
		bad, err := s.checkInterval(f, marks, k, size)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.prefixes.setChecked(k, bad)
		s.mu.Unlock()
	}
	s.mu.Lock()
	bad := s.prefixes.bad
	s.mu.Unlock()
	for _, b := range bad {
		switch {
		case b.to.pos <= r.Pos || b.from.pos >= r.Pos+r.Bytes:
		case b.from.pos <= r.Pos:
			return s.corruptAt(b.from, b.err)
		default:
			r.Bytes, r.End = b.from.pos-r.Pos, b.from.offset
		}
	}
	return nil
}

// checkInterval walks the batches from mark k to the next one, or to where the
// segment ended when it was opened, write by write, and returns those that do
// not match the index. The error is the disk's.
func (s *Segment) checkInterval(f vfs.File, marks []mark, k int, indexBytes int64) ([]badPrefixes, error) {
	opened := s.prefixes.opened
	end, indexEnd := opened, indexBytes
	if k+1 < len(marks) && int64(marks[k+1].pos) <= opened.size {
		m := marks[k+1]
		end, indexEnd = state{end: s.hdr.Base + int64(m.rel), size: int64(m.pos), sum: m.sum}, int64(m.indexPos)
	}
	m := marks[k]
	at := state{end: s.hdr.Base + int64(m.rel), size: int64(m.pos), sum: m.sum}
	var bad []badPrefixes
	raw := s.readIndex(int64(m.indexPos), indexEnd)
	for at.size < end.size {
		to := end
		if blk, n, err := parseBlock(raw); err == nil && blk.start.size == at.size && blk.end.size <= end.size {
			to, raw = blk.end, raw[n:]
		} // else the interval as a whole
		err := s.checkPrefixes(f, at, to)
		if ce := (*CorruptError)(nil); errors.As(err, &ce) {
			s.files.log.Error("the headers of batches are damaged; reads of them will fail", "file", s.Name(), "from", at.end, "to", to.end, "err", ce.Err)
			bad = append(bad, badPrefixes{walkPoint{at.end, at.size}, walkPoint{to.end, to.size}, ce.Err})
		} else if err != nil {
			return nil, err
		}
		at = to
	}
	return bad, nil
}

// checkPrefixes walks the batches of [from, to) and compares their prefixes
// with to.sum.
func (s *Segment) checkPrefixes(f vfs.File, from, to state) error {
	sum, last := from.sum, walkPoint{from.end, from.size}
	end, err := s.walkPrefixes(f, to, last, func(prefix []byte) { sum = checksum(sum, prefix) })
	if err != nil {
		return err
	}
	if end.offset != to.end || sum != to.sum {
		return s.corruptAt(last, fmt.Errorf("the first 16 bytes of the batches of offsets [%d, %d) do not match the index", from.end, to.end))
	}
	return nil
}

// walkPrefixes gives visit the first bytes of each batch from a boundary on, to
// the end of st, whose end it returns as the batches have it.
func (s *Segment) walkPrefixes(f vfs.File, st state, at walkPoint, visit func(prefix []byte)) (walkPoint, error) {
	buf := s.files.buffer()
	defer s.files.bufs.Put(buf)
	var win []byte // what is read of the file from winPos on
	var winPos int64
	for at.pos < st.size {
		if at.pos+batch.HeaderBytes > st.size {
			return at, s.corruptAt(at, fmt.Errorf("a batch of %d bytes", st.size-at.pos))
		}
		if at.pos < winPos || at.pos+batch.HeaderBytes > winPos+int64(len(win)) {
			win, winPos = (*buf)[:min(windowBytes, st.size-at.pos)], at.pos
			if err := readFull(f, win, winPos); err != nil {
				return at, s.readError(at, err)
			}
		}
		b := win[at.pos-winPos:]
		hd, err := s.checkHeader(b, at, state{end: math.MaxInt64, size: st.size})
		if err != nil {
			return at, s.corruptAt(at, err)
		}
		visit(b[:batch.PrefixBytes])
		at = walkPoint{offset: hd.BaseOffset + int64(hd.LastOffsetDelta) + 1, pos: at.pos + int64(hd.Size())}
	}
	return at, nil
}
