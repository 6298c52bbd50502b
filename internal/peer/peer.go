// Package peer runs servers that others are compared with, each in a process of
// its own: Apache Kafka, by bench/peers/kafka.sh, and Flotilla's binary.
package peer

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
	"strings"
	"syscall"
	"time"
)

const (
	startPatience = 3 * time.Minute // a JVM on a busy machine
	pollEvery     = 100 * time.Millisecond
)

// Server is one process. Name, Addr and Args are set before Start, and not
// changed afterwards.
type Server struct {
	Name string   // of its file of output
	Addr string   // where it will listen
	Args []string // the command

	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when the process has
}

// Kafka returns a node of Apache Kafka that has not been started. script is
// bench/peers/kafka.sh, jars what make kafka-jars has filled, data the node's
// directory; it listens at port, and at the next one for itself.
func Kafka(script, jars, data string, port int) *Server {
	return &Server{Name: "kafka", Addr: Address(port), Args: []string{script, "serve", jars, data, strconv.Itoa(port)}}
}

// KafkaVersion returns the version of Kafka whose jars are in a directory.
func KafkaVersion(jars string) (string, error) {
	const prefix, suffix = "kafka_2.13-", ".jar"
	found, err := filepath.Glob(filepath.Join(jars, prefix+"*"+suffix))
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("peer: %d files %s*%s in %s, want one; make kafka-jars KAFKA=%s brings them", len(found), prefix, suffix, jars, jars)
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), prefix), suffix), nil
}

// Flotilla returns a node of the binary that has not been started, which
// listens at port and has its files in data.
func Flotilla(binary, data string, port int, flags ...string) *Server {
	args := []string{binary, "serve", "--data.dir", data, "--listen", Address(port), "--admin.listen", Address(0)}
	return &Server{Name: "flotilla", Addr: Address(port), Args: append(args, flags...)}
}

// Start starts the server, with its output in a file below dir, and returns
// once it accepts connections. The caller stops it, unless there is an error.
func (s *Server) Start(ctx context.Context, dir string) error {
	s.log = filepath.Join(dir, s.Name+".log")
	out, err := os.Create(s.log)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	defer out.Close() // the process has it
	s.cmd = exec.Command(s.Args[0], s.Args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	// Of its own group: an interrupt at the terminal is for whoever started it,
	// which then stops the servers.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("peer: %s: %w", s.Name, err)
	}
	s.ended = make(chan struct{})
	go func() { // joined by Stop
		defer close(s.ended)
		_ = s.cmd.Wait()
	}()
	if err := s.ready(ctx); err != nil {
		return errors.Join(fmt.Errorf("peer: %s: %w; it said:\n%s", s.Name, err, s.Said()), s.Stop())
	}
	return nil
}

// Said returns what the server has written to its standard output and error, or
// its end if that is long.
func (s *Server) Said() string {
	const most = 16 << 10
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-most):])
}

// ready returns once somebody listens.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
		if err == nil {
			return nc.Close()
		}
		select {
		case <-t.C:
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("nobody listens at %s: %w", s.Addr, context.Cause(ctx))
		}
	}
}

// Stop kills the server, whose data is not needed any more, and returns when it
// has ended: a clean stop would first bring all of it to the disk. It may be
// called again, and by several goroutines.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("peer: %s: %w", s.Name, err)
	}
	<-s.ended
	return nil
}

// PID is the process whose CPU time counts.
func (s *Server) PID() string { return strconv.Itoa(s.cmd.Process.Pid) }

// Process is PID as a number.
func (s *Server) Process() int { return s.cmd.Process.Pid }

// Signal sends the server a signal, such as SIGSTOP.
func (s *Server) Signal(sig os.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("peer: %s: %v: %w", s.Name, sig, err)
	}
	return nil
}

// FreePorts returns n ports in a row at which nobody listens: Kafka's node
// takes two. They are below those that systems give to outgoing connections: a
// node that connects to itself before it listens would otherwise, by chance,
// take the port away from itself.
func FreePorts(n int) ([]int, error) {
	const from, until, tries = 20_000, 32_000, 100
	for range tries {
		first := from + rand.IntN(until-from-n)
		var held []net.Listener
		var ports []int
		for port := first; port < first+n; port++ {
			l, err := net.Listen("tcp", Address(port))
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
	return nil, fmt.Errorf("peer: no %d free ports in a row", n)
}

// Address is a port of the loopback.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
