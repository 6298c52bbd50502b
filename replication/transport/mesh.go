package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// MeshOptions configures a Mesh. The zero value of a field that has a default
// means that one.
type MeshOptions struct {
	// ClusterID and Node say who this is. A node of another cluster is refused, and
	// so is one that says that it is Node.
	ClusterID string
	Node      int32

	// Listener takes the connections of other nodes. The Mesh closes it.
	Listener net.Listener

	// Dial connects to the listener of another node.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	// Address says where another node listens. It is asked before each dial, and
	// may answer differently each time; it must not block.
	Address func(node int32) (addr string, ok bool)

	// TLS, unless nil, is for both directions: nodes show each other certificates
	// that its RootCAs or ClientCAs vouch for. Without, there is no authentication.
	TLS *tls.Config

	Clock Clock      // default WallClock
	Rand  *rand.Rand // of back-off and sessions; the Mesh's alone

	// Timeout is for how long nothing may move of a call of Raft's; default 500 ms.
	// A connection is given up after three times as long without a sign of life.
	Timeout time.Duration

	// MaxInFlightBytes bounds the unanswered calls of a replica to another; default
	// 8 MiB. One alone may be larger.
	MaxInFlightBytes int64

	// MaxHeldBytes bounds what this node holds of the unanswered requests of each
	// other node's replicas; default 64 MiB. One alone may be larger. As much as
	// 32 MiB of calls comes to it.
	MaxHeldBytes int64

	Log *slog.Logger // default: none

	// OnState, unless nil, is told when the way to a node is there, and when it
	// broke: within milliseconds if the other end, or its machine's kernel, says so.
	// It must not block. Of one node it is told in order.
	OnState func(node int32, connected bool)
}

// Mesh is a node's connections to the other nodes of its cluster: it carries the
// calls of its replicas and is its Peers. All methods are safe for concurrent use.
//
// To each node that is called it keeps two connections, one for what is small and
// one for what is large, and dials them again when they break. A call to a node
// that does not answer a dial is ErrUnreachable; one whose connection breaks is
// ErrBroken, or ErrUnreachable if not all of it was sent.
//
// The data of entries is not copied on its way out, and may still be read when
// the call has ended: it must never change. Entries that come in alias the buffer
// that one AppendEntries was read into, which is theirs.
type Mesh struct {
	roster
	opt    MeshOptions
	log    *slog.Logger
	began  time.Time
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	group  sync.WaitGroup

	oneLane bool // everything over one connection, for a benchmark

	mu        sync.Mutex
	ended     bool
	answerer  Answerer
	changed   func() // see Watch; nil: nobody watches
	links     map[int32]*link
	inbound   map[int32]*session // by the node that dialled
	strangers []*stranger        // the oldest first
	logged    map[string]time.Time
	traffic   map[int32]*traffic
}

var (
	_ Peers   = (*Mesh)(nil)
	_ carrier = (*Mesh)(nil)
)

