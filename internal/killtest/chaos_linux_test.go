//go:build cluster

package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// chaosFor is how long faults go on if CLUSTER_FOR does not say.
const chaosFor = 3 * time.Minute

// diskBytes is each node's disk. All that is written stays: the clients, at half of
// their pace, write some 650 MB in chaosFor and what it takes to see progress after each
// fault. At their usual pace a quick machine fills the disks.
const diskBytes = 5 << 28

// fault is what a majority of the nodes, or of the ways between them, is spared.
type fault struct {
	name   string
	stalls bool // the node goes on to lead, and what it leads may wait until it is over
	// begin makes it happen to node i+1, and returns what ends it. For how long the
	// dice say.
	begin func(c *chaos, i int) (end func())
}

var faults = []fault{
	{name: "kill -9", begin: func(c *chaos, i int) func() {
		c.ps.kill(i)
		return func() { c.ps.start(i); c.ps.serving(i) }
	}},
	{name: "SIGSTOP", begin: func(c *chaos, i int) func() {
		_ = c.ps.nodes[i].cmd.Process.Signal(syscall.SIGSTOP)
		return func() { _ = c.ps.nodes[i].cmd.Process.Signal(syscall.SIGCONT) }
	}},
	{name: "cut off from the nodes", begin: func(c *chaos, i int) func() {
		return c.losing(i, dropped((i+1)%3)+dropped((i+2)%3))
	}},
	{name: "cut off from all", begin: func(c *chaos, i int) func() {
		return c.losing(i, dropped((i+1)%3)+dropped((i+2)%3)+dropped(3))
	}},
	{name: "cut off from the clients", stalls: true, begin: func(c *chaos, i int) func() { return c.losing(i, dropped(3)) }},
	{name: "hears nobody, is heard", begin: func(c *chaos, i int) func() {
		// TCP acknowledges nothing; what the node has sent before arrives.
		return c.losing(i, "ip saddr 10.77.0.0/24 tcp flags & (syn|fin|rst|ack) == ack meta length > 60 drop\n")
	}},
	{name: "one way between two", begin: func(c *chaos, i int) func() { return c.losing(i, dropped((i+1)%3)) }},
	{name: "a fifth is lost", begin: func(c *chaos, i int) func() {
		return c.losing(i, "numgen random mod 100 < 20 drop\n")
	}},
	{name: "full disk", begin: func(c *chaos, i int) func() {
		c.disks[i].fill()
		return c.disks[i].empty
	}},
}

func (c *chaos) losing(i int, rules string) func() {
	c.net.losing(i, rules)
	return func() { c.net.losing(i, lossless) }
}

// chaos is a cluster in a network of its own, under load, and what happens to it.
type chaos struct {
	t      *testing.T
	net    *network
	ps     *processes
	disks  [3]disk
	load   *load
	chance *rand.Rand
	order  []int // of the next faults
	counts map[string]int
}

// progress waits until more records were acknowledged.
func (c *chaos) progress(what string, more int64) {
	c.t.Helper()
	c.progressOf(&c.load.acked, what, more)
}

// progressOf is progress of what acked counts.
func (c *chaos) progressOf(acked *atomic.Int64, what string, more int64) {
	c.t.Helper()
	from := acked.Load()
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for acked.Load()-from < more {
		select {
		case <-look.C:
		case <-c.load.ctx.Done():
			c.t.Fatalf("%s: %v", what, context.Cause(c.load.ctx))
		case <-timeout.C:
			c.ps.check()
			for i, s := range c.ps.nodes {
				if s != nil {
					c.t.Logf("node %d: %v", i+1, s.stuck("it is asked for its goroutines"))
				}
			}
			c.t.Fatalf("%s: %d of %d records were acknowledged in %v", what, acked.Load()-from, more, phaseTimeout)
		}
	}
}

// finish ends the load, reads everything back and checks the history.
func (c *chaos) finish(b *bench) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), phaseTimeout)
	defer cancel()
	if err := c.load.gate.shut(ctx); err != nil {
		c.t.Fatalf("not all is answered: %v", err)
	}
	if err := c.load.readAll(); err != nil {
		c.t.Fatal(err)
	}
	c.load.stop()
	b.verdict(0, c.load.rec.History(), true)
}

// strike lets one fault happen to a node, and end.
func (c *chaos) strike() {
	if len(c.order) == 0 {
		c.order = c.chance.Perm(len(faults)) // so that each gets its turn
	}
	f, i := faults[c.order[0]], c.chance.IntN(len(c.ps.nodes))
	c.order = c.order[1:]
	what := fmt.Sprintf("node %d: %s", i+1, f.name)
	began := time.Now()
	end := f.begin(c, i)
	if !f.stalls {
		c.progress(what, 200)
	}
	wait(c.load.ctx, time.Duration(c.chance.Int64N(int64(4*time.Second))))
	end()
	c.progress(what+", and over", 300)
	c.t.Logf("%s, for %v, and progress since", what, time.Since(began).Round(time.Millisecond))
	c.counts[f.name]++
	c.ps.check()
}

// TestClusterChaos strikes a cluster of three real processes in name spaces of the
// network, one node at a time, while idempotent producers of both protocols write,
// and checks the history: no acknowledged record is lost, no offset has two
// contents, none is there twice, and after each fault it goes on. Which topics there
// are a node says as far as it knows, as Kafka's do, so that is not checked here.
func TestClusterChaos(t *testing.T) {
	limit := chaosFor
	if text := os.Getenv("CLUSTER_FOR"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CLUSTER_FOR: %v", err)
		}
	}
	b := newBench(t)
	c := &chaos{t: t, net: newNetwork(t), chance: rand.New(rand.NewPCG(b.seed, 0)), counts: make(map[string]int)}
	c.ps = &processes{t: t, more: []string{"--disk.reserve.bytes", "8MiB", "--retention.check.interval", "1s", "--flush.age", "100ms"}}
	for i := range c.ps.nodes {
		dir := filepath.Join(b.dir, fmt.Sprint("disk-", i+1))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.disks[i] = newDisk(t, dir, diskBytes)
		c.ps.host[i], c.ps.data[i] = hostOf(i), filepath.Join(dir, "data")
		c.ps.run[i] = append(c.net.in(i), b.binary)
	}
	c.ps.found(b.dir)
	var err error
	rest := func(l *load) []func() {
		l.slower = 2 * max(1, int64(limit/chaosFor))
		return nil
	}
	if c.load, err = startLoad(t.Context(), c.ps.addr(0), b.seed, rest); err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.load.stop()
		if b.keep() {
			b.save(b.dir, c.load)
		}
	}()
	c.progress("at first", 500)
	for began := time.Now(); time.Since(began) < limit; {
		c.strike()
	}
	c.finish(b)
	var said []string
	for _, f := range faults {
		if c.counts[f.name] == 0 {
			t.Errorf("in %v there was no time for: %s", limit, f.name)
		}
		said = append(said, fmt.Sprintf("%d x %s", c.counts[f.name], f.name))
	}
	t.Logf("%d acknowledged; %s", c.load.acked.Load(), strings.Join(said, ", "))
}
