package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"syscall"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// tempName is the one file that is being made. It joins the ring by a rename,
// complete and synced, so that a journal file without a header is never the
// trace of a crash.
const tempName = "new.tmp"

// file is one file of the ring.
type file struct {
	path string
	slot uint32
	f    vfs.File

	// Changed by the preparer, under Journal.mu, while the file holds nothing
	// that is needed.
	sequence uint64
	salt     uint64
	seed     uint32 // of the header checksums, from salt

	live int64 // on-disk bytes of entries still needed; guarded by Journal.mu
	end  int64 // where the next record goes, in bytes; guarded likewise, written by the writer
}

func fileName(slot uint32) string { return fmt.Sprintf("%08d.journal", slot) }

// plan is what the preparer does next.
type plan uint8

const (
	planNothing plan = iota
	planRecycle
	planGrow
)

// planLocked decides how the ring gets its next file. It wants one prepared
// file, from the oldest if that holds nothing needed, else by growing; and it
// grows early when more than half of the limit is taken, or a reservation found
// no room.
//
// It grows beyond maxFiles for what no checkpoint can free (see Room in the package
// comment); and up to maxRecovered if else nothing could be appended: after a
// restart, entries that were compacted are back, and Raft may append before
// anybody compacts them again.
func (j *Journal) planLocked() plan {
	if j.failed != nil {
		return planNothing
	}
	none := j.at == len(j.files)-1
	if none && j.at > 0 && j.files[0].live == 0 {
		return planRecycle
	}
	stuck := len(j.files) < j.maxRecovered && j.stuckLocked()
	if ((none || j.tightLocked()) && len(j.files) < j.maxFiles || stuck || j.wantsBeyondLocked()) && !j.diskFull {
		return planGrow
	}
	return planNothing
}

// tightLocked reports that more than half of the limit is taken, or that somebody
// found no room.
func (j *Journal) tightLocked() bool {
	return j.committedLocked() > j.limitLocked()/2 || j.refusedLocked()
}

// refusedLocked reports that somebody waits for room, or found none since the ring last
// grew.
func (j *Journal) refusedLocked() bool {
	return len(j.space.waiters) > 0 && !j.space.held || j.space.tight
}

// stuckLocked reports that nothing can be appended unless the ring grows: no file is
// prepared, and the oldest cannot be.
func (j *Journal) stuckLocked() bool {
	return j.crampedLocked() || j.at == len(j.files)-1 && j.space.live > j.limitOf(len(j.files))
}

// halfFullLocked reports that the file being written is half full.
func (j *Journal) halfFullLocked() bool {
	return j.files[j.at].end > (headerBytes+j.opt.FileBytes)/2
}

// copyFitsLocked reports that all that is needed of the oldest file fits behind
// the last record, or the mark there, which then is the last one of the file.
func (j *Journal) copyFitsLocked() bool {
	return j.opt.FileBytes-j.files[j.at].end >= j.files[0].live
}

// runPreparer makes the next files ready while the writer writes.
func (j *Journal) runPreparer() {
	for {
		select {
		case <-j.prepare:
		case <-j.stopPrep:
			return
		}
		for j.prepareOne() {
		}
	}
}

// prepareOne does one step of the plan, and reports if there may be another.
func (j *Journal) prepareOne() bool {
	select {
	case <-j.stopPrep:
		return false
	default:
	}
	j.mu.Lock()
	p := j.planLocked()
	oldest, keep := j.files[0], j.opt.KeepFreeBytes
	if j.stuckLocked() || j.space.urgent && j.wantsBeyondLocked() {
		keep = 0
	}
	next := fileHeader{
		slot:      oldest.slot,
		slots:     uint32(len(j.files)),
		fileBytes: j.opt.FileBytes,
		sequence:  j.files[len(j.files)-1].sequence + 1,
		synced:    j.synced,
	}
	j.mu.Unlock()

	switch p {
	case planRecycle:
		if err := j.recycle(oldest, next); err != nil {
			j.fail("recycle", oldest.path, err)
		}
	case planGrow:
		next.slot = next.slots
		next.slots++
		if err := j.grow(next, keep); err != nil {
			j.fail("make", path.Join(j.dir, fileName(next.slot)), err)
		}
	}
	signal(j.prepared)
	return p != planNothing
}

// recycle gives the oldest file, which holds nothing needed, its next use. The
// old use is intact until header B of the new one is whole.
func (j *Journal) recycle(f *file, h fileHeader) (err error) {
	j.event(Event{Kind: EventRecycle, File: f.path, Sequence: f.sequence})
	if h.salt, err = j.newSalt(); err != nil {
		return err
	}
	block := h.encode()
	if _, err := f.f.WriteAt(block, blockBytes); err != nil {
		return err
	}
	if err := f.f.SyncData(); err != nil {
		return err
	}
	if _, err := f.f.WriteAt(block, 0); err != nil {
		return err
	}

	j.mu.Lock()
	f.sequence, f.salt, f.seed, f.end = h.sequence, h.salt, seedOf(h.salt), headerBytes
	copy(j.files, j.files[1:])
	j.files[len(j.files)-1] = f
	j.at--
	j.mu.Unlock()
	j.event(Event{Kind: EventRecycled, File: f.path, Sequence: h.sequence})
	return nil
}

