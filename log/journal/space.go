package journal

// space is the account of the ring in on-disk bytes (R6). Guarded by
// Journal.mu.
//
// Invariant: a byte of an entry is in exactly one of live, queued and reserved
// from its reservation until it is freed.
type space struct {
	live      int64 // durable and needed
	queued    int64 // given to the writer
	reserved  int64 // promised to future Appends
	unapplied int64 // of live: above what Commit said
	waiters   []*waiter
	wanted    int64 // the most that was refused since there was room for that much
	urgent    bool  // of wanted: it was a TryReserveUrgent
	tight     bool  // something was refused since the ring last grew
	held      bool  // see Hold
}

// usableFileBytes is the room for records in a file. One mark always fits
// behind them, so that the last commit of a file can be proved too.
func (j *Journal) usableFileBytes() int64 {
	return j.opt.FileBytes - headerBytes - recordHeaderBytes
}

// limitLocked is what all live, queued and reserved bytes may reach in the files
// that exist, up to MaxBytes. Records are not split, so a file can lose almost a
// largest record at its end, and one file must be free to copy into; of the rest
// an eighth is kept aside for what Raft stores by itself and for commands that
// free space.
//
// It counts the files that exist: growth can meet a full disk, and what was
// admitted must fit all the same.
func (j *Journal) limitLocked() int64 { return j.limitOf(min(len(j.files), j.maxFiles)) }

func (j *Journal) limitOf(files int) int64 {
	worst := j.usableFileBytes() - RecordBytes(int(j.MaxRecordBytes()), 0)
	return int64(files-1) * worst / 8 * 7
}

func (j *Journal) committedLocked() int64 {
	return j.space.live + j.space.queued + j.space.reserved
}

// reachLocked is limitLocked for bytes more, if need be in files beyond MaxBytes:
// see Room in the package comment.
func (j *Journal) reachLocked(bytes int64) int64 {
	limit := j.limitLocked()
	if len(j.files) <= j.maxFiles || j.committedLocked()+bytes <= limit {
		return limit
	}
	return j.limitOf(min(len(j.files), j.boundLocked(bytes)))
}

// boundLocked is how many files the ring may have if bytes more come to it:
// MaxBytes, and what no checkpoint can free above half of that.
func (j *Journal) boundLocked(bytes int64) int {
	pinned := j.space.unapplied + j.space.queued + j.space.reserved + bytes
	for _, s := range j.shards {
		if e := s.entryLocked(s.applied); e != nil {
			pinned += int64(e.bytes) // a log keeps the last entry of its checkpoint
		}
	}
	over := pinned - j.limitOf(j.maxFiles)/2
	if over <= 0 {
		return j.maxFiles
	}
	each := j.limitOf(2) // what a file adds, at least
	return j.maxFiles + int((over+each-1)/each)
}

// wantsBeyondLocked reports that the ring is to grow for what no checkpoint can
// free: its files have no room for what is there, the largest that was refused and
// the first that waits. With neither, what Raft
// stored by itself has taken what was kept aside, and no file is prepared.
func (j *Journal) wantsBeyondLocked() bool {
	wanted := j.space.wanted
	if len(j.space.waiters) > 0 && !j.space.held {
		wanted = max(wanted, j.space.waiters[0].bytes)
	}
	if wanted == 0 && j.at < len(j.files)-1 {
		return false
	}
	return j.committedLocked()+wanted > j.limitOf(len(j.files)) && len(j.files) < j.boundLocked(wanted)
}

// fitsLocked decides on a reservation; all is false if the ring as a whole has no
// room. All entries that are not yet applied, which no checkpoint can free, hold
// at most half of the limit together: a quarter that any shard may take, and a
// quarter in equal shares. So a shard without a quorum never takes the share of
// another.
func (j *Journal) fitsLocked(s *Shard, bytes int64) (fits, all bool) {
	if j.committedLocked()+bytes > j.reachLocked(bytes) {
		return false, false
	}
	limit := j.limitLocked()
	total := j.space.unapplied + j.space.queued + j.space.reserved
	own := s.unapplied + s.reserved
	share := limit / 4 / int64(max(len(j.shards), 1))
	return total+bytes <= limit/4 || own+bytes <= share || own == 0, true
}

// refuseLocked follows a reservation for which there is no room now. Somebody is to
// take a checkpoint, and the ring to grow, unless the disk is nearly full.
func (j *Journal) refuseLocked(bytes int64) {
	if !j.space.held {
		j.space.tight = true
		if j.committedLocked()+bytes > j.reachLocked(bytes) {
			j.space.wanted = max(j.space.wanted, bytes)
		}
		j.askForGrowthLocked()
	}
	signal(j.pressure)
}

// blockedLocked reports a waiter that needs room in the ring as a whole, which
// nobody may take before it.
func (j *Journal) blockedLocked() bool {
	for _, w := range j.space.waiters {
		if _, all := j.fitsLocked(w.r.s, w.bytes); !all {
			return true
		}
	}
	return false
}

// grantLocked lets waiters pass in order. One that is over its shard's share
// does not hold up the others; one for which the ring has no room does.
func (j *Journal) grantLocked() {
	kept := j.space.waiters[:0]
	blocked := false
	for _, w := range j.space.waiters {
		if w.r.s.dead {
			w.ready <- w.r.s.droppedError()
			continue
		}
		fits, all := j.fitsLocked(w.r.s, w.bytes)
		if blocked = blocked || !all; blocked || !fits || j.space.held {
			kept = append(kept, w)
			continue
		}
		w.r.takeLocked(w.bytes)
		w.ready <- nil
	}
	clear(j.space.waiters[len(kept):])
	j.space.waiters = kept
}

// askForGrowthLocked asks the preparer for a file, also if the disk was full
// the last time.
func (j *Journal) askForGrowthLocked() {
	j.diskFull = false
	signal(j.prepare)
}
