package broker

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// maxAwaitExisting is how long who creates a topic that exists waits for its
// partitions.
const maxAwaitExisting = 5 * time.Second

// awaitTick is how often a wait for a new topic's partitions looks whether the
// topic was deleted meanwhile.
const awaitTick = 100 * time.Millisecond

// proposeMeta proposes a command to the metadata shard and waits for its
// result.
func (b *Broker) proposeMeta(ctx context.Context, c metadata.Command) (metadata.Result, error) {
	type answer struct {
		r   metadata.Result
		err error
	}
	got := make(chan answer, 1)
	p := &replication.Proposal[metadata.Result]{
		Command: c,
		Done:    func(r metadata.Result, err error) { got <- answer{r, err} },
	}
	if err := b.meta.Propose(p); err != nil {
		return metadata.Result{}, notController(err)
	}
	select {
	case a := <-got:
		if errors.Is(a.err, replication.ErrNotLeader) {
			return a.r, notController(a.err) // it waited, and was not proposed
		}
		if a.err != nil {
			return a.r, CodeOf(a.err)
		}
		return a.r, a.r.Err()
	case <-ctx.Done():
		b.meta.Cancel(p)
		return metadata.Result{}, errcode.Errorf(errcode.RequestTimedOut, "the metadata shard did not answer in time; it may still do what was asked")
	}
}

// CreateTopic creates a topic, and returns when all of its partitions take
// records; so do those of one that exists (TOPIC_ALREADY_EXISTS), unless time is
// up. A time-out leaves a topic that is completed later. While the disk is
// nearly full it is refused with KAFKA_STORAGE_ERROR, which can be retried.
func (b *Broker) CreateTopic(ctx context.Context, spec TopicSpec) (Topic, error) {
	partitions, replication := b.TopicDefaults()
	if spec.Partitions == 0 {
		spec.Partitions = partitions
	}
	if spec.Replication == 0 || spec.Replication == -1 {
		spec.Replication = replication
	}
	if err := b.ConfirmController(ctx); err != nil {
		return Topic{}, err
	}
	if im := b.image(); im.Shard(metadata.ShardID(b.opt.Shards)) == nil {
		return Topic{}, errcode.Errorf(errcode.NotController, "the cluster's shards are being made")
	}
	c, err := b.planTopic(&spec)
	if err != nil {
		if !spec.ValidateOnly {
			b.awaitExisting(ctx, spec.Name, err)
		}
		return Topic{}, err
	}
	if spec.ValidateOnly {
		im := b.image()
		if _, err := assign(im, b.lacking(im, int(spec.Replication)), int(spec.Replication), nil, int(spec.Partitions), spec.Replicas); err != nil {
			return Topic{}, err
		}
		return Topic{Name: spec.Name, Partitions: int(spec.Partitions)}, nil
	}
	if full := b.disk.refusal(); full != nil {
		return Topic{}, full
	}
	if err := b.shardsFor(ctx, int(spec.Replication)); err != nil {
		return Topic{}, err
	}
	if c.Assignment, err = assign(b.image(), nil, int(spec.Replication), nil, int(spec.Partitions), spec.Replicas); err != nil {
		return Topic{}, err
	}
	give, err := b.reservePartitions(len(c.Assignment))
	if err != nil {
		return Topic{}, err
	}
	_, err = io.ReadFull(b.opt.Rand, c.ID[:])
	if err != nil {
		give()
		return Topic{}, errcode.Errorf(errcode.UnknownServer, "topic id: %v", err)
	}
	_, err = b.proposeMeta(ctx, c)
	give()
	if err != nil {
		b.awaitExisting(ctx, spec.Name, err)
		return Topic{}, err
	}
	b.reportInert(c.Name, c.Configs)
	if err := b.awaitPartitions(ctx, partition.TopicID(c.ID), c.Assignment, true); err != nil {
		return Topic{}, err
	}
	t, missing := b.TopicByID(partition.TopicID(c.ID))
	if missing != nil {
		// It was created, and deleted in the meantime. An error would have the
		// client create it again.
		return Topic{Name: spec.Name, ID: TopicID(c.ID), Partitions: len(c.Assignment)}, nil
	}
	return t, nil
}

