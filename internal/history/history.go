// Package history records what clients of a log server did and saw, and checks
// afterwards whether a correct server could have answered so.
//
// A history is a list of events. Each operation has an Invoke, written before
// the request leaves the client, and at most one completion, written after its
// answer arrived: OK, Fail (it certainly had no effect) or Info (unknown). An
// operation without a completion counts as Info. The position of an event in
// the history is its time: an operation that completed before another was
// invoked happened before it. Nothing is concluded from clocks.
//
// The words and the checks follow Jepsen's kafka workload. Values are unique
// per key, and a key is a partition of a topic, so where a value is read tells
// which send wrote it.
//
// A saved history is text: a header line, then one JSON object per event.
//
//	{"flotilla-history":1}
//	{"id":7,"p":3,"t":"invoke","f":"send","at":812,"m":[{"k":"orders","n":2,"r":[-1,9001]}]}
//	{"id":7,"p":3,"t":"ok","f":"send","at":1530,"m":[{"k":"orders","n":2,"r":[40,9001]}]}
//
//	id   pairs an invocation with its completion
//	p    process             t   event type          f   function
//	at   nanoseconds since the recorder was created
//	m    micro-operations:   k   topic   n   partition   o  offset of an assign, or where the log starts
//	                         r   offset, value, offset, value, ...   f  only inside txn
//	topic, saw               of the functions on topics
//	g   group                c   member          e   generation or member epoch: of the functions of groups
//	err                      what the client was told, for a reader's eyes
package history

import (
	"slices"
	"time"
)

const (
	// NoOffset stands for an offset that is not known: in the invocation of a
	// send, in the acknowledgement of one that carries none, and as the start
	// of an assign that leaves the position to committed offsets or defaults.
	NoOffset int64 = -1

	// Garbled is the value to record for a record read whose bytes are not a
	// value that any client could have written. No send may use it.
	Garbled int64 = -1
)

// Type says which moment of an operation an event is.
type Type uint8

// The zero Type is no event.
const (
	Invoke Type = iota + 1
	OK          // took effect, and the answer is in the event
	Fail        // certainly took no effect
	Info        // may have taken effect, may still, or never
)

var typeNames = [...]string{Invoke: "invoke", OK: "ok", Fail: "fail", Info: "info"}

func (t Type) String() string { return name(typeNames[:], int(t)) }

// F is the function that an operation calls.
type F uint8

// The zero F is no function. Txn may be recorded and saved, and is counted,
// but its micro-operations are not checked.
const (
	Send      F = iota + 1
	Poll        // Mops of OK hold the records that the client was given
	Assign      // replaces the client's partitions, each from Mop.From
	Subscribe   // joins a group: positions may jump between polls from here on
	Crash       // the client is torn down; the process goes on with a new one
	Txn
	CreateTopic
	DeleteTopic
	DescribeTopic
	DeleteRecords // Mop.From: the offset below which to delete, or NoOffset for all there is; of OK, the log start
	LogStarts     // Mop.From of OK is the key's log start offset

	// The functions of groups. They, and the Poll and Subscribe of a member, have
	// Op.In. Keys are the Mops'.

	Assigned     // a member has partitions from now on, each from Mop.From, or NoOffset if it does not know yet
	Revoked      // a member has given partitions up
	Lost         // a member has heard that its partitions may be others' by now
	Commit       // Mop.From is the offset; of OK, Mops are those that were taken
	FetchOffsets // Mop.From of OK is the committed offset, or NoOffset
	SetOffsets   // Commit that may go back: by a tool, or of a member that sought
	Steady       // meanwhile nothing is to move between the members of a group: all are there, and stay
)

var fNames = [...]string{
	Send: "send", Poll: "poll", Assign: "assign", Subscribe: "subscribe", Crash: "crash", Txn: "txn",
	CreateTopic: "create", DeleteTopic: "delete", DescribeTopic: "describe",
	DeleteRecords: "delete-records", LogStarts: "log-starts",
	Assigned: "assigned", Revoked: "revoked", Lost: "lost",
	Commit: "commit", FetchOffsets: "fetch-offsets", SetOffsets: "set-offsets", Steady: "steady",
}

func (f F) String() string { return name(fNames[:], int(f)) }

// Presence is what the answer to an operation on a topic said about it.
type Presence uint8

const (
	Unsaid  Presence = iota // no answer, or one that tells nothing
	Present                 // described, or refused because it already exists
	Absent                  // described as unknown, or refused for that reason
)

var presenceNames = [...]string{Unsaid: "", Present: "present", Absent: "absent"}

func (p Presence) String() string { return name(presenceNames[:], int(p)) }

func name(names []string, i int) string {
	if i < len(names) && (names[i] != "" || i == 0) {
		return names[i]
	}
	return "invalid"
}

// Key names a partition of a topic.
type Key struct {
	Topic     string
	Partition int32
}

// Record is a value at an offset of a key.
type Record struct {
	Offset int64 // NoOffset while unknown
	Value  int64
}

// Mop is a micro-operation: the part of an operation that touches one key.
type Mop struct {
	Key     Key
	Records []Record // sent or polled, in the client's order
	From    int64    // of Assign: the first offset to read, or NoOffset; of other functions as they say
	F       F        // Send or Poll inside a Txn; elsewhere 0, Op.F counts
}

// Values returns the micro-operation that sends values to key, in that order.
func Values(key Key, values ...int64) Mop {
	m := Mop{Key: key, Records: make([]Record, len(values))}
	for i, v := range values {
		m.Records[i] = Record{Offset: NoOffset, Value: v}
	}
	return m
}

// At returns a copy of m whose records lie at base, base+1 and so on: what the
// acknowledgement of one batch says.
func (m Mop) At(base int64) Mop {
	m.Records = slices.Clone(m.Records)
	for i := range m.Records {
		m.Records[i].Offset = base + int64(i)
	}
	return m
}

// Op is one event of an operation.
type Op struct {
	ID      int64         // the same in an invocation and its completion, else unique
	At      time.Duration // since the recorder was created; only for people and for Lag
	Process int32         // one client at a time; polls of a process never overlap
	Type    Type
	F       F
	Saw     Presence    // of the functions on topics
	Topic   string      // of the functions on topics
	In      *Membership // of what is done in a group, else nil; never changed
	Mops    []Mop       // of all but Subscribe, Crash, Steady and the functions on topics
	Err     string      // free text
}

// Membership is who acts in a group.
type Membership struct {
	Group  string
	Member string // empty: somebody from outside
	Epoch  int32  // the generation of a classic group, or the member epoch of KIP-848; 0: not known
}

// History is the events of a run in the order in which they happened.
type History []Op
