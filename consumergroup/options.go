package consumergroup

import (
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/consumergroup/record"
)

// Options are the settings of a Coordinator. The names in parentheses are Kafka's.
type Options struct {
	// NewID returns what tells one member from all others: 128 random bits as text.
	// A member's id is its client's id, or that of its instance, "-", and this.
	NewID func() string

	// MinSessionTimeout and MaxSessionTimeout bound what a member may ask for
	// (group.min.session.timeout.ms, group.max.session.timeout.ms).
	MinSessionTimeout, MaxSessionTimeout time.Duration

	// InitialRebalanceDelay is how long an empty group waits for more members after
	// the first (group.initial.rebalance.delay.ms). It waits as long again while
	// members come, and never longer than their rebalance timeout.
	InitialRebalanceDelay time.Duration

	// NewMemberTimeout ends the JoinGroup of a new member that no rebalance has
	// answered: its connection may be gone, and it sends no heartbeats yet.
	NewMemberTimeout time.Duration

	// ConsumerSessionTimeout is how long a member of a group of KIP-848 may be silent
	// (group.consumer.session.timeout.ms), ConsumerHeartbeatInterval how often it is
	// told to send heartbeats at least (group.consumer.heartbeat.interval.ms).
	ConsumerSessionTimeout, ConsumerHeartbeatInterval time.Duration

	// ConsumerHeartbeatIntervalMin is how often such a member is told to where there are
	// few: it hears of a change with a heartbeat. All members together send
	// memberHeartbeats a second more than with ConsumerHeartbeatInterval alone, at most.
	// It is of no use if it is not below that.
	ConsumerHeartbeatIntervalMin time.Duration

	// Migration says whether groups change their kind while they have members.
	Migration MigrationPolicy

	// MaxSubscribedTopics bounds the topics that such a member subscribes to by name.
	MaxSubscribedTopics int

	// MaxGroupSize bounds the members of a group (group.max.size, group.consumer.max.size).
	MaxGroupSize int

	// MaxProtocols bounds the protocols that a member names when it joins.
	MaxProtocols int

	// MaxGroupBytes bounds what is held of a group's members: ids, the metadata of
	// each of their protocols, assignments, and some for each. It is also above
	// every record of a group, which holds all members.
	MaxGroupBytes int

	// MaxBytes bounds the same for all groups of the coordinator
	// (offsets.partition.member.bytes.max).
	MaxBytes int

	// MaxGroups bounds the groups that are recorded, and those that have members: with
	// as many of either, no group begins (offsets.partition.groups.max). MaxOffsets bounds
	// the committed offsets (offsets.partition.offsets.max). Both are of the coordinator's
	// partition.
	MaxGroups, MaxOffsets int

	// MaxOffsetMetadataBytes bounds the text that goes with a committed offset
	// (offset.metadata.max.bytes).
	MaxOffsetMetadataBytes int

	// OffsetsRetention is how long offsets are kept after they were committed, or,
	// in a group that had members, after the last of them has gone
	// (offsets.retention.minutes).
	OffsetsRetention time.Duration

	// RetentionCheck is how long after each other expired offsets are looked for
	// (offsets.retention.check.interval.ms).
	RetentionCheck time.Duration
}

// DefaultOptions returns the defaults: Kafka's where Kafka has a bound. NewID is
// left to the caller.
func DefaultOptions() Options {
	return Options{
		MinSessionTimeout:         6 * time.Second,
		MaxSessionTimeout:         30 * time.Minute,
		InitialRebalanceDelay:     3 * time.Second,
		NewMemberTimeout:          5 * time.Minute,
		ConsumerSessionTimeout:    45 * time.Second,
		ConsumerHeartbeatInterval: 5 * time.Second,

		ConsumerHeartbeatIntervalMin: time.Second,

		MaxSubscribedTopics:    10_000,
		Migration:              MigrateBoth,
		MaxGroupSize:           10_000,
		MaxProtocols:           100,
		MaxGroupBytes:          8 << 20,
		MaxBytes:               64 << 20,
		MaxGroups:              50_000,
		MaxOffsets:             1_000_000,
		MaxOffsetMetadataBytes: 4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		RetentionCheck:         10 * time.Minute,
	}
}

// ErrOptions reports Options that no Coordinator can work with.
var ErrOptions = errors.New("consumergroup: invalid options")

// Check returns an error that matches ErrOptions and names the first setting that
// is out of its range.
func (o Options) Check() error {
	switch {
	case o.NewID == nil:
		return fmt.Errorf("%w: no source of member ids", ErrOptions)
	case o.MinSessionTimeout <= 0 || o.MaxSessionTimeout < o.MinSessionTimeout:
		return fmt.Errorf("%w: session timeouts from %v to %v", ErrOptions, o.MinSessionTimeout, o.MaxSessionTimeout)
	case o.InitialRebalanceDelay < 0 || o.NewMemberTimeout <= 0 || o.OffsetsRetention <= 0 || o.RetentionCheck <= 0:
		return fmt.Errorf("%w: initial rebalance delay %v, new member timeout %v, offsets retention %v, its check %v",
			ErrOptions, o.InitialRebalanceDelay, o.NewMemberTimeout, o.OffsetsRetention, o.RetentionCheck)
	case o.ConsumerHeartbeatInterval <= 0 || o.ConsumerSessionTimeout <= o.ConsumerHeartbeatInterval:
		return fmt.Errorf("%w: consumer heartbeats each %v, and a session of %v", ErrOptions, o.ConsumerHeartbeatInterval, o.ConsumerSessionTimeout)
	case o.ConsumerHeartbeatIntervalMin <= 0:
		return fmt.Errorf("%w: consumer heartbeats each %v where there are few members", ErrOptions, o.ConsumerHeartbeatIntervalMin)
	case !o.Migration.valid():
		return fmt.Errorf("%w: group.consumer.migration.policy %q, want one of %s, %s, %s and %s",
			ErrOptions, o.Migration, MigrateNever, MigrateUp, MigrateDown, MigrateBoth)
	case o.MaxSubscribedTopics <= 0:
		return fmt.Errorf("%w: at most %d subscribed topics", ErrOptions, o.MaxSubscribedTopics)
	case min(o.MaxGroupSize, o.MaxProtocols, o.MaxGroupBytes, o.MaxBytes, o.MaxGroups, o.MaxOffsets) <= 0:
		return fmt.Errorf("%w: a bound of groups is 0 or less: size %d, protocols %d, bytes %d of %d, groups %d, offsets %d",
			ErrOptions, o.MaxGroupSize, o.MaxProtocols, o.MaxGroupBytes, o.MaxBytes, o.MaxGroups, o.MaxOffsets)
	case o.MaxOffsetMetadataBytes < 0 || o.MaxOffsetMetadataBytes > record.MaxStringBytes:
		return fmt.Errorf("%w: offset metadata of at most %d bytes, want 0 to %d", ErrOptions, o.MaxOffsetMetadataBytes, record.MaxStringBytes)
	}
	return nil
}