// grow adds a file to the ring, and leaves that much of the disk free. A full
// disk, or too many open files, is not an error: the ring stays as it is until
// somebody asks again.
func (j *Journal) grow(h fileHeader, keep int64) error {
	name := path.Join(j.dir, fileName(h.slot))
	j.event(Event{Kind: EventGrow, File: name, Sequence: h.sequence})
	err := j.room(h.fileBytes + keep)
	var f *file
	if err == nil {
		pace := j.startPace()
		f, err = j.create(h, pace.wait)
	}
	if err == nil {
		err = j.count(f)
	}
	switch {
	case errors.Is(err, errStopped):
		return nil
	case vfs.NoSpace(err) || vfs.NoFiles(err):
		j.event(Event{Kind: EventDiskFull, File: name, Sequence: h.sequence, Err: err})
		j.mu.Lock()
		j.diskFull = true
		j.mu.Unlock()
		return nil
	case err != nil:
		return err
	}
	j.mu.Lock()
	j.files = append(j.files, f)
	j.slots = append(j.slots, f)
	j.diskFull, j.space.tight = false, false
	if j.committedLocked()+j.space.wanted <= j.limitOf(len(j.files)) {
		j.space.wanted, j.space.urgent = 0, false
	}
	j.grantLocked()
	j.mu.Unlock()
	j.event(Event{Kind: EventGrown, File: name, Sequence: h.sequence})
	return nil
}

// count enters a new file in the RING file. If there is no room for that, the
// file leaves again: the next use of an old one takes its sequence.
func (j *Journal) count(f *file) error {
	err := j.writeRing(int(f.slot) + 1)
	if err == nil {
		return nil
	}
	if !vfs.NoSpace(err) && !vfs.NoFiles(err) {
		return err // final; the RING file may count the file by now, so it stays
	}
	r, _, again := readRing(j.fs, j.dir)
	if again != nil || r.slots > f.slot {
		return fmt.Errorf("journal: it is not known whether %s counts %s: %v", ringName, f.path, errors.Join(err, again))
	}
	left := j.fs.Remove(f.path)
	if left == nil {
		left = j.fs.SyncDir(j.dir)
	}
	if left != nil {
		return fmt.Errorf("%w: %w", errNotRemoved, left)
	}
	return errors.Join(err, f.f.Close())
}

// errNotRemoved reports a file that could come back after a power cut.
var errNotRemoved = errors.New("journal: a file that is not in use could not be removed durably")

// room returns an error matching syscall.ENOSPC if the disk has less than that
// much free.
func (j *Journal) room(bytes int64) error {
	free, err := j.fs.Free(j.dir)
	if err == nil && free < bytes {
		err = fmt.Errorf("%w: %d bytes free, want %d", syscall.ENOSPC, free, bytes)
	}
	return err
}

// errStopped ends a growth that Close interrupts.
var errStopped = errors.New("journal: stopped")

// create makes a complete, durable file of zeros with both headers. The zeros
// are written, not only allocated, so that later writes change no metadata and
// a data sync is one write to the disk. It calls wait before it writes on at an
// offset. After an error nothing of it is left.
func (j *Journal) create(h fileHeader, wait func(off int64) error) (*file, error) {
	var err error
	if h.salt, err = j.newSalt(); err != nil {
		return nil, err
	}
	if err := j.room(h.fileBytes); err != nil {
		return nil, err
	}
	temp, name := path.Join(j.dir, tempName), path.Join(j.dir, fileName(h.slot))
	err = j.writeNew(temp, h, wait)
	if err == nil {
		err = j.fs.Rename(temp, name)
	}
	if err != nil {
		return nil, errors.Join(err, j.fs.RemoveAll(temp))
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return nil, err
	}
	f, err := j.fs.Open(name)
	if err != nil {
		return nil, err
	}
	return &file{path: name, slot: h.slot, f: f, sequence: h.sequence, salt: h.salt, seed: seedOf(h.salt), end: headerBytes}, nil
}

func (j *Journal) writeNew(name string, h fileHeader, wait func(off int64) error) (err error) {
	f, err := j.fs.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	chunk := make([]byte, min(1<<20, h.fileBytes))
	for off := int64(0); off < h.fileBytes; off += int64(len(chunk)) {
		if err := wait(off); err != nil {
			return err
		}
		n := min(int64(len(chunk)), h.fileBytes-off)
		if _, err := f.WriteAt(chunk[:n], off); err != nil {
			return err
		}
		f.WriteBack(off, n)
	}
	block := h.encode()
	if _, err := f.WriteVecAt([][]byte{block, block}, 0); err != nil {
		return err
	}
	return f.Sync()
}

func (j *Journal) newSalt() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(j.opt.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("salt: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
