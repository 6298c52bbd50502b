// Package record has the records of the internal topic __consumer_offsets, in
// Apache Kafka's own formats: committed offsets, classic groups, and the groups
// of KIP-848. Tools that read the topic from Kafka read it from Flotilla.
//
// A record is a key and a value. Integers are big-endian. The key begins with
// its type, the value with the version of its format:
//
//	key:    type int16, then the fields of the key
//	value:  version int16, then the fields of the value
//
// A record without a value (a tombstone) deletes what its key names. The keys,
// and the versions of their values that are read and written:
//
//	type  what                                    fields of the key            read  written
//	0     OffsetCommit, before Kafka 0.9          group, topic, partition      0     as type 1
//	1     OffsetCommit                            group, topic, partition      0-4   4, or 1 with an expire timestamp
//	2     GroupMetadata                           group                        0-4   3
//	3     ConsumerGroupMetadata                   group                        0     0
//	4     ConsumerGroupPartitionMetadata          group                        0     0
//	5     ConsumerGroupMemberMetadata             group, member                0     0
//	6     ConsumerGroupTargetAssignmentMetadata   group                        0     0
//	7     ConsumerGroupTargetAssignmentMember     group, member                0     0
//	8     ConsumerGroupCurrentMemberAssignment    group, member                0     0
//	16    ConsumerGroupRegularExpression          group, regular expression    0     0
//
// In keys, and in values of types 0 to 2 below version 4, a string is its length
// as an int16 (-1: null) and its bytes, bytes and lists begin with an int32. In
// the other values, which Kafka calls flexible, a length or count is an unsigned
// varint that is one more (0: null), and each structure ends with its tagged
// fields: their count, then for each its tag and length, as unsigned varints,
// and its bytes. A tag that is not known is skipped, so that a newer build may
// add one. docs/formats.md lists the fields.
//
// The package also has what consumers send each other in classic groups, as it
// stands in those records: see Subscription and Assignment.
//
// Everything here is a pure function, safe for concurrent use.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrDamaged reports bytes that are no record of a type and version that is
	// known: cut off, too long, or with a count or length that cannot be.
	ErrDamaged = errors.New("record: damaged")

	// ErrVersion reports a value of a known type in a version that this build
	// does not read.
	ErrVersion = errors.New("record: unsupported version")
)

// Type says what a record is about. It is the first field of its key.
type Type int16

// The types that Decode returns entries of.
const (
	TypeLegacyOffsetCommit        Type = 0
	TypeOffsetCommit              Type = 1
	TypeGroupMetadata             Type = 2
	TypeConsumerGroup             Type = 3
	TypeConsumerPartitionMetadata Type = 4
	TypeConsumerMember            Type = 5
	TypeConsumerTargetEpoch       Type = 6
	TypeConsumerTarget            Type = 7
	TypeConsumerCurrent           Type = 8
	TypeConsumerRegex             Type = 16
)

// typeNames has Kafka's name for each type of Kafka 4.3.1, by number.
var typeNames = [...]string{
	"LegacyOffsetCommit",
	"OffsetCommit",
	"GroupMetadata",
	"ConsumerGroupMetadata",
	"ConsumerGroupPartitionMetadata",
	"ConsumerGroupMemberMetadata",
	"ConsumerGroupTargetAssignmentMetadata",
	"ConsumerGroupTargetAssignmentMember",
	"ConsumerGroupCurrentMemberAssignment",
	"", // no record has it
	"ShareGroupMemberMetadata",
	"ShareGroupMetadata",
	"ShareGroupTargetAssignmentMetadata",
	"ShareGroupTargetAssignmentMember",
	"ShareGroupCurrentMemberAssignment",
	"ShareGroupStatePartitionMetadata",
	"ConsumerGroupRegularExpression",
	"StreamsGroupMetadata",
	"", // no record has it
	"StreamsGroupMemberMetadata",
	"StreamsGroupTargetAssignmentMetadata",
	"StreamsGroupTargetAssignmentMember",
	"StreamsGroupCurrentMemberAssignment",
	"StreamsGroupTopology",
}

// String returns Kafka's name of the type, or its number if there is none.
func (t Type) String() string {
	if t >= 0 && int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", int16(t))
}

// MaxStringBytes is the longest string that a record holds. Whoever makes an
// entry checks group ids, member ids, topics and metadata against it first:
// Encode panics on a longer one, as on any broken invariant.
const MaxStringBytes = 1<<15 - 1

// TopicID is a topic's id; zero where a record has none.
type TopicID [16]byte

