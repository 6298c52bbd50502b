package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// methodContact is how nodes keep in contact, and tell each other which shards they
// lead, and which of their replicas are in sync: who has no replica of a shard knows
// its leader from nowhere else (R19), and a follower not who lags. A node calls each
// other one once a second, and at once when it leads a shard more.
// The call and its answer have the same form (little-endian, offsets in bytes):
//
//	0        1          4       8             16
//	+--------+----------+-------+-------------+---------+---------+ - -
//	| format | reserved | count | incarnation | shard 1 | shard 2 |
//	|        | 0        |       |             |         |         |
//	+--------+----------+-------+-------------+---------+---------+ - -
//
//	shard:  0    4          12     20       24      28
//	        +----+----------+------+--------+-------+--------+--------+ - -
//	        | id | added at | term | change | count | node 1 | node 2 |
//	        +----+----------+------+--------+-------+--------+--------+ - -
//
// incarnation is that of the directory of the node that speaks. The shards are
// the data shards that it leads, ascending by id; added at is the metadata index
// of the entry that added the shard, 0 for one that the cluster was founded with.
// The nodes are those whose replicas are in sync, ascending, 4 bytes each, and change
// counts from 1 how often they have become others in the term: of two words of a
// leader the one with the later term and change holds, in whatever order they come.
const methodContact transport.Method = 6

const (
	contactFormat      = 1
	contactHeaderBytes = 16
	contactShardBytes  = 28 // without nodes
	contactNodeBytes   = 4

	contactInterval = time.Second
	contactTimeout  = 2 * time.Second // that an answer may take
)

// led is a shard that a node says it leads.
type ledShard struct {
	shard   metadata.ShardID
	addedAt uint64 // metadata index
	term    uint64

	change uint32  // of inSync, in the term
	inSync []int32 // nodes, ascending; shared, never changed
}

// contact is what a node says of itself.
type contact struct {
	incarnation uint64 // of its directory
	leads       []ledShard
}

// errContact reports bytes that are no contact.
var errContact = errors.New("broker: not what a node says of itself")

func (c contact) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, contactHeaderBytes+len(c.leads)*(contactShardBytes+3*contactNodeBytes))
	b = le.AppendUint32(append(b, contactFormat, 0, 0, 0), uint32(len(c.leads)))
	b = le.AppendUint64(b, c.incarnation)
	for _, l := range c.leads {
		b = le.AppendUint64(le.AppendUint64(le.AppendUint32(b, uint32(l.shard)), l.addedAt), l.term)
		b = le.AppendUint32(le.AppendUint32(b, l.change), uint32(len(l.inSync)))
		for _, id := range l.inSync {
			b = le.AppendUint32(b, uint32(id))
		}
	}
	return b
}

// decodeContact reads what a node says of itself. Its errors match errContact.
func decodeContact(b []byte) (c contact, err error) {
	le := binary.LittleEndian
	switch {
	case len(b) > 0 && b[0] != contactFormat:
		return c, fmt.Errorf("%w: format %d, this version reads %d", errContact, b[0], contactFormat)
	case len(b) < contactHeaderBytes || b[1]|b[2]|b[3] != 0:
		return c, fmt.Errorf("%w: %d bytes, want at least %d, of which those reserved are zero", errContact, len(b), contactHeaderBytes)
	}
	count, rest := le.Uint32(b[4:]), b[contactHeaderBytes:]
	if count > metadata.MaxShards || int(count)*contactShardBytes > len(rest) {
		return c, fmt.Errorf("%w: %d shards in %d bytes", errContact, count, len(rest))
	}
	c.incarnation = le.Uint64(b[8:])
	for n := range int(count) {
		if len(rest) < contactShardBytes {
			return contact{}, fmt.Errorf("%w: shard %d of %d is cut off", errContact, n+1, count)
		}
		l := ledShard{shard: metadata.ShardID(le.Uint32(rest)), addedAt: le.Uint64(rest[4:]), term: le.Uint64(rest[12:]), change: le.Uint32(rest[20:])}
		nodes := le.Uint32(rest[24:])
		if l.term == 0 || l.shard == 0 || n > 0 && l.shard <= c.leads[n-1].shard {
			return contact{}, fmt.Errorf("%w: shard %d in term %d at place %d", errContact, l.shard, l.term, n)
		}
		if rest = rest[contactShardBytes:]; nodes > metadata.MaxReplicas || int(nodes)*contactNodeBytes > len(rest) {
			return contact{}, fmt.Errorf("%w: %d nodes in sync of shard %d in %d bytes", errContact, nodes, l.shard, len(rest))
		}
		for ; nodes > 0; nodes-- {
			id := int32(le.Uint32(rest))
			if k := len(l.inSync); id < 0 || k > 0 && id <= l.inSync[k-1] {
				return contact{}, fmt.Errorf("%w: node %d at place %d of those in sync of shard %d", errContact, id, k, l.shard)
			}
			l.inSync, rest = append(l.inSync, id), rest[contactNodeBytes:]
		}
		c.leads = append(c.leads, l)
	}
	if len(rest) > 0 {
		return contact{}, fmt.Errorf("%w: %d bytes after the last shard", errContact, len(rest))
	}
	return c, nil
}

