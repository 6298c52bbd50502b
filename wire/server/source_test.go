package server

import (
	"net"
	"testing"
)

// TestSource: which addresses count as one client.
func TestSource(t *testing.T) {
	t.Parallel()
	from := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 7} }
	tests := []struct {
		a, b net.Addr
		same bool
	}{
		{from("10.0.0.1"), from("10.0.0.1"), true},
		{from("10.0.0.1"), from("10.0.0.2"), false},
		{from("::ffff:10.0.0.1"), from("10.0.0.1"), true},
		{from("2001:db8::1"), from("2001:db8::ffff:1"), true},
		{from("2001:db8::1"), from("2001:db8:0:1::1"), false},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, &net.TCPAddr{IP: net.ParseIP("fe80::2"), Zone: "eth1"}, true},
		{&net.UnixAddr{Name: "x"}, &net.UnixAddr{Name: "y"}, true},
	}
	for _, tt := range tests {
		if got := source(tt.a) == source(tt.b); got != tt.same {
			t.Errorf("%v and %v: same %t, want %t", tt.a, tt.b, got, tt.same)
		}
	}
}
