package transport

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Clock is what a Hub knows of time.
type Clock struct {
	Now       func() time.Time
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
}

// WallClock is package time's, which a testing/synctest bubble makes virtual.
var WallClock = Clock{
	Now:       time.Now,
	AfterFunc: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop },
}

// HubOptions configures a Hub. The zero value of a field that has a default
// means that one.
type HubOptions struct {
	Seed             uint64        // of everything that is left to chance
	Clock            Clock         // default WallClock
	Timeout          time.Duration // of a call; default 500 ms
	MaxInFlightBytes int64         // from one replica to another; default 8 MiB
}

// Faults is what happens to messages from one node to another. Requests and
// answers are messages alike.
type Faults struct {
	Cut              bool          // nothing arrives
	MinDelay         time.Duration // each message takes [MinDelay, MaxDelay]
	MaxDelay         time.Duration
	LossPercent      int  // of the messages
	DuplicatePercent int  // of the requests arrive twice
	Reorder          bool // a message may pass those before it
}

// Hub connects replicas in one process: a network in memory, with faults that
// are drawn from a seed. Its methods may be called at any time.
//
// Everything that waits does so on a channel or a timer of its Clock.
type Hub struct {
	roster
	opt HubOptions

	mu     sync.Mutex
	rng    *rand.Rand
	nodes  map[int32]*HubNode
	faults map[way]Faults
	queues map[way]*queue
	cuts   map[way]uint64 // how often a way was cut or healed
	silent map[way]bool   // cut for so long that its ends know
}

// way is a direction between two nodes.
type way struct{ from, to int32 }

// queue holds what is under way in order, for each way that keeps the order.
type queue struct {
	arrivals []func()
	last     time.Time // of the last in arrivals, or the last that arrived
	due      int       // how many of arrivals have come to their time
	busy     bool      // somebody lets them arrive, one after the other
}

// NewHub returns a hub without faults and without delays.
func NewHub(opt HubOptions) *Hub {
	if opt.Clock.Now == nil {
		opt.Clock = WallClock
	}
	if opt.Timeout == 0 {
		opt.Timeout = 500 * time.Millisecond
	}
	if opt.MaxInFlightBytes == 0 {
		opt.MaxInFlightBytes = 8 << 20
	}
	return &Hub{
		opt:    opt,
		rng:    rand.New(rand.NewPCG(opt.Seed, 0)),
		nodes:  make(map[int32]*HubNode),
		faults: make(map[way]Faults),
		queues: make(map[way]*queue),
		cuts:   make(map[way]uint64),
		silent: make(map[way]bool),
	}
}

// SetFaults says what happens from now on to messages from one node to another.
// What is under way arrives as it would have, unless the way is cut by then.
func (h *Hub) SetFaults(from, to int32, f Faults) {
	w := way{from, to}
	h.mu.Lock()
	was := h.faults[w].Cut
	h.faults[w] = f
	if f.Cut != was {
		h.cutLocked(w, f.Cut)
	}
	h.mu.Unlock()
	if f.Cut != was {
		h.notify()
	}
}

// Cut cuts the way from one node to another, or heals it. Other faults stay.
func (h *Hub) Cut(from, to int32, cut bool) {
	h.mu.Lock()
	f := h.faults[way{from, to}]
	h.mu.Unlock()
	f.Cut = cut
	h.SetFaults(from, to, f)
}

// Join makes the transport of a replica. It takes the place of an earlier one of
// the same shard and node, which then reaches nobody and is reached by nobody.
func (h *Hub) Join(shard ShardID, id ReplicaID) *Member {
	return h.enter(newMember(h, h.opt.Clock, h.opt.Timeout, h.opt.MaxInFlightBytes, shard, id))
}

// carry implements carrier.
func (h *Hub) carry(c *call, command any, snapshot []byte) {
	command = copyCommand(command)
	there, back := way{c.m.id.Node, c.to.Node}, way{c.to.Node, c.m.id.Node}
	reply := func(answer any, err error) {
		if err != errGone { // nobody says that it was lost
			h.send(back, false, func() { c.m.land(c, answer, err) })
		}
	}
	h.send(there, true, func() {
		peer, err := h.find(c.m.shard, c.to)
		if err != nil {
			reply(nil, err)
			return
		}
		peer.take(copyCommand(command), snapshot, reply) // each arrival has its own: a duplicate is one more
	})
}

// moved implements carrier: a call has the time-out, and no more.
func (h *Hub) moved(*call) (time.Time, time.Duration) { return time.Time{}, 0 }

// drop implements carrier. What is under way arrives all the same.
func (h *Hub) drop(*call) {}

// send lets a message arrive at the other end of a way, some time or never.
// Messages arrive in order unless the way reorders them. twice may have it
// arrive a second time.
func (h *Hub) send(w way, twice bool, arrive func()) {
	h.mu.Lock()
	f := h.faults[w]
	copies := 1
	if f.Cut || h.rng.IntN(100) < f.LossPercent {
		copies = 0
	} else if twice && h.rng.IntN(100) < f.DuplicatePercent {
		copies = 2
	}
	now := h.opt.Clock.Now()
	var waits []time.Duration
	q := h.queues[w]
	if q == nil {
		q = new(queue)
		h.queues[w] = q
	}
	straight := false
	for range copies {
		wait := f.MinDelay
		if f.MaxDelay > f.MinDelay {
			wait += time.Duration(h.rng.Int64N(int64(f.MaxDelay - f.MinDelay + 1)))
		}
		if f.Reorder {
			waits = append(waits, wait)
			continue
		}
		if wait == 0 && len(q.arrivals) == 0 && !q.busy && copies == 1 {
			straight = true
			continue
		}
		if at := now.Add(wait); at.Before(q.last) {
			wait = q.last.Sub(now)
		}
		q.last = now.Add(wait)
		q.arrivals = append(q.arrivals, arrive)
		waits = append(waits, wait)
	}
	h.mu.Unlock()
	if straight {
		arrive()
	}
	for _, wait := range waits {
		if f.Reorder {
			h.opt.Clock.AfterFunc(wait, func() { h.unlessCut(w, arrive) })
			continue
		}
		// Which timer ends first does not matter: the first in line arrives.
		h.opt.Clock.AfterFunc(wait, func() { h.arriveNext(w, q) })
	}
}

// arriveNext lets the first in line arrive.
func (h *Hub) arriveNext(w way, q *queue) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.due++; q.busy {
		return
	}
	q.busy = true
	for ; q.due > 0; q.due-- {
		arrive := q.arrivals[0]
		q.arrivals[0] = nil
		q.arrivals = q.arrivals[1:]
		if cut := h.faults[w].Cut; !cut {
			h.mu.Unlock()
			arrive()
			h.mu.Lock()
		}
	}
	q.busy = false
}

func (h *Hub) unlessCut(w way, arrive func()) {
	h.mu.Lock()
	cut := h.faults[w].Cut
	h.mu.Unlock()
	if !cut {
		arrive()
	}
}
