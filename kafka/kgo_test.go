package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// startKgo starts a node on a real disk, for sendfile's sake, and returns a
// client of it.
func startKgo(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	n := startCore(t, func(opt *node.Options) { opt.FS, opt.Dir, opt.FlushAge = vfs.OS, t.TempDir(), time.Millisecond })
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(n.addr), kgo.AllowAutoTopicCreation(), kgo.DialTimeout(patience)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestKgo: what franz-go's producer sends, in every codec, idempotent or not, its
// consumer reads, with sessions and without, in order and whole.
func TestKgo(t *testing.T) {
	t.Parallel()
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("codec=%s/plain=%t", name, plain), func(t *testing.T) {
				t.Parallel()
				topic := "topic"
				opts := []kgo.Opt{
					kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(1 << 20),
					kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxWait(10 * time.Second),
				}
				if plain {
					opts = append(opts, kgo.DisableIdempotentWrite(), kgo.DisableFetchSessions())
				}
				c := startKgo(t, opts...)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				const n = 2000
				value := func(i int) []byte { return append(fmt.Appendf(nil, "%d ", i), bytes.Repeat([]byte("value"), i%300)...) }
				for i := range n {
					c.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, i), Value: value(i), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{byte(i)}}}}, func(r *kgo.Record, err error) {
						if err != nil {
							t.Errorf("record %d: %v", i, err)
						}
					})
				}
				if err := c.Flush(ctx); err != nil {
					t.Fatal(err)
				}
				for next := 0; next < n; {
					fs := c.PollFetches(ctx)
					if errs := fs.Errors(); len(errs) > 0 {
						t.Fatal(errs)
					}
					fs.EachRecord(func(r *kgo.Record) {
						if r.Offset != int64(next) || string(r.Key) != fmt.Sprint(next) || !bytes.Equal(r.Value, value(next)) || r.Headers[0].Value[0] != byte(next) {
							t.Fatalf("record at %d: offset %d, key %s", next, r.Offset, r.Key)
						}
						next++
					})
				}
			})
		}
	}
}

// TestKgoTopicConfigs: a topic's configs hold for a Kafka client too.
func TestKgoTopicConfigs(t *testing.T) {
	t.Parallel()
	c := startKgo(t, kgo.DefaultProduceTopic("a"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	create := kmsg.NewPtrCreateTopicsRequest()
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = "a", 1, -1
	for k, v := range map[string]string{"compression.type": "zstd", "message.timestamp.type": "LogAppendTime", "max.message.bytes": "100000"} {
		cc := kmsg.NewCreateTopicsRequestTopicConfig()
		cc.Name, cc.Value = k, kmsg.StringPtr(v)
		ct.Configs = append(ct.Configs, cc)
	}
	create.Topics = append(create.Topics, ct)
	made, err := create.RequestWith(ctx, c)
	if err != nil || made.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	began := time.Now().Truncate(time.Millisecond)
	r, err := c.ProduceSync(ctx, &kgo.Record{Value: bytes.Repeat([]byte("v"), 5000), Timestamp: time.UnixMilli(1)}).First()
	if err != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := c.ProduceSync(ctx, &kgo.Record{Value: bytes.Repeat([]byte("v"), 200_000)}).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("too large: %v", err)
	}
	c.AddConsumePartitions(map[string]map[int32]kgo.Offset{"a": {0: kgo.NewOffset().AtStart()}})
	fs := c.PollFetches(ctx)
	got := fs.Records()
	if len(got) != 1 || got[0].Attrs.CompressionType() != 4 || got[0].Attrs.TimestampType() != 1 || got[0].Timestamp.Before(began) {
		t.Errorf("read %+v, wrote %+v", got, r)
	}
}
