package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Member is a replica's Transport through a Hub. All methods are safe for
// concurrent use.
type Member struct {
	hub   *Hub
	shard ShardID
	id    ReplicaID

	handler atomic.Pointer[Handler]
	rpc     chan raft.RPC // to Raft
	closed  chan struct{}
	group   sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	inbox   []raft.RPC // arrived, not yet taken by Raft
	arrived chan struct{}
	calls   map[*call]struct{}    // unanswered
	flights map[ReplicaID]*flight // by receiver
}

var _ Transport = (*Member)(nil)

func newMember(h *Hub, shard ShardID, id ReplicaID) *Member {
	return &Member{
		hub: h, shard: shard, id: id,
		rpc:     make(chan raft.RPC),
		closed:  make(chan struct{}),
		arrived: make(chan struct{}, 1),
		calls:   make(map[*call]struct{}),
		flights: make(map[ReplicaID]*flight),
	}
}

func (m *Member) place() place { return place{m.shard, m.id.Node} }

// probe asks for a term; its answer is a uint64.
type probe struct{}

// call is a request on its way to its answer.
type call struct {
	m      *Member
	to     ReplicaID
	bytes  int64
	flight *flight       // that counts bytes
	done   chan struct{} // closed when answer and err are set
	stop   func() bool   // ends the time-out
	answer any
	err    error
}

// start sends a command and returns when that is under way. A call that has no
// answer in time ends with ErrTimeout. It waits while more bytes are under way
// to the same replica than may be.
func (m *Member) start(to raft.ServerID, command any, snapshot []byte) (*call, error) {
	id, err := ParseReplicaID(string(to))
	if err != nil {
		return nil, err
	}
	c := &call{m: m, to: id, bytes: commandBytes(command) + int64(len(snapshot)), done: make(chan struct{})}
	if err := m.takeOff(c); err != nil {
		return nil, err
	}
	command = copyCommand(command)
	m.hub.send(way{m.id.Node, id.Node}, true, func() { c.arrive(command, snapshot) })
	return c, nil
}

// arrive brings the command to whoever is at the other end.
func (c *call) arrive(command any, snapshot []byte) {
	peer, err := c.m.hub.find(c.m.shard, c.to)
	if err != nil {
		c.reply(nil, err)
		return
	}
	if _, ok := command.(probe); ok {
		if h := peer.handler.Load(); h != nil && h.Probed != nil {
			c.reply(h.Probed(), nil)
		} else {
			c.reply(nil, fmt.Errorf("%w: %s answers no probes", ErrUnreachable, c.to))
		}
		return
	}
	// Each arrival has its own copy: a duplicate is one more.
	rpc := raft.RPC{Command: copyCommand(command)}
	if snapshot != nil {
		rpc.Reader = bytes.NewReader(snapshot)
	}
	peer.accept(rpc, c.reply)
}

// reply sends an answer back.
func (c *call) reply(answer any, err error) {
	c.m.hub.send(way{c.to.Node, c.m.id.Node}, false, func() { c.m.land(c, answer, err) })
}

// wait waits for the answer.
func (c *call) wait() (any, error) {
	<-c.done
	return c.answer, c.err
}

// accept gives rpc to Raft, when its turn comes, and Raft's answer to reply.
func (m *Member) accept(rpc raft.RPC, reply func(any, error)) {
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.inbox = append(m.inbox, rpc)
	select {
	case m.arrived <- struct{}{}:
	default:
	}
	m.group.Go(func() {
		select {
		case a := <-answers:
			reply(a.Response, a.Error)
		case <-m.closed:
		}
	})
}

// deliver hands to Raft what has arrived, in order.
func (m *Member) deliver() {
	for {
		select {
		case <-m.arrived:
		case <-m.closed:
			return
		}
		for {
			m.mu.Lock()
			var rpc raft.RPC
			some := len(m.inbox) > 0
			if some {
				rpc, m.inbox = m.inbox[0], m.inbox[1:]
			}
			m.mu.Unlock()
			if !some {
				break
			}
			select {
			case m.rpc <- rpc:
			case <-m.closed:
				return
			}
		}
	}
}

// Inject implements Transport.
func (m *Member) Inject(rpc raft.RPC) {
	m.accept(rpc, func(answer any, err error) { rpc.RespChan <- raft.RPCResponse{Response: answer, Error: err} })
}

// Handle implements Transport.
func (m *Member) Handle(h Handler) { m.handler.Store(&h) }

// Probe implements Transport.
func (m *Member) Probe(ctx context.Context, to ReplicaID) (uint64, error) {
	c, err := m.start(raft.ServerID(to.String()), probe{}, nil)
	if err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		m.land(c, nil, ctx.Err())
	}
	answer, err := c.wait()
	if err != nil {
		return 0, err
	}
	return answer.(uint64), nil
}

// Consumer implements raft.Transport.
func (m *Member) Consumer() <-chan raft.RPC { return m.rpc }

// LocalAddr implements raft.Transport.
func (m *Member) LocalAddr() raft.ServerAddress { return raft.ServerAddress(m.id.String()) }

// do is one call and its answer.
func do[A any](m *Member, to raft.ServerID, command any, snapshot []byte, into *A) error {
	c, err := m.start(to, command, snapshot)
	if err != nil {
		return err
	}
	answer, err := c.wait()
	if err != nil {
		return err
	}
	*into = *answer.(*A)
	return nil
}

// AppendEntries implements raft.Transport.
func (m *Member) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := do(m, id, req, nil, resp)
	if err == nil {
		m.appended(id, req, resp)
	}
	return err
}

// appended tells the handler of an answer.
func (m *Member) appended(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	h := m.handler.Load()
	if to, err := ParseReplicaID(string(id)); err == nil && h != nil && h.Appended != nil {
		h.Appended(to, req, resp)
	}
}

// RequestVote implements raft.Transport.
func (m *Member) RequestVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return do(m, id, req, nil, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (m *Member) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return do(m, id, req, nil, resp)
}

// TimeoutNow implements raft.Transport.
func (m *Member) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return do(m, id, req, nil, resp)
}

// InstallSnapshot implements raft.Transport. A checkpoint holds logical state
// only, so it travels whole.
func (m *Member) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	b, err := io.ReadAll(data)
	if err != nil {
		return fmt.Errorf("transport: checkpoint for %s: %w", id, err)
	}
	if b == nil {
		b = []byte{}
	}
	return do(m, id, req, b, resp)
}

// EncodePeer implements raft.Transport.
func (m *Member) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (m *Member) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport; heartbeats go through Consumer.
func (m *Member) SetHeartbeatHandler(func(raft.RPC)) {}

// Close implements raft.WithClose.
func (m *Member) Close() error {
	m.hub.leave(m)
	m.mu.Lock()
	first := !m.ended
	m.ended = true
	var calls []*call
	for c := range m.calls {
		calls = append(calls, c)
	}
	m.mu.Unlock()
	if first {
		close(m.closed)
	}
	for _, c := range calls {
		m.land(c, nil, ErrClosed)
	}
	m.group.Wait()
	return nil
}
