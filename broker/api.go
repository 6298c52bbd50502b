package broker

import (
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
)

// What the answers are made of, for listeners.
type (
	TopicID = partition.TopicID
	Chunk   = store.Chunk
)

// ClientListener is the name of the listener that every node has.
const ClientListener = "client"

// Listener is one of a node's listeners for clients.
type Listener struct {
	Name      string
	Advertise string // host:port that its clients are told
}

// Node is one node of the cluster, as clients see it.
type Node struct {
	ID      int32
	Address string // host:port of its listener
	Rack    string // "" if it has none
}

// Topic is one topic, as small for many partitions as for one: see Broker.Leaders
// for who leads them.
type Topic struct {
	Name       string
	ID         TopicID
	Partitions int // how many it has

	assignment []metadata.ShardID // by partition index, shared; nil: there is no such topic yet, or no more
}

// PartitionLeader says where a partition is served.
type PartitionLeader struct {
	Node  int32 // -1: nowhere, for now
	Epoch int32 // leader epoch, -1 if unknown

	// Replicas are the nodes that have one, from Broker.Leaders alone, as what
	// follows. They are shared: do not change them.
	Replicas []int32
	InSync   []int32 // of Replicas, those in sync: see replica.lag.time.max
	Offline  []int32 // of Replicas, those on nodes that are fenced
}

// PartitionState is what DescribeTopic adds about one partition.
type PartitionState struct {
	PartitionLeader
	Shard         uint32
	LogStart      int64 // log start offset; -1: not known to this node, as below
	HighWatermark int64
	LogBytes      int64 // of the batches that it holds, in files and in memory
	DiskBytes     int64 // of the partition's data files on this node
	UnlinkBytes   int64 // of those, what the next checkpoint lets go: it lies below the log start
}

// ConfigDef is what is known of one topic config.
type ConfigDef = metadata.ConfigDef

// TopicConfig is one config of a topic, as it holds.
type TopicConfig struct {
	Key, Value string
	Default    bool // not set on the topic
	Def        *ConfigDef
}

// Inert reports whether the config is of no interest to who does not know
// Kafka: it does nothing here, and nobody has set it.
func (c *TopicConfig) Inert() bool { return c.Default && c.Def.Use != metadata.ConfigHonoured }

// TopicChange says which of a topic's configs to set, and which to put back to
// their defaults. Others stay, unless Replace is set. A name stands in one of
// the four only.
type TopicChange struct {
	Topic        TopicID
	Set          map[string]string // by Kafka's names
	Delete       []string
	Append       map[string]string // elements that a list is to have too
	Subtract     map[string]string // elements that a list is to have no more
	Replace      bool              // others are put back to their defaults; there may be nothing to set
	ValidateOnly bool
}

// DeletePart asks for a partition's records below an offset to be deleted.
type DeletePart struct {
	Topic  TopicID
	Index  int32
	Before int64 // the first offset to keep; -1: the high watermark
}

// DeleteResult answers one DeletePart.
type DeleteResult struct {
	Err      *errcode.Error
	LogStart int64 // the partition's log start offset now, -1 if unknown
}

// TopicSpec asks for a new topic.
type TopicSpec struct {
	Name         string
	Partitions   int32             // 0: num.partitions
	Replication  int32             // 0 and -1: default.replication.factor
	Replicas     [][]int32         // by partition, the nodes that are to have it, as many as Replication; nil: any
	Configs      map[string]string // by Kafka's names
	ValidateOnly bool

	internal bool // it is an internal topic, and the node itself asks
}

// ProducePart is one record batch for one partition.
type ProducePart struct {
	Topic TopicID
	Index int32
	Batch []byte // one foreign record batch; the broker's until the answer: it may set timestamps
}

