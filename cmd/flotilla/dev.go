package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/internal/config"
)

const (
	maxDevNodes = 5 // of cluster.nodes
	devHost     = "127.0.0.1"
	devFile     = "dev.json" // in the directory: what it was made for
)

// devSettings are what flotilla dev gives each node itself.
var devSettings = []string{
	"data.dir", "node.id", "cluster.id", "cluster.nodes", "join", "listen", "advertise", "node.listen", "node.advertise", "admin.listen",
}

// devOptions are the flags of flotilla dev.
type devOptions struct {
	nodes                  int
	dir                    string
	client, between, admin int // the first node's ports; 0: free ones
	racks                  []string
}

func devCommand() *cobra.Command {
	var opt devOptions
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of several nodes on this machine, to try things out",
		Long: `Run a cluster of several nodes on this machine, each a process of its own with
its own directory below --dir, until Ctrl-C or SIGTERM stops them all. What they
log comes with the node's number before it.

A node that ends is not started again by itself, so that you can see what the
others do: SIGUSR1 to this process starts those again that have ended. If this
process is killed, so are its nodes (on Linux); nothing that was acknowledged is
lost.

Each setting of "flotilla serve" can be given too, and holds for each node, but
for addresses, directories and ids. Unless it is given, memory.bytes is what one
node would have, divided among them.

This is for one machine and for trials: it listens on 127.0.0.1 alone.`,
		Example: `  flotilla dev
  flotilla dev --nodes 5 --dir /tmp/five --client-port 19092
  flotilla dev --journal.bytes 256MiB
  flotilla dev --racks a,b,c --replica.selector.class org.apache.kafka.common.replica.RackAwareReplicaSelector`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return dev(c, opt) },
	}
	fl := c.Flags()
	fl.IntVar(&opt.nodes, "nodes", 3, "how many, 1 to 5")
	fl.StringVar(&opt.dir, "dir", "flotilla-dev", "directory of the nodes' directories")
	fl.IntVar(&opt.client, "client-port", 9092, "port for clients of the first node, the others have the next ones; 0: free ones")
	fl.IntVar(&opt.between, "node-port", 9192, "the same for the other nodes")
	fl.IntVar(&opt.admin, "admin-port", 9292, "the same for metrics and health")
	fl.StringSliceVar(&opt.racks, "racks", nil, "the rack of each node, the first node's first, for clients that read from their own (see replica.selector.class)")
	addSettings(c, true)
	_ = c.MarkFlagDirname("dir")
	hideConnectionFlags(c)
	return c
}

func dev(c *cobra.Command, opt devOptions) error {
	given, err := opt.check(c.Flags())
	if err != nil {
		return err
	}
	v, err := settings(c, os.Environ())
	if err != nil {
		return err
	}
	ports, err := opt.ports()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("this program cannot be found, to be started once more: %w", err)
	}
	id, err := devCluster(opt.dir, opt.nodes)
	if err != nil {
		return err
	}
	if memory := v.Of("memory.bytes"); memory.Origin.Kind == config.FromDefault {
		share := max(v.Bytes("memory.bytes")/int64(opt.nodes), 64<<20)
		given = append(given, fmt.Sprintf("--memory.bytes=%d", share))
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGUSR1)
	defer signal.Stop(again)
	f := &devFleet{
		program: program, out: &sharedOutput{w: c.ErrOrStderr()}, again: again,
		grace: v.Duration("drain.timeout") + 10*time.Second,
	}
	for i := range opt.nodes {
		f.nodes = append(f.nodes, &devNode{id: i + 1, args: opt.args(i, id, ports, given), admin: ports.address(ports.admin, i)})
	}
	began := time.Now()
	f.ready = func() { printDev(c.OutOrStdout(), f, opt, ports, id, time.Since(began)) }
	f.say("starting %s of cluster %s in %s", count(opt.nodes, "node"), id, opt.dir)
	return f.run(c.Context())
}

// check checks the flags, and returns the settings that are to be handed on.
func (opt *devOptions) check(fl *pflag.FlagSet) (given []string, err error) {
	if opt.nodes < 1 || opt.nodes > maxDevNodes {
		return nil, usagef("--nodes %d: give 1 to %d", opt.nodes, maxDevNodes)
	}
	if n := len(opt.racks); n != 0 && n != opt.nodes {
		return nil, usagef("--racks names %s: give one for each node, %d", count(n, "rack"), opt.nodes)
	}
	if len(opt.racks) > 0 && fl.Changed("rack") {
		return nil, usagef("--rack is that of all nodes, and --racks has one for each: give one of them")
	}
	for name, port := range map[string]int{"client-port": opt.client, "node-port": opt.between, "admin-port": opt.admin} {
		if port < 0 || port+opt.nodes > 1<<16 {
			return nil, usagef("--%s %d: give a port of which the next %d are ports too, or 0", name, port, opt.nodes-1)
		}
	}
	fl.Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == configFlag:
		case config.Find(f.Name) == nil:
			return
		case slices.Contains(devSettings, f.Name) && err == nil:
			err = usagef("flotilla dev gives each node its own --%s; see %q", f.Name, "flotilla dev --help")
		}
		given = append(given, "--"+f.Name+"="+f.Value.String())
	})
	return given, err
}

