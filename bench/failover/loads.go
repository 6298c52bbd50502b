package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
)

// crowd creates many partitions, and measures what they cost when nothing happens.
func (t *trial) crowd(ctx context.Context) error {
	began := time.Now()
	if _, err := t.admin.Admin().CreateTopic(ctx, client.TopicSpec{Name: manyTopic, Partitions: int32(t.many)}); err != nil {
		return fmt.Errorf("failover: %d partitions: %w", t.many, err)
	}
	c := crowdResult{Partitions: t.many, CreateSeconds: time.Since(began).Seconds()}
	if t.idle > 0 {
		for _, w := range t.writers {
			w.pause(true)
		}
		if err := bench.Sleep(ctx, t.idle/2); err != nil { // until creating them is flushed
			return err
		}
		before, err := t.cpu()
		if err != nil {
			return err
		}
		if err := bench.Sleep(ctx, t.idle); err != nil {
			return err
		}
		after, err := t.cpu()
		if err != nil {
			return err
		}
		c.IdleSeconds, c.IdleCores = t.idle.Seconds(), (after-before).Seconds()/t.idle.Seconds()
		for _, w := range t.writers {
			w.pause(false)
		}
	}
	t.report.Crowd = &c
	return nil
}

// cpu returns the CPU time of the nodes so far.
func (t *trial) cpu() (sum time.Duration, err error) {
	proc := bench.Proc{FS: os.DirFS("/proc")}
	for _, s := range t.nodes.Nodes {
		u, err := proc.Usage(s.Process())
		if err != nil {
			return 0, err
		}
		sum += u.CPU
	}
	return sum, nil
}

// counted is a Sink that counts what was acknowledged.
type counted struct {
	bench.Sink
	bytes atomic.Int64
}

func (c *counted) Send(ctx context.Context, r client.Record, done func(client.RecordResult)) error {
	n := int64(len(r.Key) + len(r.Value))
	return c.Sink.Send(ctx, r, func(res client.RecordResult) {
		if res.Err == nil {
			c.bytes.Add(n)
		}
		done(res)
	})
}

// comeBack has a node miss three times its journal, and catch up under load.
func (t *trial) comeBack(ctx context.Context) error {
	if err := t.whole(ctx); err != nil {
		return err
	}
	cluster, err := bench.NewNative(client.Config{Bootstrap: []string{t.nodes.Nodes[0].Addr, t.nodes.Nodes[1].Addr}, ClientID: "failover"})
	if err != nil {
		return err
	}
	defer cluster.Close()
	sink, err := cluster.NewSink(bench.SinkConfig{ProducerConfig: client.ProducerConfig{Topic: topic}, Keys: bench.KeysNone})
	if err != nil {
		return err
	}
	defer func() { _ = sink.Close(context.WithoutCancel(ctx)) }()
	loading, end := context.WithCancel(ctx)
	defer end()
	c := &counted{Sink: sink}
	ended := make(chan error, 1)
	go func() { // joined below
		load := bench.Load{Shape: bench.Shape{ValueBytes: 1 << 10, Values: bench.ValuesRandom, Keys: bench.KeysNone}, Duration: 24 * time.Hour, InFlight: 5000, Seed: 1}
		_, err := load.Run(loading, bench.Watch{Now: time.Now}, []bench.Sink{c})
		ended <- err
	}()
	err = t.missAndReturn(ctx, c)
	end()
	if failed := <-ended; err == nil && ctx.Err() == nil && loading.Err() == nil {
		err = failed
	}
	return err
}

// missAndReturn kills the last node under the load of c, starts it again when it
// has missed enough, and waits until it has caught up.
func (t *trial) missAndReturn(ctx context.Context, c *counted) error {
	const warm = 5 * time.Second
	s := t.nodes.Nodes[nodes-1]
	if err := bench.Sleep(ctx, warm); err != nil {
		return err
	}
	rate := func(from int64, since time.Time) float64 {
		return float64(c.bytes.Load()-from) / 1e6 / time.Since(since).Seconds()
	}
	at, since := c.bytes.Load(), time.Now()
	if err := bench.Sleep(ctx, 2*warm); err != nil {
		return err
	}
	res := catchUpResult{JournalBytes: t.journal, BeforeMB: rate(at, since)}
	if err := s.Stop(); err != nil {
		return err
	}
	at, since = c.bytes.Load(), time.Now()
	for c.bytes.Load()-at < 3*t.journal {
		if err := bench.Sleep(ctx, pollEvery); err != nil {
			return err
		}
	}
	res.MissedBytes, res.WithoutMB = c.bytes.Load()-at, rate(at, since)
	at, since = c.bytes.Load(), time.Now()
	if err := s.Start(ctx, t.dir); err != nil {
		return err
	}
	if err := t.until(ctx, "the node has caught up", func() error { return t.caughtUp(ctx) }); err != nil {
		return err
	}
	res.Seconds, res.DuringMB = time.Since(since).Seconds(), rate(at, since)
	t.report.CatchUp = &res
	return nil
}
