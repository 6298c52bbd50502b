package transport

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// flight counts the bytes of unanswered calls to one replica.
type flight struct {
	bytes int64
	freed chan struct{} // closed and replaced when bytes has become less
}

// takeOff counts c among the calls under way, once there is room for its bytes.
func (m *Member) takeOff(c *call) error {
	var late chan struct{} // closed when the wait has taken too long
	for {
		m.mu.Lock()
		if m.ended {
			m.mu.Unlock()
			return fmt.Errorf("%w: call to %s", ErrClosed, c.to)
		}
		f := m.flights[c.to]
		if f == nil {
			f = &flight{freed: make(chan struct{})}
			m.flights[c.to] = f
		}
		if f.bytes == 0 || c.bytes == 0 || f.bytes+c.bytes <= m.hub.opt.MaxInFlightBytes {
			f.bytes += c.bytes
			c.flight = f
			m.calls[c] = struct{}{}
			c.stop = m.hub.opt.Clock.AfterFunc(m.hub.opt.Timeout, func() {
				m.land(c, nil, fmt.Errorf("%w: to %s, after %v", ErrTimeout, c.to, m.hub.opt.Timeout))
			})
			m.mu.Unlock()
			return nil
		}
		freed := f.freed
		m.mu.Unlock()
		if late == nil {
			late = make(chan struct{})
			stop := m.hub.opt.Clock.AfterFunc(m.hub.opt.Timeout, func() { close(late) })
			defer stop()
		}
		select {
		case <-freed:
		case <-late:
			return fmt.Errorf("%w: to %s, with %d bytes under way for %v", ErrTimeout, c.to, m.hub.opt.MaxInFlightBytes, m.hub.opt.Timeout)
		case <-m.closed:
		}
	}
}

// land ends a call. The first end counts.
func (m *Member) land(c *call, answer any, err error) {
	m.mu.Lock()
	_, open := m.calls[c]
	if open {
		delete(m.calls, c)
		f := c.flight
		f.bytes -= c.bytes
		close(f.freed)
		f.freed = make(chan struct{})
		if f.bytes == 0 && m.flights[c.to] == f {
			delete(m.flights, c.to)
		}
		c.stop()
		c.answer, c.err = answer, err
	}
	m.mu.Unlock()
	if open {
		close(c.done)
	}
}

// logOverheadBytes stands for a log entry beside its data.
const logOverheadBytes = 64

// commandBytes is what a command counts for. Only entries do: votes, probes and
// heartbeats never wait.
func commandBytes(command any) (n int64) {
	if req, ok := command.(*raft.AppendEntriesRequest); ok {
		for _, l := range req.Entries {
			n += logOverheadBytes + int64(len(l.Data)) + int64(len(l.Extensions))
		}
	}
	return n
}

// copyCommand copies a command as a network would.
func copyCommand(command any) any {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		c := *req
		c.Entries = make([]*raft.Log, len(req.Entries))
		for i, l := range req.Entries {
			e := *l
			e.Data = append([]byte(nil), l.Data...)
			e.Extensions = append([]byte(nil), l.Extensions...)
			c.Entries[i] = &e
		}
		return &c
	case *raft.RequestVoteRequest:
		c := *req
		return &c
	case *raft.RequestPreVoteRequest:
		c := *req
		return &c
	case *raft.TimeoutNowRequest:
		c := *req
		return &c
	case *raft.InstallSnapshotRequest:
		c := *req
		return &c
	}
	return command
}
