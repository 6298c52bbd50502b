package store

import (
	"sync/atomic"
	"time"

	"github.com/flotilla-log/flotilla/internal/histogram"
	"github.com/flotilla-log/flotilla/log/segment"
)

// counters are what a Store counts as it works.
type counters struct {
	segments, segmentBytes, rolls, flushes, flushedBytes atomic.Int64
	unlinks, unlinkedBytes, fullDisk                     atomic.Int64
	watches                                              atomic.Int64
	flushTimes                                           *histogram.Histogram
}

func (c *counters) note(kind EventKind, offset, n int64) {
	switch kind {
	case EventFlushEnd:
		c.flushes.Add(1)
		c.flushedBytes.Add(n)
		c.segmentBytes.Add(n)
	case EventRoll:
		c.rolls.Add(1)
		c.segments.Add(1)
		c.segmentBytes.Add(segment.HeaderBytes)
	case EventUnlink:
		if offset >= 0 { // else it is a directory, whose segments went before
			c.unlinks.Add(1)
			c.unlinkedBytes.Add(n)
			c.segments.Add(-1)
			c.segmentBytes.Add(-n)
		}
	case EventFullDisk:
		c.fullDisk.Add(1)
	}
}

// Stats are a store's plain numbers. Counters count from Open.
type Stats struct {
	MemoryBytes, MemoryLimitBytes int64 // of tails, see MemoryUsed
	Waiting                       int   // Admits that wait for memory
	Watches                       int   // registrations of Shard.Watch that were not stopped

	// OldestUnflushed is how long ago the oldest batch came that is in no
	// segment file, or before that; 0 if there is none.
	OldestUnflushed time.Duration

	Segments          int64 // files of batches that there are
	SegmentsMade      int64
	SegmentBytes      int64 // their length, without indexes
	SegmentsUnlinked  int64
	UnlinkedBytes     int64 // of those
	Flushes           int64 // writes to segment files
	FlushedBytes      int64
	FullDisk          int64              // flushes that met a full disk
	FlushTimes        histogram.Snapshot // of each write, in ns
	OpenFiles         int                // of segments, used or not
	OpenFilesUnused   int
	IdleFilesLimit    int
	OrphanDirectories int
}

// Stats returns the numbers of this moment.
func (st *Store) Stats() Stats {
	c := &st.stats
	s := Stats{
		MemoryBytes: st.MemoryUsed(), MemoryLimitBytes: st.opt.MemoryBytes,
		Segments: c.segments.Load(), SegmentsMade: c.rolls.Load(), SegmentsUnlinked: c.unlinks.Load(),
		SegmentBytes: c.segmentBytes.Load(), UnlinkedBytes: c.unlinkedBytes.Load(),
		Flushes: c.flushes.Load(), FlushedBytes: c.flushedBytes.Load(), FullDisk: c.fullDisk.Load(),
		FlushTimes: c.flushTimes.Snapshot(), IdleFilesLimit: st.opt.IdleFiles,
		Watches: int(c.watches.Load()),
	}
	s.OpenFiles, s.OpenFilesUnused = st.files.Open()
	now := st.opt.Now()
	st.mu.Lock()
	defer st.mu.Unlock()
	s.Waiting, s.OrphanDirectories = len(st.admitting), len(st.unclaimed)
	if p := st.aging.head; p != nil {
		s.OldestUnflushed = max(now.Sub(time.Unix(0, p.age.unixNanos)), 0)
	}
	return s
}
