// Package metadata is the deterministic state machine of the metadata shard:
// the cluster's nodes, shards, topics, and producer ids.
//
// Every node applies the shard's entries, in order, to a State, and serves
// readers from immutable Images of it. The package reads no clock, no setting
// and no file, and starts no goroutine.
//
// Commands are described in command.go, the snapshot's format in snapshot.go.
package metadata

import (
	"errors"
	"fmt"
	"slices"
)

// Limits of what the cluster's metadata may hold. They are part of the
// behaviour that all nodes share, so they are not settings.
const (
	MaxTopicPartitions = 100_000 // partitions of one topic
	MaxTopics          = 1_000_000
	MaxNodes           = 1_000
	MaxShards          = 10_000
	MaxReplicas        = 15 // of one shard
	MaxTopicNameBytes  = 249
	MaxAddresses       = 17 // of one node: those of clients, and one for nodes
	MaxStringBytes     = 1 << 10
	MaxConfigs         = 64 // of one topic

	// MaxProducerIDBlock is the most ids that one command allocates.
	MaxProducerIDBlock = 1_000_000
)

// Feature levels: what the whole cluster has agreed to write to disk and to send
// between nodes. A level is finalised by SetFeatureLevel, once every node has said,
// when it was registered, that it knows it, and never lowered. 0 stands for a
// cluster that never finalised one, and is as good as 1.
//
// Level 2 allows apply version 2 of data shards, level 3 apply version 3, and internal
// topics: see InternalLevel.
const MaxFeatureLevel = 3

var (
	// ErrDamaged reports bytes that are not a command, or a snapshot, as
	// written.
	ErrDamaged = errors.New("metadata: damaged")

	// ErrUnsupported reports an intact command or snapshot that only a newer
	// build understands. The replica must stop.
	ErrUnsupported = errors.New("metadata: unsupported")

	// ErrOrder reports an entry whose index or term is not above, or at least
	// at, that of the entries before it.
	ErrOrder = errors.New("metadata: entry out of order")
)

// TopicID is a topic's 16-byte id. Ids are never reused.
type TopicID [16]byte

// String returns the id in hexadecimal.
func (id TopicID) String() string { return fmt.Sprintf("%x", id[:]) }

// ShardID names a data shard.
type ShardID uint32

// NodeID is a broker id as in Kafka.
type NodeID int32

// Node is a registered node. Immutable.
type Node struct {
	ID NodeID

	// Incarnation is the random number of the node's data directory, never
	// zero: another one under the same id is another directory.
	Incarnation uint64
	Rack        string
	Addresses   []Address
	UpdatedAt   uint64 // metadata index

	FeatureLevel uint16 // the newest that the node knows; 0: it has not said

	// Fenced says that the node is out of contact, as the leader of the metadata
	// found: clients are not sent there, and it gets no new replicas.
	Fenced bool
}

// NodeListener is the name of the address at which a node listens for other nodes; no
// listener for clients has it.
const NodeListener = "node"

// Address is where a node listens, for one purpose.
type Address struct {
	Listener string // such as "client" or NodeListener
	Host     string
	Port     uint16
}

// Shard is a Raft group that carries partitions. Immutable.
type Shard struct {
	ID         ShardID
	Replicas   []NodeID // ascending
	Partitions int      // that topics have placed on it
	UpdatedAt  uint64   // metadata index; the count of partitions does not move it

	// Founders are the directories that it begins with, ascending by node, CreatedAt
	// is the metadata index that made it, and preferred who is to lead it. A shard
	// that the cluster was founded with has none of them: it begins with those of
	// the cluster.
	Founders  []Founder
	CreatedAt uint64
	preferred NodeID
}

// Founder is a node as a shard begins with it. A node that has another directory
// by now must not start that replica (R11).
type Founder struct {
	Node      NodeID
	Directory uint64 // its Incarnation
}

// Preferred returns the node that is to lead the shard if it can: leaders are
// spread over nodes so. Of a shard without replicas there is none, -1.
func (s *Shard) Preferred() NodeID {
	switch {
	case slices.Contains(s.Replicas, s.preferred) && s.CreatedAt > 0:
		return s.preferred
	case len(s.Replicas) == 0:
		return -1
	}
	return s.Replicas[int(s.ID-1)%len(s.Replicas)]
}

// Topic is a topic. Immutable.
type Topic struct {
	ID         TopicID
	Name       string
	Assignment []ShardID // by partition index
	Configs    []Config  // those that differ from the defaults, ascending by key
	CreatedAt  uint64    // metadata index
	UpdatedAt  uint64    // metadata index of the newest command about the topic

	// Grown says when partitions were added, oldest first; see PartitionIndex.
	Grown []Growth
}

// Growth says that the partitions from First on were created by an entry.
type Growth struct {
	First int32
	At    uint64 // metadata index
}

// PartitionIndex returns the metadata index that created partition i.
func (t *Topic) PartitionIndex(i int32) uint64 {
	at := t.CreatedAt
	for _, g := range t.Grown {
		if i >= g.First {
			at = g.At
		}
	}
	return at
}

// Config is one setting of a topic.
type Config struct{ Key, Value string }

// Value returns the value of a key, if the topic sets it.
func (t *Topic) Value(key string) (string, bool) {
	i, ok := slices.BinarySearchFunc(t.Configs, key, func(c Config, key string) int {
		return compareStrings(c.Key, key)
	})
	if !ok {
		return "", false
	}
	return t.Configs[i].Value, true
}

// Tombstone is what remains of a deleted topic, until every shard has deleted
// its partitions: the only evidence on which a partition may be deleted (R17).
type Tombstone struct {
	ID         TopicID
	Name       string
	Partitions int32
	DeletedAt  uint64 // metadata index
}
