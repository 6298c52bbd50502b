package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// Vote is what a replica of one shard must not forget.
type Vote struct {
	Incarnation uint64 // of the replica (R11)
	Term        uint64 // the current one
	VoteTerm    uint64 // the last term in which it voted
	Candidate   []byte // for whom; at most MaxCandidateBytes
}

func (v Vote) equal(w Vote) bool {
	return v.Incarnation == w.Incarnation && v.Term == w.Term && v.VoteTerm == w.VoteTerm &&
		bytes.Equal(v.Candidate, w.Candidate)
}

// Votes holds the Vote of every shard on a node. All methods are safe for
// concurrent use.
//
// It is a log of changes. When most of them are outdated, the current votes are
// appended again, synced, and everything before them is removed; at each step
// the log as it stands yields the same votes.
type Votes struct {
	compactRecords int

	lock lock      // held while the disk is written; taken before mu
	seq  *sequence // guarded by lock

	mu    sync.Mutex
	votes map[uint32]Vote // guarded by mu; durable, all of them
	batch *voteBatch      // guarded by mu; gathers while another is written
}

// voteBatch is the changes that one sync makes durable. Its first caller writes
// it; the others wait.
type voteBatch struct {
	changes []voteChange // guarded by Votes.mu until it is no longer Votes.batch
	done    chan struct{}
	err     error // set before done is closed
}

type voteChange struct {
	shard  uint32
	vote   Vote
	remove bool
}

