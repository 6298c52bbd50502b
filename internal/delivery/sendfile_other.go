//go:build !linux

package delivery

import (
	"io"
	"net"
	"os"
)

// sendFile copies [pos, pos+n) of a file to the socket.
func sendFile(conn *net.TCPConn, file *os.File, pos, n int64, read func(do func()) error) (int64, error) {
	return io.CopyN(conn, &timedReader{io.NewSectionReader(file, pos, n), read}, n)
}
