package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// Options configures one replica.
type Options[R any] struct {
	Shard ShardID
	ID    ReplicaID
	FSM   FSM[R]
	Now   func() time.Time // wall clock of the entries' headers
	Log   *slog.Logger

	// Where the replica keeps its log: Journal for a data shard, Control for
	// the metadata shard. Exactly one is set. All are open, and stay open until
	// Close has returned.
	Journal *journal.Journal
	Control *control.Log
	Votes   *control.Votes

	FS            vfs.FS
	CheckpointDir string
	KeepFreeBytes int64                                        // what a checkpoint leaves free on the disk
	Fold          func(dst io.Writer, srcs ...io.Reader) error // see OpenCheckpoints

	Transport Transport

	// Sound returns why the checkpoint of this replica's at an index, or what it holds by
	// now, is not what its entries say, if so: it is not given to other replicas then.
	// Nil: it always is.
	Sound func(index uint64) error

	// CatchUp gets what a checkpoint of another replica needs beside itself; nil:
	// checkpoints hold everything.
	CatchUp CatchUp

	// Bootstrap lists the shard's first voters, the same on each of them. A
	// replica that is among them and has no log yet begins with that
	// configuration; another waits until it is made a member (R11).
	Bootstrap []ReplicaID

	// Encode lays out one entry of commands decided in term, at wallMS by the
	// leader's clock. The entry is at most EntryOverheadBytes, and for each
	// proposal CommandOverheadBytes, its CommandBytes and its payload, long.
	Encode               func(term uint64, wallMS int64, ps []*Proposal[R]) []byte
	EntryOverheadBytes   int
	CommandOverheadBytes int
	TermStart            any // Command of the proposal that opens a term (R16, R19)

	MaxEntryBytes int // gathered in one entry; default 1 MiB
	MaxCommands   int // in one entry; default 4096
	MaxInFlight   int // entries proposed and not applied; default 4, at most 128

	// OnFailed is told the error that stopped the replica, once, from a
	// goroutine of its own.
	OnFailed func(error)
	// OnLeading is told after each change of Leading. It must not block.
	OnLeading func()
}

// Raft's timers. A single voter campaigns at once and never waits for them. A
// leader that hears nothing from a majority for electionTimeout leads no more; or a
// little later, see heartbeatAfter.
const (
	electionTimeout = time.Second
	// commitTimeout, or up to twice that, is after how long without anything else to
	// send a follower is told what is committed. One whose journal is full makes room by
	// that, so it bounds what a shard with a full ring takes.
	commitTimeout = 100 * time.Millisecond
	// heartbeatAfter is how long a follower's answer to what its log is sent stands for
	// those to heartbeats too, which Raft sends beside that: of a shard with nothing to
	// do, half of the messages and more.
	heartbeatAfter = 2 * commitTimeout
	// maxAppendEntries is more than MaxInFlight entries and what Raft adds: a
	// burst above it would wait for CommitTimeout, piece by piece.
	maxAppendEntries = 256
	never            = 1 << 62
)

