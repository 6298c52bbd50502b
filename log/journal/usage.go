package journal

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/internal/histogram"
)

// Usage are a journal's plain numbers. Counters count from Open.
type Usage struct {
	Files, MaxFiles int   // there may be more than MaxFiles: see Room in the package comment
	RingBytes       int64 // of all files, headers included
	LiveBytes       int64 // records still needed
	ReservedBytes   int64 // reserved and not yet appended
	LimitBytes      int64 // what live, queued and reserved bytes may reach now
	Waiting         int   // reservations that wait for space

	NextLSN, SyncedLSN uint64

	Commits, Records, Syncs   uint64
	WrittenBytes, CopiedBytes int64
	LastCommitBytes           int64
	LastCommit                time.Duration
	CommitStarted             time.Time // of the commit that runs now; zero if none does

	SyncTimes   histogram.Snapshot // of each sync on the produce path, in ns
	CommitTimes histogram.Snapshot // of each commit, its waits for room included, in ns
	CommitSizes histogram.Snapshot // bytes written by each commit
}

// Usage returns the numbers of this moment.
func (j *Journal) Usage() Usage {
	j.mu.Lock()
	defer j.mu.Unlock()
	u := j.stats
	u.Files, u.MaxFiles = len(j.files), j.maxFiles
	u.RingBytes = int64(len(j.files)) * j.opt.FileBytes
	u.LiveBytes, u.ReservedBytes = j.space.live, j.space.reserved
	u.LimitBytes = j.limitLocked()
	u.Waiting = len(j.space.waiters)
	u.NextLSN, u.SyncedLSN = j.nextLSN, j.synced
	u.SyncTimes, u.CommitTimes, u.CommitSizes = j.syncTimes.Snapshot(), j.commitTimes.Snapshot(), j.commitSizes.Snapshot()
	return u
}

// ShardInfo describes the log of one shard's incarnation.
type ShardInfo struct {
	ID          ShardID
	Incarnation uint64
	First, Last uint64 // 0, 0 if empty
	Bytes       int64  // on disk, of the entries in [First, Last]
	OldestLSN   uint64 // lowest order LSN of them; 0 if empty
}

// Shards lists the logs that hold entries or are open, by shard and
// incarnation. After Open it is what was recovered: a log that no replica of
// the node owns any more wants Shard(...).Drop, or it is carried along for ever.
func (j *Journal) Shards() []ShardInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	infos := make([]ShardInfo, 0, len(j.shards))
	for _, s := range j.shards {
		infos = append(infos, s.infoLocked())
	}
	slices.SortFunc(infos, func(a, b ShardInfo) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return infos
}

// Oldest returns the shard that holds the oldest entry still needed, and that
// entry's age in records written since; ok is false if nothing is needed. A
// checkpoint of it frees the ring soonest.
func (j *Journal) Oldest() (id ShardID, age uint64, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	oldest := uint64(math.MaxUint64)
	for _, s := range j.shards {
		if len(s.entries) > 0 && s.entries[0].order < oldest {
			oldest, id, ok = s.entries[0].order, s.key.id, true
		}
	}
	if !ok {
		return 0, 0, false
	}
	return id, j.nextLSN - oldest, true
}