// ProduceResult answers one ProducePart. With Err nil, the batch is durable on
// a majority of the partition's replicas (R8, R11), and its records have the
// offsets from BaseOffset on.
type ProduceResult struct {
	Err             *errcode.Error
	BaseOffset      int64 // -1: it was appended before, and where is forgotten
	LogAppendTimeMS int64 // -1: the batch keeps the producer's timestamps
	LogStart        int64 // log start offset, -1 if unknown

	// Records are those for which a batch was refused that is otherwise intact, in
	// their order, at most batch.MaxRecordErrors.
	Records []RecordError
}

// RecordError says what is wrong with one record of a batch.
type RecordError struct {
	Index int32 // counted from 0, in the batch
	Text  string
}

// Held is memory that is counted in a budget.
type Held struct {
	Of    *Budget
	Bytes int64
}

// FetchRequest asks for records from given offsets on.
type FetchRequest struct {
	MaxWait  time.Duration // how long to wait for MinBytes
	MinBytes int           // answer at once when there are as many
	MaxBytes int           // of all parts together; the first batch may exceed it
	Parts    []FetchPart

	// Rack is where a consumer stands that may read from followers (KIP-392), as
	// KnownRack returns it; "": it reads from leaders.
	Rack string

	// Held is what the caller is counted with until it is answered. A fetch that
	// waits while others wait for that memory is answered early, with what there is.
	Held []Held

	// Panicked takes a panic of the reading on a goroutine of the broker's, in
	// place of an answer. If it is nil, nothing keeps the panic from the process.
	Panicked func(p any)
}

// FetchPart asks for one partition's records.
type FetchPart struct {
	Topic    TopicID
	Index    int32
	Offset   int64
	MaxBytes int
	Epoch    int32 // newest leader epoch that the client knows, -1: none
}

// FetchResult answers one FetchPart: whole batches, from the one that holds the
// offset on. The receiver owns the chunks, and releases them.
type FetchResult struct {
	Err           *errcode.Error
	HighWatermark int64 // -1 if unknown
	LogStart      int64 // -1 if unknown
	Chunks        []*Chunk

	// Elsewhere says that the consumer is to read from the node ReadFrom, and not
	// from this one. With Err nil there is nothing else in the result.
	Elsewhere bool
	ReadFrom  int32

	// Following says that the replica was read as a follower, which has had what it
	// answers, and may not have all.
	Following bool

	turn    uint64         // of dataShard.turns, from before it was read
	ahead   bool           // what keeps this follower from answering may pass; see sendBack
	traffic *topicCounters // nil with an error
}

// Bytes returns the bytes of the chunks together.
func (r *FetchResult) Bytes() (n int64) {
	for _, c := range r.Chunks {
		n += c.Bytes
	}
	return n
}

// Sent counts the result as answered to a client.
func (r *FetchResult) Sent() {
	if n := r.Bytes(); n > 0 && r.traffic != nil {
		r.traffic.bytesOut.Add(uint64(n))
	}
}

// Release gives the chunks back.
func (r *FetchResult) Release() {
	for _, c := range r.Chunks {
		c.Release()
	}
	r.Chunks = nil
}

// OffsetAt says which of a partition's offsets is asked for.
type OffsetAt uint8

const (
	OffsetLatest       OffsetAt = iota // the high watermark
	OffsetEarliest                     // the log start offset
	OffsetForTime                      // the first record with at least a timestamp
	OffsetMaxTimestamp                 // the first record of the greatest timestamp
)

// OffsetPart asks for one offset of a partition.
type OffsetPart struct {
	Topic       TopicID
	Index       int32
	At          OffsetAt
	TimestampMS int64 // with OffsetForTime, at least 0
	Epoch       int32 // newest leader epoch that the client knows, -1: none
}

// OffsetResult answers one OffsetPart. Without such a record, Offset,
// TimestampMS and Epoch are -1, and Err is nil.
type OffsetResult struct {
	Err         *errcode.Error
	Offset      int64
	TimestampMS int64 // of that record; -1 for the first two kinds
	Epoch       int32 // leader epoch: the record's, or the present one
}