// OpenVotes opens the votes in dir, which it creates if needed, and repairs the
// log's tail; every vote that Load then returns is durable. Only one Votes may
// be open on a directory, which the caller sees to.
//
// It returns a *CorruptError if records that had been synced are damaged, and
// ErrVersion for those of a newer build; either leaves the directory as it was.
func OpenVotes(fs vfs.FS, dir string, opt Options) (*Votes, error) {
	opt = opt.withDefaults()
	votes := make(map[uint32]Vote)
	seq, err := openRecords(fs, dir, opt, func(f frame) error {
		c, err := decodeChange(f)
		if err == nil {
			c.apply(votes)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Votes{compactRecords: opt.CompactRecords, lock: newLock(), seq: seq, votes: votes}, nil
}

func (c voteChange) apply(votes map[uint32]Vote) {
	if c.remove {
		delete(votes, c.shard)
	} else {
		votes[c.shard] = c.vote
	}
}

// Load returns the vote that was last stored for shard, once it is durable. The
// caller must not change its Candidate.
func (v *Votes) Load(shard uint32) (Vote, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	vote, ok := v.votes[shard]
	return vote, ok
}

// Store replaces the vote of shard and returns once the new one is durable. If
// nothing changes, nothing is written. Callers that wait at the same time share
// a sync. A longer candidate than MaxCandidateBytes is ErrTooLarge.
//
// A change that finds no room is undone and returns ErrNoRoom. Any other I/O error
// is final: this and every later
// change returns an error matching ErrFailed, and Load goes on to return what
// is known to be durable. After a crash or an error, the vote that failed to be
// stored may be found by OpenVotes.
//
// Store keeps no reference to vote.
func (v *Votes) Store(shard uint32, vote Vote) error {
	if n := len(vote.Candidate); n > MaxCandidateBytes {
		return fmt.Errorf("%w: candidate of %d bytes, limit %d", ErrTooLarge, n, MaxCandidateBytes)
	}
	vote.Candidate = bytes.Clone(vote.Candidate)
	return v.change(voteChange{shard: shard, vote: vote})
}

// Delete forgets the vote of shard, durably once it returns. A shard without
// one is no error. Errors are as for Store.
func (v *Votes) Delete(shard uint32) error {
	return v.change(voteChange{shard: shard, remove: true})
}

// change adds c to the batch that gathers, and returns when that is durable.
func (v *Votes) change(c voteChange) error {
	v.mu.Lock()
	b := v.batch
	first := b == nil
	if first {
		b = &voteBatch{done: make(chan struct{})}
		v.batch = b
	}
	b.changes = append(b.changes, c)
	v.mu.Unlock()
	if first {
		v.commit(b)
	}
	<-b.done
	return b.err
}

// commit writes b as soon as the batch before it is written. Until then others
// may join.
func (v *Votes) commit(b *voteBatch) {
	v.lock.lock()
	defer v.lock.unlock()
	v.mu.Lock()
	v.batch = nil
	changes := v.effective(b.changes)
	v.mu.Unlock()

	if b.err = v.write(changes); b.err == nil {
		v.mu.Lock()
		for _, c := range changes {
			c.apply(v.votes)
		}
		v.mu.Unlock()
	}
	close(b.done)
	v.compact()
}

// effective returns the last change to each shard, in the order of shards,
// without those that change nothing. The caller holds mu.
func (v *Votes) effective(changes []voteChange) []voteChange {
	last := make(map[uint32]voteChange, len(changes))
	for _, c := range changes {
		last[c.shard] = c
	}
	var out []voteChange
	for _, shard := range slices.Sorted(maps.Keys(last)) {
		c := last[shard]
		old, ok := v.votes[shard]
		if c.remove && ok || !c.remove && !(ok && old.equal(c.vote)) {
			out = append(out, c)
		}
	}
	return out
}

// write appends changes and returns once they are durable. The caller holds
// lock.
func (v *Votes) write(changes []voteChange) error {
	if v.seq.failed != nil || len(changes) == 0 {
		return v.seq.failed
	}
	items := make([]item, len(changes))
	for i, c := range changes {
		items[i] = encodeChange(c)
	}
	return v.seq.append(items)
}

// compact rewrites the log if it has grown and little of it is current. Its
// errors are latched, so the next change reports them. The caller holds lock,
// without which no vote changes.
func (v *Votes) compact() {
	records := v.seq.next - v.seq.first
	if records <= uint64(v.compactRecords) || records <= 4*uint64(len(v.votes)) {
		return
	}
	first := v.seq.next
	var current []voteChange
	for _, shard := range slices.Sorted(maps.Keys(v.votes)) {
		current = append(current, voteChange{shard: shard, vote: v.votes[shard]})
	}
	if v.write(current) == nil {
		_ = v.seq.truncateFront(first)
	}
}

// Close waits for a change that is under way and releases the files. Later
// changes return ErrClosed.
func (v *Votes) Close() error {
	v.lock.lock()
	defer v.lock.unlock()
	return v.seq.close()
}

// voteBytes is the size of a vote's fixed part: see the package comment.
const voteBytes = 8 + 8 + 8 + 4

// encodeChange returns the record of c.
func encodeChange(c voteChange) item {
	if c.remove {
		return item{kindDelete, binary.LittleEndian.AppendUint32(nil, c.shard)}
	}
	b := make([]byte, 0, voteBytes+len(c.vote.Candidate))
	b = binary.LittleEndian.AppendUint64(b, c.vote.Incarnation)
	b = binary.LittleEndian.AppendUint64(b, c.vote.Term)
	b = binary.LittleEndian.AppendUint64(b, c.vote.VoteTerm)
	b = binary.LittleEndian.AppendUint32(b, c.shard)
	return item{kindVote, append(b, c.vote.Candidate...)}
}

// decodeChange is the inverse of encodeChange. It copies the candidate, which
// is nil if empty.
func decodeChange(f frame) (voteChange, error) {
	b := f.payload
	switch {
	case f.kind == kindDelete && len(b) == 4:
		return voteChange{shard: binary.LittleEndian.Uint32(b), remove: true}, nil
	case f.kind == kindVote && len(b) >= voteBytes && len(b) <= voteBytes+MaxCandidateBytes:
		c := voteChange{
			shard: binary.LittleEndian.Uint32(b[24:]),
			vote: Vote{
				Incarnation: binary.LittleEndian.Uint64(b),
				Term:        binary.LittleEndian.Uint64(b[8:]),
				VoteTerm:    binary.LittleEndian.Uint64(b[16:]),
			},
		}
		if len(b) > voteBytes {
			c.vote.Candidate = bytes.Clone(b[voteBytes:])
		}
		return c, nil
	case f.kind == kindDelete || f.kind == kindVote:
		return voteChange{}, fmt.Errorf("%w: %d bytes of kind %q", errMalformed, len(b), f.kind)
	default:
		return voteChange{}, fmt.Errorf("%w: record of kind %q among votes", ErrVersion, f.kind)
	}
}

// Dir returns the directory that the votes lie in.
func (v *Votes) Dir() string { return v.seq.dir }
