// Package partition is the deterministic state machine of one shard: it turns
// the shard's committed Raft entries into offsets, and nothing else does.
//
// Every replica of a shard feeds the same entries, in the same order, to its
// State, and gets the same answers, effects and hash. So the package reads no
// clock, no setting and no file, starts no goroutine, and lets no map order
// reach its output. Its only time is the shard clock: the greatest wall clock
// that an applied entry carried.
//
// A State holds no record data. Apply checks a batch's producer and gives it
// its offsets, and hands the batch on, uncopied, as an Effect for the store.
//
// The formats are described where they are written: an entry in entry.go, its
// commands in command.go, a checkpoint in checkpoint.go.
package partition

import (
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// Apply versions: the behaviour of Apply that a shard has agreed on.
const (
	// MinApplyVersion is what a new shard starts with.
	MinApplyVersion = 1

	// MaxApplyVersion is the newest behaviour that this build has.
	//
	// Version 2 knows Config.SegmentMS and ExpireProducers. Version 3 knows
	// Config.Internal and Decision, and remembers the timestamps of producers.
	MaxApplyVersion = 3

	// ExpireVersion is the first that knows ExpireProducers.
	ExpireVersion = 2

	// SegmentMSVersion is the first that knows Config.SegmentMS.
	SegmentMSVersion = 2

	// DecisionVersion is the first that knows Config.Internal and Decision.
	DecisionVersion = 3

	// TimestampVersion is the first that remembers the newest timestamp of each
	// producer's last batch.
	TimestampVersion = 3
)

// maxTerm bounds Raft terms, and base epochs, so that their sum fits a leader
// epoch. A shard that elected a leader every second would get there in 34
// years.
const maxTerm = 1<<30 - 1

var (
	// ErrDamaged reports bytes that are not an entry, or a checkpoint, as
	// written.
	ErrDamaged = errors.New("partition: damaged")

	// ErrUnsupported reports an intact entry or checkpoint that only a newer
	// build understands. The replica must stop: to skip it would let the
	// replica's state differ from the others'.
	ErrUnsupported = errors.New("partition: unsupported")

	// ErrOrder reports an entry whose index or term is not above, or at least
	// at, that of the entries before it.
	ErrOrder = errors.New("partition: entry out of order")

	// ErrBroken reports a panic that could not be put down to one partition. The
	// state must not be used any more; a Restore and the same entries may well
	// lead to the same panic.
	ErrBroken = errors.New("partition: a command panicked")
)

// TopicID is a topic's 16-byte id. Ids are never reused.
type TopicID [16]byte

// String returns the id in hexadecimal.
func (id TopicID) String() string { return fmt.Sprintf("%x", id[:]) }

// Number names a partition within its shard. CreatePartition gives it, counting
// from 1, and it is never reused; zero names none.
type Number uint32

// ProducerID is a producer id as in Kafka; NoProducer is a batch's that has
// none.
type ProducerID int64

// NoProducer is the producer id of batches that are not deduplicated.
const NoProducer ProducerID = -1

// NoTime stands where a log append time is not given, or a timestamp not known.
const NoTime = -1

// Internal says of which internal topic a partition is. The records of such a
// partition are those that its coordinator decided, and nobody else's (R3); each
// replica folds them as it applies them: see Folded.
type Internal uint8

const (
	// NotInternal is a partition of any other topic.
	NotInternal Internal = iota

	// InternalGroups is __consumer_offsets: committed offsets, and consumer groups.
	InternalGroups

	lastInternal = InternalGroups
)

// Config is what a partition's topic sets. The state only carries it: segment
// sizes matter to the store, and batches are judged by it before they are
// proposed.
type Config struct {
	SegmentBytes    int64
	MaxMessageBytes int32 // of one record batch
	LogAppendTime   bool  // timestamps are the leader's, not the client's

	// SegmentMS is how long a segment takes appends before the next one is
	// begun, in ms; 0: as long as it has room. Other values need apply version
	// 2.
	SegmentMS int64

	// Internal is decided when the partition is created; a config that says
	// something else is refused. Other values than NotInternal need apply version 3.
	Internal Internal
}

// Limits are what Apply enforces. They are part of the state, since every
// replica must enforce the same; SetLimits changes them.
type Limits struct {
	// MaxPartitions bounds the shard's partitions. CreatePartition above it
	// answers POLICY_VIOLATION.
	MaxPartitions uint32

	// MaxProducers bounds the producers that the shard remembers, over all its
	// partitions; a producer counts once for each partition it writes to. When
	// a new one comes at the limit, the producer that appended longest ago is
	// forgotten if that is at least ProducerIdleMS ago by the shard clock; else
	// the new one is refused with THROTTLING_QUOTA_EXCEEDED, which is
	// retriable.
	MaxProducers   uint32
	ProducerIdleMS int64

	// MaxStamps bounds the deleted partitions whose metadata index is
	// remembered. Above it the older half goes, and every later CreatePartition
	// with an index at or below theirs counts as outdated.
	MaxStamps uint32
}

// DefaultLimits are the limits of a new shard. They belong to apply version 1:
// other values need another version.
var DefaultLimits = Limits{
	MaxPartitions:  1_000_000,
	MaxProducers:   500_000,
	ProducerIdleMS: 60 * 60 * 1000,
	MaxStamps:      100_000,
}

// Result is the answer to one command.
//
// A Code other than errcode.None means that the command changed nothing, apart
// from the shard clock and the term.
type Result struct {
	Kind   Kind
	Code   errcode.Code
	Reason Reason // which rule refused it; ReasonNone with Code None

	// Duplicate says that the command had taken effect before, and changed
	// nothing now.
	Duplicate bool

	Number Number // the partition that it was about, also of CreatePartition

	// The records of a Produce or a Decision took offsets [BaseOffset, LastOffset],
	// both those of the first append if Duplicate. -1 unless Code is None.
	BaseOffset, LastOffset int64

	// LogAppendTimeMS is the time that the leader put on the batch, or NoTime
	// if its timestamps are the client's.
	LogAppendTimeMS int64

	LogStart    int64 // the partition's log start offset, -1 without a partition
	Removed     int64 // offsets by which an AdvanceLogStart moved it
	LeaderEpoch int32 // the partition's, -1 without a partition

	// Want and Have are the two values that a refusal compared, such as the
	// expected and the given sequence. See Reason.
	Want, Have int64
}

// Err returns nil if Code is errcode.None, and else an *errcode.Error with
// Reason in words.
func (r *Result) Err() error {
	if r.Code == errcode.None {
		return nil
	}
	return errcode.Errorf(r.Code, "partition %d: %s (want %d, have %d)", r.Number, r.Reason, r.Want, r.Have)
}

// Reason says which rule refused a command. It costs no allocation where a
// formatted text would, on the path that a misbehaving producer can repeat.
type Reason uint8

const (
	ReasonNone           Reason = iota
	ReasonNoPartition           // want: nothing; have: the number
	ReasonTerm                  // want: the entry's term; have: the command's
	ReasonBatch                 // the payload is not one record batch
	ReasonBatchKind             // control and transactional batches have no apply version yet
	ReasonProducerFields        // want: nothing; have: the producer id
	ReasonEpoch                 // want: the newest producer epoch; have: the batch's
	ReasonSequence              // want: the next sequence; have: the batch's
	ReasonNewEpoch              // want: sequence 0; have: the batch's
	ReasonProducers             // want: at most MaxProducers; have: that many
	ReasonPartitions            // want: at most MaxPartitions; have: that many
	ReasonStamp                 // want: the newest metadata index; have: the command's
	ReasonLogStart              // want: at most the log end; have: the offset
	ReasonOffsetsUsedUp         // want: room below the highest offset; have: the log end
	ReasonConfig                // a config, limit or base epoch is out of range
	ReasonQuarantined           // want: the index of the entry that panicked; have: the entry's
	ReasonVersion               // want: the apply version that knows the command; have: the shard's
	ReasonInternal              // a client's batch for an internal partition, or a decision for another
	ReasonDecision              // want: the next decision's number; have: the command's
	reasonCount
)

var reasonTexts = [reasonCount]string{
	ReasonNone:           "accepted",
	ReasonNoPartition:    "no such partition in this shard",
	ReasonTerm:           "decided in another term",
	ReasonBatch:          "malformed record batch",
	ReasonBatchKind:      "control and transactional batches are not supported",
	ReasonProducerFields: "producer id, epoch and sequence contradict each other",
	ReasonEpoch:          "producer epoch is older than the newest",
	ReasonSequence:       "sequence does not continue the producer's last batch",
	ReasonNewEpoch:       "a new producer epoch must start at sequence 0",
	ReasonProducers:      "the shard remembers as many producers as it may",
	ReasonPartitions:     "the shard has as many partitions as it may",
	ReasonStamp:          "older than what was applied",
	ReasonLogStart:       "offset is outside the log",
	ReasonOffsetsUsedUp:  "no offsets are left",
	ReasonConfig:         "value out of range",
	ReasonQuarantined:    "in quarantine on this replica",
	ReasonVersion:        "newer than the shard's apply version",
	ReasonInternal:       "only its coordinator writes to an internal partition, and only to such",
	ReasonDecision:       "not the decision after the last one of the term",
}

// String returns the reason in a few words.
func (r Reason) String() string {
	if r >= reasonCount {
		return fmt.Sprintf("reason %d", uint8(r))
	}
	return reasonTexts[r]
}

// EffectKind says what the store has to do.
type EffectKind uint8

const (
	EffectAppended      EffectKind = iota + 1 // BaseOffset, LastOffset, LeaderEpoch, Batch
	EffectCreated                             // TopicID, Index, Config
	EffectDeleted                             // TopicID, Index
	EffectLogStartMoved                       // LogStart
	EffectConfigSet                           // TopicID, Index, Config
)

// Effect is one change that the store has to follow. Only the fields that
// EffectKind names are set, besides Kind, Number and Command.
type Effect struct {
	Kind    EffectKind
	Number  Number
	Command int // position in Outcome.Results of the command that caused it

	BaseOffset, LastOffset int64 // inclusive
	LeaderEpoch            int32

	// Batch is the record batch as it was proposed: its base offset and leader
	// epoch fields are not the ones above. It aliases the entry.
	Batch []byte

	LogStart int64
	TopicID  TopicID
	Index    int32
	Config   Config
}

// Outcome is what Apply answers: one Result a command, in their order, and the
// effects in the order in which the store must follow them. Its slices are
// reused by the next Apply that is given the same Outcome.
type Outcome struct {
	Results []Result
	Effects []Effect

	// HashAsked says that the entry wants the state's hash at its index.
	HashAsked bool

	// Quarantines says which partitions the entry put into quarantine here.
	Quarantines []Quarantine

	// Follow, if it is set, does what an effect says, each as soon as its command
	// is applied: if it panics, the command is taken back as if it had panicked
	// itself. The caller sets it, once; it is for the goroutine of Apply.
	Follow func(*Effect)
}

func (o *Outcome) reset() {
	clear(o.Effects) // drop the references to the last entry
	o.Results, o.Effects, o.HashAsked, o.Quarantines = o.Results[:0], o.Effects[:0], false, nil
}
