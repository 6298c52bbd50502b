package bench

import (
	"context"
	"errors"
	"iter"

	"github.com/flotilla-log/flotilla/client"
)

// Cluster is a cluster as a load sees it, through one protocol: NewNative and
// NewKafka make one. Errors that stem from a server's answer carry its code,
// which client.CodeOf finds.
type Cluster interface {
	// OpenTopic finds a topic, or creates it with so many partitions and the
	// servers' own defaults. It returns once each partition has a leader.
	OpenTopic(ctx context.Context, name string, partitions int32) (OpenedTopic, error)
	DeleteTopic(ctx context.Context, name string) error

	// Spans returns what each of a topic's partitions holds now, in order of
	// their numbers, also of those that are empty.
	Spans(ctx context.Context, topic string) ([]Span, error)

	// NewSink and NewSource return what has connections of its own. They may
	// refuse a configuration, without asking a server.
	NewSink(cfg SinkConfig) (ClosingSink, error)
	NewSource(cfg SourceConfig) (Source, error)

	Close()
}

// OpenedTopic is a topic that exists.
type OpenedTopic struct {
	Partitions int32
	Created    bool // just now
}

// SinkConfig is how a sink batches and sends. A protocol without one of
// ProducerConfig's settings leaves its client's default: Kafka's has neither
// MaxInFlight nor Partitioner.
type SinkConfig struct {
	client.ProducerConfig
	Keys Keys // of the records that it will get
}

// ClosingSink is a Sink that gives up, when it is closed, what is under way.
type ClosingSink interface {
	Sink
	Close(ctx context.Context) error
}

// SourceConfig bounds what is read at a time. 0 stands for the client's
// default.
type SourceConfig struct {
	FetchBytes     int // most that one answer holds
	PartitionBytes int // most that it holds of one partition
	PrefetchBytes  int // most that is held for later; not in Kafka's protocol, whose client holds an answer of each server
}

// Source reads partitions.
type Source interface {
	// Open returns a Reader of spans, from where each begins on, also beyond
	// its end.
	Open(spans []Span) (Reader, error)
	Close()
}

// Reader gives the records of some partitions as they come. It is used by one
// goroutine.
type Reader interface {
	// Poll waits for records until ctx ends. An error of one partition is an
	// error: it would never come to its end. What it returns is valid until the
	// next Poll.
	Poll(ctx context.Context) ([]Portion, error)
	Close()
}

// Portion is what came of one partition at once.
type Portion struct {
	Topic     string
	Partition int32

	// Next is where reading goes on after all that the same Poll returned of the
	// partition. It may be beyond the last record, where records were compacted
	// away.
	Next int64

	Records iter.Seq2[client.Record, error]
}

// errPrefetch reports a setting that Kafka's client does not have.
var errPrefetch = errors.New("bench: Kafka's protocol: no limit can be set on what a consumer holds: it holds an answer of each server")