// Record is one record of the topic. A nil Value is a tombstone; an empty one
// is damaged.
type Record struct {
	Key, Value []byte
}

// Entry is what a record says: one of *OffsetCommit, *GroupMetadata,
// *ConsumerGroup, *ConsumerPartitionMetadata, *ConsumerMember,
// *ConsumerTargetEpoch, *ConsumerTarget, *ConsumerCurrent, *ConsumerRegex and
// *Unknown. In each of them a nil Value is a tombstone.
type Entry interface {
	// Encode returns the record, in the version that Kafka 4.3.1 writes. It keeps
	// nothing of the entry. It panics if a string is longer than MaxStringBytes.
	Encode() Record
}

// Unknown is a record of a type that this build has nothing to do with: a later
// Kafka's, or one of share and streams groups. Its bytes are not looked at.
type Unknown struct {
	Type       Type
	Key, Value []byte // as they were given
}

// Encode returns the record as it was.
func (e *Unknown) Encode() Record { return Record{Key: e.Key, Value: e.Value} }

// entry is what each entry but Unknown is to the coder.
type entry interface {
	Entry
	key(c *coder)
	// value codes the fields of the value; when c decodes, it makes the value.
	value(c *coder)
	// versions returns the newest version that is read, the one that is written,
	// and the first flexible one.
	versions() (newest, written, flexible int16)
	tombstone() bool
}

func newEntry(t Type) entry {
	switch t {
	case TypeLegacyOffsetCommit:
		return &OffsetCommit{legacy: true}
	case TypeOffsetCommit:
		return new(OffsetCommit)
	case TypeGroupMetadata:
		return new(GroupMetadata)
	case TypeConsumerGroup:
		return new(ConsumerGroup)
	case TypeConsumerPartitionMetadata:
		return new(ConsumerPartitionMetadata)
	case TypeConsumerMember:
		return new(ConsumerMember)
	case TypeConsumerTargetEpoch:
		return new(ConsumerTargetEpoch)
	case TypeConsumerTarget:
		return new(ConsumerTarget)
	case TypeConsumerCurrent:
		return new(ConsumerCurrent)
	case TypeConsumerRegex:
		return new(ConsumerRegex)
	}
	return nil
}

// Decode returns what a record says. A nil value is a tombstone. The entry keeps
// neither key nor value, unless it is an *Unknown. It takes at most some 20 times
// the memory of the record.
//
// It returns an error that matches ErrVersion for a value of a newer format, and
// one that matches ErrDamaged, and says what is wrong, for what is no record.
func Decode(key, value []byte) (Entry, error) {
	if len(key) < 2 {
		return nil, fmt.Errorf("%w: a key of %d bytes, want at least 2", ErrDamaged, len(key))
	}
	t := Type(binary.BigEndian.Uint16(key))
	e := newEntry(t)
	if e == nil {
		return &Unknown{Type: t, Key: key, Value: value}, nil
	}
	c := coder{b: key[2:], decoding: true}
	e.key(&c)
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("%w: key of %v: %w", ErrDamaged, t, err)
	}
	if value == nil {
		return e, nil
	}
	if len(value) < 2 {
		return nil, fmt.Errorf("%w: value of %v: %d bytes, want at least 2", ErrDamaged, t, len(value))
	}
	version := int16(binary.BigEndian.Uint16(value))
	newest, _, flexible := e.versions()
	if version < 0 || version > newest {
		return nil, fmt.Errorf("%w: %d of the value of %v, this build reads 0 to %d", ErrVersion, version, t, newest)
	}
	c = coder{b: value[2:], decoding: true, version: version, flexible: version >= flexible}
	e.value(&c)
	if err := c.end(); err != nil {
		return nil, fmt.Errorf("%w: value of %v, version %d: %w", ErrDamaged, t, version, err)
	}
	return e, nil
}

// encode returns the record of e, its value in the given version.
func encode(t Type, e entry, version int16) Record {
	k := coder{b: binary.BigEndian.AppendUint16(make([]byte, 0, 64), uint16(t))}
	e.key(&k)
	if e.tombstone() {
		return Record{Key: k.b}
	}
	_, _, flexible := e.versions()
	v := coder{
		b:        binary.BigEndian.AppendUint16(make([]byte, 0, 64), uint16(version)),
		version:  version,
		flexible: version >= flexible,
	}
	e.value(&v)
	return Record{Key: k.b, Value: v.b}
}

// encodeWritten returns the record of e in the version that is written.
func encodeWritten(t Type, e entry) Record {
	_, written, _ := e.versions()
	return encode(t, e, written)
}
