package netsim

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// narrowBytes is the receive buffer that Narrow asks for; systems give a little more.
const narrowBytes = 4 << 10

// Narrow returns the ends of a TCP connection over loopback, of which near takes no
// more than a few KB that are not read. It is for tests of what lies in the kernel's
// buffers, which this package's own network does not have. The caller closes both.
func Narrow() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		failed := c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, narrowBytes)
		})
		return errors.Join(failed, err)
	}}
	if near, err = d.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if far, err = l.Accept(); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, far, nil
}

// Silent returns an error if something has come on nc, or it has ended. It takes a
// byte of what came, and leaves nc without a read deadline.
func Silent(nc net.Conn) error {
	if err := nc.SetReadDeadline(time.Now().Add(time.Nanosecond)); err != nil {
		return err
	}
	if n, err := nc.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("netsim: %d bytes have come, %v; want none yet", n, err)
	}
	return nc.SetReadDeadline(time.Time{})
}
