package replication

import (
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// Progress is what a replica knows of its shard at one moment. It is for people
// to look at: its parts are read one after the other.
type Progress struct {
	ID      ReplicaID
	Term    uint64 // the newest that this replica knows
	Leading bool   // and serving (R19)

	Leader    ReplicaID // as far as this replica knows
	HasLeader bool

	// Of this replica's log: its last entry, the last applied one, and the last
	// that its newest durable checkpoint covers.
	Last, Applied, Checkpointed uint64

	// Members are the replicas of the newest configuration, this one included;
	// none, if it has no configuration yet.
	Members []Member
}

// Member is one replica in a shard's configuration.
type Member struct {
	ID    ReplicaID
	Voter bool

	// Match is the last entry that it is known to have in common with a leader, in
	// the leader's term; 0 if that is not known, as it never is by a follower.
	// Behind says that it needs more than the leader's log holds.
	Match  uint64
	Behind bool
}

// Progress returns what the replica knows of its shard.
func (r *Replica[R]) Progress() Progress {
	p := Progress{
		ID: r.opt.ID, Term: r.Term(), Leading: r.Leading() != 0,
		Last: r.store.log.last(), Applied: r.Applied(), Checkpointed: r.Checkpointed(),
	}
	running := r.running.Load()
	if running == nil {
		return p
	}
	p.Leader, p.HasLeader = r.Leader()
	if f := running.GetConfiguration(); f.Error() == nil {
		for _, s := range f.Configuration().Servers {
			if id, err := transport.ParseReplicaID(string(s.ID)); err == nil {
				p.Members = append(p.Members, Member{ID: id, Voter: s.Suffrage == raft.Voter})
			}
		}
	}
	if p.Leading {
		r.peers.fill(p.Term, p.Last, p.Members)
	}
	return p
}

// fill says how far members are, as the leader of term knows, whose log ends at
// last.
func (p *peers) fill(term, last uint64, members []Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range members {
		m := &members[i]
		switch {
		case m.ID == p.self:
			m.Match = last
		case term == p.term:
			m.Match = p.match[m.ID]
			_, m.Behind = p.lagging[m.ID]
		}
	}
}
