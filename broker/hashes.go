package broker

import (
	"slices"
	"sync"

	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/replication"
)

// hashes computes the state hashes that entries ask for, beside Apply, and keeps
// the last one of each shard.
type hashes struct {
	jobs chan hashJob // holds one for each shard
	told func(replication.HashReport)

	mu   sync.Mutex
	last map[replication.ShardID]replication.HashReport
}

type hashJob struct {
	report replication.HashReport // without the hash
	state  *partition.Frozen
}

func newHashes(shards int, told func(replication.HashReport)) *hashes {
	return &hashes{
		jobs: make(chan hashJob, shards),
		told: told,
		last: make(map[replication.ShardID]replication.HashReport),
	}
}

// add hands over a job; false says that as many wait as there are shards. It
// does not block.
func (h *hashes) add(j hashJob) bool {
	select {
	case h.jobs <- j:
		return true
	default:
		return false
	}
}

func (h *hashes) run(stop <-chan struct{}) {
	for {
		select {
		case j := <-h.jobs:
			j.report.Hash = j.state.Hash()
			h.mu.Lock()
			h.last[j.report.Shard] = j.report
			h.mu.Unlock()
			h.told(j.report)
		case <-stop:
			return
		}
	}
}

// StateHashes returns the last state hash of each data shard's replica here that
// has made one, by shard (R4).
func (b *Broker) StateHashes() []replication.HashReport {
	h := b.hashes
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]replication.HashReport, 0, len(h.last))
	for _, r := range h.last {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b replication.HashReport) int { return int(a.Shard) - int(b.Shard) })
	return all
}

// reportHash is told of every hash made here.
func (b *Broker) reportHash(r replication.HashReport) {
	b.opt.Log.Info("state hash", "shard", r.Shard, "replica", r.Replica.String(), "index", r.Index, "hash", partition.Hash(r.Hash).String())
	b.opt.OnStateHash(r)
}
