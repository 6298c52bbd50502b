package journal

import (
	"errors"
	"fmt"
)

// budgetLocked is how much may be placed behind file.end before room has to be
// made. While no file is prepared, what the oldest one still needs is kept
// free, so that copying it forward always fits and the ring cannot get stuck,
// even if it then turns out that it cannot grow. It only becomes larger while
// the writer does nothing, so an old answer is safe.
func (j *Journal) budgetLocked() int64 {
	f := j.files[j.at]
	budget := headerBytes + j.usableFileBytes() - f.end
	if j.at == len(j.files)-1 {
		budget -= j.files[0].live
	}
	return budget
}

// crampedLocked reports that the oldest file cannot be copied forward, with no other
// one to go on in.
func (j *Journal) crampedLocked() bool { return j.at == len(j.files)-1 && !j.copyFitsLocked() }

// makeRoom brings the budget to at least size, by moving on to the next file.
// It waits for the preparer at most, which waits for the disk only.
func (j *Journal) makeRoom(size int64) error {
	if err := j.flush(); err != nil {
		return err
	}
	for switches, asked := 0, false; ; {
		j.mu.Lock()
		err := j.failed
		j.w.budget = j.budgetLocked()
		room := j.w.budget >= size
		next := j.at < len(j.files)-1
		wait := j.planLocked() != planNothing
		fits := j.copyFitsLocked()
		files := len(j.files)
		j.mu.Unlock()
		switch {
		case err != nil:
			return err
		case room:
			return nil
		case next:
			if switches++; switches > files+1 {
				return j.fail("append to", j.w.file.path, j.errFull(size))
			}
			if err := j.switchFile(); err != nil {
				return err
			}
		case wait:
			j.await()
		case !fits && !asked:
			asked = true // the disk may have room again
			j.mu.Lock()
			j.askForGrowthLocked()
			j.mu.Unlock()
		case !fits:
			return j.fail("append to", j.w.file.path, j.errFull(size))
		default:
			if err := j.copyForward(copyStepBytes); err != nil {
				return err
			}
			if err := j.flush(); err != nil {
				return err
			}
		}
	}
}

// await waits for a step of the preparer, which then takes no time over it.
func (j *Journal) await() {
	j.setAwaited(true)
	signal(j.prepare)
	<-j.prepared
	j.setAwaited(false)
}

func (j *Journal) setAwaited(on bool) {
	j.mu.Lock()
	j.awaited = on
	j.mu.Unlock()
}

// errFull says how the ring came to have no room for an Append, which
// reservations exclude.
func (j *Journal) errFull(size int64) error {
	u := j.Usage()
	j.mu.Lock()
	left, oldest := j.opt.FileBytes-j.files[j.at].end, j.files[0].live
	j.mu.Unlock()
	return fmt.Errorf("no room for %d bytes in %d files: live %d, reserved %d, limit %d, left in the newest file %d, live in the oldest %d: %w",
		size, u.Files, u.LiveBytes, u.ReservedBytes, u.LimitBytes, left, oldest, errOverrun)
}

var errOverrun = errors.New("more is needed than was reserved")

// switchFile moves on to the next prepared file. All before it is synced then:
// a record in a file is proof of the whole file before.
func (j *Journal) switchFile() error {
	if err := j.syncMark(); err != nil {
		return err
	}
	w := &j.w
	j.mu.Lock()
	j.at++
	w.file = j.files[j.at]
	w.budget = j.budgetLocked()
	j.diskFull = false // one try for each file
	if j.planLocked() != planNothing {
		signal(j.prepare)
	}
	j.mu.Unlock()
	j.event(Event{Kind: EventSwitch, File: w.file.path, Sequence: w.file.sequence})
	return nil
}
