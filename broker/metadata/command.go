package metadata

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A command is the data of one Raft log entry of the metadata shard
// (little-endian, offsets in bytes); the log underneath checks it by CRC:
//
//	0        1      2          4              12
//	+--------+------+----------+--------------+--------+
//	| format | kind | reserved | decided term | fields |
//	+--------+------+----------+--------------+--------+
//
// The fields are those of the command's struct, in their order: numbers in
// their width, a string as its length (2 bytes) and bytes, a list as its count
// (4 bytes) and elements. reserved is zero. Configs and replicas are encoded in
// ascending order, without doubles, so that a command has one form: RegisterNode
// is of the one kind or the other as it has a feature level or not.
const (
	commandFormat      = 1
	commandHeaderBytes = 12
)

// Kind says what a command does. The zero Kind is never written.
type Kind uint8

const (
	KindTermStart           Kind = 1
	KindSetClusterID        Kind = 2
	KindRegisterNode        Kind = 3
	KindCreateShard         Kind = 4
	KindSetShardReplicas    Kind = 5
	KindCreateTopic         Kind = 6
	KindAddPartitions       Kind = 7
	KindSetTopicConfigs     Kind = 8
	KindDeleteTopic         Kind = 9
	KindPurgeTombstone      Kind = 10
	KindAllocateProducerIDs Kind = 11
	KindSetFeatureLevel     Kind = 12
	KindRegisterNodeLevel   Kind = 13 // RegisterNode with a feature level
	KindAddShards           Kind = 14
	KindFenceNode           Kind = 15
)

// Command is one of the command structs of this package.
type Command interface {
	kind() Kind
	append(b []byte) []byte
	apply(a *application)
}

// TermStart is the first command of a leader's term.
type TermStart struct{}

// SetClusterID names the cluster, once. Repeated with the same id it does
// nothing; with another it answers errcode.InconsistentClusterID.
type SetClusterID struct{ ClusterID string }

// RegisterNode adds a node, or changes its addresses, rack and feature level.
//
// A FeatureLevel of 0 says nothing: the one that the same incarnation gave before
// stays. One below the cluster's answers errcode.UnsupportedVersion: the node
// could not read what the others write.
//
// For a known id with another incarnation it answers
// errcode.DuplicateBrokerRegistration, unless Replaces is the known one.
type RegisterNode struct {
	ID          NodeID // not negative
	Incarnation uint64 // not zero
	Replaces    uint64
	Rack        string
	Addresses   []Address // none: of a founder that has not said yet

	FeatureLevel uint16 // the newest that the node knows; 0: not said
}

// FenceNode says whether a node is out of contact. If the node is not registered
// by that directory, the answer is errcode.StaleBrokerEpoch.
type FenceNode struct {
	ID          NodeID
	Incarnation uint64 // of its directory
	Fenced      bool
}

// CreateShard adds a data shard that the cluster is founded with. Its replicas are
// registered nodes.
type CreateShard struct {
	ID       ShardID
	Replicas []NodeID
}

// AddShards adds data shards to a cluster that is founded, all or none: those of
// the ids from First on. Each begins with the directories that its replicas' nodes
// are registered with: see Shard.Founders. If there is a shard of such an id, the
// answer is errcode.DuplicateResource.
type AddShards struct {
	First  ShardID // not 0, which is the metadata shard
	Shards []NewShard
}

// NewShard is a shard to be added.
type NewShard struct {
	Preferred NodeID   // one of Replicas
	Replicas  []NodeID // registered nodes
}

// SetShardReplicas replaces a shard's replica set.
type SetShardReplicas struct {
	ID       ShardID
	Replicas []NodeID
}

// CreateTopic adds a topic. Its id is fresh and random, and Assignment gives
// the shard of each partition.
type CreateTopic struct {
	ID         TopicID // not zero
	Name       string
	Assignment []ShardID
	Configs    []Config
}

// AddPartitions adds partitions to a topic that has First of them; if it has
// another number, the answer is errcode.InvalidPartitions.
type AddPartitions struct {
	ID         TopicID
	First      int32
	Assignment []ShardID // of the new ones
}

// SetTopicConfigs replaces all configs of a topic.
type SetTopicConfigs struct {
	ID      TopicID
	Configs []Config
}

