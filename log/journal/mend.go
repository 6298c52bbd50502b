package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// mend makes what recovery decided durable, and leaves the ring ready to write.
// It can be cut short at any point and starts again from the same decision.
func (s *scan) mend() error {
	j := s.j
	for _, name := range []string{tempName, ringName + ".tmp"} {
		temp := path.Join(j.dir, name)
		if err := j.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: remove %s: %w", temp, err)
		}
	}
	// A file's name may not be durable yet, though it is seen.
	if err := j.fs.SyncDir(j.dir); err != nil {
		return fmt.Errorf("journal: sync %s: %w", j.dir, err)
	}
	for _, f := range s.repair {
		if err := s.repairHeader(f); err != nil {
			return err
		}
	}
	for len(j.files) < startFiles {
		f, err := j.create(fileHeader{
			slot:      uint32(len(j.files)),
			slots:     uint32(len(j.files) + 1),
			fileBytes: j.opt.FileBytes,
			sequence:  uint64(len(j.files) + 1),
			synced:    s.proven,
		}, j.goOn)
		if err != nil {
			return fmt.Errorf("journal: make %s: %w", path.Join(j.dir, fileName(uint32(len(j.files)))), err)
		}
		j.files, j.slots = append(j.files, f), append(j.slots, f)
	}
	if err := s.recount(); err != nil {
		return err
	}
	j.at, j.nextLSN, j.synced, j.sealed = s.last, s.next, s.next-1, true
	return s.mendTail()
}

// recount has the RING file count the files that are there. One that it does not count
// was being added at a crash; if there is no room to count it, it leaves again, as it
// would have then (see Journal.count): a start must not need space.
func (s *scan) recount() error {
	j := s.j
	if int(s.ring.slots) == len(j.files) {
		return nil
	}
	err := j.writeRing(len(j.files))
	if err == nil {
		return nil
	}
	err = fmt.Errorf("journal: write %s: %w", path.Join(j.dir, ringName), err)
	if !s.counted || int(s.ring.slots) < startFiles || !vfs.NoSpace(err) && !vfs.NoFiles(err) {
		return err
	}
	if r, _, again := readRing(j.fs, j.dir); again != nil || r != s.ring {
		return errors.Join(err, again)
	}
	for len(j.slots) > int(s.ring.slots) {
		if err := s.dropLast(); err != nil {
			return err
		}
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return fmt.Errorf("journal: sync %s: %w", j.dir, err)
	}
	return nil
}

// dropLast removes the file of the last slot, which holds nothing: see checkCount.
func (s *scan) dropLast() error {
	j := s.j
	f := j.slots[len(j.slots)-1]
	if err := errors.Join(f.f.Close(), j.fs.Remove(f.path)); err != nil {
		return fmt.Errorf("journal: remove %s: %w", f.path, err)
	}
	j.slots = j.slots[:len(j.slots)-1]
	at := slices.Index(j.files, f)
	j.files = slices.Delete(j.files, at, at+1)
	if at -= s.last; at < 0 {
		s.last--
	} else if at < len(s.strays) {
		s.strays = slices.Delete(s.strays, at, at+1)
	}
	return nil
}

// repairHeader writes both copies of a header again, B durably first: either it
// is damaged, or recycling stopped between them and B may not be durable.
func (s *scan) repairHeader(f *file) error {
	s.j.event(Event{Kind: EventHeaderRepair, File: f.path, Sequence: f.sequence})
	block := s.headers[f].encode()
	for _, offset := range []int64{blockBytes, 0} {
		if _, err := f.f.WriteAt(block, offset); err != nil {
			return fmt.Errorf("journal: repair header of %s: %w", f.path, err)
		}
		if err := f.f.SyncData(); err != nil {
			return fmt.Errorf("journal: sync %s: %w", f.path, err)
		}
	}
	s.j.recovery.RepairedHeaders++
	return nil
}

// mendTail writes the unproven records again, wipes the strays behind the end,
// syncs, and proves all of it with a synced mark. A journal that was left idle
// ends with a mark, which nobody needs, and is left alone.
func (s *scan) mendTail() error {
	j := s.j
	f := j.files[s.last]
	unproven := s.tail[sort.Search(len(s.tail), func(i int) bool { return s.tail[i].lsn > s.proven }):]
	torn := slices.ContainsFunc(s.strays, func(st stray) bool { return st.found > 0 })
	if len(unproven) == 1 && unproven[0].mark && !torn {
		j.synced = unproven[0].lsn - 1
		return nil
	}
	if len(unproven) == 0 && !torn {
		return nil
	}
	if len(unproven) > 0 {
		if err := rewrite(f, unproven[0].offset, f.end); err != nil {
			return err
		}
		j.recovery.RewrittenBytes = f.end - unproven[0].offset
	}
	for i := len(s.strays) - 1; i >= 0; i-- {
		if err := s.wipeStrays(j.files[s.last+i], s.strays[i], i == 0); err != nil {
			return err
		}
	}
	return s.prove(f)
}

// wipeStrays overwrites the intact headers behind the end of f, and syncs f.
func (s *scan) wipeStrays(f *file, st stray, sync bool) error {
	if st.found > 0 {
		if err := wipe(f, f.end, st.end); err != nil {
			return err
		}
	}
	if st.found > 0 || sync {
		if err := f.f.SyncData(); err != nil {
			return fmt.Errorf("journal: sync %s: %w", f.path, err)
		}
	}
	return nil
}

// prove writes and syncs a mark, so that from here on damage to what recovery
// kept is corruption and not a torn tail.
func (s *scan) prove(f *file) error {
	j := s.j
	if j.budgetLocked() < 0 {
		return nil
	}
	h := recordHeader{kind: kindMark, lsn: s.next, order: s.next, synced: s.next - 1, payloadCRC: payloadCRC(nil, nil)}
	b := h.encode(nil, f.seed)
	if _, err := f.f.WriteAt(b, f.end); err != nil {
		return fmt.Errorf("journal: write %s: %w", f.path, err)
	}
	if err := f.f.SyncData(); err != nil {
		return fmt.Errorf("journal: sync %s: %w", f.path, err)
	}
	f.end += int64(len(b))
	j.nextLSN, j.synced = s.next+1, s.next
	return nil
}

// rewrite writes bytes [from, to) of f again as they are.
func rewrite(f *file, from, to int64) error {
	w := &window{f: f.f, name: f.path, size: to}
	for off := from; off < to; {
		n := min(windowBytes, to-off)
		b, err := w.at(off, n)
		if err != nil {
			return err
		}
		if _, err := f.f.WriteAt(b, off); err != nil {
			return fmt.Errorf("journal: write %s: %w", f.path, err)
		}
		off += n
	}
	return nil
}

// wipe writes zeros over bytes [from, to) of f.
func wipe(f *file, from, to int64) error {
	zeros := make([]byte, min(windowBytes, to-from))
	for off := from; off < to; {
		n := min(int64(len(zeros)), to-off)
		if _, err := f.f.WriteAt(zeros[:n], off); err != nil {
			return fmt.Errorf("journal: wipe %s: %w", f.path, err)
		}
		off += n
	}
	return nil
}
