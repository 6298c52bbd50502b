package journal

// Each new file costs as many bytes as it holds, and the sync of a commit waits for
// what the disk has been given before it: zeros written at full speed hold up every
// commit until they are on the disk. The next file is not needed before the
// one that is being written is full, so it grows beside that, and is ready when three
// quarters of what that had left are taken.

// paceStepBytes is how far a new file is ahead of what its pace asks for.
const paceStepBytes = 4 << 20

// pace says how fast a new file is written.
type pace struct {
	j     *Journal
	begin int64 // position of the last record when it began
	room  int64 // what the file being written had left then
}

func (j *Journal) startPace() *pace {
	j.mu.Lock()
	defer j.mu.Unlock()
	return &pace{j: j, begin: j.positionLocked(), room: j.opt.FileBytes - j.files[j.at].end}
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
// waits for it, or is about to.
func (p *pace) due() int64 {
	j := p.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.awaited || j.at < len(j.files)-1 || j.tightLocked() || j.stuckLocked() || j.wantsBeyondLocked() {
		return j.opt.FileBytes
	}
	written := j.positionLocked() - p.begin
	if ready := p.room - p.room/4; written < ready {
		return paceStepBytes + int64(float64(written)/float64(ready)*float64(j.opt.FileBytes))
	}
	return j.opt.FileBytes
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
