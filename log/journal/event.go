package journal

// EventKind is a phase of the journal's life.
type EventKind uint8

// Kinds of events. For each, what holds when it is reported.
const (
	EventRecovered     EventKind = iota + 1 // Open has scanned and repaired
	EventTornTail                           // a torn tail was found; File, Bytes: where it begins; nothing is written yet
	EventHeaderRepair                       // a header copy is about to be written again
	EventGrow                               // a file is about to be made
	EventGrown                              // a file has joined the ring
	EventDiskFull                           // growth met a full disk; the ring stays as it is
	EventCopiedForward                      // Bytes of records were copied forward and are durable
	EventRecycle                            // File is about to lose its old use
	EventRecycled                           // File is ready for its next use
	EventSwitch                             // writing moves on to File
)

var eventNames = [...]string{
	EventRecovered:     "recovered",
	EventTornTail:      "torn tail",
	EventHeaderRepair:  "header repair",
	EventGrow:          "grow",
	EventGrown:         "grown",
	EventDiskFull:      "disk full",
	EventCopiedForward: "copied forward",
	EventRecycle:       "recycle",
	EventRecycled:      "recycled",
	EventSwitch:        "switch",
}

func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return "unknown"
}

// Event is one step through a phase, for tests and logs.
type Event struct {
	Kind     EventKind
	File     string
	Sequence uint64 // of the file, where there is one
	Bytes    int64
	Err      error // of EventDiskFull
}
