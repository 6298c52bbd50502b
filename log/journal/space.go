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
	refused   bool // a TryReserve, since the ring last grew
	held      bool // see Hold
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

// limitLocked is what all live, queued and reserved bytes may reach. Records
// are not split, so a file can lose almost a largest record at its end, and one
// file must be free to copy into; of the rest an eighth is kept aside for what
// Raft stores by itself and for commands that free space.
//
// It counts the files that exist: growth can meet a full disk, and what was
// admitted must fit all the same.
func (j *Journal) limitLocked() int64 { return j.limitOf(len(j.files)) }

func (j *Journal) limitOf(files int) int64 {
	worst := j.usableFileBytes() - RecordBytes(int(j.MaxRecordBytes()), 0)
	return int64(files-1) * worst / 8 * 7
}

func (j *Journal) committedLocked() int64 {
	return j.space.live + j.space.queued + j.space.reserved
}

// fitsLocked decides on a reservation. All entries that are not yet applied,
// which no checkpoint can free, hold at most half of the limit together: a
// quarter that any shard may take, and a quarter in equal shares. So a shard
// without a quorum never takes the share of another.
func (j *Journal) fitsLocked(s *Shard, bytes int64) (fits, all bool) {
	limit := j.limitLocked()
	if j.committedLocked()+bytes > limit {
		return false, false
	}
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
	r, err := j.tryReserveLocked(s, bytes)
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
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.tryReserveLocked(s, bytes)
	if err == ErrNoSpace {
		if !j.space.held {
			j.space.refused = true
			j.askForGrowthLocked()
		}
		signal(j.pressure)
	}
	return r, err
}

// TryReserveUrgent is TryReserve for an entry that frees space, such as the
// deletion of a partition: it may use half of what is kept aside, passes those
// that wait, and no share is looked at (R6). The other half stays for what Raft
// stores by itself.
func (j *Journal) TryReserveUrgent(s *Shard, bytes int64) (*Reservation, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := s.reservableLocked(); err != nil {
		return nil, err
	}
	limit := j.limitLocked() // seven eighths
	if j.committedLocked()+bytes > limit+limit/14 {
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

func (j *Journal) tryReserveLocked(s *Shard, bytes int64) (*Reservation, error) {
	if err := s.reservableLocked(); err != nil {
		return nil, err
	}
	if limit := j.limitOf(max(j.maxFiles, len(j.files))); bytes > limit {
		return nil, fmt.Errorf("%w: reservation of %d bytes, limit %d", ErrTooLarge, bytes, limit)
	}
	if len(j.space.waiters) > 0 {
		j.grantLocked() // those who wait come first
	}
	if fits, all := j.fitsLocked(s, bytes); !fits || !all || j.space.held || j.blockedLocked() {
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
