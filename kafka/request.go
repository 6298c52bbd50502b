package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// peer is who sent a request.
type peer struct {
	conn     *conn
	req      *request
	clientID string // of this request; "" if null
}

// error counts an error of the request, or of a part of it, and returns its
// number for the answer.
func (p *peer) error(e *errcode.Error) int16 { return p.req.error(e) }

// freeAnswerBytes is the size of an answer that is not counted as memory held.
const freeAnswerBytes = 64 << 10

// answerWait is how long a request waits for memory for its answer, if it gives no
// shorter time: as long as most clients wait for the answer.
const answerWait = 30 * time.Second

// errNoRoom reports an answer that there was no memory for.
var errNoRoom = errors.New("kafka: no room for an answer in the node's memory for them")

// mostAnswerBytes is what an answer may take at the most, if the node's memory for
// answers is not more.
const mostAnswerBytes = 64 << 20

// hold takes n bytes of the node's memory for the answer, until it is written,
// or waits for them, for as long as the request may take. It reports whether there
// are any: not when the connection or that time ends, and not for an answer that is
// larger than all of that memory. It is called once: who holds some and waits for
// more may wait for somebody who does the same.
func (p *peer) hold(ctx context.Context, n int64) bool {
	if n <= freeAnswerBytes {
		return true
	}
	if most := p.mostAnswer(); n > most {
		p.conn.log.Warn("a request is not answered, as its answer would take more memory than there is for all; ask for less at a time, or raise memory.bytes",
			"request", p.req.api.name, "client", p.clientID, "bytes", n, "limit", most)
		return false
	}
	within, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	if err := p.conn.s.opt.Answers.Acquire(within, n); err != nil {
		if p.conn.ctx.Err() == nil {
			p.req.refused = fmt.Errorf("%w in time: %d bytes of %d for %s; raise memory.bytes, or ask for less at a time",
				errNoRoom, n, p.conn.s.opt.Answers.Limit(), p.req.api.name)
		}
		return false
	}
	p.req.answer.held = n
	return true
}

// mostAnswer is what an answer may take at the most.
func (p *peer) mostAnswer() int64 { return max(p.conn.s.opt.Answers.Limit(), mostAnswerBytes) }

// listener returns where the peer's connection came in.
func (p *peer) listener() broker.Listener { return p.conn.via }

// address returns the peer's.
func (p *peer) address() net.Addr { return p.conn.nc.RemoteAddr() }

// request is one request between its first bytes and its answer.
type request struct {
	*conn
	api           *api
	version       int16
	correlationID int32
	peer          peer

	// body is what follows the header. It lies in raw, which is all of the request
	// but its length. Both are the request's until recycle, or send; who starts an
	// immediate request may keep them for longer.
	body, raw []byte

	from  *broker.Budget // that held is of
	held  int64          // bytes of it, and of the connection's own, until send
	began time.Time      // when all of it was read

	fetchFrom *broker.Budget // that fetchHeld is of; set before a Fetch is in conn.polls
	fetchHeld int64          // bytes of it, and of the connection's own, until settle

	fetchYield *broker.Yield // of fetchHeld, by send; nil: the answer's turn does not wait for others' records

	sent     atomic.Bool   // by send, or by a panic in its place
	ready    chan struct{} // closed by send
	answer   answer        // read after ready
	answered bool          // by the reader, though it is no immediate api
	refused  error         // why a handler had no answer; nil: it did not say
	poll     delivery.Poll // a Fetch, in conn.polls

	inTurn   bool  // the writer starts it
	isBefore bool  // it is counted in conn.before; the writer's once it is in conn.order
	hurried  int64 // conn.hurries, when it came
}

// answer is one response on its way out.
type answer struct {
	head []byte // the body's first bytes, or all of it
	body body   // what follows; nil: nothing
	none bool   // there is no response: a Produce without acknowledgement

	held int64 // bytes of Options.Answers, until it is written

	// delivered says that some of body is a frame.Source, which holds memory by
	// itself.
	delivered bool

	// err closes the connection instead.
	err error
}

// body is the part of an answer that lies in the store.
type body interface {
	// Parts returns what to write. It is called when it is the answer's turn,
	// once; what it returned is written before Release.
	Parts() ([]frame.Part, error)
	// Len is how many bytes Parts stands for. It does not change.
	Len() int64
	// LetGo gives memory back, to be read again when the answer's turn comes:
	// others are before it, and may take long.
	LetGo()
	// Release gives everything back.
	Release()
}

// send completes the request. It is called once, by any goroutine, and does not
// block. After a panic it only gives back what the answer holds.
func (q *request) send(a answer) {
	if !q.sent.CompareAndSwap(false, true) {
		a.release(q.s)
		return
	}
	defer func() { // the writer waits for it, whatever becomes of the rest
		if p := recover(); p != nil {
			q.panicked(p)
			a.release(q.s)
			a = answer{err: intake.ErrPanic}
		}
		q.answer = a
		close(q.ready)
	}()
	q.letGo()
	q.sendFetch()
	q.s.meter.Done(q.api.place, time.Since(q.began))
	if a.body != nil && q.turn.Load() != q && len(q.inflight) > 1 {
		a.body.LetGo() // its turn may be long in coming: others are before it
	}
}

// survive is deferred where an immediate request is worked on: a panic there is
// the connection's end when it is the request's turn, and nobody else's.
func (q *request) survive() {
	if p := recover(); p != nil {
		q.fail(p)
	}
}

// fail ends the connection for a panic where the request is worked on.
func (q *request) fail(p any) {
	q.panicked(p)
	q.send(answer{err: intake.ErrPanic})
}

// panicked logs a panic where the request was worked on.
func (q *request) panicked(p any) {
	intake.LogPanic(q.conn.log, p, "request", q.api.name, "version", q.version, "client", q.peer.clientID)
}

// error counts an error of the request, or of a part of it, and returns its
// number for the answer.
func (q *request) error(e *errcode.Error) int16 {
	if e == nil {
		return 0
	}
	q.s.meter.Error(q.api.place, e.Code)
	return int16(e.Code)
}

// recycle lends the request's bytes to others: nothing points into them any more.
func (q *request) recycle() {
	raw := q.raw
	q.body, q.raw = nil, nil
	q.s.buffers.Give(raw)
}

// letGo gives back the memory that the request was counted with.
func (q *request) letGo() {
	q.body, q.raw = nil, nil
	if q.held > 0 {
		q.from.Release(q.held)
		q.taking.Release(q.held)
		q.held = 0
	}
}

// served reports whether the request is of a version that is served.
func (q *request) served() bool { return q.version >= q.api.min && q.version <= q.api.max }

// flexible reports whether header and body are of the flexible kind.
func (q *request) flexible() bool { return q.version >= q.api.flexible }
