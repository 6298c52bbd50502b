package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication/transport"
)

var (
	// errNoRoom is what a follower answers whose journal has no room for the
	// entries just now. The leader tries again.
	errNoRoom = errors.New("replication: no room in the follower's journal for now")

	// errStillBehind is what Raft is told of a follower that has not caught up
	// when there is no more use in waiting. Raft tries again.
	errStillBehind = errors.New("replication: the replica has not caught up yet")
)

// errCampaigned answers who tells a replica to campaign that has done it.
var errCampaigned = errors.New("replication: the replica leads or campaigns already")

// maxAppendBytes bounds the entries of one AppendEntries, or a single larger
// one. Raft counts entries only.
const maxAppendBytes = 8 << 20

// link is a replica's Transport as its Raft sees it. On the way out it keeps
// requests small, tells followers what they may drop, and sends no heartbeat to who has
// just answered something else; on the way in it does
// what Raft leaves undone before Raft sees a request:
//   - room in the journal is reserved, and given back with the answer (R6);
//   - entries that are applied already are trimmed (R18), so that none of them
//     is looked up in a log that was compacted since;
//   - the commit index is clamped to what the request itself shows to be the
//     leader's: Raft would commit up to the follower's own last index, with
//     whatever another leader has left there;
//   - a checkpoint is one of what is here already, or the beginning of a
//     catch-up (R18);
//   - who leads or campaigns already is not told to campaign: a TimeoutNow that
//     came twice, or late, would depose the leader that the first one made;
//   - a replica without a configuration gives no vote, and one without a vote does
//     not campaign when it is told to (R11).
//
// Requests pass one at a time, as Raft takes them.
type link struct {
	Transport
	rpc   chan raft.RPC
	stop  <-chan struct{}
	peers *peers

	started *atomic.Bool
	applied func() (index, term uint64)
	term    func() uint64
	follows func() bool // Raft neither leads nor campaigns
	reserve func(entries []*raft.Log, unproven bool) (release func(), err error)
	held    func(entries []*raft.Log) int            // how many of them, from the first on, the log holds
	behind  func(to raft.ServerID, index uint64)     // told of a peer that needs a checkpoint
	goesOn  func(index uint64) bool                  // whether the log reaches back to the entry behind index
	contact func(of raft.ServerID, term uint64) bool // whether it has answered just now: see heartbeatAfter
	sound   func(index uint64) error                 // why the checkpoint at index is not to be given away; nil: it may

	// install answers a checkpoint beyond what is applied.
	install func(rpc raft.RPC, req *raft.InstallSnapshotRequest) (raft.RPCResponse, bool)

	// withoutVote answers what Raft must not be asked here.
	withoutVote func(rpc raft.RPC) (answer raft.RPCResponse, answered bool)

	maxAppendBytes int64
}

// Consumer implements raft.Transport.
func (l *link) Consumer() <-chan raft.RPC { return l.rpc }

// SetHeartbeatHandler implements raft.Transport. NewRaft calls it when it has
// looked through the log, and before it starts a goroutine.
func (l *link) SetHeartbeatHandler(func(raft.RPC)) { l.started.Store(true) }

// AppendEntries implements raft.Transport. That a heartbeat is answered from what is
// known makes Raft's contact with the follower younger than it is, by heartbeatAfter at
// the most. Only the leader's lease hangs on that, and nothing on the lease (R19).
func (l *link) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(req) && l.contact(id, req.Term) {
		*resp = raft.AppendEntriesResponse{Term: req.Term, Success: true}
		return nil
	}
	return l.Transport.AppendEntries(id, addr, l.outgoing(req), resp)
}

// AppendEntriesPipeline implements raft.Transport.
func (l *link) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := l.Transport.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	return linkPipeline{p, l}, nil
}

type linkPipeline struct {
	raft.AppendPipeline
	l *link
}

// AppendEntries implements raft.AppendPipeline.
func (p linkPipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	return p.AppendPipeline.AppendEntries(p.l.outgoing(req), resp)
}

// outgoing cuts req down to maxAppendBytes, in place: Raft looks afterwards at
// how many entries its request holds, and sends the rest. What it returns is to
// be sent: a copy that says what the follower may drop of its log.
func (l *link) outgoing(req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	bytes := int64(0)
	for i, e := range req.Entries {
		if bytes += int64(len(e.Data) + len(e.Extensions)); bytes > l.maxAppendBytes && i > 0 {
			req.Entries = req.Entries[:i]
			break
		}
	}
	out := *req
	*hint(&out) = binary.LittleEndian.AppendUint64(nil, l.peers.retain(req.Term))
	return &out
}

