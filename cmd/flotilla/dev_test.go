package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// TestDevCluster: a directory is of one cluster, and of so many nodes.
func TestDevCluster(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dev")
	first, err := devCluster(dir, 3)
	if err != nil || len(first) != 22 {
		t.Fatalf("devCluster = %q, %v", first, err)
	}
	if again, err := devCluster(dir, 3); err != nil || again != first {
		t.Errorf("again: %q, %v, want %q", again, err, first)
	}
	var usage usageError
	if _, err := devCluster(dir, 1); !errors.As(err, &usage) || !strings.Contains(err.Error(), "is a cluster of 3 nodes: give --nodes 3") {
		t.Errorf("for one node: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, devFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devCluster(dir, 3); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged file: %v", err)
	}
	// As a crash leaves it, between the two steps of writing the file.
	if err := os.Rename(filepath.Join(dir, devFile), filepath.Join(dir, devFile+".tmp")); err != nil {
		t.Fatal(err)
	}
	if id, err := devCluster(dir, 3); err != nil || id == first {
		t.Errorf("after a crash: %q, %v", id, err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devCluster(other, 3); !errors.As(err, &usage) || !strings.Contains(err.Error(), "holds something else, such as thesis.tex") {
		t.Errorf("a directory of something else: %v", err)
	}
}

// TestDevArgs: each node gets addresses, a directory and an id of its own, and
// the settings that were given.
func TestDevArgs(t *testing.T) {
	t.Parallel()
	opt := devOptions{nodes: 3, dir: "d"}
	ports := devPorts{client: []int{9092, 9093, 9094}, between: []int{9192, 9193, 9194}, admin: []int{9292, 9293, 9294}}
	want := strings.Fields("serve --data.dir=d/node2 --node.id=2 --cluster.id=c --listen=127.0.0.1:9093 --admin.listen=127.0.0.1:9293 " +
		"--node.listen=127.0.0.1:9193 --cluster.nodes=1@127.0.0.1:9192,2@127.0.0.1:9193,3@127.0.0.1:9194 --flush.age=5s")
	if diff := cmp.Diff(want, opt.args(1, "c", ports, []string{"--flush.age=5s"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	opt.racks = []string{"a", "b"}
	if _, err := opt.check(pflag.NewFlagSet("dev", pflag.ContinueOnError)); err == nil {
		t.Error("three nodes take two racks")
	}
	opt.racks = append(opt.racks, "c")
	if diff := cmp.Diff(append(want[:len(want)-1:len(want)-1], "--rack=b"), opt.args(1, "c", ports, nil)); diff != "" {
		t.Errorf("with racks (-want +got):\n%s", diff)
	}
	opt.nodes = 1
	if got := strings.Join(opt.args(0, "c", ports, nil), " "); strings.Contains(got, "cluster.nodes") {
		t.Errorf("a node alone gets %s", got)
	}
}

// TestDevRefused: what is wrong with the command line is found before anything
// is started or made.
func TestDevRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", devHost+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	tests := []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--nodes", "0"}, exitUsage, "give 1 to 5"},
		{[]string{"--nodes", "6"}, exitUsage, "give 1 to 5"},
		{[]string{"--client-port", "65534"}, exitUsage, "--client-port 65534"},
		{[]string{"--admin-port", "-1"}, exitUsage, "--admin-port -1"},
		{[]string{"--listen", "127.0.0.1:1"}, exitUsage, "gives each node its own --listen"},
		{[]string{"--data.dir", "x"}, exitUsage, "gives each node its own --data.dir"},
		{[]string{"--flush.age", "x"}, exitUsage, "flush.age"},
		{[]string{"--flush.edge", "1s"}, exitUsage, "did you mean --flush.age?"},
		{[]string{"--nodes", "1", "--client-port", taken}, exitFailed, "choose another with --client-port"},
		{[]string{"--racks", "a,b"}, exitUsage, "--racks names 2 racks: give one for each node, 3"},
		{[]string{"--racks", "a,b,c", "--rack", "d"}, exitUsage, "give one of them"},
		{[]string{"now"}, exitUsage, "takes no argument"},
	}
	dir := t.TempDir()
	for _, tt := range tests {
		args := append([]string{"dev", "--dir", "d", "--client-port", "0", "--node-port", "0", "--admin-port", "0"}, tt.args...)
		command{args: args, dir: dir}.run(t).want(t, tt.code, tt.text)
	}
	if found, err := os.ReadDir(dir); err != nil || len(found) > 0 {
		t.Errorf("%v was made, %v", found, err)
	}
}

// devProcess is flotilla dev with real nodes.
type devProcess struct {
	cmd       *exec.Cmd
	log       *transcript
	bootstrap string
	dir       string // of all nodes
	pids      []int
}

func startDev(t *testing.T, nodes, port int) *devProcess {
	t.Helper()
	ports := [3]string{"0", "0", "0"}
	for i := range ports {
		if port > 0 {
			ports[i] = strconv.Itoa(port + i*nodes)
		}
	}
	d := &devProcess{log: newTranscript(), dir: filepath.Join(t.TempDir(), "dev")}
	d.cmd = exec.Command(program, "dev", "--nodes", strconv.Itoa(nodes), "--dir", d.dir,
		"--client-port", ports[0], "--node-port", ports[1], "--admin-port", ports[2], "--journal.file.bytes", "8MiB", "--journal.bytes", "32MiB")
	d.cmd.Env, d.cmd.Stderr = environment(), d.log
	out, err := d.cmd.StdoutPipe()
	if err == nil {
		err = d.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
	})
	late := time.AfterFunc(commandLimit, func() { _ = d.cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`^  bootstrap  (\S+) `).FindStringSubmatch(lines.Text()); m != nil {
			d.bootstrap = m[1]
		}
		if m := regexp.MustCompile(`^  node \d+     pid (\d+),`).FindStringSubmatch(lines.Text()); m != nil {
			pid, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			d.pids = append(d.pids, pid)
		}
		if strings.Contains(lines.Text(), "kill -USR1") { // the last line
			if d.bootstrap == "" || len(d.pids) != nodes {
				t.Fatalf("ready without saying where: %q, %v", d.bootstrap, d.pids)
			}
			return d
		}
	}
	_ = d.cmd.Wait()
	t.Fatalf("dev: %v\n%s", d.cmd.ProcessState, d.log)
	return nil
}

