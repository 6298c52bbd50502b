package killtest

import (
	"context"
	"sync"
)

// gate lets the operations of the load pass, and counts those under way.
type gate struct {
	mu      sync.Mutex
	active  int
	opened  chan struct{} // closed while operations may begin
	drained chan struct{} // closed when active falls to 0 while shut; nil while open
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{})}
	close(g.opened)
	return g
}

// enter waits until an operation may begin, or ctx ends; then it reports false.
// Every enter that reports true needs a leave.
func (g *gate) enter(ctx context.Context) bool {
	for {
		g.mu.Lock()
		opened := g.opened
		if g.drained == nil && ctx.Err() == nil {
			g.active++
			g.mu.Unlock()
			return true
		}
		g.mu.Unlock()
		select {
		case <-opened:
			if ctx.Err() != nil {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.active--; g.active == 0 && g.drained != nil {
		close(g.drained)
	}
}

// shut lets no operation begin any more, and waits until none is under way.
func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	g.opened, g.drained = make(chan struct{}), make(chan struct{})
	drained := g.drained
	if g.active == 0 {
		close(drained)
	}
	g.mu.Unlock()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.drained = nil
}
