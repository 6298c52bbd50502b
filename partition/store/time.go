package store

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// TimedOffset is a record that was found by its timestamp.
type TimedOffset struct {
	Offset      int64
	TimestampMS int64
	LeaderEpoch int32 // of its batch
}

// OffsetForTime returns the first record, in the order of offsets, at or above
// the log start whose timestamp is at least ts (ms), and false if there is
// none. It looks in segments, by their time index, and in the tail, and
// decompresses at most a few batches, one after the other, within lim: see
// batch.Stamps.
//
// Errors: ErrUnknownPartition; batch.ErrNoRoom; a *segment.CorruptError if a damaged range lies
// before what was found, or what is read is damaged; or the file system's.
func (sh *Shard) OffsetForTime(key uint32, ts int64, lim batch.Limits) (TimedOffset, bool, error) {
	for {
		v, err := sh.timeView(key)
		if err != nil {
			return TimedOffset{}, false, err
		}
		at, found, err := v.find(ts, lim)
		// Unlinked since we looked: the log start has moved.
		if !errors.Is(err, segment.ErrGone) {
			return at, found, err
		}
	}
}

// MaxTimestamp returns the first record at or above the log start that has the
// greatest timestamp, and false if there is none with a timestamp of at least
// 0. Costs, limits and errors are those of OffsetForTime.
func (sh *Shard) MaxTimestamp(key uint32, lim batch.Limits) (TimedOffset, bool, error) {
	for {
		v, err := sh.timeView(key)
		if err != nil {
			return TimedOffset{}, false, err
		}
		at, found, err := v.findMax(lim)
		if !errors.Is(err, segment.ErrGone) {
			return at, found, err
		}
	}
}

// timeView is a partition at one moment.
type timeView struct {
	logStart, end int64
	segs          []*segment.Segment // that reach above logStart, ascending
	tail          []segment.Batch
	damage        []Damage
	buf           []byte
}

func (sh *Shard) timeView(key uint32) (*timeView, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[key]
	if p == nil {
		return nil, ErrUnknownPartition
	}
	segs := slices.Clone(p.segs[p.belowLocked(p.logStart):])
	return &timeView{logStart: p.logStart, end: p.end, segs: segs, tail: p.tail, damage: p.damage}, nil
}

// find is OffsetForTime over one view.
func (v *timeView) find(ts int64, lim batch.Limits) (TimedOffset, bool, error) {
	for _, seg := range v.segs {
		at, found, err := v.findInSegment(seg, ts, lim)
		if err != nil {
			return at, false, err
		}
		if found {
			return at, true, v.damagedBelow(at.Offset)
		}
	}
	for i := range v.tail {
		b := &v.tail[i]
		if b.End() <= v.logStart || b.MaxTimestamp() < ts {
			continue
		}
		v.buf = b.AppendTo(v.buf[:0])
		at, found, err := v.findInBatch(ts, lim)
		if err != nil {
			return at, false, fmt.Errorf("store: batch at offset %d in memory: %w", b.Base, err)
		}
		if found {
			return at, true, v.damagedBelow(at.Offset)
		}
	}
	return TimedOffset{}, false, v.damagedBelow(v.end)
}

// damagedBelow returns the damage that may hide an earlier record than offset.
func (v *timeView) damagedBelow(offset int64) error {
	for _, d := range v.damage {
		if d.From < offset && d.To > v.logStart {
			return d.Err
		}
	}
	return nil
}

func (v *timeView) findInSegment(seg *segment.Segment, ts int64, lim batch.Limits) (TimedOffset, bool, error) {
	for from := v.logStart; ; {
		r, found, err := seg.FindTime(ts, from)
		if err != nil || !found {
			return TimedOffset{}, false, err
		}
		from = r.End
		if err := v.readBatch(seg, &r); err != nil {
			return TimedOffset{}, false, err
		}
		at, found, err := v.findInBatch(ts, lim)
		switch {
		case errors.Is(err, batch.ErrNoRoom):
			return at, false, err
		case err != nil:
			return at, false, &segment.CorruptError{File: seg.Name(), Offset: r.Start, Position: r.Pos, Err: err}
		}
		// A batch that the log start cuts may have had it below.
		if found {
			return at, true, nil
		}
	}
}

