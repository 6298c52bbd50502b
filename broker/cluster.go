package broker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// Cluster is the nodes that a cluster was founded with, of which each has a voter
// of the metadata shard, and of every shard that it was founded with. All nodes are
// given the same Founders and Voters, those that joined later too.
type Cluster struct {
	Founders []Founder

	// Voters returns a shard's first voters, one on each founder.
	Voters func(shard replication.ShardID) []replication.ReplicaID

	// Replica returns the replica of a shard that belongs to a data directory of a
	// node: one of Voters for a founder's, and for every other directory another one.
	Replica func(shard replication.ShardID, node int32, directory uint64) replication.ReplicaID

	// Connect makes the transport of one of this node's replicas, which owns it.
	Connect func(shard replication.ShardID, id replication.ReplicaID) transport.Transport

	// Peers asks the other nodes, and is asked by them. Who made it closes it, after
	// the node.
	Peers transport.Peers

	// NodeAddress is where the others reach this node's listener for nodes, host:port;
	// "": they are not told.
	NodeAddress string

	// Met, unless nil, is told where the other nodes listen for each other, as the
	// metadata says, at first and whenever that changes. It may wait for the disk.
	Met func(addresses map[int32]string)
}

// Founder is one of the nodes that a cluster was founded with.
type Founder struct {
	ID          int32
	Incarnation uint64 // of its data directory
}

// founder reports whether a node is one of those that the cluster was founded with. A
// node that is alone is.
func (b *Broker) founder(node int32) bool {
	return b.opt.Cluster == nil || slices.ContainsFunc(b.opt.Cluster.Founders, func(f Founder) bool { return f.ID == node })
}

// connect returns how a replica of this node reaches the others, and the
// shard's first voters.
func (b *Broker) connect(shard replication.ShardID, id replication.ReplicaID) (replication.Transport, []replication.ReplicaID) {
	if b.opt.Cluster == nil {
		return transport.NewSolo(id), []replication.ReplicaID{id}
	}
	return b.opt.Cluster.Connect(shard, id), b.firstVoters(shard)
}

// firstVoters returns the replicas that a shard of a cluster begins with. Of an
// added shard that this node does not know of yet there are none.
func (b *Broker) firstVoters(shard replication.ShardID) []replication.ReplicaID {
	if b.founded(shard) {
		return b.opt.Cluster.Voters(shard)
	}
	im := b.image()
	if im == nil {
		return nil
	}
	return addedVoters(im, metadata.ShardID(shard))
}

// addedVoters returns the replicas that an added shard begins with. Their
// incarnations follow from the shard, the entry that added it, and the random ones
// of the directories, so that all nodes know them, and neither another directory
// nor another shard of the same id ever has them (R11).
func addedVoters(im *metadata.Image, shard metadata.ShardID) []replication.ReplicaID {
	s := im.Shard(shard)
	if s == nil {
		return nil
	}
	var ids []replication.ReplicaID
	for _, f := range s.Founders {
		ids = append(ids, addedReplica(im, s, f))
	}
	return ids
}

// addedReplica returns the replica of an added shard that belongs to a directory.
func addedReplica(im *metadata.Image, s *metadata.Shard, f metadata.Founder) replication.ReplicaID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %d %d %016x", im.ClusterID(), s.ID, s.CreatedAt, f.Node, f.Directory))
	return replication.ReplicaID{Node: int32(f.Node), Incarnation: binary.LittleEndian.Uint64(sum[:]) | 1} // never zero
}

// replicaOf returns the replica of a shard that belongs to a data directory of a
// node: one of the shard's first voters for theirs, and for every other directory
// another one. Of an added shard that this node does not know it is the zero one.
func (b *Broker) replicaOf(shard replication.ShardID, node int32, directory uint64) replication.ReplicaID {
	if b.founded(shard) {
		return b.opt.Cluster.Replica(shard, node, directory)
	}
	im := b.image()
	if im == nil || im.Shard(metadata.ShardID(shard)) == nil {
		return replication.ReplicaID{}
	}
	return addedReplica(im, im.Shard(metadata.ShardID(shard)), metadata.Founder{Node: metadata.NodeID(node), Directory: directory})
}

