package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/peer"
)

const (
	nodes     = 3
	topic     = "failover"
	manyTopic = "many"
	pollEvery = 100 * time.Millisecond

	// hastyTimeout is how long the writer that is set so waits for an answer: a node
	// that is stopped keeps its connections, so nothing else tells a client.
	hastyTimeout = time.Second
)

// trial is three nodes and who writes to them.
type trial struct {
	options
	said    io.Writer
	nodes   *peer.Cluster
	dir     string
	admin   *client.Client
	writers []*writer
	report  report

	end     context.CancelFunc
	writing sync.WaitGroup
	closers []func()
	failing chan error // 1-buffered: a writer that cannot go on
}

// start starts the nodes, makes the topic and starts to write.
func start(ctx context.Context, o options, dir string, said io.Writer) (t *trial, err error) {
	ports, err := peer.FreePorts(nodes * peer.PortsPerNode)
	if err != nil {
		return nil, err
	}
	t = &trial{options: o, said: said, dir: dir, failing: make(chan error, 1), report: report{Partitions: o.partitions, Rate: o.rate}}
	// Leaderships come back at once, so that the next round may begin.
	t.nodes = peer.FlotillaCluster(o.binary, filepath.Join(dir, "data"), ports, "--leader.balance.interval", "1s",
		"--journal.bytes", strconv.FormatInt(o.journal, 10), "--memory.bytes", "682MiB")
	if err := t.nodes.Start(ctx, dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.stop())
		}
	}()
	bootstrap := strings.Split(t.nodes.Bootstrap(), ",")
	if t.admin, err = client.New(client.Config{Bootstrap: bootstrap, ClientID: "failover"}); err != nil {
		return t, err
	}
	t.closers = append(t.closers, func() { _ = t.admin.Close() })
	spec := client.TopicSpec{Name: topic, Partitions: int32(o.partitions)}
	if err := t.until(ctx, "the topic is created", func() error { _, err := t.admin.Admin().CreateTopic(ctx, spec); return err }); err != nil {
		return t, err
	}
	kafka, err := bench.NewKafka(bench.KafkaConfig{Bootstrap: bootstrap, ClientID: "failover"})
	if err != nil {
		return t, err
	}
	t.closers = append(t.closers, kafka.Close)
	hasty, err := bench.NewKafka(bench.KafkaConfig{Bootstrap: bootstrap, ClientID: "failover", AnswerTimeout: hastyTimeout})
	if err != nil {
		return t, err
	}
	t.closers = append(t.closers, hasty.Close)
	native, err := bench.NewNative(client.Config{Bootstrap: bootstrap, ClientID: "failover"})
	if err != nil {
		return t, err
	}
	t.closers = append(t.closers, native.Close)
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	t.end = end
	for _, c := range []struct {
		name    string
		cluster bench.Cluster
	}{{"franz-go", kafka}, {"hasty franz-go", hasty}, {"native", native}} {
		cfg := bench.SinkConfig{ProducerConfig: client.ProducerConfig{Topic: topic, Linger: -1}, Keys: bench.KeysEven}
		sink, err := c.cluster.NewSink(cfg)
		if err != nil {
			return t, err
		}
		t.closers = append(t.closers, func() { _ = sink.Close(running) })
		w := &writer{name: c.name, partitions: o.partitions, every: time.Duration(float64(time.Second) / o.rate), now: time.Now}
		t.writers = append(t.writers, w)
		t.writing.Go(func() {
			if err := w.run(running, sink); err != nil {
				select {
				case t.failing <- err:
				default:
				}
			}
		})
	}
	return t, nil
}

// stop ends everything.
func (t *trial) stop() error {
	if t.end != nil {
		t.end()
	}
	t.writing.Wait()
	for _, end := range t.closers {
		end()
	}
	return t.nodes.Stop()
}

// until tries again until try succeeds, for as long as patience says.
func (t *trial) until(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case failed := <-t.failing:
			return failed
		case <-ctx.Done():
			return fmt.Errorf("failover: not after %v: %s: %w", t.patience, what, err)
		}
	}
}

// leaders returns the node that leads each partition of the topic.
func (t *trial) leaders(ctx context.Context) ([]int32, error) {
	d, err := t.admin.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return nil, err
	}
	leaders := make([]int32, t.partitions)
	for _, p := range d.Partitions {
		leaders[p.Partition] = p.Leader
	}
	return leaders, nil
}

