package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/kafka/guard"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// freeDecodeBytes is what a decoded request may take that is not counted as
// memory held.
const freeDecodeBytes = 64 << 10

// flushBytes is how much is queued before it is written, if more is ready.
const flushBytes = 64 << 10

// joinedBytes is up to where an answer lies behind its header.
const joinedBytes = 1 << 10

var (
	// errUnanswered reports a request that a handler had no answer for.
	errUnanswered = errors.New("kafka: no answer")
)

// write is the writer: it answers requests in their order, until there are none. After an
// error it only gives back what they hold. alone says that the reading goroutine does it,
// so that nothing is behind what it answers.
func (c *conn) write(alone bool) {
	for {
		select {
		case q := <-c.order:
			c.turn.Store(q)
			if c.w.Queued() >= flushBytes || q.mayWait() {
				c.writeQueued(alone)
			}
			c.queued = append(c.queued, q)
			if err := c.respond(q, c.failed != nil); err != nil {
				c.writeQueued(alone) // the answers before it
				c.note(err, c.turnAway)
			}
			// What holds memory of the node's for answers is written before anything else
			// is queued: a delivery behind it may wait for that very memory.
			if len(c.order) == 0 || c.failed != nil || q.answer.holds() {
				c.writeQueued(alone)
			}
			continue
		default:
		}
		c.turn.Store(nil)
		c.writing.Store(false)
		// What came before that is for this writer, unless there is another one already.
		if len(c.order) == 0 || !c.writing.CompareAndSwap(false, true) {
			return
		}
	}
}

// writeQueued writes the answers that are queued, and gives back what they hold.
func (c *conn) writeQueued(alone bool) {
	if c.failed == nil {
		var held int64
		if n := len(c.queued); n > 0 {
			held = c.queued[n-1].answer.held // of the others none does: see write
		}
		c.note(c.flush(held > 0, alone), c.breakOff)
	}
	for i, q := range c.queued {
		c.note(q.settle(), c.breakOff)
		c.queued[i] = nil
		<-c.inflight
	}
	c.queued = c.queued[:0]
}

// note takes the first error of the writer's, and ends the connection as it asks for.
func (c *conn) note(err error, end func(error)) {
	if c.failed == nil && err != nil {
		c.failed = err
		end(err)
	}
}

// breakOff ends the connection from the writer's side, at once.
func (c *conn) breakOff(err error) {
	c.end(err)
	_ = c.nc.Close()
}

// turnAway ends the connection for a request that cannot be answered. The answers before
// it are written, and are to arrive: it is read no more, and closed as serve does it.
func (c *conn) turnAway(err error) {
	if c.ctx.Err() != nil {
		c.breakOff(err) // nobody is there to read them
		return
	}
	c.turnedAway.Store(true)
	c.end(err)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // see intake.NewReader
}

// end notes why the writer ends the connection, and ends what is under way.
func (c *conn) end(err error) {
	if c.ctx.Err() == nil { // else it is over, and this is what comes of it
		c.broken = err
		if !intake.Quiet(err) {
			c.log.Info("connection closed", "err", err)
		}
	}
	c.cancel()
	c.polls.End()
}

// settle gives back what the answer holds, once it is written or never will be.
func (q *request) settle() (err error) {
	defer q.conn.survived(&err, "giving back an answer", q)
	q.answer.release(q.s)
	q.settleFetch()
	return nil
}

// release gives back what the answer holds.
func (a *answer) release(s *Server) {
	body, held := a.body, a.held
	*a = answer{}
	if held > 0 {
		s.opt.Answers.Release(held)
	}
	if body != nil {
		body.Release()
	}
}

// holds reports whether the answer holds memory of the node's for answers while it
// is written, or waits for some.
func (a *answer) holds() bool { return a.held > 0 || a.delivered }

// mayWait reports whether the answer is not there yet.
func (q *request) mayWait() bool {
	select {
	case <-q.ready:
		return false
	default:
		return true
	}
}

// respond queues the answer of q, which it waits for or makes. If broken, it
// only waits for what is under way, which then holds nothing any more.
func (c *conn) respond(q *request, broken bool) (err error) {
	defer c.survived(&err, "answering", q)
	defer q.passed()
	c.complete(q, broken)
	a := &q.answer
	switch {
	case broken:
		return nil
	case a.err != nil:
		return a.err
	case a.none:
		return nil
	}
	return c.queue(q)
}

// complete waits for the answer of q, or makes it.
func (c *conn) complete(q *request, broken bool) {
	var a answer
	switch {
	case broken && q.inTurn:
		a.none = true
	case q.inTurn:
		if a.err = c.start(q); a.err != nil {
			q.send(a)
		}
		q.passed()
		<-q.ready
		return
	case q.api.start != nil || q.answered:
		<-q.ready
		return
	case broken:
		a.none = true
	default:
		a.head, a.err = c.handle(q)
		a.held = q.answer.held // what the handler took
	}
	q.send(a)
}

