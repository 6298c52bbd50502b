package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// session is one connection of a link.
type session struct {
	*link
	nc    net.Conn
	r     *frame.Reader
	w     *frame.Writer
	hello *pb.ServerHello

	probed time.Time // since it was silent; for its own goroutine
}

// connect dials and shakes hands.
func (l *link) connect(ctx context.Context) (*session, error) {
	dialCtx, cancel := context.WithTimeout(ctx, l.c.cfg.DialTimeout)
	defer cancel()
	nc, err := l.c.cfg.Dial(dialCtx, "tcp", l.addr)
	if err != nil {
		return nil, l.broken(ctx, err)
	}
	stop := context.AfterFunc(dialCtx, func() { nc.Close() })
	defer stop()
	s := &session{link: l, nc: nc, r: frame.NewReader(nc), w: frame.NewWriter(nc)}
	s.hello, err = frame.Connect(s.r, s.w, &pb.ClientHello{
		ClientId:        l.c.cfg.ClientID,
		SoftwareName:    softwareName,
		SoftwareVersion: softwareVersion(),
		ClusterId:       l.c.cfg.ClusterID,
	})
	if err == nil {
		l.c.noteFrameBytes(int64(s.hello.MaxFrameBytes))
	}
	if err == nil && !stop() {
		err = dialCtx.Err() // nc was closed as the handshake ended
	}
	if err != nil {
		nc.Close()
		return nil, l.broken(ctx, err)
	}
	return s, nil
}

// softwareVersion is the version of the module, reduced to what a Hello may
// carry.
func softwareVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var b []byte
	for _, c := range []byte(info.Main.Version) {
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '-' {
			b = append(b, c)
		}
	}
	return string(b[:min(len(b), 64)])
}

// noteFrameBytes lowers the size of requests to what a server takes.
func (c *Client) noteFrameBytes(n int64) {
	for {
		old := c.frameBytes.Load()
		if n == 0 || old != 0 && old <= n || c.frameBytes.CompareAndSwap(old, n) {
			return
		}
	}
}

// broken wraps the error of a connection: ErrClosed if ctx has ended.
func (l *link) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ErrClosed
	}
	return fmt.Errorf("%w: %s: %w", ErrConnection, l.addr, err)
}

// serve writes calls and reads answers until something fails or ctx ends. When
// it returns, the connection is closed and no payload is in use any more.
func (s *session) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.nc.Close() }) // also ends a Write
	defer stop()
	s.lastWrite = s.c.cfg.Now()
	s.lastRead.Store(s.lastWrite.UnixNano())
	s.mu.Lock()
	s.session = s
	s.mu.Unlock()
	readEnded := make(chan error, 1)
	go func() { readEnded <- s.read() }()
	timer := time.NewTimer(0)
	defer timer.Stop()

	err := func() error {
		for {
			if err := s.write(); err != nil {
				return err
			}
			next, err := s.check(s.c.cfg.Now())
			if err != nil {
				return err
			}
			timer.Reset(next)
			select {
			case <-s.wake:
			case <-timer.C:
			case err := <-readEnded:
				readEnded <- err // for the join below
				return err
			case <-ctx.Done():
				return ErrClosed
			}
		}
	}()
	s.nc.Close()
	<-readEnded
	s.mu.Lock()
	verdict := s.verdict
	s.session, s.verdict = nil, nil
	s.mu.Unlock()
	if verdict != nil && ctx.Err() == nil {
		return verdict
	}
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrProtocol) {
		return err
	}
	return s.broken(ctx, err)
}

// write sends what is queued.
func (s *session) write() error {
	s.mu.Lock()
	var unknown []*call
	calls := s.queue[:0]
	for _, cl := range s.queue {
		if cl.feature != "" && !slices.Contains(s.hello.Features, cl.feature) {
			unknown = append(unknown, cl)
		} else {
			calls = append(calls, cl)
		}
	}
	s.queue = nil
	ids := make([]uint32, len(calls))
	now := s.c.cfg.Now()
	for i, cl := range calls {
		cl.written = now
		if cl.resp != nil {
			ids[i] = s.registerLocked(cl)
		}
		if cl.opens != nil {
			if s.pushes == nil {
				s.pushes = make(map[uint32]*push)
			}
			s.pushes[cl.opens.id] = cl.opens
		}
		if cl.closes != 0 {
			delete(s.pushes, cl.closes)
		}
	}
	s.mu.Unlock()
	for _, cl := range unknown {
		s.finish(cl, answer{err: errNoFeature})
	}
	if len(calls) == 0 {
		return nil
	}
	s.lastWrite = now

	var unanswered []*call
	for i, cl := range calls {
		if err := s.w.Queue(cl.kind, 0, ids[i], cl.req, cl.payload...); err != nil {
			s.forget(ids[i])
			s.finish(cl, answer{err: fmt.Errorf("client: %w", err)})
			continue
		}
		s.tellSent(cl)
		if cl.resp == nil {
			unanswered = append(unanswered, cl)
		}
	}
	// The deadline is the socket's, not one of Config.Now's clock.
	s.nc.SetWriteDeadline(time.Now().Add(s.c.cfg.RequestTimeout))
	err := s.w.Flush()
	for _, cl := range unanswered {
		if err != nil {
			s.finish(cl, answer{sent: true, err: s.broken(s.c.ctx, err)})
		} else {
			s.finish(cl, answer{sent: true})
		}
	}
	return err
}