// NewMesh returns a mesh that listens. It dials a node at the first call to it.
func NewMesh(opt MeshOptions) (*Mesh, error) {
	switch {
	case opt.ClusterID == "" || len(opt.ClusterID) > maxClusterBytes:
		return nil, fmt.Errorf("transport: cluster id %q is of no, or of more than %d bytes", opt.ClusterID, maxClusterBytes)
	case opt.Listener == nil || opt.Dial == nil || opt.Address == nil || opt.Rand == nil:
		return nil, errors.New("transport: a mesh needs a listener, a way to dial, addresses and randomness")
	}
	if opt.Clock.Now == nil {
		opt.Clock = WallClock
	}
	if opt.Timeout == 0 {
		opt.Timeout = 500 * time.Millisecond
	}
	if opt.MaxInFlightBytes == 0 {
		opt.MaxInFlightBytes = 8 << 20
	}
	if opt.MaxHeldBytes == 0 {
		opt.MaxHeldBytes = nodeWindowBytes
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.OnState == nil {
		opt.OnState = func(int32, bool) {}
	}
	var err error
	if opt.TLS, err = mutual(opt.TLS); err != nil {
		return nil, err
	}
	m := &Mesh{
		opt: opt, log: opt.Log, began: opt.Clock.Now(),
		links:   make(map[int32]*link),
		inbound: make(map[int32]*session),
		logged:  make(map[string]time.Time),
		traffic: make(map[int32]*traffic),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.group.Go(m.accept)
	return m, nil
}

// Join makes the transport of a replica of this node. It takes the place of an
// earlier one of the same shard, which then reaches nobody and is reached by
// nobody.
func (m *Mesh) Join(shard ShardID, id ReplicaID) *Member {
	return m.enter(newMember(m, m.opt.Clock, m.opt.Timeout, m.opt.MaxInFlightBytes, shard, id))
}

// carry implements carrier.
func (m *Mesh) carry(c *call, command any, snapshot []byte) {
	if c.to.Node == m.opt.Node {
		m.carryHome(c, command, snapshot)
		return
	}
	o := &outbound{h: frameHeader{kind: frameRequest, shard: uint32(c.m.shard)}}
	var err error
	if o.h.op, err = opOf(command); err != nil {
		c.m.land(c, nil, err)
		return
	}
	parts, size := encodeRequest(c.to.Incarnation, command, snapshot)
	if size > maxMessageBytes {
		c.m.land(c, nil, fmt.Errorf("transport: call of %d bytes to %s, at most %d", size, c.to, maxMessageBytes))
		return
	}
	o.parts, o.h.total, o.bulk = parts, uint32(size), c.piped
	o.land = func(code answerCode, body []byte, err error) {
		var answer any
		if err == nil {
			if o.h.op != opProbe {
				c.m.progressed(c, o.h.number, m.opt.Clock.Now())
			}
			if err = errorOf(code, body); err == nil {
				answer, err = decodeAnswer(o.h.op, body)
			}
		}
		c.m.land(c, answer, err)
	}
	l, err := m.link(c.to.Node)
	if err != nil {
		c.m.land(c, nil, err)
		return
	}
	o.link = l
	c.out.Store(o)
	l.submit(o)
}

// carryHome carries a call to this very node: to an earlier incarnation of a
// replica, say.
func (m *Mesh) carryHome(c *call, command any, snapshot []byte) {
	r, err := m.find(c.m.shard, c.to)
	if err != nil {
		c.m.land(c, nil, err)
		return
	}
	r.take(copyCommand(command), snapshot, func(answer any, err error) { c.m.land(c, answer, err) })
}

// moved implements carrier.
func (m *Mesh) moved(c *call) (last time.Time, longer time.Duration) {
	o := c.out.Load()
	if o == nil {
		return last, 0
	}
	s := o.link.sessionOf(o)
	if s == nil {
		return last, 0
	}
	last, arrived := s.moved(o)
	if !arrived {
		return last, 0
	}
	if o.h.op == opInstallSnapshot {
		longer = installTimeout
	}
	return later(last, c.m.progress(c, o.h.number)), longer
}

// drop implements carrier.
func (m *Mesh) drop(c *call) {
	if o := c.out.Load(); o != nil {
		o.link.abandon(o)
	}
}

// Close closes the listener and all connections, ends what waits, and has joined
// the goroutines of the mesh when it returns. Transports that have joined it are
// closed by their owners.
func (m *Mesh) Close() error {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		m.group.Wait()
		return nil
	}
	m.ended = true
	var sessions []*session
	for _, s := range m.inbound {
		sessions = append(sessions, s)
	}
	var links []*link
	for _, l := range m.links {
		links = append(links, l)
	}
	strangers := m.strangers
	m.strangers = nil
	m.mu.Unlock()
	m.cancel()
	err := m.opt.Listener.Close()
	for _, l := range links {
		l.close()
	}
	for _, s := range sessions {
		s.fail(ErrClosed)
	}
	for _, s := range strangers {
		s.close()
	}
	m.group.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}
