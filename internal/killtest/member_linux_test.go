//go:build cluster && clients

package killtest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// What members of groups have.
const (
	groupSession   = 10 * time.Second
	groupHeartbeat = 2 * time.Second
)

// member is one life of a member of a consumer group: from when it joins until it leaves
// or dies. It records what it is told and does. Each life is a process of the history.
type member struct {
	rec     *history.Recorder
	process int32
	group   string
	line    line
	chance  *rand.Rand
	cl      groupClient
	given   func(key history.Key, next int64) // told of what the member was given
	dead    atomic.Bool                       // nobody hears of it any more

	mu    sync.Mutex
	held  map[history.Key]bool
	dirty map[history.Key]int64 // where to go on after what it was given, as far as that is not committed
}

// groupClient is the client of a member. Its methods are for one goroutine.
type groupClient interface {
	// membership returns the member's id and epoch; 0: it has none.
	membership() (id string, epoch int32)
	// poll returns what it is given; an error is of no consequence.
	poll(ctx context.Context) ([]history.Mop, error)
	// polled lets partitions move again.
	polled()
	// commits adds to the offsets that are to be committed those that the client commits
	// with them.
	commits(offsets map[history.Key]int64) map[history.Key]int64
	// commit commits offsets, and returns those that were taken for certain.
	commit(ctx context.Context, offsets map[history.Key]int64) ([]history.Key, error)
	// close leaves the group, or ends without a word if ctx has ended.
	close(ctx context.Context)
}

// memberKind makes the client of a member, of one protocol.
type memberKind struct {
	name string
	join func(m *member, addr string) error
}

// join begins the life of a member.
func (m *member) join(kind memberKind, addr string) error {
	m.held, m.dirty = make(map[history.Key]bool), make(map[history.Key]int64)
	m.rec.Note(history.Op{Process: m.process, F: history.Subscribe, In: m.in()})
	return kind.join(m, addr)
}

func (m *member) in() *history.Membership {
	in := &history.Membership{Group: m.group}
	if m.cl != nil {
		in.Member, in.Epoch = m.cl.membership()
	}
	return in
}

// note records what the member is told of partitions.
func (m *member) note(f history.F, keys []history.Key) {
	if m.dead.Load() || len(keys) == 0 {
		return
	}
	op := history.Op{Process: m.process, F: f, In: m.in()}
	m.mu.Lock()
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: history.NoOffset})
		delete(m.dirty, k)
		delete(m.held, k)
		if f == history.Assigned {
			m.held[k] = true
		}
	}
	m.mu.Unlock()
	m.rec.Note(op)
}

// holds returns how many partitions the member has, as it knows.
func (m *member) holds() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.held)
}

// revoked is what a member does before others get its partitions.
func (m *member) revoked(keys []history.Key) {
	if !m.dead.Load() {
		m.commit(5 * time.Second)
	}
	m.note(history.Revoked, keys)
}

// poll polls once, and now and then commits what it was given.
func (m *member) poll(wait time.Duration) {
	op := m.rec.Invoke(history.Op{Process: m.process, F: history.Poll, In: m.in()})
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	defer m.cl.polled()
	mops, err := m.cl.poll(ctx)
	op.In, op.Mops = m.in(), mops
	if len(mops) == 0 {
		if err != nil {
			op.Err = err.Error()
		}
		m.rec.Complete(op, history.Fail)
		return
	}
	for _, mop := range mops {
		if n := len(mop.Records); n > 0 {
			next := mop.Records[n-1].Offset + 1
			m.given(mop.Key, next)
			m.mu.Lock()
			m.dirty[mop.Key] = next
			m.mu.Unlock()
		}
	}
	m.rec.Complete(op, history.OK)
	if m.chance.IntN(3) == 0 {
		m.commit(3 * time.Second)
	}
}

// commit commits what the member was given.
func (m *member) commit(timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	m.mu.Lock()
	offsets := maps.Clone(m.dirty)
	m.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	op := history.Op{Process: m.process, F: history.Commit, In: m.in()}
	sent := m.cl.commits(maps.Clone(offsets))
	for _, k := range slices.SortedFunc(maps.Keys(sent), compareKeys) {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: sent[k]})
	}
	op = m.rec.Invoke(op)
	taken, err := m.cl.commit(ctx, offsets)
	if err != nil {
		op.Err = err.Error()
	}
	if len(taken) == 0 { // an earlier try may have been taken
		m.rec.Complete(op, history.Info)
		return
	}
	op.Mops = slices.DeleteFunc(slices.Clone(op.Mops), func(mop history.Mop) bool { return !slices.Contains(taken, mop.Key) })
	m.rec.Complete(op, history.OK)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range taken {
		if m.dirty[k] == offsets[k] {
			delete(m.dirty, k)
		}
	}
}

func compareKeys(a, b history.Key) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// leave ends the life in good order.
func (m *member) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), groupSession)
	defer cancel()
	m.cl.close(ctx)
}

// die ends the life: whatever the client says from here on, nobody hears it.
func (m *member) die() {
	m.rec.Note(history.Op{Process: m.process, F: history.Crash})
	m.dead.Store(true)
	m.line.cut(true)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	m.cl.close(ended)
}

// line is a member's way to the nodes.
type line struct {
	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

// errCut is what a member hears whose line is cut.
var errCut = errors.New("the line is cut")

// dial opens a connection, of which cut knows.
func (l *line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	isCut := l.isCut
	l.mu.Unlock()
	if isCut {
		return nil, errCut
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		_ = conn.Close()
		return nil, errCut
	}
	if l.conns == nil {
		l.conns = make(map[net.Conn]bool)
	}
	l.conns[conn] = true
	return &lineConn{conn, l}, nil
}

// cut ends all connections, and lets no new one be opened until it is told otherwise.
func (l *line) cut(isCut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isCut = isCut
	if !isCut {
		return
	}
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

// lineConn is a connection that its line forgets when it is closed.
type lineConn struct {
	net.Conn
	l *line
}

func (c *lineConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c.Conn)
	c.l.mu.Unlock()
	return c.Conn.Close()
}
