package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

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

var (
	// errUnanswered reports a request that a handler had no answer for.
	errUnanswered = errors.New("kafka: no answer")
)

// write answers requests in their order, until there are no more to come. After
// an error it only gives back what they hold.
func (c *conn) write() {
	var broken error
	note := func(err error, end func(error)) {
		if broken == nil && err != nil {
			broken = err
			end(err)
		}
	}
	var queued []*request // in c.w
	flush := func() {
		if broken == nil {
			var held int64
			if n := len(queued); n > 0 {
				held = queued[n-1].answer.held // of the others none does: see below
			}
			note(c.flush(held > 0), c.breakOff)
		}
		for i, q := range queued {
			note(q.settle(), c.breakOff)
			queued[i] = nil
			<-c.inflight
		}
		queued = queued[:0]
	}
	for q := range c.order {
		c.turn.Store(q)
		if c.w.Queued() >= flushBytes || q.mayWait() {
			flush()
		}
		queued = append(queued, q)
		if err := c.respond(q, broken != nil); err != nil {
			flush() // the answers before it
			note(err, c.turnAway)
		}
		// What holds memory of the node's for answers is written before anything else
		// is queued: a delivery behind it may wait for that very memory.
		if len(c.order) == 0 || broken != nil || q.answer.holds() {
			flush()
		}
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
	defer intake.Survive(q.conn.log, &err, "at", "giving back an answer", "request", q.api.name)
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
	defer intake.Survive(c.log, &err, "at", "answering", "request", q.api.name, "version", q.version)
	defer q.passed()
	switch {
	case broken && q.inTurn:
		q.send(answer{none: true})
	case q.inTurn:
		if err := c.start(q); err != nil {
			q.send(answer{err: err})
		}
		q.passed()
		<-q.ready
	case q.api.start != nil || q.answered:
		<-q.ready
	case broken:
		q.send(answer{none: true})
	default:
		a := c.handle(q)
		a.held = q.answer.held // what the handler took
		q.send(a)
	}
	a := &q.answer
	switch {
	case broken:
		return nil
	case a.err != nil:
		return a.err
	case a.none:
		return nil
	}
	header := make([]byte, 0, lengthBytes+5)
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
	header = binary.BigEndian.AppendUint32(header, uint32(n))
	header = binary.BigEndian.AppendUint32(header, uint32(q.correlationID))
	if tagged {
		header = append(header, 0)
	}
	c.w.QueueRaw(frame.Part{Bytes: header}, frame.Part{Bytes: a.head})
	c.w.QueueRaw(parts...)
	a.delivered = slices.ContainsFunc(parts, func(p frame.Part) bool { return p.Source != nil })
	return nil
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
func (c *conn) handle(q *request) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			q.panicked(p)
			a = answer{err: intake.ErrPanic}
		}
	}()
	alloc, err := guard.Check(q.api.key, q.version, q.body, guard.LimitsFor(len(q.body)))
	if err != nil {
		return answer{err: err}
	}
	if alloc > freeDecodeBytes {
		if err := c.s.decoding.Acquire(c.ctx, alloc); err != nil {
			return answer{err: err}
		}
		defer c.s.decoding.Release(alloc)
	}
	req := kmsg.RequestForKey(q.api.key)
	req.SetVersion(q.version)
	if err := req.ReadFrom(q.body); err != nil {
		return answer{err: fmt.Errorf("%w: %s version %d: %w", errMalformed, q.api.name, q.version, err)}
	}
	resp := q.api.handle(c.s, c.ctx, &q.peer, req)
	if resp == nil && q.refused != nil {
		return answer{err: q.refused}
	}
	if resp == nil {
		return answer{err: fmt.Errorf("%w to %s version %d", errUnanswered, q.api.name, q.version)}
	}
	resp.SetVersion(q.version)
	a.head = resp.AppendTo(nil)
	q.recycle()
	return a
}

// flush writes what is queued. held says that it holds memory of the node's for
// answers until it is written, other than a delivery, which sees to that itself.
// The answers behind it may hold memory of the node's for Fetches meanwhile.
func (c *conn) flush(held bool) (err error) {
	defer intake.Survive(c.log, &err, "at", "writing answers")
	n := c.w.Queued()
	if n == 0 {
		return nil
	}
	c.out.Begin(n, func() bool {
		return held && c.s.opt.Answers.Waiting() > 0 || c.unsent.waitedFor(&c.s.fetches)
	})
	defer func() { err = c.out.Taken(err) }()
	if err := c.out.SetWriteDeadline(delivery.Deadline(c.s.opt.WriteTimeout, n)); err != nil {
		return err
	}
	if err = c.w.Flush(); err == nil {
		c.s.meter.Wrote(n)
	}
	return err
}
