package clienttest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// result is what one run of a program left behind.
type result struct {
	topic string
	addr  string // what the program was told, and what brokers have to be called
	out   output
	facts *facts
}

// feature is a row of the table: what a client can do, and how that shows.
type feature struct {
	name  string
	key   kmsg.Key            // the request that must be answered rightly
	check func(*result) error // nil: it was
}

// codecs are the compressions, by their number in a batch's attributes.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// perCodec is how many records a program sends with each.
const perCodec = 6

// features are the rows, in their order.
var features = slices.Concat(
	[]feature{
		{"ApiVersions", kmsg.ApiVersions, (*result).negotiated},
		{"Metadata", kmsg.Metadata, (*result).metadata},
		{"DescribeCluster", kmsg.DescribeCluster, (*result).cluster},
		{"DescribeTopicPartitions", kmsg.DescribeTopicPartitions, (*result).describedTopic},
		{"CreateTopics", kmsg.CreateTopics, (*result).createdTopic},
	},
	produceFeatures(),
	[]feature{
		{"InitProducerId: idempotent produce", kmsg.InitProducerID, (*result).idempotent},
		{"Fetch from the beginning, by assignment", kmsg.Fetch, (*result).consumed},
		{"ListOffsets: earliest, latest, by time", kmsg.ListOffsets, (*result).offsets},
		{"OffsetForLeaderEpoch", kmsg.OffsetForLeaderEpoch, (*result).epochs},
		{"DescribeConfigs", kmsg.DescribeConfigs, (*result).configs},
		{"IncrementalAlterConfigs", kmsg.IncrementalAlterConfigs, (*result).incrementallyAltered},
		{"AlterConfigs", kmsg.AlterConfigs, (*result).altered},
		{"ListConfigResources", kmsg.ListConfigResources, (*result).configResources},
		{"DescribeLogDirs", kmsg.DescribeLogDirs, (*result).logDirs},
		{"DescribeProducers", kmsg.DescribeProducers, (*result).producers},
		{"CreatePartitions", kmsg.CreatePartitions, (*result).createdPartitions},
		{"DeleteRecords", kmsg.DeleteRecords, (*result).deletedRecords},
		{"DeleteTopics", kmsg.DeleteTopics, (*result).deletedTopic},
	},
	groupFeatures,
)

func produceFeatures() (out []feature) {
	for i, codec := range codecs {
		out = append(out, feature{"Produce, " + codec, kmsg.Produce, func(r *result) error { return r.produced(i) }})
	}
	return out
}

// negotiated: records with headers, which the oldest Produce has no place for,
// were only sent since the server said that it takes a newer one.
func (r *result) negotiated() error {
	if len(r.out["produced"]) == 0 {
		return errors.New("nothing was produced")
	}
	for _, l := range r.out["produced"] {
		if rec := r.facts.at(l.Partition, *l.Offset); rec != nil && len(rec.Headers) != 2 {
			return fmt.Errorf("the record of key %s has headers %v, want two", l.Key, rec.Headers)
		}
	}
	for _, l := range r.out["api-versions"] {
		if *l.ProduceMin != 0 || *l.ProduceMax < 13 || *l.FetchMax < 18 {
			return fmt.Errorf("Produce %d to %d, Fetch to %d", *l.ProduceMin, *l.ProduceMax, *l.FetchMax)
		}
	}
	return nil
}

func (r *result) metadata() error {
	l, err := r.out.one("metadata")
	if err != nil {
		return err
	}
	return errors.Join(r.sameTopic(l), same("brokers", l.Brokers, []string{r.addr}))
}

func (r *result) describedTopic() error {
	l, err := r.out.one("describe-topic")
	if err != nil {
		return err
	}
	return r.sameTopic(l)
}

// sameTopic compares a description of the topic as it was created.
func (r *result) sameTopic(l line) error {
	if l.Topic != r.topic || l.TopicID != "" && l.TopicID != r.facts.topicID {
		return fmt.Errorf("topic %q with id %q, want %q with %q", l.Topic, l.TopicID, r.topic, r.facts.topicID)
	}
	return same("leaders", l.Leaders, slices.Repeat([]int32{r.facts.node}, partitions))
}

func (r *result) cluster() error {
	l, err := r.out.one("cluster")
	if err != nil {
		return err
	}
	if l.ID != r.facts.cluster || l.Controller == nil || *l.Controller != r.facts.node {
		return fmt.Errorf("cluster %q with controller %v, want %q with %d", l.ID, l.Controller, r.facts.cluster, r.facts.node)
	}
	return same("brokers", l.Brokers, []string{r.addr})
}

