//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// startTimeout is how long a server may take until it serves.
const startTimeout = 2 * time.Minute

// server is the node under test: one process after the other on one directory.
type server struct {
	binary string
	args   []string // beside --listen
	addr   string   // "127.0.0.1:0" until the first start
	log    *os.File

	mu     sync.Mutex
	cmd    *exec.Cmd
	gone   chan struct{} // closed when cmd is dead
	asked  bool          // it was sent a signal that ends it
	starts int
	cpu    time.Duration // of the processes that are dead
	failed chan error    // 1-buffered: it died by itself
}

// start starts a process and returns when it serves.
func (s *server) start(ctx context.Context) error {
	args := append([]string{"serve", "--listen", s.addr}, s.args...)
	cmd := exec.Command(s.binary, args...)
	cmd.Stderr = s.log
	cmd.SysProcAttr = proctest.Tied()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	ready, gone, started := make(chan string, 1), make(chan struct{}), make(chan error)
	go func() {
		// The process dies with this thread, so the thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		lines := bufio.NewScanner(io.TeeReader(out, s.log))
		for lines.Scan() {
			if m := proctest.ServesAt.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case ready <- m[1]:
				default:
				}
			}
		}
		err = cmd.Wait()
		s.mu.Lock()
		s.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		asked := s.asked
		s.mu.Unlock()
		close(gone)
		if !asked {
			select {
			case s.failed <- fmt.Errorf("the server ended by itself: %w; its log is %s", errors.Join(errors.New(cmd.ProcessState.String()), err), s.log.Name()):
			default:
			}
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.cmd, s.gone, s.asked = cmd, gone, false
	s.starts++
	s.mu.Unlock()
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case s.addr = <-ready:
		return nil
	case <-gone:
		return fmt.Errorf("the server ended before it served: %s; its log is %s", cmd.ProcessState, s.log.Name())
	case <-timeout.C:
		return fmt.Errorf("the server does not serve after %v; its log is %s", startTimeout, s.log.Name())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end sends sig and waits until the process is dead. After SIGTERM it must have
// stopped in good order.
func (s *server) end(sig syscall.Signal) error {
	s.mu.Lock()
	s.asked = true
	cmd, gone := s.cmd, s.gone
	s.mu.Unlock()
	_ = cmd.Process.Signal(sig) // an error is a process that is dead already
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case <-gone:
	case <-timeout.C:
		_ = cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		return fmt.Errorf("the server does not end after %v; its log is %s", sig, s.log.Name())
	}
	if code := cmd.ProcessState.ExitCode(); sig == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("exit status %d after SIGTERM; the server's log is %s", code, s.log.Name())
	}
	return nil
}

// signal sends a signal that does not end the process.
func (s *server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.cmd.Process.Signal(sig)
}

// usage is what the server takes at a moment.
type usage struct {
	rssBytes int64
	cpu      time.Duration // of all processes together
	files    int           // open
	starts   int
}

// usage reads the process's numbers. Those of a process that has just ended are
// zero.
func (s *server) usage() (u usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	proc := filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid))
	u.starts, u.cpu = s.starts, s.cpu
	if b, err := os.ReadFile(filepath.Join(proc, "statm")); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			u.rssBytes = pages * int64(os.Getpagesize())
		}
	}
	if b, err := os.ReadFile(filepath.Join(proc, "stat")); err == nil {
		// Fields 14 and 15, counted behind the name, which may hold anything.
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 12 {
			user, _ := strconv.ParseInt(f[11], 10, 64)
			sys, _ := strconv.ParseInt(f[12], 10, 64)
			const ticksPerSecond = 100 // USER_HZ, the same on every Linux
			u.cpu += time.Duration(user+sys) * time.Second / ticksPerSecond
		}
	}
	if names, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
		u.files = len(names)
	}
	return u
}
