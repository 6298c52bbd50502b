package transport

import (
	"slices"
	"sync/atomic"
	"time"
)

// PeerStats is what a Mesh knows of its connections to another node, those that
// it dialled and those that the other did.
type PeerStats struct {
	Node      int32
	Connected bool // the way to it is there; the way from it is its own affair

	// Bytes counts all that came and went since the Mesh was made.
	BytesIn, BytesOut int64

	// InFlightBytes is of unanswered requests to it, and HeldBytes of those from it.
	InFlightBytes, HeldBytes int64

	// RoundTrip is what the newest exchange of a ping took; zero: none yet.
	RoundTrip time.Duration
}

// traffic counts the bytes from and to a node.
type traffic struct{ in, out atomic.Int64 }

// trafficOf returns a node's counters. What comes from more nodes than there may
// be is not counted.
func (m *Mesh) trafficOf(node int32) *traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.traffic[node]
	if t == nil {
		t = new(traffic)
		if len(m.traffic) < maxSessions {
			m.traffic[node] = t
		}
	}
	return t
}

// Stats returns what is known of each node that was connected, in their order.
func (m *Mesh) Stats() []PeerStats {
	m.mu.Lock()
	out := make([]PeerStats, 0, len(m.traffic))
	var to, from []*session
	for node, t := range m.traffic {
		out = append(out, PeerStats{Node: node, BytesIn: t.in.Load(), BytesOut: t.out.Load()})
	}
	slices.SortFunc(out, func(a, b PeerStats) int { return int(a.Node) - int(b.Node) })
	for _, p := range out {
		var s *session
		if l := m.links[p.Node]; l != nil {
			l.mu.Lock()
			s = l.session
			l.mu.Unlock()
		}
		to, from = append(to, s), append(from, m.inbound[p.Node])
	}
	m.mu.Unlock()
	for i := range out {
		if s := to[i]; s != nil {
			out[i].Connected = true
			out[i].InFlightBytes, out[i].RoundTrip = s.load()
		}
		if s := from[i]; s != nil {
			out[i].HeldBytes, _ = s.load()
		}
	}
	return out
}

// load returns the bytes of unanswered requests, and what the last ping took.
func (s *session) load() (bytes int64, trip time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.windows {
		bytes += w.used
	}
	return bytes, s.trip
}
