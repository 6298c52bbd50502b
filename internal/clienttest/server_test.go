package clienttest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the module's folder, as seen from this package's.
const root = "../.."

// buildDir holds what is made of the server and the examples: these are built from a
// copy, and again when a file of theirs has changed.
var buildDir = filepath.Join(root, "bin", "clients")

// serverBinary builds the server once for all tests.
var serverBinary = sync.OnceValues(func() (string, error) {
	if name := os.Getenv("CLIENTS_BINARY"); name != "" {
		return filepath.Abs(name)
	}
	name, err := filepath.Abs(filepath.Join(buildDir, "flotilla"))
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", name, "github.com/flotilla-log/flotilla/cmd/flotilla").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
})

// Where a server, and a cluster, print the addresses for clients once they serve.
var (
	servesAt    = regexp.MustCompile(`clients\s+(\S+)`)
	bootstrapAt = regexp.MustCompile(`^  bootstrap  (\S+) `)
)

// startServer starts a server for the length of a test, and returns its address.
// It must stop without a fault.
func startServer(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("CLIENTS_ADDR"); addr != "" {
		return addr
	}
	return newServer(t).addr
}

// startCluster starts three nodes for the length of a test, and returns their addresses.
func startCluster(t *testing.T) []string {
	t.Helper()
	s := prepareServer(t)
	s.run(bootstrapAt, "dev", "--nodes", "3", "--dir", filepath.Join(s.dir, "data"), "--client-port", "0", "--node-port", "0", "--admin-port", "0")
	return strings.Split(s.addr, ",")
}

// server is a server's process, or that of several nodes' parent, and its data.
type server struct {
	t    *testing.T
	dir  string
	addr string
	log  *os.File

	cmd  *exec.Cmd
	gone chan error // gets what Wait said, once
}

// newServer starts a server for the length of a test.
func newServer(t *testing.T) *server {
	t.Helper()
	s := prepareServer(t)
	s.start()
	return s
}

// prepareServer returns a server that ends with the test.
func prepareServer(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, addr: "127.0.0.1:0", log: log}
	t.Cleanup(func() {
		s.stop()
		_ = log.Close()
		if t.Failed() {
			if text, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("the server's log:\n%s", text)
			}
		}
	})
	return s
}

// start starts the process, and returns when it serves.
func (s *server) start() {
	s.t.Helper()
	s.run(servesAt, "serve", "--data.dir", filepath.Join(s.dir, "data"), "--listen", s.addr, "--admin.listen", "off")
}

// run starts the process with args, and returns when it has printed its addresses.
func (s *server) run(serves *regexp.Regexp, args ...string) {
	s.t.Helper()
	binary, err := serverBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = s.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready, gone := make(chan string, 1), make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := serves.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
		close(ready)
		gone <- cmd.Wait()
	}()
	s.cmd, s.gone = cmd, gone
	select {
	case addr, ok := <-ready:
		if !ok {
			s.t.Fatal("the server ended before it served")
		}
		s.addr = addr
	case <-time.After(time.Minute):
		s.t.Fatal("the server does not serve")
	}
}

// stop has the process end as it should.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	if err := <-s.gone; err != nil {
		s.t.Errorf("the server ended: %v", err)
	}
	s.cmd = nil
}

// restart ends the process with kill -9, and starts another one with its data and
// its address.
func (s *server) restart() {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	<-s.gone
	s.cmd = nil
	s.start()
}
