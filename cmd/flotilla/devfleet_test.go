package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeNodeCommand makes this test's binary a node that only is ready, and ends
// as it is told: fake-node ADMIN MODE.
const fakeNodeCommand = "fake-node"

func fakeNode(args []string) int {
	fmt.Fprintln(os.Stderr, "fake", args[1])
	if args[1] == "dies" {
		fmt.Fprint(os.Stderr, "one\ntwo\nthree\nfour\nfive\nsix")
		return 3
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				w.WriteHeader(http.StatusNotFound)
			}
		}))
	}()
	<-stop
	fmt.Fprintln(os.Stderr, "stops")
	if args[1] == "stubborn" {
		select {}
	}
	return 0
}

// transcript is what a fleet says.
type transcript struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed and replaced at each write
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	close(tr.changed)
	tr.changed = make(chan struct{})
	return tr.text.Write(b)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// await waits until the fleet has said something.
func (tr *transcript) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(commandLimit)
	for {
		tr.mu.Lock()
		said, changed := strings.Contains(tr.text.String(), text), tr.changed
		tr.mu.Unlock()
		if said {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("nobody says %q\n%s", text, tr)
		}
	}
}

// Ports of tests, below those that systems give out by themselves and above those
// that freePorts chooses.
const (
	lowestTestPort = 32_000
	testPorts      = 700
)

// testPort counts the ports that were given out, from anywhere on, for another run
// of the tests may be under way.
var testPort = func() *atomic.Int64 {
	n := new(atomic.Int64)
	n.Store(rand.Int64N(testPorts))
	return n
}()

