package journal

// Each new file costs as many bytes as it holds, and the sync of a commit waits for
// what the disk has been given before it: zeros written at full speed hold up every
// commit until they are on the disk, and replicas, whose journals fill alike, write them
// at the same time. The next file is not needed before those that are there are full, nor
// before what may be kept in them has reached its limit. So it grows beside that, and is
// ready when three quarters of what was left of either are taken.

// paceStepBytes is how far a new file is ahead of what its pace asks for.
const paceStepBytes = 4 << 20

// pace says how fast a new file is written.
type pace struct {
	j     *Journal
	begin int64 // position of the last record when it began
	room  int64 // what the files had left then
	taken int64 // what was kept and promised then
	spare int64 // what was left of the limit of that
}

func (j *Journal) startPace() *pace {
	j.mu.Lock()
	defer j.mu.Unlock()
	begin, taken := j.positionLocked(), j.committedLocked()
	end := int64(j.files[len(j.files)-1].sequence+1) * j.opt.FileBytes
	return &pace{j: j, begin: begin, room: end - begin, taken: taken, spare: j.limitLocked() - taken}
}

// positionLocked grows by what is written; it jumps by what is left in a file when the
// writer moves on.
func (j *Journal) positionLocked() int64 {
	f := j.files[j.at]
	return int64(f.sequence)*j.opt.FileBytes + f.end
}

// wait returns when a file of which off bytes are written is to be written further, or
// errStopped.
func (p *pace) wait(off int64) error {
	for off >= p.due() {
		select {
		case <-p.j.prepare:
		case <-p.j.stopPrep:
			return errStopped
		}
	}
	return p.j.goOn(off)
}

// due returns how many bytes of the new file are to be there by now: all, if somebody
// waits for it, or found no room.
func (p *pace) due() int64 {
	j := p.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.awaited || j.refusedLocked() || j.stuckLocked() || j.wantsBeyondLocked() {
		return j.opt.FileBytes
	}
	return max(p.share(j.positionLocked()-p.begin, p.room), p.share(j.committedLocked()-p.taken, p.spare))
}

// share returns what is to be there of the new file once used bytes of room are taken.
func (p *pace) share(used, room int64) int64 {
	ready := room - room/4
	if used >= ready {
		return p.j.opt.FileBytes
	}
	return paceStepBytes + int64(float64(max(used, 0))/float64(ready)*float64(p.j.opt.FileBytes))
}

// goOn is the pace of one who waits: it returns errStopped once the journal is to end.
func (j *Journal) goOn(int64) error {
	select {
	case <-j.stopPrep:
		return errStopped
	default:
		return nil
	}
}