// begins reports whether a data directory may have a replica of an added shard that
// it has no record of: the shard begins with it, or it has taken the place of one
// that was lost.
func begins(im *metadata.Image, shard metadata.ShardID, here metadata.Founder) bool {
	s := im.Shard(shard)
	if s == nil || !slices.Contains(s.Replicas, here.Node) {
		return false
	}
	n := im.Node(here.Node)
	return slices.Contains(s.Founders, here) || n != nil && n.Incarnation == here.Directory
}

// place returns the incarnation of a shard's replica that is this directory's, if the
// node is one of a cluster, and 0 otherwise. A directory that has lost what it voted
// and acknowledged is another one, so its replica has another name (R11).
func (b *Broker) place(shard replication.ShardID) uint64 {
	if b.opt.Cluster == nil {
		return 0
	}
	if !b.founded(shard) {
		here := metadata.Founder{Node: metadata.NodeID(b.opt.NodeID), Directory: b.opt.Incarnation}
		if im := b.image(); im == nil || !begins(im, metadata.ShardID(shard), here) {
			return 0
		}
	}
	return b.replicaOf(shard, b.opt.NodeID, b.opt.Incarnation).Incarnation
}

// ConfirmController returns nil if this node leads the metadata shard, so that
// what it has applied is all that was acknowledged before the call (R19), and
// otherwise NOT_CONTROLLER.
func (b *Broker) ConfirmController(ctx context.Context) error {
	if _, err := b.meta.Confirm(ctx); err != nil {
		if ctx.Err() != nil {
			return errcode.Errorf(errcode.RequestTimedOut, "the metadata shard did not answer in time; nothing was done")
		}
		return notController(err)
	}
	return nil
}

// notController is the answer to what only the metadata leader does, and was not
// done.
func notController(err error) *errcode.Error {
	return &errcode.Error{Code: errcode.NotController, Detail: err.Error()}
}

// Leader is where a client is sent.
type Leader struct {
	Node    int32
	Address string // host:port
	Epoch   int32  // leader epoch of the partition; the metadata shard's term
	Rack    string // "" if it has none
}

// Controller returns who leads the metadata shard, as far as this node knows,
// with its address for clients of a listener.
func (b *Broker) Controller(listener string) (Leader, bool) {
	id, term, ok := leaderOfShard(b.meta)
	return b.leader(listener, id, int32(term), ok)
}

// PartitionLeader returns who leads a partition, as far as this node knows, with
// its address for clients of a listener.
func (b *Broker) PartitionLeader(listener string, topic TopicID, index int32) (Leader, bool) {
	l := b.leaderOf(topic, index)
	return b.leader(listener, l.Node, l.Epoch, l.Node >= 0)
}

func (b *Broker) leader(listener string, node, epoch int32, ok bool) (Leader, bool) {
	if !ok {
		return Leader{}, false
	}
	nodes := b.Nodes(listener)
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == node })
	if i < 0 {
		return Leader{}, false
	}
	return Leader{Node: node, Address: nodes[i].Address, Epoch: epoch, Rack: nodes[i].Rack}, true
}

// leaderOfShard returns another node that leads a shard, and its term.
func leaderOfShard[R any](r *replication.Replica[R]) (node int32, term uint64, ok bool) {
	before := r.Term()
	id, ok := r.Leader()
	return id.Node, before, ok && r.Term() == before
}

