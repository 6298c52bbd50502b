package disktest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// startLimit is how long a server may take to serve. It is there for one that
// never does.
const startLimit = time.Minute

// server is the real server, over several processes on one directory.
type server struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process is

	mu  sync.Mutex
	log bytes.Buffer // of all its processes
}

var servesAt = regexp.MustCompile(`^  clients +(\S+)`)

// newServer starts a server on an empty directory.
func newServer(t *testing.T, dir string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, addr: l.Addr().String()}
	_ = l.Close()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.text())
		}
	})
	s.start()
	return s
}

// start starts a process and waits until it serves.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(program, "serve", "--listen", s.addr, "--admin.listen", "off", "--data.dir", s.dir,
		"--journal.file.bytes", "1MiB", "--journal.bytes", "8MiB", "--memory.bytes", "16MiB", "--flush.age", "200ms")
	s.cmd.SysProcAttr = proctest.Tied()
	s.cmd.Stderr = s
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	serves, gone, cmd := make(chan struct{}), make(chan struct{}), s.cmd
	s.gone = gone
	go func() {
		defer close(gone)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if servesAt.MatchString(lines.Text()) {
				close(serves)
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}()
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case <-serves:
	case <-gone:
		s.t.Fatalf("the server ended before it served: %v\n%s", cmd.ProcessState, s.text())
	case <-limit.C:
		s.t.Fatalf("the server does not serve\n%s", s.text())
	}
}

// kill ends the process with SIGKILL. One that has ended before is an error.
func (s *server) kill() {
	select {
	case <-s.gone:
		s.t.Errorf("the server ended by itself: %v", s.cmd.ProcessState)
	default:
	}
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// Write takes the server's log.
func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// said counts the lines of the log that hold text.
func (s *server) said(text string) (n int) {
	for line := range strings.Lines(s.text()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
