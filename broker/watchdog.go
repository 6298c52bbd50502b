package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodTakeOver asks a node to lead a shard after the sender; see encodeMandate.
const methodTakeOver transport.Method = 17

const (
	// watchdogTick is how often to look whether the disk stands still.
	watchdogTick = 100 * time.Millisecond

	// stallTicks is how many ticks a write takes of a disk that stands still: more
	// than ordinary stalls. Ticks are counted, so that a process which was paused
	// does not take that for one.
	stallTicks = 10

	// calmTicks is for how many ticks a disk that stood still has to have gone on
	// before this node takes leaderships again.
	calmTicks = 300

	// takeOverTimeout is how long an heir may take to win its election.
	takeOverTimeout = 2 * time.Second
)

// errUnfit is why a node does not take a leadership.
var errUnfit = errors.New("broker: the disk stands still, or did a moment ago")

// errLeaving is another reason.
var errLeaving = errors.New("broker: the node is stopping")

// refusal returns why this node takes no leadership of any shard now, or nil.
func (b *Broker) refusal() error {
	switch {
	case b.leaving.Load():
		return errLeaving
	case b.watchdog.unfit.Load():
		return errUnfit
	}
	return nil
}

// heldReplica is a replica as the watchdog needs it, whatever its shard carries.
type heldReplica interface {
	candidate
	transferable
	Transfer(ctx context.Context) error
	Leading() (term uint64)
	Writing() (number uint64, under bool)
	Deposed(term uint64, by replication.ReplicaID, in uint64)
}

// watchdog has the others lead what this node leads when its disk stands still
// (raft.md, trap 8). Its Raft would go on as the leader for as long as the disk
// does: heartbeats need no disk. Nor can it hand its leadership over, as it waits
// for the disk itself. So a voter is asked to campaign, and when that has won, this
// replica leads no more, whatever its Raft still thinks: what waits is answered,
// with an unknown outcome, and clients are sent to who leads.
//
// It counts ticks and has no clock.
type watchdog struct {
	b     *Broker
	seen  map[replication.ShardID]stroke
	calm  atomic.Int64 // ticks since the disk stood still last
	unfit atomic.Bool  // it stands still, or did a moment ago
	moved atomic.Uint64
	busy  map[replication.ShardID]*atomic.Bool // its leadership is being handed over
}

// stroke is a write of a replica's log or vote, and how many ticks it was seen.
type stroke struct {
	number uint64
	ticks  int
}

func newWatchdog(b *Broker) *watchdog {
	w := &watchdog{b: b, seen: make(map[replication.ShardID]stroke), busy: make(map[replication.ShardID]*atomic.Bool)}
	w.calm.Store(calmTicks)
	return w
}

// held returns the replicas of this node, by shard.
func (b *Broker) held() map[replication.ShardID]heldReplica {
	all := map[replication.ShardID]heldReplica{replication.MetadataShard: b.meta}
	for id, s := range b.carried() {
		all[id] = s.replica
	}
	return all
}

// run ticks until the broker stops.
func (w *watchdog) run() {
	ticker := time.NewTicker(watchdogTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.tick()
		case <-w.b.stopping.Done():
			return
		}
	}
}

// tick looks at every replica once.
func (w *watchdog) tick() {
	replicas := w.b.held()
	longest := 0
	for shard, r := range replicas {
		s := w.seen[shard]
		if number, under := r.Writing(); !under {
			s = stroke{}
		} else if number == s.number {
			s.ticks++
		} else {
			s = stroke{number: number}
		}
		w.seen[shard] = s
		longest = max(longest, s.ticks)
	}
	stands := longest >= stallTicks
	calm := int64(0)
	if !stands {
		calm = min(w.calm.Load()+1, calmTicks)
	}
	w.calm.Store(calm)
	if unfit := calm < calmTicks; unfit != w.unfit.Swap(unfit) {
		if unfit {
			w.b.opt.Log.Warn("the disk stands still: this node's leaderships are handed over", "dir", w.b.opt.DiskDir, "for_ms", int64(longest)*watchdogTick.Milliseconds())
		} else {
			w.b.opt.Log.Info("the disk goes on: this node may lead again", "dir", w.b.opt.DiskDir)
		}
	}
	if !stands {
		return
	}
	for shard, r := range replicas {
		term := r.Leading()
		if term == 0 {
			continue
		}
		busy := w.busy[shard]
		if busy == nil {
			busy = new(atomic.Bool)
			w.busy[shard] = busy
		}
		if busy.CompareAndSwap(false, true) {
			w.b.group.Go(func() {
				defer busy.Store(false)
				w.handOver(shard, r, term)
			})
		}
	}
}

