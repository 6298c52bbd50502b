package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDevJoin: a fourth node joins three that run, as docs/operations.md says, has part of a
// topic that is made then, goes on at other ports without being told where the others are,
// and what was written is there while one of the three is away.
func TestDevJoin(t *testing.T) {
	t.Parallel()
	port := ownPorts(t, 9)
	d := startDev(t, 3, port)
	dir, between := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", port+3) // the first one's node.listen
	serve := func(args ...string) *server {
		t.Helper()
		s, err := startServer(dir, append([]string{"--node.id", "4", "--node.listen", "127.0.0.1:0", "--admin.listen", "off"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if s.cmd.ProcessState == nil {
				_ = s.cmd.Process.Kill()
				s.wait()
			}
		})
		return s
	}
	kill := func(s *server) {
		t.Helper()
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		s.wait()
	}
	s := &server{addr: d.bootstrap}
	healthy := func() {
		t.Helper()
		for late := time.After(commandLimit); ; {
			r := s.run(t, "", "cluster", "status", "--wait", "10s")
			if r.code == exitOK {
				return
			}
			select {
			case <-late:
				t.Fatalf("the cluster does not become healthy:\n%s%s", r.stdout, r.stderr)
			default:
			}
		}
	}
	fourth := serve("--join", between)
	if !strings.Contains(fourth.greeting, "it has joined those that were there") {
		t.Errorf("it says\n%s", fourth.greeting)
	}
	s.ok(t, "", "topic", "create", "t", "--partitions", "16")                                                               // on each shard one
	if described := s.ok(t, "", "topic", "describe", "t", "-o", "json").stdout; !strings.Contains(described, `"shard":7`) { // the cluster began with 6
		t.Errorf("nothing of a new topic is on a shard that was made for the new node:\n%s", described)
	}
	healthy()
	if nodes := s.ok(t, "", "cluster", "nodes", "-o", "json").stdout; !strings.Contains(nodes, fourth.addr) {
		t.Errorf("%s is not among the nodes:\n%s", fourth.addr, nodes)
	}
	s.ok(t, "a\nb\n", "produce", "t")
	kill(fourth)
	s.ok(t, "c\n", "produce", "t")
	fourth = serve()
	healthy()
	if err := syscall.Kill(d.pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, fmt.Sprintf("[dev] node 1, pid %d, has ended: signal: killed\n", d.pids[0]))
	s.ok(t, "d\n", "produce", "t")
	got := strings.Fields((&server{addr: fourth.addr}).ok(t, "", "consume", "t", "--until", "end", "-q").stdout)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("consume prints %q", got)
	}
	kill(fourth)
	alone := command{args: []string{"serve", "--data.dir", dir, "--node.id", "4", "--cluster.id", "c", "--cluster.nodes", "4@" + between}}.run(t)
	if alone.code != 1 || !strings.Contains(alone.stderr, "data directory belongs to another node") {
		t.Errorf("of a cluster of its own: status %d\n%s", alone.code, alone.stderr)
	}
	d.end(t)
}
