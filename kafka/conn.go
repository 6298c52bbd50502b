package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
	"github.com/flotilla-log/flotilla/kafka/guard"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
)

const (
	// lengthBytes is the size of the length that precedes each request and
	// response, and does not count itself.
	lengthBytes = 4

	// fixedHeaderBytes is a request header's part that all versions share: key,
	// version, correlation id.
	fixedHeaderBytes = 8

	// firstReadBytes is what a request may make the server allocate before the
	// first of its bytes has arrived. From there the buffer grows as it fills.
	firstReadBytes = 64 << 10

	// hurryBytes is from where on a request that waits for its turn makes the
	// fetches before it answer with what there is: it holds memory meanwhile.
	hurryBytes = 1 << 10
)

var (
	// errTooLarge reports a length that no request has.
	errTooLarge = errors.New("kafka: request too large")
	// errUnsupported reports a key or a version that is not served.
	errUnsupported = errors.New("kafka: unsupported request")
	// errMalformed reports a body that is not what its key and version say.
	errMalformed = errors.New("kafka: malformed request")
	// errIdle reports a connection on which no request began in time.
	errIdle = fmt.Errorf("kafka: idle: %w", os.ErrDeadlineExceeded)
)

// conn is one connection.
type conn struct {
	s   *Server
	nc  net.Conn
	via broker.Listener
	log *slog.Logger

	host string // the peer's, as Kafka tells it of members

	in  *intake.Reader // the reading goroutine's
	r   *arrivals      // of in
	w   *frame.Writer
	ctx context.Context // ends when the connection does

	asked bool // of the reading goroutine: a request has begun, whose answer may be unread

	cancel   context.CancelFunc
	inflight chan struct{}  // a token per unanswered request
	order    chan *request  // as many as may be in flight, in the order of arrival
	taking   *broker.Budget // memory that requests hold until they are answered
	fetches  *broker.Budget // memory that Fetches hold for their partitions
	unsent   unsentFetches
	polls    delivery.Polls
	before   atomic.Int32 // requests that others are not started behind: see api.inTurn
	hurries  atomic.Int64 // how often the Fetches were to answer with what there is

	// What is in order is answered by the writer. It is no goroutine of its own: one is
	// there while there is something to answer, or the reading one does it; see enqueue.
	writing atomic.Bool    // there is a writer
	writers sync.WaitGroup // those that are goroutines of their own

	out        *intake.Outgoing
	deliveries delivery.Peer
	turn       atomic.Pointer[request] // whose answer is next
	queued     []*request              // the writer's: in w
	failed     error                   // the writer's: the first error, after which nothing is written
	broken     error                   // why the writer ended the connection, once it has ended
	turnedAway atomic.Bool             // the writer ended it for what a request was: see turnAway
}

func newConn(s *Server, nc net.Conn, read []byte, via broker.Listener) *conn {
	remote := nc.RemoteAddr().String()
	c := &conn{
		s: s, nc: nc, via: via, host: hostOf(remote),
		log:      s.log.With("remote", remote),
		w:        frame.NewWriter(nc),
		inflight: make(chan struct{}, s.opt.MaxInFlight),
		order:    make(chan *request, s.opt.MaxInFlight),
		taking:   broker.NewBudget(s.opt.MaxInFlightBytes),
		fetches:  broker.NewBudget(s.fetches.small.Limit() / intake.ConnectionShare),
	}
	c.in = intake.NewReader(nc, s.opt.ArrivalTimeout, func() bool { return s.ctx.Err() != nil || c.turnedAway.Load() })
	c.r = newArrivals(c.in, read)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.out = intake.NewOutgoing(nc)
	c.deliveries = delivery.Peer{
		Conn: c.out, Ctx: c.ctx, Broker: s.broker, Answers: s.opt.Answers, WriteTimeout: s.opt.WriteTimeout, Hold: s.opt.PushHold, Pause: c.out.Pause,
	}
	return c
}

// serve runs the connection to its end, and says what that was.
func (c *conn) serve() broker.Ending {
	defer c.nc.Close()
	return c.finish(c.read())
}