// handOver has another voter win a term of a shard that this node leads, the one
// that has most of its log if that can.
func (w *watchdog) handOver(shard replication.ShardID, r heldReplica, term uint64) {
	heirs := slices.DeleteFunc(heirsOf(r.Progress()), func(m replication.Member) bool {
		return m.Behind || !w.b.opt.Cluster.Peers.Connected(m.ID.Node)
	})
	for _, heir := range heirs {
		next, err := w.offer(mandate{shard: shard, replica: heir.ID, term: term})
		if err != nil {
			w.b.opt.Log.Info("a node did not take a leadership over", "shard", shard, "node", heir.ID.Node, "err", err)
			continue
		}
		w.moved.Add(1)
		w.b.opt.Log.Info("a leadership was handed over, as the disk stands still", "shard", shard, "node", next.replica.Node, "term", next.term)
		r.Deposed(term, next.replica, next.term)
		return
	}
}

// offer asks the replica that m names to lead after m's term, and returns who
// does.
func (w *watchdog) offer(m mandate) (mandate, error) {
	ctx, cancel := context.WithTimeout(w.b.stopping, takeOverTimeout+time.Second)
	defer cancel()
	raw, err := w.b.opt.Cluster.Peers.Call(ctx, m.replica.Node, methodTakeOver, encodeMandate(m))
	if err != nil {
		return mandate{}, err
	}
	next, err := decodeMandate(raw)
	if err == nil && (next.shard != m.shard || next.term <= m.term) {
		err = fmt.Errorf("broker: node %d answers that shard %d is led in term %d, asked to lead shard %d after term %d",
			m.replica.Node, next.shard, next.term, m.shard, m.term)
	}
	return next, err
}

// answerTakeOver answers methodTakeOver: the replica campaigns, if the sender
// leads it and this node's disk moves, and the answer comes when somebody has won
// a later term.
func (b *Broker) answerTakeOver(ctx context.Context, from int32, payload []byte) ([]byte, error) {
	m, err := decodeMandate(payload)
	if err != nil {
		return nil, err
	}
	r := b.held()[m.shard]
	if r == nil {
		return nil, fmt.Errorf("node %d has no shard %d", b.opt.NodeID, m.shard)
	}
	if err := b.refusal(); err != nil {
		return nil, err
	}
	switch p := r.Progress(); {
	case p.ID != m.replica || p.Term < m.term:
		return nil, fmt.Errorf("shard %d has replica %s in term %d here, and %s is to lead after term %d", m.shard, p.ID, p.Term, m.replica, m.term)
	case p.Term > m.term: // asked twice, or another was
	case !p.HasLeader || p.Leader.Node != from:
		return nil, fmt.Errorf("node %d does not lead shard %d in term %d", from, m.shard, m.term)
	case !r.Campaign(m.term):
		return nil, fmt.Errorf("replica %s of shard %d cannot campaign after term %d", p.ID, m.shard, m.term)
	}
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	tick := time.NewTicker(leaderTick)
	defer tick.Stop()
	for {
		p := r.Progress()
		if p.HasLeader && p.Term > m.term && (p.Leading || p.Leader != p.ID) {
			return encodeMandate(mandate{shard: m.shard, replica: p.Leader, term: p.Term}), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("nobody leads shard %d after term %d yet", m.shard, m.term)
		case <-b.stopping.Done():
			return nil, fmt.Errorf("node %d is stopping", b.opt.NodeID)
		}
	}
}

// mandate is a term of a shard, and a replica: the one that is to lead after it, or
// the one that leads in it.
type mandate struct {
	shard   replication.ShardID
	replica replication.ReplicaID
	term    uint64
}

const mandateBytes = 24

// encodeMandate lays a mandate out (little-endian):
//
//	0       4      8             16     24
//	+-------+------+-------------+------+
//	| shard | node | incarnation | term |
//	+-------+------+-------------+------+
func encodeMandate(m mandate) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, mandateBytes), uint32(m.shard))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.replica.Node))
	b = binary.LittleEndian.AppendUint64(b, m.replica.Incarnation)
	return binary.LittleEndian.AppendUint64(b, m.term)
}

// decodeMandate is the inverse of encodeMandate, for any bytes.
func decodeMandate(b []byte) (mandate, error) {
	if len(b) != mandateBytes {
		return mandate{}, fmt.Errorf("broker: a mandate of %d bytes, want %d", len(b), mandateBytes)
	}
	return mandate{
		shard:   replication.ShardID(binary.LittleEndian.Uint32(b)),
		replica: replication.ReplicaID{Node: int32(binary.LittleEndian.Uint32(b[4:])), Incarnation: binary.LittleEndian.Uint64(b[8:])},
		term:    binary.LittleEndian.Uint64(b[16:]),
	}, nil
}
