package clienttest

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// partitions is how many the topic of an example has that produces; examples
// that can add one to them afterwards.
const partitions = 2

// facts is what there is on the server after a program ran, as the test's own
// client sees it.
type facts struct {
	broker  string // its advertised HOST:PORT
	cluster string
	node    int32

	topicID    string
	partitions int
	configs    map[string]string
	sources    map[string]string
	starts     map[int32]int64
	records    map[int32][]*kgo.Record
	scratch    bool // the topic that was to be deleted exists

	committed    map[int32]int64 // of the program's group
	scratchGroup bool            // the group that was to be deleted exists
}

// gather reads everything about a topic, and all of its records.
func gather(ctx context.Context, addr, topic string) (*facts, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	f := &facts{
		configs: make(map[string]string), sources: make(map[string]string),
		starts: make(map[int32]int64), records: make(map[int32][]*kgo.Record),
	}
	m, err := admin.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	if len(m.Brokers) != 1 {
		return nil, fmt.Errorf("%d brokers, want one", len(m.Brokers))
	}
	f.broker, f.cluster, f.node = fmt.Sprintf("%s:%d", m.Brokers[0].Host, m.Brokers[0].Port), m.Cluster, m.Brokers[0].NodeID
	f.scratch = m.Topics.Has(topic + "-scratch")
	if !m.Topics.Has(topic) {
		return f, nil
	}
	f.topicID, f.partitions = m.Topics[topic].ID.String(), len(m.Topics[topic].Partitions)
	described, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	_, err = described.On(topic, func(r *kadm.ResourceConfig) error {
		for _, c := range r.Configs {
			f.configs[c.Key], f.sources[c.Key] = c.MaybeValue(), c.Source.String()
		}
		return r.Err
	})
	if err != nil {
		return nil, err
	}
	return f, errors.Join(f.read(ctx, addr, admin, topic), f.readGroups(ctx, admin, topic))
}

// readGroups reads what has become of the program's groups.
func (f *facts) readGroups(ctx context.Context, admin *kadm.Client, topic string) error {
	f.committed = make(map[int32]int64)
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	_, f.scratchGroup = listed[groupOf(topic)+"-scratch"]
	if _, ok := listed[groupOf(topic)]; !ok {
		return nil // on a fresh server nobody coordinates it yet
	}
	offsets, err := admin.FetchOffsets(ctx, groupOf(topic))
	if err != nil {
		return err
	}
	offsets.Each(func(o kadm.OffsetResponse) { f.committed[o.Partition] = o.At })
	return offsets.Error()
}

// read reads the records of every partition up to its end.
func (f *facts) read(ctx context.Context, addr string, admin *kadm.Client, topic string) error {
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		return err
	}
	from, left := make(map[int32]kgo.Offset), int64(0)
	starts.Each(func(o kadm.ListedOffset) {
		f.starts[o.Partition] = o.Offset
		from[o.Partition] = kgo.NewOffset().At(o.Offset)
		left -= o.Offset
	})
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return err
	}
	defer c.Close()
	for left > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s with %d records to go: %w", topic, left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			f.records[r.Partition] = append(f.records[r.Partition], r)
			left--
		})
	}
	return nil
}

// end returns the offset after a partition's last record.
func (f *facts) end(partition int32) int64 {
	return f.starts[partition] + int64(len(f.records[partition]))
}

// at returns the record at an offset, or nil.
func (f *facts) at(partition int32, offset int64) *kgo.Record {
	for _, r := range f.records[partition] {
		if r.Offset == offset {
			return r
		}
	}
	return nil
}

// spendProducerID has the server give out a producer id, so that none that a
// program gets is 0, which an answer without content gives too.
func spendProducerID(ctx context.Context, addr string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	resp, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, cl)
	if err == nil && resp.ErrorCode != 0 {
		err = fmt.Errorf("InitProducerId: error code %d", resp.ErrorCode)
	}
	return err
}

// makeTopic creates a topic for a program that cannot.
func makeTopic(ctx context.Context, addr, topic string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic)
	return err
}
