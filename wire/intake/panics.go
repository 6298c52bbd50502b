package intake

import (
	"errors"
	"log/slog"
	"runtime/debug"
)

// ErrPanic reports a panic in what serves a connection, which is logged where it
// was.
var ErrPanic = errors.New("intake: a panic")

// LogPanic logs a panic, which is the end of one connection and of no other. args
// say where it was.
func LogPanic(log *slog.Logger, p any, args ...any) {
	log.Error("a panic; its connection is closed, and no other", append(args, "panic", p, "stack", string(debug.Stack()))...)
}

// Survive is deferred by the parts of a connection's goroutines: a panic is then
// their error. args are those of LogPanic.
func Survive(log *slog.Logger, err *error, args ...any) {
	if p := recover(); p != nil {
		LogPanic(log, p, args...)
		*err = ErrPanic
	}
}