// Replica is one node's copy of a shard. All methods are safe for concurrent
// use.
type Replica[R any] struct {
	opt         Options[R]
	raft        *raft.Raft
	checkpoints *Checkpoints
	journal     *journal.Shard // nil for the metadata shard
	store       *logStore
	recent      *recentLog // of store
	link        *link
	peers       *peers
	confirmer   confirmer
	catchUp     catchUp
	proposer    *proposer[R]
	notify      chan bool     // Raft's leadership changes
	slots       chan struct{} // holds one token per entry in flight

	checkpointing chan struct{} // 1-buffered: held by the Checkpoint or the install under way
	turn          chan struct{} // 1-buffered: held while entries are handed to Raft, or the leadership to another
	changing      chan struct{} // 1-buffered: held by the change of members under way
	running       atomic.Pointer[raft.Raft]

	appliedMu   sync.Mutex
	appliedTerm uint64 // guarded by appliedMu, under which applied is written: of the entry at applied

	gathering sync.Mutex // held from a gather until the entry is handed to Raft: keeps their order

	mu       sync.Mutex  // taken before proposer.mu
	term     uint64      // guarded by mu: the term that this replica leads, or 0
	inflight []*entry[R] // guarded by mu: in the order of proposing
	granted  grant       // guarded by mu: see Grant

	opening chan struct{} // guarded by mu: closed when it is known whether term is served; nil: it is, or term is 0

	ready     atomic.Uint64 // written under mu: the term whose TermStart is applied while it leads, or 0
	applied   atomic.Uint64
	strokes   strokes
	successor atomic.Pointer[successor] // see Deposed; nil: none

	gaveUp   atomic.Pointer[error] // of the checkpoint under way; see Temporary
	restore  atomic.Pointer[error] // why the FSM refused a checkpoint: Raft only logs it
	started  atomic.Bool           // Raft's goroutines may run
	failOnce sync.Once
	failed   atomic.Pointer[error] // what stopped the replica
	released chan struct{}         // closed when a halted goroutine may end
	stopCtx  context.Context
	stop     context.CancelFunc
	group    sync.WaitGroup
	closing  sync.Once
}

// entry is one Raft entry between Propose and Done.
type entry[R any] struct {
	data      []byte
	proposals []*Proposal[R]
	term      uint64
	start     bool          // holds a TermStart, no proposals
	release   func()        // gives back its room in the journal; nil: none was reserved
	slots     chan struct{} // holds its token; nil: none
}

func (r *Replica[R]) durableIndex() uint64 {
	index, _ := r.checkpoints.Newest()
	return index
}

// setApplied notes the last applied entry.
func (r *Replica[R]) setApplied(index, term uint64) {
	r.appliedMu.Lock()
	defer r.appliedMu.Unlock()
	r.applied.Store(index)
	r.appliedTerm = term
}

func (r *Replica[R]) lastApplied() (index, term uint64) {
	r.appliedMu.Lock()
	defer r.appliedMu.Unlock()
	return r.applied.Load(), r.appliedTerm
}

// currentTerm returns Raft's term, 0 before it runs. A vote is given only in a
// term that this returns already.
func (r *Replica[R]) currentTerm() uint64 {
	if running := r.running.Load(); running != nil {
		return running.CurrentTerm()
	}
	return 0
}

// fellBehind notes that a member needs more than this log holds.
func (r *Replica[R]) fellBehind(to raft.ServerID, index uint64) {
	if id, err := transport.ParseReplicaID(string(to)); err == nil && r.peers.lags(id, index) {
		r.opt.Log.Warn("a replica needs to catch up: the log does not reach back to what it has; it takes no part until then",
			"shard", r.opt.Shard, "replica", id, "log_begins_after", index)
	}
}

// Leading returns the term in which this replica serves as leader: its own
// TermStart is applied (R19), and so is everything before it. 0 if it does not.
func (r *Replica[R]) Leading() uint64 { return r.ready.Load() }

// Opening returns, if this replica was elected and its TermStart is not applied yet,
// a channel that is closed once it serves as leader or the term is over; else nil.
// In that time the others name it as the leader, and it serves nobody.
func (r *Replica[R]) Opening() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opening
}

// endOpeningLocked wakes who waits for Opening. The caller holds r.mu.
func (r *Replica[R]) endOpeningLocked() {
	if r.opening != nil {
		close(r.opening)
		r.opening = nil
	}
}

// WaitLeading waits until this replica leads and is ready, and returns the
// term. It polls, and is meant for a node's start.
func (r *Replica[R]) WaitLeading(stop <-chan struct{}) uint64 {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if term := r.ready.Load(); term != 0 {
			return term
		}
		select {
		case <-tick.C:
		case <-stop:
			return 0
		case <-r.stopCtx.Done():
			return 0
		}
	}
}

// Leader returns who leads the shard, as far as this replica knows.
func (r *Replica[R]) Leader() (ReplicaID, bool) {
	if s := r.successor.Load(); s != nil && r.currentTerm() < s.term {
		return s.id, true
	}
	_, id := r.raft.LeaderWithID()
	leader, err := transport.ParseReplicaID(string(id))
	return leader, err == nil
}

