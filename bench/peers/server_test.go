package main

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestMain lets this binary be the server of a test: one that waits until it is
// ended, or one that fails.
func TestMain(m *testing.M) {
	switch os.Getenv("PEERS_TEST") {
	case "":
		os.Exit(m.Run())
	case "fail":
		os.Stderr.WriteString("no luck")
		os.Exit(1)
	}
	if l, err := net.Listen("tcp", address(0)); err == nil {
		_, _ = l.Accept() // nobody comes
	}
}

func TestServer(t *testing.T) {
	// The test itself listens in the server's stead, so that nobody else can
	// have the port.
	l, err := net.Listen("tcp", address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &server{name: "s", addr: l.Addr().String(), args: []string{os.Args[0]}}
	t.Setenv("PEERS_TEST", "wait")
	if err := s.start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if s.pid() == "" || s.cmd.ProcessState != nil {
		t.Errorf("process %s: %v", s.pid(), s.cmd.ProcessState)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if s.cmd.ProcessState == nil {
		t.Error("it goes on after stop")
	}
	// One that ends says why.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEERS_TEST", "fail")
	s = &server{name: "s", addr: "127.0.0.1:1", args: []string{os.Args[0]}}
	if err := s.start(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "it ended") || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("%v", err)
	}
	s.args = []string{"no/such/binary"}
	if err := s.start(t.Context(), t.TempDir()); err == nil {
		t.Error("started what is not there")
	}
}

func TestFreePorts(t *testing.T) {
	t.Parallel()
	ports, err := freePorts(3)
	if err != nil || len(ports) != 3 || ports[1] != ports[0]+1 || ports[2] != ports[0]+2 {
		t.Error(ports, err)
	}
}
