// Command peers compares Flotilla with Apache Kafka on one machine: both are
// started, and the same loads are put on them in Kafka's protocol by the same
// program, in turns. Each is warmed up first, until two runs agree, and medians
// are printed. docs/benchmarks.md says how to read them; make bench-kafka runs
// it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/internal/peer"
)

// options are the command line.
type options struct {
	binary, script, jars, dir, out string
	pairs, maxWarmups              int
	agree                          float64
	loads                          loads
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	fl := flag.NewFlagSet("peers", flag.ContinueOnError)
	fl.SetOutput(stderr)
	fl.StringVar(&o.binary, "flotilla", "bin/flotilla", "the binary, server and load")
	fl.StringVar(&o.script, "script", "bench/peers/kafka.sh", "what starts Kafka")
	fl.StringVar(&o.jars, "kafka", "", "directory that make kafka-jars has filled; needed")
	fl.StringVar(&o.dir, "dir", "", "directory for the servers' data, on the disk to measure; default: one of the run's own. What is in it is deleted afterwards")
	fl.StringVar(&o.out, "json", "", "file for all reports and the medians")
	fl.IntVar(&o.pairs, "pairs", 5, "how many pairs of runs")
	fl.IntVar(&o.maxWarmups, "max-warmups", 10, "most runs for warming up, of each load on each server")
	fl.Float64Var(&o.agree, "agree", 5, "how far apart, in percent, two runs of a warm server may be")
	fl.DurationVar(&o.loads.duration, "duration", 15*time.Second, "measured time of a run that produces")
	fl.DurationVar(&o.loads.warmup, "warmup", 5*time.Second, "load before that")
	fl.Int64Var(&o.loads.records, "replay-records", 1_000_000, "records of 1 KiB that a replay reads; with those of the other server they have to fit into the page cache")
	fl.IntVar(&o.loads.passes, "passes", 3, "how often a replay reads them, after one pass that does not count")
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	switch {
	case fl.NArg() > 0:
		return o, fmt.Errorf("peers: unexpected %q", fl.Args())
	case o.jars == "":
		return o, errors.New("peers: -kafka is needed: the directory that make kafka-jars has filled")
	case o.pairs < 1 || o.maxWarmups < 2 || o.agree <= 0 || o.loads.duration <= 0 || o.loads.warmup < 0 || o.loads.records < 1 || o.loads.passes < 1:
		return o, errors.New("peers: numbers have to be positive, and -max-warmups at least 2")
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = o.run(ctx, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run starts the servers, runs the session, and writes what came of it.
func (o options) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	parent := o.dir
	if parent == "" {
		parent = os.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "flotilla-peers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	kafkaVersion, err := peer.KafkaVersion(o.jars)
	if err != nil {
		return err
	}
	ports, err := peer.FreePorts(3)
	if err != nil {
		return err
	}
	flotilla := peer.Flotilla(o.binary, filepath.Join(dir, "flotilla"), ports[0])
	kafka := peer.Kafka(o.script, o.jars, filepath.Join(dir, "kafka"), ports[1])
	servers := []*peer.Server{flotilla, kafka} // Kafka last: the others are compared with it
	for _, s := range servers {
		if err := s.Start(ctx, dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
	}
	o.loads.binary, o.loads.disk, o.loads.servers = o.binary, dir, servers
	names := []string{flotilla.Name, kafka.Name}
	runs, err := (&session{
		Servers: names, Pairs: o.pairs, Agree: o.agree / 100, MaxWarmups: o.maxWarmups, load: o.loads.run, said: stderr,
	}).do(ctx)
	if len(runs) == 0 {
		return err
	}
	sum := newSummary(runs, names, o.pairs, kafkaVersion)
	if err != nil { // what there is may say why
		return errors.Join(err, o.save(sum))
	}
	return errors.Join(sum.table(stdout), o.save(sum))
}

// save writes everything to the file that was asked for.
func (o options) save(sum *summary) (err error) {
	if o.out == "" {
		return nil
	}
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return sum.write(f)
}