// awaitExisting waits, if err says that a topic exists, until its partitions take
// records: who hears of it will use it, and somebody else may be creating it yet.
func (b *Broker) awaitExisting(ctx context.Context, name string, err error) {
	if errcode.Of(err) != errcode.TopicAlreadyExists || b.disk.state().Low { // which its partitions wait for, too
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxAwaitExisting) // or the answer comes when nobody waits for it any more
	defer cancel()
	if t := b.image().TopicByName(name); t != nil {
		_ = b.awaitPartitions(ctx, partition.TopicID(t.ID), t.Assignment, true) // err is the answer, whatever comes of it
	}
}

// TopicDefaults returns how many partitions a topic gets, and how many replicas
// each, if nobody says: num.partitions and default.replication.factor.
func (b *Broker) TopicDefaults() (partitions, replication int32) {
	partitions, replication = max(b.opt.DefaultPartitions, 1), b.opt.DefaultReplication
	if replication <= 0 {
		nodes := max(b.image().NodeCount(), 1)
		if c := b.opt.Cluster; c != nil {
			nodes = max(nodes, len(c.Founders)) // not all of them are registered yet, perhaps
		}
		replication = int32(min(nodes, maxDefaultReplication))
	}
	return partitions, replication
}

// reservePartitions holds the cluster to its limit of partitions: those that
// there are, those that are being created, and n more. give ends the claim, when
// the metadata shard has answered and counts them itself; a claim and the
// metadata may count the same ones for a moment. Only a topic whose creation
// outlived its client's patience can go beyond the limit.
func (b *Broker) reservePartitions(n int) (give func(), err error) {
	claimed := b.creating.Add(int64(n))
	give = func() { b.creating.Add(int64(-n)) }
	there, most := int64(b.image().PartitionCount()), int64(b.opt.Limits.Partitions)
	if there+claimed > most {
		give()
		return nil, errcode.Errorf(errcode.PolicyViolation,
			"%d partitions more: the cluster has %d, and may have %d (partitions.max)", n, there+claimed-int64(n), most)
	}
	return give, nil
}

