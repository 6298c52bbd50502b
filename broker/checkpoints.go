package broker

import (
	"cmp"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/log/journal"
	"github.com/flotilla-log/flotilla/replication"
)

const (
	// metadataEntries is how many entries the metadata shard's log may hold
	// before a checkpoint of it is due.
	metadataEntries = 1000

	// checkpointRetry is when to look again while somebody waits for room in the
	// journal and no checkpoint could make any.
	checkpointRetry = 50 * time.Millisecond

	// reclaimDelay is how long files of deleted records may stay when nothing
	// else asks for the checkpoint that lets them go (R13). Many deletions share
	// one.
	reclaimDelay = 10 * time.Second
	// fullDiskRetry is when to try again after a checkpoint met a full disk.
	fullDiskRetry = time.Second
)

// noteFreed says that a checkpoint of s would free disk space. It does not
// block.
func (b *Broker) noteFreed(s *dataShard) {
	s.freed.Store(true)
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// reclaim takes a checkpoint of every shard that has something to free.
func (b *Broker) reclaim() {
	for _, s := range b.carried() {
		if s.freed.Swap(false) && s.replica.Applied() != s.replica.Checkpointed() && b.stopping.Err() == nil {
			b.checkpoint(s)
		}
	}
}

// runCheckpoints takes checkpoints for as long as the broker runs, one after
// the other: whenever an eighth of the journal was written, of the shard whose
// entries are oldest, so that its files can be used again.
func (b *Broker) runCheckpoints() {
	retry := time.NewTimer(checkpointRetry)
	retry.Stop()
	reclaim := time.NewTimer(reclaimDelay)
	reclaim.Stop()
	reclaiming := false
	for {
		select {
		case <-b.opt.Journal.Pressure():
		case <-retry.C:
		case <-b.freed:
			if !reclaiming {
				reclaiming = true
				reclaim.Reset(reclaimDelay)
			}
			continue
		case <-reclaim.C:
			reclaiming = false
			b.reclaim()
			continue
		case <-b.disk.tight:
			b.freeSpace()
			continue
		case <-b.stopping.Done():
			return
		}
		full := b.relieve()
		for _, s := range b.carried() {
			_ = s.replica.Trim() // an error stops the node elsewhere
		}
		switch {
		case full:
			retry.Reset(fullDiskRetry)
		case b.opt.Journal.Usage().Waiting > 0 && !b.disk.state().Low:
			retry.Reset(checkpointRetry)
		}
		if b.meta.Applied()-b.meta.Checkpointed() >= metadataEntries {
			b.checkpointMetadata()
		}
	}
}

// relieve takes a checkpoint of the shard with the oldest entries, of which
// there is one to take, and goes on with the next while somebody waits for
// room. A shard that was written to no more since its checkpoint keeps its last
// entry in the journal, and is passed over: that one is copied forward (R7).
// It reports whether the disk was too full for one.
func (b *Broker) relieve() (full bool) {
	infos := b.opt.Journal.Shards()
	slices.SortFunc(infos, func(x, y journal.ShardInfo) int { return cmp.Compare(x.OldestLSN, y.OldestLSN) })
	for _, info := range infos {
		s := b.carried()[replication.ShardID(info.ID)]
		if s == nil || s.replica.Applied() == s.replica.Checkpointed() {
			continue
		}
		if full = b.checkpoint(s); full || b.opt.Journal.Usage().Waiting == 0 || b.stopping.Err() != nil {
			return full
		}
	}
	return false
}

// checkpoint takes a checkpoint of s. If the disk is too full for it, what was
// deleted makes room, once. It reports whether the disk still is.
func (b *Broker) checkpoint(s *dataShard) (full bool) {
	b.opt.OnPhase("checkpoint", true)
	defer b.opt.OnPhase("checkpoint", false)
	began := b.opt.Now()
	err := s.replica.Checkpoint()
	if replication.Temporary(err) && b.freeEarly() {
		err = s.replica.Checkpoint()
	}
	if full = replication.Temporary(err); full {
		b.disk.note(err)
		b.checkpoints.data.failed.Add(1)
		return true
	}
	b.disk.note(nil)
	b.report("data", &b.checkpoints.data, began, err)
	return false
}

// freeEarly unlinks what was deleted and waits for a checkpoint, and reports
// whether that has made room.
func (b *Broker) freeEarly() bool {
	bytes, err := b.opt.Store.FreeEarly()
	if err != nil {
		b.opt.Log.Warn("files of what was deleted could not be removed before the next checkpoint", "err", err)
	}
	if bytes > 0 {
		b.opt.Log.Info("the disk is too full for a checkpoint; removed files of what was deleted before it", "bytes", bytes)
	}
	return bytes > 0
}

// freeDoomed unlinks files of topics that are deleted in the metadata. The deletion of
// their partitions may be behind records in the log of a shard that a majority of its
// replicas has no room for: until some of them find it otherwise, as here, nothing of
// that shard is committed any more. The metadata needs no such room (docs/adr/0005).
func (b *Broker) freeDoomed() (bytes int64) {
	im := b.image()
	if im.TombstoneCount() == 0 {
		return 0
	}
	bytes, err := b.opt.Store.FreeDoomed(func(topic [16]byte) bool { return im.Tombstone(metadata.TopicID(topic)) != nil })
	if err != nil {
		b.opt.Log.Warn("files of deleted topics could not be removed", "err", err)
	}
	if bytes > 0 {
		b.opt.Log.Info("the disk is nearly full; removed files of deleted topics, whose partitions are still to be deleted", "bytes", bytes)
	}
	return bytes
}

// freeSpace unlinks files of deleted topics, and takes a checkpoint of each shard in
// which something was deleted, whose files go with it. Nobody else may ask for one:
// while the disk is nearly full nothing is written.
func (b *Broker) freeSpace() {
	b.freeDoomed()
	for _, s := range b.carried() {
		if s.store.Droppable() && b.stopping.Err() == nil {
			b.checkpoint(s)
		}
	}
}

// Checkpoint takes a checkpoint of every shard, so that the next start has
// little to read.
func (b *Broker) Checkpoint() {
	for _, s := range b.carried() {
		b.checkpointData(s)
	}
	b.checkpointMetadata()
}

func (b *Broker) checkpointData(s *dataShard) {
	began := b.opt.Now()
	b.report("data", &b.checkpoints.data, began, s.replica.Checkpoint())
}

func (b *Broker) checkpointMetadata() {
	began := b.opt.Now()
	b.report("metadata", &b.checkpoints.metadata, began, b.meta.Checkpoint())
}

// report counts a checkpoint, and logs one that failed. The next one covers it;
// errors that must not be passed over stop the node elsewhere.
func (b *Broker) report(shard string, c *checkpointCounters, began time.Time, err error) {
	ended := b.opt.Now()
	c.times.ObserveDuration(ended.Sub(began))
	if err == nil {
		c.last.Store(ended.UnixNano())
	} else if b.stopping.Err() == nil {
		c.failed.Add(1)
		b.opt.Log.Warn("checkpoint failed; the next one covers it", "shard", shard, "err", err)
	}
}
