package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
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

	// Sound returns why this replica's state is not what its entries say, if so: its
	// checkpoints are not given to other replicas then. Nil: it always is.
	Sound func() error

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
// leader that hears nothing from a majority for electionTimeout leads no more.
const (
	electionTimeout = time.Second
	commitTimeout   = 100 * time.Millisecond
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

// Start opens the replica's state and starts Raft: Open and Run. The replica
// owns opt.Transport from then on, also if Start fails.
func Start[R any](opt Options[R]) (*Replica[R], error) {
	r, err := Open(opt)
	if err != nil {
		return nil, err
	}
	return r, r.Run()
}

// Open opens the replica's state, and refuses what does not belong together: a
// log or a vote that is older than the checkpoint or each other. It writes
// nothing. A node opens all of its replicas before it runs the first, so that a
// start that is refused changes nothing. Run follows, and nothing else.
func Open[R any](opt Options[R]) (*Replica[R], error) {
	setDefault(&opt.MaxEntryBytes, 1<<20)
	setDefault(&opt.MaxCommands, 4096)
	setDefault(&opt.MaxInFlight, 4)
	opt.MaxInFlight = min(opt.MaxInFlight, maxAppendEntries/2)
	if opt.Journal != nil {
		// An entry is one record of the journal.
		opt.MaxEntryBytes = min(opt.MaxEntryBytes, int(opt.Journal.MaxRecordBytes()))
	}
	checkpoints, err := OpenCheckpoints(opt.FS, opt.CheckpointDir, opt.Shard, opt.ID, opt.Fold)
	if err != nil {
		return nil, errors.Join(err, opt.Transport.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Replica[R]{
		opt:         opt,
		checkpoints: checkpoints,
		proposer:    newProposer[R](opt.MaxEntryBytes-opt.EntryOverheadBytes, opt.MaxCommands),
		notify:      make(chan bool, 16),
		slots:       make(chan struct{}, opt.MaxInFlight),
		released:    make(chan struct{}),

		checkpointing: make(chan struct{}, 1),
		turn:          make(chan struct{}, 1),
		changing:      make(chan struct{}, 1),
		peers:         newPeers(opt.ID),
		stopCtx:       ctx,
		stop:          cancel,
	}
	checkpoints.fail = r.fail
	if opt.Journal != nil {
		r.journal = opt.Journal.Shard(journal.ShardID(opt.Shard), opt.ID.Incarnation)
	}
	r.recent = &recentLog{entryLog: r.entryLog(), limit: maxRecentBytes, keep: r.peers.keepFrom}
	r.store = &logStore{
		log: r.recent, applied: r.applied.Load, durable: r.durableIndex, droppable: r.droppable,
		fail: r.fail, halt: r.halt, noRoom: r.noRoom, started: &r.started, strokes: &r.strokes,
	}
	r.link = &link{
		Transport: opt.Transport, rpc: make(chan raft.RPC), stop: ctx.Done(), peers: r.peers,
		started: &r.started, applied: r.lastApplied, term: r.currentTerm, follows: r.follows,
		reserve: r.reserveEntries, held: r.heldEntries, behind: r.fellBehind, sound: opt.Sound, install: r.install, withoutVote: r.withoutVote, maxAppendBytes: maxAppendBytes,
	}
	if opt.Journal != nil {
		// A follower takes as much at once as a leader does.
		r.link.maxAppendBytes = min(maxAppendBytes, opt.Journal.MaxRecordBytes())
	}
	opt.Transport.Handle(transport.Handler{Probed: r.currentTerm, Appended: r.appended})
	if err := r.checkLog(); err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("replication: shard %d: %w", opt.Shard, err), opt.Transport.Close())
	}
	return r, nil
}

// Compact lets go of what the newest checkpoint covers in the journal: it is
// back after a crash. It writes nothing, and is for between Open and Run of a
// data shard.
func (r *Replica[R]) Compact() {
	if r.journal == nil || r.durableIndex() == 0 || r.checkpoints.resuming() {
		return // an install that was cut short first needs what the log holds
	}
	r.peers.configure(r.checkpoints.configuration())
	r.journal.Compact(r.droppable(r.durableIndex()))
}

// Run starts Raft. A replica whose log is empty and that is among
// Options.Bootstrap begins with that configuration. After an error the replica
// is not to be used.
func (r *Replica[R]) Run() error {
	opt := &r.opt
	if err := r.startRaft(); err != nil {
		r.stop()
		return errors.Join(fmt.Errorf("replication: shard %d: %w", opt.Shard, err), opt.Transport.Close())
	}
	r.group.Go(r.link.pump)
	r.group.Go(r.watch)
	r.group.Go(r.propose)
	r.group.Go(r.proposeUrgent)
	if r.alone() {
		// One voter need not wait for a silence that nobody could break.
		r.campaign()
	}
	return nil
}

func setDefault(v *int, to int) {
	if *v == 0 {
		*v = to
	}
}

func (r *Replica[R]) entryLog() entryLog {
	if r.opt.Control != nil {
		return &controlLog{r.opt.Control}
	}
	return &journalLog{r.journal}
}

func (r *Replica[R]) durableIndex() uint64 {
	index, _ := r.checkpoints.Newest()
	return index
}

func (r *Replica[R]) startRaft() (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case startHalt:
			err = p.err
		default:
			panic(p)
		}
	}()
	opt := &r.opt
	vote, _ := opt.Votes.Load(uint32(opt.Shard))
	vote.Incarnation = opt.ID.Incarnation
	stable := newVotes(opt.Votes, opt.Shard, vote, r.halt)
	stable.patiently = r.store.write

	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(opt.ID.String())
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = electionTimeout, electionTimeout, electionTimeout
	cfg.CommitTimeout = commitTimeout
	cfg.MaxAppendEntries = maxAppendEntries
	cfg.BatchApplyCh = true
	cfg.TrailingLogs = 1 // so a DeleteRange up to the last index is always a truncation
	cfg.SnapshotInterval, cfg.SnapshotThreshold = 10000*time.Hour, never
	cfg.NoLegacyTelemetry = true
	cfg.NotifyCh = r.notify
	cfg.Logger = raftLogger(opt.Log)

	if err := r.bootstrap(stable); err != nil {
		return err
	}
	if err := r.resumeInstall(); err != nil {
		return err
	}
	// Raft restores only what List shows; a replica without a checkpoint starts
	// from an empty one.
	if r.durableIndex() == 0 {
		if err := opt.FSM.Restore(emptyReader{}); err != nil {
			return err
		}
	} else {
		r.peers.configure(r.checkpoints.configuration())
		// What a compaction dropped may be back after a crash.
		if err := r.store.log.compact(r.droppable(r.durableIndex())); err != nil && !errors.Is(err, control.ErrNoRoom) {
			return err
		}
		if r.journal != nil {
			r.journal.Commit(r.durableIndex()) // what stays of it for others waits for nothing
		}
	}
	r.setApplied(r.checkpoints.Newest())
	r.raft, err = raft.NewRaft(cfg, (*fsm[R])(r), r.store, stable, r.checkpoints, r.link)
	if err != nil {
		if cause := r.restore.Load(); cause != nil {
			err = fmt.Errorf("%w: %w", err, *cause)
		}
		return err
	}
	r.running.Store(r.raft)
	r.peers.assume(r.latest())
	return nil
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

