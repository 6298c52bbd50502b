package history

import (
	"fmt"
	"sync"
	"time"
)

// Recorder collects the events of concurrent clients into one History. Its
// methods are safe for concurrent use.
type Recorder struct {
	now   func() time.Time
	start time.Time

	mu     sync.Mutex
	nextID int64
	ops    History // Invariant: what was appended is never changed
}

// NewRecorder returns an empty recorder. It reads time from now, which may be
// virtual, and calls it while it holds a lock.
func NewRecorder(now func() time.Time) *Recorder {
	return &Recorder{now: now, start: now()}
}

// Invoke records that an operation is about to start and returns op with ID,
// Type and At set. Call it before the request can leave the client. The
// recorder keeps op.Mops, which the caller must not change afterwards.
func (r *Recorder) Invoke(op Op) Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = r.nextID
	r.nextID++
	return r.appendLocked(op, Invoke)
}

// Complete records how op, returned by Invoke, ended. Call it after the answer
// arrived, with what the answer said in Mops, Saw and Err; for OK of a Send,
// Mops lists the records that were acknowledged, and those left out stay
// unknown. The recorder keeps op.Mops, which the caller must not change
// afterwards. It panics if t is Invoke.
func (r *Recorder) Complete(op Op, t Type) {
	if t != OK && t != Fail && t != Info {
		panic(fmt.Sprintf("history: complete with type %s", t))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.appendLocked(op, t)
}

// Note records something that took no time: op, and at once that it is OK.
func (r *Recorder) Note(op Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.ID = r.nextID
	r.nextID++
	r.appendLocked(op, Invoke)
	r.appendLocked(op, OK)
}

func (r *Recorder) appendLocked(op Op, t Type) Op {
	op.Type = t
	op.At = r.now().Sub(r.start)
	r.ops = append(r.ops, op)
	return op
}

// History returns the events recorded so far. It shares the recorder's memory:
// read it, do not change it. Recording may go on beside it.
func (r *Recorder) History() History {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ops[:len(r.ops):len(r.ops)]
}
