package consumergroup

import (
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Requests and replies are of no version of any protocol: they have what every
// version needs, and flags where versions differ in what they ask for. An Err is
// nil on success; its detail is for people, its code for clients. Bytes in replies are
// not to be changed.

// Protocol is one way to share partitions that a member knows, with what it says
// of itself for it: for consumers an assignor and a record.Subscription.
type Protocol struct {
	Name     string
	Metadata []byte // a copy is kept
}

// JoinRequest asks to take part in the next generation of a group.
type JoinRequest struct {
	Group      string
	MemberID   string // empty: one is given
	InstanceID string // of a static member; else empty
	ClientID   string
	ClientHost string

	SessionTimeoutMS   int32
	RebalanceTimeoutMS int32 // negative (before version 1): the session timeout
	ProtocolType       string
	Protocols          []Protocol // the preferred one first

	// NeedsMemberID (since version 4) has a new member told its id first, with
	// MEMBER_ID_REQUIRED, and join with it then.
	NeedsMemberID bool

	// SkipsAssignment (since version 9) says that a leader understands
	// JoinReply.SkipAssignment.
	SkipsAssignment bool
}

// JoinReply answers a JoinRequest.
type JoinReply struct {
	Err          *errcode.Error
	MemberID     string
	Generation   int32 // -1 with an Err
	ProtocolType string
	Protocol     string
	Leader       string
	// SkipAssignment tells the leader to send no assignment: that of this
	// generation is known.
	SkipAssignment bool
	Members        []JoinMember // for the leader; empty for others
}

// JoinMember is a member as the leader is told of it.
type JoinMember struct {
	MemberID   string
	InstanceID string // empty: not static
	Metadata   []byte // of the chosen protocol
}

// SyncRequest asks for the member's assignment; the leader's brings all.
type SyncRequest struct {
	Group      string
	MemberID   string
	InstanceID string
	Generation int32

	ProtocolType string // empty (before version 5): not said
	Protocol     string // likewise

	Assignments []Assignment // the leader's
}

// Assignment is what the leader gives a member.
type Assignment struct {
	MemberID string
	Bytes    []byte // a copy is kept
}

// SyncReply answers a SyncRequest.
type SyncReply struct {
	Err          *errcode.Error
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// HeartbeatRequest says that a member lives.
type HeartbeatRequest struct {
	Group      string
	MemberID   string
	InstanceID string
	Generation int32
}

// HeartbeatReply answers a HeartbeatRequest.
type HeartbeatReply struct{ Err *errcode.Error }

// LeaveRequest takes members out of a group.
type LeaveRequest struct {
	Group   string
	Members []LeaveMember
}

// LeaveMember is one of them: by its id, or, for a static one, by its instance
// alone.
type LeaveMember struct {
	MemberID   string
	InstanceID string
}

// LeaveReply answers a LeaveRequest.
type LeaveReply struct {
	Err     *errcode.Error
	Members []LeaveResult // in the order of the request
}

// LeaveResult is how it went for one member.
type LeaveResult struct {
	MemberID   string
	InstanceID string
	Err        *errcode.Error
}

// CommitRequest commits offsets. That the partitions exist is for the caller to
// check.
type CommitRequest struct {
	Group      string
	MemberID   string
	InstanceID string
	Generation int32 // or member epoch; negative with no MemberID: from outside of the group's membership

	// RetentionMS is how long the offsets are kept from now (until version 4), or
	// -1: as the group's are.
	RetentionMS int64

	// KnowsNoGroup (since version 9) says that the client understands
	// GROUP_ID_NOT_FOUND; others get ILLEGAL_GENERATION.
	KnowsNoGroup bool

	Offsets []CommitOffset
}

// CommitOffset is one of them.
type CommitOffset struct {
	Topic       string
	TopicID     record.TopicID // zero: not known
	Partition   int32
	Offset      int64
	LeaderEpoch int32 // -1: not known
	Metadata    string
}

// CommitReply answers a CommitRequest.
type CommitReply struct {
	Err     *errcode.Error   // for all
	Offsets []*errcode.Error // without Err: for each, in the order of the request
}

// FetchRequest asks for the committed offsets of one group.
type FetchRequest struct {
	Group string

	// MemberID and MemberEpoch (since version 9) are those of a member of a group of
	// KIP-848, which is told nothing with another epoch than its own; empty: not said.
	MemberID    string
	MemberEpoch int32

	All        bool // every one; Partitions is left aside
	Partitions []FetchPartition
}

// FetchPartition is a partition to look up.
type FetchPartition struct {
	Topic     string
	TopicID   record.TopicID // zero: not known; else what was committed to another topic of that name is left aside
	Partition int32
}

// FetchReply answers a FetchRequest. For a partition without an offset, and for a
// group that does not exist, an offset is -1, and that is no error.
type FetchReply struct {
	Err     *errcode.Error
	Offsets []FetchedOffset // in the order of the request; with All by topic and partition
}

// FetchedOffset is one committed offset.
type FetchedOffset struct {
	Topic       string
	TopicID     record.TopicID
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// DeleteOffsetsRequest forgets committed offsets.
type DeleteOffsetsRequest struct {
	Group      string
	Partitions []TopicPartition
}

// DeleteOffsetsReply answers a DeleteOffsetsRequest.
type DeleteOffsetsReply struct {
	Err        *errcode.Error   // for all
	Partitions []*errcode.Error // without Err: for each, in the order of the request
}

// ListRequest asks for the groups of the coordinator.
type ListRequest struct {
	States []string // Kafka's names, in any case, blanks around them left aside; empty: all
	Types  []string // "classic", "consumer", in any case; empty: all
}

// ListReply answers a ListRequest.
type ListReply struct {
	Err    *errcode.Error // of who asks coordinators; they have none
	Groups []ListedGroup  // by name
}

// ListedGroup is one group.
type ListedGroup struct {
	Group        string
	ProtocolType string // empty: only offsets
	State        State
	Type         string // "classic" or "consumer"
}

// DescribeReply tells of one group. One that does not exist is Dead, with an Err,
// GROUP_ID_NOT_FOUND, that is told since version 6.
type DescribeReply struct {
	Err          *errcode.Error
	Group        string
	State        State
	ProtocolType string
	Protocol     string // while Stable
	Members      []DescribedMember
}

// DescribedMember is one member.
type DescribedMember struct {
	MemberID   string
	InstanceID string
	ClientID   string
	ClientHost string
	Metadata   []byte // while Stable
	Assignment []byte
}

// DeleteGroupsReply answers a request to delete groups, in its order.
type DeleteGroupsReply struct{ Groups []DeletedGroup }

// DeletedGroup is how it went for one.
type DeletedGroup struct {
	Group string
	Err   *errcode.Error
}
