package bench

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/client"
)

// maxFrameBytes is the largest answer that franz-go takes by default.
const maxFrameBytes = 100 << 20

// kafkaSource makes a franz-go client for each Reader: one client cannot begin
// again from another offset without a trace of what it had read ahead.
type kafkaSource struct{ opts []kgo.Opt }

func (k *kafka) NewSource(cfg SourceConfig) (Source, error) {
	if cfg.PrefetchBytes != 0 {
		return nil, errPrefetch
	}
	opts := k.options()
	for _, o := range []struct {
		bytes int
		opt   func(int32) kgo.ConsumerOpt
	}{{cfg.FetchBytes, kgo.FetchMaxBytes}, {cfg.PartitionBytes, kgo.FetchMaxPartitionBytes}} {
		if o.bytes < 0 || o.bytes > math.MaxInt32/2 {
			return nil, fmt.Errorf("bench: fetches of %d bytes; in Kafka's protocol from 1 to %d are possible", o.bytes, math.MaxInt32/2)
		}
		if o.bytes > 0 {
			opts = append(opts, o.opt(int32(o.bytes)))
		}
	}
	if frame := 2 * max(cfg.FetchBytes, cfg.PartitionBytes); frame > maxFrameBytes {
		opts = append(opts, kgo.BrokerMaxReadBytes(int32(frame)))
	}
	return &kafkaSource{opts: opts}, nil
}

func (s *kafkaSource) Close() {}

func (s *kafkaSource) Open(spans []Span) (Reader, error) {
	at := make(map[string]map[int32]kgo.Offset)
	for _, span := range spans {
		if at[span.Topic] == nil {
			at[span.Topic] = make(map[int32]kgo.Offset)
		}
		at[span.Topic][span.Partition] = kgo.NewOffset().At(span.From)
	}
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(at),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // an offset that does not exist is an error
		kgo.KeepControlRecords(),                    // to know that one stands at the end
	}, s.opts...)...)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &kafkaReader{cl: cl}, nil
}

// kafkaReader is a franz-go client that consumes.
type kafkaReader struct {
	cl       *kgo.Client
	portions []Portion
}

func (r *kafkaReader) Close() { r.cl.Close() }

func (r *kafkaReader) Poll(ctx context.Context) ([]Portion, error) {
	fetches := r.cl.PollFetches(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.portions = r.portions[:0]
	var err error
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Err != nil {
			if err == nil {
				err = fmt.Errorf("bench: %s[%d]: %w", p.Topic, p.Partition, fromKafka(p.Err))
			}
			return
		}
		if n := len(p.Records); n > 0 {
			r.portions = append(r.portions, Portion{
				Topic: p.Topic, Partition: p.Partition, Next: p.Records[n-1].Offset + 1, Records: fetched(p.Records),
			})
		}
	})
	if err != nil {
		return nil, err
	}
	return r.portions, nil
}

// fetched yields the records that users sent.
func fetched(records []*kgo.Record) iter.Seq2[client.Record, error] {
	return func(yield func(client.Record, error) bool) {
		for _, r := range records {
			if r.Attrs.IsControl() {
				continue
			}
			if !yield(client.Record{
				Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value,
			}, nil) {
				return
			}
		}
	}
}