// DeleteTopic removes a topic and leaves a Tombstone.
type DeleteTopic struct{ ID TopicID }

// PurgeTombstone removes a tombstone, once every shard has deleted the topic's
// partitions.
type PurgeTombstone struct{ ID TopicID }

// AllocateProducerIDs takes a block of producer ids that nobody had before.
type AllocateProducerIDs struct{ Count int32 }

// SetFeatureLevel raises the cluster's feature level: see MaxFeatureLevel and
// Image.CheckFeatureLevel. Never propose one above MaxFeatureLevel: the replica
// that applies it stops. Repeated, it does nothing; a lower one answers
// errcode.InvalidUpdateVersion, and so does one that a registered node does not
// know.
type SetFeatureLevel struct{ Level uint16 }

func (TermStart) kind() Kind           { return KindTermStart }
func (SetClusterID) kind() Kind        { return KindSetClusterID }
func (CreateShard) kind() Kind         { return KindCreateShard }
func (FenceNode) kind() Kind           { return KindFenceNode }
func (AddShards) kind() Kind           { return KindAddShards }
func (SetShardReplicas) kind() Kind    { return KindSetShardReplicas }
func (CreateTopic) kind() Kind         { return KindCreateTopic }
func (AddPartitions) kind() Kind       { return KindAddPartitions }
func (SetTopicConfigs) kind() Kind     { return KindSetTopicConfigs }
func (DeleteTopic) kind() Kind         { return KindDeleteTopic }
func (PurgeTombstone) kind() Kind      { return KindPurgeTombstone }
func (AllocateProducerIDs) kind() Kind { return KindAllocateProducerIDs }
func (SetFeatureLevel) kind() Kind     { return KindSetFeatureLevel }

func (c RegisterNode) kind() Kind {
	if c.FeatureLevel > 0 {
		return KindRegisterNodeLevel
	}
	return KindRegisterNode
}

// Append appends to dst the entry of a command that was decided in a term, and
// returns the longer slice. It panics for a string of 64 KiB or more; Apply
// refuses all above MaxStringBytes.
func Append(dst []byte, decidedTerm uint64, c Command) []byte {
	dst = append(dst, commandFormat, byte(c.kind()), 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, decidedTerm)
	return c.append(dst)
}

// Decode splits an entry into its command and the term in which it was decided.
// The command shares nothing with b.
//
// It returns an error that matches ErrDamaged or ErrUnsupported, and never
// panics. That the values make sense is for Apply to say.
func Decode(b []byte) (decidedTerm uint64, c Command, err error) {
	if len(b) < commandHeaderBytes {
		return 0, nil, fmt.Errorf("%w: command of %d bytes", ErrDamaged, len(b))
	}
	if b[0] != commandFormat {
		return 0, nil, fmt.Errorf("%w: command format %d, this build reads %d", ErrUnsupported, b[0], commandFormat)
	}
	if b[2]|b[3] != 0 {
		return 0, nil, fmt.Errorf("%w: reserved bytes %x", ErrUnsupported, b[2:4])
	}
	in := &reader{b: b[commandHeaderBytes:]}
	if c = in.command(Kind(b[1])); c == nil {
		return 0, nil, fmt.Errorf("%w: command of kind %d", ErrUnsupported, b[1])
	}
	if len(in.b) > 0 {
		in.damaged("%d bytes after the command", len(in.b))
	}
	if in.err != nil {
		return 0, nil, fmt.Errorf("command of kind %d: %w", b[1], in.err)
	}
	return binary.LittleEndian.Uint64(b[4:]), c, nil
}

