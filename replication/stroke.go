package replication

import "sync/atomic"

// strokes count the writes of a replica's log and vote, all of Raft's main
// goroutine: odd while one is under way. The zero value is ready.
type strokes struct{ n atomic.Uint64 }

func (s *strokes) do(write func() error) error {
	s.n.Add(1)
	defer s.n.Add(1)
	return write()
}

// Writing reports whether a write of the replica's log or vote is under way, and
// which one: a disk that stands still shows the same number again and again. Until
// it goes on, Raft neither steps down nor hands its leadership over. A write that
// waits for room on the disk is not under way.
func (r *Replica[R]) Writing() (number uint64, under bool) {
	number = r.strokes.n.Load()
	return number, number%2 == 1
}

// successor is who leads a shard in a term that this replica's Raft has not
// heard of.
type successor struct {
	id   ReplicaID
	term uint64
}

// Deposed is told that another replica has won a term after the one that this
// replica led: it leads no more, though its Raft may not be able to notice. What
// was proposed is answered with ErrOutcomeUnknown, what waits with ErrNotLeader.
// The caller knows from the winner: nothing of the old term can be committed any more but
// what the winner has.
func (r *Replica[R]) Deposed(term uint64, by ReplicaID, in uint64) {
	r.successor.Store(&successor{id: by, term: in})
	r.loseTerm(term)
}
