package server

import (
	"sync"
	"time"
)

// gate lets through one in a while. The zero value is ready; safe for concurrent
// use.
type gate struct {
	mu   sync.Mutex
	next time.Time // until then it is shut
	shut int       // how many it has kept out since
}

// pass reports whether the gate is open, which it then is again after a while,
// and how many it has kept out meanwhile.
func (g *gate) pass(now time.Time, every time.Duration) (kept int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.next) {
		g.shut++
		return 0, false
	}
	kept, g.shut, g.next = g.shut, 0, now.Add(every)
	return kept, true
}
