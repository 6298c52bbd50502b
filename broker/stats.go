package broker

import (
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/histogram"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
)

// Limits are what an operator bounds. The zero value of a field is its default.
type Limits struct {
	BatchBytes      int // of the largest record batch; default: what the journal takes
	Partitions      int // of all topics; default 1,000,000
	TopicPartitions int // of one topic; default and most metadata.MaxTopicPartitions
	Producers       int // that a shard remembers; default partition.DefaultLimits'
	MetricTopics    int // topics with counters of their own, -1: none; default 100
	MetricGroups    int // groups whose lag is told by itself, -1: none; default 100
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.Partitions, int(partition.DefaultLimits.MaxPartitions))
	orDefault(&l.TopicPartitions, metadata.MaxTopicPartitions)
	orDefault(&l.Producers, int(partition.DefaultLimits.MaxProducers))
	orDefault(&l.MetricTopics, 100)
	orDefault(&l.MetricGroups, 100)
	return l
}

func orDefault(v *int, to int) {
	if *v == 0 {
		*v = to
	}
}

// topicCounters count one topic's traffic, or that of all topics which have no
// counters of their own.
type topicCounters struct {
	batchesIn, recordsIn, bytesIn, bytesOut atomic.Uint64

	// Guarded by directory.mu.
	partitions int // of this node
}

// TopicStats is the traffic of one topic on this node since it was opened.
type TopicStats struct {
	Name       string // "" for all topics without counters of their own
	Partitions int    // on this node
	BatchesIn  uint64 // appended, without what was there already
	RecordsIn  uint64
	BytesIn    uint64
	BytesOut   uint64 // answered to fetches
}

// CheckpointStats is what checkpoints of one kind of shard did.
type CheckpointStats struct {
	Shards string             // "data" or "metadata"
	Times  histogram.Snapshot // of those that came to an end, in ns
	Failed uint64
	Last   time.Time // end of the newest that succeeded; zero: none yet
}

// checkpointCounters count the checkpoints of one kind of shard.
type checkpointCounters struct {
	times  *histogram.Histogram
	failed atomic.Uint64
	last   atomic.Int64 // ns since 1970, or 0
}

func (c *checkpointCounters) stats(shards string) CheckpointStats {
	s := CheckpointStats{Shards: shards, Times: c.times.Snapshot(), Failed: c.failed.Load()}
	if ns := c.last.Load(); ns != 0 {
		s.Last = time.Unix(0, ns)
	}
	return s
}

// ShardStats describes one shard of this node.
type ShardStats struct {
	ID                    uint32 // 0: the metadata shard
	Leading               bool   // and serving
	Led                   bool   // another node is known to lead it
	Applied, Checkpointed uint64 // indexes

	// Of a data shard:
	Producers, ProducerLimit int
	ApplyVersion             uint16
	Quarantined              int // partitions, on this replica (R5)
	Damaged                  int // ranges of partitions, on this replica, not repaired yet

	// While the replica is behind its leader's log (R18):
	CatchingUpSince    time.Time // zero: it is not
	CatchUpPartitions  int       // that the present round has not finished
	CatchUpPulledBytes uint64    // since the start

	// Voters and Learners are the shard's members, as far as this replica knows, and
	// Votes says that it is one of the voters.
	Voters, Learners int
	Votes            bool
}

// members counts p's members.
func (s *ShardStats) members(p replication.Progress) {
	for _, m := range p.Members {
		if !m.Voter {
			s.Learners++
			continue
		}
		s.Voters++
		s.Votes = s.Votes || m.ID == p.ID
	}
}

// LeadershipStats counts how this node's part in leaderships changed by its own
// doing.
type LeadershipStats struct {
	Claimed    uint64 // it stood for election at once, as the leader's node was gone
	HandedOver uint64 // others won its terms, as its disk stood still
	Relieved   uint64 // it transferred them, as its disk was nearly full
	Balanced   uint64 // it transferred them to who is to lead
	Unfit      bool   // it takes none, as its disk stands still or is nearly full, or was a moment ago
}

// Stats are a broker's numbers, and those of what it stands on. Counters count
// from the start.
type Stats struct {
	Journal     journal.Usage
	Store       store.Stats
	Shards      []ShardStats // by id
	Checkpoints []CheckpointStats
	Topics      []TopicStats // those with counters of their own, and last the others together
	Limits      Limits

	TopicCount, PartitionCount, NodeCount int // of the cluster
	TombstoneCount                        int // deleted topics of which something is left
	FeatureLevel                          uint16

	Leaderships LeadershipStats
	Groups      GroupStats
	Lag         LagStats

	// CatchUpRate is how many bytes a second catch-ups and repairs may pull together.
	CatchUpRate int64

	// Repaired counts segments that were written anew because of damage, and
	// RepairPulledBytes what other nodes gave for them. ScrubbedBytes were read to
	// look for damage, in ScrubPasses over everything; the last came to its end at
	// LastScrub, zero: none has.
	Repaired, RepairPulledBytes, ScrubbedBytes, ScrubPasses uint64
	LastScrub                                               time.Time

	// Healed counts partitions that were in quarantine and have what other replicas have,
	// HealFailures tries that came to nothing (R5).
	Healed, HealFailures uint64

	// RemovedByRetention and RemovedByRequest are how many records left logs
	// because this node, their leader, decided so, or was asked to.
	RemovedByRetention, RemovedByRequest uint64

	// ReplicasReplaced are replicas of lost data directories whose place this node,
	// as their shards' leader, has given to others.
	ReplicasReplaced uint64
}

