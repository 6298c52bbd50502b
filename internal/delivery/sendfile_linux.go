package delivery

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendFile sends [pos, pos+n) of a file from the page cache to the socket. The
// file's own position is left alone, so that many connections can share it. It calls
// the system by read: a socket that does not wait takes what there is room for, so
// the time of a call is the disk's, and that between two calls the peer's.
func sendFile(conn *net.TCPConn, file *os.File, pos, n int64, read func(do func()) error) (sent int64, err error) {
	dst, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	src, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	controlErr := src.Control(func(in uintptr) {
		failed = dst.Write(func(out uintptr) bool {
			for sent < n {
				var m int
				var e error
				late := read(func() { m, e = unix.Sendfile(int(out), int(in), &pos, int(min(n-sent, 1<<30))) })
				if m > 0 {
					sent += int64(m)
				}
				switch {
				case late != nil:
					err = late
					return true
				case e == unix.EAGAIN:
					return false // wait until the socket takes more
				case e == unix.EINTR:
				case e != nil:
					err = os.NewSyscallError("sendfile", e)
					return true
				case m == 0:
					err = io.ErrUnexpectedEOF // the file is shorter than we were told
					return true
				}
			}
			return true
		})
	})
	for _, e := range []error{failed, controlErr} {
		if err == nil {
			err = e
		}
	}
	return sent, err
}