// announced is who leads a shard, and which replicas are in sync, as the leader has
// said.
type announced struct {
	node    int32
	addedAt uint64
	term    uint64
	change  uint32
	inSync  []int32
}

// before reports whether what was announced is of before what a leader says now.
func (a *announced) before(l *ledShard) bool {
	return cmp.Or(cmp.Compare(a.addedAt, l.addedAt), cmp.Compare(a.term, l.term), cmp.Compare(a.change, l.change)) < 0
}

// contacts keeps a node in contact with the others.
type contacts struct {
	b *Broker

	mu    sync.Mutex
	peers map[metadata.NodeID]chan struct{} // wakes the goroutine that calls a node

	heard heard

	saying sync.Mutex
	said   map[metadata.ShardID]ledShard // the last that this node has said of what it leads

	hearing sync.Mutex
	leaders atomic.Pointer[map[metadata.ShardID]announced] // written under hearing, never changed
}

func newContacts(b *Broker) *contacts {
	c := &contacts{b: b, peers: make(map[metadata.NodeID]chan struct{}), said: make(map[metadata.ShardID]ledShard)}
	c.leaders.Store(&map[metadata.ShardID]announced{})
	return c
}

// run has a goroutine call each other node that is registered, for as long as the
// broker runs.
func (c *contacts) run() {
	b := c.b
	if b.opt.Cluster.Peers == nil {
		return
	}
	for {
		changed := b.metaState.changed.wait()
		for n := range b.image().Nodes() {
			if int32(n.ID) != b.opt.NodeID {
				c.meet(n.ID)
			}
		}
		select {
		case <-changed:
		case <-b.stopping.Done():
			return
		}
	}
}

// meet begins to call a node, unless that was begun before.
func (c *contacts) meet(id metadata.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers[id] != nil {
		return
	}
	wake := make(chan struct{}, 1)
	c.peers[id] = wake
	c.b.group.Go(func() { c.keep(id, wake) })
}

// kick has all nodes told at once what this one leads. It does not block.
func (c *contacts) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, wake := range c.peers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// keep keeps in contact with one node.
func (c *contacts) keep(id metadata.NodeID, wake <-chan struct{}) {
	tick := time.NewTicker(contactInterval)
	defer tick.Stop()
	for {
		c.call(id)
		select {
		case <-tick.C:
		case <-wake:
		case <-c.b.stopping.Done():
			return
		}
	}
}

// call calls a node once. One that does not answer is called again soon.
func (c *contacts) call(id metadata.NodeID) {
	ctx, cancel := context.WithTimeout(c.b.stopping, contactTimeout)
	defer cancel()
	raw, err := c.b.opt.Cluster.Peers.Call(ctx, int32(id), methodContact, c.own().encode())
	if err != nil {
		return
	}
	if said, err := decodeContact(raw); err == nil {
		c.hear(int32(id), &said)
	}
}

// answer answers a call.
func (c *contacts) answer(from int32, payload []byte) ([]byte, error) {
	said, err := decodeContact(payload)
	if err != nil {
		return nil, err
	}
	c.hear(from, &said)
	return c.own().encode(), nil
}

