package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/intake"
	"github.com/flotilla-log/flotilla/wire/pb"
)

var (
	// errIdle reports a connection on which no request came in time.
	errIdle = fmt.Errorf("server: idle: %w", os.ErrDeadlineExceeded)

	// errResponse reports a client that answers a server.
	errResponse = errors.New("server: a client sent a response")
)

// gone is intake.Gone, for what frame's Reader returns too.
func gone(err error) bool { return intake.Gone(err) || errors.Is(err, frame.ErrTruncated) }

// lastWord is what a client is told of the error that its connection is read no
// more for; nil: nothing.
func lastWord(err error) *pb.Error {
	var e *errcode.Error
	code, advice := errcode.InvalidRequest, "; what follows it cannot be told from it, so the connection ends: see docs/protocol.md, Frames"
	switch {
	case gone(err), errors.Is(err, errIdle), errors.Is(err, intake.ErrPanic):
		return nil
	case errors.As(err, &e):
		return pbError(e)
	case errors.Is(err, intake.ErrSlow), errors.Is(err, os.ErrDeadlineExceeded):
		code, advice = errcode.RequestTimedOut, "; send a request at once and whole, or a smaller one"
	case errors.Is(err, frame.ErrTooLarge):
		advice = "; keep to the limits of the Hello, or raise the node's request.bytes.max (and memory.bytes, of which a request may take a part)"
	}
	return frame.NewError(code, err.Error()+advice)
}

// lastAnswers has the requests be answered that came before the error that ended
// reading, and then tells the client of that: they may have taken effect. lingers
// says that the client may not have read it all when the writer has ended.
func (c *conn) lastAnswers(err error) (lingers bool) {
	c.polls.End()
	c.streams.end()
	c.requests.Wait()
	if word := lastWord(err); word != nil && c.s.ctx.Err() == nil {
		c.answers <- answer{kind: frame.KindError, header: word} // in the place of the request that was not one
	}
	close(c.answers)
	return !gone(err) && !errors.Is(err, errIdle)
}

// failUnacknowledged has the connection be read no more for a Produce without
// acknowledgement that failed: the connection's end is its answer, and why the last
// word. What came before is answered first. Of several the first is told.
func (c *conn) failUnacknowledged(err *errcode.Error) {
	told := errcode.Errorf(err.Code, "a Produce without acknowledgement failed, and those behind it may be lost: %v", err)
	if c.unacknowledged.CompareAndSwap(nil, told) {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // see intake.NewReader
	}
}