// queue adds the answer of q to what is written next.
func (c *conn) queue(q *request) (err error) {
	a := &q.answer
	var parts []frame.Part
	n := int64(len(a.head))
	if a.body != nil {
		n += a.body.Len()
		if parts, err = a.body.Parts(); err != nil {
			return err
		}
	}
	tagged := q.flexible() && kmsg.Key(q.api.key) != kmsg.ApiVersions
	n += lengthBytes // the correlation id
	if tagged {
		n++
	}
	if n > math.MaxInt32 {
		return fmt.Errorf("%w: an answer of %d bytes to %s", errTooLarge, n, q.api.name)
	}
	header := make([]byte, 0, lengthBytes+5+joined(a))
	header = binary.BigEndian.AppendUint32(header, uint32(n))
	header = binary.BigEndian.AppendUint32(header, uint32(q.correlationID))
	if tagged {
		header = append(header, 0)
	}
	if joined(a) > 0 {
		c.w.QueueRaw(frame.Part{Bytes: append(header, a.head...)})
	} else {
		c.w.QueueRaw(frame.Part{Bytes: header}, frame.Part{Bytes: a.head})
		c.w.QueueRaw(parts...)
	}
	a.delivered = slices.ContainsFunc(parts, func(p frame.Part) bool { return p.Source != nil })
	return nil
}

// joined is how many bytes of an answer are copied behind its header: all of a small one,
// as a single write costs less than one of two parts.
func joined(a *answer) int {
	if a.body != nil || len(a.head) > joinedBytes {
		return 0
	}
	return len(a.head)
}

// passed takes note that requests are started behind q again.
func (q *request) passed() {
	if q.isBefore {
		q.isBefore = false
		q.before.Add(-1)
	}
}

// handle decodes a request and has it answered. A panic is the connection's end,
// and nobody else's.
func (c *conn) handle(q *request) (head []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			q.panicked(p)
			head, err = nil, intake.ErrPanic
		}
	}()
	return c.ordinary(q)
}

// ordinary returns the answer to a request that is decoded as a whole.
func (c *conn) ordinary(q *request) (head []byte, err error) {
	alloc, err := guard.Check(q.api.key, q.version, q.body, guard.LimitsFor(len(q.body)))
	if err != nil {
		return nil, err
	}
	if alloc > freeDecodeBytes {
		if err := c.s.decoding.Acquire(c.ctx, alloc); err != nil {
			return nil, err
		}
		defer c.s.decoding.Release(alloc)
	}
	req := kmsg.RequestForKey(q.api.key)
	req.SetVersion(q.version)
	if err := req.ReadFrom(q.body); err != nil {
		return nil, q.malformed(err)
	}
	if q.api.controlled != nil && q.api.controlled(req) && c.via != passedOn {
		head, err := c.s.passOn(q)
		if !errors.Is(err, broker.ErrAnswerHere) {
			return head, err
		}
	}
	resp := q.api.handle(c.s, c.ctx, &q.peer, req)
	if resp == nil {
		return nil, q.unanswered()
	}
	resp.SetVersion(q.version)
	head = resp.AppendTo(nil)
	q.recycle()
	return head, nil
}

// malformed says that a request is not as its version has it.
func (q *request) malformed(err error) error {
	return fmt.Errorf("%w: %s version %d: %w", errMalformed, q.api.name, q.version, err)
}

// unanswered says why a handler has returned nothing.
func (q *request) unanswered() error {
	if q.refused != nil {
		return q.refused
	}
	return fmt.Errorf("%w to %s version %d", errUnanswered, q.api.name, q.version)
}

// flush writes what is queued. held says that it holds memory of the node's for
// answers until it is written, other than a delivery, which sees to that itself.
// The answers behind it may hold memory of the node's for Fetches meanwhile, unless
// it is alone.
func (c *conn) flush(held, alone bool) (err error) {
	defer c.survived(&err, "writing answers", nil)
	n := c.w.Queued()
	if n == 0 {
		return nil
	}
	if held || !alone {
		c.out.Begin(n, func() bool {
			return held && c.s.opt.Answers.Waiting() > 0 || c.unsent.waitedFor(&c.s.fetches)
		})
		defer func() { err = c.out.Taken(err) }()
	}
	if err := c.out.SetWriteDeadline(delivery.Deadline(c.s.opt.WriteTimeout, n)); err != nil {
		return err
	}
	if err = c.w.Flush(); err == nil {
		c.s.meter.Wrote(n)
	}
	return err
}

// survived is intake.Survive for what is done of a request, or of the connection as a
// whole. It takes no memory for what it would log.
func (c *conn) survived(err *error, at string, q *request) {
	p := recover()
	switch {
	case p == nil:
		return
	case q == nil:
		intake.LogPanic(c.log, p, "at", at)
	default:
		intake.LogPanic(c.log, p, "at", at, "request", q.api.name, "version", q.version)
	}
	*err = intake.ErrPanic
}
