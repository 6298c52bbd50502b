// Command franz-go uses a Flotilla node through franz-go, a client of Kafka: it
// makes a topic, produces with each compression, reads everything back, alone and
// as members of groups, and administers. What it saw goes to standard output, one JSON object a line.
//
//	go run ./examples/franz-go 127.0.0.1:9092 greetings
//
// It leaves the topic behind; a second run needs another name.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// limit bounds the whole program: the node is near, so more means a failure.
const limit = 40 * time.Second

// perCodec is how many records each compression gets.
const perCodec = 6

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: franz-go HOST:PORT TOPIC")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "franz-go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr, topic string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RetryTimeout(5*time.Second), kgo.RecordDeliveryTimeout(5*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	e := &example{addr: addr, topic: topic, client: cl, admin: kadm.NewClient(cl)}
	for _, step := range []func(context.Context) error{
		e.cluster, e.createTopic, e.metadata, e.produce, e.consume, e.groups, e.deleteGroup, e.serverAssigned, e.offsets, e.epochs,
		e.configs, e.logDirs, e.producers, e.createPartitions, e.deleteRecords, e.deleteTopic,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// example is one run.
type example struct {
	addr, topic string
	client      *kgo.Client
	admin       *kadm.Client

	sent []*kgo.Record // what was acknowledged
}

// fields is one line of output.
type fields map[string]any

// say prints what a step saw.
func say(step string, f fields) {
	f["step"] = step
	line, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	fmt.Println(string(line))
}

func (e *example) cluster(ctx context.Context) error {
	versions, err := e.admin.ApiVersions(ctx)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.Err != nil {
			return v.Err
		}
		low, _ := v.KeyMinVersion(int16(kmsg.Produce))
		produce, _ := v.KeyMaxVersion(int16(kmsg.Produce))
		fetch, _ := v.KeyMaxVersion(int16(kmsg.Fetch))
		say("api-versions", fields{"produce_min": low, "produce_max": produce, "fetch_max": fetch})
	}
	resp, err := kmsg.NewPtrDescribeClusterRequest().RequestWith(ctx, e.client)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	brokers := []string{}
	for _, b := range resp.Brokers {
		brokers = append(brokers, fmt.Sprintf("%s:%d", b.Host, b.Port))
	}
	say("cluster", fields{"id": resp.ClusterID, "controller": resp.ControllerID, "brokers": brokers})
	return nil
}

func (e *example) createTopic(ctx context.Context) error {
	t, err := e.admin.CreateTopic(ctx, 2, 1, map[string]*string{"max.message.bytes": kadm.StringPtr("2000000")}, e.topic)
	if err != nil {
		return err
	}
	largest := t.Configs["max.message.bytes"]
	say("create-topic", fields{
		"topic": t.Topic, "topic_id": t.ID.String(), "partitions": t.NumPartitions, "replication": t.ReplicationFactor,
		"max_message_bytes": largest.MaybeValue(),
	})
	return nil
}

// metadata describes the topic by both requests that can.
func (e *example) metadata(ctx context.Context) error {
	m, err := e.admin.Metadata(ctx, e.topic)
	if err != nil {
		return err
	}
	brokers, leaders := []string{}, []int32{}
	for _, b := range m.Brokers {
		brokers = append(brokers, fmt.Sprintf("%s:%d", b.Host, b.Port))
	}
	for _, p := range m.Topics[e.topic].Partitions.Sorted() {
		leaders = append(leaders, p.Leader)
	}
	say("metadata", fields{"topic": e.topic, "topic_id": m.Topics[e.topic].ID.String(), "leaders": leaders, "brokers": brokers})

	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	t := kmsg.NewDescribeTopicPartitionsRequestTopic()
	t.Topic = e.topic
	req.Topics = append(req.Topics, t)
	req.ResponsePartitionLimit = 100
	resp, err := req.RequestWith(ctx, e.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
		leaders := []int32{}
		for _, p := range t.Partitions {
			leaders = append(leaders, p.LeaderID)
		}
		say("describe-topic", fields{"topic": t.Topic, "topic_id": kadm.TopicID(t.TopicID).String(), "leaders": leaders})
	}
	return nil
}

// produce sends keyed records with headers, with an idempotent producer for
// each compression.
func (e *example) produce(ctx context.Context) error {
	start := time.Now().Truncate(time.Millisecond)
	for _, codec := range []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
	} {
		p, err := kgo.NewClient(
			kgo.SeedBrokers(e.addr), kgo.ProducerBatchCompression(codec.codec), kgo.DefaultProduceTopic(e.topic),
			kgo.RetryTimeout(5*time.Second), kgo.RecordDeliveryTimeout(5*time.Second),
		)
		if err != nil {
			return err
		}
		var records []*kgo.Record
		for i := range perCodec {
			records = append(records, &kgo.Record{
				Key:       fmt.Appendf(nil, "%s-%d", codec.name, i),
				Value:     []byte(strings.Repeat(fmt.Sprintf("%s record %d. ", codec.name, i), 40)),
				Headers:   []kgo.RecordHeader{{Key: "codec", Value: []byte(codec.name)}, {Key: "n", Value: []byte(strconv.Itoa(i))}},
				Timestamp: start.Add(time.Duration(len(e.sent)+i) * time.Millisecond),
			})
		}
		// Records that may have been stored are not given up at the end of ctx, but
		// when the client is closed.
		stop := context.AfterFunc(ctx, p.Close)
		err = p.ProduceSync(ctx, records...).FirstErr()
		stop()
		p.Close()
		if err != nil {
			return fmt.Errorf("produce with %s: %w", codec.name, err)
		}
		for _, r := range records {
			say("produced", fields{"codec": codec.name, "key": string(r.Key), "partition": r.Partition, "offset": r.Offset})
		}
		e.sent = append(e.sent, records...)
	}
	return nil
}

