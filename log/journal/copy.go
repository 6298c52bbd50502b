package journal

import "errors"

// copyStepBytes are copied forward along with one commit.
const copyStepBytes = 256 << 10

// copyRef is an entry of the oldest file, as it was when copying began.
type copyRef struct {
	s     *Shard
	index uint64
	order uint64
}

// copyAhead copies a step forward along with a commit, if the ring will have to
// (R7): no file is prepared and none can be, and the one being written is half
// full. Until then a checkpoint may yet free the oldest file.
func (j *Journal) copyAhead() error {
	j.mu.Lock()
	due := j.at == len(j.files)-1 && j.at > 0 && j.files[0].live > 0 && j.copyFitsLocked() && j.halfFullLocked() && j.planLocked() == planNothing
	j.mu.Unlock()
	if !due {
		return nil
	}
	return j.copyForward(copyStepBytes)
}

// copyForward adds copies of needed records of the oldest file to the run, up
// to about limit bytes and at least one. Nothing may be prepared, so that the
// budget has kept room for all of them.
func (j *Journal) copyForward(limit int64) error {
	w := &j.w
	j.mu.Lock()
	oldest := j.files[0]
	if w.copied != oldest.sequence {
		w.copied, w.copies = oldest.sequence, j.neededLocked(oldest)
	}
	j.mu.Unlock()

	for limit > 0 && len(w.copies) > 0 {
		ref := w.copies[0]
		w.copies = w.copies[1:]
		h, payload, err := ref.s.load(ref.index)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDropped) || err == nil && h.order != ref.order {
			continue // freed since
		}
		if err != nil {
			return j.fail("copy forward from", oldest.path, err)
		}
		j.addRecord(&h, payload[:h.extBytes], payload[h.extBytes:], placed{s: ref.s, kind: kindEntry, copy: true, index: h.index})
		w.budget += h.size() // it was kept for this
		limit -= h.size()
	}
	if w.bytes == 0 && len(w.copies) == 0 && j.needs(oldest) {
		panic("journal: a file holds needed bytes that no shard knows")
	}
	return nil
}

func (j *Journal) needs(f *file) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return f.live > 0
}

// neededLocked lists the entries that lie in f.
func (j *Journal) neededLocked(f *file) []copyRef {
	var refs []copyRef
	for _, s := range j.shards {
		for i := range s.entries {
			if e := &s.entries[i]; e.slot == f.slot {
				refs = append(refs, copyRef{s: s, index: s.first + uint64(i), order: e.order})
			}
		}
	}
	return refs
}

// moveLocked points the index at the durable copy of an entry, unless it has
// changed since it was read.
func (s *Shard) moveLocked(index uint64, to entry) {
	e := s.entryLocked(index)
	if e == nil || e.order != to.order {
		return
	}
	s.j.slots[e.slot].live -= int64(e.bytes)
	s.j.slots[to.slot].live += int64(to.bytes)
	e.slot, e.units = to.slot, to.units
}