// checkLog refuses a log that does not continue the newest checkpoint. A
// compaction leaves the last entry at least, so the log was lost, or is another
// replica's or an older one's: offsets that were given out would be given again
// (R11). Only while a checkpoint of another replica is installed the log may be
// the one before: see rebase. It refuses a vote from before the newest entry for the same reason:
// Raft makes a term durable before it stores an entry of it, and would go on in
// a term below that of what it has.
func (r *Replica[R]) checkLog() error {
	index, term := r.checkpoints.Newest()
	first, last := r.store.log.first(), r.store.log.last()
	if !(last == 0 && index == 0 || last != 0 && first <= index+1 && index <= last || r.checkpoints.resuming()) {
		return fmt.Errorf("%w: replica %s has a checkpoint at index %d in %s, and its log in %s holds [%d, %d]; see flotilla check",
			ErrLostLog, r.opt.ID, index, r.opt.CheckpointDir, r.store.log.dir(), first, last)
	}
	if last != 0 {
		var l raft.Log
		if err := r.store.log.read(last, &l, false); err != nil {
			return err
		}
		term = max(term, l.Term)
	}
	if vote, _ := r.opt.Votes.Load(uint32(r.opt.Shard)); vote.Term < term {
		return fmt.Errorf("%w: replica %s is in term %d by %s, and has stored what was written in term %d; see flotilla check",
			ErrOldVote, r.opt.ID, vote.Term, r.opt.Votes.Dir(), term)
	}
	return nil
}

