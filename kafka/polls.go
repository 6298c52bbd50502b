package kafka

import (
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-log/flotilla/broker"
)

// polls are a connection's fetches under way. When it reads no more, because it
// ends or drains, they do not wait for records any longer.
type polls struct {
	mu    sync.Mutex
	of    map[*request]*broker.Fetch
	ended bool
}

// add notes a fetch that the broker was asked for; it may be over by then.
func (p *polls) add(q *request, f *broker.Fetch) {
	p.mu.Lock()
	if !q.polled && !p.ended {
		p.of[q] = f
	}
	ended := p.ended
	p.mu.Unlock()
	if ended {
		f.Cancel()
	}
}

// remove notes that a fetch is over.
func (p *polls) remove(q *request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q.polled = true
	delete(p.of, q)
}

// some reports whether there are any.
func (p *polls) some() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.of) > 0
}

// hurry ends the fetches that wait.
func (p *polls) hurry() {
	p.mu.Lock()
	left := slices.Collect(maps.Values(p.of))
	p.mu.Unlock()
	for _, f := range left {
		f.Cancel()
	}
}

// end ends the fetches that wait, and those that come later.
func (p *polls) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.hurry()
}
