package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ErrAnomalies matches the error of every Report that found something.
var ErrAnomalies = errors.New("history: anomalies")

// Kind names what is wrong.
type Kind string

const (
	// Duplicate: one value at two offsets. Only with Options.Idempotent.
	Duplicate Kind = "duplicate"

	// InconsistentOffsets: one offset holds two values for two observers, or
	// one send was acknowledged at two offsets.
	InconsistentOffsets Kind = "inconsistent-offsets"

	// G1a: a value was read whose send definitely failed.
	G1a Kind = "G1a"

	// LostWrite: an acknowledged value at or below the highest offset that
	// anyone read was never read.
	LostWrite Kind = "lost-write"

	// Unseen: an acknowledged value was not read by the end of the final
	// polls, and nothing above it was. Only with Options.Final.
	Unseen Kind = "unseen"

	// NonmonotonicSend: sends of one process lie in the log in the wrong
	// order. With Options.Idempotent that is the order of invocation;
	// otherwise only a send invoked after another's acknowledgement counts.
	NonmonotonicSend Kind = "nonmonotonic-send"

	// IntNonmonotonicSend: records of one send lie in the log in the wrong
	// order. Only with Options.Idempotent.
	IntNonmonotonicSend Kind = "int-nonmonotonic-send"

	// RealtimeSend: a send lies below one of another process that was
	// acknowledged before it was invoked.
	RealtimeSend Kind = "realtime-send"

	// PollSkip and NonmonotonicPoll: between two polls of a process with
	// assigned partitions, or since its assign, offsets that someone has read
	// were jumped over, or the position went back.
	PollSkip         Kind = "poll-skip"
	NonmonotonicPoll Kind = "nonmonotonic-poll"

	// IntPollSkip and IntNonmonotonicPoll: the same inside the answer to one
	// poll, whatever the subscription.
	IntPollSkip         Kind = "int-poll-skip"
	IntNonmonotonicPoll Kind = "int-nonmonotonic-poll"

	// Phantom: a value was read that nobody had sent by then, or bytes that
	// are no value.
	Phantom Kind = "phantom"

	// AckMismatch: readers saw a value, but not at the offset that its
	// acknowledgement named.
	AckMismatch Kind = "ack-mismatch"

	// LostOffset: offsets below the highest one read that nobody read and
	// that no acknowledgement named. Not with Options.Holes.
	LostOffset Kind = "lost-offset"

	// StaleTopic: a value of a deleted incarnation of a topic was read by a
	// client that started after its successor was created.
	StaleTopic Kind = "stale-topic"

	// StartBack: a log start offset was told of, and a lower one to somebody
	// who asked after that.
	StartBack Kind = "log-start-back"

	// UnexplainedStart: a log starts at an offset that nobody asked for and
	// that retention could not come to.
	UnexplainedStart Kind = "unexplained-log-start"

	// BelowStart: a reader was given a record, or a send an offset, below a log
	// start that was told of before the reader, or the send, began.
	BelowStart Kind = "below-log-start"

	// Undeleted: DeleteRecords was answered with a log start below the offset
	// that it was asked for.
	Undeleted Kind = "undeleted"

	// TwoOwners: two members of a group had a partition in one generation or at
	// one member epoch, or one got it while another one had it that the group had
	// not lost.
	TwoOwners Kind = "two-owners"

	// FencedCommit: a commit was taken of a member that had a partition, after
	// another one had got it at a later epoch.
	FencedCommit Kind = "fenced-commit"

	// CommitBack: an offset was committed below one that the group had committed
	// before, and nobody had set offsets.
	CommitBack Kind = "commit-back"

	// LostCommit: the committed offset that was told lies below one that was
	// acknowledged before it was asked for.
	LostCommit Kind = "lost-commit"

	// PhantomCommit: a committed offset was told that nobody had committed by then.
	PhantomCommit Kind = "phantom-commit"

	// CommitBeyondEnd: a committed offset was told that lies above the end of the
	// partition. Only with Options.Final.
	CommitBeyondEnd Kind = "commit-beyond-end"

	// Unconsumed: a record was never given to any member of a group that was to
	// consume all. Only with Options.Groups.
	Unconsumed Kind = "unconsumed"

	// UnownedPoll: a member was given a record of a partition that it did not have.
	UnownedPoll Kind = "unowned-poll"

	// NeedlessRebalance: partitions moved between the members of a group though
	// all of them were there, and stayed.
	NeedlessRebalance Kind = "needless-rebalance"

	// Malformed: the history contradicts its own rules, which is a bug in
	// what recorded it.
	Malformed Kind = "malformed"
)

