package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// MaxCallBytes bounds the payload of a Call, and its answer.
const MaxCallBytes = 16 << 20

// ErrRefused matches the error of a call that another node answered with an
// error of its own; the text is that error's.
var ErrRefused = errors.New("transport: refused by the other node")

// Method says what a node asks of another beside Raft's calls. What its payload
// and its answer mean is for those who give the number.
type Method uint8

// Answerer answers a call of another node. It keeps the payload, and gives its
// answer away. Several run at once; ctx ends when nobody waits for the answer
// any more.
type Answerer func(ctx context.Context, from int32, m Method, payload []byte) (answer []byte, err error)

// Peers is how a node asks the other nodes of its cluster for what is not one
// replica's: commands for who leads the metadata shard, batches for a replica
// that catches up. It is safe for concurrent use.
type Peers interface {
	// Call asks a node, and waits for the answer until ctx ends. The callee has
	// its own copy of the payload. ErrUnreachable says that nothing was asked, an
	// error that matches ErrRefused that the node answered so; after any other the
	// call may have taken effect. It does not wait for memory that Raft's calls
	// take, nor they for its.
	Call(ctx context.Context, node int32, m Method, payload []byte) (answer []byte, err error)

	// Serve says who answers. It is called once; what comes before is
	// ErrUnreachable for the caller.
	Serve(a Answerer)

	// Watch keeps a way to each of nodes from now on, and has changed called
	// whenever Connected may answer differently. That must not block. A later call
	// adds nodes, and changed takes the place of the one before.
	Watch(nodes []int32, changed func())

	// Connected reports whether there is a way to a node that is watched: what is
	// sent now is not known to be in vain. A node whose process has ended is
	// not connected within milliseconds, one that is silent after two time-outs.
	Connected(node int32) bool
}

// HubNode is a node's Peers through a Hub.
type HubNode struct {
	hub    *Hub
	id     int32
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	group  sync.WaitGroup

	changed func() // see Watch; nil: nobody watches. Guarded by hub.mu

	mu     sync.Mutex
	answer Answerer
	ended  bool
}

var _ Peers = (*HubNode)(nil)

// Node makes a node's Peers. It takes the place of an earlier one of the same
// node. Close ends it.
func (h *Hub) Node(id int32) *HubNode {
	n := &HubNode{hub: h, id: id}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	h.mu.Lock()
	h.nodes[id] = n
	h.mu.Unlock()
	h.notify()
	return n
}

// Serve implements Peers.
func (n *HubNode) Serve(a Answerer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answer = a
}

// nodeAnswer is what came of a Call.
type nodeAnswer struct {
	payload []byte
	err     error
}

// Call implements Peers. A message that is lost is waited for until ctx ends.
func (n *HubNode) Call(ctx context.Context, node int32, m Method, payload []byte) ([]byte, error) {
	if len(payload) > MaxCallBytes {
		return nil, fmt.Errorf("transport: call of %d bytes to node %d, at most %d", len(payload), node, MaxCallBytes)
	}
	if n.ctx.Err() != nil {
		return nil, fmt.Errorf("%w: call to node %d", ErrClosed, node)
	}
	payload = append([]byte(nil), payload...)
	answers := make(chan nodeAnswer, 1)
	n.hub.send(way{n.id, node}, false, func() {
		n.hub.mu.Lock()
		peer := n.hub.nodes[node]
		n.hub.mu.Unlock()
		peer.take(ctx, n.id, m, payload, func(a nodeAnswer) {
			n.hub.send(way{node, n.id}, false, func() { answers <- a })
		})
	})
	select {
	case a := <-answers:
		return a.payload, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.ctx.Done():
		return nil, fmt.Errorf("%w: call to node %d", ErrClosed, node)
	}
}

// take answers a call that has arrived; reply is called once, or never if the
// node is closed meanwhile.
func (n *HubNode) take(ctx context.Context, from int32, m Method, payload []byte, reply func(nodeAnswer)) {
	if n == nil {
		reply(nodeAnswer{err: fmt.Errorf("%w: nobody is there", ErrUnreachable)})
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := n.answer
	if n.ended || answer == nil {
		reply(nodeAnswer{err: fmt.Errorf("%w: node %d answers no calls", ErrUnreachable, n.id)})
		return
	}
	n.group.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(n.ctx, cancel)()
		b, err := answer(ctx, from, m, payload)
		switch {
		case n.ctx.Err() != nil:
			return
		case err != nil:
			err = fmt.Errorf("%w: node %d: %w", ErrRefused, n.id, errors.New(err.Error()))
		case len(b) > MaxCallBytes:
			err = fmt.Errorf("%w: node %d: answer of %d bytes, at most %d", ErrRefused, n.id, len(b), MaxCallBytes)
		}
		if err != nil {
			b = nil
		}
		reply(nodeAnswer{b, err})
	})
}

// Close aborts what waits for this node and what it waits for, and has joined
// its goroutines when it returns.
func (n *HubNode) Close() error {
	n.hub.mu.Lock()
	if n.hub.nodes[n.id] == n {
		delete(n.hub.nodes, n.id)
	}
	n.hub.mu.Unlock()
	n.hub.notify()
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	n.cancel()
	n.group.Wait()
	return nil
}
