package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// softwareName is what the servers are told about this client.
const softwareName = "flotilla-go"

// call is one request on its way.
type call struct {
	kind    frame.Kind
	req     proto.Message
	payload []frame.Part
	resp    proto.Message // decoded into; nil: the request has no response
	wait    time.Duration // that the server may take beyond RequestTimeout and OverdueAfter

	// moved, if set, reports whether an image shows that another node answers this
	// by now. It holds what it needs: it is called with the link's mu held.
	moved func(*image) bool

	feature string // what the server must offer; else errNoFeature is the answer
	opens   *push  // the stream that this opens, registered when it is written
	closes  uint32 // the stream that this ends: nothing of it is taken any more

	// done is called exactly once, by a goroutine of the link, which must not
	// be held up, with no lock held.
	done func(answer)

	deadline time.Time // set by submit
	since    time.Time // likewise: an answer is due from then on
	written  time.Time
	told     bool // the hook for Sent was
}

// push is a stream, as a link knows it: who is told of what is delivered, and
// of the end of the connection. Both are called by goroutines of the link,
// which must not be held up, with no lock held; ended at most once, and
// delivered not after it. An error of delivered breaks the connection.
type push struct {
	id        uint32
	delivered func(m *pb.Deliver, payload []byte) error
	ended     func(error)
}

// errNoFeature is the answer to a call that the server does not know.
var errNoFeature = errors.New("client: the server does not offer that")

// answer is how a call ended. Without an error, call.resp is filled in.
type answer struct {
	payload []byte
	sent    bool // the server may have seen the request
	err     error
}

// link is the way to one address: at most one connection, made when there is a
// call to send, and calls that wait for it or for their answers. When the
// connection breaks all of them fail; retrying is left to those who know what
// order they need.
type link struct {
	c    *Client
	addr string
	wake chan struct{} // 1-buffered: the queue or closed has changed

	mu      sync.Mutex
	queue   []*call          // not yet written
	pending map[uint32]*call // written, by correlation id
	pushes  map[uint32]*push // streams of the present connection
	nextID  uint32
	closed  bool
	err     error // of the last connection

	// For attend.
	stir     chan struct{} // 1-buffered: something waits, and attend does not look
	session  *session      // the present one; guarded by mu, like those below
	verdict  error         // why attend ended it
	attended bool          // attend looks again by itself
	probing  bool          // its Ping is under way
	probedAt time.Time     // when it was sent
	late     atomic.Bool   // an answer is overdue: for other questions there are other nodes

	lastRead   atomic.Int64 // unix nanoseconds by cfg.Now
	lastWrite  time.Time    // for the session's own goroutine
	nextStream atomic.Uint32
}

// submit hands a call to the link.
func (l *link) submit(cl *call) {
	cl.since = l.c.cfg.Now().Add(cl.wait)
	cl.deadline = cl.since.Add(l.c.cfg.RequestTimeout)
	l.mu.Lock()
	closed, attended := l.closed, l.attended
	if !closed {
		l.queue = append(l.queue, cl)
	}
	l.mu.Unlock()
	if closed {
		cl.done(answer{err: ErrClosed})
		return
	}
	poke(l.wake)
	if !attended {
		poke(l.stir)
	}
}

// do submits a call and waits for its answer or for ctx. After ctx ended the
// server may still act on it; sent says whether it can have seen it.
func (l *link) do(ctx context.Context, cl *call) (payload []byte, sent bool, err error) {
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	result := make(chan answer, 1)
	cl.done = func(a answer) { result <- a }
	l.submit(cl)
	select {
	case a := <-result:
		return a.payload, a.sent, a.err
	case <-ctx.Done():
		if l.unqueue(cl) {
			return nil, false, ctx.Err()
		}
		return nil, true, ctx.Err()
	}
}

// unqueue takes back a call that was not yet written, and reports whether it
// was in time.
func (l *link) unqueue(cl *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.queue {
		if q == cl {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			return true
		}
	}
	return false
}

// lastError returns why there is no connection, for a call that was taken back.
func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	return fmt.Errorf("%w: %s: not yet connected", ErrConnection, l.addr)
}

// run connects whenever there is something to send, until ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.shut()
	failures := 0
	for {
		if l.idle() {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		began := l.c.cfg.Now()
		s, err := l.connect(ctx)
		if hook := l.c.cfg.Hooks.Connected; hook != nil {
			e := ConnectEvent{Address: l.addr, NodeID: -1, Duration: l.c.cfg.Now().Sub(began), Err: err}
			if err == nil {
				e.NodeID = s.hello.NodeId
			}
			hook(e)
		}
		if err == nil {
			failures = 0
			err = s.serve(ctx)
			if hook := l.c.cfg.Hooks.Disconnected; hook != nil {
				hook(DisconnectEvent{Address: l.addr, Err: err})
			}
		}
		l.fail(err)
		if ctx.Err() != nil {
			return
		}
		l.c.cfg.Logger.Info("connection failed", "address", l.addr, "error", err)
		failures++
		if !pause(ctx, l.c.backoff(failures)) {
			return
		}
	}
}

func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) == 0
}

// fail ends every call with err.
func (l *link) fail(err error) {
	l.mu.Lock()
	l.err = err
	queue, pending, pushes := l.queue, l.pending, l.pushes
	l.queue, l.pending, l.pushes = nil, nil, nil
	l.mu.Unlock()
	for _, cl := range pending {
		l.finish(cl, answer{sent: true, err: err})
	}
	for _, cl := range queue {
		l.finish(cl, answer{err: err})
	}
	for _, p := range pushes {
		p.ended(err)
	}
}

// shut refuses calls from now on and ends those that are left.
func (l *link) shut() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.fail(ErrClosed)
}

// poke wakes whoever waits on a 1-buffered channel, now or next.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
