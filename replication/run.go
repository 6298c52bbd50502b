package replication

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/control"
)

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