// own is what this node says.
func (c *contacts) own() contact {
	said := contact{incarnation: c.b.opt.Incarnation}
	im := c.b.image()
	for _, s := range c.b.carriedInOrder() {
		id := metadata.ShardID(s.id)
		if shard := im.Shard(id); shard != nil {
			if l := c.say(s, ledShard{shard: id, addedAt: shard.CreatedAt}); l.term != 0 {
				said.leads = append(said.leads, l)
			}
		}
	}
	return said
}

// say adds to a shard in which term this node leads it, 0 if it does not, and which
// replicas are in sync. Two that are said at a time are in the order of their terms
// and changes: a change of a term that is over would have the next one counted anew.
func (c *contacts) say(s *dataShard, l ledShard) ledShard {
	c.saying.Lock()
	defer c.saying.Unlock()
	if l.term = s.replica.Leading(); l.term == 0 {
		return l
	}
	var room [metadata.MaxReplicas]replication.Standing
	inSync, _ := c.b.inSync(room[:0], s)
	was := c.said[l.shard]
	if was.addedAt == l.addedAt && was.term == l.term {
		l.change, l.inSync = was.change, was.inSync
	}
	if l.change == 0 || !slices.EqualFunc(l.inSync, inSync, func(id int32, v replication.Standing) bool { return id == v.ID.Node }) {
		l.change++
		l.inSync = make([]int32, len(inSync))
		for i, v := range inSync {
			l.inSync[i] = v.ID.Node
		}
		c.said[l.shard] = l
	}
	return l
}

// hear takes note of what a node says. A leader is believed if the metadata lists
// the node for that very shard, and nothing later was heard; what this node does
// not know of yet is said again soon.
func (c *contacts) hear(from int32, said *contact) {
	im := c.b.image()
	n := im.Node(metadata.NodeID(from))
	if n == nil || n.Incarnation != said.incarnation {
		return
	}
	c.heard.note(n.ID, time.Now())
	c.hearing.Lock()
	defer c.hearing.Unlock()
	now := *c.leaders.Load()
	var next map[metadata.ShardID]announced
	for _, l := range said.leads {
		s := im.Shard(l.shard)
		if s == nil || s.CreatedAt != l.addedAt || !slices.Contains(s.Replicas, n.ID) {
			continue
		}
		if was := now[l.shard]; !was.before(&l) {
			continue
		}
		if next == nil {
			next = make(map[metadata.ShardID]announced, len(now)+1)
			for k, v := range now {
				next[k] = v
			}
		}
		next[l.shard] = announced{from, l.addedAt, l.term, l.change, l.inSync}
	}
	if next != nil {
		c.leaders.Store(&next)
	}
}

// leaderOf returns who leads a shard, and in which term, as the nodes have said.
func (c *contacts) leaderOf(shard *metadata.Shard) (node int32, term uint64, ok bool) {
	a, ok := (*c.leaders.Load())[shard.ID]
	if !ok || a.addedAt != shard.CreatedAt {
		return 0, 0, false
	}
	if n := c.b.image().Node(metadata.NodeID(a.node)); n == nil || n.Fenced {
		return 0, 0, false
	}
	return a.node, a.term, true
}

// inSyncOf returns the nodes whose replicas of a shard are in sync, as the last of its
// leaders has said that was heard; nil: none was. They are shared: do not change them.
func (c *contacts) inSyncOf(shard *metadata.Shard) []int32 {
	if shard == nil {
		return nil
	}
	if a, ok := (*c.leaders.Load())[shard.ID]; ok && a.addedAt == shard.CreatedAt {
		return a.inSync
	}
	return nil
}

// shardLeaderOf returns who leads a data shard, and in which term, as far as this
// node knows: by its own replica, and of a shard that it does not carry by what the
// leader says. ok is false for nobody.
func (b *Broker) shardLeaderOf(shard replication.ShardID) (node int32, term uint64, ok bool) {
	if s := b.carried()[shard]; s != nil {
		if term := s.replica.Leading(); term != 0 {
			return b.opt.NodeID, term, true
		}
		node, term, ok := leaderOfShard(s.replica)
		return node, term, ok && node != b.opt.NodeID
	}
	if s := b.image().Shard(metadata.ShardID(shard)); s != nil {
		return b.contacts.leaderOf(s)
	}
	return 0, 0, false
}
