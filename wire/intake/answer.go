package intake

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

// ErrUntaken reports a peer that did not take an answer which held memory, while
// others waited for that.
var ErrUntaken = errors.New("intake: an answer was taken too slowly, and others wait for the memory that it holds")

// Outgoing is an answer that holds memory until its peer has taken it. While
// others wait for that memory, it has to be taken at the pace at which a request
// has to come; alone, the peer has the time that the connection's write deadline
// gives it.
type Outgoing struct {
	nc   net.Conn
	from *broker.Budget

	mu    sync.Mutex
	timer *time.Timer // of the next look
	taken bool
	slow  bool
}

// NewOutgoing begins the time of n bytes that are about to be written to nc, and
// hold memory of from. Until Taken is called nobody else sets nc's write
// deadline.
func NewOutgoing(nc net.Conn, from *broker.Budget, n int64) *Outgoing {
	o := &Outgoing{nc: nc, from: from}
	o.mu.Lock() // look reads timer
	defer o.mu.Unlock()
	o.timer = time.AfterFunc(fairTime(n), o.look)
	return o
}

// look ends the writing if others wait, and looks again later if none does.
func (o *Outgoing) look() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.taken:
	case o.from.Waiting() > 0:
		o.slow = true
		_ = o.nc.SetWriteDeadline(time.Unix(1, 0)) // of a closed connection there is nothing to end
	default:
		o.timer.Reset(check)
	}
}

// Taken ends the time of what was written with err, and returns the error that it
// ended with: ErrUntaken if the peer was too slow.
func (o *Outgoing) Taken(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken = true
	o.timer.Stop()
	if err != nil && o.slow {
		return ErrUntaken
	}
	return err
}
