package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// A replica that is behind its leader's log is offered the leader's newest
// checkpoint, by Raft's InstallSnapshot (R18):
//
//	leader                                   follower
//	   | checkpoint at S, whole                 |
//	   +--------------------------------------->| holds it; takes a checkpoint of
//	   |                 not yet                | its own, and pulls what S needs
//	   |<---------------------------------------+ beside itself
//	   | the same, without its content          |
//	   +--------------------------------------->|
//	   |                 not yet                |
//	   |<---------------------------------------+      ... all is here, and synced
//	   | the same, without its content          |
//	   +--------------------------------------->| Raft restores S
//	   |                 success                |
//	   |<---------------------------------------+
//
// The follower answers at once: a call that waited for the end of a pull would
// hold up the heartbeats behind it, and be ended by any time-out of a transport.
// The leader's side of the call stays open meanwhile, so S is fixed, the next
// entry that the follower is sent is S+1, and Raft's backoff, of up to 10 s, is
// not in the way. Each time it asks, the leader says whether its log still goes on from S.
// If the pull took so long that it does not, the follower asks for a newer checkpoint:
// that pull is smaller, because what is here stays.
//
// Until the follower's next acknowledgement the leader keeps the log for it as it
// does for every voter that lags: half of the ring, in equal shares of its shards.

// CatchUp gets what checkpoints of an FSM need beside themselves. Its methods are
// called by one goroutine at a time.
type CatchUp interface {
	// Pull makes everything local, and durable, that Restore will need of a
	// checkpoint: that of another replica, at an index above what is applied here.
	// The newest checkpoint of this replica covers all that is applied, and
	// nothing is applied meanwhile; if it is after all, ctx ends.
	//
	// What an earlier Pull has made local and durable is not pulled again, also
	// after a restart. After an error the rest is asked for again a little later.
	Pull(ctx context.Context, p Pull) error

	// Settle is called when a checkpoint for which Pull was called is restored. No
	// checkpoint is taken before it returns. An error of Temporary leaves it for
	// the next time, others stop the replica.
	Settle() error

	// Abandon is called when nothing that was pulled is needed any more. An error
	// leaves it behind.
	Abandon() error
}

// Pull says what a CatchUp is to get.
type Pull struct {
	Checkpoint []byte      // the same bytes as Restore will read
	Index      uint64      // of the checkpoint
	Sources    []ReplicaID // who may have it, the leader first
	Round      int         // from 1: how many checkpoints in a row, each newer
}

// CatchUpStatus is where the catch-up of a replica stands.
type CatchUpStatus struct {
	Since time.Time // zero: it does not catch up
	Index uint64    // of the checkpoint that it is to have
	Round int
	Err   error // why the last pull ended early, if it did
}

var (
	// errUnknownOffer is what a follower answers that is asked about a checkpoint
	// that it does not hold: it has started since, or holds a newer one.
	errUnknownOffer = errors.New("replication: this replica does not hold that checkpoint; it is to be sent again")

	// errNewerWanted is what a follower answers that has all of a checkpoint, when
	// the leader's log does not go on from there any more.
	errNewerWanted = errors.New("replication: this replica has caught up to that checkpoint and asks for a newer one")

	// errApplied ends a pull: something is applied here after all.
	errApplied = errors.New("replication: entries are applied again")
)

const (
	// pullRetry is when to try again what could not be pulled: the source is gone,
	// or the disk is full.
	pullRetry = 500 * time.Millisecond
)

// catchUp is a replica's catch-up. The link's goroutine starts and ends it; pull
// does the work.
type catchUp struct {
	active atomic.Bool // held is not nil

	mu       sync.Mutex
	held     *offer // the last checkpoint that was offered
	pulling  bool   // a goroutine is at it
	since    time.Time
	round    int
	err      error
	giveUp   context.CancelFunc // of the pull that runs
	unwanted bool               // something is applied since: nothing of it is needed
}

// offer is a checkpoint that the leader would have installed.
type offer struct {
	index, term uint64
	leader      ReplicaID
	body        []byte
	ready       bool   // everything that it needs is here
	applied     uint64 // when it became so
}

