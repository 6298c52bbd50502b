package broker

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// A node that has not been in contact with the one that leads the metadata for
// broker.session.timeout is fenced, by a command, so that all nodes say the same:
// clients are not sent there, its replicas are offline, and it gets no new ones. It is
// unfenced as soon as there is contact again. What it leads is for the shards'
// voters to say, who notice its silence long before.

// defaultSessionTimeout is Kafka's broker.session.timeout.ms.
const defaultSessionTimeout = 9 * time.Second

// heard is when each node was last in contact. It is safe for concurrent use.
type heard struct {
	mu sync.Mutex
	at map[metadata.NodeID]time.Time // by a clock that does not step
}

func (h *heard) note(id metadata.NodeID, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = make(map[metadata.NodeID]time.Time)
	}
	h.at[id] = at
}

func (h *heard) last(id metadata.NodeID) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[id]
}

// sessions decides who is fenced. It has no clock: times come in, by one that does
// not step. It is for one goroutine.
type sessions struct {
	self    metadata.NodeID
	timeout time.Duration

	term   uint64    // in which this node leads the metadata
	since  time.Time // from when on silence counts
	looked time.Time // of the last decision
}

// decide returns what to propose at now as the leader of the metadata in term; 0:
// this node does not lead it. last tells when a node was last in contact.
//
// Silence counts from when the leader began to lead, and anew when it was away
// itself: having been stopped for a while, it has heard nobody.
func (s *sessions) decide(im *metadata.Image, term uint64, now time.Time, last func(metadata.NodeID) time.Time) (commands []metadata.FenceNode) {
	if term != s.term || now.Sub(s.looked) > s.timeout/3 {
		s.since = now
	}
	s.term, s.looked = term, now
	if term == 0 {
		return nil
	}
	for n := range im.Nodes() {
		at := last(n.ID)
		here := n.ID == s.self || now.Sub(at) <= s.timeout
		switch {
		case n.Fenced && here:
			commands = append(commands, metadata.FenceNode{ID: n.ID, Incarnation: n.Incarnation})
		case !n.Fenced && !here && now.Sub(s.since) > s.timeout:
			commands = append(commands, metadata.FenceNode{ID: n.ID, Incarnation: n.Incarnation, Fenced: true})
		}
	}
	return commands
}

// runFencing fences and unfences nodes while this one leads the metadata.
func (b *Broker) runFencing() {
	s := sessions{self: metadata.NodeID(b.opt.NodeID), timeout: b.opt.SessionTimeout}
	tick := time.NewTicker(min(contactInterval, b.opt.SessionTimeout/9))
	defer tick.Stop()
	for {
		for _, c := range s.decide(b.image(), b.meta.Leading(), time.Now(), b.contacts.heard.last) {
			b.fence(c)
		}
		select {
		case <-tick.C:
		case <-b.stopping.Done():
			return
		}
	}
}

// fence has a node fenced, or unfenced. What comes of it is seen at the next look.
func (b *Broker) fence(c metadata.FenceNode) {
	ctx, cancel := context.WithTimeout(b.stopping, contactTimeout)
	defer cancel()
	_, err := b.proposeMeta(ctx, c)
	switch {
	case err != nil && errcode.Of(err) != errcode.NotController && b.stopping.Err() == nil:
		b.opt.Log.Warn("a node could not be fenced or unfenced; trying again", "node", c.ID, "fenced", c.Fenced, "err", err)
	case err == nil && c.Fenced:
		b.opt.Log.Warn("a node is out of contact and was fenced: clients are not sent there", "node", c.ID, "after", b.opt.SessionTimeout)
	case err == nil:
		b.opt.Log.Info("a node is in contact again", "node", c.ID)
	}
}

// split parts the nodes that have a replica of a shard into those in contact and
// those that are fenced.
func split(im *metadata.Image, nodes []int32) (live, offline []int32) {
	for i, id := range nodes {
		n := im.Node(metadata.NodeID(id))
		if n == nil || !n.Fenced {
			if offline != nil {
				live = append(live, id)
			}
			continue
		}
		if offline == nil {
			live = append([]int32{}, nodes[:i]...)
		}
		offline = append(offline, id)
	}
	if offline == nil {
		return nodes, nil
	}
	return live, offline
}
