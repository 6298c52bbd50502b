package server

import (
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
)

// errPanic reports a panic in what serves a connection, which is logged where it
// was.
var errPanic = errors.New("server: a panic")

// logPanic logs a panic, which is the end of one connection and of no other. args
// say where it was.
func logPanic(log *slog.Logger, p any, args ...any) {
	log.Error("a panic; its connection is closed, and no other", append(args, "panic", p, "stack", string(debug.Stack()))...)
}

// survive is deferred where a connection has not said what it speaks: a panic is
// then the error.
func (s *Server) survive(nc net.Conn, err *error) {
	if p := recover(); p != nil {
		logPanic(s.opt.Log, p, "remote", nc.RemoteAddr().String())
		*err = errPanic
	}
}

// survive is deferred by the parts of a connection's goroutines: a panic is then
// their error. args are those of logPanic.
func (c *conn) survive(err *error, args ...any) {
	if p := recover(); p != nil {
		logPanic(c.log, p, args...)
		*err = errPanic
	}
}

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
		q.breakOff(errPanic)
		return
	}
	q.send(answer{err: errPanic})
}

// panicked logs a panic where the request was worked on.
func (q *request) panicked(p any) { logPanic(q.log, p, "request", q.Kind.String()) }
