package replication

import (
	"slices"
	"sync"
)

// quantumBytes is what a partition may send in one turn of the deficit round
// robin (Shreedhar and Varghese, 1995). It is small against an entry, so that a
// partition with much to send delays the others by little.
const quantumBytes = 64 << 10

// thinBytes is from where on what waits is worth an entry of its own beside others
// that are in flight: an entry costs three nodes about as much CPU time as that many
// bytes do (ADR 0008).
const thinBytes = 16 << 10

// Proposal is one command on its way into a Raft entry. It is used once.
type Proposal[R any] struct {
	// Queue orders: proposals of one queue are proposed in the order of Propose
	// calls, and queues share entries fairly by bytes. A data shard's queue is
	// the partition number.
	Queue uint32

	// Command and Payload are what Options.Encode puts into the entry. They
	// must not change until Done.
	Command any
	Payload []byte

	// CommandBytes is what Command takes in the entry above
	// Options.CommandOverheadBytes.
	CommandBytes int

	// Urgent says that the command frees space: it does not wait behind what
	// waits for room in the journal, and may use what is kept aside there (R6).
	// It keeps no order with its queue.
	Urgent bool

	// Done is called exactly once, from a goroutine of the replica's, unless
	// Propose or Cancel returned an error or true. It must not block. err is
	// ErrNotLeader, ErrOutcomeUnknown or ErrStopped, wrapped or not.
	Done func(result R, err error)

	bytes     int  // in an entry, at most; 0 once it is cancelled
	queued    bool // guarded by proposer.mu
	cancelled bool // guarded by proposer.mu
}

// queue holds the waiting proposals of one partition.
//
// Invariant: it is in proposer.active if and only if it is not empty.
type queue[R any] struct {
	items   []*Proposal[R]
	deficit int
}

// proposer gathers what waits, for any partition, into entries.
type proposer[R any] struct {
	maxEntryBytes int           // gathered up to here, or one larger proposal alone
	maxCommands   int           // in an entry
	wake          chan struct{} // 1-buffered: there is something to gather
	wakeUrgent    chan struct{} // likewise, of what is urgent

	mu     sync.Mutex
	open   bool // proposals are taken: this replica leads and is ready
	queues map[uint32]*queue[R]
	active []uint32 // round robin, the next turn first
	bytes  int      // of what waits and is not cancelled
	flying int      // entries that were gathered and have not landed

	cancelled int // of what waits, at least; see sweepLocked
	urgent    []*Proposal[R]
}

func newProposer[R any](maxEntryBytes, maxCommands int) *proposer[R] {
	return &proposer[R]{
		maxEntryBytes: maxEntryBytes,
		maxCommands:   maxCommands,
		wake:          make(chan struct{}, 1),
		wakeUrgent:    make(chan struct{}, 1),
		queues:        make(map[uint32]*queue[R]),
	}
}

// push queues ps in order, all or none, and signals the urgent ones.
func (pr *proposer[R]) push(ps []*Proposal[R]) error {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !pr.open {
		return ErrNotLeader
	}
	for _, p := range ps {
		if p.Urgent {
			pr.urgent = append(pr.urgent, p)
			signal(pr.wakeUrgent)
			continue
		}
		q := pr.queues[p.Queue]
		if q == nil {
			q = new(queue[R])
			pr.queues[p.Queue] = q
		}
		if len(q.items) == 0 {
			pr.active = append(pr.active, p.Queue)
		}
		p.queued = true
		q.items = append(q.items, p)
		pr.bytes += p.bytes
	}
	return nil
}

// signal leaves a token in a 1-buffered channel.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// gatherUrgent takes what is urgent, up to maxBytes.
func (pr *proposer[R]) gatherUrgent(maxBytes int) (ps []*Proposal[R], bytes int) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	n := 0
	for n < len(pr.urgent) && n < pr.maxCommands && (n == 0 || bytes+pr.urgent[n].bytes <= maxBytes) {
		bytes += pr.urgent[n].bytes
		n++
	}
	ps, pr.urgent = pr.urgent[:n:n], pr.urgent[n:]
	return ps, bytes
}

// cancel takes p back if it still waits, and reports whether it did: then it
// was never proposed, and Done is not called.
func (pr *proposer[R]) cancel(p *Proposal[R]) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !p.queued || p.cancelled {
		return false
	}
	p.cancelled = true
	pr.bytes -= p.bytes
	p.bytes, p.Payload, p.Command, p.Done = 0, nil, nil, nil
	if pr.cancelled++; pr.cancelled > sweepAt {
		pr.sweepLocked()
	}
	return true
}

