package journal

import (
	"context"
	"fmt"
	"slices"
)

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

// Reservation is room in the ring for what its shard will append.
type Reservation struct {
	s    *Shard
	left int64
}

// waiter is a Reserve that waits.
type waiter struct {
	r     *Reservation
	bytes int64
	ready chan error // 1-buffered
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

// Reserve waits until the ring has room for bytes more of s (see RecordBytes),
// and takes it. It is called before an entry is proposed, or delivered to Raft:
// never on Raft's own goroutine, since the checkpoint that frees space needs
// that one.
//
// It returns ctx's error, ErrTooLarge if the ring could never hold bytes, or
// what a write would return. The caller calls Release once the entry's outcome
// is known, whatever it is.
func (j *Journal) Reserve(ctx context.Context, s *Shard, bytes int64) (*Reservation, error) {
	j.mu.Lock()
	r, err := j.tryReserveLocked(s, bytes, true)
	if err != ErrNoSpace {
		j.mu.Unlock()
		return r, err
	}
	w := &waiter{r: &Reservation{s: s}, bytes: bytes, ready: make(chan error, 1)}
	j.space.waiters = append(j.space.waiters, w)
	if !j.space.held {
		j.askForGrowthLocked()
	}
	signal(j.pressure)
	j.mu.Unlock()

	select {
	case err = <-w.ready:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-j.stopped:
		j.mu.Lock()
		err = j.usableLocked()
		j.mu.Unlock()
	}
	if err == nil {
		return w.r, nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.space.waiters = slices.DeleteFunc(j.space.waiters, func(o *waiter) bool { return o == w })
	w.r.releaseLocked() // it may have been granted meanwhile
	j.grantLocked()     // and those behind it may pass
	return nil, err
}

// Hold makes every Reserve wait, and every TryReserve answer ErrNoSpace, until
// it is called with false: for a node whose disk is nearly full. What frees
// space goes on, by TryReserveUrgent.
func (j *Journal) Hold(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.space.held = on
	j.grantLocked()
}

// TryReserve is Reserve without waiting: it returns ErrNoSpace instead.
func (j *Journal) TryReserve(s *Shard, bytes int64) (*Reservation, error) {
	return j.tryReserve(s, bytes, true)
}

// TryReserveFollowing is TryReserve for entries that a leader has sent. They are in
// its journal, under the share of the shard there, and no share is looked at here:
// that could refuse for ever what the leader cannot commit without this node.
func (j *Journal) TryReserveFollowing(s *Shard, bytes int64) (*Reservation, error) {
	return j.tryReserve(s, bytes, false)
}

func (j *Journal) tryReserve(s *Shard, bytes int64, share bool) (*Reservation, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.tryReserveLocked(s, bytes, share)
	if err == ErrNoSpace {
		j.refuseLocked(bytes)
	}
	return r, err
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

// TryReserveUrgent is TryReserve for an entry that frees space, such as the
// deletion of a partition, or without which nothing can be freed: it may use half
// of what is kept aside, passes those that wait, and no share is looked at (R6).
// The other half stays for what Raft stores by itself. The disk's reserve is for
// it too.
func (j *Journal) TryReserveUrgent(s *Shard, bytes int64) (*Reservation, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := s.reservableLocked(); err != nil {
		return nil, err
	}
	limit := j.reachLocked(bytes) // seven eighths
	if j.committedLocked()+bytes > limit+limit/14 {
		j.space.wanted, j.space.urgent = max(j.space.wanted, bytes), true
		j.askForGrowthLocked()
		signal(j.pressure) // a checkpoint makes room: nobody else may ask for one
		return nil, ErrNoSpace
	}
	r := &Reservation{s: s}
	r.takeLocked(bytes)
	return r, nil
}

// reservableLocked returns why no room can be had for s at all, or nil.
func (s *Shard) reservableLocked() error {
	if err := s.j.usableLocked(); err != nil {
		return err
	}
	if s.dead {
		return s.droppedError()
	}
	return nil
}

func (j *Journal) tryReserveLocked(s *Shard, bytes int64, share bool) (*Reservation, error) {
	if err := s.reservableLocked(); err != nil {
		return nil, err
	}
	if limit := j.limitOf(max(j.maxFiles, len(j.files))); bytes > limit {
		return nil, fmt.Errorf("%w: reservation of %d bytes, limit %d", ErrTooLarge, bytes, limit)
	}
	if len(j.space.waiters) > 0 {
		j.grantLocked() // those who wait come first
	}
	if fits, all := j.fitsLocked(s, bytes); !fits && share || !all || j.space.held || j.blockedLocked() {
		return nil, ErrNoSpace
	}
	r := &Reservation{s: s}
	r.takeLocked(bytes)
	if j.planLocked() != planNothing {
		signal(j.prepare)
	}
	return r, nil
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

func (r *Reservation) takeLocked(bytes int64) {
	s := r.s
	if bytes >= s.j.space.wanted {
		s.j.space.wanted, s.j.space.urgent = 0, false
	}
	r.left = bytes
	s.reservations = append(s.reservations, r)
	s.reserved += bytes
	s.j.space.reserved += bytes
}

// Release gives back what Appends of the shard have not used up. It may be
// called more than once, and from any goroutine.
func (r *Reservation) Release() {
	r.s.j.mu.Lock()
	defer r.s.j.mu.Unlock()
	r.releaseLocked()
	r.s.j.grantLocked()
}

func (r *Reservation) releaseLocked() {
	if r.left == 0 {
		return
	}
	r.s.reserved -= r.left
	r.s.j.space.reserved -= r.left
	r.left = 0
	r.s.reservations = slices.DeleteFunc(r.s.reservations, func(o *Reservation) bool { return o == r })
}

// consumeLocked takes an Append's bytes off the shard's oldest reservations.
// Which one they come from does not matter: each Release gives back only what
// is left, and what is missing comes from the eighth kept aside.
func (s *Shard) consumeLocked(bytes int64) {
	for bytes > 0 && len(s.reservations) > 0 {
		r := s.reservations[0]
		n := min(bytes, r.left)
		r.left -= n
		s.reserved -= n
		s.j.space.reserved -= n
		bytes -= n
		if r.left == 0 {
			s.reservations = s.reservations[1:]
		}
	}
}