// consume reads the topic from its beginning, by assignment.
func (e *example) consume(ctx context.Context) error {
	beginning := kgo.NewOffset().AtStart()
	c, err := kgo.NewClient(kgo.SeedBrokers(e.addr), kgo.RetryTimeout(5*time.Second),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{e.topic: {0: beginning, 1: beginning}}))
	if err != nil {
		return err
	}
	defer c.Close()
	for n := 0; n < len(e.sent); {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%d of %d records consumed: %w", n, len(e.sent), err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			sayRecord("consumed", r)
		})
	}
	return nil
}

func sayRecord(step string, r *kgo.Record) {
	headers := make(map[string]string)
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	say(step, fields{
		"partition": r.Partition, "offset": r.Offset, "timestamp": r.Timestamp.UnixMilli(),
		"key": string(r.Key), "value": string(r.Value), "headers": headers,
	})
}

// offsets asks for the bounds of each partition, and for the first record that
// is not older than one of the middle.
func (e *example) offsets(ctx context.Context) error {
	at := e.sent[len(e.sent)/2].Timestamp.UnixMilli()
	earliest, err := e.admin.ListStartOffsets(ctx, e.topic)
	if err != nil {
		return err
	}
	latest, err := e.admin.ListEndOffsets(ctx, e.topic)
	if err != nil {
		return err
	}
	timed, err := e.admin.ListOffsetsAfterMilli(ctx, at, e.topic)
	if err != nil {
		return err
	}
	if err := errors.Join(earliest.Error(), latest.Error(), timed.Error()); err != nil {
		return err
	}
	for p := range int32(2) {
		first, _ := earliest.Lookup(e.topic, p)
		last, _ := latest.Lookup(e.topic, p)
		since, _ := timed.Lookup(e.topic, p)
		say("offsets", fields{"partition": p, "earliest": first.Offset, "latest": last.Offset, "at_ms": at, "at": since.Offset})
	}
	return nil
}

// epochs asks where the leader epoch of the latest records ends.
func (e *example) epochs(ctx context.Context) error {
	latest, err := e.admin.ListEndOffsets(ctx, e.topic)
	if err != nil {
		return err
	}
	req := make(kadm.OffsetForLeaderEpochRequest)
	latest.Each(func(o kadm.ListedOffset) { req.Add(o.Topic, o.Partition, o.LeaderEpoch) })
	ends, err := e.admin.OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return err
	}
	for p, end := range ends[e.topic] {
		if end.Err != nil {
			return end.Err
		}
		say("epoch-end", fields{"partition": p, "epoch": end.LeaderEpoch, "end": end.EndOffset})
	}
	return nil
}

