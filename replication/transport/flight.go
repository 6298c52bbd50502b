package transport

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// flight counts the unanswered calls to one replica, and their bytes.
type flight struct {
	calls int // that are under way
	bytes int64
	freed chan struct{} // closed and replaced when bytes has become less

	answered   uint64 // number of the call that was answered last, through a Mesh
	answeredAt time.Time
}

// takeOff counts c among the calls under way, once there is room for its bytes. It
// waits for no time of its own: what takes the room is answered, or times out.
func (m *Member) takeOff(c *call) error {
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
		if f.bytes == 0 || c.bytes == 0 || f.bytes+c.bytes <= m.maxInFlight {
			f.calls++
			f.bytes += c.bytes
			c.flight = f
			m.calls[c] = struct{}{}
			c.since = m.clock.Now()
			c.stop = m.clock.AfterFunc(m.timeout, func() { m.expire(c) })
			m.mu.Unlock()
			return nil
		}
		freed := f.freed
		m.mu.Unlock()
		select {
		case <-freed:
		case <-m.closed:
		}
	}
}

// expire ends a call of which nothing has moved for the time-out.
func (m *Member) expire(c *call) {
	last, longer := m.net.moved(c)
	if last.Before(c.since) {
		last = c.since
	}
	m.mu.Lock()
	_, open := m.calls[c]
	if rest := last.Add(m.timeout + longer).Sub(m.clock.Now()); open && rest > 0 {
		c.stop = m.clock.AfterFunc(rest, func() { m.expire(c) })
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	m.abandon(c, fmt.Errorf("%w: to %s, after %v", ErrTimeout, c.to, m.timeout+longer))
}

// progressed notes that the replica has answered a call.
func (m *Member) progressed(c *call, number uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.flight.answered, c.flight.answeredAt = number, now
}

// progress returns when the replica last answered a call that was made before
// number: it takes them in order, so that this one came nearer to its turn. There
// are so many of those at most, so no call waits for ever.
func (m *Member) progress(c *call, number uint64) (last time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.flight.answered < number {
		last = c.flight.answeredAt
	}
	return last
}

// abandon ends a call before its answer has come.
func (m *Member) abandon(c *call, err error) {
	if m.land(c, nil, err) {
		m.net.drop(c)
	}
}

// land ends a call, and reports whether it did: the first end counts.
func (m *Member) land(c *call, answer any, err error) bool {
	m.mu.Lock()
	_, open := m.calls[c]
	if open {
		delete(m.calls, c)
		f := c.flight
		f.calls--
		f.bytes -= c.bytes
		close(f.freed)
		f.freed = make(chan struct{})
		if f.calls == 0 {
			delete(m.flights, c.to)
		}
		c.stop()
		c.answer, c.err = answer, err
	}
	m.mu.Unlock()
	if open {
		close(c.done)
	}
	return open
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
