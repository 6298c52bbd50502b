// Command peers compares Flotilla with Apache Kafka on one machine, one node of
// each or, with -nodes 3, a cluster of each: both are started, and the same loads are
// put on them in Kafka's protocol by the same program, in turns. Each is warmed up first, one node until two runs agree, and
// medians are printed. docs/benchmarks.md says how to read them; make
// bench-kafka and make bench-cluster run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	clusterNodes = 3

	// nodeMemory is memory.bytes of each of three nodes: what flotilla dev gives
	// them on a machine of 8 GiB or more. Each of Kafka's has a heap of 1 GB.
	nodeMemory = "682MiB"
)

// options are the command line.
type options struct {
	binary, script, jars, dir, out string
	nodes, pairs, maxWarmups       int
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
	fl.IntVar(&o.nodes, "nodes", 1, "how many nodes of each: 1, or 3, with loads for a cluster")
	fl.IntVar(&o.pairs, "pairs", 5, "how many pairs of runs")
	fl.IntVar(&o.maxWarmups, "max-warmups", 10, "most runs for warming up, of each load on each server; with -nodes 3 so many, and 1 unless it is given")
	fl.Float64Var(&o.agree, "agree", 5, "how far apart, in percent, two runs of a warm server may be; not with -nodes 3")
	fl.DurationVar(&o.loads.duration, "duration", 15*time.Second, "measured time of a run that produces")
	fl.DurationVar(&o.loads.warmup, "warmup", 5*time.Second, "load before that")
	fl.Int64Var(&o.loads.records, "replay-records", 1_000_000, "records of 1 KiB that a replay reads; with those of the other server they have to fit into the page cache")
	fl.IntVar(&o.loads.passes, "passes", 3, "how often a replay reads them, after one pass that does not count")
	if err := fl.Parse(args); err != nil {
		return o, err
	}
	given := make(map[string]bool)
	fl.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.nodes > 1 && !given["max-warmups"] {
		o.maxWarmups = 1
	}
	switch {
	case fl.NArg() > 0:
		return o, fmt.Errorf("peers: unexpected %q", fl.Args())
	case o.jars == "":
		return o, errors.New("peers: -kafka is needed: the directory that make kafka-jars has filled")
	case o.nodes != 1 && o.nodes != clusterNodes:
		return o, fmt.Errorf("peers: -nodes %d: 1 and %d are possible", o.nodes, clusterNodes)
	case o.nodes > 1 && (given["agree"] || given["replay-records"] || given["passes"]):
		return o, errors.New("peers: with -nodes 3 nothing is replayed, and warming up ends after -max-warmups: -agree, -replay-records and -passes mean nothing")
	case o.pairs < 1 || o.maxWarmups < 1 || o.nodes == 1 && o.maxWarmups < 2 || o.agree <= 0 || o.loads.duration <= 0 || o.loads.warmup < 0 || o.loads.records < 1 || o.loads.passes < 1:
		return o, errors.New("peers: numbers have to be positive, and -max-warmups at least 2")
	}
	return o, nil
}

func main() { peer.Main(parse) }

// Run starts the servers, runs the session, and writes what came of it.
func (o options) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return peer.InDirectory(o.dir, "flotilla-peers-", func(dir string) error { return o.runIn(ctx, dir, stdout, stderr) })
}

func (o options) runIn(ctx context.Context, dir string, stdout, stderr io.Writer) (err error) {
	kafkaVersion, err := peer.KafkaVersion(o.jars)
	if err != nil {
		return err
	}
	servers, err := o.servers(dir)
	if err != nil {
		return err
	}
	o.loads.binary, o.loads.disk, o.loads.servers = o.binary, dir, servers
	var names []string
	for _, s := range servers {
		if err := s.Start(ctx, dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		if err := o.loads.ready(ctx, s); err != nil {
			return err
		}
		names = append(names, s.Name)
	}
	sess := &session{Servers: names, Kinds: nodeKinds, Pairs: o.pairs, Agree: o.agree / 100, MaxWarmups: o.maxWarmups, load: o.loads.run, said: stderr}
	if o.nodes > 1 {
		sess.Kinds, sess.Agree = clusterKinds, 0
	}
	runs, err := sess.do(ctx)
	if len(runs) == 0 {
		return err
	}
	sum := newSummary(runs, sess, kafkaVersion)
	sum.Nodes = o.nodes
	if err != nil { // what there is may say why
		return errors.Join(err, peer.SaveJSON(o.out, sum))
	}
	return errors.Join(sum.table(stdout), peer.SaveJSON(o.out, sum))
}

// servers returns what is compared, Kafka last: the others are compared with
// it. They are started in this order and run beside each other all the time.
func (o options) servers(dir string) ([]*peer.Cluster, error) {
	flotilla, kafka := filepath.Join(dir, "flotilla"), filepath.Join(dir, "kafka")
	ports, err := peer.FreePorts(2 * o.nodes * peer.PortsPerNode)
	if err != nil {
		return nil, err
	}
	half := len(ports) / 2
	if o.nodes > 1 {
		return []*peer.Cluster{
			peer.FlotillaCluster(o.binary, flotilla, ports[:half], "--memory.bytes", nodeMemory),
			peer.KafkaCluster(o.script, o.jars, kafka, ports[half:]),
		}, nil
	}
	return []*peer.Cluster{
		{Name: "flotilla", Nodes: []*peer.Server{peer.Flotilla(o.binary, flotilla, ports[0])}},
		{Name: "kafka", Nodes: []*peer.Server{peer.Kafka(o.script, o.jars, kafka, ports[half])}},
	}, nil
}