// isHeartbeat reports whether Raft sends req beside what it sends of the log: it says
// nothing of that.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.LeaderCommitIndex == 0 && len(req.Entries) == 0
}

// hint is where a request says what the follower may drop of its log, 8 bytes,
// or nothing: the field Leader, which Raft neither sets nor reads since requests
// carry their sender's address in the header.
func hint(req *raft.AppendEntriesRequest) *[]byte {
	//lint:ignore SA1019 that Raft has no more use for it is why it is free for this
	return &req.Leader
}

// outdated is where a leader that asks about a checkpoint says that its log does not
// go on from there any more, with a byte, or nothing: the field Peers, which Raft reads
// only in requests that have no configuration.
func outdated(req *raft.InstallSnapshotRequest) *[]byte {
	return &req.Peers
}

func setOutdated(req *raft.InstallSnapshotRequest, is bool) {
	if *outdated(req) = nil; is {
		*outdated(req) = []byte{1}
	}
}

const (
	// pollInterval is how often a follower that catches up is asked whether it has.
	pollInterval = 200 * time.Millisecond

	// maxMissedPolls is after how many calls without an answer a follower that was
	// catching up counts as gone.
	maxMissedPolls = 20
)

// errUnsound reports a leader whose checkpoint must not go to others.
var errUnsound = errors.New("replication: this replica's checkpoints are given to nobody")

// InstallSnapshot implements raft.Transport. It ends when the follower has caught
// up to that checkpoint, and early if it answers no more, if it refuses, or if
// this replica leads no more: see catchUp. The content goes out once.
func (l *link) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if l.sound != nil {
		// A replica that is not sound now may have been so when the checkpoint was taken,
		// and the other way round.
		if err := l.sound(req.LastLogIndex); err != nil {
			l.behind(id, req.LastLogIndex)
			return fmt.Errorf("%w: %w", errUnsound, err)
		}
	}
	err := l.Transport.InstallSnapshot(id, addr, req, resp, data)
	if err == nil && resp.Success {
		return nil
	}
	l.behind(id, req.LastLogIndex)
	poll := *req
	poll.Size = 0
	for missed := 0; ; {
		switch {
		case err == nil && (resp.Success || resp.Term > req.Term):
			return nil
		case err == nil:
			missed = 0
		case errors.Is(err, transport.ErrTimeout) || errors.Is(err, transport.ErrUnreachable) || errors.Is(err, transport.ErrBroken):
			if missed++; missed >= maxMissedPolls {
				return err
			}
		default:
			return err
		}
		if !l.wait(pollInterval) || l.term() != req.Term {
			return errStillBehind
		}
		*resp = raft.InstallSnapshotResponse{}
		setOutdated(&poll, !l.goesOn(req.LastLogIndex))
		err = l.Transport.InstallSnapshot(id, addr, &poll, resp, strings.NewReader(""))
	}
}

// wait lets time pass, and reports whether the replica still runs.
func (l *link) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stop:
		return false
	}
}

// pump passes what comes in on to Raft, for as long as the replica runs.
func (l *link) pump() {
	for {
		select {
		case rpc := <-l.Transport.Consumer():
			if answer, ok := l.incoming(rpc); ok {
				rpc.RespChan <- answer
			}
		case <-l.stop:
			return
		}
	}
}

// incoming answers one request; false says that the replica stops.
func (l *link) incoming(rpc raft.RPC) (raft.RPCResponse, bool) {
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		if keep := *hint(req); len(keep) == 8 {
			l.peers.told(req.Term, binary.LittleEndian.Uint64(keep))
		}
		l.trim(req)
		release, err := l.reserve(req.Entries, l.unproven(req))
		if err != nil {
			return l.withHeld(rpc, req, err)
		}
		defer release()
		unshare(req.Entries)
	case *raft.InstallSnapshotRequest:
		return l.installed(rpc, req)
	case *raft.TimeoutNowRequest:
		if answer, answered := l.withoutVote(rpc); answered {
			return answer, true
		}
		if !l.follows() {
			return raft.RPCResponse{Error: errCampaigned}, true
		}
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		if answer, answered := l.withoutVote(rpc); answered {
			return answer, true
		}
	}
	return l.deliver(rpc)
}