// args is the command line of node i, counted from 0.
func (opt *devOptions) args(i int, id string, ports devPorts, given []string) []string {
	args := []string{
		"serve", "--data.dir=" + filepath.Join(opt.dir, fmt.Sprintf("node%d", i+1)), "--node.id=" + strconv.Itoa(i+1), "--cluster.id=" + id,
		"--listen=" + ports.address(ports.client, i), "--admin.listen=" + ports.address(ports.admin, i),
	}
	if opt.nodes > 1 {
		var all []string
		for j := range opt.nodes {
			all = append(all, fmt.Sprintf("%d@%s", j+1, ports.address(ports.between, j)))
		}
		args = append(args, "--node.listen="+ports.address(ports.between, i), "--cluster.nodes="+strings.Join(all, ","))
	}
	if len(opt.racks) > 0 {
		args = append(args, "--rack="+opt.racks[i])
	}
	return append(args, given...)
}

// devPorts are the ports of each node.
type devPorts struct{ client, between, admin []int }

func (p devPorts) address(of []int, i int) string {
	return net.JoinHostPort(devHost, strconv.Itoa(of[i]))
}

// ports chooses the ports, and finds out whether they are free: a node that
// cannot have its own would be taken for whoever has it.
func (opt *devOptions) ports() (p devPorts, err error) {
	for _, kind := range []struct {
		flag  string
		first int
		ports *[]int
	}{{"client-port", opt.client, &p.client}, {"node-port", opt.between, &p.between}, {"admin-port", opt.admin, &p.admin}} {
		if kind.first == 0 {
			if *kind.ports, err = freePorts(opt.nodes); err != nil {
				return p, err
			}
			continue
		}
		for i := range opt.nodes {
			if err := free(kind.first + i); err != nil {
				return p, fmt.Errorf("%w; choose another with --%s, or 0 for any", err, kind.flag)
			}
			*kind.ports = append(*kind.ports, kind.first+i)
		}
	}
	return p, nil
}

func free(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(devHost, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// freePorts returns n ports in a row that nobody listens on, outside of those
// that systems give out by themselves.
func freePorts(n int) ([]int, error) {
	const lowest, highest, attempts = 10_240, 32_000, 100
	var err error
	for range attempts {
		at, randErr := rand.Int(rand.Reader, big.NewInt(highest-lowest))
		if randErr != nil {
			return nil, randErr
		}
		ports := make([]int, n)
		for i := range ports {
			ports[i] = lowest + int(at.Int64()) + i
			err = errors.Join(err, free(ports[i]))
		}
		if err == nil {
			return ports, nil
		}
		err = nil
	}
	return nil, fmt.Errorf("no %d free ports in a row between %d and %d", n, lowest, highest)
}

// devDirectory is the content of devFile.
type devDirectory struct {
	ClusterID string `json:"cluster_id"`
	Nodes     int    `json:"nodes"`
}

// devCluster returns the cluster id of a directory, which it makes, durably, if
// there is none. A cluster is made for a number of nodes.
func devCluster(dir string, nodes int) (string, error) {
	name := filepath.Join(dir, devFile)
	raw, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	default:
		var d devDirectory
		if err := json.Unmarshal(raw, &d); err != nil || d.ClusterID == "" {
			return "", fmt.Errorf("%s is damaged; remove %s to begin anew, or give another --dir", name, dir)
		}
		if d.Nodes != nodes {
			return "", usagef("%s is a cluster of %s: give --nodes %d, or another --dir, or remove it to begin anew", dir, count(d.Nodes, "node"), d.Nodes)
		}
		return d.ClusterID, nil
	}
	if found, err := os.ReadDir(dir); err == nil {
		for _, entry := range found {
			if entry.Name() != devFile+".tmp" {
				return "", usagef("%s holds something else, such as %s: give another --dir", dir, entry.Name())
			}
		}
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	random[0] &= 0x7f // no leading '-', which a command would take for a flag
	d := devDirectory{ClusterID: base64.RawURLEncoding.EncodeToString(random[:]), Nodes: nodes}
	if raw, err = json.Marshal(d); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return d.ClusterID, writeDurably(name, append(raw, '\n'))
}

// writeDurably writes a file that is either whole or not there.
func writeDurably(name string, content []byte) error {
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// printDev says that all nodes are ready, and what can be done with them.
func printDev(w io.Writer, f *devFleet, opt devOptions, ports devPorts, id string, took time.Duration) {
	var bootstrap []string
	for i := range opt.nodes {
		bootstrap = append(bootstrap, ports.address(ports.client, i))
	}
	all := strings.Join(bootstrap, ",")
	var b strings.Builder
	fmt.Fprintf(&b, "flotilla %s: %s of cluster %s ready in %s\n", version, count(opt.nodes, "node"), id, took.Round(time.Millisecond))
	fmt.Fprintf(&b, "  bootstrap  %s (native protocol and Kafka's)\n", all)
	for i, n := range f.nodes {
		fmt.Fprintf(&b, "  node %d     pid %d, http://%s/metrics\n", n.id, n.cmd.Process.Pid, ports.address(ports.admin, i))
	}
	fmt.Fprintf(&b, "  data       %s\nTry:\n%s\n", opt.dir, indent(
		"export FLOTILLA_BOOTSTRAP="+all,
		"flotilla topic create hello --partitions 3",
		"flotilla cluster shards",
		fmt.Sprintf("kill -9 %d      # node %d", f.nodes[0].cmd.Process.Pid, f.nodes[0].id),
		fmt.Sprintf("kill -USR1 %d   # starts it again", os.Getpid()),
	))
	_, _ = io.WriteString(w, b.String())
}
