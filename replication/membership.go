package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/replication/transport"
)

// A shard's members change one at a time, each by an entry of Raft's in the
// shard's own log. Who replaces a member that is gone for good, under a new
// incarnation (R11), takes four steps, of which each may be repeated, and each
// may be taken by another leader than the one before:
//
//	AddLearner(new)   it gets the log, or catches up (R18); it has no vote
//	                  ... until it lacks little
//	Remove(old)       the majority is one of those that live
//	Promote(new)      it votes
//
// The old one goes first: with both as voters, two that fail would be one too many
// for a majority that counts the dead. One that lives is moved by Promote(new) and
// then Remove(old).

var (
	// ErrNotMember reports a change of a replica that is none of the shard's
	// members. Nothing was done.
	ErrNotMember = errors.New("replication: not a member of the shard")

	// ErrLearnerLags reports a learner that cannot be made a voter yet: it does not
	// answer, or lacks too much of the log. Nothing was done.
	ErrLearnerLags = errors.New("replication: the learner has not caught up")

	// ErrTooFewVoters reports a change after which no majority of the voters would
	// answer: the shard would stand still. Nothing was done.
	ErrTooFewVoters = errors.New("replication: no majority of the voters would answer")

	// ErrLeads reports the removal of the replica that was asked for it. Its
	// leadership has to be handed over first. Nothing was done.
	ErrLeads = errors.New("replication: the leader cannot remove itself")

	// ErrChanging reports a change of members while an earlier one is not committed.
	// Nothing was done; a retry is safe.
	ErrChanging = errors.New("replication: an earlier change of members is under way")
)

// changeTick is how often a change looks whether it is applied.
const changeTick = 5 * time.Millisecond

// change is one step from the applied configuration to the next.
type change struct {
	done   func(c raft.Configuration) bool // nothing is left to do
	next   func(c raft.Configuration) raft.Configuration
	submit func(before uint64) // hands it to Raft, for the configuration of that index only
}

// AddLearner makes a replica a member of the shard that is sent the log and has no
// vote; a member it leaves as it is. When it returns nil that is applied here, and
// durable on a majority.
//
// It returns ErrNotLeader, ErrChanging, ErrTooFewVoters or ErrStopped if nothing
// was done, and ErrOutcomeUnknown or ctx's error if that may yet happen: the
// leader, whoever it is, can be asked again.
func (r *Replica[R]) AddLearner(ctx context.Context, id ReplicaID) error {
	server := serverOf(id, raft.Nonvoter)
	return r.change(ctx, change{
		done: func(c raft.Configuration) bool { return memberAt(c, id) >= 0 },
		next: func(c raft.Configuration) raft.Configuration {
			c.Servers = append(c.Servers, server)
			return c
		},
		submit: func(before uint64) { r.raft.AddNonvoter(server.ID, server.Address, before, electionTimeout) },
	})
}

// Promote gives a learner a vote; a voter it leaves as it is. The learner has to
// answer, and to lack at most lagEntries of the log: a voter that lacks much would
// be counted on before it can take part. It returns ErrNotMember or ErrLearnerLags
// if that is not so, and otherwise as AddLearner does.
func (r *Replica[R]) Promote(ctx context.Context, id ReplicaID, lagEntries uint64) error {
	server := serverOf(id, raft.Voter)
	if err := r.Promotable(ctx, id, lagEntries); err != nil {
		return err
	}
	return r.change(ctx, change{
		done: func(c raft.Configuration) bool {
			i := memberAt(c, id)
			return i >= 0 && c.Servers[i].Suffrage == raft.Voter
		},
		next: func(c raft.Configuration) raft.Configuration {
			if i := memberAt(c, id); i >= 0 {
				c.Servers[i].Suffrage = raft.Voter
			}
			return c
		},
		submit: func(before uint64) { r.raft.AddVoter(server.ID, server.Address, before, electionTimeout) },
	})
}