// CatchUp returns where the catch-up of this replica stands.
func (r *Replica[R]) CatchUp() CatchUpStatus {
	c := &r.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return CatchUpStatus{}
	}
	return CatchUpStatus{Since: c.since, Index: c.held.index, Round: c.round, Err: c.err}
}

// pending is the answer to an offer that is held: not yet.
func pending(req *raft.InstallSnapshotRequest) raft.RPCResponse {
	return raft.RPCResponse{Response: &raft.InstallSnapshotResponse{Term: req.Term}}
}

// install answers a checkpoint beyond what is applied here. False says that the
// replica stops.
func (r *Replica[R]) install(rpc raft.RPC, req *raft.InstallSnapshotRequest) (raft.RPCResponse, bool) {
	c := &r.catchUp
	c.mu.Lock()
	held := c.held
	known := held != nil && held.index == req.LastLogIndex && held.term == req.LastLogTerm
	ready := known && held.ready
	c.mu.Unlock()
	switch {
	case ready:
		return r.deliverInstall(rpc, req, held)
	case known:
		return pending(req), true
	case req.Size == 0:
		return raft.RPCResponse{Error: errUnknownOffer}, true
	}
	// It may be older than the one that is held: another replica leads now.
	body, err := bodyOf(rpc.Reader, req.Size)
	if err != nil {
		return raft.RPCResponse{Error: err}, true
	}
	r.hold(&offer{index: req.LastLogIndex, term: req.LastLogTerm, leader: leaderOf(req), body: body})
	return pending(req), true
}

// bodyOf takes a checkpoint as it was announced. It takes memory as it comes.
func bodyOf(from io.Reader, size int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, size+1))
	if err == nil && int64(len(body)) != size {
		err = fmt.Errorf("%d bytes, announced %d", len(body), size)
	}
	if err != nil {
		return nil, fmt.Errorf("replication: checkpoint from the leader: %w", err)
	}
	return body, nil
}

// leaderOf returns who sent an offer, or none.
func leaderOf(req *raft.InstallSnapshotRequest) ReplicaID {
	id, _ := transport.ParseReplicaID(string(req.ID))
	return id
}

// hold makes o what the replica catches up to.
func (r *Replica[R]) hold(o *offer) {
	c := &r.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil && c.giveUp != nil {
		c.giveUp() // what is pulled for the one before may not be what o needs
	}
	if c.held == nil && !c.pulling {
		c.since, c.round = r.opt.Now(), 0
		applied := r.applied.Load()
		r.opt.Log.Info("this replica is behind its leader's log and catches up", "shard", r.opt.Shard, "applied", applied, "checkpoint", o.index, "leader", o.leader)
	}
	c.held, c.err, c.unwanted = o, nil, false
	c.active.Store(true)
	c.round++
	r.startPullLocked()
}

// startPullLocked has the held checkpoint pulled, unless that is under way.
func (r *Replica[R]) startPullLocked() {
	c := &r.catchUp
	if c.pulling || r.stopCtx.Err() != nil {
		return
	}
	c.pulling = true
	r.group.Go(r.pull)
}

// noteApplied ends a catch-up: the leader's log reaches back to here after all.
// It is called when something was applied.
func (r *Replica[R]) noteApplied() {
	c := &r.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return
	}
	c.unwanted = true
	if c.giveUp != nil {
		c.giveUp()
	}
	r.startPullLocked() // which lets go of it
}

// pull makes all that the newest held checkpoint needs local, however often that
// changes meanwhile, and ends when it is there.
func (r *Replica[R]) pull() {
	for r.pullOnce() {
	}
}