// planTopic checks what can be checked before proposing. The partitions are not
// placed yet.
func (b *Broker) planTopic(spec *TopicSpec) (metadata.CreateTopic, error) {
	im := b.image()
	c := metadata.CreateTopic{Name: spec.Name}
	configs, err := b.checkTopic(spec.Name, spec.Configs, spec.internal)
	if err != nil {
		return c, err
	}
	c.Configs = configs
	if spec.Partitions < 1 {
		return c, errcode.Errorf(errcode.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if most := b.opt.Limits.TopicPartitions; int(spec.Partitions) > most {
		return c, errcode.Errorf(errcode.InvalidPartitions, "%d partitions; give 1 to %d (topics.partitions.max)", spec.Partitions, most)
	}
	if spec.Replication < 1 {
		return c, errcode.Errorf(errcode.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if nodes := im.NodeCount(); int(spec.Replication) > nodes {
		return c, tooFewNodes(int(spec.Replication), nodes)
	}
	return c, nil
}

// CheckTopic checks a new topic's name and configs.
func (b *Broker) CheckTopic(name string, set map[string]string) *errcode.Error {
	_, err := b.checkTopic(name, set, false)
	return err
}

// checkTopic checks a new topic's name and configs, and returns the configs as
// they are to be kept, ascending by key.
func (b *Broker) checkTopic(name string, set map[string]string, internal bool) ([]metadata.Config, *errcode.Error) {
	canonical := metadata.CanonicalConfigs
	if internal {
		canonical = metadata.CanonicalInternalConfigs
	}
	err := metadata.CheckTopicName(name)
	if err == nil && !internal && metadata.InternalName(name) {
		err = errcode.Errorf(errcode.InvalidRequest, "Creation of internal topic %s is prohibited.", name)
	}
	if err == nil {
		err = b.image().CheckNewName(name)
	}
	if err != nil {
		return nil, err
	}
	configs := make([]metadata.Config, 0, len(set))
	for k, v := range set {
		configs = append(configs, metadata.Config{Key: k, Value: v})
	}
	slices.SortFunc(configs, func(x, y metadata.Config) int { return strings.Compare(x.Key, y.Key) })
	if configs, err = canonical(configs); err != nil {
		return nil, err
	}
	return configs, b.checkMaxMessageBytes(configs, nil)
}

// checkMaxMessageBytes refuses a max.message.bytes that this node could never
// store, if it is set to be that, and was not before. The default is as much as
// fits.
func (b *Broker) checkMaxMessageBytes(configs, before []metadata.Config) *errcode.Error {
	i := slices.IndexFunc(configs, func(c metadata.Config) bool { return c.Key == metadata.ConfigMaxMessageBytes })
	if i < 0 || slices.Contains(before, configs[i]) {
		return nil
	}
	if most := b.MaxBatchBytes(); metadata.ConfigInt64(configs, metadata.ConfigMaxMessageBytes) > int64(most) {
		return errcode.Errorf(errcode.InvalidConfig,
			"max.message.bytes is above %d, the largest batch that this node takes (batch.bytes.max, and a quarter of journal.file.bytes)", most)
	}
	return nil
}

// partitionConfig is what a topic, by its configs, means for its partitions.
func partitionConfig(t *metadata.Topic) partition.Config {
	configs := t.Configs
	return partition.Config{
		Internal:        internalOf(t),
		SegmentBytes:    metadata.ConfigInt64(configs, metadata.ConfigSegmentBytes),
		MaxMessageBytes: max(int32(metadata.ConfigInt64(configs, metadata.ConfigMaxMessageBytes)), 1), // no batch is that small either
		LogAppendTime:   metadata.ConfigValue(configs, metadata.ConfigTimestampType) == metadata.TimestampLogAppendTime,
	}
}

// DeleteTopic deletes a topic, and returns when none of its partitions can be
// read or written any more. Their files go with the next checkpoint; on a disk
// that has no room for one, without it. It passes while the disk is full.
func (b *Broker) DeleteTopic(ctx context.Context, id partition.TopicID) error {
	t := b.image().TopicByID(metadata.TopicID(id))
	if t == nil {
		return errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s", id)
	}
	if err := t.CheckNotInternal("delete it"); err != nil {
		return err
	}
	b.opt.OnPhase("topic deletion", true)
	defer b.opt.OnPhase("topic deletion", false)
	if _, err := b.proposeMeta(ctx, metadata.DeleteTopic{ID: t.ID}); err != nil {
		return err
	}
	return b.awaitPartitions(ctx, id, t.Assignment, false)
}

// NodeIDs returns the ids of all nodes of the cluster, ascending.
func (b *Broker) NodeIDs() []int32 {
	var ids []int32
	for n := range b.image().Nodes() {
		ids = append(ids, int32(n.ID))
	}
	return ids
}

// Nodes returns the cluster's nodes that have a listener and are in contact, by id,
// with their addresses for its clients.
func (b *Broker) Nodes(listener string) []Node {
	var nodes []Node
	for n := range b.image().Nodes() {
		for _, a := range n.Addresses {
			if a.Listener == listener && !n.Fenced {
				nodes = append(nodes, Node{ID: int32(n.ID), Address: net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))), Rack: n.Rack})
			}
		}
	}
	return nodes
}

// Topics walks the topics whose names sort after a name, by name.
func (b *Broker) Topics(after string) iter.Seq[Topic] {
	return func(yield func(Topic) bool) {
		for t := range b.image().Topics() {
			if t.Name > after && !yield(topicOf(t)) {
				return
			}
		}
	}
}

// TopicNames walks the names of topics from a name on, in their order.
func (b *Broker) TopicNames(from string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for t := range b.image().Topics() {
			if t.Name >= from && !yield(t.Name) {
				return
			}
		}
	}
}

