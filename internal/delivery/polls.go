package delivery

import (
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-log/flotilla/broker"
)

// Polls are a connection's fetches under way. When it reads no more, because it
// ends or drains, they do not wait for records any longer. The zero value has
// none. Its methods are safe for concurrent use.
type Polls struct {
	mu    sync.Mutex
	of    map[*Poll]*broker.Fetch
	ended bool
}

// Poll is one fetch among them. The zero value is one that has not begun.
type Poll struct {
	over bool // guarded by Polls.mu
}

// Add notes a fetch that the broker was asked for; it may be over by then.
func (p *Polls) Add(q *Poll, f *broker.Fetch) {
	p.mu.Lock()
	if !q.over && !p.ended {
		if p.of == nil {
			p.of = make(map[*Poll]*broker.Fetch)
		}
		p.of[q] = f
	}
	ended := p.ended
	p.mu.Unlock()
	if ended {
		f.Cancel()
	}
}

// Remove notes that a fetch is over.
func (p *Polls) Remove(q *Poll) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q.over = true
	delete(p.of, q)
}

// Some reports whether there are any.
func (p *Polls) Some() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of) > 0
}

// Hurry ends the fetches that wait: they answer with what there is.
func (p *Polls) Hurry() {
	p.mu.Lock()
	left := slices.Collect(maps.Values(p.of))
	p.mu.Unlock()
	for _, f := range left {
		f.Cancel()
	}
}

// End ends the fetches that wait, and those that come later.
func (p *Polls) End() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.Hurry()
}
