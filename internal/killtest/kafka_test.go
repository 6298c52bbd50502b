package killtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/history"
)

// kafkaProducers is how many of Kafka's clients write to the stable topic beside
// ours. Each is idempotent, and has up to five requests under way.
const kafkaProducers = 2

// startKafka makes the loops that speak Kafka's protocol: they write to, and
// read, what our own clients write and read too.
func (l *load) startKafka() (loops []func(), err error) {
	for i := range kafkaProducers {
		codec := kgo.NoCompression()
		if i%2 == 1 {
			codec = kgo.Lz4Compression()
		}
		cl, err := l.connectKafka(
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec),
			kgo.ProducerBatchMaxBytes(maxBatchBytes), kgo.ProducerLinger(time.Duration(i)*time.Millisecond),
		)
		if err != nil {
			return nil, err
		}
		loops = append(loops, func() { l.produceKafka(kafkaProcess+int32(i), cl) })
	}
	process := followerProcess + followers + 1
	op := history.Op{Process: int32(process), F: history.Assign}
	from := make(map[int32]kgo.Offset)
	for p := range int32(partitions) {
		op.Mops = append(op.Mops, history.Mop{Key: history.Key{Topic: stable, Partition: p}})
		from[p] = kgo.NewOffset().AtStart()
	}
	op = l.rec.Invoke(op)
	cl, err := l.connectKafka(kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{stable: from}))
	if err != nil {
		return nil, err
	}
	l.rec.Complete(op, history.OK)
	return append(loops, func() { l.followKafka(int32(process), cl) }), nil
}

// connectKafka makes a client that is quick to come back, and never gives up.
func (l *load) connectKafka(opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(l.addr), kgo.ClientID(fmt.Sprintf("kill-kafka-%d", len(l.kafka))),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(50, 5*time.Duration(n)) * time.Millisecond }),
		kgo.RequestRetries(1 << 20), kgo.RetryTimeout(10 * phaseTimeout), kgo.MetadataMinAge(20 * time.Millisecond),
		// A server that dies between a connection's beginning and its first answer
		// looks to franz-go like one that wants SASL: it would give up records.
		kgo.AlwaysRetryEOF(),
	}, opts...)...)
	if err == nil {
		l.kafka = append(l.kafka, cl)
	}
	return cl, err
}

// stopKafka closes Kafka's clients, and waits until they have told what became
// of each record.
func (l *load) stopKafka() {
	for _, cl := range l.kafka {
		cl.Close()
	}
	l.promised.Wait()
}

// produceKafka sends bursts to the stable topic. Every record must get through.
func (l *load) produceKafka(process int32, cl *kgo.Client) {
	chance := l.chance(process)
	for n := int64(0); l.pace(chance, 10*time.Millisecond); {
		for range 1 + chance.IntN(8) {
			if !l.sendKafka(process, cl, history.Key{Topic: stable, Partition: chance.Int32N(partitions)}, n) {
				return
			}
			n++
		}
	}
}

// sendKafka sends the process's value number n to key, and records what becomes of it.
// It reports false if the load has ended.
func (l *load) sendKafka(process int32, cl *kgo.Client, key history.Key, n int64) bool {
	if !l.gate.enter(l.ctx) {
		return false
	}
	value := int64(process)<<32 | n
	mop := history.Values(key, value)
	op := l.rec.Invoke(history.Op{Process: process, F: history.Send, Mops: []history.Mop{mop}})
	l.promised.Add(1)
	r := &kgo.Record{Topic: key.Topic, Partition: key.Partition, Value: payload(value)}
	cl.Produce(context.WithoutCancel(l.ctx), r, func(r *kgo.Record, err error) {
		defer l.promised.Done()
		defer l.gate.leave()
		if err == nil {
			op.Mops = []history.Mop{mop.At(r.Offset)}
			l.rec.Complete(op, history.OK)
			l.ack(op.Process)
			return
		}
		op.Err = err.Error()
		l.rec.Complete(op, history.Info)
		if !errors.Is(err, kgo.ErrClientClosed) {
			l.fail("process %d: %s[%d]: franz-go gave up a record: %w", process, r.Topic, r.Partition, err)
		}
	})
	return true
}

// followKafka reads the stable topic, across every kill.
func (l *load) followKafka(process int32, cl *kgo.Client) {
	for {
		op := l.rec.Invoke(history.Op{Process: process, F: history.Poll})
		fetches := cl.PollFetches(l.ctx)
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if p.Err != nil {
				return // of all partitions, if the load ends
			}
			m := history.Mop{Key: history.Key{Topic: p.Topic, Partition: p.Partition}}
			for _, r := range p.Records {
				m.Records = append(m.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
			}
			op.Mops = append(op.Mops, m)
		})
		l.rec.Complete(op, history.OK)
		if l.ctx.Err() != nil {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			l.fail("process %d: %s[%d]: franz-go reading: %w", process, topic, partition, err)
		})
	}
}