// withHeld delivers a request for whose entries there is no room with those of them
// alone that are here already, so that the follower learns what is committed: that
// is what lets it make room. The leader is told that the entries were not taken.
func (l *link) withHeld(rpc raft.RPC, req *raft.AppendEntriesRequest, full error) (raft.RPCResponse, bool) {
	bare := *req
	bare.Entries = req.Entries[:l.held(req.Entries)]
	bare.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(bare.Entries)))
	rpc.Command = &bare
	answer, ok := l.deliver(rpc)
	if resp, is := answer.Response.(*raft.AppendEntriesResponse); ok && is && answer.Error == nil && resp.Success {
		answer = raft.RPCResponse{Error: full}
	}
	return answer, ok
}

// deliver hands a request to Raft and waits for the answer.
func (l *link) deliver(rpc raft.RPC) (raft.RPCResponse, bool) {
	answers := make(chan raft.RPCResponse, 1)
	rpc.RespChan = answers
	select {
	case l.rpc <- rpc:
	case <-l.stop:
		return raft.RPCResponse{}, false
	}
	select {
	case a := <-answers:
		return a, true
	case <-l.stop:
		return raft.RPCResponse{}, false
	}
}

// trim takes off what is applied here, and clamps the commit index to the last
// entry that req shows to be in the leader's log. Committed entries are equal
// everywhere, so what is applied here is what the leader has there.
func (l *link) trim(req *raft.AppendEntriesRequest) {
	last := req.PrevLogEntry + uint64(len(req.Entries))
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, last)
	applied, term := l.applied()
	if last == 0 || applied == 0 || req.PrevLogEntry >= applied {
		return
	}
	drop := min(applied-req.PrevLogEntry, uint64(len(req.Entries)))
	req.Entries = req.Entries[drop:]
	req.PrevLogEntry, req.PrevLogTerm = applied, term
}

// unproven reports whether the leader that sends req, trimmed, has committed nothing
// in its term that is applied here, and knows of nothing else to apply: that it has a
// majority for its log is still to be shown, by this follower perhaps.
func (l *link) unproven(req *raft.AppendEntriesRequest) bool {
	applied, term := l.applied()
	return term < req.Term && req.LeaderCommitIndex <= applied
}

// installed answers a checkpoint that the leader would install (R18). False says
// that the replica stops.
func (l *link) installed(rpc raft.RPC, req *raft.InstallSnapshotRequest) (raft.RPCResponse, bool) {
	term := l.term()
	applied, _ := l.applied()
	switch {
	case term > req.Term:
		return raft.RPCResponse{Response: &raft.InstallSnapshotResponse{Term: term}}, true
	case req.LastLogIndex <= applied:
		return raft.RPCResponse{Response: &raft.InstallSnapshotResponse{Term: req.Term, Success: true}}, true
	}
	return l.install(rpc, req)
}

// heldEntries returns how many of a leader's entries, from the first on, the log
// holds as they are.
func (r *Replica[R]) heldEntries(entries []*raft.Log) (n int) {
	for _, e := range entries {
		if term, _, ok := r.journal.Head(e.Index); !ok || term != e.Term {
			break
		}
		n++
	}
	return n
}

// reserveEntries makes room for those of a leader's entries that the log does not
// hold yet. It never waits. unproven: see link.
func (r *Replica[R]) reserveEntries(entries []*raft.Log, unproven bool) (release func(), err error) {
	if r.journal == nil || len(entries) == 0 {
		return func() {}, nil
	}
	bytes := int64(0)
	for _, e := range entries {
		if term, _, ok := r.journal.Head(e.Index); !ok || term != e.Term {
			bytes += journal.RecordBytes(len(e.Data), len(e.Extensions))
		}
	}
	if bytes == 0 {
		return func() {}, nil
	}
	room, err := r.opt.Journal.TryReserveFollowing(r.journal, bytes)
	if errors.Is(err, journal.ErrNoSpace) && (bytes <= urgentBytes || unproven) {
		// Everything above the checkpoint counts as not applied after a restart, and
		// nothing of it is known to be committed before an entry of the leader's term
		// is. That one frees the rest, and may be behind several requests' entries.
		room, err = r.opt.Journal.TryReserveUrgent(r.journal, bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRoom, err)
	}
	return room.Release, nil
}
