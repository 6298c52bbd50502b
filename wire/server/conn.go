package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

// conn is one connection.
type conn struct {
	s   *Server
	nc  net.Conn
	via broker.Listener
	r   *frame.Reader
	w   *frame.Writer
	ctx context.Context // ends when the connection does

	clientID string // as it was said in the Hello

	cancel   context.CancelFunc
	polls    delivery.Polls
	inflight chan struct{}  // a token per unanswered request
	answers  chan answer    // as many as may be in flight: sending never blocks
	unsent   atomic.Int32   // answers with a body that are not settled
	in       *intake.Reader // the reading goroutine's
	taking   *broker.Budget // memory that requests hold until they are answered
	requests sync.WaitGroup
	streams  *streams
	peer     delivery.Peer
	log      *slog.Logger

	unacknowledged atomic.Pointer[errcode.Error] // see failUnacknowledged

	breaking sync.Once
	broken   error // why it was broken off; nil: it was not
}

// answer is one response on its way out.
type answer struct {
	kind   frame.Kind
	flags  frame.Flags
	id     uint32
	header proto.Message
	body   *delivery.Delivery // the payload; may be nil
	opens  *stream            // begins once this is queued to be written; may be nil
	err    error              // ends the connection instead
}

func newConn(s *Server, nc net.Conn, via broker.Listener) *conn {
	c := &conn{
		s:        s,
		nc:       nc,
		via:      via,
		inflight: make(chan struct{}, s.opt.MaxInFlight),
		answers:  make(chan answer, s.opt.MaxInFlight),
		taking:   broker.NewBudget(s.opt.MaxInFlightBytes),
		log:      s.opt.Log.With("remote", nc.RemoteAddr().String()),
	}
	c.in = intake.NewReader(nc, s.opt.HandshakeTimeout, func() bool { return s.ctx.Err() != nil || c.unacknowledged.Load() != nil })
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.streams = newStreams(c)
	c.peer = delivery.Peer{
		Conn: nc, Ctx: c.ctx, Broker: s.opt.Broker, Answers: s.opt.Answers, WriteTimeout: s.opt.WriteTimeout, Hold: s.opt.PushHold,
	}
	return c
}

// serve runs the connection, whose magic is read, to its end, and says what that
// was.
func (c *conn) serve() broker.Ending {
	if err := c.handshake(); err != nil {
		if errors.Is(err, intake.ErrPanic) {
			return broker.EndedByPanic
		}
		if !intake.Quiet(err) {
			c.log.Info("connection refused", "err", err)
		}
		if !gone(err) && !errors.Is(err, os.ErrDeadlineExceeded) { // it was told why
			intake.Linger(c.nc)
		}
		return broker.EndedHandshake
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	err := c.read()
	if e := c.unacknowledged.Load(); e != nil {
		err = e
	}
	if err != nil && !intake.Quiet(err) {
		c.log.Info("connection closed", "err", err)
	}
	ended := ending(err)
	switch {
	case c.s.ctx.Err() != nil:
		ended = broker.EndedByListener
	case gone(err):
		c.cancel() // nobody waits for answers
	default:
		defer time.AfterFunc(intake.LastAnswersTimeout, c.abort).Stop()
	}
	lingers := c.lastAnswers(err)
	<-written
	if lingers && c.ctx.Err() == nil && ended != broker.EndedByListener {
		intake.Linger(c.nc)
	}
	c.cancel()
	c.breaking.Do(func() {}) // from here on nothing breaks it off
	if c.broken != nil && ended != broker.EndedByListener {
		return ending(c.broken)
	}
	return ended
}

// abort ends the connection, whatever is under way.
func (c *conn) abort() {
	c.cancel()
	c.polls.End()
	_ = c.nc.Close()
}

// breakOff ends the connection at once, unless it is over: err says why.
func (c *conn) breakOff(err error) {
	c.breaking.Do(func() {
		if c.ctx.Err() == nil { // else it is over, and this is what comes of it
			c.broken = err
			if !intake.Quiet(err) {
				c.log.Info("connection closed", "err", err)
			}
		}
		c.abort()
		c.streams.end()
	})
}

// handshake is held to the deadline that was set for the magic.
func (c *conn) handshake() (err error) {
	defer intake.Survive(c.log, &err, "at", "shaking hands")
	c.r, c.w = frame.NewReader(c.in), frame.NewWriter(c.nc)
	hello, err := frame.Accept(c.r, c.w, c.s.hello)
	if err != nil {
		return err
	}
	c.clientID = hello.ClientId
	return c.nc.SetDeadline(time.Time{})
}

// read starts requests until the stream ends.
func (c *conn) read() (err error) {
	defer intake.Survive(c.log, &err, "at", "reading requests")
	for {
		select {
		case c.inflight <- struct{}{}:
		case <-c.ctx.Done():
			return c.ctx.Err()
		case <-c.s.ctx.Done():
			return net.ErrClosed
		}
		if c.s.ctx.Err() != nil {
			return net.ErrClosed
		}
		if err := c.in.Idle(time.Now().Add(c.s.opt.IdleTimeout)); err != nil {
			return err
		}
		p, err := c.r.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errIdle
		case err != nil:
			return err
		case p.Flags != 0:
			return errResponse
		}
		if err := c.request(p); err != nil {
			return err
		}
	}
}

