package record

// OffsetCommit is the offset that a group has committed for a partition.
type OffsetCommit struct {
	Group     string
	Topic     string
	Partition int32
	Value     *OffsetCommitValue // nil: there is none any more

	legacy bool // read from a key of type 0, whose values have one version
}

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
	c.tags(tagged{0, "topic id", v.TopicID != TopicID{}, func(c *coder) { c.topicID("topic id", &v.TopicID) }})
}