// Stats returns the numbers of this moment. It is meant for a scrape every few
// seconds.
func (b *Broker) Stats() Stats {
	im := b.image()
	s := Stats{
		Journal: b.opt.Journal.Usage(), Store: b.opt.Store.Stats(), Limits: b.opt.Limits,
		Checkpoints:  []CheckpointStats{b.checkpoints.data.stats("data"), b.checkpoints.metadata.stats("metadata")},
		FeatureLevel: im.FeatureLevel(), RemovedByRetention: b.removed.byRetention.Load(), RemovedByRequest: b.removed.byRequest.Load(),
		TopicCount: im.TopicCount(), PartitionCount: im.PartitionCount(), NodeCount: im.NodeCount(), TombstoneCount: im.TombstoneCount(),
		Leaderships: LeadershipStats{
			Claimed: b.failover.began.Load(), HandedOver: b.watchdog.moved.Load(), Relieved: b.relief.moved.Load(),
			Balanced: b.balance.moved.Load(), Unfit: b.watchdog.unfit.Load() || b.relief.recently(),
		},
		ReplicasReplaced: b.replacements.Load(), Groups: b.coordinators.stats(), Lag: b.lags.stats(),
		Topics: b.dir.topicStats(func(id partition.TopicID) string {
			if t := im.TopicByID(metadata.TopicID(id)); t != nil {
				return t.Name
			}
			return ""
		}),
	}
	s.CatchUpRate = b.pulls.rate()
	s.Repaired, s.RepairPulledBytes = b.repairs.done.Load(), b.repairs.bytes.Load()
	s.Healed, s.HealFailures = b.repairs.healed.Load(), b.repairs.unhealed.Load()
	s.ScrubbedBytes, s.ScrubPasses = b.scrubber.bytes.Load(), b.scrubber.passes.Load()
	if ns := b.scrubber.last.Load(); ns != 0 {
		s.LastScrub = time.Unix(0, ns)
	}
	s.Shards = append(s.Shards, ShardStats{Leading: b.meta.Leading() != 0, Led: ledElsewhere(b, b.meta), Applied: b.meta.Applied(), Checkpointed: b.meta.Checkpointed()})
	s.Shards[0].members(b.meta.Progress())
	for _, sh := range b.carriedInOrder() {
		s.Shards = append(s.Shards, ShardStats{
			ID: uint32(sh.id), Leading: sh.replica.Leading() != 0, Led: ledElsewhere(b, sh.replica), Applied: sh.replica.Applied(), Checkpointed: sh.replica.Checkpointed(),
			Producers: int(sh.producers.Load()), ProducerLimit: int(sh.limits.Load().MaxProducers),
			ApplyVersion: sh.applyVersion(), Quarantined: int(sh.quarantined.Load()), Damaged: len(sh.store.Damaged()),
			CatchingUpSince:   sh.replica.CatchUp().Since,
			CatchUpPartitions: int(sh.catchUp.left.Load()), CatchUpPulledBytes: sh.catchUp.bytes.Load(),
		})
		s.Shards[len(s.Shards)-1].members(sh.replica.Progress())
	}
	return s
}

// topicOf returns the counters of a topic that gets one partition more here.
func (d *directory) topicOf(id partition.TopicID) *topicCounters {
	c := d.topics[id]
	if c == nil {
		c = &d.others
		if len(d.topics) < d.maxTopics {
			c = new(topicCounters)
			d.topics[id] = c
		}
	}
	c.partitions++
	return c
}

// leave is the opposite of topicOf.
func (d *directory) leave(id partition.TopicID, c *topicCounters) {
	if c.partitions--; c.partitions == 0 && c != &d.others {
		delete(d.topics, id)
	}
}

func (d *directory) topicStats(name func(partition.TopicID) string) []TopicStats {
	read := func(c *topicCounters, name string) TopicStats {
		return TopicStats{
			Name: name, Partitions: c.partitions,
			BatchesIn: c.batchesIn.Load(), RecordsIn: c.recordsIn.Load(), BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]TopicStats, 0, len(d.topics)+1)
	for id, c := range d.topics {
		if n := name(id); n != "" { // else it is deleted, and its partitions go in a moment
			all = append(all, read(c, n))
		}
	}
	return append(all, read(&d.others, ""))
}

// ledElsewhere reports whether another node is known to lead a shard.
func ledElsewhere[R any](b *Broker, r *replication.Replica[R]) bool {
	node, _, ok := leaderOfShard(r)
	return ok && node != b.opt.NodeID
}
