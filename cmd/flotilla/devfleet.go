package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyTick is how often a node is asked whether it is ready.
	readyTick = 100 * time.Millisecond

	// outputGrace is how long the output of a process that has ended is waited for.
	outputGrace = 5 * time.Second
)

// devFleet runs the processes of flotilla dev. run does all of it, once.
type devFleet struct {
	program string
	nodes   []*devNode
	out     *sharedOutput // what the nodes and the fleet say
	grace   time.Duration // how long a node may take to stop
	again   <-chan os.Signal
	ready   func() // called once, when all nodes are ready for the first time

	events chan devEvent
	spawn  chan func() // run on one thread, in turn; see spawner
}

// devNode is one node of a devFleet.
type devNode struct {
	id    int
	args  []string
	admin string // host:port of /readyz

	// Of the process that runs now, or ran last; run's alone.
	cmd   *exec.Cmd
	log   *prefixed
	alive bool
	ready bool
}

// devEvent says that a node is ready, or that its process has ended.
type devEvent struct {
	node  *devNode
	cmd   *exec.Cmd // whose event it is
	ended bool
	err   error // of a process that has ended
}

// spawner runs functions on a thread that lives until stop is called: the kernel
// ends a child when the thread that started it ends, and Go ends threads.
func spawner() (spawn chan func(), stop func()) {
	spawn = make(chan func())
	var group sync.WaitGroup
	group.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		for f := range spawn {
			f()
		}
	})
	return spawn, func() {
		close(spawn)
		group.Wait()
	}
}

// say writes a line of the fleet's own.
func (f *devFleet) say(format string, args ...any) {
	_, _ = fmt.Fprintf(f.out, "[dev] "+format+"\n", args...)
}

// run starts all nodes, and returns when ctx ends and they are stopped, or when
// none is left. A node that ends by itself before all are ready ends the others;
// one that ends later does not, and is started again when again says so.
func (f *devFleet) run(ctx context.Context) (err error) {
	var stopSpawner func()
	f.spawn, stopSpawner = spawner()
	defer stopSpawner()
	f.events = make(chan devEvent, 2*len(f.nodes))
	polling, stopPolling := context.WithCancel(ctx)
	var polls sync.WaitGroup
	defer polls.Wait()
	defer stopPolling()
	for _, n := range f.nodes {
		if err := f.start(polling, &polls, n); err != nil {
			return errors.Join(err, f.stop())
		}
	}
	for first := true; ; {
		select {
		case <-ctx.Done():
			f.say("stopping")
			return f.stop()
		case <-f.again:
			for _, n := range f.nodes {
				if n.alive {
					continue
				}
				if err := f.start(polling, &polls, n); err != nil {
					f.say("%v", err)
				}
			}
		case e := <-f.events:
			switch {
			case e.cmd != e.node.cmd: // of an earlier process
			case e.ended:
				f.ended(e)
				if first {
					f.report(e)
					return errors.Join(fmt.Errorf("node %d ended before all were ready: %s", e.node.id, how(e)), f.stop())
				}
				f.report(e)
				if f.living() == 0 {
					return errors.New("all nodes have ended")
				}
				f.say("the others go on; start it again with: kill -USR1 %d", os.Getpid())
			default:
				e.node.ready = true
				if !first {
					f.say("node %d is ready again, pid %d", e.node.id, e.node.cmd.Process.Pid)
				} else if f.allReady() {
					first = false
					f.ready()
				}
			}
		}
	}
}

// start starts the process of a node, and asks whether it is ready.
func (f *devFleet) start(ctx context.Context, polls *sync.WaitGroup, n *devNode) error {
	n.log = &prefixed{out: f.out, prefix: fmt.Sprintf("[%d] ", n.id)}
	cmd := exec.Command(f.program, n.args...)
	cmd.Stderr, cmd.SysProcAttr, cmd.WaitDelay = n.log, childAttr(), outputGrace
	started := make(chan error)
	f.spawn <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("node %d: %w", n.id, err)
	}
	n.cmd, n.alive, n.ready = cmd, true, false
	over := make(chan struct{})
	go func() { // joined by the event that it ends with
		err := cmd.Wait()
		close(over)
		f.events <- devEvent{node: n, cmd: cmd, ended: true, err: err}
	}()
	polls.Go(func() {
		if awaitReady(ctx, over, n.admin) {
			select {
			case f.events <- devEvent{node: n, cmd: cmd}:
			case <-over:
			case <-ctx.Done():
			}
		}
	})
	return nil
}

// awaitReady reports whether a node became ready before its process was over.
func awaitReady(ctx context.Context, over <-chan struct{}, admin string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Timeout: time.Second, Transport: transport}
	tick := time.NewTicker(readyTick)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/readyz", nil)
		if err != nil {
			return false // no address: the node itself has said so
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-tick.C:
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (f *devFleet) ended(e devEvent) {
	e.node.alive, e.node.ready = false, false
	e.node.log.end()
}

// endedBy reports whether a process ended by a signal that it did not take.
func endedBy(err error, s syscall.Signal) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == s
}

// how says how a process ended.
func how(e devEvent) string {
	if e.err == nil {
		return "exit status 0"
	}
	return e.err.Error()
}

// report says how a node ended, and what it said last.
func (f *devFleet) report(e devEvent) {
	f.say("node %d, pid %d, has ended: %s", e.node.id, e.cmd.Process.Pid, how(e))
	if last := e.node.log.last(); len(last) > 0 {
		f.say("its last lines:\n  %s", strings.Join(last, "\n  "))
	}
}

func (f *devFleet) living() (n int) {
	for _, node := range f.nodes {
		if node.alive {
			n++
		}
	}
	return n
}

func (f *devFleet) allReady() bool {
	for _, n := range f.nodes {
		if !n.ready {
			return false
		}
	}
	return true
}

// stop stops the nodes that are alive, and kills those that do not stop in time.
// It returns how those ended that did not end well.
func (f *devFleet) stop() error {
	signal := func(s syscall.Signal) {
		for _, n := range f.nodes {
			if n.alive {
				_ = n.cmd.Process.Signal(s) // it may have ended just now
			}
		}
	}
	signal(syscall.SIGTERM)
	late := time.NewTimer(f.grace)
	defer late.Stop()
	var errs []error
	for f.living() > 0 {
		select {
		case e := <-f.events:
			if !e.ended || e.cmd != e.node.cmd {
				continue
			}
			f.ended(e)
			if e.err != nil && !endedBy(e.err, syscall.SIGTERM) { // before it could take a signal, which is as good
				errs = append(errs, fmt.Errorf("node %d: %w", e.node.id, e.err))
			}
		case <-late.C:
			for _, n := range f.nodes {
				if n.alive {
					f.say("node %d has not stopped within %s, and is killed", n.id, f.grace)
				}
			}
			signal(syscall.SIGKILL)
		}
	}
	return errors.Join(errs...)
}
