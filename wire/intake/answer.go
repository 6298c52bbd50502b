package intake

import (
	"errors"
	"net"
	"sync"
	"time"
)

// ErrUntaken reports a peer that did not take an answer while others waited for
// memory that its connection held.
var ErrUntaken = errors.New("intake: an answer was taken too slowly, and others wait for the memory that it holds")

// Outgoing is what goes out on one connection. While others wait for memory that
// is held until the peer has taken it, it has to be taken at the pace at which a
// request has to come; alone, the peer has the time that the write deadline gives
// it.
//
// Between Begin and Taken, which the writing goroutine calls, nobody sets the
// connection's write deadline but by SetWriteDeadline.
type Outgoing struct {
	nc net.Conn

	mu     sync.Mutex
	timer  *time.Timer   // of the next look; nil: nothing is on its way
	look   time.Time     // the next one
	left   time.Duration // until then, while paused
	paused bool
	waited func() bool
	slow   bool // the peer was, and is given up
}

// NewOutgoing returns an Outgoing of nc, on which nothing is on its way.
func NewOutgoing(nc net.Conn) *Outgoing { return &Outgoing{nc: nc} }

// Begin begins the time of n bytes that are about to be written. waited reports
// whether others wait for memory that is held until they are taken. It is called
// on another goroutine, from time to time, and must not block.
func (o *Outgoing) Begin(n int64, waited func() bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waited, o.slow = waited, false
	o.lookLocked(fairTime(n))
}

// lookLocked looks at the peer after d.
func (o *Outgoing) lookLocked(d time.Duration) {
	o.look = time.Now().Add(d)
	o.timer = time.AfterFunc(d, o.check)
}

// check ends the writing if others wait, and looks again later if none does.
func (o *Outgoing) check() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.timer == nil || o.paused || time.Now().Before(o.look): // it was stopped too late
	case o.waited():
		o.slow = true
		_ = o.nc.SetWriteDeadline(time.Unix(1, 0)) // of a closed connection there is nothing to end
	default:
		o.lookLocked(check)
	}
}

// SetWriteDeadline sets the connection's. ErrUntaken says that the peer was too
// slow: nothing more is written to it.
func (o *Outgoing) SetWriteDeadline(t time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.slow {
		return ErrUntaken
	}
	return o.nc.SetWriteDeadline(t)
}

// Pause says that this end keeps the peer waiting, until resume is called: that
// time is not the peer's.
func (o *Outgoing) Pause() (resume func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer == nil || o.paused {
		return func() {}
	}
	o.timer.Stop()
	o.paused, o.left = true, time.Until(o.look)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.paused = false
		if !o.slow {
			o.lookLocked(max(o.left, 0))
		}
	}
}

// Taken ends the time of what was written with err, and returns the error that it
// ended with: ErrUntaken if the peer was too slow.
func (o *Outgoing) Taken(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer.Stop()
	o.timer = nil
	if err != nil && o.slow {
		return ErrUntaken
	}
	return err
}