// Leads returns the shards that this node leads, the metadata shard among them.
func (b *Broker) Leads() []replication.ShardID {
	var ids []replication.ShardID
	if b.meta.Leading() != 0 {
		ids = append(ids, replication.MetadataShard)
	}
	for id, s := range b.carried() {
		if s.replica.Leading() != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Knows returns nil once this node has applied any metadata: an empty image says
// nothing of what there is.
func (b *Broker) Knows() error {
	if b.image().ClusterID() == "" {
		return errcode.Errorf(errcode.NotController, "node %d has no metadata yet; ask another", b.opt.NodeID)
	}
	return nil
}

// HandOver hands the leaderships of this node over, as far as there is somebody
// to take them, before ctx ends: the others then need not notice its end first.
// They go to voters that answer; if none of these is ready in time, the one that
// is furthest is waited for. From then on this node takes none, as far as it is
// asked.
func (b *Broker) HandOver(ctx context.Context) {
	if b.opt.Cluster == nil {
		return
	}
	b.leaving.Store(true)
	b.handOverAll(ctx)
	b.handOverAll(ctx) // of an election that was under way
}

func (b *Broker) handOverAll(ctx context.Context) {
	var group sync.WaitGroup
	report := func(shard replication.ShardID, err error) {
		if err != nil {
			b.opt.Log.Info("a leadership was not handed over; the others elect a leader", "shard", shard, "err", err)
		}
	}
	for id, r := range b.held() {
		if r.Leading() != 0 {
			group.Go(func() {
				err := transferAway(ctx, r, r.Progress())
				if errors.Is(err, replication.ErrHeirLags) && ctx.Err() == nil {
					err = r.Transfer(ctx)
				}
				report(id, err)
			})
		}
	}
	group.Wait()
}

// confirmTimeout bounds how long a request waits to learn whether this node still
// leads what it asks for.
const confirmTimeout = time.Second

// Confirmed is what the parts of one request know of whether this node still leads
// their shards (R19): the voters of each shard are asked once, when the first part
// needs to know, and all questions together take confirmTimeout. The zero value is
// what a request begins with. It is for one goroutine.
type Confirmed struct {
	until time.Time // the zero time before the first question
	of    map[*dataShard]error
}

// current reports whether what p's shard has applied here was all that there
// was, at a moment after the request came.
func (c *Confirmed) current(b *Broker, p *placed) bool {
	err, asked := c.of[p.shard]
	if !asked {
		if c.of == nil {
			c.until, c.of = time.Now().Add(confirmTimeout), make(map[*dataShard]error)
		}
		ctx, cancel := context.WithDeadline(b.stopping, c.until)
		_, err = p.shard.replica.Confirm(ctx)
		cancel()
		c.of[p.shard] = err
	}
	return err == nil
}

// Offsets answers each part, as Offset does. What lies above the log start is that
// of a moment after the call: the voters of each shard are asked once whether
// this node still leads it (R19).
func (b *Broker) Offsets(ctx context.Context, parts []OffsetPart) []OffsetResult {
	var unled []*dataShard
	for i := range parts {
		unled = b.unled(unled, parts[i].Topic, parts[i].Index)
	}
	b.awaitHandovers(ctx, unled)
	confirm := b.confirmations(ctx)
	results := make([]OffsetResult, len(parts))
	for i := range parts {
		part := &parts[i]
		if p := b.dir.find(part.Topic, part.Index); p != nil && part.At != OffsetEarliest && p.epoch() >= 0 {
			if err := confirm(p); err != nil {
				results[i] = noOffset(err)
				continue
			}
		}
		r, err := b.offset(ctx, part)
		if err != nil {
			r = noOffset(err)
		}
		results[i] = r
	}
	return results
}

func noOffset(err *errcode.Error) OffsetResult {
	return OffsetResult{Err: err, Offset: -1, TimestampMS: -1, Epoch: -1}
}

// OffsetsWait reports whether Offsets may have to wait for disks or other nodes,
// so that who reads a connection must not wait for it.
func (b *Broker) OffsetsWait(parts []OffsetPart) bool {
	return b.opt.Cluster != nil || slices.ContainsFunc(parts, func(p OffsetPart) bool { return p.NeedsDisk() })
}

// addresses returns those of a node's listeners, as the metadata keeps them.
func addresses(listeners []Listener) ([]metadata.Address, error) {
	all := make([]metadata.Address, len(listeners))
	for i, l := range listeners {
		host, portText, err := net.SplitHostPort(l.Advertise)
		if err != nil {
			return nil, fmt.Errorf("advertised address of the listener %s, %s: %w", l.Name, l.Advertise, err)
		}
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("advertised address of the listener %s, %s: %w", l.Name, l.Advertise, err)
		}
		all[i] = metadata.Address{Listener: l.Name, Host: host, Port: uint16(port)}
	}
	return all, nil
}
