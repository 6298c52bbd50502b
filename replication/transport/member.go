package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Member is a replica's Transport through a Hub or a Mesh. All methods are safe for
// concurrent use.
type Member struct {
	net   carrier
	shard ShardID
	id    ReplicaID

	clock       Clock
	timeout     time.Duration // of a call
	maxInFlight int64         // bytes of unanswered calls to another replica

	handler atomic.Pointer[Handler]
	rpc     chan raft.RPC // to Raft
	closed  chan struct{}
	group   sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	inbox   []*arrival // not yet taken by Raft
	arrived chan struct{}
	calls   map[*call]struct{}    // unanswered
	flights map[ReplicaID]*flight // by receiver
}

var _ Transport = (*Member)(nil)

// carrier brings a member's calls to other replicas.
type carrier interface {
	// carry sends a command; what comes of it is for the call's land.
	carry(c *call, command any, snapshot []byte)

	// moved returns when something of a call moved last, as far as is known, and
	// how much longer than the time-out it may rest. It is asked when the call has
	// rested for the time-out.
	moved(c *call) (last time.Time, longer time.Duration)

	// drop is told of a call that ended before its answer came.
	drop(c *call)

	// leave is told that a member is reached no more.
	leave(m *Member)
}

// errGone is what comes of a request whose replica was closed meanwhile, or that
// was withdrawn before Raft took it.
var errGone = fmt.Errorf("%w: it was closed, or the call withdrawn", ErrUnreachable)

// arrival is a request on its way to Raft.
type arrival struct {
	rpc       raft.RPC
	withdrawn chan struct{} // closed when nobody waits for the answer any more
}

func newMember(net carrier, clock Clock, timeout time.Duration, maxInFlight int64, shard ShardID, id ReplicaID) *Member {
	return &Member{
		net: net, shard: shard, id: id,
		clock: clock, timeout: timeout, maxInFlight: maxInFlight,
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
	flight *flight                  // that counts bytes
	done   chan struct{}            // closed when answer and err are set
	stop   func() bool              // ends the time-out
	since  time.Time                // of the time-out's begin
	piped  bool                     // keeps its order among those of a pipeline
	out    atomic.Pointer[outbound] // a Mesh's
	answer any
	err    error
}

// start sends a command and returns when that is under way. A call that has no
// answer in time ends with ErrTimeout. It waits while more bytes are under way
// to the same replica than may be.
func (m *Member) start(to raft.ServerID, command any, snapshot []byte) (*call, error) {
	return m.begin(new(call), to, command, snapshot)
}

// begin is start for a call that is made already.
func (m *Member) begin(c *call, to raft.ServerID, command any, snapshot []byte) (*call, error) {
	id, err := ParseReplicaID(string(to))
	if err != nil {
		return nil, err
	}
	c.m, c.to, c.done = m, id, make(chan struct{})
	c.bytes = commandBytes(command) + int64(len(snapshot))
	if err := m.takeOff(c); err != nil {
		return nil, err
	}
	m.net.carry(c, command, snapshot)
	return c, nil
}

// take answers a probe, or gives a request to Raft; reply is called once. What it
// returns withdraws a request that Raft has not taken yet.
func (m *Member) take(command any, snapshot []byte, reply func(any, error)) (withdraw func()) {
	if _, ok := command.(probe); ok {
		if h := m.handler.Load(); h != nil && h.Probed != nil {
			reply(h.Probed(), nil)
		} else {
			reply(nil, fmt.Errorf("%w: %s answers no probes", ErrUnreachable, m.id))
		}
		return func() {}
	}
	rpc := raft.RPC{Command: command}
	if snapshot != nil {
		rpc.Reader = bytes.NewReader(snapshot)
	}
	return m.accept(rpc, reply)
}

// wait waits for the answer.
func (c *call) wait() (any, error) {
	<-c.done
	return c.answer, c.err
}

// accept gives rpc to Raft, when its turn comes, and Raft's answer to reply. What
// it returns withdraws what Raft has not taken yet; the answer is then errGone, as
// it is when the member is closed.
func (m *Member) accept(rpc raft.RPC, reply func(any, error)) (withdraw func()) {
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	a := &arrival{rpc: rpc, withdrawn: make(chan struct{})}
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		reply(nil, errGone)
		return func() {}
	}
	m.inbox = append(m.inbox, a)
	select {
	case m.arrived <- struct{}{}:
	default:
	}
	m.group.Go(func() {
		select {
		case a := <-answers:
			reply(a.Response, a.Error)
		case <-a.withdrawn:
			reply(nil, errGone)
		case <-m.closed:
			reply(nil, errGone)
		}
	})
	m.mu.Unlock()
	return func() { m.withdraw(a) }
}

// withdraw takes back what waits for Raft. It is called once at most.
func (m *Member) withdraw(a *arrival) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.inbox, a); i >= 0 {
		m.inbox = slices.Delete(m.inbox, i, i+1)
		close(a.withdrawn)
	}
}

// deliver hands to Raft what has arrived, in order. What it waits with stays in
// the inbox, so that it can be withdrawn.
func (m *Member) deliver() {
	for {
		m.mu.Lock()
		var first *arrival
		if len(m.inbox) > 0 {
			first = m.inbox[0]
		}
		m.mu.Unlock()
		if first == nil {
			select {
			case <-m.arrived:
			case <-m.closed:
				return
			}
			continue
		}
		select {
		case m.rpc <- first.rpc:
			m.taken(first)
		case <-first.withdrawn:
		case <-m.closed:
			return
		}
	}
}

// taken takes what Raft has out of the inbox.
func (m *Member) taken(a *arrival) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.inbox) > 0 && m.inbox[0] == a {
		m.inbox[0] = nil
		m.inbox = m.inbox[1:]
	}
}

// Inject implements Transport.
func (m *Member) Inject(rpc raft.RPC) {
	m.accept(rpc, func(answer any, err error) {
		if err != errGone {
			rpc.RespChan <- raft.RPCResponse{Response: answer, Error: err}
		}
	})
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
		m.abandon(c, ctx.Err())
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
	m.net.leave(m)
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
		m.abandon(c, ErrClosed)
	}
	m.group.Wait()
	return nil
}