// Counts returns how many topics there are, and how many partitions they have.
func (b *Broker) Counts() (topics, partitions int) {
	im := b.image()
	return im.TopicCount(), im.PartitionCount()
}

// PartitionsHere returns how many partitions this node carries.
func (b *Broker) PartitionsHere() int { return b.dir.count() }

// PartitionCount returns how many partitions a topic has, by its id if it is not
// zero, and else by its name; 0 if there is no such topic.
func (b *Broker) PartitionCount(name string, id TopicID) int {
	im := b.image()
	t := im.TopicByName(name)
	if id != (TopicID{}) {
		t = im.TopicByID(metadata.TopicID(id))
	}
	if t == nil {
		return 0
	}
	return len(t.Assignment)
}

// MetadataIndex returns the index of the newest change of the metadata that this
// node has applied.
func (b *Broker) MetadataIndex() int64 { return int64(b.meta.Applied()) }

// TopicByName returns a topic, or why there is none: LEADER_NOT_AVAILABLE if this node
// does not know it, and may be behind. A Lookup finds out.
func (b *Broker) TopicByName(name string) (Topic, *errcode.Error) {
	return b.knownByName(name, !b.mayBeBehind())
}

// TopicByID is TopicByName for the id of a topic.
func (b *Broker) TopicByID(id partition.TopicID) (Topic, *errcode.Error) {
	return b.knownByID(id, !b.mayBeBehind())
}

// mayBeBehind says that what this node does not know may exist all the same: it
// does not lead the metadata shard, so its image is as old as its last contact.
func (b *Broker) mayBeBehind() bool { return b.opt.Cluster != nil && b.meta.Leading() == 0 }

func topicOf(t *metadata.Topic) Topic {
	return Topic{Name: t.Name, ID: partition.TopicID(t.ID), Partitions: len(t.Assignment), assignment: t.Assignment}
}

// Leaders walks who leads partitions [from, to) of a topic, by their index, as
// far as this node knows; of one that is not there, none.
func (b *Broker) Leaders(t *Topic, from, to int) iter.Seq2[int32, PartitionLeader] {
	return func(yield func(int32, PartitionLeader) bool) {
		shards := make(map[metadata.ShardID]PartitionLeader, 1)
		for i := from; i < min(to, len(t.assignment)); i++ {
			shard := t.assignment[i]
			of, known := shards[shard]
			if !known {
				of = b.leaderOnShard(shard)
				shards[shard] = of
			}
			l := b.leaderHere(t.ID, int32(i))
			if l.Node < 0 {
				l.Node, l.Epoch = of.Node, of.Epoch
			}
			if l.Node != b.opt.NodeID && slices.Contains(of.Offline, l.Node) {
				l.Node = -1 // clients are not told where it is
			}
			l.Replicas, l.InSync, l.Offline = of.Replicas, of.InSync, of.Offline
			if !yield(int32(i), l) {
				return
			}
		}
	}
}

// leaderOnShard returns who leads a shard's partition that is being created, and
// its replicas.
func (b *Broker) leaderOnShard(shard metadata.ShardID) PartitionLeader {
	of := PartitionLeader{Node: -1, Epoch: -1, Replicas: b.replicasOf(shard)}
	of.InSync, of.Offline = split(b.image(), of.Replicas)
	of.InSync = b.inSyncOf(shard, of.InSync)
	if node, term, ok := b.shardLeaderOf(replication.ShardID(shard)); ok {
		of.Node = node
		if b.carried()[replication.ShardID(shard)] == nil {
			of.Epoch = epochIn(term)
		}
	}
	return of
}

// replicasOf returns the nodes that have a replica of a shard.
func (b *Broker) replicasOf(shard metadata.ShardID) []int32 {
	s := b.image().Shard(shard)
	if s == nil {
		return nil
	}
	nodes := make([]int32, len(s.Replicas))
	for i, id := range s.Replicas {
		nodes[i] = int32(id)
	}
	return nodes
}

