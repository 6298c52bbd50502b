package replication

import (
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/hashicorp/raft"
)

// fsm is what Raft sees of a replica's FSM.
type fsm[R any] Replica[R]

// ApplyBatch implements raft.BatchingFSM.
func (f *fsm[R]) ApplyBatch(logs []*raft.Log) []any {
	r := (*Replica[R])(f)
	answers := make([]any, len(logs)) // Raft wants one each; nobody reads them
	var done []*entry[R]
	for _, l := range logs {
		var results []R
		var proposed *entry[R] // nil: not by this replica
		switch l.Type {
		case raft.LogCommand:
			var err error
			if results, err = r.opt.FSM.Apply(l.Index, l.Term, l.Data); err != nil {
				r.halt(err)
			}
			proposed = r.takeInFlight(l)
		case raft.LogConfiguration:
			if c, err := decodeConfiguration(l.Data); err == nil {
				r.peers.configure(c, l.Index)
			}
		}
		r.setApplied(l.Index, l.Term) // before who proposed it hears of it, and asks
		if proposed != nil {
			r.answer(proposed, l.Term, results)
			done = append(done, proposed)
		}
	}
	if r.catchUp.active.Load() {
		r.noteApplied()
	}
	r.recent.applied(r.applied.Load())
	if r.journal != nil {
		r.journal.Commit(r.applied.Load())
	}
	r.opt.FSM.AppliedBatch()
	for _, e := range done {
		r.finish(e)
	}
	return answers
}

// takeInFlight returns the entry that l is, if this replica proposed it: Raft
// applies a leader's own entries from the very bytes that it was given.
func (r *Replica[R]) takeInFlight(l *raft.Log) *entry[R] {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, e := range r.inflight {
		if unsafe.SliceData(e.data) == unsafe.SliceData(l.Data) {
			r.inflight = append(r.inflight[:i:i], r.inflight[i+1:]...)
			return e
		}
	}
	return nil
}

func (r *Replica[R]) answer(e *entry[R], term uint64, results []R) {
	if e.start {
		if term == e.term { // else Raft won another term before it took the entry
			r.begin(term)
		}
		return
	}
	for i, p := range e.proposals {
		p.Done(results[i], nil)
	}
}

// begin serves as the leader of term, unless that is over already.
func (r *Replica[R]) begin(term uint64) {
	r.mu.Lock()
	current := r.term == term && r.stopCtx.Err() == nil
	if current {
		r.ready.Store(term)
		r.proposer.setOpen(true)
		r.endOpeningLocked()
	}
	r.mu.Unlock()
	if current {
		r.opt.OnLeading()
	}
}

// Apply implements raft.FSM; Raft calls ApplyBatch instead.
func (f *fsm[R]) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// Restore implements raft.FSM: at the start, and when the checkpoint of another
// replica is installed, which is durable then. Raft would go on after an error.
func (f *fsm[R]) Restore(checkpoint io.ReadCloser) error {
	defer checkpoint.Close()
	r := (*Replica[R])(f)
	err := r.opt.FSM.Restore(checkpoint)
	if !r.started.Load() {
		if err != nil {
			r.restore.Store(&err)
		}
		return err
	}
	if err == nil {
		err = r.installed()
	}
	if err != nil {
		r.halt(fmt.Errorf("replication: install of the leader's checkpoint: %w", err))
	}
	r.opt.FSM.AppliedBatch()
	return nil
}

// Snapshot implements raft.FSM.
func (f *fsm[R]) Snapshot() (raft.FSMSnapshot, error) {
	r := (*Replica[R])(f)
	c, err := r.opt.FSM.Capture()
	if err != nil {
		return nil, err
	}
	w, can := c.(WholeCapture)
	r.checkpoints.whole = can && w.Whole()
	return &fsmSnapshot{capture: c, fail: r.fail, gaveUp: &r.gaveUp}, nil
}

// fsmSnapshot is a Capture as Raft sees it.
type fsmSnapshot struct {
	capture Capture
	fail    func(error)
	gaveUp  *atomic.Pointer[error]
	durable bool
}

// Persist implements raft.FSMSnapshot. It closes the sink, so that Release
// knows whether the checkpoint became durable. On a full disk, or with too many
// open files, the checkpoint is given up, and the next one covers it; any other
// error is final (R9).
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	err := s.capture.Persist(sink)
	if err == nil {
		err = sink.Close()
	}
	s.durable = err == nil
	switch {
	case Temporary(err):
		s.gaveUp.Store(&err) // Raft's own error does not wrap it
	case err != nil:
		s.fail(err)
	}
	return err
}

// Release implements raft.FSMSnapshot.
func (s *fsmSnapshot) Release() {
	if s.durable {
		s.capture.Durable()
	} else {
		s.capture.Abandon()
	}
}

var _ raft.BatchingFSM = (*fsm[int])(nil)