// pullOnce tries once, and reports whether there is more to do.
func (r *Replica[R]) pullOnce() (again bool) {
	c := &r.catchUp
	ctx, cancel := context.WithCancel(r.stopCtx)
	defer cancel()
	c.mu.Lock()
	o, round := c.held, c.round
	if ctx.Err() != nil { // what is here is for the next start
		c.pulling = false
		c.mu.Unlock()
		return false
	}
	if o == nil || c.unwanted {
		if c.held != nil && c.unwanted {
			r.opt.Log.Info("this replica follows its leader's log again; what it has pulled is not needed", "shard", r.opt.Shard, "applied", r.applied.Load())
		}
		c.held, c.unwanted = nil, false
		c.active.Store(false)
		c.mu.Unlock()
		r.abandon()
		c.mu.Lock()
		again = c.held != nil && ctx.Err() == nil
		c.pulling = again
		c.mu.Unlock()
		return again
	}
	c.giveUp = cancel
	c.mu.Unlock()

	applied, err := r.pullFor(ctx, o, round)

	c.mu.Lock()
	c.giveUp = nil
	c.err = err
	switch {
	case c.held != o || c.unwanted:
		again = true
	case err == nil:
		o.ready, o.applied = true, applied
		c.pulling = false
	default:
		again = r.stopCtx.Err() == nil
		c.pulling = again
	}
	c.mu.Unlock()
	if err != nil && again && ctx.Err() == nil {
		r.opt.Log.Warn("catching up is held up; trying again", "shard", r.opt.Shard, "checkpoint", o.index, "err", err)
		retry := time.NewTimer(pullRetry)
		defer retry.Stop()
		select {
		case <-retry.C:
		case <-ctx.Done():
		}
	}
	return again
}

// pullFor makes what o needs local. Everything that is applied is in a checkpoint
// first: what is pulled follows on it, after a restart too.
func (r *Replica[R]) pullFor(ctx context.Context, o *offer, round int) (applied uint64, err error) {
	applied = r.applied.Load()
	// Also if there is nothing new: the end of the one that runs is waited for, and
	// of the Settle of the catch-up before.
	if err := r.Checkpoint(); err != nil {
		return 0, err
	}
	if r.applied.Load() != applied || r.durableIndex() != applied {
		return 0, errApplied
	}
	if r.opt.CatchUp == nil {
		return applied, nil
	}
	err = r.opt.CatchUp.Pull(ctx, Pull{Checkpoint: o.body, Index: o.index, Sources: r.sources(o.leader), Round: round})
	return applied, err
}

// sources lists who may have what the leader's checkpoint covers, it first.
func (r *Replica[R]) sources(leader ReplicaID) []ReplicaID {
	ids := []ReplicaID{leader}
	others, _ := r.peers.others()
	for _, id := range others {
		if id != leader {
			ids = append(ids, id)
		}
	}
	return ids
}

func (r *Replica[R]) abandon() {
	if r.opt.CatchUp == nil {
		return
	}
	if err := r.opt.CatchUp.Abandon(); err != nil {
		r.opt.Log.Warn("what was pulled for a catch-up could not be removed; it is with the next one", "shard", r.opt.Shard, "err", err)
	}
}

// deliverInstall has Raft restore a checkpoint that needs nothing more. No other
// checkpoint is taken meanwhile: one that ended later would move Raft's last index
// back (trap 18).
func (r *Replica[R]) deliverInstall(rpc raft.RPC, req *raft.InstallSnapshotRequest, o *offer) (raft.RPCResponse, bool) {
	if len(*outdated(req)) > 0 {
		return raft.RPCResponse{Error: errNewerWanted}, true
	}
	select {
	case r.checkpointing <- struct{}{}:
	default:
		return pending(req), true
	}
	settling := false
	defer func() {
		if !settling {
			<-r.checkpointing
		}
	}()
	if r.applied.Load() != o.applied || !r.drained() {
		r.noteApplied()
		return pending(req), true
	}
	room, err := r.reserveInstall()
	if errors.Is(err, journal.ErrNoSpace) {
		return pending(req), true
	}
	if err != nil {
		return raft.RPCResponse{Error: err}, true
	}
	defer room()
	if done, ok := r.lengthen(req); !ok || !done {
		return pending(req), ok
	}
	if err := r.checkpoints.beginInstall(o.index); err != nil {
		if !Temporary(err) {
			r.fail(err)
		}
		return raft.RPCResponse{Error: err}, true
	}
	begun := r.opt.Now()
	whole := *req
	whole.Size = int64(len(o.body))
	rpc.Command, rpc.Reader = &whole, newBody(o.body)
	answer, ok := r.link.deliver(rpc)
	if !ok {
		return answer, false
	}
	if r.durableIndex() != o.index || r.applied.Load() != o.index {
		// Raft refused it, or the disk had no room: nothing has changed, unless the
		// file has its name already. Then the next start goes on from there.
		if there, err := r.checkpoints.has(o.index); there || err != nil {
			r.fail(errors.Join(fmt.Errorf("the checkpoint at index %d is in place, and could not be restored", o.index), err))
			return answer, true
		}
		if err := r.checkpoints.endInstall(); err != nil && !Temporary(err) {
			r.fail(err)
		}
		return answer, true
	}
	r.caughtUp(begun)
	settling = true
	r.group.Go(func() {
		defer func() { <-r.checkpointing }()
		r.settle()
	})
	return answer, true
}