// freeHeaderBytes is the size of a header that is not counted as memory held.
const freeHeaderBytes = 16 << 10

// request reads the rest of one request and starts it.
func (c *conn) request(p frame.Prefix) error {
	size := int64(p.HeaderBytes + p.PayloadBytes)
	c.requests.Add(1)
	q := &request{conn: c, Prefix: p, from: intake.Budget(size, c.s.opt.SmallRequests, c.s.opt.Requests)}
	began := false
	defer func() { // after an error, and after a panic
		if began || !q.sent.CompareAndSwap(false, true) {
			return
		}
		if !q.began.IsZero() {
			c.s.meter.Done(0, time.Since(q.began))
		}
		q.letGo()
		c.requests.Done()
	}()
	if p.HeaderBytes > freeHeaderBytes || p.PayloadBytes > 0 {
		if err := c.taking.Acquire(c.ctx, size); err != nil {
			return err
		}
		if err := q.from.Acquire(c.ctx, size); err != nil {
			c.taking.Release(size)
			return err
		}
		q.held = size
	}
	if err := c.in.Expect(q.from, size); err != nil {
		return err
	}
	c.s.meter.Begin(frame.PrefixBytes + p.HeaderBytes + p.PayloadBytes)
	q.began = time.Now() // for one that is refused before it is whole
	if err := q.readAll(); err != nil {
		return err
	}
	began = true
	return nil
}

// readAll reads header and payload, and starts the request or refuses it. Its
// error is the connection's.
func (q *request) readAll() error {
	header, err := q.r.Header()
	if err != nil {
		return err
	}
	refused := q.decode(header)
	if refused == nil && q.PayloadBytes > 0 && q.Kind != frame.KindProduce {
		refused = errcode.Errorf(errcode.InvalidRequest, "a %s request with a payload", q.Kind)
	}
	if refused != nil && q.Kind == frame.KindCredit {
		return refused // it has no response
	}
	if refused != nil {
		q.fail(refused)
		return nil
	}
	if q.PayloadBytes > 0 {
		if q.payload, err = q.r.Payload(q.s.buffers.Take(q.PayloadBytes)); err != nil {
			return err
		}
	}
	q.began = time.Now()
	q.start()
	return nil
}

// write writes answers, and what streams deliver, until there are no more
// answers to come. After an error it only gives back what answers hold.
func (c *conn) write() {
	broken := false
	note := func(err error) {
		if err != nil && !broken {
			broken = true
			c.breakOff(err)
		}
	}
	for {
		var batch []answer
		select {
		case a, ok := <-c.answers:
			if !ok {
				return
			}
			batch = append(batch, a)
		case <-c.streams.wake:
		}
		if !broken {
			batch = c.gather(batch)
			note(c.writeAnswers(batch))
		}
		for _, a := range batch {
			note(c.settle(a))
		}
		if !broken {
			note(c.writeDelivery())
		}
	}
}

