package record

import "fmt"

// ConsumerProtocolType is the protocol type of classic groups whose members are
// consumers: theirs are Subscription and Assignment.
const ConsumerProtocolType = "consumer"

// NewestProtocol is the newest version of Subscription and Assignment that is
// known. A newer one is read as this one: later versions only add fields.
const NewestProtocol = 3

// Owned are partitions of a topic that a consumer names.
type Owned struct {
	Topic      string
	Partitions []int32
}

// Subscription is what a consumer says of itself when it joins a classic group
// (Kafka's ConsumerProtocolSubscription). The formats, big-endian, lists with a
// count of int32, strings with a length of int16 and bytes with one of int32:
//
//	version int16
//	0+: topics []string, user data (nullable bytes)
//	1+: owned partitions [](topic string, partitions []int32)
//	2+: generation int32
//	3+: rack id (nullable string)
type Subscription struct {
	Version    int16
	Topics     []string
	UserData   []byte // nil: null
	Owned      []Owned
	Generation int32   // in which it had them; -1: not known
	RackID     *string // nil: not said
}

// AppendSubscription appends s in s.Version, which is 0 to 3, and returns the
// longer slice. Fields that the version does not have are left out.
func AppendSubscription(dst []byte, s *Subscription) []byte {
	checkWritten(s.Version)
	c := coder{b: dst, version: s.Version}
	c.int16("version", new(s.Version))
	s.code(&c)
	return c.b
}

// DecodeSubscription decodes the metadata of a member of a group of consumers.
// It keeps nothing of b. It returns an error that matches ErrDamaged for bytes
// that are no subscription; bytes after the last field of the version are let
// be, as Kafka's clients do. One client leaves out the owned partitions of
// version 1: that is read as if there were none.
func DecodeSubscription(b []byte) (*Subscription, error) {
	c := coder{b: b, decoding: true}
	s := &Subscription{Generation: -1}
	c.int16("version", &s.Version)
	if c.err == nil && s.Version < 0 {
		c.fail("version", fmt.Errorf("%d", s.Version))
	}
	c.version = min(s.Version, NewestProtocol)
	s.code(&c)
	if c.err != nil {
		return nil, fmt.Errorf("%w: subscription: %w", ErrDamaged, c.err)
	}
	return s, nil
}

func (s *Subscription) code(c *coder) {
	c.strings("topics", &s.Topics)
	c.nullableBytes("user data", &s.UserData)
	if c.version == 1 && c.decoding && c.err == nil && len(c.b) == 0 {
		return
	}
	if c.version >= 1 {
		list(c, "owned partitions", short+long, &s.Owned, (*coder).owned)
	}
	if c.version >= 2 {
		c.int32("generation", &s.Generation)
	}
	if c.version >= 3 {
		c.nullable("rack id", &s.RackID)
	}
}

func (c *coder) owned(o *Owned) {
	c.string("topic", &o.Topic)
	c.int32s("partitions", &o.Partitions)
}

// Assignment is what the leader of a classic group gives to a member (Kafka's
// ConsumerProtocolAssignment). All versions have the same fields:
//
//	version int16, partitions [](topic string, partitions []int32), user data (nullable bytes)
type Assignment struct {
	Version    int16
	Partitions []Owned
	UserData   []byte // nil: null
}

// AppendAssignment appends a in a.Version, which is 0 to 3, and returns the
// longer slice.
func AppendAssignment(dst []byte, a *Assignment) []byte {
	checkWritten(a.Version)
	c := coder{b: dst}
	c.int16("version", new(a.Version))
	a.code(&c)
	return c.b
}

// DecodeAssignment decodes what a leader has given to a member of a group of
// consumers. It keeps nothing of b. It returns an error that matches ErrDamaged
// for bytes that are no assignment; no bytes at all are an empty one, and bytes
// after the last field are let be.
func DecodeAssignment(b []byte) (*Assignment, error) {
	if len(b) == 0 {
		return new(Assignment), nil
	}
	c := coder{b: b, decoding: true}
	a := new(Assignment)
	c.int16("version", &a.Version)
	if c.err == nil && a.Version < 0 {
		c.fail("version", fmt.Errorf("%d", a.Version))
	}
	a.code(&c)
	if c.err != nil {
		return nil, fmt.Errorf("%w: assignment: %w", ErrDamaged, c.err)
	}
	return a, nil
}

func (a *Assignment) code(c *coder) {
	list(c, "assigned partitions", short+long, &a.Partitions, (*coder).owned)
	c.nullableBytes("user data", &a.UserData)
}

func checkWritten(version int16) {
	if version < 0 || version > NewestProtocol {
		panic(fmt.Sprintf("record: version %d of the consumer protocol, there are 0 to %d", version, NewestProtocol))
	}
}
