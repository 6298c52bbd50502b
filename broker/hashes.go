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
	wake chan struct{} // 1-buffered: something waits
	told func(replication.HashReport)

	mu      sync.Mutex
	waiting []hashJob // at most one of a shard
	last    map[replication.ShardID]replication.HashReport
}

type hashJob struct {
	report replication.HashReport // without the hash
	state  *partition.Frozen
}

func newHashes(told func(replication.HashReport)) *hashes {
	return &hashes{
		wake: make(chan struct{}, 1),
		told: told,
		last: make(map[replication.ShardID]replication.HashReport),
	}
}

// add hands over a job, which takes the place of one of the same shard that still
// waits, so that no more than a state of each shard is held. It does not block.
func (h *hashes) add(j hashJob) {
	h.mu.Lock()
	h.waiting = slices.DeleteFunc(h.waiting, func(o hashJob) bool { return o.report.Shard == j.report.Shard })
	h.waiting = append(h.waiting, j)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take returns the job that waits longest.
func (h *hashes) take() (j hashJob, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return hashJob{}, false
	}
	j = h.waiting[0]
	h.waiting = slices.Delete(h.waiting, 0, 1)
	return j, true
}

func (h *hashes) run(stop <-chan struct{}) {
	for {
		select {
		case <-h.wake:
		case <-stop:
			return
		}
		for j, ok := h.take(); ok; j, ok = h.take() {
			j.report.Hash = j.state.Hash()
			h.mu.Lock()
			h.last[j.report.Shard] = j.report
			h.mu.Unlock()
			h.told(j.report)
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