func (r *result) createdTopic() error {
	l, err := r.out.one("create-topic")
	if err != nil {
		return err
	}
	switch {
	case l.Topic != r.topic || r.facts.topicID == "" || l.TopicID != "" && l.TopicID != r.facts.topicID:
		return fmt.Errorf("topic %q with id %q, want %q with %q", l.Topic, l.TopicID, r.topic, r.facts.topicID)
	case l.Partitions != partitions && l.Partitions != 0 || r.facts.partitions < partitions:
		return fmt.Errorf("%d partitions said, %d found", l.Partitions, r.facts.partitions)
	case l.Replication != nil && *l.Replication != 1:
		return fmt.Errorf("replication factor %d, want 1", *l.Replication)
	case l.MaxMessageBytes != "" && l.MaxMessageBytes != maxMessageBytes:
		return fmt.Errorf("max.message.bytes %s, want %s", l.MaxMessageBytes, maxMessageBytes)
	}
	return nil
}

// produced compares the acknowledgements of one codec's records with the log.
func (r *result) produced(codec int) error {
	acked := 0
	for _, l := range r.out["produced"] {
		if l.Codec != codecs[codec] {
			continue
		}
		acked++
		rec := r.facts.at(l.Partition, *l.Offset)
		switch {
		case rec == nil && *l.Offset < r.facts.starts[l.Partition]:
			continue // the program has deleted it
		case rec == nil || string(rec.Key) != l.Key:
			return fmt.Errorf("key %s was acknowledged at %d:%d, where %v lies", l.Key, l.Partition, *l.Offset, rec)
		case int(rec.Attrs.CompressionType()) != codec:
			return fmt.Errorf("key %s is stored with codec %s", l.Key, codecs[rec.Attrs.CompressionType()])
		}
	}
	return same("acknowledged", acked, perCodec)
}

func (r *result) idempotent() error {
	if len(r.out["produced"]) == 0 || len(r.facts.records) == 0 {
		return errors.New("nothing was produced")
	}
	for _, records := range r.facts.records {
		for _, rec := range records {
			if rec.ProducerID <= 0 || rec.ProducerEpoch < 0 {
				return fmt.Errorf("the record of key %s has producer id %d", rec.Key, rec.ProducerID)
			}
		}
	}
	return nil
}

func (r *result) consumed() error { return r.consumedIn("consumed") }

// consumedIn compares what was consumed in a step with the log.
func (r *result) consumedIn(step string) error {
	want := 0
	for p, records := range r.facts.records {
		want += int(r.facts.starts[p]) + len(records)
	}
	if n := len(r.out[step]); n == 0 || n != want {
		return fmt.Errorf("%d records consumed, want %d", n, want)
	}
	for _, l := range r.out[step] {
		rec := r.facts.at(l.Partition, *l.Offset)
		if rec == nil && *l.Offset < r.facts.starts[l.Partition] {
			continue // the program has deleted it meanwhile
		}
		if rec == nil || string(rec.Key) != l.Key || string(rec.Value) != l.Value {
			return fmt.Errorf("%d:%d was read as key %q value %q, want %v", l.Partition, *l.Offset, l.Key, l.Value, rec)
		}
		if l.Timestamp != nil && *l.Timestamp != rec.Timestamp.UnixMilli() {
			return fmt.Errorf("%d:%d was read with timestamp %d, want %d", l.Partition, *l.Offset, *l.Timestamp, rec.Timestamp.UnixMilli())
		}
		for _, h := range rec.Headers {
			if v, ok := l.Headers[h.Key]; !ok || v != string(h.Value) || len(l.Headers) != len(rec.Headers) {
				return fmt.Errorf("%d:%d was read with headers %v, want %v", l.Partition, *l.Offset, l.Headers, rec.Headers)
			}
		}
	}
	return nil
}

func (r *result) offsets() error {
	if n := len(r.out["offsets"]); n != partitions {
		return fmt.Errorf("offsets of %d partitions, want %d", n, partitions)
	}
	for _, l := range r.out["offsets"] {
		end := r.facts.end(l.Partition)
		if l.Earliest == nil || *l.Earliest != 0 || l.Latest == nil || *l.Latest != end || end == 0 {
			return fmt.Errorf("partition %d: from %v to %v, want 0 to %d", l.Partition, l.Earliest, l.Latest, end)
		}
		at := end
		for _, rec := range r.facts.records[l.Partition] {
			if l.AtMS != nil && rec.Timestamp.UnixMilli() >= *l.AtMS {
				at = rec.Offset
				break
			}
		}
		if l.At == nil || *l.At != at {
			return fmt.Errorf("partition %d: asked for %v it said %v, want %d", l.Partition, l.AtMS, l.At, at)
		}
	}
	return nil
}

