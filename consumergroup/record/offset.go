package record

import "encoding/binary"

// OffsetCommit is the offset that a group has committed for a partition.
type OffsetCommit struct {
	Group     string
	Topic     string
	Partition int32
	Value     *OffsetCommitValue // nil: there is none any more

	legacy bool // read from a key of type 0, whose values have one version
}

// topicIDTag is the tag of OffsetCommitValue.TopicID.
const topicIDTag = 0

// OffsetCommitValue is what was committed.
type OffsetCommitValue struct {
	Offset      int64
	LeaderEpoch int32 // of the last record that was consumed; -1: not known
	Metadata    string

	// CommitTimestampMS is when it was committed, in milliseconds since 1970.
	CommitTimestampMS int64

	// ExpireTimestampMS is when the offset expires, where the client has said so
	// (before OffsetCommit version 5), or -1: retention decides.
	ExpireTimestampMS int64

	// TopicID is the id of the topic, or zero if the client named the topic, and
	// in a version that has none. It is not written beside an expire timestamp.
	TopicID TopicID
}

// Encode returns the record.
func (e *OffsetCommit) Encode() Record { return encodeWritten(TypeOffsetCommit, e) }

func (e *OffsetCommit) tombstone() bool { return e.Value == nil }

func (e *OffsetCommit) versions() (newest, written, flexible int16) {
	switch {
	case e.legacy:
		newest = 0
	default:
		newest = 4
	}
	written = 4
	if e.Value != nil && e.Value.ExpireTimestampMS != -1 {
		written = 1 // the only one that has the field
	}
	return newest, written, 4
}

func (e *OffsetCommit) key(c *coder) {
	c.string("group", &e.Group)
	c.string("topic", &e.Topic)
	c.int32("partition", &e.Partition)
}

func (e *OffsetCommit) value(c *coder) {
	if c.decoding {
		e.Value = &OffsetCommitValue{LeaderEpoch: -1, ExpireTimestampMS: -1}
	}
	v := e.Value
	c.int64("offset", &v.Offset)
	if c.version >= 3 {
		c.int32("leader epoch", &v.LeaderEpoch)
	}
	c.string("metadata", &v.Metadata)
	c.int64("commit timestamp", &v.CommitTimestampMS)
	if c.version == 1 {
		c.int64("expire timestamp", &v.ExpireTimestampMS)
	}
	c.tags(tagged{topicIDTag, "topic id", v.TopicID != TopicID{}, func(c *coder) { c.topicID("topic id", &v.TopicID) }})
}

// PlainOffset is an OffsetCommit as this build writes most of them: not a tombstone, and
// of version 4. Its strings lie in the record.
type PlainOffset struct {
	Group, Topic []byte
	Partition    int32
	Value        OffsetCommitValue // its Metadata has memory of its own
}

// plainVersion is the version of their values.
const plainVersion = 4

// Read reads a record, and reports whether it is one; else Decode says what it is. It is
// Decode for who folds one record after another: it takes memory for Metadata alone.
func (o *PlainOffset) Read(key, value []byte) bool {
	if len(key) < 2 || Type(binary.BigEndian.Uint16(key)) != TypeOffsetCommit || len(value) < 2 || binary.BigEndian.Uint16(value) != plainVersion {
		return false
	}
	k := coder{b: key[2:], decoding: true}
	o.Group, o.Topic = k.plain("group"), k.plain("topic")
	k.int32("partition", &o.Partition)
	v := coder{b: value[2:], decoding: true, version: plainVersion, flexible: true}
	o.Value = OffsetCommitValue{LeaderEpoch: -1, ExpireTimestampMS: -1}
	v.int64("offset", &o.Value.Offset)
	v.int32("leader epoch", &o.Value.LeaderEpoch)
	o.Value.Metadata = string(v.plain("metadata"))
	v.int64("commit timestamp", &o.Value.CommitTimestampMS)
	switch v.uvarint("tagged fields") {
	case 0:
	case 1:
		if v.uvarint("tag") != topicIDTag || v.uvarint("size of a tagged field") != uint32(len(o.Value.TopicID)) {
			return false
		}
		v.topicID("topic id", &o.Value.TopicID)
	default:
		return false
	}
	return k.end() == nil && v.end() == nil
}
