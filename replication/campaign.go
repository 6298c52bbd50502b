package replication

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// GrantWindow is for how long a voter that lets another campaign lets nobody else.
// A claimant that has not heard from a majority by then has to ask again.
const GrantWindow = 250 * time.Millisecond

// Claim is a follower's wish to campaign at once, because the way to the node of
// its leader broke: without it the voters wait for an election timeout. Campaigning
// passes by the pre-vote, which all refuse as long as they think they have a
// leader, so a majority of the voters has to agree first, that the leader is gone
// and who it is to be: two that campaign in one term take each other's votes.
//
// Nothing is safe because of it, and nothing unsafe: who leads, Raft's votes decide.
type Claim struct {
	Shard ShardID
	By    ReplicaID
	Lost  int32  // the node of the leader
	Term  uint64 // that leader's

	// The claimant's last entry.
	LastTerm, LastIndex uint64
}

// grant is whom a voter lets campaign.
type grant struct {
	term uint64
	by   ReplicaID
	at   time.Time
}

// Claim returns this replica's wish to take the place of the leader on a node, and
// grants it itself. It has none unless it is a voter that follows that leader, in
// a log that it can read, or if it has let another voter campaign.
func (r *Replica[R]) Claim(now time.Time, lost int32) (Claim, bool) {
	leader, known := r.Leader()
	if !known || leader.Node != lost {
		return Claim{}, false
	}
	c := Claim{Shard: r.opt.Shard, By: r.opt.ID, Lost: lost, Term: r.currentTerm()}
	var ok bool
	if c.LastTerm, c.LastIndex, ok = r.lastEntry(); !ok {
		return Claim{}, false
	}
	return c, r.Grant(now, c)
}

// Grant reports whether this replica agrees that a voter campaigns at once, and
// will then agree to no other in that term for GrantWindow. It agrees if it is
// a voter that knows no leader but the lost one, has no entry that the claimant
// lacks, and is in its term: it may be asking for pre-votes already, which those
// that have not noticed refuse. Whether the leader's node is gone, the caller knows.
func (r *Replica[R]) Grant(now time.Time, c Claim) bool {
	leader, known := r.Leader()
	term, index, readable := r.lastEntry()
	switch {
	case c.Shard != r.opt.Shard || c.Lost == r.opt.ID.Node || c.Lost == c.By.Node:
		return false
	case !r.votes() || c.Term != r.currentTerm() || known && leader.Node != c.Lost:
		return false
	case !r.peers.isVoter(c.By) || !r.peers.isVoter(r.opt.ID):
		return false
	case !readable || cmp.Or(cmp.Compare(c.LastTerm, term), cmp.Compare(c.LastIndex, index)) < 0:
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g := &r.granted
	age := now.Sub(g.at)
	if g.term == c.Term && g.by != c.By && age >= 0 && age < GrantWindow {
		return false
	}
	*g = grant{term: c.Term, by: c.By, at: now}
	return true
}

// Withdraw takes back this replica's own claim, which was not granted: it may let
// another campaign at once, one that lacks less.
func (r *Replica[R]) Withdraw(c Claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.granted.term == c.Term && r.granted.by == c.By {
		r.granted = grant{}
	}
}

// Campaign has this replica stand for election at once, in the term after the
// given one, and reports whether it began: it does not if it has heard of a later
// term by now, or is no voter. Others vote for it although they have a leader, so it is
// for when that is gone, or wants it.
func (r *Replica[R]) Campaign(term uint64) bool {
	if r.currentTerm() != term || !r.follows() || !r.peers.isVoter(r.opt.ID) || r.stopCtx.Err() != nil {
		return false
	}
	r.campaign()
	return true
}

// campaign tells Raft that the election timeout is over. link keeps it from a
// replica that does not follow any more when its turn comes.
func (r *Replica[R]) campaign() {
	r.opt.Transport.Inject(raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}},
		RespChan: make(chan raft.RPCResponse, 1),
	})
}

// follows reports whether Raft runs, and neither leads nor campaigns.
func (r *Replica[R]) follows() bool { return r.state() == raft.Follower }

// votes reports whether Raft runs, and does not lead. Once it votes for itself, it is
// in a later term.
func (r *Replica[R]) votes() bool {
	state := r.state()
	return state == raft.Follower || state == raft.Candidate
}

// state returns what Raft is, Shutdown if it does not run.
func (r *Replica[R]) state() raft.RaftState {
	if running := r.running.Load(); running != nil {
		return running.State()
	}
	return raft.Shutdown
}

// lastEntry returns the term and the index of the newest entry, 0 if there was
// never one. False says that it cannot be told: it is being replaced, perhaps.
func (r *Replica[R]) lastEntry() (term, index uint64, ok bool) {
	index, term = r.checkpoints.Newest()
	last := r.store.log.last()
	if last <= index {
		return term, index, true
	}
	var l raft.Log
	if err := r.store.log.read(last, &l, false); err != nil {
		return 0, 0, false
	}
	return l.Term, last, true
}

// isVoter reports whether a replica has a vote in the newest configuration.
func (p *peers) isVoter(id transport.ReplicaID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.voters, id)
}