// lengthen has Raft append an entry if its log ends at the checkpoint's index with
// an entry of another term. Raft takes what it remembers of that entry for the
// checkpoint's, since that is no newer, and would refuse for ever what follows
// (raft.go: getLastEntry). The entry is of the other term, as if its leader, who
// has not committed what is there, had written one more: nobody can have another
// one of that term at that place behind the checkpoint's. Raft drops it when the
// leader's come. It reports whether Raft's log is as it has to be; false for ok
// says that the replica stops.
func (r *Replica[R]) lengthen(req *raft.InstallSnapshotRequest) (done, ok bool) {
	var l raft.Log
	if r.store.log.last() != req.LastLogIndex {
		return true, true
	}
	if err := r.store.log.read(req.LastLogIndex, &l, false); err != nil || l.Term == req.LastLogTerm {
		return err == nil, true
	}
	answer, ok := r.link.deliver(raft.RPC{Command: &raft.AppendEntriesRequest{
		RPCHeader: req.RPCHeader, Term: req.Term, PrevLogEntry: l.Index, PrevLogTerm: l.Term,
		Entries: []*raft.Log{{Index: l.Index + 1, Term: l.Term, Type: raft.LogNoop}},
	}})
	resp, is := answer.Response.(*raft.AppendEntriesResponse)
	return is && answer.Error == nil && resp.Success, ok
}

// caughtUp ends a catch-up that has succeeded.
func (r *Replica[R]) caughtUp(begun time.Time) {
	c := &r.catchUp
	c.mu.Lock()
	defer c.mu.Unlock()
	now := r.opt.Now()
	r.opt.Log.Info("this replica has caught up", "shard", r.opt.Shard, "index", c.held.index, "rounds", c.round,
		"took", now.Sub(c.since), "switch_took", now.Sub(begun))
	c.held, c.unwanted, c.err = nil, false, nil
	c.active.Store(false)
}

// settle makes what the switch has changed durable, before the next checkpoint
// relies on it.
func (r *Replica[R]) settle() {
	err := r.checkpoints.endInstall()
	for err == nil && r.opt.CatchUp != nil {
		if err = r.opt.CatchUp.Settle(); !Temporary(err) {
			break
		}
		retry := time.NewTimer(pullRetry)
		select {
		case <-retry.C:
			err = nil
		case <-r.stopCtx.Done():
			retry.Stop()
			return
		}
	}
	if err != nil && r.stopCtx.Err() == nil {
		r.fail(err)
	}
}

// goesOn reports whether this replica's log has the entry behind index, or will.
func (r *Replica[R]) goesOn(index uint64) bool {
	if first := r.store.log.first(); first > 0 {
		return first <= index+1
	}
	return r.durableIndex() <= index // the log is empty, and goes on from the newest checkpoint
}

// drained reports whether the FSM has all that Raft has taken for committed. The
// link's goroutine has to ask: nothing becomes committed on a follower but by a
// call that it passes on.
func (r *Replica[R]) drained() bool {
	for i := r.applied.Load() + 1; i <= r.raft.AppliedIndex(); i++ {
		var l raft.Log
		if err := r.store.log.read(i, &l, false); err != nil || l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			return false
		}
	}
	return true
}

// reserveInstall makes room for the stub that rebase writes; what it writes again
// it frees before. It never waits, and passes those that do: the entries that this
// log has and that will never be applied may have taken all of its share.
func (r *Replica[R]) reserveInstall() (release func(), err error) {
	if r.journal == nil {
		return func() {}, nil
	}
	room, err := r.opt.Journal.TryReserveUrgent(r.journal, 2*journal.RecordBytes(0, 0)) // lengthen's too
	if err != nil {
		return nil, err
	}
	return room.Release, nil
}
