package replication

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// maxRetainedEntries is how many entries below its checkpoint a log without a
// ring keeps for voters that lag.
const maxRetainedEntries = 10_000

// peers knows how far the other members' logs agree with this replica's: Raft
// shows nobody, but the answers to AppendEntries pass by. What all have may be
// dropped from the log, learners among them; a follower is told by its leader.
//
// Safe for concurrent use.
type peers struct {
	mu       sync.Mutex
	self     ReplicaID
	config   raft.Configuration   // the newest that is applied
	configAt uint64               // its index; 0: it is assumed
	voters   []ReplicaID          // of config, this replica included
	members  []ReplicaID          // the voters and the learners
	term     uint64               // of match
	match    map[ReplicaID]uint64 // the last index known to be equal, as the leader of term
	keep     uint64               // what the leader of keepTerm said last
	keepTerm uint64
	lagging  map[ReplicaID]uint64 // who needs more than this log holds, by its index then
	standing map[ReplicaID]standing
	answered map[ReplicaID]time.Time // when what the log was sent was last taken, in term
}

func newPeers(self ReplicaID) *peers {
	return &peers{self: self, match: make(map[ReplicaID]uint64), lagging: make(map[ReplicaID]uint64), standing: make(map[ReplicaID]standing), answered: make(map[ReplicaID]time.Time)}
}

// configure takes note of the configuration that is applied, and its index. Nothing
// is kept of who is no member any more.
func (p *peers) configure(c raft.Configuration, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.configureLocked(c, index)
	gone := func(id ReplicaID) bool { return !slices.Contains(p.members, id) }
	maps.DeleteFunc(p.match, func(id ReplicaID, _ uint64) bool { return gone(id) })
	maps.DeleteFunc(p.lagging, func(id ReplicaID, _ uint64) bool { return gone(id) })
	maps.DeleteFunc(p.answered, func(id ReplicaID, _ time.Time) bool { return gone(id) })
}

// assume takes a configuration of the log that may not be committed for the one that
// holds, until one is applied.
func (p *peers) assume(c raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.configAt == 0 {
		p.configureLocked(c, 0)
	}
}

func (p *peers) configureLocked(c raft.Configuration, index uint64) {
	p.config, p.configAt, p.voters, p.members = c.Clone(), index, nil, nil
	for _, s := range c.Servers {
		id, err := transport.ParseReplicaID(string(s.ID))
		if err != nil {
			continue
		}
		p.members = append(p.members, id)
		if s.Suffrage == raft.Voter {
			p.voters = append(p.voters, id)
		}
	}
}

// configuration returns a copy of the newest applied configuration, and its index.
func (p *peers) configuration() (raft.Configuration, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config.Clone(), p.configAt
}

// others returns the other voters, and whether this replica is one.
func (p *peers) others() (others []ReplicaID, voter bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.voters {
		if id == p.self {
			voter = true
		} else {
			others = append(others, id)
		}
	}
	return others, voter
}

// appended takes note of an answer to this replica's AppendEntries.
func (p *peers) appended(to ReplicaID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if !resp.Success || req.PrevLogEntry+uint64(len(req.Entries)) == 0 {
		return // rejected, or a heartbeat
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.Term < p.term {
		return
	}
	if req.Term > p.term {
		p.term = req.Term
		clear(p.match)
		clear(p.lagging)
		clear(p.standing)
		clear(p.answered)
	}
	at := req.PrevLogEntry + uint64(len(req.Entries))
	p.match[to] = max(p.match[to], at)
	if needed, ok := p.lagging[to]; ok && at >= needed {
		delete(p.lagging, to)
	}
}

// told takes note of what the leader of term says may be dropped.
func (p *peers) told(term, keep uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term > p.keepTerm {
		p.keepTerm, p.keep = term, 0
	}
	if term == p.keepTerm {
		p.keep = max(p.keep, keep)
	}
}

// retain returns the first index that some member may still ask the leader of
// term for, itself included: 0 if that is not known.
func (p *peers) retain(term uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term != p.term {
		return 0
	}
	return p.slowestLocked()
}

func (p *peers) slowestLocked() uint64 {
	least := uint64(never)
	for _, id := range p.members {
		if id != p.self {
			least = min(least, p.match[id])
		}
	}
	return least
}

// keepFrom returns the first index that this log should keep for others.
func (p *peers) keepFrom() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.members) == 1 && p.members[0] == p.self {
		return never
	}
	if p.term > p.keepTerm {
		return p.slowestLocked()
	}
	return p.keep
}

