package peer

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets this binary be the server of a test: one that waits until it is
// ended, or one that fails.
func TestMain(m *testing.M) {
	switch os.Getenv("PEER_TEST") {
	case "":
		os.Exit(m.Run())
	case "fail":
		os.Stderr.WriteString("no luck")
		os.Exit(1)
	}
	if l, err := net.Listen("tcp", Address(0)); err == nil {
		_, _ = l.Accept() // nobody comes
	}
}

func TestServer(t *testing.T) {
	// The test itself listens in the server's stead, so that nobody else can
	// have the port.
	l, err := net.Listen("tcp", Address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Server{Name: "s", Addr: l.Addr().String(), Args: []string{os.Args[0]}}
	t.Setenv("PEER_TEST", "wait")
	if err := s.Start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if s.PID() == "" || s.cmd.ProcessState != nil {
		t.Errorf("process %s: %v", s.PID(), s.cmd.ProcessState)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if s.cmd.ProcessState == nil {
		t.Error("it goes on after Stop")
	}
	if err := s.Stop(); err != nil {
		t.Error("stopped again:", err)
	}
	// One that ends says why.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PEER_TEST", "fail")
	s = &Server{Name: "s", Addr: "127.0.0.1:1", Args: []string{os.Args[0]}}
	if err := s.Start(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "it ended") || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("%v", err)
	}
	s.Args = []string{"no/such/binary"}
	if err := s.Start(t.Context(), t.TempDir()); err == nil {
		t.Error("started what is not there")
	}
}

func TestFreePorts(t *testing.T) {
	t.Parallel()
	ports, err := FreePorts(3)
	if err != nil || len(ports) != 3 || ports[1] != ports[0]+1 || ports[2] != ports[0]+2 {
		t.Error(ports, err)
	}
}

func TestKafkaVersion(t *testing.T) {
	dir := t.TempDir()
	if v, err := KafkaVersion(dir); err == nil || !strings.Contains(err.Error(), "make kafka-jars") {
		t.Errorf("of no jars: %q, %v; want an error that says what to do", v, err)
	}
	for _, name := range []string{"kafka_2.13-4.3.1.jar", "kafka-clients-4.3.1.jar"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := KafkaVersion(dir); err != nil || v != "4.3.1" {
		t.Errorf("KafkaVersion = %q, %v; want 4.3.1", v, err)
	}
}