// configs changes configs by each of the two requests for that, and lists the
// topics.
func (e *example) configs(ctx context.Context) error {
	if err := e.describeConfigs(ctx, "configs"); err != nil {
		return err
	}
	failed := func(r *kadm.AlterConfigsResponse) error { return r.Err }
	// The old request replaces all that is set: max.message.bytes falls back.
	altered, err := e.admin.AlterTopicConfigsState(ctx, []kadm.AlterConfig{
		{Name: "retention.bytes", Value: kadm.StringPtr("100000000")},
	}, e.topic)
	if err != nil {
		return err
	}
	if _, err := altered.On(e.topic, failed); err != nil {
		return err
	}
	altered, err = e.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("3600000")},
	}, e.topic)
	if err != nil {
		return err
	}
	if _, err := altered.On(e.topic, failed); err != nil {
		return err
	}
	if err := e.describeConfigs(ctx, "configs-altered"); err != nil {
		return err
	}
	resources, err := e.admin.ListConfigResources(ctx, kmsg.ConfigResourceTypeTopic)
	if err != nil {
		return err
	}
	if resources.Err != nil {
		return resources.Err
	}
	say("config-resources", fields{"topics": resources.Names()})
	return nil
}

// describeConfigs says what three configs of the topic are, and who set them.
func (e *example) describeConfigs(ctx context.Context, step string) error {
	described, err := e.admin.DescribeTopicConfigs(ctx, e.topic)
	if err != nil {
		return err
	}
	configs := make(map[string]string)
	sources := make(map[string]string)
	_, err = described.On(e.topic, func(r *kadm.ResourceConfig) error {
		for _, c := range r.Configs {
			if c.Key == "max.message.bytes" || c.Key == "retention.ms" || c.Key == "retention.bytes" {
				configs[c.Key], sources[c.Key] = c.MaybeValue(), c.Source.String()
			}
		}
		return r.Err
	})
	say(step, fields{"configs": configs, "sources": sources})
	return err
}

func (e *example) logDirs(ctx context.Context) error {
	dirs, err := e.admin.DescribeAllLogDirs(ctx, kadm.TopicsSet{e.topic: {0: {}, 1: {}}})
	if err != nil {
		return err
	}
	var bytes int64
	for _, ds := range dirs {
		if err := ds.Error(); err != nil {
			return err
		}
		bytes += ds.Size()
	}
	say("log-dirs", fields{"bytes": bytes})
	return nil
}

func (e *example) producers(ctx context.Context) error {
	described, err := e.admin.DescribeProducers(ctx, kadm.TopicsSet{e.topic: {0: {}, 1: {}}})
	if err != nil {
		return err
	}
	for _, p := range described.SortedPartitions() {
		if p.Err != nil {
			return p.Err
		}
		ids := []int64{}
		for _, a := range p.ActiveProducers.Sorted() {
			ids = append(ids, a.ProducerID)
		}
		say("producers", fields{"partition": p.Partition, "ids": ids})
	}
	return nil
}

func (e *example) createPartitions(ctx context.Context) error {
	resp, err := e.admin.UpdatePartitions(ctx, 3, e.topic)
	if err != nil {
		return err
	}
	if err := resp.Error(); err != nil {
		return err
	}
	m, err := e.admin.Metadata(ctx, e.topic)
	if err != nil {
		return err
	}
	say("create-partitions", fields{"partitions": len(m.Topics[e.topic].Partitions)})
	return nil
}

// deleteRecords deletes the first record of partition 0.
func (e *example) deleteRecords(ctx context.Context) error {
	var before kadm.Offsets
	before.Add(kadm.Offset{Topic: e.topic, Partition: 0, At: 1})
	resp, err := e.admin.DeleteRecords(ctx, before)
	if err != nil {
		return err
	}
	deleted, err := resp.On(e.topic, 0, func(r *kadm.DeleteRecordsResponse) error { return r.Err })
	if err != nil {
		return err
	}
	say("delete-records", fields{"partition": 0, "low_watermark": deleted.LowWatermark})
	return nil
}

// deleteTopic deletes a topic that it makes for that.
func (e *example) deleteTopic(ctx context.Context) error {
	scratch := e.topic + "-scratch"
	if _, err := e.admin.CreateTopic(ctx, 1, 1, nil, scratch); err != nil {
		return err
	}
	deleted, err := e.admin.DeleteTopic(ctx, scratch)
	if err != nil {
		return err
	}
	m, err := e.admin.Metadata(ctx)
	if err != nil {
		return err
	}
	say("delete-topic", fields{"topic": deleted.Topic, "topic_id": deleted.ID.String(), "exists": m.Topics.Has(scratch)})
	return nil
}
