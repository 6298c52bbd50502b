//go:build cluster

package killtest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// network is three name spaces of the kernel's network, one for each node, on a
// bridge that is in the name space of the test itself, where the clients are. All
// of it goes with the process.
type network struct {
	t      *testing.T
	spaces [3]*exec.Cmd // each holds a name space as long as it lives
}

// hostOf returns the address of node i+1, and for 3 that of the clients.
func hostOf(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// newNetwork needs a network name space that nobody else is in: it would change
// that of the machine.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t}
	if out := n.command("ip", "-o", "link"); strings.Count(strings.TrimSpace(out), "\n") > 0 {
		t.Fatalf("the tests of a cluster run in a network name space of their own, by `make test-cluster`, as root; this one has:\n%s", out)
	}
	for _, line := range []string{
		"ip link set lo up", "ip link add nodes type bridge", "ip addr add " + hostOf(3) + "/24 dev nodes", "ip link set nodes up",
	} {
		n.command(strings.Fields(line)...)
	}
	t.Cleanup(func() { n.command("ip", "link", "del", "nodes") })
	for i := range n.spaces {
		// It ends when its input does, so when this process does.
		c := exec.Command("cat")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatalf("a network name space: %v", err)
		}
		n.spaces[i] = c
		n.command(strings.Fields(fmt.Sprintf("ip link add node%d type veth peer name eth0 netns %d", i+1, c.Process.Pid))...)
		t.Cleanup(func() {
			n.command(strings.Fields(fmt.Sprintf("ip link del node%d", i+1))...) // the other end goes too
			_ = stdin.Close()
			_ = c.Wait()
		})
		n.command(strings.Fields(fmt.Sprintf("ip link set node%d master nodes up", i+1))...)
		for _, line := range []string{"ip link set lo up", "ip addr add " + hostOf(i) + "/24 dev eth0", "ip link set eth0 up"} {
			n.command(append(n.in(i), strings.Fields(line)...)...)
		}
	}
	return n
}

// in returns the command that runs what is appended to it where node i+1 is.
func (n *network) in(i int) []string {
	return []string{"nsenter", "-t", strconv.Itoa(n.spaces[i].Process.Pid), "-n"}
}

func (n *network) command(words ...string) string {
	n.t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// lossless is what node i+1 gets when nothing is lost.
const lossless = ""

// losing makes what node i+1 gets obey rules of nftables, one a line, instead of
// those before.
func (n *network) losing(i int, rules string) {
	n.t.Helper()
	words := append(n.in(i), "nft", "-f", "-")
	c := exec.Command(words[0], words[1:]...)
	c.Stdin = strings.NewReader("table inet faults\ndelete table inet faults\ntable inet faults {\nchain in {\ntype filter hook input priority 0;\n" + rules + "\n}\n}\n")
	if out, err := c.CombinedOutput(); err != nil {
		n.t.Fatalf("nft in the name space of node %d: %v\n%s", i+1, err, out)
	}
}

// dropped is a rule: nothing comes from a node, or with 3 from the clients.
func dropped(from int) string { return "ip saddr " + hostOf(from) + " drop\n" }

// disk is a file system in memory that others may fill.
type disk struct {
	t   *testing.T
	dir string
}

// newDisk mounts one. The test's mounts are its own: `make test-cluster` sees to it.
func newDisk(t *testing.T, dir string, bytes int64) disk {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	return disk{t, dir}
}

func (d disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fill leaves no block, and empty makes it as before.
func (d disk) fill() {
	d.t.Helper()
	out, err := exec.Command("dd", "if=/dev/zero", "of="+d.ballast(), "bs=64K").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "No space left") {
		d.t.Fatalf("dd ended before the disk was full: %v\n%s", err, out)
	}
}

func (d disk) empty() {
	d.t.Helper()
	if out, err := exec.Command("rm", "-f", d.ballast()).CombinedOutput(); err != nil {
		d.t.Fatalf("rm: %v\n%s", err, out)
	}
}