// end stops it as Ctrl-C does.
func (d *devProcess) end(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(commandLimit, func() { _ = d.cmd.Process.Kill() })
	defer late.Stop()
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("dev ended: %v\n%s", err, d.log)
	}
}

// TestDevAlone: a real node, to which commands get, and which stops in good order.
func TestDevAlone(t *testing.T) {
	t.Parallel()
	d := startDev(t, 1, 0)
	s := &server{addr: d.bootstrap}
	s.ok(t, "", "topic", "create", "t")
	s.ok(t, "a\nb\n", "produce", "t")
	if got := s.ok(t, "", "consume", "t", "--until", "end", "-q").stdout; got != "a\nb\n" {
		t.Errorf("consume prints %q", got)
	}
	d.end(t)
	if !strings.Contains(d.log.String(), "[dev] stopping\n") || !regexp.MustCompile(`\[1\] .*stopping`).MatchString(d.log.String()) {
		t.Errorf("the node was not stopped in good order\n%s", d.log)
	}
}

// TestDevThree: three real nodes. The one that leads a partition is killed: the
// others have what was acknowledged, take more, and say who is missing; it
// comes back when that is asked for.
func TestDevThree(t *testing.T) {
	t.Parallel()
	d := startDev(t, 3, ownPorts(t, 9))
	s := &server{addr: d.bootstrap}
	s.ok(t, "", "topic", "create", "t")
	s.ok(t, "a\nb\n", "produce", "t")
	var topic struct {
		Partitions []struct {
			Leader int `json:"leader"`
		} `json:"partitions"`
	}
	if err := json.Unmarshal([]byte(s.ok(t, "", "topic", "describe", "t", "-o", "json").stdout), &topic); err != nil || len(topic.Partitions) != 1 || topic.Partitions[0].Leader < 1 {
		t.Fatalf("the partition's leader: %+v, %v", topic, err)
	}
	leader := topic.Partitions[0].Leader
	if err := syscall.Kill(d.pids[leader-1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, fmt.Sprintf("[dev] node %d, pid %d, has ended: signal: killed\n", leader, d.pids[leader-1]))
	s.ok(t, "c\n", "produce", "t")
	if got := s.ok(t, "", "consume", "t", "--until", "end", "-q").stdout; got != "a\nb\nc\n" {
		t.Errorf("consume prints %q", got)
	}
	status := s.run(t, "", "cluster", "status", "--wait", "10s")
	if want := fmt.Sprintf("- node %d does not answer node ", leader); status.code != exitDegraded || !strings.Contains(status.stdout, want) {
		t.Errorf("cluster status: %d without %q\n%s%s", status.code, want, status.stdout, status.stderr)
	}
	if err := d.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, fmt.Sprintf("[dev] node %d is ready again", leader))
	if got := s.ok(t, "", "cluster", "nodes", "--wait", "10s").stdout; strings.Count(got, " up ") != 3 {
		t.Errorf("cluster nodes prints\n%s", got)
	}
	d.end(t)
}

// TestDevWiped: three real nodes, of which one is killed and loses its data. It comes
// back with none, has its place again by itself, and is worth as much as before: the
// cluster outlives another node.
func TestDevWiped(t *testing.T) {
	t.Parallel()
	d := startDev(t, 3, ownPorts(t, 9))
	s := &server{addr: d.bootstrap}
	s.ok(t, "", "topic", "create", "t", "--partitions", "4")
	s.ok(t, "a\nb\n", "produce", "t")
	kill := func(node int) {
		t.Helper()
		if err := syscall.Kill(d.pids[node-1], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.log.await(t, fmt.Sprintf("[dev] node %d, pid %d, has ended: signal: killed\n", node, d.pids[node-1]))
	}
	kill(3)
	if err := os.RemoveAll(filepath.Join(d.dir, "node3")); err != nil {
		t.Fatal(err)
	}
	s.ok(t, "c\n", "produce", "t")
	if err := d.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, "[dev] node 3 is ready again")
	for shard := range 7 { // the metadata's, and two of data a node
		d.log.await(t, fmt.Sprintf("a replica was replaced: the one of the fresh directory votes\" shard=%d ", shard))
	}
	s.ok(t, "", "cluster", "status", "--wait", "10s")
	kill(1)
	s.ok(t, "d\n", "produce", "t")
	got := strings.Fields(s.ok(t, "", "consume", "t", "--until", "end", "-q").stdout)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("consume prints %q", got)
	}
	d.end(t)
}