// bootstrap writes the shard's first configuration, unless there is a log, or
// this replica is not in it: a new incarnation never bootstraps (R11). It
// does what raft.BootstrapCluster does, but may be repeated after a crash
// between its two writes.
func (r *Replica[R]) bootstrap(stable *votes) error {
	if !slices.Contains(r.opt.Bootstrap, r.opt.ID) || r.store.log.last() != 0 || r.durableIndex() != 0 {
		return nil
	}
	if stable.vote.Term > 1 {
		return fmt.Errorf("%w: replica %s voted in term %d and has no entries", ErrLostLog, r.opt.ID, stable.vote.Term)
	}
	var cfg raft.Configuration
	for _, id := range r.opt.Bootstrap {
		cfg.Servers = append(cfg.Servers, serverOf(id, raft.Voter))
	}
	if err := stable.SetUint64([]byte(keyTerm), 1); err != nil {
		return err
	}
	return r.store.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(cfg)})
}

// alone reports whether this replica is the only voter.
func (r *Replica[R]) alone() bool {
	s := r.latest().Servers
	return len(s) == 1 && s[0].ID == raft.ServerID(r.opt.ID.String())
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, io.EOF }

// fail stops the replica for good.
func (r *Replica[R]) fail(err error) {
	r.failOnce.Do(func() {
		err = fmt.Errorf("replication: shard %d: %w", r.opt.Shard, err)
		r.failed.Store(&err)
		r.stop()
		go func() {
			r.lose(0) // nobody waits for what will not be answered
			r.opt.OnFailed(err)
		}()
	})
}

// startHalt is what halt panics with while NewRaft runs.
type startHalt struct{ err error }

// halt is fail for Raft's own goroutines, which would panic on the error, or go
// on as if nothing had happened. It does not return: the goroutine is held
// until Close and then ends, so that Raft does nothing more with what failed.
func (r *Replica[R]) halt(err error) {
	if !r.started.Load() {
		panic(startHalt{err})
	}
	r.fail(err)
	<-r.released
	runtime.Goexit()
}

// Failed returns the error that stopped the replica, the one that OnFailed is
// told, or nil.
func (r *Replica[R]) Failed() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// noRoomRetry is when to ask a full disk again for room in a control log.
const noRoomRetry = time.Second

// noRoom waits before what a control log had no room for is tried again. It is
// for Raft's own goroutines, and does not return once the replica stops: see
// halt.
func (r *Replica[R]) noRoom(err error) {
	r.opt.Log.Warn("the disk has no room for a vote or for metadata; waiting for some", "shard", r.opt.Shard, "err", err)
	retry := time.NewTimer(noRoomRetry)
	defer retry.Stop()
	select {
	case <-retry.C:
	case <-r.stopCtx.Done():
		<-r.released
		runtime.Goexit()
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
		p.bytes = max(len(p.Payload)+p.CommandBytes+r.opt.CommandOverheadBytes, 1) // 0 is a cancelled one's
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
	if !r.proposeInline() {
		signal(r.proposer.wake)
	}
	return nil
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

// Interrupt answers everything that waits or is in flight, and refuses what
// comes. Close follows.
func (r *Replica[R]) Interrupt() {
	r.mu.Lock()
	r.stop() // under mu: see Checkpoint
	r.mu.Unlock()
	r.lose(0)
}

// Close stops the replica and waits for its goroutines. What was proposed and
// not applied is answered with ErrOutcomeUnknown.
func (r *Replica[R]) Close() error {
	r.closing.Do(func() {
		r.Interrupt()
		if r.raft == nil { // never ran
			_ = r.opt.Transport.Close()
			return
		}
		f := r.raft.Shutdown()
		_ = r.opt.Transport.Close() // Raft waits for its calls
		close(r.released)
		_ = f.Error() // never set
		r.group.Wait()
		r.lose(0)
	})
	return nil
}
