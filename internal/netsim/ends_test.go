package netsim

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestNarrow: the near end has a small buffer, and what is written is all there when it
// reads.
func TestNarrow(t *testing.T) {
	t.Parallel()
	near, far, err := Narrow()
	check(t, err)
	defer near.Close()
	defer far.Close()
	raw, err := near.(*net.TCPConn).SyscallConn()
	check(t, err)
	buffer := 0
	check(t, raw.Control(func(fd uintptr) { buffer, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF) }))
	if check(t, err); buffer < narrowBytes || buffer > 4*narrowBytes {
		t.Errorf("a receive buffer of %d bytes, want some %d", buffer, narrowBytes)
	}
	const all = 1 << 20
	go func() {
		_, _ = far.Write(make([]byte, all))
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(io.Discard, near)
	if n != all || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, all)
	}
}

// TestSilent: it tells what has come, and the end, and leaves no deadline behind.
func TestSilent(t *testing.T) {
	bubble(t, func(t *testing.T, _ *Network, a, b net.Conn) {
		check(t, Silent(a))
		time.AfterFunc(time.Hour, func() { send(t, b, "xy") })
		if got := receive(t, a, 2*time.Hour); got == "" {
			t.Error("nothing comes after it has looked")
		}
		send(t, b, "z")
		if err := Silent(a); err == nil {
			t.Error("a byte that has come is none")
		}
		check(t, b.Close())
		if err := Silent(a); err == nil {
			t.Error("an end that has come is none")
		}
	})
}