// Promotable returns nil for a voter, and for a learner that Promote would give a
// vote as far as its log goes; it changes nothing. Else it returns ErrNotLeader,
// ErrNotMember or ErrLearnerLags.
func (r *Replica[R]) Promotable(ctx context.Context, id ReplicaID, lagEntries uint64) error {
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	config, _ := r.peers.configuration()
	i := memberAt(config, id)
	switch {
	case i < 0:
		return fmt.Errorf("%w: %s of shard %d", ErrNotMember, id, r.opt.Shard)
	case config.Servers[i].Suffrage == raft.Voter:
		return nil
	}
	match, behind := r.peers.progress(id, term)
	last := r.store.log.last()
	switch {
	case behind || match == 0:
		return fmt.Errorf("%w: %s of shard %d has to get what the leader's log does not reach back to, or has not answered in term %d", ErrLearnerLags, id, r.opt.Shard, term)
	case match+lagEntries < last:
		return fmt.Errorf("%w: %s lacks %d entries of shard %d, at most %d may be lacking", ErrLearnerLags, id, last-match, r.opt.Shard, lagEntries)
	}
	probing, cancel := context.WithTimeout(ctx, transferPatience)
	defer cancel()
	if _, err := r.opt.Transport.Probe(probing, id); err != nil {
		return fmt.Errorf("%w: %s of shard %d does not answer: %w", ErrLearnerLags, id, r.opt.Shard, err)
	}
	return nil
}

// Remove takes a member out of the shard, which may have been gone for long; one
// that is none is none already. It returns ErrLeads for the replica itself,
// ErrTooFewVoters if too few of the voters that stay answer, and otherwise as
// AddLearner does.
func (r *Replica[R]) Remove(ctx context.Context, id ReplicaID) error {
	if id == r.opt.ID {
		return fmt.Errorf("%w: %s of shard %d", ErrLeads, id, r.opt.Shard)
	}
	return r.change(ctx, change{
		done: func(c raft.Configuration) bool { return memberAt(c, id) < 0 },
		next: func(c raft.Configuration) raft.Configuration {
			if i := memberAt(c, id); i >= 0 {
				c.Servers = slices.Delete(c.Servers, i, i+1)
			}
			return c
		},
		submit: func(before uint64) { r.raft.RemoveServer(raft.ServerID(id.String()), before, electionTimeout) },
	})
}

// Probe returns nil if another replica of the shard, member or not, answers under
// its name, before ctx ends.
func (r *Replica[R]) Probe(ctx context.Context, id ReplicaID) error {
	_, err := r.opt.Transport.Probe(ctx, id)
	return err
}

// change makes one change, unless nothing is left to do.
func (r *Replica[R]) change(ctx context.Context, c change) error {
	if err := r.take(ctx, r.changing); err != nil {
		return err
	}
	defer func() { <-r.changing }()
	// All that was committed before the term is applied here, and what is proposed in
	// it is proposed below: the applied configuration is the newest committed one.
	term := r.ready.Load()
	if term == 0 {
		return ErrNotLeader
	}
	applied, index := r.peers.configuration()
	if latest := r.latest(); !slices.Equal(latest.Servers, applied.Servers) {
		return fmt.Errorf("%w: shard %d", ErrChanging, r.opt.Shard)
	}
	if c.done(applied) {
		// As far as this replica knows; it has to lead for that to be so.
		_, err := r.Confirm(ctx)
		return err
	}
	if err := r.answering(ctx, term, c.next(applied.Clone())); err != nil {
		return err
	}
	if err := r.submit(ctx, term, index, c.submit); err != nil {
		return err
	}
	return r.awaitChange(ctx, term, index, c)
}

// submit hands a change to Raft. The future is not waited for: Raft leaves futures
// unanswered at shutdown. Whether it was refused, what is applied shows.
func (r *Replica[R]) submit(ctx context.Context, term, index uint64, submit func(before uint64)) error {
	// Raft refuses it while the leadership is handed over.
	if err := r.take(ctx, r.turn); err != nil {
		return err
	}
	defer func() { <-r.turn }()
	if r.ready.Load() != term {
		return ErrNotLeader
	}
	submit(index)
	return nil
}

// awaitChange waits until a change that was handed to Raft is applied.
func (r *Replica[R]) awaitChange(ctx context.Context, term, before uint64, c change) error {
	tick := time.NewTicker(changeTick)
	defer tick.Stop()
	for {
		config, index := r.peers.configuration()
		if index > before && c.done(config) {
			return nil
		}
		if r.ready.Load() != term {
			return fmt.Errorf("%w: the leadership of shard %d was lost over a change of its members", ErrOutcomeUnknown, r.opt.Shard)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.stopCtx.Done():
			return ErrStopped
		}
	}
}

