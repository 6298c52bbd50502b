package replication

import (
	"bytes"
	"errors"

	"github.com/flotilla-log/flotilla/log/control"
)

// Raft's keys (raft.go: keyCurrentTerm and the two below it).
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"
)

// votes is one replica's raft.StableStore, kept in the node's vote log.
//
// Raft panics on an error of its StableStore, so there are none: the first one
// stops the replica, and the call that met it does not return before the
// replica is closed.
//
// NewRaft and Raft's main goroutine are the only callers.
type votes struct {
	log      *control.Votes
	shard    ShardID
	vote     control.Vote
	voteTerm uint64 // of the candidate that comes next
	halt     func(error)

	// patiently does what the log has no room for now when it has.
	patiently func(do func() error) error
}

func newVotes(log *control.Votes, shard ShardID, vote control.Vote, halt func(error)) *votes {
	return &votes{
		log: log, shard: shard, vote: vote, voteTerm: vote.VoteTerm, halt: halt,
		patiently: func(do func() error) error { return do() },
	}
}

// store makes v durable before Raft goes on: a vote that is forgotten can be
// given twice in one term.
func (s *votes) store(v control.Vote) {
	if err := s.patiently(func() error { return s.log.Store(uint32(s.shard), v) }); err != nil {
		s.halt(err)
		return
	}
	s.vote = v
}

// SetUint64 implements raft.StableStore. The term of a vote is held back until
// its candidate follows: Raft writes the one after the other, and both become
// durable together.
func (s *votes) SetUint64(key []byte, val uint64) error {
	switch string(key) {
	case keyTerm:
		if val != s.vote.Term {
			v := s.vote
			v.Term = val
			s.store(v)
		}
	case keyVoteTerm:
		s.voteTerm = val
	default:
		panic("replication: raft stores an unknown number " + string(key))
	}
	return nil
}

// Set implements raft.StableStore.
func (s *votes) Set(key, val []byte) error {
	if string(key) != keyCandidate {
		panic("replication: raft stores an unknown value " + string(key))
	}
	v := s.vote
	v.VoteTerm, v.Candidate = s.voteTerm, bytes.Clone(val)
	s.store(v)
	return nil
}

// GetUint64 implements raft.StableStore.
func (s *votes) GetUint64(key []byte) (uint64, error) {
	switch string(key) {
	case keyTerm:
		return s.vote.Term, nil
	case keyVoteTerm:
		return s.vote.VoteTerm, nil
	}
	return 0, errKeyNotFound
}

// Get implements raft.StableStore.
func (s *votes) Get(key []byte) ([]byte, error) {
	if string(key) == keyCandidate && len(s.vote.Candidate) > 0 {
		return s.vote.Candidate, nil
	}
	return nil, errKeyNotFound
}

// errKeyNotFound has the text that Raft compares with.
var errKeyNotFound = errors.New("not found")
