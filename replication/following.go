package replication

import "time"

// Following returns whom this replica follows, and in which term: what it has
// applied is then at most as old as the last word of that leader's, which came
// within two leases (R19). ok is false for a replica that leads, has no leader, or
// has not heard from it for longer.
func (r *Replica[R]) Following() (leader ReplicaID, term uint64, ok bool) {
	term = r.currentTerm()
	leader, ok = r.Leader()
	heard := r.raft.LastContact()
	switch {
	case !ok, leader == r.opt.ID, r.currentTerm() != term:
		return ReplicaID{}, 0, false
	case heard.IsZero(), time.Since(heard) > 2*electionTimeout:
		return ReplicaID{}, 0, false
	}
	return leader, term, true
}