// whole waits until each node answers, leads some of the topic, and every replica
// has its leader's log.
func (t *trial) whole(ctx context.Context) error {
	return t.until(ctx, "every node is there and leads its share", func() error {
		if err := t.caughtUp(ctx); err != nil {
			return err
		}
		leaders, err := t.leaders(ctx)
		if err != nil {
			return err
		}
		leads := make(map[int32]int)
		for _, n := range leaders {
			leads[n]++
		}
		if leads[-1] > 0 || len(leads) < nodes {
			return fmt.Errorf("partitions by leader: %v", leads)
		}
		return nil
	})
}

// caughtUp returns an error unless every node answers and every replica is well.
func (t *trial) caughtUp(ctx context.Context) error {
	d, err := t.admin.Admin().DescribeCluster(ctx, time.Second)
	if err != nil {
		return err
	}
	if len(d.Nodes) != nodes {
		return fmt.Errorf("%d nodes are known", len(d.Nodes))
	}
	for _, n := range d.Nodes {
		if n.Err != nil {
			return n.Err
		}
	}
	for _, s := range d.Shards {
		for _, r := range s.Replicas {
			if r.Status != client.ReplicaOK {
				return fmt.Errorf("the replica of shard %d on node %d: %v", s.ID, r.Node, r.Status)
			}
		}
	}
	return nil
}

// measure goes through all that was asked for.
func (t *trial) measure(ctx context.Context) error {
	if err := t.rounds(ctx, "kill -9", t.kills, t.kill); err != nil {
		return err
	}
	if err := t.rounds(ctx, "SIGSTOP", t.stops, t.halt); err != nil {
		return err
	}
	if t.many > 0 {
		if err := t.crowd(ctx); err != nil {
			return err
		}
		if err := t.rounds(ctx, fmt.Sprintf("kill -9, %d partitions", t.many), t.manyKills, t.kill); err != nil {
			return err
		}
	}
	if t.catchUp {
		return t.comeBack(ctx)
	}
	return nil
}

// kill ends a node, and returns what starts it again.
func (t *trial) kill(ctx context.Context, s *peer.Server) (heal func() error, err error) {
	return func() error { return s.Start(ctx, t.dir) }, s.Stop()
}

// halt stops a node, and returns what has it go on.
func (t *trial) halt(_ context.Context, s *peer.Server) (heal func() error, err error) {
	return func() error { return s.Signal(syscall.SIGCONT) }, s.Signal(syscall.SIGSTOP)
}

// rounds makes so many faults, of each node in turn, and notes what the writers
// waited for.
func (t *trial) rounds(ctx context.Context, what string, n int, fail func(context.Context, *peer.Server) (func() error, error)) error {
	for i := range n {
		if err := t.whole(ctx); err != nil {
			return err
		}
		if err := bench.Sleep(ctx, t.quiet); err != nil {
			return err
		}
		node := int32(i%nodes + 1)
		leaders, err := t.leaders(ctx)
		if err != nil {
			return err
		}
		var faults []*fault
		for _, w := range t.writers {
			faults = append(faults, w.expect())
		}
		heal, err := fail(ctx, t.nodes.Nodes[node-1])
		if err != nil {
			return err
		}
		for k, f := range faults {
			err := t.until(ctx, fmt.Sprintf("%s: each partition takes records of %s again", what, t.writers[k].name), func() error {
				select {
				case <-f.done:
					return nil
				default:
					return errors.New("some wait")
				}
			})
			if err != nil {
				return errors.Join(err, heal())
			}
			r := newRound(what, t.writers[k].name, node, f.waits, leaders)
			t.report.Rounds = append(t.report.Rounds, r)
			fmt.Fprintf(t.said, "%s %d of %d: node %d, %s: %.0f ms at most on the %d partitions that it led, %.0f ms on others\n",
				what, i+1, n, node, r.Client, r.WorstMS, r.Led, r.OthersMS)
		}
		if err := heal(); err != nil {
			return err
		}
	}
	for _, w := range t.writers {
		acked, failed, first := w.counts()
		t.report.note(w.name, acked, failed, first)
	}
	return nil
}
