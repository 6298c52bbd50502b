package broker

import (
	"time"

	"github.com/flotilla-log/flotilla/replication"
)

// metadataEntries is how many entries the metadata shard's log may hold before
// a checkpoint of it is due.
const metadataEntries = 1000

// checkpointEvery bounds how long an idle shard's log waits for a checkpoint.
const checkpointEvery = time.Minute

// runCheckpoints takes checkpoints for as long as the broker runs, one after
// the other: whenever an eighth of the journal was written, of the shard whose
// entries are oldest, so that its files can be used again.
func (b *Broker) runCheckpoints() {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.opt.Journal.Pressure():
			b.checkpointOldest()
		case <-tick.C:
		case <-b.stopping.Done():
			return
		}
		if b.meta.Applied()-b.meta.Checkpointed() >= metadataEntries {
			b.report("metadata", b.meta.Checkpoint())
		}
	}
}

func (b *Broker) checkpointOldest() {
	id, _, ok := b.opt.Journal.Oldest()
	if !ok {
		return
	}
	if s := b.shards[replication.ShardID(id)]; s != nil {
		b.opt.OnPhase("checkpoint", true)
		b.report("data", s.replica.Checkpoint())
		b.opt.OnPhase("checkpoint", false)
	}
}

// Checkpoint takes a checkpoint of every shard, so that the next start has
// little to read.
func (b *Broker) Checkpoint() {
	for _, s := range b.shards {
		b.report("data", s.replica.Checkpoint())
	}
	b.report("metadata", b.meta.Checkpoint())
}

// report logs a checkpoint that failed. The next one covers it; errors that
// must not be passed over stop the node elsewhere.
func (b *Broker) report(shard string, err error) {
	if err != nil && b.stopping.Err() == nil {
		b.opt.Log.Warn("checkpoint failed; the next one covers it", "shard", shard, "err", err)
	}
}
