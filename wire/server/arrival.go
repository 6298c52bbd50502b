package server

import (
	"errors"
	"os"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/delivery"
)

const (
	// smallRequestBytes is up to where requests have memory of their own: they
	// never wait for large ones, which come slowly and may not come at all.
	smallRequestBytes = 64 << 10

	// While others wait for the memory that a request on its way in was given, it
	// has to come at contendedBytesPerSecond, after a grace. A peer that is slower
	// is cut off.
	contendedGrace          = time.Second
	contendedBytesPerSecond = 8 << 20

	// arrivalCheck is how often a peer that sends nothing is looked at.
	arrivalCheck = 250 * time.Millisecond
)

// errSlowRequest reports a peer that held memory for a request which it did not
// send, while others waited for it.
var errSlowRequest = errors.New("server: a request came too slowly, and others wait for the memory that was kept for it")

// budgetFor returns the memory that a request of n bytes is counted in.
func (s *Server) budgetFor(n int64) *broker.Budget {
	if n <= smallRequestBytes {
		return s.opt.SmallRequests
	}
	return s.opt.Requests
}

// arrival is a request on its way in. It is the connection's reader's own.
type arrival struct {
	from *broker.Budget // nil: none is on its way
	fair time.Time      // until then it may hold up others
	end  time.Time      // until then it has to be there
}

// expect begins the time of a request of n bytes, for which from was taken.
func (c *conn) expect(from *broker.Budget, n int64) error {
	now := time.Now()
	c.arriving = arrival{
		from: from,
		fair: now.Add(contendedGrace + time.Duration(n)*time.Second/contendedBytesPerSecond),
		end:  delivery.Deadline(c.s.opt.HandshakeTimeout, n),
	}
	return c.extend(now)
}

// extend sets the deadline of the next look.
func (c *conn) extend(now time.Time) error {
	next := now.Add(arrivalCheck)
	if next.After(c.arriving.end) {
		next = c.arriving.end
	}
	if err := c.nc.SetReadDeadline(next); err != nil {
		return err
	}
	if c.s.ctx.Err() != nil { // Close may have set its deadline before ours
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Read implements io.Reader for the frames. While a request is on its way in, a
// deadline that passes is the time to look whether it may take longer.
func (c *conn) Read(b []byte) (int, error) {
	for {
		n, err := c.nc.Read(b)
		a := &c.arriving
		if n > 0 || a.from == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		now := time.Now()
		switch {
		case c.s.ctx.Err() != nil || !now.Before(a.end):
			return 0, err
		case now.After(a.fair) && a.from.Waiting() > 0:
			return 0, errSlowRequest
		}
		if err := c.extend(now); err != nil {
			return 0, err
		}
	}
}
