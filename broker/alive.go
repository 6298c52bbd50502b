package broker

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodAlive asks a node for a sign of life: neither the call nor its answer says
// anything.
const methodAlive transport.Method = 8

// aliveTimeout is how long a sign of life is waited for.
const aliveTimeout = 100 * time.Millisecond

// signs asks other nodes for signs of life. All who wait for one of the same node
// share it, if it was asked for after they came.
type signs struct {
	ask   func(ctx context.Context, node int32)
	start func(func()) // runs it on a goroutine of its own

	mu    sync.Mutex
	next  map[int32]chan struct{} // of the call to a node that is yet to be made; closed when it has ended
	under map[int32]bool          // a call to the node is under way
}

func newSigns(ask func(ctx context.Context, node int32), start func(func())) *signs {
	return &signs{ask: ask, start: start, next: make(map[int32]chan struct{}), under: make(map[int32]bool)}
}

// of returns a channel that is closed once the node has given a sign of life since now,
// or given none within aliveTimeout, or the way to it has broken. It may take as long
// again where a call is under way already.
func (s *signs) of(node int32) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.next[node]
	if done == nil {
		done = make(chan struct{})
		s.next[node] = done
	}
	if !s.under[node] {
		s.under[node] = true
		s.start(func() { s.run(node) })
	}
	return done
}

// run makes the calls to a node that are wanted, one after the other.
func (s *signs) run(node int32) {
	for {
		s.mu.Lock()
		done := s.next[node]
		delete(s.next, node)
		if done == nil {
			delete(s.under, node)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), aliveTimeout)
		s.ask(ctx, node)
		cancel()
		close(done)
	}
}

// askAlive asks a node for a sign of life. What it answers, or why it does not, shows
// in whether it is connected afterwards.
func (b *Broker) askAlive(ctx context.Context, node int32) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.stopping, cancel)()
	_, _ = b.opt.Cluster.Peers.Call(ctx, node, methodAlive, nil)
}