// registerLocked gives a call a correlation id that no pending one has.
func (s *session) registerLocked(cl *call) uint32 {
	if s.pending == nil {
		s.pending = make(map[uint32]*call)
	}
	for {
		s.nextID++
		if _, taken := s.pending[s.nextID]; !taken && s.nextID != 0 {
			s.pending[s.nextID] = cl
			return s.nextID
		}
	}
}

// forget removes and returns the call with a correlation id, nil if none has.
func (s *session) forget(id uint32) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	cl := s.pending[id]
	delete(s.pending, id)
	return cl
}

// check holds pending calls against their deadlines, probes a silent
// connection, and returns when to look again.
func (s *session) check(now time.Time) (time.Duration, error) {
	next := time.Duration(math.MaxInt64)
	s.mu.Lock()
	for _, cl := range s.pending {
		next = min(next, cl.deadline.Sub(now))
	}
	s.mu.Unlock()
	if next <= 0 {
		return 0, fmt.Errorf("%w: %s", ErrTimeout, s.addr)
	}
	// A server that pushes may hear nothing of us for long, while we hear of it.
	heard := time.Unix(0, s.lastRead.Load())
	if heard.Before(s.probed) {
		heard = s.probed // one probe for each silence
	}
	quiet := max(now.Sub(heard), now.Sub(s.lastWrite))
	if quiet >= s.keepAlive() {
		s.lastWrite, s.probed = now, now
		s.submit(&call{kind: frame.KindPing, req: &pb.Ping{}, resp: &pb.Pong{}, done: func(answer) {}})
		quiet = 0
	}
	return min(next, s.keepAlive()-quiet), nil
}

// keepAlive is the silence after which to probe: well within what the server
// puts up with.
func (s *session) keepAlive() time.Duration {
	d := s.c.cfg.KeepAlive
	if ms := s.hello.IdleTimeoutMs; ms != 0 {
		d = min(d, max(time.Duration(ms)*time.Millisecond/2, time.Millisecond))
	}
	return d
}

// read hands answers to their calls until the connection fails.
func (s *session) read() error {
	for {
		p, err := s.r.Next()
		if err != nil {
			return err
		}
		s.lastRead.Store(s.c.cfg.Now().UnixNano())
		if p.Kind == frame.KindError {
			return s.refused()
		}
		if p.Kind == frame.KindDeliver && p.Flags == 0 {
			if err := s.pushed(); err != nil {
				return err
			}
			continue
		}
		if p.Flags&frame.FlagResponse == 0 {
			return fmt.Errorf("%w: %s sent a request, %s", ErrProtocol, s.addr, p.Kind)
		}
		cl := s.forget(p.CorrelationID)
		if cl == nil || cl.kind != p.Kind {
			err := fmt.Errorf("%w: %s sent a response to nothing, %s %d", ErrProtocol, s.addr, p.Kind, p.CorrelationID)
			if cl != nil {
				s.finish(cl, answer{sent: true, err: err})
			}
			return err
		}
		a, err := s.decode(p, cl)
		s.finish(cl, a)
		if err != nil {
			return err
		}
	}
}

// pushed hands a delivery to its stream. One that was ended here may still be
// delivered to.
func (s *session) pushed() error {
	header, err := s.r.Header()
	if err != nil {
		return err
	}
	m := new(pb.Deliver)
	if err := frame.Unmarshal(header, m); err != nil {
		return err
	}
	payload, err := s.r.Payload(nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	p := s.pushes[m.Stream]
	if m.Error != nil {
		delete(s.pushes, m.Stream)
	}
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	if hook := s.c.cfg.Hooks.Delivered; hook != nil {
		hook(DeliverEvent{Address: s.addr, Partitions: len(m.Parts), Bytes: int64(len(payload))})
	}
	return p.delivered(m, payload)
}

// decode reads the rest of the response p to cl. The second result is an error
// of the connection, which the answer carries too.
func (s *session) decode(p frame.Prefix, cl *call) (answer, error) {
	header, err := s.r.Header()
	if err == nil {
		if p.Flags&frame.FlagError != 0 {
			e := new(pb.Error)
			if err = frame.Unmarshal(header, e); err == nil {
				return answer{sent: true, err: fromServer(e)}, nil
			}
		} else {
			err = frame.Unmarshal(header, cl.resp)
		}
	}
	var payload []byte
	if err == nil {
		payload, err = s.r.Payload(nil)
	}
	if err != nil {
		return answer{sent: true, err: s.broken(s.c.ctx, err)}, err
	}
	return answer{sent: true, payload: payload}, nil
}

// refused returns the error that the server announced before closing. It has no
// code for CodeOf, since it answers no request.
func (s *session) refused() error {
	header, err := s.r.Header()
	if err != nil {
		return err
	}
	e := new(pb.Error)
	if err := frame.Unmarshal(header, e); err != nil {
		return err
	}
	return fmt.Errorf("closed by the server: %v", fromServer(e))
}
