package killtest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/internal/proctest"
)

// server is one process of the server, from its start to its death.
type server struct {
	phases *phases
	cmd    *exec.Cmd

	ready chan string   // gets the address, then is closed
	gone  chan struct{} // closed when the process is dead and its log read
	err   error         // how it ended; after gone

	signalled atomic.Bool // it was sent a signal that ends it

	mu    sync.Mutex
	tail  []string       // the last lines that say more than DEBUG
	wrong []string       // lines of level ERROR, and those that are no log lines
	warns map[string]int // messages of level WARN
}

// tailLines is how much of a log is repeated in an error.
const tailLines = 40

// startServer starts a process. Its log also goes to log. aim is called before
// the first line of it is read.
func startServer(binary string, log io.Writer, args []string, aim func(*server)) (*server, error) {
	s := &server{
		phases: newPhases(), cmd: exec.Command(binary, args...),
		ready: make(chan string, 1), gone: make(chan struct{}), warns: make(map[string]int),
	}
	s.cmd.SysProcAttr = proctest.Tied()
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() {
		// The process dies with this thread, so the thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		var readers sync.WaitGroup
		readers.Go(func() { s.readOut(stdout) })
		if aim != nil {
			aim(s)
		}
		readers.Go(func() { s.readLog(stderr, log) })
		readers.Wait()
		s.err = s.cmd.Wait()
		close(s.gone)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return s, nil
}

func (s *server) readOut(r io.Reader) {
	defer close(s.ready)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if m := proctest.ServesAt.FindStringSubmatch(lines.Text()); m != nil {
			s.ready <- m[1]
		}
	}
}

// readLog reads the log to its end. A last line without its newline was cut off
// by the kill.
func (s *server) readLog(r io.Reader, log io.Writer) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		b, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		l, ok := s.phases.line(b, time.Now())
		if lines.Buffered() == 0 {
			s.phases.caughtUp()
		}
		_, _ = log.Write(b)
		if l.Level == "DEBUG" {
			continue
		}
		text := string(bytes.TrimSpace(b))
		s.mu.Lock()
		s.tail = append(s.tail, text)
		if n := len(s.tail) - tailLines; n > 0 {
			s.tail = s.tail[n:]
		}
		switch {
		case !ok || l.Level == "ERROR":
			s.wrong = append(s.wrong, text)
		case l.Level == "WARN":
			s.warns[l.Msg]++
		}
		s.mu.Unlock()
	}
}

// startTimeout is how long a server may take until it serves.
const startTimeout = time.Minute

// serving waits until the server serves and returns its address.
func (s *server) serving(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case addr, ok := <-s.ready:
		if ok {
			return addr, nil
		}
		<-s.gone
		return "", s.died("the server ended before it served")
	case <-ctx.Done():
		return "", s.stuck("the server does not serve")
	}
}

// signal sends sig.
func (s *server) signal(sig os.Signal) {
	s.signalled.Store(true)
	_ = s.cmd.Process.Signal(sig) // an error is a process that has ended
}

// died returns an error with the end of the log.
func (s *server) died(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%s; the end of its log:\n%s", what, strings.Join(s.tail, "\n"))
}

// stuck returns an error with the end of the log of a server that does not do
// what it should, and ends it so that its goroutines are in the log file.
func (s *server) stuck(what string) error {
	err := s.died(what)
	s.signal(syscall.SIGQUIT)
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	select {
	case <-s.gone:
	case <-timeout.C:
	}
	return err
}

// killed reports whether the process, which is gone, died by SIGKILL.
func (s *server) killed() bool {
	ws, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// complaint returns an error if a server that is gone has said that something
// is wrong.
func (s *server) complaint() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("the server said:\n%s", strings.Join(s.wrong[:min(len(s.wrong), tailLines)], "\n"))
}
