package sim

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/history"
)

// kafka makes a client of franz-go for a process, as an application would have it
// but for a shorter wait between two looks at the metadata.
func (p *person) kafka(opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(p.w.addrs...), kgo.ClientID(clientHost(p.process)), kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.Dialer(func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return p.w.net.Dial(ctx, clientHost(p.process), addr)
		}),
	}, opts...)...)
	if err != nil {
		panic("sim: " + err.Error())
	}
	return c
}

// produceKafka is produce with franz-go, whose producers are idempotent unless
// they are told otherwise.
func (p *person) produceKafka(l load) {
	connect := func() *kgo.Client {
		opts := []kgo.Opt{
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(l.timeout),
			kgo.ProducerBatchMaxBytes(6 << 10), kgo.ProducerLinger(time.Duration(1+p.rng.IntN(5)) * time.Millisecond),
			kgo.ProducerBatchCompression(kgo.NoCompression()),
		}
		if p.w.notIdempotent {
			opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RecordRetries(100))
		}
		c := p.kafka(opts...)
		// Its goroutines wait for the first producer id with a mutex, which would stop
		// the clock of a bubble.
		if _, _, err := c.ProducerID(p.w.stopping); err != nil && p.w.stopping.Err() == nil {
			p.w.problem("process %d: no producer id: %v", p.process, err)
		}
		return c
	}
	c := connect()
	for l.goesOn(0) {
		for range 1 + p.rng.IntN(8) {
			p.sendKafka(c, l.keys[p.rng.IntN(len(l.keys))], p.rng.IntN(l.maxBytes+1))
		}
		if l.crashes && p.rng.IntN(12) == 0 {
			op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Crash})
			c.Close()
			c = connect()
			p.w.rec.Complete(op, history.OK)
		}
		if !p.rest(l.maxPause) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout+time.Minute)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		p.w.problem("process %d: a Kafka producer with a delivery timeout of %v could not be flushed: %v", p.process, l.timeout, err)
	}
	c.Close()
}

func (p *person) sendKafka(c *kgo.Client, key history.Key, bytes int) {
	value := p.w.value.Add(1)
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Send, Mops: []history.Mop{history.Values(key, value)}})
	r := &kgo.Record{Topic: key.Topic, Partition: key.Partition, Value: record(key, value, bytes).Value}
	c.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil { // which errors leave no doubt is not for us to say
			op.Err = err.Error()
			p.w.rec.Complete(op, history.Info)
			return
		}
		p.settle(op, r.Offset, nil)
	})
}

// consumeKafka is consume with franz-go. Records that were there stay there, so
// that no reader is ever told that its offset is out of range, and the end that it
// is told of never falls.
func (p *person) consumeKafka(keys []history.Key) {
	for p.w.stopping.Err() == nil {
		c := p.assignKafka(keys)
		for left := 20 + p.rng.IntN(200); left > 0 && p.w.stopping.Err() == nil; left-- {
			if !p.pollKafka(c) {
				break
			}
		}
		c.Close()
		p.rest(20 * time.Millisecond)
	}
}

func (p *person) assignKafka(keys []history.Key) *kgo.Client {
	op := history.Op{Process: p.process, F: history.Assign}
	at := make(map[string]map[int32]kgo.Offset)
	for _, k := range keys {
		op.Mops = append(op.Mops, history.Mop{Key: k, From: 0})
		if at[k.Topic] == nil {
			at[k.Topic] = make(map[int32]kgo.Offset)
		}
		at[k.Topic][k.Partition] = kgo.NewOffset().At(0)
	}
	op = p.w.rec.Invoke(op)
	p.ends = make(map[history.Key]int64)
	opts := []kgo.Opt{
		kgo.ConsumePartitions(at), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(100 * time.Millisecond), kgo.FetchMaxPartitionBytes(32 << 10),
	}
	if p.rack != "" { // a node that is down is left no sooner
		opts = append(opts, kgo.Rack(p.rack), kgo.RecheckPreferredReplicaInterval(2*time.Second), kgo.WithHooks(readFrom{p.source}))
	}
	c := p.kafka(opts...)
	p.w.rec.Complete(op, history.OK)
	return c
}

// pollKafka polls once, and reports whether the client can go on.
func (p *person) pollKafka(c *kgo.Client) (ok bool) {
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Poll})
	ctx, cancel := context.WithTimeout(p.w.stopping, time.Second)
	defer cancel()
	ok = true
	fetches := c.PollFetches(ctx)
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if f.Err != nil {
			var far *net.OpError // what the client did not mend by itself: it goes on
			if !errors.Is(f.Err, context.DeadlineExceeded) && !errors.Is(f.Err, context.Canceled) && !errors.As(f.Err, &far) {
				p.w.problem("process %d: Kafka consumer of %s[%d]: %v", p.process, f.Topic, f.Partition, f.Err)
				ok = false
			}
			return
		}
		key := history.Key{Topic: f.Topic, Partition: f.Partition}
		if p.rack == "" {
			p.told(key, f.HighWatermark)
		} else {
			p.toldBehind(key, f.HighWatermark)
		}
		m := history.Mop{Key: key}
		for _, r := range f.Records {
			if p.w.read != nil {
				p.w.read(key, r.LeaderEpoch)
			}
			m.Records = append(m.Records, history.Record{Offset: r.Offset, Value: valueOf(r.Value)})
		}
		if n := len(m.Records); n > 0 {
			p.ends[key] = max(p.ends[key], m.Records[n-1].Offset+1)
			op.Mops = append(op.Mops, m)
		}
	})
	if len(op.Mops) == 0 {
		p.w.rec.Complete(op, history.Fail)
		return ok
	}
	p.w.rec.Complete(op, history.OK)
	return ok
}

// toldBehind is told for who may read from followers, which know an end that is a
// moment old: it never is below what was read.
func (p *person) toldBehind(key history.Key, end int64) {
	if end >= 0 && end < p.ends[key] && strings.HasPrefix(key.Topic, "stays") {
		p.w.problem("process %d: the high watermark of %s[%d] is %d for who has read %d records", p.process, key.Topic, key.Partition, end, p.ends[key])
	}
}

// readFrom is told of each batch that a consumer gets, and of which node.
type readFrom struct {
	source func(node int32, topic string, partition int32)
}

func (h readFrom) OnFetchBatchRead(meta kgo.BrokerMetadata, topic string, partition int32, _ kgo.FetchBatchMetrics) {
	h.source(meta.NodeID, topic, partition)
}
