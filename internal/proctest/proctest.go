// Package proctest builds the server and runs its processes, for tests that meet it as
// its users do.
package proctest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopLimit is how long Process.Stop waits before it kills.
const StopLimit = time.Minute

const (
	startLimit = time.Minute
	tailBytes  = 16 << 10
)

// Build returns the path of a server's binary: the one that the variable env names, if it
// names one, or else path, where it is built. env may be empty.
func Build(env, path string) (string, error) {
	if name := os.Getenv(env); name != "" {
		return filepath.Abs(name)
	}
	name, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", name, "github.com/flotilla-log/flotilla/cmd/flotilla").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
}

// Where "flotilla serve" and "flotilla dev" print the addresses for clients, once they
// serve.
var (
	ServesAt    = regexp.MustCompile(`clients\s+(\S+)`)
	BootstrapAt = regexp.MustCompile(`^  bootstrap  (\S+) `)
)

// Process is a process of the server that serves, or the parent of several. It ends with
// the one that started it, on Linux.
type Process struct {
	Addr string // what it printed: an address, or several with commas between

	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	err  error         // how; after gone
}

// Start starts binary with args, and returns when it has printed an address, which is the
// first group of serves. What it logs is added to the file log.
func Start(binary, log string, serves *regexp.Regexp, args ...string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(binary, args...), gone: make(chan struct{})}
	p.cmd.Stderr, p.cmd.SysProcAttr = file, Tied()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	started, addr := make(chan error), make(chan string, 1)
	go func() {
		// The process dies with this thread, so the thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer file.Close()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := serves.FindStringSubmatch(lines.Text()); m != nil {
				addr <- m[1]
			}
		}
		close(addr)
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	var served bool
	select {
	case p.Addr, served = <-addr:
		if !served {
			<-p.gone
			err = fmt.Errorf("%s ended before it served: %v", filepath.Base(binary), p.err)
		}
	case <-time.After(startLimit):
		p.Kill()
		err = fmt.Errorf("%s does not serve within %v", filepath.Base(binary), startLimit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, Tail(log))
	}
	return p, nil
}

// StartNodes starts a cluster of nodes with "flotilla dev", below dir, with more settings
// beside its own, and returns when it serves. It logs to the file Log(dir).
func StartNodes(binary, dir string, nodes int, more ...string) (*Process, error) {
	args := []string{"dev", "--nodes", strconv.Itoa(nodes), "--dir", filepath.Join(dir, "nodes"), "--client-port", "0", "--node-port", "0", "--admin-port", "0"}
	return Start(binary, Log(dir), BootstrapAt, append(args, more...)...)
}

// Log is the file below dir to which a server logs.
func Log(dir string) string { return filepath.Join(dir, "log") }

// Addrs returns the addresses that the process has printed, the first node's first.
func (p *Process) Addrs() []string { return strings.Split(p.Addr, ",") }

// Stop has the process end in good order, and returns an error if it did not.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error is a process that has ended
	kill := time.AfterFunc(StopLimit, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.gone
	if p.err != nil {
		return fmt.Errorf("%s ended: %w", filepath.Base(p.cmd.Path), p.err)
	}
	return nil
}

// Kill ends the process as kill -9 does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.gone
}

var wrong = regexp.MustCompile(`(?m)^.* level=ERROR .*$|^.*\bpanic: .*$`)

// Complaint returns an error if a server has said in its log that something is wrong.
func Complaint(log string) error {
	text, err := os.ReadFile(log)
	if err != nil {
		return err
	}
	if all := wrong.FindAllString(string(text), 20); len(all) > 0 {
		return fmt.Errorf("the server said:\n%s", strings.Join(all, "\n"))
	}
	return nil
}

// Tail returns the end of a log, or why there is none.
func Tail(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}
