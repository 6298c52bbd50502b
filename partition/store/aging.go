package store

import "time"

// agingList holds the partitions that have a tail and are not busy, oldest
// first by journal distance: by how much the node has appended since the
// tail's first batch came. What lies furthest back keeps the most of the
// journal, and of shared entry buffers, from being reused.
//
// Invariant: stamps, and with them times, never decrease from head to tail.
type agingList struct{ head, tail *part }

// push enters p where its stamp belongs, which is nearly always the end.
func (l *agingList) push(p *part) {
	before := l.tail
	for before != nil && before.age.stamp > p.age.stamp {
		before = before.prev
	}
	p.prev, p.aged = before, true
	if before == nil {
		p.next, l.head = l.head, p
	} else {
		p.next, before.next = before.next, p
	}
	if p.next == nil {
		l.tail = p
	} else {
		p.next.prev = p
	}
}

func (l *agingList) remove(p *part) {
	if !p.aged {
		return
	}
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.next, p.prev, p.aged = nil, nil, false
}

// age says when the first batch of a tail came, or a time before that.
type age struct {
	stamp     int64 // Store.appended
	unixNanos int64
}

// noteTail is called under sh.mu when p's tail got its first batch, or has
// become full.
func (st *Store) noteTail(p *part, stamp int64, full bool) {
	st.mu.Lock()
	// The goroutine that has p enters it again when it is done.
	if !p.busy {
		if !p.aged {
			p.age = age{stamp: stamp, unixNanos: st.opt.Now().UnixNano()}
			st.aging.push(p)
		}
		if full {
			st.full = append(st.full, p)
		}
	}
	wake := full || st.aging.head == p
	st.mu.Unlock()
	if wake {
		st.signal()
	}
}

// signal makes a flusher look for work.
func (st *Store) signal() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// runFlusher is one flusher goroutine.
func (st *Store) runFlusher() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p, old, wait := st.nextFlush(st.opt.Now())
		if p == nil {
			timer.Reset(wait)
			select {
			case <-st.wake:
			case <-timer.C:
			case <-st.stop:
				return
			}
			continue
		}
		st.signal() // another flusher may find more
		begun := st.opt.Now()
		st.flushInBackground(p)
		if old {
			st.restAfter(st.opt.Now().Sub(begun))
		}
	}
}

// What is flushed for its age alone can wait, and is flushed one partition after the other
// with rests between: restFactor times as long as the last took, and at most restShare
// of TailMaxAge. Partitions that began together are old together, and all of them at once
// would take disk and CPU from requests.
const (
	restFactor = 8
	restShare  = 10
)

// restAfter begins a rest after a flush that took so long.
func (st *Store) restAfter(took time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.rest = st.opt.Now().Add(min(restFactor*took, st.opt.TailMaxAge/restShare))
}

// nextFlush returns a partition to flush now, made busy, and whether that is for its age
// alone: then restAfter is to be called; or how long there is none unless signalled.
func (st *Store) nextFlush(now time.Time) (p *part, old bool, wait time.Duration) {
	const long = time.Hour
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed || st.failed != nil {
		return nil, false, long
	}
	if wait := st.retryAt.Sub(now); wait > 0 {
		return nil, false, wait
	}
	for len(st.full) > 0 {
		p := st.full[0]
		st.full = st.full[1:]
		if !p.busy && p.aged {
			st.takeLocked(p)
			return p, false, 0
		}
	}
	p = st.aging.head
	if p == nil {
		return nil, false, long
	}
	if old = len(st.admitting) == 0 && st.memory.Load() <= st.flushMark(); old {
		due := time.Unix(0, p.age.unixNanos).Add(st.opt.TailMaxAge)
		if wait := max(due.Sub(now), st.rest.Sub(now)); wait > 0 {
			return nil, false, wait
		}
		st.rest = now.Add(long)
	}
	st.takeLocked(p)
	return p, old, 0
}

func (st *Store) takeLocked(p *part) {
	if !p.aged {
		p.age = st.age() // nothing in its tail is older
	}
	st.aging.remove(p)
	p.busy = true
}

// age is the age of what comes from now on.
func (st *Store) age() age {
	return age{stamp: st.appended.Load(), unixNanos: st.opt.Now().UnixNano()}
}

// take waits until no other goroutine has p, and makes it busy.
func (st *Store) take(p *part) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for p.busy {
		st.notBusy.Wait()
	}
	st.takeLocked(p)
}

// giveBack ends busy. p.age bounds the age of what is in the tail now.
func (st *Store) giveBack(p *part) {
	p.sh.mu.Lock()
	st.mu.Lock()
	p.busy = false
	wake := false
	if len(p.tail) > 0 && p.sh.parts[p.key] == p {
		st.aging.push(p)
		if p.tailBytes >= st.opt.TailFlushBytes {
			st.full = append(st.full, p)
			wake = true
		}
		wake = wake || st.aging.head == p
	}
	st.notBusy.Broadcast()
	st.mu.Unlock()
	p.sh.mu.Unlock()
	if wake {
		st.signal()
	}
}
