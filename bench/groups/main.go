// Command groups measures what consumer groups cost: the heartbeats of many idle
// groups at one node; commits at a rate, on three nodes; and how long the partitions
// of a member that leaves are consumed by nobody, beside Apache Kafka if its jars are
// at hand. All servers run on this machine. docs/benchmarks.md says how to read it;
// make bench-groups runs it.
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
	binary, script, jars string
	dir, out             string

	groups, members int
	watch           time.Duration

	commits   int // a second
	commitFor time.Duration

	leaves int
	plot   string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	fl := flag.NewFlagSet("groups", flag.ContinueOnError)
	fl.SetOutput(stderr)
	fl.StringVar(&o.binary, "flotilla", "bin/flotilla", "the binary")
	fl.StringVar(&o.script, "script", "bench/peers/kafka.sh", "what runs Apache Kafka")
	fl.StringVar(&o.jars, "kafka", "", "what make kafka-jars has filled; empty: nothing to compare with")
	fl.StringVar(&o.dir, "dir", "", "directory for the servers' data; default: one of the run's own. What is in it is deleted afterwards")
	fl.StringVar(&o.out, "json", "", "file for everything that was measured")
	fl.IntVar(&o.groups, "groups", 1000, "idle groups; 0: leave this out")
	fl.IntVar(&o.members, "members", 10, "members of each")
	fl.DurationVar(&o.watch, "watch", 30*time.Second, "how long they are watched")
	fl.IntVar(&o.commits, "commits", 10_000, "commits a second; 0: leave this out")
	fl.DurationVar(&o.commitFor, "commit-for", 20*time.Second, "how long")
	fl.IntVar(&o.leaves, "leaves", 10, "members that leave, one after the other, of each server in each protocol; 0: leave this out")
	fl.StringVar(&o.plot, "plot", "", "file for a picture (SVG) of who consumes what while a member leaves and comes back")
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fl.NArg() > 0:
		return o, fmt.Errorf("groups: unexpected %q", fl.Args())
	case o.groups < 0 || o.commits < 0 || o.leaves < 0:
		return o, errors.New("groups: numbers must not be negative")
	case o.members < 1 || o.watch <= 0 || o.commitFor <= 0:
		return o, errors.New("groups: -members, -watch and -commit-for have to be positive")
	}
	return o, nil
}

func main() { peer.Main(parse) }

// Run starts the servers and measures. What was measured before an error is reported
// all the same.
func (o options) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return peer.InDirectory(o.dir, "flotilla-groups-", func(dir string) error {
		r := new(report)
		err := o.measure(ctx, dir, r, stderr)
		return errors.Join(err, r.table(stdout), peer.SaveJSON(o.out, r))
	})
}

func (o options) measure(ctx context.Context, dir string, r *report, stderr io.Writer) error {
	if o.groups > 0 {
		for _, protocol := range protocols {
			fmt.Fprintf(stderr, "%d groups of %d members, %s\n", o.groups, o.members, protocol)
			row, err := o.crowd(ctx, dir, protocol)
			if err != nil {
				return err
			}
			r.Crowds = append(r.Crowds, row)
		}
	}
	if o.commits > 0 {
		fmt.Fprintf(stderr, "%d commits a second\n", o.commits)
		row, err := o.commit(ctx, dir)
		if err != nil {
			return err
		}
		r.Commits = append(r.Commits, row)
	}
	if o.leaves > 0 || o.plot != "" {
		rows, err := o.leave(ctx, dir, stderr)
		r.Leaves = append(r.Leaves, rows...)
		return err
	}
	return nil
}
