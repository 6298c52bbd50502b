package transport

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// smallBytes is the largest message that goes over the small connection.
	smallBytes = 16 << 10

	// lightBytes is the largest request of Raft's that counts for nothing in a
	// window: votes, heartbeats and probes never wait.
	lightBytes = 1 << 10

	// callOverheadBytes is what a call counts for beside its payload.
	callOverheadBytes = 4 << 10

	// nodeWindowBytes is how much of Raft's requests a node holds for another, by
	// default, and callWindowBytes of calls; the latter also bounds the answers to
	// calls that wait to be written when another call is begun.
	nodeWindowBytes = 64 << 20
	callWindowBytes = 32 << 20

	// maxOwed is how many requests of one session may be unanswered.
	maxOwed = 1 << 14

	// silences is how many time-outs a connection may be silent: as long as a leader
	// goes on that nobody answers. It is asked for a sign of life once in each, and
	// when half of one has passed without.
	silences = 2

	// installTimeout is how much longer than others the answer to a checkpoint may
	// take: it comes when the replica has restored its state.
	installTimeout = time.Minute
)

// ErrBroken reports a call whose connection broke before the answer came. It may
// have taken effect.
var ErrBroken = errors.New("transport: the connection broke during a call")

// class tells requests apart that do not wait for each other's memory.
type class uint8

const (
	raftClass class = iota
	callClass
	classes
)

// weigh says what a request counts for while it is unanswered, at both ends.
func (h frameHeader) weigh() (class, int64) {
	switch {
	case h.op == opCall:
		return callClass, int64(h.total) + callOverheadBytes
	case h.total <= lightBytes:
		return raftClass, 0
	}
	return raftClass, int64(h.total)
}

// window bounds the bytes of unanswered requests of a class. One alone may be
// larger.
type window struct {
	limit, used int64
	next        *message // that waits for room; no other may pass it
	freed       time.Time
}

// fits reports whether there is room for n bytes.
func (w *window) fits(n int64) bool { return n == 0 || w.used == 0 || w.used+n <= w.limit }

// session is two connections between two nodes. One end has dialled and asks, the
// other answers. It ends when one of its connections does.
//
//	caller                                    callee
//	enqueue -> lane.write ===================> lane.read -> take -> replica, Answerer
//	land    <- lane.read  <=================== lane.write <- answer
//
// A request is unanswered, and counts in its window, from its first frame to its
// answer: also if nobody waits for that any more. So neither end holds more for
// the other than the windows that the callee named.
type session struct {
	mesh    *Mesh
	node    int32 // the other end's
	addr    string
	dialled bool
	lanes   [lanes]*lane
	done    chan struct{} // closed when it has ended
	writers atomic.Int32  // that have not ended

	mu       sync.Mutex
	err      error // why it ended
	next     uint64
	outs     map[uint64]*outbound // asked, and not answered
	ins      map[uint64]*inbound  // asked by the other end
	owed     int                  // requests of the other end whose answer it does not have
	windows  [classes]window
	waiting  int64    // bytes of answers to calls that are not written
	held     []func() // calls that begin when there are less
	pings    uint64
	pinged   time.Time
	trip     time.Duration
	looked   time.Time
	stopTick func() bool
}

// outbound is a request to another node.
type outbound struct {
	h     frameHeader
	parts [][]byte
	bulk  bool // goes over the bulk connection, whatever its size
	land  func(code answerCode, body []byte, err error)

	link    *link
	session *session // nil: waits for one; guarded by link.mu

	// Guarded by session.mu.
	message   *message
	lane      *lane
	gone      bool      // nobody waits for the answer
	end       uint64    // of its last frame, in what the lane has sent; 0: not sent
	arrivedAt time.Time // zero: not, as far as is known
}

// inbound is a request of another node.
type inbound struct {
	h      frameHeader
	class  class
	weight int64
	cancel func() // nil: has not begun
	gone   bool   // nobody waits for the answer
}

func newSession(m *Mesh, node int32, addr string, dialled bool) *session {
	return &session{
		mesh: m, node: node, addr: addr, dialled: dialled,
		done: make(chan struct{}),
		outs: make(map[uint64]*outbound),
		ins:  make(map[uint64]*inbound),
	}
}

// closeLanes closes what connections there are of a session that was not started.
func (s *session) closeLanes() {
	for _, l := range s.lanes {
		if l != nil {
			_ = l.raw.Close()
		}
	}
}

// start starts the goroutines of a session that has its connections.
func (s *session) start() {
	s.writers.Store(lanes)
	for _, l := range s.lanes {
		s.mesh.group.Go(func() { s.fail(l.read()) })
		s.mesh.group.Go(func() {
			s.fail(l.write())
			if s.writers.Add(-1) == 0 {
				s.lose() // only now it is known what was sent
			}
		})
	}
	s.tick()
}

// fail ends the session. The first reason counts.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	var cancels []func()
	for _, in := range s.ins {
		if in.cancel != nil {
			cancels = append(cancels, in.cancel)
		}
	}
	s.ins, s.held = nil, nil
	if s.stopTick != nil {
		s.stopTick()
	}
	s.mu.Unlock()
	for _, l := range s.lanes {
		_ = l.raw.Close()
	}
	close(s.done)
	for _, cancel := range cancels {
		cancel()
	}
}