// waits reports whether p waits still: it is neither in an entry nor cancelled.
func (pr *proposer[R]) waits(p *Proposal[R]) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return p.queued && !p.cancelled
}

// amend has p, if it waits still, take another command, with which it takes so many
// bytes, and reports whether it does.
func (pr *proposer[R]) amend(p *Proposal[R], command any, commandBytes, bytes int) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !p.queued || p.cancelled {
		return false
	}
	pr.bytes += bytes - p.bytes
	p.Command, p.CommandBytes, p.bytes = command, commandBytes, bytes
	if pr.waitingLocked() > 0 {
		signal(pr.wake)
	}
	return true
}

// sweepAt is how many cancelled proposals may wait for their turn to be dropped.
const sweepAt = 1000

// sweepLocked drops all cancelled proposals.
func (pr *proposer[R]) sweepLocked() {
	pr.cancelled = 0
	active := pr.active[:0]
	for _, id := range pr.active {
		q := pr.queues[id]
		q.items = slices.DeleteFunc(q.items, func(p *Proposal[R]) bool { return p.cancelled })
		if len(q.items) == 0 {
			delete(pr.queues, id)
			continue
		}
		active = append(active, id)
	}
	pr.active = active
}

// waiting returns how many bytes to make room for before the next gather: all
// that wait, up to an entry, and never less than the next proposal. It is 0 if nothing is
// to go now: nothing waits; or it is small and others are in flight, and then landed
// wakes who gathers.
func (pr *proposer[R]) waiting() int {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.waitingLocked()
}

func (pr *proposer[R]) waitingLocked() int {
	if len(pr.active) == 0 || pr.flying > 0 && pr.bytes < min(thinBytes, pr.maxEntryBytes) {
		return 0
	}
	next := pr.queues[pr.active[0]].items[0].bytes
	return max(next, min(pr.bytes, pr.maxEntryBytes))
}

// gather takes the next entry's proposals: by deficit round robin in bytes, up
// to maxEntryBytes and at most limit bytes, or one larger proposal alone. If there are
// any, landed is to be called once what came of them is known.
func (pr *proposer[R]) gather(limit int) []*Proposal[R] {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	into := pr.gatherLocked(limit)
	if len(into) > 0 {
		pr.flying++
	}
	return into
}

// landed says that an entry is in flight no more: what waited for it may go.
func (pr *proposer[R]) landed() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.flying--
	if pr.waitingLocked() > 0 {
		signal(pr.wake)
	}
}

func (pr *proposer[R]) gatherLocked(limit int) (into []*Proposal[R]) {
	bytes, room := 0, min(limit, pr.maxEntryBytes)
	for len(pr.active) > 0 && len(into) < pr.maxCommands {
		id := pr.active[0]
		q := pr.queues[id]
		q.deficit += quantumBytes
		for len(q.items) > 0 && len(into) < pr.maxCommands {
			p := q.items[0]
			if p.cancelled {
				q.pop()
				continue
			}
			size := p.bytes
			if bytes > 0 && bytes+size > room || size > limit {
				return into // keeps its turn, and its deficit
			}
			if size > q.deficit {
				break
			}
			q.pop()
			q.deficit -= size
			p.queued = false
			pr.bytes -= size
			bytes += size
			into = append(into, p)
		}
		pr.active = pr.active[1:]
		if len(q.items) > 0 {
			pr.active = append(pr.active, id)
		} else {
			delete(pr.queues, id)
		}
	}
	return into
}

func (q *queue[R]) pop() {
	q.items[0] = nil
	q.items = q.items[1:]
}

// setOpen opens or closes the proposer; closing returns what waited.
func (pr *proposer[R]) setOpen(open bool) (dropped []*Proposal[R]) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.open = open
	if open {
		return nil
	}
	for _, id := range pr.active {
		for _, p := range pr.queues[id].items {
			if !p.cancelled {
				p.queued = false
				dropped = append(dropped, p)
			}
		}
	}
	clear(pr.queues)
	dropped = append(dropped, pr.urgent...)
	pr.active, pr.bytes, pr.urgent = nil, 0, nil
	return dropped
}
