package segment

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// The first 16 bytes of a batch lie outside its checksum: a reader would take a
// wrong offset or leader epoch for a right one. What this process found in a
// file is checked once, at the first read of each interval between two marks
// (1 MiB of data, or one write if that is longer): every batch by its checksum,
// and their first bytes by the index's running checksum over them. Damage after
// that is found by Scrub, or by the next process.

// prefixes is what is known of the batches of a segment. Guarded by Segment.mu,
// but for opened.
type prefixes struct {
	opened  state    // at Open: what lies behind was written by this process
	checked []uint64 // a bit for each interval, by mark
	bad     []badPrefixes
}

// badPrefixes is a batch, or a write, that is not as it was written.
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

// verified cuts r before the first write of it that is damaged. If that is where
// it begins, it returns a *CorruptError.
func (s *Segment) verified(f vfs.File, r *Range) error {
	if limit := min(r.Pos+r.Bytes, s.prefixes.opened.size); r.Pos < limit {
		if err := s.checkFirst(f, r.Pos, limit); err != nil {
			return err
		}
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

// checkFirst checks the intervals of [pos, limit) that were not checked before.
func (s *Segment) checkFirst(f vfs.File, pos, limit int64) error {
	marks, size, err := s.marks()
	if err != nil {
		return err
	}
	k, found := slices.BinarySearchFunc(marks, pos, func(m mark, pos int64) int { return int(int64(m.pos) - pos) })
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
	return nil
}

// checkInterval walks the batches from mark k to the next one, or to where the
// segment ended when it was opened, write by write, and returns those that are
// damaged. The error is the disk's.
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
		more, err := s.checkWrite(f, at, to)
		if err != nil {
			return nil, err
		}
		for _, b := range more {
			s.files.log.Error("batches are damaged; reads of them will fail", "file", s.Name(), "from", b.from.offset, "to", b.to.offset, "err", b.err)
		}
		bad = append(bad, more...)
		at = to
	}
	return bad, nil
}

// checkWrite reads the batches of a write, [from, to), and returns those that are
// damaged. If their first 16 bytes are not all as written, where batches begin is
// not certain, and it is all of them. The error is the disk's.
func (s *Segment) checkWrite(f vfs.File, from, to state) ([]badPrefixes, error) {
	err := s.checkBatches(f, from, to)
	var damage *CorruptError
	if err == nil || !errors.As(err, &damage) {
		return nil, err
	}
	all := []badPrefixes{{walkPoint{from.end, from.size}, walkPoint{to.end, to.size}, damage.Err}}
	var bad []badPrefixes
	cur := from
	for cur.size < to.size {
		at := walkPoint{cur.end, cur.size}
		head := make([]byte, min(batch.HeaderBytes, to.size-cur.size))
		if err := readFull(f, head, cur.size); errors.Is(err, io.ErrUnexpectedEOF) {
			return all, nil
		} else if err != nil {
			return nil, s.readError(at, err)
		}
		h, err := s.checkHeader(head, at, to)
		if err != nil {
			return all, nil
		}
		next := cur.advance(h, head[:batch.PrefixBytes])
		b := make([]byte, h.Size())
		if err := readFull(f, b, cur.size); errors.Is(err, io.ErrUnexpectedEOF) {
			return all, nil
		} else if err != nil {
			return nil, s.readError(at, err)
		}
		if err := batch.CheckCRC(b); err != nil {
			bad = append(bad, badPrefixes{at, walkPoint{next.end, next.size}, err})
		}
		cur = next
	}
	if cur.size != to.size || cur.end != to.end || cur.sum != to.sum || len(bad) == 0 {
		return all, nil
	}
	return bad, nil
}

// checkBatches reads the batches of [from, to) and checks each by its checksum,
// and their first bytes by to.sum.
func (s *Segment) checkBatches(f vfs.File, from, to state) error {
	cur := from
	err := s.walk(f, from, to, func(before state, h batch.Header, prefix []byte) error {
		cur = before.advance(h, prefix)
		return nil
	})
	if err != nil {
		return err
	}
	if cur.size != to.size || cur.sum != to.sum {
		return s.corruptAt(walkPoint{from.end, from.size}, fmt.Errorf("the first 16 bytes of the batches of offsets [%d, %d) do not match the index", from.end, to.end))
	}
	return nil
}
