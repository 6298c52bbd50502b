// Package errcode holds the error codes of the Kafka protocol, which both of
// Flotilla's protocols answer with: number, name, one sentence, and whether the
// same request may succeed when it is sent again.
//
// Numbers, names and retriability are those of Apache Kafka 4.3.1; the
// sentences are our own. The numbers are part of both protocols and never
// change.
package errcode

import (
	"errors"
	"fmt"
	"strings"
)

// Code is an error code as it stands on the wire. The zero Code is None.
type Code int16

// Known reports whether c is one of the codes of this package.
func (c Code) Known() bool {
	i := int(c) + 1
	return i >= 0 && i < len(codes)
}

// Name returns Kafka's name, such as "NOT_LEADER_OR_FOLLOWER", or "CODE_<n>"
// for an unknown code.
func (c Code) Name() string {
	if !c.Known() {
		return fmt.Sprintf("CODE_%d", int16(c))
	}
	return codes[c+1].name
}

// String returns Name, so that a Code prints as its name.
func (c Code) String() string { return c.Name() }

// Text returns one sentence about c, in lower case and without a full stop.
func (c Code) Text() string {
	if !c.Known() {
		return "unknown error code"
	}
	return codes[c+1].text
}

// Retriable reports whether a client may send the same request again and hope
// for a better answer, perhaps after it has asked for newer metadata. An
// unknown code is not retriable.
func (c Code) Retriable() bool {
	return c.Known() && codes[c+1].retriable
}

// Error is a Code as a Go error. It matches, with errors.Is, every *Error of
// the same Code, whatever their details.
type Error struct {
	Code   Code
	Detail string // what a reader needs beyond Code.Text; may be empty
}

// Errorf returns an error of the code, with a formatted detail.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Detail: cut(fmt.Sprintf(format, args...), maxDetailBytes)}
}

// maxDetailBytes bounds what is told of an error. What a client asked for can
// stand in it, and in the answer for each of thousands of partitions.
const maxDetailBytes = 1000

// Short is a client's name for something, cut to what tells it from others.
func Short(name string) string { return cut(name, 64) }

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Error returns the name of the code and the detail, or the code's sentence if
// there is no detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Code.Name() + ": " + e.Code.Text()
	}
	return e.Code.Name() + ": " + e.Detail
}

// Is reports whether target is an *Error of the same Code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Of returns the Code of the first *Error in err's chain, None for a nil err,
// and UnknownServer for any other error.
func Of(err error) Code {
	if err == nil {
		return None
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return UnknownServer
}
