package record

// ConsumerGroup is a group of KIP-848: one that the coordinator assigns.
type ConsumerGroup struct {
	Group string
	Value *ConsumerGroupValue // nil: there is none any more
}

// ConsumerGroupValue is the epoch of a group.
type ConsumerGroupValue struct {
	Epoch        int32
	MetadataHash int64 // of the subscribed topics; 0: not known
}

// Encode returns the record.
func (e *ConsumerGroup) Encode() Record { return encodeWritten(TypeConsumerGroup, e) }

func (e *ConsumerGroup) tombstone() bool { return e.Value == nil }

func (e *ConsumerGroup) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerGroup) key(c *coder) { c.string("group", &e.Group) }

func (e *ConsumerGroup) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerGroupValue)
	}
	v := e.Value
	c.int32("epoch", &v.Epoch)
	c.tags(tagged{0, "metadata hash", v.MetadataHash != 0, func(c *coder) { c.int64("metadata hash", &v.MetadataHash) }})
}

// ConsumerPartitionMetadata is what the topics of a group were when it was last
// assigned. Kafka wrote it before 4.1; it is read, and deleted.
type ConsumerPartitionMetadata struct {
	Group string
	Value *ConsumerPartitionMetadataValue // nil: there is none any more
}

// ConsumerPartitionMetadataValue lists the topics.
type ConsumerPartitionMetadataValue struct {
	Topics []TopicMetadata
}

// TopicMetadata is one topic of a ConsumerPartitionMetadataValue.
type TopicMetadata struct {
	TopicID    TopicID
	Topic      string
	Partitions int32 // how many
	Racks      []PartitionRacks
}

// PartitionRacks has the racks of a partition's replicas.
type PartitionRacks struct {
	Partition int32
	Racks     []string
}

// Encode returns the record.
func (e *ConsumerPartitionMetadata) Encode() Record {
	return encodeWritten(TypeConsumerPartitionMetadata, e)
}

func (e *ConsumerPartitionMetadata) tombstone() bool { return e.Value == nil }

func (e *ConsumerPartitionMetadata) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerPartitionMetadata) key(c *coder) { c.string("group", &e.Group) }

func (e *ConsumerPartitionMetadata) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerPartitionMetadataValue)
	}
	list(c, "topics", 16+1+4+1+1, &e.Value.Topics, func(c *coder, t *TopicMetadata) {
		c.topicID("topic id", &t.TopicID)
		c.string("topic name", &t.Topic)
		c.int32("number of partitions", &t.Partitions)
		list(c, "partition metadata", 4+1+1, &t.Racks, func(c *coder, p *PartitionRacks) {
			c.int32("partition", &p.Partition)
			c.strings("racks", &p.Racks)
			c.tags()
		})
		c.tags()
	})
	c.tags()
}

// ConsumerMember is a member of a group of KIP-848, as it has described itself.
type ConsumerMember struct {
	Group    string
	MemberID string
	Value    *ConsumerMemberValue // nil: there is none any more
}

// ConsumerMemberValue is what a member has said of itself.
type ConsumerMemberValue struct {
	InstanceID *string // of a static member; nil for others
	RackID     *string
	ClientID   string
	ClientHost string

	Topics []string // subscribed by name
	Regex  *string  // subscribed by regular expression

	RebalanceTimeoutMS int32   // -1: not said
	Assignor           *string // the server-side one that it prefers

	// Classic is set for a member that speaks the classic protocol.
	Classic *ClassicMember
}

// ClassicMember is what a ConsumerMember has said that speaks the classic
// protocol in a group of KIP-848.
type ClassicMember struct {
	SessionTimeoutMS int32
	Protocols        []ClassicProtocol
}

// ClassicProtocol is one protocol that a classic member supports.
type ClassicProtocol struct {
	Name     string
	Metadata []byte // a Subscription of this package
}

// Encode returns the record.
func (e *ConsumerMember) Encode() Record { return encodeWritten(TypeConsumerMember, e) }

func (e *ConsumerMember) tombstone() bool { return e.Value == nil }

func (e *ConsumerMember) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerMember) key(c *coder) {
	c.string("group", &e.Group)
	c.string("member id", &e.MemberID)
}

func (e *ConsumerMember) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerMemberValue)
	}
	v := e.Value
	c.nullable("instance id", &v.InstanceID)
	c.nullable("rack id", &v.RackID)
	c.string("client id", &v.ClientID)
	c.string("client host", &v.ClientHost)
	c.strings("subscribed topic names", &v.Topics)
	c.nullable("subscribed topic regex", &v.Regex)
	c.int32("rebalance timeout", &v.RebalanceTimeoutMS)
	c.nullable("server assignor", &v.Assignor)
	c.tags(tagged{0, "classic member metadata", v.Classic != nil, func(c *coder) { c.classicMember(&v.Classic) }})
}

// classicMember codes a structure that may be null: it begins with -1 for null,
// and 1 otherwise.
func (c *coder) classicMember(v **ClassicMember) {
	there := int8(1)
	c.int8("classic member metadata", &there)
	if c.decoding {
		*v = nil
		if there < 0 {
			return
		}
		*v = new(ClassicMember)
	}
	m := *v
	c.int32("session timeout", &m.SessionTimeoutMS)
	list(c, "supported protocols", 1+1+1, &m.Protocols, func(c *coder, p *ClassicProtocol) {
		c.string("name", &p.Name)
		c.bytes("metadata", &p.Metadata)
		c.tags()
	})
	c.tags()
}

// ConsumerRegex is what a regular expression stands for in a group.
type ConsumerRegex struct {
	Group string
	Regex string
	Value *ConsumerRegexValue // nil: there is none any more
}

// ConsumerRegexValue has the topics that matched when it was last looked.
type ConsumerRegexValue struct {
	Topics      []string
	Version     int64 // of the cluster's metadata that was looked at
	TimestampMS int64 // when, in milliseconds since 1970
}

// Encode returns the record.
func (e *ConsumerRegex) Encode() Record { return encodeWritten(TypeConsumerRegex, e) }

func (e *ConsumerRegex) tombstone() bool { return e.Value == nil }

func (e *ConsumerRegex) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerRegex) key(c *coder) {
	c.string("group", &e.Group)
	c.string("regular expression", &e.Regex)
}

func (e *ConsumerRegex) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerRegexValue)
	}
	v := e.Value
	c.strings("topics", &v.Topics)
	c.int64("version", &v.Version)
	c.int64("timestamp", &v.TimestampMS)
	c.tags()
}
