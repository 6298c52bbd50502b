package store

import (
	"math"

	"github.com/flotilla-log/flotilla/log/segment"
)

// Retention says how much of a partition is to be kept. Negative: no limit.
type Retention struct {
	MS    int64 // after the greatest timestamp of an extent
	Bytes int64
}

// Retained is what Retain found.
type Retained struct {
	// LogStart is where the log start is to move. It is the present one if
	// there is nothing to delete.
	LogStart, Present int64

	// DueMS is when the next extent will have expired, if nothing is appended to
	// it; math.MaxInt64: never.
	DueMS int64

	// FutureMS is the greatest timestamp of the oldest extent that stays, if it
	// stays for its time alone and that is above the wall clock; else 0.
	FutureMS int64
}

// Retain judges a partition by a policy, with the wall clock at nowMS. It
// changes nothing: a log start moves by command only.
//
// Records go by whole extents, oldest first: segments, and last the one that
// takes appends together with the tail. One has expired if its greatest
// timestamp is more than MS ago, so a timestamp in the future keeps it, and all
// after it, until that time has come. One whose records have no timestamp (-1)
// never expires, and keeps all after it. It is over the size if the extents after
// it alone hold Bytes or more. Damaged extents count like others.
//
// It costs time in proportion to the extents and the batches of the tail, and
// reads no file. An unknown key is ErrUnknownPartition.
func (sh *Shard) Retain(key uint32, r Retention, nowMS int64) (Retained, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil {
		return Retained{}, ErrUnknownPartition
	}
	out := Retained{LogStart: p.logStart, Present: p.logStart, DueMS: math.MaxInt64}
	extents := p.extentsLocked()
	total := int64(0)
	for _, e := range extents {
		total += e.bytes
	}
	for _, e := range extents {
		tooMuch := r.Bytes >= 0 && total-e.bytes >= r.Bytes
		timed := r.MS >= 0 && e.maxTS >= 0
		expired := timed && nowMS-e.maxTS > r.MS
		if !tooMuch && !expired {
			if timed && e.maxTS <= math.MaxInt64-1-r.MS {
				out.DueMS = e.maxTS + r.MS + 1
			}
			if timed && e.maxTS > nowMS {
				out.FutureMS = e.maxTS
			}
			break
		}
		total -= e.bytes
		out.LogStart = max(out.LogStart, e.end)
	}
	return out, nil
}

// retainable is an extent as retention sees it.
type retainable struct{ end, bytes, maxTS int64 }

// extentsLocked lists what reaches above the log start, oldest first.
func (p *part) extentsLocked() (list []retainable) {
	open := false
	for i := p.belowLocked(p.logStart); i < len(p.segs); i++ {
		s := p.segs[i]
		list = append(list, retainable{end: p.extentEndLocked(i), bytes: s.Bytes() - segment.HeaderBytes, maxTS: s.MaxTimestamp()})
		open = !s.Sealed()
	}
	if len(p.tail) == 0 {
		return list
	}
	last := retainable{end: p.end, bytes: p.tailBytes, maxTS: math.MinInt64}
	for i := range p.tail {
		last.maxTS = max(last.maxTS, p.tail[i].MaxTimestamp())
	}
	if n := len(list); open {
		last.bytes += list[n-1].bytes
		last.maxTS = max(last.maxTS, list[n-1].maxTS)
		list = list[:n-1]
	}
	return append(list, last)
}

// SetSegmentMS sets for how long a partition's segments take appends: a batch
// whose timestamp is more than ms above that of the segment's first batch begins
// the next one. 0: as long as there is room. It belongs to this replica alone,
// like the segments. An unknown key is ignored.
func (sh *Shard) SetSegmentMS(key uint32, ms int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.parts[key]; p != nil {
		p.segmentMS = ms
	}
}

// OnFlush has fn called, on the goroutine that flushed and without locks, after
// a chunk of a partition was written to a segment. It is set once, before the
// first Create or Restore.
func (sh *Shard) OnFlush(fn func(topicID [16]byte, index int32)) { sh.onFlush = fn }

// tooOldLocked reports whether batch b is to begin a new segment after seg.
func (p *part) tooOldLocked(seg *segment.Segment, b *segment.Batch) bool {
	return b.MaxTimestamp() > p.ageLimitLocked(seg)
}

// ageLimitLocked returns the greatest timestamp that a batch may have to go into
// seg, or, if that is nil, into a new segment that the tail begins.
func (p *part) ageLimitLocked(seg *segment.Segment) int64 {
	first, known := p.tail[0].MaxTimestamp(), true
	if seg != nil && seg.End() > seg.Base() {
		first, known = seg.FirstTimestamp()
	}
	if !known || p.segmentMS <= 0 || first > math.MaxInt64-p.segmentMS {
		return math.MaxInt64
	}
	return first + p.segmentMS
}
