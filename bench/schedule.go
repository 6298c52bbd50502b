package bench

import (
	"math"
	"time"
)

// window is the part of a run that is measured, [from, until) since the run
// began.
type window struct{ from, until time.Duration }

// endless is the end of a window that ends with a number of records.
const endless = time.Duration(math.MaxInt64)

func (w window) holds(at time.Duration) bool { return w.from <= at && at < w.until }

// schedule says when the records of one sender of an open loop are due. Senders
// take turns, so that together they are as even as one.
type schedule struct {
	perSecond float64 // of all senders together
	senders   int
	sender    int // in [0, senders)
}

// due returns when the sender's i-th record, from 0, is due since the run
// began. It is computed from i alone: rounding does not add up.
func (s schedule) due(i int64) time.Duration {
	n := float64(i)*float64(s.senders) + float64(s.sender)
	return time.Duration(n / s.perSecond * float64(time.Second))
}

// share returns how much of total falls to one of so many: all shares together
// are total, and none differs from another by more than 1.
func share[T int | int64](total T, of, i int) T {
	s := total / T(of)
	if T(i) < total%T(of) {
		s++
	}
	return s
}
