package metadata

import (
	"bytes"
	"cmp"
	"iter"
	"strings"
)

// Image is the metadata at one index. It is immutable, like all that it
// returns, and safe for concurrent use; callers must not change what its
// results refer to.
type Image struct {
	index          uint64
	term           uint64
	clusterID      string
	nextProducerID int64
	featureLevel   uint16

	nodes      table[NodeID, *Node]
	shards     table[ShardID, *Shard]
	topics     table[TopicID, *Topic]
	byName     table[string, *Topic]
	folded     table[string, string] // names by what they are with '.' read as '_'
	tombstones table[TopicID, *Tombstone]
}

func newImage() Image {
	return Image{
		nodes:      table[NodeID, *Node]{compare: cmp.Compare[NodeID]},
		shards:     table[ShardID, *Shard]{compare: cmp.Compare[ShardID]},
		topics:     table[TopicID, *Topic]{compare: compareTopicIDs},
		byName:     table[string, *Topic]{compare: compareStrings},
		folded:     table[string, string]{compare: compareFolded},
		tombstones: table[TopicID, *Tombstone]{compare: compareTopicIDs},
	}
}

func compareTopicIDs(a, b TopicID) int { return bytes.Compare(a[:], b[:]) }

func compareStrings(a, b string) int { return strings.Compare(a, b) }

// compareFolded compares topic names as Kafka's metric names show them, where
// '.' becomes '_'.
func compareFolded(a, b string) int {
	for i := range min(len(a), len(b)) {
		if c := cmp.Compare(fold(a[i]), fold(b[i])); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func fold(c byte) byte {
	if c == '.' {
		return '_'
	}
	return c
}

// Index returns the metadata index that the image shows.
func (im *Image) Index() uint64 { return im.index }

// Term returns the term of the last entry applied.
func (im *Image) Term() uint64 { return im.term }

// ClusterID returns the cluster's id, or "" before one is set.
func (im *Image) ClusterID() string { return im.clusterID }

// NextProducerID returns the producer id that the next allocated block starts
// with.
func (im *Image) NextProducerID() int64 { return im.nextProducerID }

// FeatureLevel returns the level that the cluster has finalised, at most
// MaxFeatureLevel; 0: none.
func (im *Image) FeatureLevel() uint16 { return im.featureLevel }

// TopicByName returns the topic of a name, or nil.
func (im *Image) TopicByName(name string) *Topic {
	t, _ := im.byName.get(name)
	return t
}

// TopicByID returns the topic of an id, or nil.
func (im *Image) TopicByID(id TopicID) *Topic {
	t, _ := im.topics.get(id)
	return t
}

// Topics walks the topics in the order of their names.
func (im *Image) Topics() iter.Seq[*Topic] { return im.byName.values() }

// TopicCount returns the number of topics.
func (im *Image) TopicCount() int { return im.topics.rows }

// PartitionCount returns the number of partitions of all topics.
func (im *Image) PartitionCount() (n int) {
	for s := range im.Shards() {
		n += s.Partitions
	}
	return n
}

// TombstoneCount returns the number of deleted topics of which something may be
// left.
func (im *Image) TombstoneCount() int { return im.tombstones.rows }

// Node returns the node of an id, or nil.
func (im *Image) Node(id NodeID) *Node {
	n, _ := im.nodes.get(id)
	return n
}

// Nodes walks the nodes in the order of their ids.
func (im *Image) Nodes() iter.Seq[*Node] { return im.nodes.values() }

// NodeCount returns the number of nodes.
func (im *Image) NodeCount() int { return im.nodes.rows }

// Shard returns the shard of an id, or nil.
func (im *Image) Shard(id ShardID) *Shard {
	s, _ := im.shards.get(id)
	return s
}

// Shards walks the shards in the order of their ids.
func (im *Image) Shards() iter.Seq[*Shard] { return im.shards.values() }

// Tombstone returns what remains of a deleted topic, or nil. Nil for a topic
// that does not exist proves nothing: see Tombstone.
func (im *Image) Tombstone(id TopicID) *Tombstone {
	t, _ := im.tombstones.get(id)
	return t
}

// Tombstones walks the tombstones in the order of their ids.
func (im *Image) Tombstones() iter.Seq[*Tombstone] { return im.tombstones.values() }

// TopicsSince walks the topics that are new or changed since an older image of
// the same shard, in the order of their ids; with nil, all of them. What it costs
// depends on what changed, and little on how many topics there are.
func (im *Image) TopicsSince(old *Image) iter.Seq[*Topic] {
	if old == nil {
		return im.topics.values()
	}
	return since(im.topics, old.topics)
}

// TombstonesSince walks the tombstones that are new since an older image, like
// TopicsSince.
func (im *Image) TombstonesSince(old *Image) iter.Seq[*Tombstone] {
	if old == nil {
		return im.tombstones.values()
	}
	return since(im.tombstones, old.tombstones)
}