// readBatch reads the batch that r holds into v.buf, checks it, and releases r.
func (v *timeView) readBatch(seg *segment.Segment, r *segment.Range) error {
	defer r.Release()
	v.buf = slices.Grow(v.buf[:0], int(r.Bytes))[:r.Bytes]
	if n, err := r.File.ReadAt(v.buf, r.Pos); n < len(v.buf) {
		return fmt.Errorf("store: read %s: %w", seg.Name(), err)
	}
	if err := batch.CheckCRC(v.buf); err != nil {
		return &segment.CorruptError{File: seg.Name(), Offset: r.Start, Position: r.Pos, Err: err}
	}
	return nil
}

// findInBatch looks through the records of the batch in v.buf.
func (v *timeView) findInBatch(ts int64, lim batch.Limits) (at TimedOffset, found bool, err error) {
	err = batch.Stamps(v.buf, lim, func(offset, timestampMS int64) bool {
		if found = offset >= v.logStart && timestampMS >= ts; found {
			at = TimedOffset{Offset: offset, TimestampMS: timestampMS}
		}
		return !found
	})
	if err != nil || !found {
		return TimedOffset{}, false, err
	}
	h, err := batch.ParseHeader(v.buf)
	at.LeaderEpoch = h.LeaderEpoch
	return at, true, err
}

// findMax is MaxTimestamp over one view.
func (v *timeView) findMax(lim batch.Limits) (TimedOffset, bool, error) {
	greatest, err := v.maxOfHeaders(v.logStart, lim)
	if err != nil {
		return TimedOffset{}, false, err
	}
	if greatest < 0 {
		return TimedOffset{}, false, v.damagedBelow(v.end)
	}
	at, found, err := v.find(greatest, lim)
	if err != nil {
		return TimedOffset{}, false, err
	}
	return at, found, v.damagedBelow(v.end)
}

// maxOfHeaders returns the greatest timestamp of a record at or above from:
// headers tell, but for the batch that from cuts.
func (v *timeView) maxOfHeaders(from int64, lim batch.Limits) (int64, error) {
	greatest := int64(math.MinInt64)
	for _, seg := range v.segs {
		ts, err := seg.MaxTimestampFrom(from)
		if err != nil {
			return greatest, err
		}
		greatest = max(greatest, ts)
	}
	for i := range v.tail {
		if v.tail[i].Base >= from {
			greatest = max(greatest, v.tail[i].MaxTimestamp())
		}
	}
	cut, err := v.cutBatch()
	if err != nil || !cut {
		return greatest, err
	}
	err = batch.Stamps(v.buf, lim, func(offset, timestampMS int64) bool {
		if offset >= from {
			greatest = max(greatest, timestampMS)
		}
		return true
	})
	if err != nil {
		err = fmt.Errorf("store: batch at the log start %d: %w", from, err)
	}
	return greatest, err
}

// cutBatch reads the batch that begins below the log start and ends above it
// into v.buf, and reports whether there is one.
func (v *timeView) cutBatch() (bool, error) {
	if len(v.segs) > 0 && v.segs[0].Base() < v.logStart && v.logStart < v.segs[0].End() {
		seg := v.segs[0]
		r, err := seg.Range(v.logStart, 0)
		if err != nil {
			return false, err
		}
		cut := r.Start < v.logStart
		return cut, v.readBatch(seg, &r)
	}
	for i := range v.tail {
		if b := &v.tail[i]; b.Base < v.logStart && v.logStart < b.End() {
			v.buf = b.AppendTo(v.buf[:0])
			return true, nil
		}
	}
	return false, nil
}
