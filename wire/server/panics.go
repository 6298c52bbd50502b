package server

import "github.com/flotilla-log/flotilla/wire/intake"

// survive is deferred where a request is worked on, on whichever goroutine: a
// panic there is the end of the request's connection.
func (q *request) survive() {
	if p := recover(); p != nil {
		q.crash(p)
	}
}

// crash ends the connection for a panic where the request is worked on. If the
// request has its answer already, that may be lost.
func (q *request) crash(p any) {
	q.panicked(p)
	if q.sent.Load() {
		q.breakOff(intake.ErrPanic)
		return
	}
	q.send(answer{err: intake.ErrPanic})
}

// panicked logs a panic where the request was worked on.
func (q *request) panicked(p any) { intake.LogPanic(q.log, p, "request", q.Kind.String()) }
