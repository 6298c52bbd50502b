package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// serverProcess is the server under test, as a user would start it.
type serverProcess struct {
	cmd  *exec.Cmd
	addr string
	log  *os.File
}

var servesAt = regexp.MustCompile(`clients\s+(\S+)`)

// startTimeout is how long a server may take until it serves.
const startTimeout = time.Minute

// startServer runs `flotilla serve` and waits until it says where it listens.
// addr is empty for any free port.
func startServer(ctx context.Context, opt *options, addr string, args ...string) (*serverProcess, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	beside := filepath.Dir(opt.dataDir)
	if err := os.MkdirAll(beside, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(beside, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	args = append([]string{"serve", "--data.dir", opt.dataDir, "--listen", addr, "--admin.listen", "off"}, args...)
	s := &serverProcess{cmd: exec.Command(opt.binary, args...), log: log}
	s.cmd.Stderr = log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if m := servesAt.FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
		close(ready)
	}()
	select {
	case s.addr = <-ready:
	case <-time.After(startTimeout):
	case <-ctx.Done():
	}
	if s.addr == "" {
		s.kill()
		return nil, fmt.Errorf("the server did not start; see %s", log.Name())
	}
	return s, nil
}

// kill ends the server with SIGKILL: it can do nothing about it.
func (s *serverProcess) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	_ = s.log.Close()
}

// stop ends the server as an operator does, with SIGTERM: it takes a checkpoint.
func (s *serverProcess) stop() error {
	defer s.log.Close()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}