// answering returns nil if a majority of a configuration's voters answers in this
// term, which they have to for anything to be committed under it.
func (r *Replica[R]) answering(ctx context.Context, term uint64, c raft.Configuration) error {
	others, voter := votersOf(c, r.opt.ID)
	need, agreed := (len(others)+1)/2+1, 1
	if !voter {
		need, agreed = len(others)/2+1, 0
	}
	probing, cancel := context.WithTimeout(ctx, transferPatience)
	defer cancel()
	answers := make(chan error, len(others))
	r.mu.Lock() // Close waits for the probes
	if r.stopCtx.Err() != nil {
		r.mu.Unlock()
		return ErrStopped
	}
	for _, id := range others {
		r.group.Go(func() {
			theirs, err := r.opt.Transport.Probe(probing, id)
			if err == nil && theirs != term {
				err = fmt.Errorf("%s is in term %d, not %d", id, theirs, term)
			}
			answers <- err
		})
	}
	r.mu.Unlock()
	var errs []error
	for range others {
		if agreed >= need {
			break
		}
		select {
		case err := <-answers:
			if err == nil {
				agreed++
			}
			errs = append(errs, err)
		case <-r.stopCtx.Done():
			return ErrStopped
		}
	}
	if agreed < need {
		return fmt.Errorf("%w: %d of %d of shard %d, want %d: %w", ErrTooFewVoters, agreed, len(others)+1, r.opt.Shard, need, errors.Join(errs...))
	}
	return nil
}

// latest returns the newest configuration in this replica's log, committed or not:
// the one that Raft itself counts by.
func (r *Replica[R]) latest() raft.Configuration {
	running := r.running.Load()
	if running == nil {
		return raft.Configuration{}
	}
	f := running.GetConfiguration()
	if f.Error() != nil { // never
		return raft.Configuration{}
	}
	return f.Configuration()
}

// withoutVote answers what nobody may ask of a replica that has no configuration,
// or no vote, and reports whether it did. Raft grants votes under an empty
// configuration, to anybody (trap 17), and has whoever is told to campaign do so.
// A learner does vote: it may be a voter by an entry that it does not have yet, and
// who counts its vote knows.
func (r *Replica[R]) withoutVote(rpc raft.RPC) (raft.RPCResponse, bool) {
	latest := r.latest()
	unknown := len(latest.Servers) == 0
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(r.opt.ID.String()), Addr: []byte(r.opt.ID.String())}
	switch rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if unknown {
			return raft.RPCResponse{Response: &raft.RequestVoteResponse{RPCHeader: header, Term: r.currentTerm()}}, true
		}
	case *raft.RequestPreVoteRequest:
		if unknown {
			return raft.RPCResponse{Response: &raft.RequestPreVoteResponse{RPCHeader: header, Term: r.currentTerm()}}, true
		}
	case *raft.TimeoutNowRequest:
		if _, voter := votersOf(latest, r.opt.ID); !voter {
			return raft.RPCResponse{Error: fmt.Errorf("%w: %s of shard %d does not campaign", ErrNotVoter, r.opt.ID, r.opt.Shard)}, true
		}
	}
	return raft.RPCResponse{}, false
}

// serverOf is how Raft names a replica.
func serverOf(id ReplicaID, s raft.ServerSuffrage) raft.Server {
	return raft.Server{Suffrage: s, ID: raft.ServerID(id.String()), Address: raft.ServerAddress(id.String())}
}

// memberAt returns where a replica is in a configuration, -1 if it is not.
func memberAt(c raft.Configuration, id ReplicaID) int {
	name := raft.ServerID(id.String())
	return slices.IndexFunc(c.Servers, func(s raft.Server) bool { return s.ID == name })
}

// votersOf returns the voters of a configuration beside self, and whether self is
// one.
func votersOf(c raft.Configuration, self ReplicaID) (others []ReplicaID, voter bool) {
	for _, s := range c.Servers {
		id, err := transport.ParseReplicaID(string(s.ID))
		switch {
		case err != nil || s.Suffrage != raft.Voter:
		case id == self:
			voter = true
		default:
			others = append(others, id)
		}
	}
	return others, voter
}