// epochIn is the leader epoch of a partition of a shard that this node does not
// carry (R16). Every partition counts from 0: none was in another shard before.
func epochIn(term uint64) int32 { return int32(term) }

// leaderOf returns who leads a partition, as far as this node knows.
func (b *Broker) leaderOf(topic partition.TopicID, index int32) PartitionLeader {
	if l := b.leaderHere(topic, index); l.Node >= 0 {
		return l
	}
	if t := b.image().TopicByID(metadata.TopicID(topic)); t != nil && index >= 0 && int(index) < len(t.Assignment) {
		shard := replication.ShardID(t.Assignment[index])
		if node, term, ok := b.shardLeaderOf(shard); ok && b.carried()[shard] == nil {
			return PartitionLeader{Node: node, Epoch: epochIn(term)}
		}
	}
	return PartitionLeader{Node: -1, Epoch: -1}
}

// leaderHere is leaderOf for a partition that this node carries.
func (b *Broker) leaderHere(topic partition.TopicID, index int32) PartitionLeader {
	if p := b.dir.find(topic, index); p != nil {
		if epoch := p.epoch(); epoch >= 0 {
			return PartitionLeader{Node: b.opt.NodeID, Epoch: epoch}
		}
		if node, term, ok := leaderOfShard(p.shard.replica); ok && node != b.opt.NodeID {
			return PartitionLeader{Node: node, Epoch: p.baseEpoch + int32(term)}
		}
	}
	return PartitionLeader{Node: -1, Epoch: -1}
}

// DescribePartition returns what this node knows of a partition of an existing
// topic.
func (b *Broker) DescribePartition(topic partition.TopicID, index int32) PartitionState {
	s := PartitionState{PartitionLeader: b.leaderOf(topic, index), LogStart: -1, HighWatermark: -1, LogBytes: -1, DiskBytes: -1, UnlinkBytes: -1}
	if t := b.image().TopicByID(metadata.TopicID(topic)); t != nil && index >= 0 && int(index) < len(t.Assignment) {
		s.Shard = uint32(t.Assignment[index])
	}
	p := b.dir.find(topic, index)
	if p == nil {
		return s
	}
	if start, end, err := p.shard.store.Bounds(uint32(p.number)); err == nil {
		s.LogStart, s.HighWatermark = start, end
		s.LogBytes = p.shard.store.LogBytes(uint32(p.number))
		s.DiskBytes, s.UnlinkBytes = p.shard.store.DiskBytes(uint32(p.number))
	}
	return s
}

// absent says why this node does not have a partition.
func (b *Broker) absent(topic partition.TopicID, index int32) *errcode.Error {
	im := b.image()
	t := im.TopicByID(metadata.TopicID(topic))
	switch {
	case t == nil && im.Tombstone(metadata.TopicID(topic)) == nil && b.mayBeBehind():
		return errcode.Errorf(errcode.LeaderNotAvailable, "no topic with the id %s is known to this node, which may be behind; ask another", topic)
	case t == nil:
		return errcode.Errorf(errcode.UnknownTopicID, "no topic has the id %s; it was deleted, perhaps", topic)
	case index < 0 || int(index) >= len(t.Assignment):
		return errcode.Errorf(errcode.UnknownTopicOrPartition, "topic %s has partitions 0 to %d, not %d", t.Name, len(t.Assignment)-1, index)
	}
	shard := t.Assignment[index]
	if b.carried()[replication.ShardID(shard)] != nil || slices.Contains(b.replicasOf(shard), b.opt.NodeID) {
		return errcode.Errorf(errcode.LeaderNotAvailable, "partition %d of topic %s is being created", index, t.Name)
	}
	return errcode.Errorf(errcode.NotLeaderOrFollower, "partition %d of topic %s is on shard %d, of which node %d has no replica; nodes %v have",
		index, t.Name, shard, b.opt.NodeID, b.replicasOf(shard))
}
