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
	"strconv"
	"time"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/internal/peer"
)

// loads runs flotilla bench as anybody would, in a process of its own.
type loads struct {
	duration, warmup time.Duration
	records          int64
	passes           int

	binary  string
	disk    string // a directory on the servers' disk
	servers []*peer.Server
}

// standard is the load that figures are published of, but for how long it
// lasts.
var standard = []string{
	"--partitions", "16", "--record-bytes", "1024", "--values", "random", "--key-distribution", "random",
	"--acks", "all", "--linger", "5ms", "--batch-bytes", "1MiB", "--in-flight", "20000",
}

// run puts one load on the server of that name.
func (l *loads) run(ctx context.Context, name, kind string) (bench.Report, error) {
	for _, s := range l.servers {
		if s.Name == name {
			if kind == kindReplay {
				return l.replay(ctx, s)
			}
			return l.bench(ctx, s, append(l.produce(), "--warmup", l.warmup.String(), "--duration", l.duration.String())...)
		}
	}
	return bench.Report{}, fmt.Errorf("no server %q", name)
}

func (l *loads) produce() []string { return append([]string{"produce"}, standard...) }

// replay fills a topic, reads it, and deletes it.
func (l *loads) replay(ctx context.Context, s *peer.Server) (rep bench.Report, err error) {
	topic := fmt.Sprintf("peers-%016x", rand.Uint64())
	cluster, err := bench.NewKafka(bench.KafkaConfig{Bootstrap: []string{s.Addr}, ClientID: "flotilla-peers"})
	if err != nil {
		return rep, err
	}
	defer cluster.Close()
	if _, err := l.bench(ctx, s, append(l.produce(), "--topic", topic, "--keep", "--warmup", "0s", "--records", strconv.FormatInt(l.records, 10))...); err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, cluster.DeleteTopic(context.WithoutCancel(ctx), topic)) }()
	return l.bench(ctx, s, "consume", "--topic", topic, "--passes", strconv.Itoa(l.passes))
}

// bench runs flotilla bench with args, and what says where and how to report.
func (l *loads) bench(ctx context.Context, s *peer.Server, args ...string) (rep bench.Report, err error) {
	// What the run before left in the page cache would be written during this
	// one, at its cost.
	if out, err := exec.CommandContext(ctx, "sync").CombinedOutput(); err != nil {
		return rep, fmt.Errorf("sync: %w: %s", err, out)
	}
	args = append(append([]string{"bench"}, args...), "--protocol", "kafka", "--bootstrap", s.Addr, "--server-pids", s.PID(), "--quiet", "--output", "json")
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
