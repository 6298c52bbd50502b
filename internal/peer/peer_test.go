package peer

import (
	"errors"
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
	if err := s.Signal(os.Interrupt); err == nil || !strings.Contains(err.Error(), "peer: s: interrupt") {
		t.Errorf("a signal to one that has ended: %v", err)
	}
	if err := s.Start(t.Context(), t.TempDir()); err != nil || s.cmd.ProcessState != nil {
		t.Errorf("started again: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
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

// TestCluster: nodes know of each other, start together, and when one of them
// does not, none is left.
func TestCluster(t *testing.T) {
	ports := []int{1001, 1002, 1003, 1004, 1005, 1006}
	for _, c := range []*Cluster{FlotillaCluster("flotilla", "data", ports, "--more"), KafkaCluster("kafka.sh", "jars", "data", ports)} {
		if len(c.Nodes) != 3 || c.Bootstrap() != "127.0.0.1:1001,127.0.0.1:1003,127.0.0.1:1005" {
			t.Fatalf("%s: %d nodes at %s", c.Name, len(c.Nodes), c.Bootstrap())
		}
		names := map[string]bool{}
		for _, s := range c.Nodes {
			names[s.Name] = true
			last := strings.Join(s.Args[len(s.Args)-3:], " ")
			args := strings.Join(s.Args, " ")
			switch c.Name {
			case "flotilla":
				if !strings.Contains(args, "--cluster.nodes 1@127.0.0.1:1002,2@127.0.0.1:1004,3@127.0.0.1:1006") || !strings.HasSuffix(args, "--more") {
					t.Errorf("%s: %s", s.Name, args)
				}
			case "kafka":
				if !strings.HasSuffix(last, " 1002,1004,1006") || !strings.Contains(args, " data/"+last[:1]+" ") {
					t.Errorf("%s: %s", s.Name, args)
				}
			}
		}
		if len(names) != 3 {
			t.Errorf("%s: names %v, of which each has a file", c.Name, names)
		}
	}

	l, err := net.Listen("tcp", Address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("PEER_TEST", "wait")
	node := func(name string) *Server {
		return &Server{Name: name, Addr: l.Addr().String(), Args: []string{os.Args[0]}}
	}
	c := &Cluster{Name: "c", Nodes: []*Server{node("c1"), node("c2")}}
	if err := c.Start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer func() { // what goes on by mistake
		for _, s := range c.Nodes[:2] {
			_ = s.Stop()
		}
	}()
	if want := c.Nodes[0].PID() + "," + c.Nodes[1].PID(); c.PIDs() != want {
		t.Errorf("processes %s, want %s", c.PIDs(), want)
	}
	if err := c.unlessAll([]error{nil, errors.New("c2 was late")}); err == nil || !strings.Contains(err.Error(), "c2 was late") {
		t.Errorf("one of two did not start: %v", err)
	}
	if c.Nodes[0].cmd.ProcessState == nil {
		t.Error("the other one goes on")
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	c.Nodes = append(c.Nodes, &Server{Name: "c3", Addr: "127.0.0.1:1", Args: []string{"no/such/binary"}})
	if err := c.Start(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "no/such/binary") {
		t.Errorf("one of three cannot start: %v", err)
	}
	for _, s := range c.Nodes[:2] {
		if s.cmd.ProcessState == nil {
			t.Errorf("%s goes on", s.Name)
		}
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
