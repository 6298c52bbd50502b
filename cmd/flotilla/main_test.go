package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/config"
)

// program is the binary under test, built once.
var program string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeNodeCommand {
		os.Exit(fakeNode(os.Args[2:]))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flotilla-cli")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "flotilla")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	defer shared.stop()
	return m.Run()
}

// commandLimit is how long a command of a test may take. It is there for
// commands that hang.
const commandLimit = 2 * time.Minute

// environment is the tests' own without settings but one, and with extra.
func environment(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, config.Prefix) })
	return append(append(env, "FLOTILLA_ADMIN_LISTEN=off"), extra...) // many nodes, one port
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// command is one run of the binary.
type command struct {
	args  []string
	env   []string
	stdin io.Reader
	dir   string
}

func (c command) run(t *testing.T) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, c.args...)
	cmd.Env, cmd.Stdin, cmd.Dir = environment(c.env...), c.stdin, c.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		t.Fatalf("flotilla %q: %v, %v\n%s", c.args, err, ctx.Err(), stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// server is a running node.
type server struct {
	addr, dir string
	greeting  string // what it printed until it was ready
	cmd       *exec.Cmd
	log       *bytes.Buffer // valid after wait
}

// startServer starts a node with a small journal on a port of its own.
func startServer(dir string, args ...string) (*server, error) {
	s := &server{dir: dir, log: new(bytes.Buffer)}
	s.cmd = exec.Command(program, append([]string{
		"serve", "--listen", "127.0.0.1:0", "--data.dir", dir, "--journal.file.bytes", "8MiB", "--journal.bytes", "32MiB",
	}, args...)...)
	s.cmd.Env, s.cmd.Stderr = environment(), s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		s.greeting += lines.Text() + "\n"
		if m := regexp.MustCompile(`^  clients +(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			s.addr = m[1]
		}
		if strings.Contains(lines.Text(), "consume") { // the last line
			return s, nil
		}
	}
	_ = s.cmd.Wait()
	return nil, fmt.Errorf("serve %q: %v\n%s%s", args, s.cmd.ProcessState, s.greeting, s.log)
}

// wait waits for the end of the node and returns its exit status.
func (s *server) wait() int {
	kill := time.AfterFunc(commandLimit, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

// newServer starts a node that ends with the test.
func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	s, err := startServer(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			if code := s.wait(); code != exitOK {
				t.Errorf("serve ended with %d\n%s", code, s.log)
			}
		}
	})
	return s
}

// sharedServer is the node of all tests that do nothing to the node itself.
type sharedServer struct {
	once sync.Once
	s    *server
	err  error
}

var shared sharedServer

func (sh *sharedServer) server(t *testing.T) *server {
	t.Helper()
	sh.once.Do(func() {
		var dir string
		if dir, sh.err = os.MkdirTemp(filepath.Dir(program), "data"); sh.err == nil {
			sh.s, sh.err = startServer(dir)
		}
	})
	if sh.err != nil {
		t.Fatal(sh.err)
	}
	return sh.s
}

func (sh *sharedServer) stop() {
	if sh.s != nil {
		_ = sh.s.cmd.Process.Signal(syscall.SIGTERM)
		sh.s.wait()
	}
}

// run runs a command against the node, with stdin as its input.
func (s *server) run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	return command{args: args, env: []string{"FLOTILLA_BOOTSTRAP=" + s.addr}, stdin: strings.NewReader(stdin)}.run(t)
}

// ok is run for a command that must not fail.
func (s *server) ok(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	r := s.run(t, stdin, args...)
	if r.code != exitOK {
		t.Fatalf("flotilla %q = %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r
}

// topics counts the names that unique has given.
var topics atomic.Int64

// unique returns a topic's name that nobody else has: the node is shared, also by
// the runs of one test.
func unique(name string) string {
	return fmt.Sprintf("%s.%d", strings.NewReplacer("/", ".", "#", "-").Replace(name), topics.Add(1))
}

// topic creates a topic of the test's own and returns its name.
func (s *server) topic(t *testing.T, args ...string) string {
	t.Helper()
	name := unique(t.Name())
	s.ok(t, "", append([]string{"topic", "create", name}, args...)...)
	return name
}

// want fails the test unless the command ended with code and its standard error
// holds each text.
func (r result) want(t *testing.T, code int, stderr ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit status %d, want %d", r.code, code)
	}
	for _, text := range stderr {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error lacks %q", text)
		}
	}
	if t.Failed() {
		t.Logf("stdout %.1000q\nstderr %.1000q", r.stdout, r.stderr)
	}
}
