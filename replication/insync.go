package replication

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// standing is when another voter had all of this replica's log, as far as its
// answers tell. It is guarded by peers.mu, and of peers.term.
type standing struct {
	at time.Time // the last moment at which it had all that there was; zero: none is known

	// The log ended at end at the moment since, and the voter has not been known to
	// have all of that yet; 0: it has what there was at its last answer.
	end   uint64
	since time.Time
}

// has notes that the voter has the log up to match, at a moment when the log ends
// at last. As many answers may be on their way at a time, it is not compared with
// what the log had at the answer before, but at one that it has been given the
// time to reach.
func (s *standing) has(match, last uint64, now time.Time) {
	switch {
	case match >= last:
		s.at, s.end = now, 0
		return
	case s.end > 0 && match < s.end:
		return
	case s.end > 0:
		s.at = s.since
	}
	s.end, s.since = last, now
}

// seen takes note of when an answer to this replica's AppendEntries came, after
// appended, and where its log ended then. An answer to a heartbeat says that the
// voter is there, with what it had before.
func (p *peers) seen(id ReplicaID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, now time.Time, last uint64) {
	if !resp.Success {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	match := p.match[id]
	if req.Term != p.term || match == 0 {
		return
	}
	if !isHeartbeat(req) {
		p.answered[id] = now
	}
	s := p.standing[id]
	s.has(match, last, now)
	p.standing[id] = s
}

// contact reports whether another member has answered the leader of term within
// heartbeatAfter, other than a heartbeat.
func (p *peers) contact(id ReplicaID, term uint64, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.answered[id]
	ago := now.Sub(at)
	return ok && term == p.term && ago >= 0 && ago < heartbeatAfter
}

// appended is told of each answer to this replica's AppendEntries.
func (r *Replica[R]) appended(from ReplicaID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	r.peers.appended(from, req, resp)
	r.peers.seen(from, req, resp, r.opt.Now(), r.store.log.last())
}

// contact is peers.contact, for Raft's names.
func (r *Replica[R]) contact(id raft.ServerID, term uint64) bool {
	of, err := transport.ParseReplicaID(string(id))
	return err == nil && r.peers.contact(of, term, r.opt.Now())
}

// Standing is a voter that is in sync.
type Standing struct {
	ID ReplicaID

	// Match is the last entry that it is known to have in common with the leader,
	// in the leader's term; 0 of the leader itself.
	Match uint64
}

// InSync appends to dst the voters that are in sync, this replica included, as
// far as it knows as the leader: those that have had all of its log, as it was
// then, at some moment of the last lag. One that does not answer, or lacks more
// than the log holds, is not. A replica that does not lead knows of itself alone.
// voters is how many there are.
func (r *Replica[R]) InSync(dst []Standing, lag time.Duration) (inSync []Standing, voters int) {
	return r.peers.inSync(dst, r.raft.CurrentTerm(), r.opt.Now().Add(-lag))
}

// inSync appends those that had all of the log of the leader of term at since, or
// later.
func (p *peers) inSync(dst []Standing, term uint64, since time.Time) (inSync []Standing, voters int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.voters {
		at := p.standing[id].at
		switch {
		case id == p.self:
			dst = append(dst, Standing{ID: id})
		case term == p.term && p.lagging[id] == 0 && !at.IsZero() && !at.Before(since):
			dst = append(dst, Standing{ID: id, Match: p.match[id]})
		}
	}
	return dst, len(p.voters)
}
