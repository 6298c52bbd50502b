package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	readyPatience = 2 * time.Minute
	readyPoll     = 200 * time.Millisecond
)

// kind is a load that is put on each server.
type kind struct {
	Name    string
	Args    []string // of flotilla bench
	Latency bool     // its latencies count beside its cost; else its rate does
	Replay  bool     // Args fill a topic, which is then read: that is the load

	Warmup time.Duration // at least: how long a server may take until each partition of a new topic takes records
}

// standard is the load that figures are published of, but for how long it
// lasts.
var standard = produce(16)

func produce(partitions int) []string {
	return []string{
		"produce", "--partitions", strconv.Itoa(partitions), "--record-bytes", "1024", "--values", "random", "--key-distribution", "random",
		"--acks", "all", "--linger", "5ms", "--batch-bytes", "1MiB", "--in-flight", "20000",
	}
}

// openLoop is 10,000 records a second, measured from when each is due until it
// is consumed.
func openLoop(linger string) []string {
	return []string{
		"latency", "--end-to-end", "--rate", "10000", "--linger", linger, "--partitions", "16",
		"--record-bytes", "1024", "--values", "random", "--key-distribution", "random", "--acks", "all",
	}
}

// nodeKinds are the loads of one node, clusterKinds those of several.
var (
	nodeKinds = []kind{
		{Name: "produce", Args: standard},
		{Name: "replay", Args: standard, Replay: true},
	}
	clusterKinds = []kind{
		{Name: "produce", Args: standard},
		{Name: "1000 partitions", Args: produce(1000), Warmup: 20 * time.Second},
		{Name: "10000/s, linger 5 ms", Args: openLoop("5ms"), Latency: true},
		{Name: "10000/s, linger 0", Args: openLoop("0s"), Latency: true},
		{Name: "one outstanding", Args: []string{"latency", "--record-bytes", "1024", "--values", "random", "--acks", "all"}, Latency: true},
	}
)

// loads runs flotilla bench as anybody would, in a process of its own.
type loads struct {
	duration, warmup time.Duration
	records          int64
	passes           int

	binary  string
	disk    string // a directory on the servers' disk
	servers []*peer.Cluster
}

// run puts one load on the server of that name.
func (l *loads) run(ctx context.Context, name string, k kind) (bench.Report, error) {
	for _, s := range l.servers {
		if s.Name == name {
			if k.Replay {
				return l.replay(ctx, s, k)
			}
			return l.bench(ctx, s, append(slices.Clone(k.Args), "--warmup", max(l.warmup, k.Warmup).String(), "--duration", l.duration.String())...)
		}
	}
	return bench.Report{}, fmt.Errorf("no server %q", name)
}

// replay fills a topic, reads it, and deletes it.
func (l *loads) replay(ctx context.Context, s *peer.Cluster, k kind) (rep bench.Report, err error) {
	topic := fmt.Sprintf("peers-%016x", rand.Uint64())
	cluster, err := l.kafka(s)
	if err != nil {
		return rep, err
	}
	defer cluster.Close()
	if _, err := l.bench(ctx, s, append(slices.Clone(k.Args), "--topic", topic, "--keep", "--warmup", "0s", "--records", strconv.FormatInt(l.records, 10))...); err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, cluster.DeleteTopic(context.WithoutCancel(ctx), topic)) }()
	return l.bench(ctx, s, "consume", "--topic", topic, "--passes", strconv.Itoa(l.passes))
}

// kafka returns a cluster as clients of Kafka's protocol see it.
func (l *loads) kafka(s *peer.Cluster) (bench.Cluster, error) {
	return bench.NewKafka(bench.KafkaConfig{Bootstrap: strings.Split(s.Bootstrap(), ","), ClientID: "flotilla-peers"})
}

// ready returns once topics can be created: when a node listens, it may still
// be looking for the others, and too few nodes carry no replicas.
func (l *loads) ready(ctx context.Context, s *peer.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	cluster, err := l.kafka(s)
	if err != nil {
		return err
	}
	defer cluster.Close()
	const topic = "peers-ready"
	t := time.NewTicker(readyPoll)
	defer t.Stop()
	for {
		if _, err = cluster.OpenTopic(ctx, topic, 1); err == nil {
			return cluster.DeleteTopic(ctx, topic)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("peers: %s takes no topics: %w", s.Name, err)
		}
	}
}

// bench runs flotilla bench with args, and what says where and how to report.
func (l *loads) bench(ctx context.Context, s *peer.Cluster, args ...string) (rep bench.Report, err error) {
	// What the run before left in the page cache would be written during this
	// one, at its cost.
	if out, err := exec.CommandContext(ctx, "sync").CombinedOutput(); err != nil {
		return rep, fmt.Errorf("sync: %w: %s", err, out)
	}
	args = append(append([]string{"bench"}, args...), "--protocol", "kafka", "--bootstrap", s.Bootstrap(), "--server-pids", s.PIDs(), "--quiet", "--output", "json")
	if _, err := (bench.Proc{FS: os.DirFS("/proc")}).DeviceOf(l.disk); err == nil {
		args = append(args, "--server-disk", l.disk)
	}
	cmd := exec.CommandContext(ctx, l.binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it deletes its topic
	if err := cmd.Run(); err != nil {
		return rep, fmt.Errorf("flotilla %q: %w: %s", args, err, &stderr)
	}
	if err := json.Unmarshal(stdout.Bytes(), &rep); err != nil {
		return rep, fmt.Errorf("flotilla %q printed no report: %w", args, err)
	}
	return rep, nil
}
