package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/flotilla-log/flotilla/bench"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Protocols that a load can speak.
const (
	protocolNative = "native"
	protocolKafka  = "kafka"
)

const benchClientID = "flotilla-bench"

func (f *benchFlags) checkProtocol() error {
	if f.protocol != protocolNative && f.protocol != protocolKafka {
		return usagef("--protocol %q: give native or kafka", f.protocol)
	}
	return nil
}

// withCluster calls work with the cluster.
func (b *benching) withCluster(work func(context.Context, bench.Cluster) error) error {
	return b.conn.dialing(b.c.Context(), b.c.ErrOrStderr(), func(ctx context.Context, d *dialer) error {
		cluster, err := b.cluster(d)
		if err != nil {
			return usagef("--bootstrap: %w", err)
		}
		defer cluster.Close()
		return work(ctx, cluster)
	})
}

// cluster returns the cluster, seen through the protocol that was asked for.
func (b *benching) cluster(d *dialer) (bench.Cluster, error) {
	if b.protocol == protocolKafka {
		return bench.NewKafka(bench.KafkaConfig{
			Bootstrap: b.conn.addresses(), ClientID: benchClientID, Timeout: b.conn.timeout, Dial: d.dial,
		})
	}
	return bench.NewNative(client.Config{
		Bootstrap: b.conn.addresses(), ClientID: benchClientID, RequestTimeout: b.conn.timeout, Dial: d.dial,
		DialTimeout: min(b.conn.timeout, client.DefaultDialTimeout),
	})
}

// explain says what a user can do about an error of a record.
func (b *benching) explain(err error) error {
	if code, _ := client.CodeOf(err); b.protocol == protocolKafka && code == errcode.MessageTooLarge {
		return fmt.Errorf("%w; send smaller records, or give a larger --batch-bytes and a topic whose max.message.bytes takes them", err)
	}
	return b.conn.explain(err)
}

// benchTopic is the topic of a load.
type benchTopic struct {
	name       string
	partitions int32
	created    bool // by this run
}

// openTopic finds the topic, or creates it. Without a name it creates one of
// its own.
func openTopic(ctx context.Context, cluster bench.Cluster, name string, partitions int32, mustBe bool) (benchTopic, error) {
	t := benchTopic{name: name}
	if name == "" {
		t.name = fmt.Sprintf("bench-%016x", rand.Uint64())
	}
	opened, err := cluster.OpenTopic(ctx, t.name, partitions)
	t.partitions, t.created = opened.Partitions, opened.Created
	if err == nil && mustBe && t.partitions != partitions {
		err = fmt.Errorf("topic %s has %d partitions, not %d; leave out --partitions, or use another topic", t.name, t.partitions, partitions)
	}
	return t, err
}

// remove deletes the topic if this run created it, also after an interrupt.
func (t benchTopic) remove(ctx context.Context, cluster bench.Cluster, keep bool, stderr io.Writer) error {
	if !t.created {
		return nil
	}
	if keep {
		_, err := fmt.Fprintf(stderr, "%% topic %s is kept\n", t.name)
		return err
	}
	return cluster.DeleteTopic(context.WithoutCancel(ctx), t.name)
}

// onTopic calls work with a topic, its cluster and sinks, and clears up after
// it.
func (b *benching) onTopic(r *recordFlags, producers int, cfg client.ProducerConfig,
	work func(context.Context, benchTopic, bench.Cluster, []bench.Sink) error,
) error {
	stderr := b.c.ErrOrStderr()
	return b.withCluster(func(ctx context.Context, cluster bench.Cluster) (err error) {
		t, err := openTopic(ctx, cluster, b.topic, r.partitions, b.c.Flags().Changed("partitions"))
		defer func() { err = errors.Join(err, t.remove(ctx, cluster, r.keep, stderr)) }()
		if err != nil {
			return err
		}
		b.report.Setup["topic"], b.report.Setup["partitions"] = t.name, t.partitions
		cfg.Topic = t.name
		var sinks []bench.Sink
		for range producers {
			s, err := cluster.NewSink(bench.SinkConfig{ProducerConfig: cfg, Keys: bench.Keys(r.keys)})
			if err != nil {
				return usageError{err}
			}
			// The load has flushed it, or was interrupted: then what is under way is
			// given up.
			defer func() { _ = s.Close(ctx) }()
			sinks = append(sinks, s)
		}
		return work(ctx, t, cluster, sinks)
	})
}
