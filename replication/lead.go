package replication

import (
	"errors"
	"time"

	"github.com/flotilla-log/flotilla/log/journal"
)

// watch follows Raft's leadership.
func (r *Replica[R]) watch() {
	for {
		select {
		case leads := <-r.notify:
			if leads {
				r.win()
			} else {
				r.lose(0)
			}
		case <-r.stopCtx.Done():
			return
		}
	}
}

// win opens a term with its TermStart. Raft applies entries in order, so when
// that is applied everything before it is (R19).
func (r *Replica[R]) win() {
	term := r.raft.CurrentTerm()
	r.lose(term)
	start := []*Proposal[R]{{Command: r.opt.TermStart}}
	r.send(&entry[R]{start: true, term: term, data: r.opt.Encode(term, r.opt.Now().UnixMilli(), start)})
}

// lose ends the term that was led, and begins the next one (0: none) without
// serving yet. A proposal that Raft has seen may still be committed by the next
// leader; one that waited is never proposed.
func (r *Replica[R]) lose(term uint64) {
	r.mu.Lock()
	r.loseLocked(term)
}

// loseTerm is lose(0) if term is the one that is led.
func (r *Replica[R]) loseTerm(term uint64) {
	r.mu.Lock()
	if r.term != term {
		r.mu.Unlock()
		return
	}
	r.loseLocked(0)
}

// loseLocked is lose; it unlocks r.mu, because it answers proposals.
func (r *Replica[R]) loseLocked(term uint64) {
	flying := r.inflight
	r.inflight = nil
	r.term = term
	was := r.ready.Swap(0)
	r.endOpeningLocked()
	if term != 0 {
		r.opening = make(chan struct{})
	}
	waiting := r.proposer.setOpen(false)
	r.mu.Unlock()
	for _, e := range flying {
		r.drop(e, ErrOutcomeUnknown)
	}
	var none R
	for _, p := range waiting {
		p.Done(none, ErrNotLeader)
	}
	if was != 0 {
		r.opt.OnLeading()
	}
}

// send hands an entry of the current term to Raft, and drops one of an earlier
// term. It never waits: Raft's queue holds more than may be in flight.
func (r *Replica[R]) send(e *entry[R]) {
	r.mu.Lock()
	current := e.term != 0 && e.term == r.term && r.stopCtx.Err() == nil
	if current {
		r.inflight = append(r.inflight, e)
		// The future is not waited for: ApplyBatch answers the proposals, or
		// losing the leadership does. (Raft leaves futures unanswered at
		// shutdown.)
		r.raft.Apply(e.data, 0)
	}
	r.mu.Unlock()
	if !current {
		r.drop(e, ErrNotLeader)
	}
}

// drop answers an entry that was not applied.
func (r *Replica[R]) drop(e *entry[R], err error) {
	r.finish(e)
	var none R
	for _, p := range e.proposals {
		p.Done(none, err)
	}
}

// finish gives back what an entry in flight holds.
func (r *Replica[R]) finish(e *entry[R]) {
	if e.release != nil {
		e.release()
	}
	if e.slots != nil {
		<-e.slots
	}
	if e.slots == r.slots {
		r.proposer.landed()
	}
}

// propose gathers and proposes, for as long as the replica runs.
func (r *Replica[R]) propose() {
	for {
		select {
		case <-r.proposer.wake:
		case <-r.stopCtx.Done():
			return
		}
		for r.proposeOne() {
		}
	}
}

// proposeOne proposes one entry when there is a slot and room in the journal
// for it, and reports whether there was something to propose. What comes in
// while it waits shares the entry.
func (r *Replica[R]) proposeOne() bool {
	if r.proposer.waiting() == 0 {
		return false
	}
	select {
	case r.slots <- struct{}{}:
	case <-r.stopCtx.Done():
		return false
	}
	r.gathering.Lock()
	defer r.gathering.Unlock()
	e := r.gather(r.reserve)
	if e == nil {
		<-r.slots
		return r.stopCtx.Err() == nil
	}
	r.sendInTurn(e)
	return true
}

