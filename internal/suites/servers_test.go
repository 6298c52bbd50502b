//go:build clients

package suites

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
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildDir holds what is made of the server and the suites, and is kept.
var buildDir = filepath.Join("..", "..", "bin", "suites")

// build makes the server once for all tests.
var build = sync.OnceValues(func() (string, error) {
	if name := os.Getenv("SUITES_BINARY"); name != "" {
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

const (
	startLimit = time.Minute
	stopLimit  = time.Minute
)

// fleet is "flotilla dev": nodes with fresh directories, each a process.
type fleet struct {
	cmd       *exec.Cmd
	log       string // file: what all of them log
	bootstrap chan string
	gone      chan error // gets what Wait said, once
}

// startFleet starts nodes for the length of a test, and returns their addresses, the
// first node's first. more are settings beside those of flotilla dev. At the end of
// the test they have to stop in good order, and must not have logged an error.
func startFleet(t *testing.T, nodes int, more ...string) (bootstrap []string) {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{"dev", "--nodes", strconv.Itoa(nodes), "--dir", filepath.Join(dir, "nodes"), "--client-port", "0", "--node-port", "0", "--admin-port", "0"}
	f := &fleet{
		cmd: exec.Command(binary, append(args, more...)...), log: filepath.Join(dir, "log"),
		bootstrap: make(chan string, 1), gone: make(chan error, 1),
	}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.stop(), f.complaint()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of the nodes' log:\n%s", f.tail())
		}
	})
	select {
	case all, ok := <-f.bootstrap:
		if !ok {
			t.Fatal("the nodes ended before they served")
		}
		return strings.Split(all, ",")
	case <-time.After(startLimit):
		t.Fatalf("the nodes do not serve within %v", startLimit)
	}
	return nil
}

var servesAt = regexp.MustCompile(`^  bootstrap  (\S+) `)

// start starts the processes, and does not wait until they serve.
func (f *fleet) start() error {
	log, err := os.Create(f.log)
	if err != nil {
		return err
	}
	f.cmd.Stderr, f.cmd.SysProcAttr = log, tied()
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	started := make(chan error)
	go func() {
		// The process dies with this thread, so the thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() { _ = log.Close() }()
		err := f.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// The address comes before the last line, which says that all of them serve.
		var at string
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := servesAt.FindStringSubmatch(lines.Text()); m != nil {
				at = m[1]
			}
			if strings.Contains(lines.Text(), "kill -USR1") && at != "" {
				f.bootstrap <- at
			}
		}
		close(f.bootstrap)
		f.gone <- f.cmd.Wait()
	}()
	return <-started
}

// stop ends the nodes as Ctrl-C does.
func (f *fleet) stop() error {
	_ = f.cmd.Process.Signal(syscall.SIGINT) // an error is a process that has ended
	kill := time.AfterFunc(stopLimit, func() { _ = f.cmd.Process.Kill() })
	defer kill.Stop()
	if err := <-f.gone; err != nil {
		return fmt.Errorf("the nodes ended: %w", err)
	}
	return nil
}

var wrong = regexp.MustCompile(`(?m)^.* level=ERROR .*$|^.*\bpanic: .*$`)

// complaint returns an error if a node has said that something is wrong.
func (f *fleet) complaint() error {
	text, err := os.ReadFile(f.log)
	if err != nil {
		return err
	}
	if all := wrong.FindAllString(string(text), 20); len(all) > 0 {
		return fmt.Errorf("the nodes said:\n%s", strings.Join(all, "\n"))
	}
	return nil
}

// tail returns the end of the log.
func (f *fleet) tail() string {
	text, err := os.ReadFile(f.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-16<<10):])
}
