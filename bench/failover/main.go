// Command failover measures what clients of three nodes wait for when one of them
// fails: a node that leads is killed, or stopped, while records are produced
// through franz-go and the native client; the same with many partitions; and a
// node comes back that was away for longer than its journal reaches. All nodes run
// on this machine. docs/benchmarks.md says how to read it; make bench-failover
// runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/flotilla-log/flotilla/internal/peer"
)

// options are the command line.
type options struct {
	binary, dir, out string
	kills, stops     int
	manyKills        int
	partitions       int
	rate             float64
	many             int
	idle             time.Duration
	journal          int64
	catchUp          bool
	patience, quiet  time.Duration
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	fl := flag.NewFlagSet("failover", flag.ContinueOnError)
	fl.SetOutput(stderr)
	fl.StringVar(&o.binary, "flotilla", "bin/flotilla", "the binary")
	fl.StringVar(&o.dir, "dir", "", "directory for the nodes' data; default: one of the run's own. What is in it is deleted afterwards")
	fl.StringVar(&o.out, "json", "", "file for every round and the summary")
	fl.IntVar(&o.kills, "kills", 30, "how often a node is killed")
	fl.IntVar(&o.stops, "stops", 10, "how often one is stopped by SIGSTOP")
	fl.IntVar(&o.partitions, "partitions", 24, "partitions that each client writes to")
	fl.Float64Var(&o.rate, "rate", 1000, "records a second of each client")
	fl.IntVar(&o.many, "many", 10_000, "partitions that are created besides; 0: none")
	fl.IntVar(&o.manyKills, "many-kills", 3, "how often a node is killed with those")
	fl.DurationVar(&o.idle, "idle", time.Minute, "how long the nodes' CPU time is measured with those and without load")
	fl.Int64Var(&o.journal, "journal", 256<<20, "journal.bytes of each node")
	fl.BoolVar(&o.catchUp, "catch-up", true, "have a node catch up three times that")
	fl.DurationVar(&o.quiet, "quiet", 11*time.Second, "how long nothing moves before a fault: franz-go asks for metadata at most once in 5 s, and leaders that moved back make it ask twice")
	fl.DurationVar(&o.patience, "patience", 2*time.Minute, "how long anything may take before the run fails")
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fl.NArg() > 0:
		return o, fmt.Errorf("failover: unexpected %q", fl.Args())
	case o.kills < 0 || o.stops < 0 || o.many < 0 || o.manyKills < 0 || o.idle < 0 || o.quiet < 0:
		return o, errors.New("failover: numbers must not be negative")
	case o.partitions < nodes || o.rate <= 0 || o.journal <= 0 || o.patience <= 0:
		return o, fmt.Errorf("failover: -partitions has to be %d at least, -rate, -journal and -patience positive", nodes)
	}
	return o, nil
}

func main() { peer.Main(parse) }

// Run starts the nodes and measures. What was measured before an error is
// reported all the same.
func (o options) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return peer.InDirectory(o.dir, "flotilla-failover-", func(dir string) error { return o.runIn(ctx, dir, stdout, stderr) })
}

func (o options) runIn(ctx context.Context, dir string, stdout, stderr io.Writer) (err error) {
	t, err := start(ctx, o, dir, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	err = t.measure(ctx)
	return errors.Join(err, t.report.table(stdout), peer.SaveJSON(o.out, &t.report))
}