// nextLeader returns the voter that has most of this log, as its leader knows.
func (p *peers) nextLeader() (id ReplicaID, match uint64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := slices.DeleteFunc(slices.Clone(p.voters), func(id ReplicaID) bool { return id == p.self })
	if len(ids) == 0 {
		return id, 0, false
	}
	id = slices.MaxFunc(ids, func(a, b ReplicaID) int { return cmp.Compare(p.match[a], p.match[b]) })
	return id, p.match[id], true
}

// voterOn returns another node's voter, how much of this log it has as the leader
// of term knows, and whether it needs more than this log holds.
func (p *peers) voterOn(node int32, term uint64) (id ReplicaID, match uint64, behind, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.voters {
		if id.Node != node || id == p.self {
			continue
		}
		if term == p.term {
			match = p.match[id]
			_, behind = p.lagging[id]
		}
		return id, match, behind, true
	}
	return id, 0, false, false
}

// progress returns how much of this log a member has, as the leader of term knows,
// and whether it needs more than this log holds.
func (p *peers) progress(id ReplicaID, term uint64) (match uint64, behind bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term != p.term {
		return 0, false
	}
	_, behind = p.lagging[id]
	return p.match[id], behind
}

// lags takes note of a member whose next entry is not in this log any more, and
// reports whether that is news.
func (p *peers) lags(id ReplicaID, index uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.lagging[id]
	p.lagging[id] = index
	return !known
}

// Behind lists the members that lag further behind than this replica's log
// reaches, as far as it has met them in the term that it leads: they need to
// catch up from records, and take no part until then.
func (r *Replica[R]) Behind() []ReplicaID {
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	var ids []ReplicaID
	for id := range r.peers.lagging {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ReplicaID) int { return cmp.Compare(a.Node, b.Node) })
	return ids
}

// droppable returns the last index, at most upTo, that the log may lose: what a
// durable checkpoint covers, without its last entry, which follows on; and what
// no voter will ask for, or what is beyond that may be kept for one that does.
func (r *Replica[R]) droppable(upTo uint64) uint64 {
	covered := r.durableIndex()
	if covered == 0 {
		return 0
	}
	upTo = min(upTo, covered-1)
	keep := r.peers.keepFrom()
	if keep > upTo {
		return upTo
	}
	oldest := r.oldestAffordable(covered)
	return min(upTo, max(keep, oldest, 1)-1)
}

// oldestAffordable is from where on a log may be kept that ends at index: all
// shards of a node together keep half of the ring at most.
func (r *Replica[R]) oldestAffordable(index uint64) uint64 {
	if r.journal == nil {
		return index - min(index, maxRetainedEntries)
	}
	return r.journal.Affordable(index)
}

// Trim drops what the log has kept for voters that lagged, and that none needs
// any more. A checkpoint does it too; it is for a shard to which nothing is
// written.
func (r *Replica[R]) Trim() error {
	upTo := r.droppable(r.durableIndex())
	if first := r.store.log.first(); upTo == 0 || first == 0 || first > upTo || r.stopCtx.Err() != nil {
		return nil
	}
	err := r.store.log.compact(upTo)
	if errors.Is(err, control.ErrNoRoom) {
		return nil // the entries do no harm; the next time lets go of them
	}
	if err != nil {
		r.fail(err)
	}
	return err
}
