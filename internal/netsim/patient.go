package netsim

import (
	"net"
	"time"
)

// Patient is a connection, of any kind, for tests that would otherwise hang: no
// read and no write takes longer than Patience. How long it is used in all is the
// machine's affair.
type Patient struct {
	net.Conn
	Patience time.Duration
}

// Read reads from Conn.
func (p Patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.Patience)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// Write writes to Conn.
func (p Patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(p.Patience)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}
