package intake

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// LastAnswersTimeout is how long the requests before one that ends their
	// connection may take to be answered: as long as clients wait.
	LastAnswersTimeout = 30 * time.Second

	// lingerTimeout and lingerBytes bound what is read, and dropped, of a connection
	// whose last answers are on their way.
	lingerTimeout = time.Second
	lingerBytes   = 1 << 20
)

// Gone reports whether reading ended because of the peer, or of this end's closing:
// not because of what was sent, or was not sent in time.
func Gone(err error) bool {
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return !op.Timeout()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrSlow):
		return false
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, context.Canceled, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// Linger lets the last answers on a connection arrive, before it is closed: one
// that is closed while there is something to read of it is reset, and what the
// peer has not read yet is lost. It ends what this end writes, and drops what the
// peer sends yet, until that closes its end too, or has sent 1 MiB, or a second is
// over. A connection that has no half to close is left alone.
func Linger(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || nc.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, nc, lingerBytes)
}
