package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/log/control"
	"github.com/flotilla-log/flotilla/replication"
)

// A node carries the shards that it was founded with, and those that the metadata
// has added with a replica on its directory. What is on its disk runs from the
// start on; the others from when it applies that they were added:
//
//	AddShards applied -> vote record -> first configuration -> Raft runs
//	                     (incarnation)  (in the journal)
//
// Until the first configuration is durable the replica has said nothing to
// anybody, and a start begins again with the same incarnation and the same
// configuration, which follow from the metadata. From then on its log says what
// it is, and a log that is lost is noticed (R11).

// errNotFounder reports a replica that this node's directory is not to begin.
var errNotFounder = errors.New("broker: the shard does not begin with this node's directory")

// carried returns this node's replicas of data shards that run, by shard. The map
// is not to be changed; it may have grown by the next call.
func (b *Broker) carried() map[replication.ShardID]*dataShard { return *b.shards.Load() }

// carriedInOrder is carried, ascending by shard.
func (b *Broker) carriedInOrder() []*dataShard {
	shards := b.carried()
	all := make([]*dataShard, 0, len(shards))
	for _, id := range slices.Sorted(maps.Keys(shards)) {
		all = append(all, shards[id])
	}
	return all
}

// enter lets everybody find a shard. It is for Start, and then for carrying alone.
func (b *Broker) enter(s *dataShard) {
	shards := maps.Clone(b.carried())
	shards[s.id] = s
	b.shards.Store(&shards)
}

// founded reports whether a shard is one of those that the cluster was founded
// with, the metadata shard among them.
func (b *Broker) founded(shard replication.ShardID) bool { return uint32(shard) <= b.opt.Shards }

// kept lists the added shards of which this node's disk holds entries or a
// checkpoint, ascending.
func (b *Broker) kept() ([]replication.ShardID, error) {
	found := make(map[replication.ShardID]bool)
	for _, s := range b.opt.Journal.Shards() {
		if id := replication.ShardID(s.ID); s.Last > 0 && !b.founded(id) {
			found[id] = true
		}
	}
	names, err := b.opt.FS.ReadDir(b.opt.ShardsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("broker: %w", err)
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 32)
		id := replication.ShardID(n)
		if err != nil || b.founded(id) || name != strconv.Itoa(int(id)) {
			continue
		}
		has, err := b.hasCheckpoint(id)
		if err != nil {
			return nil, err
		}
		if has {
			found[id] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// hasCheckpoint reports whether a shard has one on this node.
func (b *Broker) hasCheckpoint(shard replication.ShardID) (bool, error) {
	names, err := b.opt.FS.ReadDir(b.checkpointDir(shard))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("broker: %w", err)
	}
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasSuffix(name, ".checkpoint") }), nil
}

// runCarrying starts the replicas that the metadata gives this node, for as long as
// the broker runs.
func (b *Broker) runCarrying() {
	refused := make(map[replication.ShardID]bool) // it was said
	for {
		changed := b.metaState.changed.wait()
		var again <-chan time.Time
		for _, shard := range b.image().Carried(metadata.NodeID(b.opt.NodeID)) {
			id := replication.ShardID(shard.ID)
			if b.carried()[id] != nil || b.founded(id) || b.stopping.Err() != nil {
				continue
			}
			switch err := b.carry(shard); {
			case err == nil:
				b.opt.Log.Info("this node carries one shard more", "shard", id, "replicas", fmt.Sprint(shard.Replicas))
			case errors.Is(err, errNotFounder):
				// Until it hears that this directory has taken the place of another.
				if !refused[id] {
					refused[id] = true
					b.opt.Log.Warn("a shard lists this node, and begins with another directory of it than the node has; it runs without this replica",
						"shard", id, "err", err)
				}
			case errors.Is(err, control.ErrNoRoom):
				b.opt.Log.Warn("the disk has no room for a shard of this node; trying again", "shard", id, "err", err)
				again = time.After(retryAfter)
			default:
				// What is there cannot be trusted, or a write failed (R9).
				b.opt.OnFailed(err)
				return
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-b.stopping.Done():
			return
		}
	}
}

// campaignAfter is when the preferred leader of a new shard stands for election if
// nobody leads it: the others run by then, and wait for a silence of a second.
const campaignAfter = 200 * time.Millisecond

// carry starts this node's replica of an added shard.
func (b *Broker) carry(shard *metadata.Shard) error {
	s, err := b.openData(replication.ShardID(shard.ID))
	if err != nil {
		return err
	}
	if err := s.replica.Run(); err != nil {
		return err
	}
	b.enter(s)
	b.reconciler.kick() // it may lead already
	b.contacts.kick()
	if shard.Preferred() == metadata.NodeID(b.opt.NodeID) {
		b.carrying.Go(func() { b.leadFirst(s) })
	}
	return nil
}

// leadFirst has the replica of a new shard lead it, unless another one does. To who
// is too early for the others it happens as to them: an election after a silence.
func (b *Broker) leadFirst(s *dataShard) {
	select {
	case <-time.After(campaignAfter):
	case <-b.stopping.Done():
		return
	}
	if _, led := s.replica.Leader(); !led {
		s.replica.Campaign(s.replica.Term())
	}
}