// Kinds returns every kind that Check can report.
func Kinds() []Kind {
	return []Kind{
		Duplicate, InconsistentOffsets, G1a, LostWrite, Unseen, NonmonotonicSend, IntNonmonotonicSend,
		RealtimeSend, PollSkip, NonmonotonicPoll, IntPollSkip, IntNonmonotonicPoll, Phantom, AckMismatch,
		LostOffset, StaleTopic, StartBack, UnexplainedStart, BelowStart, Undeleted,
		TwoOwners, FencedCommit, CommitBack, LostCommit, PhantomCommit, CommitBeyondEnd, Unconsumed, UnownedPoll, NeedlessRebalance,
		Malformed,
	}
}

// Anomaly is one thing that a correct server cannot do, with its evidence. One
// that is Malformed has only Events and Detail.
type Anomaly struct {
	Kind    Kind
	Key     Key
	Values  []int64
	Offsets []int64
	Events  []int // positions in the history of the events that show it
	Detail  string
}

func (a Anomaly) String() string {
	if a.Kind == Malformed {
		return fmt.Sprintf("%s: %s (events %v)", a.Kind, a.Detail, a.Events)
	}
	return fmt.Sprintf("%s %s/%d: %s (values %v, offsets %v, events %v)",
		a.Kind, a.Key.Topic, a.Key.Partition, a.Detail, a.Values, a.Offsets, a.Events)
}

// Outcomes counts the operations of one function by how they ended. Open ones
// have no completion and are as unknown as Info.
type Outcomes struct {
	OK, Fail, Info, Open int
}

// Lag summarises how long after its acknowledgement a value was first read.
// Values read before their acknowledgement arrived count as 0.
type Lag struct {
	P50, P99, Max time.Duration
}

// Report is what Check found.
type Report struct {
	// Anomalies holds the first Options.Keep of each kind; Counts has all.
	Anomalies []Anomaly
	Counts    map[Kind]int

	Ops      map[F]Outcomes
	Events   int
	Keys     int // keys that an operation names, assigns apart
	Sent     int // values sent
	Acked    int // values acknowledged
	Reads    int // records polled, all readers together
	Distinct int // values sent that someone read
	Lag      Lag

	keep int
	off  map[Kind]bool // kinds not reported; for tests of the tests
}

func (r *Report) add(a Anomaly) {
	if r.off[a.Kind] {
		return
	}
	r.Counts[a.Kind]++
	if r.Counts[a.Kind] <= r.keep {
		r.Anomalies = append(r.Anomalies, a)
	}
}

// wants reports whether another anomaly of kind k would be kept, so that
// evidence that is dear to collect need be collected only then.
func (r *Report) wants(k Kind) bool { return !r.off[k] && r.Counts[k] < r.keep }

// Err returns nil if nothing was found, else an error that matches
// ErrAnomalies and counts each kind.
func (r *Report) Err() error {
	if len(r.Counts) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrAnomalies, r.summary())
}

func (r *Report) summary() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, r.Counts[k]))
	}
	return strings.Join(parts, ", ")
}

// String is a few lines for people: verdict, counts, lag, evidence.
func (r *Report) String() string {
	var b strings.Builder
	verdict := "valid"
	if len(r.Counts) > 0 {
		verdict = "INVALID: " + r.summary()
	}
	fmt.Fprintf(&b, "history %s\n", verdict)
	fmt.Fprintf(&b, "  %d events, %d keys; %d values sent, %d acked, %d read; %d records polled\n",
		r.Events, r.Keys, r.Sent, r.Acked, r.Distinct, r.Reads)
	for _, f := range slices.Sorted(maps.Keys(r.Ops)) {
		o := r.Ops[f]
		fmt.Fprintf(&b, "  %s: ok=%d fail=%d info=%d open=%d\n", f, o.OK, o.Fail, o.Info, o.Open)
	}
	fmt.Fprintf(&b, "  lag: p50=%v p99=%v max=%v\n", r.Lag.P50, r.Lag.P99, r.Lag.Max)
	for _, a := range r.Anomalies {
		fmt.Fprintf(&b, "  %s\n", a)
	}
	return b.String()
}
