package record

// GroupMetadata is a classic group: one whose members agree on an assignment
// among themselves.
type GroupMetadata struct {
	Group string
	Value *GroupMetadataValue // nil: there is none any more
}

// GroupMetadataValue is the state of a classic group after a rebalance. A group
// without members is Empty, any other Stable.
type GroupMetadataValue struct {
	ProtocolType string // "consumer" for consumers; empty for a group of offsets alone
	Generation   int32
	Protocol     *string // the members' choice; nil in an empty group
	Leader       *string // a member id; nil in an empty group

	// CurrentStateTimestampMS is when the group came into this state, in
	// milliseconds since 1970, or -1 in what version 0 or 1 has written.
	CurrentStateTimestampMS int64

	Members []GroupMember
}

// GroupMember is one member of a classic group.
type GroupMember struct {
	MemberID   string
	InstanceID *string // of a static member; nil for others
	ClientID   string
	ClientHost string

	RebalanceTimeoutMS int32 // -1 in what version 0 has written: the session timeout
	SessionTimeoutMS   int32

	// Subscription is what the member said for the chosen protocol, Assignment
	// what the leader has given it: for consumers a Subscription and an
	// Assignment of this package.
	Subscription []byte
	Assignment   []byte
}

// Encode returns the record.
func (e *GroupMetadata) Encode() Record { return encodeWritten(TypeGroupMetadata, e) }

func (e *GroupMetadata) tombstone() bool { return e.Value == nil }

func (e *GroupMetadata) versions() (newest, written, flexible int16) { return 4, 3, 4 }

func (e *GroupMetadata) key(c *coder) { c.string("group", &e.Group) }

func (e *GroupMetadata) value(c *coder) {
	if c.decoding {
		e.Value = &GroupMetadataValue{CurrentStateTimestampMS: -1}
	}
	v := e.Value
	c.string("protocol type", &v.ProtocolType)
	c.int32("generation", &v.Generation)
	c.nullable("protocol", &v.Protocol)
	c.nullable("leader", &v.Leader)
	if c.version >= 2 {
		c.int64("current state timestamp", &v.CurrentStateTimestampMS)
	}
	// Three strings, the session timeout and two of bytes: what each version has.
	least := 3*c.width(short) + 4 + 2*c.width(long)
	list(c, "members", least, &v.Members, (*coder).groupMember)
	c.tags()
}

func (c *coder) groupMember(m *GroupMember) {
	if c.decoding {
		m.RebalanceTimeoutMS = -1
	}
	c.string("member id", &m.MemberID)
	if c.version >= 3 {
		c.nullable("group instance id", &m.InstanceID)
	}
	c.string("client id", &m.ClientID)
	c.string("client host", &m.ClientHost)
	if c.version >= 1 {
		c.int32("rebalance timeout", &m.RebalanceTimeoutMS)
	}
	c.int32("session timeout", &m.SessionTimeoutMS)
	c.bytes("subscription", &m.Subscription)
	c.bytes("assignment", &m.Assignment)
	c.tags()
}