// proposeInline proposes what waits on the goroutine of its Propose if nothing
// is in flight and nothing has to be waited for: a lone proposal is not handed
// from goroutine to goroutine. It reports whether nothing is left waiting.
func (r *Replica[R]) proposeInline() bool {
	select {
	case r.slots <- struct{}{}:
	default:
		return false
	}
	if len(r.slots) > 1 || !r.gathering.TryLock() {
		<-r.slots
		return false
	}
	defer r.gathering.Unlock()
	select {
	case r.turn <- struct{}{}:
	default:
		<-r.slots
		return false
	}
	defer func() { <-r.turn }()
	e := r.gather(r.tryReserve)
	if e == nil {
		<-r.slots
		return false
	}
	r.send(e)
	return r.proposer.waiting() == 0
}

// sendInTurn sends e, but not while the leadership is being handed over: Raft
// would drop the entry, and tell nobody who does not wait for its future.
func (r *Replica[R]) sendInTurn(e *entry[R]) {
	select {
	case r.turn <- struct{}{}:
		r.send(e)
		<-r.turn
	case <-r.stopCtx.Done():
		r.drop(e, ErrNotLeader)
	}
}

const (
	// urgentBytes bounds an urgent entry, so that what is kept aside in the
	// journal takes several.
	urgentBytes = 4 << 10

	// urgentRetry is when to look again for room for one.
	urgentRetry = 50 * time.Millisecond
)

// proposeUrgent proposes what frees space, one entry at a time, for as long as
// the replica runs.
func (r *Replica[R]) proposeUrgent() {
	slot := make(chan struct{}, 1)
	for {
		select {
		case <-r.proposer.wakeUrgent:
		case <-r.stopCtx.Done():
			return
		}
		for {
			select {
			case slot <- struct{}{}:
			case <-r.stopCtx.Done():
				return
			}
			e := &entry[R]{slots: slot, term: r.ready.Load()}
			var bytes int
			if e.proposals, bytes = r.proposer.gatherUrgent(urgentBytes); len(e.proposals) == 0 {
				<-slot
				break
			}
			if !r.reserveUrgent(e, bytes+r.opt.EntryOverheadBytes) {
				r.drop(e, ErrNotLeader)
				return
			}
			e.data = r.opt.Encode(e.term, r.opt.Now().UnixMilli(), e.proposals)
			r.sendInTurn(e)
		}
	}
}

// reserveUrgent waits until what is kept aside has room; false says that the
// replica stops.
func (r *Replica[R]) reserveUrgent(e *entry[R], bytes int) bool {
	if r.journal == nil {
		return true
	}
	for {
		room, err := r.opt.Journal.TryReserveUrgent(r.journal, journal.RecordBytes(bytes, 0))
		if err == nil {
			e.release = room.Release
			return true
		}
		if !errors.Is(err, journal.ErrNoSpace) {
			if r.stopCtx.Err() == nil {
				r.fail(err)
			}
			return false
		}
		retry := time.NewTimer(urgentRetry)
		select {
		case <-retry.C:
		case <-r.stopCtx.Done():
			retry.Stop()
			return false
		}
	}
}

// gather makes the next entry. Room is reserved before anything is taken: a
// proposal that waits for room can still be cancelled.
func (r *Replica[R]) gather(reserve func(bytes int64) (*journal.Reservation, error)) *entry[R] {
	limit := r.proposer.waiting()
	if limit == 0 {
		return nil
	}
	e := &entry[R]{slots: r.slots}
	if r.journal != nil {
		room, err := reserve(journal.RecordBytes(limit+r.opt.EntryOverheadBytes, 0))
		if err != nil {
			if r.stopCtx.Err() == nil && !errors.Is(err, journal.ErrNoSpace) {
				r.fail(err)
			}
			return nil
		}
		e.release = room.Release
	}
	e.term = r.ready.Load()
	e.proposals = r.proposer.gather(limit)
	if len(e.proposals) == 0 {
		if e.release != nil {
			e.release()
		}
		return nil
	}
	e.data = r.opt.Encode(e.term, r.opt.Now().UnixMilli(), e.proposals)
	return e
}

func (r *Replica[R]) reserve(bytes int64) (*journal.Reservation, error) {
	return r.opt.Journal.Reserve(r.stopCtx, r.journal, bytes)
}

func (r *Replica[R]) tryReserve(bytes int64) (*journal.Reservation, error) {
	return r.opt.Journal.TryReserve(r.journal, bytes)
}
