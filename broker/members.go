package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// ErrReplaced reports that the cluster has another data directory under this
// node's id.
var ErrReplaced = errors.New("broker: another data directory is registered under this node's id")

// registerTimeout bounds one attempt of a node to register itself.
const registerTimeout = 30 * time.Second

// register keeps what the metadata says of this node what it is: where its
// clients connect, its rack, and the feature level that it knows. The node stops when the cluster has another
// directory under its id. It returns when the node stops.
func (b *Broker) register(self metadata.RegisterNode) {
	said := ""
	for {
		changed := b.metaState.changed.wait()
		// Before the founders are there, the leader has not begun. What this node
		// knows may be old; what differs is sent, and the leader knows.
		// A node that has joined is registered, even if it knows nothing: whoever leads
		// may look for it where it was.
		n := b.image().Node(self.ID)
		if n == nil && !b.founder(b.opt.NodeID) || n != nil && !registered(n, self) {
			err := b.registerOnce(self)
			if errors.Is(err, ErrReplaced) {
				b.opt.OnFailed(err)
				return
			}
			if err == nil {
				said = ""
			} else if text := err.Error(); text != said && b.stopping.Err() == nil {
				said = text
				b.opt.Log.Warn("the node could not say where its clients connect; trying again", "err", err)
			}
			again := time.After(retryAfter)
			switch {
			case err != nil:
				changed = nil // what was refused is an entry as well, which must not bring on the next
			case n == nil:
				again = nil // what was said will be heard
			}
			select {
			case <-again:
				continue
			case <-changed:
				continue
			case <-b.stopping.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-b.stopping.Done():
			return
		}
	}
}

func (b *Broker) registerOnce(self metadata.RegisterNode) error {
	ctx, cancel := context.WithTimeout(b.stopping, registerTimeout)
	defer cancel()
	_, err := b.proposeAnywhere(ctx, self)
	if errcode.Of(err) == errcode.DuplicateBrokerRegistration {
		return fmt.Errorf("%w: node %d, whose directory is of incarnation %016x: %w; stop one of the two, or give it a node.id of its own",
			ErrReplaced, b.opt.NodeID, b.opt.Incarnation, err)
	}
	return err
}

// registered reports whether a node is known as it registers itself.
func registered(n *metadata.Node, self metadata.RegisterNode) bool {
	return n.Incarnation == self.Incarnation && n.Rack == self.Rack && slices.Equal(n.Addresses, self.Addresses) &&
		n.FeatureLevel == self.FeatureLevel
}

// self is how this node registers itself.
func (b *Broker) self() (metadata.RegisterNode, error) {
	addrs, err := addresses(b.opt.Listeners)
	if err != nil {
		return metadata.RegisterNode{}, fmt.Errorf("broker: node %d: %w", b.opt.NodeID, err)
	}
	if c := b.opt.Cluster; c != nil && c.NodeAddress != "" {
		between, err := addresses([]Listener{{Name: metadata.NodeListener, Advertise: c.NodeAddress}})
		if err != nil {
			return metadata.RegisterNode{}, fmt.Errorf("broker: node %d: %w", b.opt.NodeID, err)
		}
		addrs = append(addrs, between...)
	}
	return metadata.RegisterNode{
		ID: metadata.NodeID(b.opt.NodeID), Incarnation: b.opt.Incarnation, Rack: b.opt.Rack, Addresses: addrs, FeatureLevel: b.opt.FeatureLevel,
	}, nil
}

// founders returns the registrations with which the metadata begins. A node that
// is alone registers itself; the founders of a cluster are known by their
// directories, and each says by itself where it is.
func (b *Broker) founders() ([]metadata.RegisterNode, error) {
	if b.opt.Cluster == nil {
		self, err := b.self()
		return []metadata.RegisterNode{self}, err
	}
	var all []metadata.RegisterNode
	for _, f := range b.opt.Cluster.Founders {
		all = append(all, metadata.RegisterNode{ID: metadata.NodeID(f.ID), Incarnation: f.Incarnation})
	}
	return all, nil
}

// broadcast wakes everybody who waits for the next of something. The zero value
// is ready.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // nil: nobody waits
}

// wait returns what is closed by the next send.
func (w *broadcast) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch == nil {
		w.ch = make(chan struct{})
	}
	return w.ch
}

func (w *broadcast) send() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ch != nil {
		close(w.ch)
		w.ch = nil
	}
}