// finish ends the connection, whose reading has ended with err, as serve does.
func (c *conn) finish(err error) broker.Ending {
	if c.turnedAway.Load() {
		err = context.Canceled // why is the writer's to say
	}
	if err != nil && !intake.Quiet(err) {
		c.log.Info("connection closed", "err", err)
	}
	ended := ending(err)
	switch {
	case c.s.ctx.Err() != nil:
		ended = broker.EndedByListener
	case intake.Gone(err):
		c.cancel() // nobody waits for answers
	default:
		// What came before may have taken effect. It is answered, in its order.
		defer time.AfterFunc(intake.LastAnswersTimeout, c.abort).Stop()
	}
	c.polls.End()
	c.writers.Wait()
	// Of an idle connection there is nothing to read, and its end is no reset.
	arrived := c.ctx.Err() == nil && c.asked && !errors.Is(err, errIdle)
	if (arrived || c.turnedAway.Load()) && ended != broker.EndedByListener {
		intake.Linger(c.nc)
	}
	c.cancel()
	if why := c.broken; why != nil && ended != broker.EndedByListener {
		return ending(why)
	}
	return ended
}

// ending says why a connection ended whose reading ended with err.
func ending(err error) broker.Ending {
	switch {
	case errors.Is(err, intake.ErrPanic):
		return broker.EndedByPanic
	case errors.Is(err, os.ErrDeadlineExceeded):
		return broker.EndedByTimeout
	case errors.Is(err, errTooLarge):
		return broker.EndedTooLarge
	case errors.Is(err, guard.ErrMalformed), errors.Is(err, guard.ErrTooLarge), errors.Is(err, errMalformed), errors.Is(err, errUnsupported):
		return broker.EndedMalformed
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return broker.EndedByPeer
	}
	return broker.EndedByError
}

// drain makes the connection stop reading; what is under way is answered.
func (c *conn) drain() {
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	c.polls.End()
}

func (c *conn) abort() {
	c.cancel()
	c.polls.End()
	_ = c.nc.Close()
}

// read starts requests until the stream ends.
func (c *conn) read() (err error) {
	defer c.survived(&err, "reading requests", nil)
	for {
		// Idle connections wait here, with little memory.
		if err := c.await(); err != nil {
			return err
		}
		q, err := c.readRequest()
		if err != nil {
			return err
		}
		c.enqueue(q)
	}
}

// await returns when a request has begun that there is room for.
func (c *conn) await() error {
	if err := c.awaitRoom(); err != nil {
		return err
	}
	err := c.r.wait()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errIdle
	}
	return err
}

// awaitRoom returns when the answers are few enough that another request may be read.
func (c *conn) awaitRoom() error {
	select {
	case c.inflight <- struct{}{}:
	case <-c.ctx.Done():
		return c.ctx.Err()
	case <-c.s.ctx.Done():
		return net.ErrClosed
	}
	return c.in.Idle(time.Now().Add(c.s.opt.IdleTimeout))
}

// enqueue has a request answered that was begun, after those before it. If there are
// none, one of a brief api is answered before anything else is read: that wakes nobody,
// and a connection on which nothing else comes has no second stack.
func (c *conn) enqueue(q *request) {
	c.order <- q // has room: see inflight
	switch {
	case !c.writing.CompareAndSwap(false, true): // the writer of those before it finds it
	case q.api.brief && c.r.buffered() == 0:
		c.write(true)
	default:
		c.writers.Go(func() { c.write(false) })
	}
}