// lose ends the requests of a session that has ended.
func (s *session) lose() {
	s.mu.Lock()
	outs := s.outs
	s.outs = nil
	s.mu.Unlock()
	for _, o := range outs {
		if !o.gone {
			o.land(answerOK, nil, s.loss(o))
		}
	}
}

// loss is why a request has no answer.
func (s *session) loss(o *outbound) error {
	switch {
	case errors.Is(s.err, ErrClosed) || errors.Is(s.err, ErrTimeout):
		return s.err
	case o.end == 0: // not all of it was sent
		return fmt.Errorf("%w: node %d at %s: %w", ErrUnreachable, s.node, s.addr, s.err)
	}
	return fmt.Errorf("%w: node %d at %s: %w", ErrBroken, s.node, s.addr, s.err)
}

// enqueue sends a request. False says that the session has ended.
func (s *session) enqueue(o *outbound) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, nil
	}
	if len(s.outs) >= maxOwed {
		return true, fmt.Errorf("%w: node %d has not answered %d calls", ErrUnreachable, s.node, maxOwed)
	}
	s.next++
	o.h.number = s.next
	s.outs[o.h.number] = o
	o.lane = s.lanes[small]
	stream := uint64(0)
	if o.bulk || o.h.total > smallBytes {
		o.lane = s.lanes[bulk]
		stream = o.h.stream()
	}
	if s.mesh.oneLane {
		o.lane = s.lanes[bulk]
	}
	o.message = &message{h: o.h, parts: o.parts, out: o}
	o.parts = nil
	o.lane.pushLocked(stream, o.message)
	return true, nil
}

// stream says which messages of the bulk connection keep their order: those of a
// shard. The others take turns with it.
func (h frameHeader) stream() uint64 {
	if h.op == opCall {
		return 1<<63 | h.number
	}
	return uint64(h.shard)
}

// abandon says that nobody waits for the answer to a request any more.
func (s *session) abandon(o *outbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.outs[o.h.number] != o || o.gone {
		return
	}
	o.gone = true
	switch m := o.message; {
	case m == nil || m.taken:
		o.lane.pushLocked(0, &message{h: frameHeader{kind: frameCancel, number: o.h.number}})
	case m.begun:
		m.cancelled = true // the writer says so in the place of what is left
	default:
		o.lane.removeLocked(m)
		delete(s.outs, o.h.number)
	}
}

// answered lands a request with the answer to it.
func (s *session) answered(h frameHeader, body []byte) error {
	s.mu.Lock()
	o := s.outs[h.number]
	if o == nil || o.message != nil && !o.message.taken { // expect has looked at the operation
		s.mu.Unlock()
		return fmt.Errorf("%w: an answer to what was not asked: %+v", errFrame, h)
	}
	delete(s.outs, h.number)
	s.freeLocked(o.h)
	s.mu.Unlock()
	if !o.gone {
		o.land(h.code, body, nil)
	}
	return nil
}

// freeLocked gives back what an answered request counted for.
func (s *session) freeLocked(h frameHeader) {
	c, weight := h.weigh()
	w := &s.windows[c]
	w.used -= weight
	w.freed = s.mesh.opt.Clock.Now()
	if w.next != nil {
		for _, l := range s.lanes {
			l.poke()
		}
	}
}

// moved returns when something of a request moved last: until it is at the other
// end, anything on its way there; from then on, its own answer alone could.
func (s *session) moved(o *outbound) (last time.Time, arrived bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := o.lane; {
	case l == nil:
		return last, false
	case !o.arrivedAt.IsZero():
		return o.arrivedAt, true
	default:
		c, _ := o.h.weigh()
		last = later(l.movedAt, l.reportedAt)
		if o.message != nil && !o.message.begun {
			last = later(last, s.windows[c].freed)
		}
		return last, false
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tick looks for signs of life, twice in each time-out, and asks for more.
func (s *session) tick() {
	if err := s.look(); err != nil {
		s.fail(err)
	}
}

// look says why the session ends, if it has been silent.
func (s *session) look() error {
	now := s.mesh.opt.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	if err := s.silentLocked(now); err != nil {
		return err
	}
	before := s.looked
	s.looked = now
	if s.dialled {
		s.pings++
		s.pinged = now
		for _, l := range s.lanes {
			if s.pings%2 == 1 || l.silent(now) > now.Sub(before) { // in between, only who was silent since
				l.pingDue, l.ping = true, s.pings
				l.poke()
			}
		}
	}
	s.stopTick = s.mesh.opt.Clock.AfterFunc(s.mesh.opt.Timeout/2, s.tick)
	return nil
}

// silent reports whether the session ends with the next look, for it is silent.
func (s *session) silent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.silentLocked(s.mesh.opt.Clock.Now()) != nil
}

// silentLocked says which connection has been silent for how long, if it is too
// long. If nobody has looked for some time, this process did not run, and knows
// nothing of who was silent meanwhile. The caller holds s.mu.
func (s *session) silentLocked(now time.Time) error {
	late := now.Sub(s.looked) >= s.mesh.opt.Timeout
	for _, l := range s.lanes {
		if late {
			l.hear(now)
		}
		if silent := l.silent(now); silent >= silences*s.mesh.opt.Timeout {
			return fmt.Errorf("%w: nothing came from node %d at %s for %v", ErrTimeout, s.node, s.addr, silent)
		}
	}
	return nil
}
