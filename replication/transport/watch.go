package transport

// Watch implements Peers.
func (m *Mesh) Watch(nodes []int32, changed func()) {
	m.mu.Lock()
	m.changed = changed
	m.mu.Unlock()
	for _, node := range nodes {
		if node != m.opt.Node {
			_, _ = m.link(node) // a closed mesh has nothing to tell
		}
	}
}

// tell says that there is a way to a node, or none any more.
func (m *Mesh) tell(node int32, connected bool) {
	m.opt.OnState(node, connected)
	m.mu.Lock()
	changed := m.changed
	m.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// Connected implements Peers.
func (m *Mesh) Connected(node int32) bool {
	if node == m.opt.Node {
		return true
	}
	m.mu.Lock()
	l := m.links[node]
	m.mu.Unlock()
	if l == nil {
		return false
	}
	l.mu.Lock()
	s := l.session
	l.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return !s.silent()
	}
}

// Watch implements Peers.
func (n *HubNode) Watch(_ []int32, changed func()) {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	n.changed = changed
}

// Connected implements Peers. Nodes of a Hub notice at once that another has
// closed, and a cut, which nobody says, when it has lasted.
func (n *HubNode) Connected(node int32) bool {
	h := n.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nodes[n.id] == n && h.nodes[node] != nil && !h.silent[way{n.id, node}] && !h.silent[way{node, n.id}]
}

// notify tells all nodes that ways have changed.
func (h *Hub) notify() {
	h.mu.Lock()
	var all []func()
	for _, n := range h.nodes {
		if n.changed != nil {
			all = append(all, n.changed)
		}
	}
	h.mu.Unlock()
	for _, changed := range all {
		changed()
	}
}

// cutLocked notes that a way is cut from now on, or is not. The caller holds h.mu,
// and calls notify when it does not any more.
func (h *Hub) cutLocked(w way, cut bool) {
	if !cut {
		h.cuts[w]++
		delete(h.silent, w)
		return
	}
	h.cuts[w]++
	since := h.cuts[w]
	h.opt.Clock.AfterFunc(silences*h.opt.Timeout, func() {
		h.mu.Lock()
		lasted := h.cuts[w] == since
		if lasted {
			h.silent[w] = true
		}
		h.mu.Unlock()
		if lasted {
			h.notify()
		}
	})
}
