package journal

import (
	"context"
	"fmt"
	"slices"
)

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