// command reads the fields of a command, or returns nil for an unknown kind.
func (r *reader) command(k Kind) Command {
	switch k {
	case KindTermStart:
		return TermStart{}
	case KindSetClusterID:
		return SetClusterID{r.string()}
	case KindRegisterNode, KindRegisterNodeLevel:
		c := RegisterNode{ID: NodeID(r.uint32()), Incarnation: r.uint64(), Replaces: r.uint64(), Rack: r.string(), Addresses: list(r, 6, r.address)}
		if k == KindRegisterNodeLevel {
			if c.FeatureLevel = r.uint16(); c.FeatureLevel == 0 {
				r.damaged("a node of feature level 0")
			}
		}
		return c
	case KindCreateShard:
		return CreateShard{ShardID(r.uint32()), r.nodes()}
	case KindSetShardReplicas:
		return SetShardReplicas{ShardID(r.uint32()), r.nodes()}
	case KindCreateTopic:
		return CreateTopic{r.topicID(), r.string(), list(r, 4, r.shard), r.configs()}
	case KindAddPartitions:
		return AddPartitions{r.topicID(), int32(r.uint32()), list(r, 4, r.shard)}
	case KindSetTopicConfigs:
		return SetTopicConfigs{r.topicID(), r.configs()}
	case KindDeleteTopic:
		return DeleteTopic{r.topicID()}
	case KindPurgeTombstone:
		return PurgeTombstone{r.topicID()}
	case KindAllocateProducerIDs:
		return AllocateProducerIDs{int32(r.uint32())}
	case KindSetFeatureLevel:
		return SetFeatureLevel{r.level()}
	case KindFenceNode:
		return FenceNode{NodeID(r.uint32()), r.uint64(), r.bool()}
	case KindAddShards:
		return AddShards{ShardID(r.uint32()), list(r, 8, func() NewShard { return NewShard{NodeID(r.uint32()), r.nodes()} })}
	}
	return nil
}

func (TermStart) append(b []byte) []byte      { return b }
func (c SetClusterID) append(b []byte) []byte { return appendString(b, c.ClusterID) }

func (c RegisterNode) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(c.ID))
	b = binary.LittleEndian.AppendUint64(b, c.Incarnation)
	b = binary.LittleEndian.AppendUint64(b, c.Replaces)
	b = appendString(b, c.Rack)
	b = appendAddresses(b, c.Addresses)
	if c.FeatureLevel > 0 {
		b = binary.LittleEndian.AppendUint16(b, c.FeatureLevel)
	}
	return b
}

func (c CreateShard) append(b []byte) []byte {
	return appendNodes(binary.LittleEndian.AppendUint32(b, uint32(c.ID)), c.Replicas)
}

func (c FenceNode) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, uint32(c.ID)), c.Incarnation)
	if c.Fenced {
		return append(b, 1)
	}
	return append(b, 0)
}

func (c AddShards) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(c.First))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Shards)))
	for _, s := range c.Shards {
		b = appendNodes(binary.LittleEndian.AppendUint32(b, uint32(s.Preferred)), s.Replicas)
	}
	return b
}

func (c SetShardReplicas) append(b []byte) []byte {
	return appendNodes(binary.LittleEndian.AppendUint32(b, uint32(c.ID)), c.Replicas)
}

func (c CreateTopic) append(b []byte) []byte {
	b = appendString(append(b, c.ID[:]...), c.Name)
	return appendConfigs(appendShards(b, c.Assignment), c.Configs)
}

func (c AddPartitions) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, c.ID[:]...), uint32(c.First))
	return appendShards(b, c.Assignment)
}

func (c SetTopicConfigs) append(b []byte) []byte {
	return appendConfigs(append(b, c.ID[:]...), c.Configs)
}
func (c DeleteTopic) append(b []byte) []byte    { return append(b, c.ID[:]...) }
func (c PurgeTombstone) append(b []byte) []byte { return append(b, c.ID[:]...) }

func (c AllocateProducerIDs) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, uint32(c.Count))
}

func (c SetFeatureLevel) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint16(b, c.Level)
}

func appendString(b []byte, s string) []byte {
	if len(s) >= 1<<16 {
		panic(fmt.Sprintf("metadata: string of %d bytes", len(s)))
	}
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendShards(b []byte, ids []ShardID) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ids)))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

func appendNodes(b []byte, ids []NodeID) []byte {
	ids = slices.Sorted(slices.Values(ids))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ids)))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

func appendAddresses(b []byte, as []Address) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(as)))
	for _, a := range as {
		b = binary.LittleEndian.AppendUint16(appendString(appendString(b, a.Listener), a.Host), a.Port)
	}
	return b
}

func appendConfigs(b []byte, cs []Config) []byte {
	cs = slices.SortedStableFunc(slices.Values(cs), func(a, b Config) int { return strings.Compare(a.Key, b.Key) })
	b = binary.LittleEndian.AppendUint32(b, uint32(len(cs)))
	for _, c := range cs {
		b = appendString(appendString(b, c.Key), c.Value)
	}
	return b
}
