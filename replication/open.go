package replication

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

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
		reserve: r.reserveEntries, held: r.heldEntries, behind: r.fellBehind, goesOn: r.goesOn, contact: r.contact, sound: opt.Sound, install: r.install, withoutVote: r.withoutVote, maxAppendBytes: maxAppendBytes,
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