// Term returns the newest term that this replica knows.
func (r *Replica[R]) Term() uint64 { return r.currentTerm() }

// Applied returns the index of the last applied entry.
func (r *Replica[R]) Applied() uint64 { return r.applied.Load() }

// Checkpointed returns the index that the newest durable checkpoint covers.
func (r *Replica[R]) Checkpointed() uint64 { return r.durableIndex() }

// Propose queues ps, all or none, and returns at once. Each is proposed in the
// order of its queue, and answered by its Done. It returns ErrNotLeader,
// ErrTooLarge or ErrStopped, and then no Done is called.
func (r *Replica[R]) Propose(ps ...*Proposal[R]) error {
	for _, p := range ps {
		p.bytes = r.bytesOf(p, p.CommandBytes)
		if most := r.maxProposalBytes(); p.bytes > most {
			return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, p.bytes, most)
		}
	}
	if r.stopCtx.Err() != nil {
		return ErrStopped
	}
	if err := r.proposer.push(ps); err != nil {
		return err
	}
	if !r.proposeInline() && r.proposer.waiting() > 0 {
		signal(r.proposer.wake)
	}
	return nil
}

// bytesOf returns what p takes in an entry with a command of so many bytes.
func (r *Replica[R]) bytesOf(p *Proposal[R], commandBytes int) int {
	return max(len(p.Payload)+commandBytes+r.opt.CommandOverheadBytes, 1) // 0 is a cancelled one's
}

// maxProposalBytes is a quarter of a journal file: a record never spans two.
func (r *Replica[R]) maxProposalBytes() int {
	if r.opt.Journal == nil {
		return r.opt.MaxEntryBytes
	}
	return int(r.opt.Journal.MaxRecordBytes()) - r.opt.EntryOverheadBytes
}

// Cancel takes back a proposal that was not proposed yet, and reports whether
// it could: then Done is not called.
func (r *Replica[R]) Cancel(p *Proposal[R]) bool { return r.proposer.cancel(p) }

// Waits reports whether a proposal was not proposed yet, nor answered or cancelled. It is
// a hint: the next moment it may be.
func (r *Replica[R]) Waits(p *Proposal[R]) bool { return r.proposer.waits(p) }

// Amend gives a proposal that was not proposed yet another command, and reports
// whether it could: else the command of before is proposed, or was, or never will be.
// It keeps its place. It could not, either, if it would be too large with that.
func (r *Replica[R]) Amend(p *Proposal[R], command any, commandBytes int) bool {
	bytes := r.bytesOf(p, commandBytes)
	return bytes <= r.maxProposalBytes() && r.proposer.amend(p, command, commandBytes, bytes)
}

// Checkpoint takes a checkpoint and, when it is durable, lets go of the log up
// to it. Nothing new since the last one is not an error. A full disk is an error
// of Temporary, after which the checkpoint before holds. A replica that stops
// meanwhile answers ErrStopped at once.
func (r *Replica[R]) Checkpoint() error {
	select {
	case r.checkpointing <- struct{}{}: // one at a time: the second finds nothing new
		defer func() { <-r.checkpointing }()
	case <-r.stopCtx.Done():
		return ErrStopped
	}
	if r.applied.Load() == r.durableIndex() {
		return r.Trim()
	}
	done := make(chan error, 1)
	r.gaveUp.Store(nil)
	r.mu.Lock()
	stopped := r.stopCtx.Err() != nil
	if !stopped {
		// A replica that failed holds goroutines of Raft's until Close, which
		// ends this one as well.
		r.group.Go(func() { done <- r.raft.Snapshot().Error() })
	}
	r.mu.Unlock()
	if stopped {
		return ErrStopped
	}
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			if cause := r.gaveUp.Load(); cause != nil {
				err = *cause
			}
			return fmt.Errorf("replication: shard %d: checkpoint: %w", r.opt.Shard, err)
		}
		return nil
	case <-r.stopCtx.Done():
		return ErrStopped
	}
}
