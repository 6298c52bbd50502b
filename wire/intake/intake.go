// Package intake holds the peers of connections to a pace while their requests
// come in, and while answers go out that hold memory: what was taken for them is
// not held for long, and for less while others wait for it. Every protocol's
// connections read through it.
package intake

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/flotilla-log/flotilla/broker"
)

const (
	// SmallBytes is up to where requests have memory of their own: they never
	// wait for large ones, which come slowly and may not come at all.
	SmallBytes = 64 << 10

	// ConnectionShare is which part of a node's budget for requests one connection
	// may hold, if nothing else is set.
	ConnectionShare = 8

	// minBytesPerSecond is the slowest that a request may come in.
	minBytesPerSecond = 256 << 10

	// While others wait for the memory that a request on its way in was given, or
	// an answer on its way out, it has to come, or be taken, at
	// contendedBytesPerSecond, after a grace. A peer that is slower is cut off.
	contendedGrace          = time.Second
	contendedBytesPerSecond = 8 << 20

	// check is how often a peer that sends or takes nothing is looked at.
	check = 250 * time.Millisecond
)

// ErrSlow reports a peer that held memory for a request which it did not send,
// while others waited for it.
var ErrSlow = errors.New("intake: a request came too slowly, and others wait for the memory that was kept for it")

// Quiet reports whether err is how connections end when nothing is wrong, or when
// what is wrong is logged already.
func Quiet(err error) bool {
	return errors.Is(err, ErrPanic) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Reader reads a connection. Only its reading goroutine uses it.
type Reader struct {
	nc      net.Conn
	stopped func() bool   // it is to read no more
	grace   time.Duration // for a request, beside the time that its bytes may take

	from *broker.Budget // that a request on its way in holds; nil: none is
	fair time.Time      // until then it may hold up others
	end  time.Time      // until then it has to be there
}

// NewReader returns a Reader of nc. Who makes stopped say so wakes the Reader up
// by a read deadline in the past, after that.
func NewReader(nc net.Conn, grace time.Duration, stopped func() bool) *Reader {
	return &Reader{nc: nc, grace: grace, stopped: stopped}
}

// Budget returns which of two budgets a request of n bytes is counted in.
func Budget(n int64, small, large *broker.Budget) *broker.Budget {
	if n <= SmallBytes {
		return small
	}
	return large
}

// fairTime is how long n bytes may hold up others.
func fairTime(n int64) time.Duration {
	return contendedGrace + time.Duration(n)*time.Second/contendedBytesPerSecond
}

// Idle begins the time between requests: the next one has to begin by a
// deadline. It returns net.ErrClosed if the Reader is stopped.
func (r *Reader) Idle(until time.Time) error {
	r.from = nil
	if err := r.nc.SetReadDeadline(until); err != nil {
		return err
	}
	if r.stopped() { // its deadline may have been set before ours
		return net.ErrClosed
	}
	return nil
}

// Expect begins the time of a request of n bytes, for which from was taken; the
// time that it waited for that is not the peer's.
func (r *Reader) Expect(from *broker.Budget, n int64) error {
	now := time.Now()
	r.from = from
	r.fair = now.Add(fairTime(n))
	r.end = now.Add(r.grace + time.Duration(n)*time.Second/minBytesPerSecond)
	return r.extend(now)
}

// extend sets the deadline of the next look.
func (r *Reader) extend(now time.Time) error {
	next := now.Add(check)
	if next.After(r.end) {
		next = r.end
	}
	if err := r.nc.SetReadDeadline(next); err != nil {
		return err
	}
	if r.stopped() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Read implements io.Reader. While a request is on its way in, a deadline that
// passes is the time to look whether it may take longer: the error is then
// os.ErrDeadlineExceeded, or ErrSlow.
func (r *Reader) Read(b []byte) (int, error) {
	for {
		n, err := r.nc.Read(b)
		if n > 0 || r.from == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := r.late(err); err != nil {
			return 0, err
		}
	}
}

// late looks whether a request whose deadline has passed, with err, may take longer, and
// sets the deadline of the next look; or returns how the reading ends.
func (r *Reader) late(err error) error {
	now := time.Now()
	switch {
	case r.stopped() || !now.Before(r.end):
		return err
	case now.After(r.fair) && r.from.Waiting() > 0:
		return ErrSlow
	}
	return r.extend(now)
}
