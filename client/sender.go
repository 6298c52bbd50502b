package client

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
)

const (
	// maxNodeInFlight is how many produce requests a node may have to answer at
	// once. While they are under way, what comes gathers into larger batches.
	maxNodeInFlight = 20

	// maxRequestBytes is the size at which a produce request is full, if its
	// server does not take less.
	maxRequestBytes = 8 << 20

	// partBytes is more than the header of a produce request grows by with each
	// part, and fixedBytes more than the rest of its frame takes.
	partBytes  = 64
	fixedBytes = 1 << 10
)

// sendLoop runs the producer until it is closed: it wakes up for each event and
// each deadline, and looks at everything that is under way.
func (p *Producer) sendLoop() {
	defer close(p.senderEnded)
	defer p.giveUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		img, changed := p.c.meta.watch()
		now := p.c.cfg.Now()
		p.takeBack(func(r *produceRequest) bool { return !now.Before(r.deadline) })
		next := p.step(now, img)
		timer.Reset(next.Sub(now))
		select {
		case <-p.wake:
		case <-timer.C:
		case <-changed:
		case <-p.ctx.Done():
			return
		}
	}
}

// step does all that can be done now, and returns when something is due next.
func (p *Producer) step(now time.Time, img *image) (next time.Time) {
	p.mu.Lock()
	sealed := p.tendLocked(now, img)
	p.mu.Unlock()
	for _, d := range sealed {
		p.build(d)
	}

	p.mu.Lock()
	requests, wantsID := p.gatherLocked(now, img)
	ask := wantsID && !p.id.asking && !now.Before(p.id.retryAt)
	p.id.asking = p.id.asking || ask
	current := p.id.now
	next = p.nextLocked(now)
	p.mu.Unlock()

	if ask {
		p.askID(current)
	}
	for _, r := range requests {
		p.submit(r)
	}
	return next
}

// tendLocked gives up what is too late or cannot be, and seals what is due.
func (p *Producer) tendLocked(now time.Time, img *image) (sealed []*delivery) {
	idErr := p.id.err
	p.id.err = nil
	for _, f := range p.active {
		f.lane.expire(now)
		t := img.topics[f.lane.topic]
		if f.open != nil && p.dueLocked(f, t, now) {
			sealed = append(sealed, p.sealLocked(f))
			f.lane.expire(now)
		}
		switch {
		case idErr != nil && !p.cfg.NotIdempotent:
			f.lane.failAll(idErr)
		case t == nil:
		case t.err != nil:
			f.lane.failAll(t.err)
		case int(f.lane.partition) >= len(t.leaders):
			f.lane.failAll(ErrNoPartition)
		default:
			f.lane.moveTo(t.id)
		}
		p.collectLocked(f)
	}
	p.active = slices.DeleteFunc(p.active, func(f *feed) bool {
		f.active = f.open != nil || len(f.lane.queue) > 0 || f.lane.inFlight > 0
		return !f.active
	})
	return sealed
}

// dueLocked reports whether the open batch should wait no longer. As long as
// it could not be sent, it may as well grow.
func (p *Producer) dueLocked(f *feed, t *topic, now time.Time) bool {
	if !now.Before(f.open.opened.Add(p.cfg.DeliveryTimeout)) {
		return true
	}
	if f.lane.full() {
		return false
	}
	if t != nil && int(f.lane.partition) < len(t.leaders) && p.byNode[t.leaders[f.lane.partition].node] >= maxNodeInFlight {
		return false
	}
	return f.open.urgent || p.flushing > 0 || !now.Before(f.open.opened.Add(p.cfg.Linger))
}

// gatherLocked puts together the requests to be sent now, at most one a node,
// and reports whether a new producer id is needed.
func (p *Producer) gatherLocked(now time.Time, img *image) (requests []*produceRequest, wantsID bool) {
	byNode := make(map[int32]*produceRequest)
	full := maxRequestBytes
	if n := int(p.c.frameBytes.Load()); n != 0 {
		full = min(full, n-fixedBytes)
	}
	for i, f := range p.active {
		t := img.topics[f.lane.topic]
		if t == nil || t.err != nil || int(f.lane.partition) >= len(t.leaders) {
			poke(p.c.meta.refresh)
			continue
		}
		wantsID = f.lane.wantsID(p.id.now) || wantsID
		node := t.leaders[f.lane.partition].node
		if _, known := img.nodes[node]; !known {
			if len(f.lane.queue) > 0 {
				poke(p.c.meta.refresh)
			}
			continue
		}
		if p.byNode[node] >= maxNodeInFlight {
			continue
		}
		for {
			b := f.lane.ready(now, p.id.now)
			if b == nil {
				break
			}
			r := byNode[node]
			if r == nil {
				r = &produceRequest{node: node, deadline: b.deadline}
				byNode[node] = r
				requests = append(requests, r)
				p.byNode[node]++
			}
			if len(r.parts) > 0 && r.bytes+len(b.bytes)+partBytes > full {
				// Whoever found no room comes first in the next step.
				p.active[0], p.active[i] = p.active[i], p.active[0]
				poke(p.wake)
				break
			}
			f.lane.send(b, t.id)
			stamp(b)
			r.parts = append(r.parts, producePart{sending: b, id: t.id, epoch: t.leaders[f.lane.partition].epoch, bytes: b.bytes})
			r.bytes += len(b.bytes) + partBytes
			if b.deadline.Before(r.deadline) {
				r.deadline = b.deadline
			}
		}
	}
	return requests, wantsID
}

// stamp writes a batch's numbers into its bytes. Bytes that a connection was
// given before are not written to again: they are copied.
func stamp(b *sending) {
	h, err := batch.ParseHeader(b.bytes)
	if err != nil {
		panic(fmt.Sprintf("client: own batch: %v", err))
	}
	want := batch.NoProducer
	if b.numbered {
		want = batch.Producer{ID: b.pid.id, Epoch: b.pid.epoch, Sequence: b.sequence}
	}
	if h.Producer == want {
		return
	}
	if h.Producer != batch.NoProducer {
		b.bytes = bytes.Clone(b.bytes)
	}
	batch.SetProducer(b.bytes, want)
}

// nextLocked returns when to look again if nothing happens.
func (p *Producer) nextLocked(now time.Time) time.Time {
	next := now.Add(maxTimeout)
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, f := range p.active {
		if f.open != nil {
			earlier(f.open.opened.Add(p.cfg.Linger))
			earlier(f.open.opened.Add(p.cfg.DeliveryTimeout))
		}
		if len(f.lane.queue) > 0 {
			earlier(f.lane.queue[0].deadline)
			earlier(f.lane.retryAt)
		}
	}
	earlier(p.id.retryAt)
	return next
}

// giveUp ends everything that is left when the producer closes.
func (p *Producer) giveUp() {
	p.takeBack(func(*produceRequest) bool { return true })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, f := range p.active {
		if f.open != nil {
			p.sealLocked(f)
		}
		f.lane.failAll(ErrClosed)
		p.collectLocked(f)
	}
	p.active = nil
}