// gather adds to batch what else is there by now.
func (c *conn) gather(batch []answer) []answer {
	for len(batch) < cap(c.answers) {
		select {
		case a, ok := <-c.answers:
			if !ok {
				return batch
			}
			batch = append(batch, a)
		default:
			return batch
		}
	}
	return batch
}

// writeAnswers writes batch.
func (c *conn) writeAnswers(batch []answer) (err error) {
	defer intake.Survive(c.log, &err, "at", "writing answers")
	for _, a := range batch {
		if a.err != nil {
			return errors.Join(a.err, c.flush()) // the answers before it
		}
		if a.header == nil {
			continue // it has no response
		}
		var payload []frame.Part
		var err error
		if a.body != nil {
			payload, err = payloadOf(a.body)
		}
		if err == nil {
			err = c.w.Queue(a.kind, a.flags, a.id, a.header, payload...)
		}
		if err == nil && a.opens != nil {
			c.streams.begin(a.opens)
		}
		if err == nil && len(payload) > 0 && payload[0].Source != nil {
			// A delivery that holds memory is written before another is made ready,
			// which may wait for that very memory.
			if err := c.flush(); err != nil {
				return err
			}
		}
		if err != nil {
			e := frame.NewError(errcode.UnknownServer, err.Error())
			err = c.w.Queue(a.kind, frame.FlagResponse|frame.FlagError, a.id, e)
		}
		if err != nil {
			return err
		}
	}
	return c.flush()
}

// payloadOf returns what to write of a delivery.
func payloadOf(d *delivery.Delivery) ([]frame.Part, error) {
	if d.Len() == 0 {
		return nil, nil
	}
	whole, err := d.Prepare()
	switch {
	case err != nil:
		return nil, err
	case whole != nil:
		return []frame.Part{{Bytes: whole}}, nil
	}
	return []frame.Part{{Source: d}}, nil
}

// writeDelivery writes one delivery, if there is any.
func (c *conn) writeDelivery() (err error) {
	defer intake.Survive(c.log, &err, "at", "delivering")
	header, d := c.streams.next()
	if d == nil {
		return nil
	}
	defer d.Release()
	payload, err := payloadOf(d)
	if err == nil {
		err = c.w.Queue(frame.KindDeliver, 0, 0, header, payload...)
	}
	if err != nil {
		return err // what was taken from the stream must not be missing from it
	}
	return c.flush()
}

func (c *conn) flush() error {
	queued := c.w.Queued()
	if queued == 0 {
		return nil
	}
	if err := c.nc.SetWriteDeadline(delivery.Deadline(c.s.opt.WriteTimeout, queued)); err != nil {
		return err
	}
	err := c.w.Flush()
	if err == nil {
		c.s.meter.Wrote(queued)
	}
	return err
}

// settle gives back an answer's place and what its payload holds.
func (c *conn) settle(a answer) (err error) {
	defer intake.Survive(c.log, &err, "at", "giving back an answer")
	defer func() { <-c.inflight }()
	if a.body != nil {
		defer c.unsent.Add(-1)
		a.body.Release()
	}
	return nil
}

// send queues the answer of one request, and gives back what the request held.
// It never blocks. After a panic it only gives back what the answer holds.
func (q *request) send(a answer) {
	if !q.sent.CompareAndSwap(false, true) {
		if a.body != nil {
			a.body.Release()
		}
		return
	}
	before := int32(0) // of it, answers that hold something
	if a.body != nil {
		before = q.unsent.Add(1) - 1
	}
	defer func() { // serve waits for it, whatever becomes of the rest
		if p := recover(); p != nil {
			q.panicked(p)
			a = answer{err: intake.ErrPanic, body: a.body}
		}
		q.answers <- a
		q.requests.Done()
	}()
	q.letGo()
	q.s.meter.Done(q.place(), time.Since(q.began))
	if before > 0 {
		// Its turn may be long in coming: it holds no memory meanwhile.
		a.body.LetGo()
	}
}

// letGo gives back the memory that the request was counted with.
func (q *request) letGo() {
	q.payload = nil
	if q.held > 0 {
		q.from.Release(q.held)
		q.taking.Release(q.held)
		q.held = 0
	}
}
