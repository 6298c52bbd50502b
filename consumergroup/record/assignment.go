package record

import "fmt"

// TopicPartitions are partitions of one topic.
type TopicPartitions struct {
	TopicID    TopicID
	Partitions []int32

	// Epochs, in a ConsumerCurrent, has for each of Partitions the member epoch
	// at which the member was given it; nil if that is not known. The same length
	// as Partitions otherwise. A ConsumerTarget has none.
	Epochs []int32
}

// ConsumerTargetEpoch says that a group's target assignment is complete, and of
// which epoch. It follows the ConsumerTarget records of that epoch.
type ConsumerTargetEpoch struct {
	Group string
	Value *ConsumerTargetEpochValue // nil: there is none any more
}

// ConsumerTargetEpochValue is the epoch of a target assignment.
type ConsumerTargetEpochValue struct {
	Epoch       int32
	TimestampMS int64 // when it was calculated, in milliseconds since 1970; 0: not known
}

// Encode returns the record.
func (e *ConsumerTargetEpoch) Encode() Record { return encodeWritten(TypeConsumerTargetEpoch, e) }

func (e *ConsumerTargetEpoch) tombstone() bool { return e.Value == nil }

func (e *ConsumerTargetEpoch) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerTargetEpoch) key(c *coder) { c.string("group", &e.Group) }

func (e *ConsumerTargetEpoch) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerTargetEpochValue)
	}
	v := e.Value
	c.int32("assignment epoch", &v.Epoch)
	c.tags(tagged{0, "assignment timestamp", v.TimestampMS != 0, func(c *coder) { c.int64("assignment timestamp", &v.TimestampMS) }})
}

// ConsumerTarget is what a member shall have.
type ConsumerTarget struct {
	Group    string
	MemberID string
	Value    *ConsumerTargetValue // nil: there is none any more
}

// ConsumerTargetValue lists the partitions.
type ConsumerTargetValue struct {
	Partitions []TopicPartitions // without epochs
}

// Encode returns the record.
func (e *ConsumerTarget) Encode() Record { return encodeWritten(TypeConsumerTarget, e) }

func (e *ConsumerTarget) tombstone() bool { return e.Value == nil }

func (e *ConsumerTarget) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerTarget) key(c *coder) {
	c.string("group", &e.Group)
	c.string("member id", &e.MemberID)
}

func (e *ConsumerTarget) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerTargetValue)
	}
	list(c, "topic partitions", 16+1+1, &e.Value.Partitions, func(c *coder, t *TopicPartitions) {
		c.topicID("topic id", &t.TopicID)
		c.int32s("partitions", &t.Partitions)
		c.tags()
	})
	c.tags()
}

// MemberState says how far a member is on its way to its target assignment. It
// is a number of Kafka's.
type MemberState int8

const (
	// Stable: the member has what it shall have at its epoch.
	Stable MemberState = 0
	// UnrevokedPartitions: the member has yet to give partitions away.
	UnrevokedPartitions MemberState = 1
	// UnreleasedPartitions: the member waits for partitions that others have yet
	// to give away.
	UnreleasedPartitions MemberState = 2
	// UnknownState: a state of a later build.
	UnknownState MemberState = 127
)

// String returns Kafka's name of the state.
func (s MemberState) String() string {
	switch s {
	case Stable:
		return "STABLE"
	case UnrevokedPartitions:
		return "UNREVOKED_PARTITIONS"
	case UnreleasedPartitions:
		return "UNRELEASED_PARTITIONS"
	}
	return "UNKNOWN"
}

// ConsumerCurrent is what a member has, and what it has yet to give away.
type ConsumerCurrent struct {
	Group    string
	MemberID string
	Value    *ConsumerCurrentValue // nil: there is none any more
}

// ConsumerCurrentValue is the current assignment of a member.
type ConsumerCurrentValue struct {
	Epoch         int32
	PreviousEpoch int32 // the one before, with which a member retries that missed an answer
	State         MemberState
	Assigned      []TopicPartitions
	Revoking      []TopicPartitions // pending revocation
}

// Encode returns the record.
func (e *ConsumerCurrent) Encode() Record { return encodeWritten(TypeConsumerCurrent, e) }

func (e *ConsumerCurrent) tombstone() bool { return e.Value == nil }

func (e *ConsumerCurrent) versions() (newest, written, flexible int16) { return 0, 0, 0 }

func (e *ConsumerCurrent) key(c *coder) {
	c.string("group", &e.Group)
	c.string("member id", &e.MemberID)
}

func (e *ConsumerCurrent) value(c *coder) {
	if c.decoding {
		e.Value = new(ConsumerCurrentValue)
	}
	v := e.Value
	c.int32("member epoch", &v.Epoch)
	c.int32("previous member epoch", &v.PreviousEpoch)
	c.int8("state", (*int8)(&v.State))
	list(c, "assigned partitions", 16+1+1, &v.Assigned, (*coder).currentPartitions)
	list(c, "partitions pending revocation", 16+1+1, &v.Revoking, (*coder).currentPartitions)
	c.tags()
}

func (c *coder) currentPartitions(t *TopicPartitions) {
	c.topicID("topic id", &t.TopicID)
	c.int32s("partitions", &t.Partitions)
	c.tags(tagged{0, "assignment epochs", t.Epochs != nil, func(c *coder) { c.epochs(t) }})
}

// epochs codes a list that may be null.
func (c *coder) epochs(t *TopicPartitions) {
	const field = "assignment epochs"
	if c.decoding && len(c.b) > 0 && c.b[0] == 0 {
		c.b = c.b[1:]
		return
	}
	c.int32s(field, &t.Epochs)
	if !c.decoding || c.err != nil {
		return
	}
	if len(t.Epochs) != len(t.Partitions) {
		c.fail(field, fmt.Errorf("%d of them for %d partitions", len(t.Epochs), len(t.Partitions)))
	}
}
