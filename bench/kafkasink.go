package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/client"
)

// kafkaSink is a franz-go client that produces.
type kafkaSink struct {
	cl   *kgo.Client
	free sync.Pool // of *kafkaRecord
}

// kafkaRecord is a record under way, with its own copy of the bytes.
type kafkaRecord struct {
	kgo.Record
	bytes []byte // of key and value
	sink  *kafkaSink
	done  func(client.RecordResult)

	promise func(*kgo.Record, error) // answered, made once
}

func (k *kafka) NewSink(cfg SinkConfig) (ClosingSink, error) {
	opts, err := producerOptions(cfg)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(k.options(), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	s := &kafkaSink{cl: cl}
	s.free.New = func() any {
		r := &kafkaRecord{sink: s}
		r.promise = r.answered
		return r
	}
	return s, nil
}

// producerOptions are cfg in franz-go's words.
func producerOptions(cfg SinkConfig) ([]kgo.Opt, error) {
	codec, ok := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[cfg.Compression.String()]
	if !ok {
		return nil, fmt.Errorf("bench: no compression %s in Kafka's protocol", cfg.Compression)
	}
	acks := map[client.Acks]kgo.Acks{client.AcksAll: kgo.AllISRAcks(), client.AcksLeader: kgo.LeaderAck(), client.AcksNone: kgo.NoAck()}[cfg.Acks]
	linger := cfg.Linger
	if linger == 0 {
		linger = client.DefaultLinger
	}
	opts := []kgo.Opt{
		kgo.DefaultProduceTopic(cfg.Topic), kgo.RequiredAcks(acks), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(max(0, linger)),
		// Bytes bound what is buffered, as in the native client.
		kgo.MaxBufferedRecords(math.MaxInt), kgo.MaxBufferedBytes(int(orDefault(cfg.MaxBufferedBytes, client.DefaultMaxBufferedBytes))),
		kgo.RecordDeliveryTimeout(orDefault(cfg.DeliveryTimeout, client.DefaultDeliveryTimeout)),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	}
	if cfg.NotIdempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	if cfg.Keys == KeysEven { // each record says where it goes
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	if n := orDefault(cfg.BatchBytes, client.DefaultBatchBytes); n <= math.MaxInt32 {
		return append(opts, kgo.ProducerBatchMaxBytes(int32(n))), nil
	}
	return nil, fmt.Errorf("bench: batches of %d bytes; Kafka's protocol has at most %d", cfg.BatchBytes, math.MaxInt32)
}

// orDefault returns n, or what it stands for if it is 0.
func orDefault[T ~int | ~int64](n, byDefault T) T {
	if n == 0 {
		return byDefault
	}
	return n
}

// Send copies r, whose bytes the caller may change afterwards.
func (s *kafkaSink) Send(ctx context.Context, r client.Record, done func(client.RecordResult)) error {
	k := s.free.Get().(*kafkaRecord)
	k.done = done
	k.bytes = append(append(k.bytes[:0], r.Key...), r.Value...)
	k.Record = kgo.Record{Topic: r.Topic, Partition: r.Partition, Timestamp: r.Timestamp}
	if n := len(r.Key); r.Key != nil {
		k.Key = k.bytes[:n:n]
	}
	if r.Value != nil {
		k.Value = k.bytes[len(r.Key):]
	}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: string(h.Key), Value: bytes.Clone(h.Value)})
	}
	s.cl.Produce(ctx, &k.Record, k.promise)
	return nil
}

// answered tells the outcome. A record that failed is not used again: a request
// that carries it may still be on its way out.
func (k *kafkaRecord) answered(r *kgo.Record, err error) {
	done, res := k.done, client.RecordResult{Partition: r.Partition, Offset: r.Offset, Err: fromKafka(err)}
	k.done = nil
	if err == nil {
		k.sink.free.Put(k)
	}
	done(res)
}

func (s *kafkaSink) Flush(ctx context.Context) error { return s.cl.Flush(ctx) }

// Close gives up what is under way.
func (s *kafkaSink) Close(context.Context) error {
	s.cl.Close()
	return nil
}