// ownPorts returns the first of n ports in a row that nobody listens on, and no
// other test of this process gets soon.
func ownPorts(t *testing.T, n int) int {
	t.Helper()
	for range testPorts {
		first := lowestTestPort + int(testPort.Add(int64(n)))%testPorts
		taken := false
		for i := range n {
			taken = taken || free(first+i) != nil
		}
		if !taken {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

// fakeFleet is a fleet of fake nodes.
type fakeFleet struct {
	*devFleet
	*transcript
	again chan os.Signal
	pids  chan []int // at ready
	stop  context.CancelFunc
	done  chan error
}

func newFakeFleet(t *testing.T, modes ...string) *fakeFleet {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := ownPorts(t, len(modes))
	f := &fakeFleet{transcript: newTranscript(), again: make(chan os.Signal, 1), pids: make(chan []int, 1), done: make(chan error, 1)}
	f.devFleet = &devFleet{program: program, out: &sharedOutput{w: f.transcript}, grace: commandLimit, again: f.again}
	for i, mode := range modes {
		admin := net.JoinHostPort(devHost, strconv.Itoa(port+i))
		f.nodes = append(f.nodes, &devNode{id: i + 1, admin: admin, args: []string{fakeNodeCommand, admin, mode}})
	}
	f.ready = func() {
		var pids []int
		for _, n := range f.nodes {
			pids = append(pids, n.cmd.Process.Pid)
		}
		f.pids <- pids
	}
	return f
}

func (f *fakeFleet) start(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	go func() { f.done <- f.run(ctx) }()
	t.Cleanup(stop)
}

func (f *fakeFleet) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-f.done:
		return err
	case <-time.After(commandLimit):
		t.Fatalf("the fleet does not end\n%s", f.transcript)
		return nil
	}
}

// ends is wait for a fleet that starts no node again.
func (f *fakeFleet) ends(t *testing.T) error {
	t.Helper()
	for late := time.After(commandLimit); ; {
		f.mu.Lock()
		again, changed := strings.Contains(f.text.String(), "is ready again"), f.changed
		f.mu.Unlock()
		if again {
			t.Fatalf("the fleet does not end: it has started a node again by itself\n%s", f.transcript)
		}
		select {
		case err := <-f.done:
			return err
		case <-changed:
		case <-late:
			t.Fatalf("the fleet does not end\n%s", f.transcript)
		}
	}
}

// TestDevFleet: a node that is killed is reported and not started again by
// itself, is started again when that is asked for, and all are stopped at the
// end.
func TestDevFleet(t *testing.T) {
	t.Parallel()
	f := newFakeFleet(t, "good", "good", "good")
	f.start(t)
	pids := <-f.pids
	for i := range 3 {
		f.await(t, fmt.Sprintf("[%d] fake good\n", i+1))
	}
	if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.await(t, fmt.Sprintf("[dev] node 2, pid %d, has ended: signal: killed\n[dev] its last lines:\n  fake good\n[dev] the others go on; start it again with: kill -USR1 %d\n", pids[1], os.Getpid()))
	if n := strings.Count(f.String(), "[2] fake good"); n != 1 {
		t.Errorf("node 2 was started %d times", n)
	}
	f.again <- syscall.SIGUSR1
	f.await(t, "[dev] node 2 is ready again")
	f.stop()
	if err := f.wait(t); err != nil {
		t.Error(err)
	}
	text := f.String()
	for i, starts := range []int{1, 2, 1} {
		if n := strings.Count(text, fmt.Sprintf("[%d] fake good", i+1)); n != starts {
			t.Errorf("node %d was started %d times, want %d", i+1, n, starts)
		}
		if n := strings.Count(text, fmt.Sprintf("[%d] stops", i+1)); n != 1 {
			t.Errorf("node %d was asked to stop %d times", i+1, n)
		}
	}
}

// TestDevFleetEnds: without any node left there is nothing to wait for.
func TestDevFleetEnds(t *testing.T) {
	t.Parallel()
	f := newFakeFleet(t, "good", "good")
	f.start(t)
	for _, pid := range <-f.pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.ends(t); err == nil || err.Error() != "all nodes have ended" {
		t.Errorf("run = %v", err)
	}
}

// TestDevFleetStartFails: a node that ends before all are ready ends the others.
func TestDevFleetStartFails(t *testing.T) {
	t.Parallel()
	f := newFakeFleet(t, "good", "dies")
	f.start(t)
	if err := f.wait(t); err == nil || err.Error() != "node 2 ended before all were ready: exit status 3" {
		t.Errorf("run = %v", err)
	}
	if want := "its last lines:\n  two\n  three\n  four\n  five\n  six\n"; !strings.Contains(f.String(), want) || !strings.Contains(f.String(), "[2] one\n") {
		t.Errorf("no %q in\n%s", want, f.transcript)
	}
	for _, n := range f.nodes {
		if n.alive {
			t.Errorf("node %d is alive", n.id)
		}
	}
	f = newFakeFleet(t, "good")
	f.program = filepath.Join(t.TempDir(), "none")
	f.start(t)
	if err := f.wait(t); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestDevFleetStubborn: a node that does not stop is killed.
func TestDevFleetStubborn(t *testing.T) {
	t.Parallel()
	f := newFakeFleet(t, "good", "stubborn")
	f.grace = 50 * time.Millisecond
	f.start(t)
	<-f.pids
	f.stop()
	if err := f.wait(t); err == nil || !strings.Contains(err.Error(), "node 2: signal: killed") {
		t.Errorf("run = %v", err)
	}
	f.await(t, "[dev] node 2 has not stopped within 50ms, and is killed\n")
}

// TestPrefixed: lines are put together from what comes, cut where they have no
// end, and the last ones kept.
func TestPrefixed(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	p := &prefixed{out: &sharedOutput{w: &text}, prefix: "[1] "}
	long := strings.Repeat("x", maxLineBytes)
	for _, part := range []string{"a", "b\nc\n\nd", "", "e\n", long, "y\n", "z"} {
		if n, err := p.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	p.end()
	p.end()
	want := "[1] ab\n[1] c\n[1] \n[1] de\n[1] " + long + "\n[1] y\n[1] z\n"
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"", "de", long, "y", "z"}, p.last()); diff != "" {
		t.Errorf("last (-want +got):\n%s", diff)
	}
}
