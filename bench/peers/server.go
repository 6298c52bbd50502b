package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startPatience = 3 * time.Minute // a JVM on a busy machine
	pollEvery     = 100 * time.Millisecond
)

// server is one that was started here.
type server struct {
	name string
	addr string // where it will listen
	args []string

	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when the process has
}

// start starts the server, with its output in a file below dir, and returns
// once it accepts connections.
func (s *server) start(ctx context.Context, dir string) error {
	s.log = filepath.Join(dir, s.name+".log")
	out, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer out.Close() // the process has it
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	// Of its own group: an interrupt at the terminal is for the load, which then
	// stops the servers.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("peers: %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func() { // joined by stop
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	if err := s.ready(ctx); err != nil {
		said, _ := os.ReadFile(s.log)
		return errors.Join(fmt.Errorf("peers: %s: %w; it said:\n%s", s.name, err, said), s.stop())
	}
	return nil
}

// ready returns once somebody listens.
func (s *server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", s.addr)
		if err == nil {
			return nc.Close()
		}
		select {
		case <-t.C:
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("nobody listens at %s: %w", s.addr, context.Cause(ctx))
		}
	}
}

// stop kills the server, whose data is not needed any more: a clean stop would
// first bring all of it to the disk.
func (s *server) stop() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("peers: %s: %w", s.name, err)
	}
	<-s.ended
	return nil
}

// pid is the process whose CPU time counts.
func (s *server) pid() string { return strconv.Itoa(s.cmd.Process.Pid) }

// freePorts returns n ports in a row at which nobody listens: Kafka's node
// takes two. They are below those that systems give to outgoing connections: a
// node that connects to itself before it listens would otherwise, by chance,
// take the port away from itself.
func freePorts(n int) ([]int, error) {
	const from, until, tries = 20_000, 32_000, 100
	for range tries {
		first := from + rand.IntN(until-from-n)
		var held []net.Listener
		var ports []int
		for port := first; port < first+n; port++ {
			l, err := net.Listen("tcp", address(port))
			if err != nil {
				break
			}
			held, ports = append(held, l), append(ports, port)
		}
		for _, l := range held {
			_ = l.Close()
		}
		if len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("peers: no %d free ports in a row", n)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