func (r *result) epochs() error {
	if n := len(r.out["epoch-end"]); n != partitions {
		return fmt.Errorf("epochs of %d partitions, want %d", n, partitions)
	}
	for _, l := range r.out["epoch-end"] {
		records := r.facts.records[l.Partition]
		if len(records) == 0 || *l.End != r.facts.end(l.Partition) || *l.Epoch != records[len(records)-1].LeaderEpoch {
			return fmt.Errorf("partition %d: epoch %d ends at %d, with %d records", l.Partition, *l.Epoch, *l.End, len(records))
		}
	}
	return nil
}

// What the programs set: the first when they create the topic, the others later.
const (
	maxMessageBytes = "2000000"
	retentionMS     = "3600000"
	retentionBytes  = "100000000"
)

const (
	dynamicSource = "DYNAMIC_TOPIC_CONFIG"
	defaultSource = "DEFAULT_CONFIG"
)

func (r *result) configs() error {
	l, err := r.out.one("configs")
	return cmp.Or(err,
		l.config("max.message.bytes", maxMessageBytes, dynamicSource),
		l.config("retention.ms", "604800000", defaultSource))
}

// incrementallyAltered: the client sees what it set, and so does the test.
func (r *result) incrementallyAltered() error {
	l, err := r.out.one("configs-altered")
	return cmp.Or(err, l.config("retention.ms", retentionMS, dynamicSource),
		same("what the server has", r.facts.configs["retention.ms"], retentionMS))
}

// altered: what was set before is gone.
func (r *result) altered() error {
	l, err := r.out.one("configs-altered")
	return cmp.Or(err, l.config("retention.bytes", retentionBytes, dynamicSource),
		l.config("max.message.bytes", "1048588", defaultSource),
		same("what the server has", r.facts.configs["retention.bytes"], retentionBytes))
}

// config checks one config that a line shows.
func (l line) config(name, value, source string) error {
	if l.Configs[name] != value || l.Sources[name] != source {
		return fmt.Errorf("%s is %q from %q, want %q from %q", name, l.Configs[name], l.Sources[name], value, source)
	}
	return nil
}

func (r *result) configResources() error {
	l, err := r.out.one("config-resources")
	if err == nil && !slices.Contains(l.Topics, r.topic) {
		err = fmt.Errorf("topics %q, without %s", l.Topics, r.topic)
	}
	return err
}

// logDirs: what lies on disk is at least a header for each of the batches.
func (r *result) logDirs() error {
	l, err := r.out.one("log-dirs")
	if least := int64(len(codecs) * batchHeaderBytes); err == nil && l.Bytes < least {
		err = fmt.Errorf("%d bytes, want %d at least", l.Bytes, least)
	}
	return err
}

// batchHeaderBytes is how large a batch without records is.
const batchHeaderBytes = 61

func (r *result) producers() error {
	if n := len(r.out["producers"]); n != partitions {
		return fmt.Errorf("producers of %d partitions, want %d", n, partitions)
	}
	for _, l := range r.out["producers"] {
		seen := make(map[int64]bool)
		for _, rec := range r.facts.records[l.Partition] {
			seen[rec.ProducerID] = true
		}
		for id := range seen {
			if !slices.Contains(l.IDs, id) {
				return fmt.Errorf("partition %d: producers %d, without %d", l.Partition, l.IDs, id)
			}
		}
	}
	return nil
}

func (r *result) createdPartitions() error {
	l, err := r.out.one("create-partitions")
	return cmp.Or(err, same("partitions", l.Partitions, partitions+1), same("partitions found", r.facts.partitions, partitions+1))
}

func (r *result) deletedRecords() error {
	l, err := r.out.one("delete-records")
	if err == nil && (l.LowWatermark != nil && *l.LowWatermark != 1 || r.facts.starts[l.Partition] != 1) {
		err = fmt.Errorf("partition %d starts at %d, want 1", l.Partition, r.facts.starts[l.Partition])
	}
	return err
}

func (r *result) deletedTopic() error {
	l, err := r.out.one("delete-topic")
	if err == nil && (l.Exists == nil || *l.Exists || r.facts.scratch || l.Topic != r.topic+"-scratch") {
		err = fmt.Errorf("topic %q exists still", l.Topic)
	}
	return err
}

// same returns an error unless got is want.
func same[T any](what string, got, want T) error {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		return fmt.Errorf("%s: %s, want %s", what, g, w)
	}
	return nil
}