// readRequest reads one request and begins it.
func (c *conn) readRequest() (*request, error) {
	var length [lengthBytes]byte
	if _, err := io.ReadFull(c.r, length[:]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(length[:])))
	if size < fixedHeaderBytes || size > c.s.opt.MaxRequestBytes {
		return nil, fmt.Errorf("%w: a length of %d, want %d to %d (request.bytes.max)", errTooLarge, size, fixedHeaderBytes, c.s.opt.MaxRequestBytes)
	}
	whole := c.r.buffered() >= size // nothing more is read of it: there is no pace to hold it to
	if !whole {
		if err := c.in.Idle(time.Now().Add(c.s.opt.ArrivalTimeout)); err != nil {
			return nil, err
		}
	}
	var head [fixedHeaderBytes]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, noEOF(err)
	}
	q, err := c.newRequest(head)
	if err != nil {
		return nil, err
	}
	q.inTurn = q.api.inTurn && c.before.Load() > 0
	if (q.api.start == nil || q.inTurn) && size > hurryBytes {
		c.hurry() // before it waits for memory, which a request before it may hold
	}
	q.hurried = c.hurries.Load()
	if err := c.claim(q, int64(size)); err != nil {
		return nil, err
	}
	if !whole {
		if err := c.in.Expect(q.from, q.held); err != nil {
			q.letGo()
			return nil, err
		}
	}
	q.began = time.Now() // for one that is refused before it is whole
	c.s.meter.Begin(lengthBytes + size)
	begun := false
	defer func() { // after an error, and after a panic
		if !begun {
			c.s.meter.Done(q.api.place, time.Since(q.began))
			q.letGo()
		}
	}()
	if err := c.readRest(q, head, size); err != nil {
		return nil, err
	}
	if err := c.begin(q); err != nil {
		return nil, err
	}
	begun, c.asked = true, true
	if q.inTurn || !q.api.inTurn {
		q.isBefore = true
		c.before.Add(1)
	}
	return q, nil
}

// newRequest returns the request that begins with head, if it is one that is
// answered.
func (c *conn) newRequest(head [fixedHeaderBytes]byte) (*request, error) {
	key := int16(binary.BigEndian.Uint16(head[:]))
	q := &request{conn: c, version: int16(binary.BigEndian.Uint16(head[2:])), correlationID: int32(binary.BigEndian.Uint32(head[4:])), ready: make(chan struct{})}
	q.peer.conn, q.peer.req = c, q
	q.api = c.s.apis.find(key)
	switch {
	case q.api == nil:
		return nil, fmt.Errorf("%w: key %d (%s), which is not served; see docs/kafka.md", errUnsupported, key, kmsg.NameForKey(key))
	case !q.served() && key != int16(kmsg.ApiVersions): // which answers in any version
		return nil, fmt.Errorf("%w: %s version %d, want %d to %d", errUnsupported, q.api.name, q.version, q.api.min, q.api.max)
	}
	return q, nil
}

// begin begins a request that is all there.
func (c *conn) begin(q *request) error {
	if !q.served() {
		q.began, q.answered = time.Now(), true
		q.send(answer{head: q.newerVersions()})
		return nil
	}
	if err := q.parseHeader(); err != nil {
		return err
	}
	q.began = time.Now()
	if q.api.start == nil || q.inTurn {
		return nil
	}
	return c.start(q)
}

// hurry makes the Fetches before the next request answer with what there is, once
// they are started.
func (c *conn) hurry() {
	c.hurries.Add(1)
	c.polls.Hurry()
}

// start starts an immediate request. If that panics, the request is answered
// with the connection's end.
func (c *conn) start(q *request) error {
	defer q.survive()
	return q.api.start(c, q)
}

// claim takes the memory of a request of n bytes.
func (c *conn) claim(q *request, n int64) error {
	q.from = intake.Budget(n, c.s.opt.SmallRequests, c.s.opt.Requests)
	if err := c.taking.Acquire(c.ctx, n); err != nil {
		return err
	}
	if err := q.from.Acquire(c.ctx, n); err != nil {
		c.taking.Release(n)
		return err
	}
	q.held = n
	return nil
}

// readRest reads a request of n bytes, of which head has come, into a buffer that
// starts small and grows as they come, so that a sender pays with bytes for every
// byte allocated.
func (c *conn) readRest(q *request, head [fixedHeaderBytes]byte, n int) error {
	buf := append(c.s.buffers.Take(n), head[:]...)
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := frame.Grow(buf, n, firstReadBytes)
			c.s.buffers.Give(buf)
			buf = grown
		}
		m, err := io.ReadFull(c.r, buf[len(buf):min(n, cap(buf))])
		buf = buf[:len(buf)+m]
		if err != nil {
			return noEOF(err)
		}
	}
	q.raw = buf
	return nil
}

// parseHeader reads the header of a request that is all there.
func (q *request) parseHeader() error {
	h, err := guard.ParseHeader(q.raw, guard.LimitsFor(len(q.raw)))
	if err != nil {
		return err
	}
	q.peer.clientID, q.body = string(h.ClientID), q.raw[h.BodyAt:]
	return nil
}

// noEOF says that a stream which ends here ends too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
