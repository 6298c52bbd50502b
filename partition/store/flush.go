package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// chunkBytes is about how much one write to a segment holds.
const chunkBytes = 1 << 20

// writeOverheadBytes is about what a write takes beside its batches: the
// headers of two new files, a directory, and the index.
const writeOverheadBytes = 16 << 10

// flushInBackground flushes what p's tail holds now, for a flusher that made it
// busy. A full disk, or too many open files, is tried again later; other errors
// are final.
func (st *Store) flushInBackground(p *part) {
	begun := st.age()
	if err := st.flush(p, p.last()); err == nil {
		p.age = begun
	}
	st.giveBack(p)
}

// flush writes p's tail, up to offset end at least, to segments; nothing is
// synced. The caller has made p busy. The error is one of Temporary, after which
// the tail is as it was, or the latched one.
func (st *Store) flush(p *part, end int64) error {
	for {
		if err := st.usable(); err != nil {
			return err
		}
		w, freed := p.nextWrite(end)
		st.release(freed)
		if len(w.batches) == 0 {
			return nil
		}
		if err := st.write(p, w); err != nil {
			return st.writeFailed(p, w, err)
		}
	}
}

// Temporary reports an error after which the store goes on: a disk without
// space, or a process with too many open files. What was asked may be asked
// again.
func Temporary(err error) bool { return vfs.NoSpace(err) || vfs.NoFiles(err) }

// writeFailed latches an error, unless it is temporary.
func (st *Store) writeFailed(p *part, w write, err error) error {
	if !Temporary(err) {
		return st.fail(err)
	}
	err = fmt.Errorf("store: flush %s: %w", p.dir(), err)
	st.mu.Lock()
	st.stalled, st.stalledAt = err, st.opt.Now()
	st.retryAt = st.stalledAt.Add(st.opt.FullDiskRetry)
	st.mu.Unlock()
	st.tell(Event{
		Kind: EventFullDisk, TopicID: p.topicID, Index: p.index, Offset: w.batches[0].Base, Bytes: w.bytes, Err: err,
	})
	return err
}

// stalledFor is how long a write that found no room counts without another one.
// It is more than the time until a tail that is old enough is tried again.
func (st *Store) stalledFor() time.Duration { return st.opt.TailMaxAge + 2*st.opt.FullDiskRetry }

// Stalled returns the error of Temporary that the newest write met, or nil if it
// met none, or some time ago. Batches stay in memory meanwhile.
func (st *Store) Stalled() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.opt.Now().Sub(st.stalledAt) > st.stalledFor() {
		return nil
	}
	return st.stalled
}

// room returns an error matching syscall.ENOSPC if a write of n bytes would
// take the disk below what is to be left free. Looking first also keeps a disk
// that is full from being filled with the beginnings of writes.
func (st *Store) room(n int64) error {
	free, err := st.fs.Free(st.dir)
	if err == nil && free < n+st.opt.KeepFreeBytes {
		err = fmt.Errorf("%w: %d bytes free, a write takes %d and leaves %d", syscall.ENOSPC, free, n, st.opt.KeepFreeBytes)
	}
	return err
}

// write is one chunk to be written.
type write struct {
	batches []segment.Batch
	bytes   int64
	active  *segment.Segment // to append to, nil for a new one
	sealed  *segment.Segment // to be sealed first, or nil
}

// nextWrite takes stock of p: it drops what need not be written, and returns
// the next chunk below end, if any.
func (p *part) nextWrite(end int64) (w write, f freed) {
	p.sh.mu.Lock()
	defer p.sh.mu.Unlock()
	f = p.dropLocked()
	if p.flushed >= end || len(p.tail) == 0 {
		return w, f
	}
	limit := p.segmentBytes()
	first := &p.tail[0]
	if n := len(p.segs); n > 0 {
		last := p.segs[n-1]
		switch room := limit - last.Bytes(); {
		case last.Sealed():
		case last.End() == last.Base() && last.End() == first.Base:
			w.active, limit = last, room // a full disk came between
		case p.tooOldLocked(last, first), last.End() <= p.logStart, last.End() != first.Base, room < int64(len(first.Body)), first.End()-last.Base() > math.MaxInt32:
			w.sealed = last
		default:
			w.active, limit = last, room
		}
	}
	if w.active == nil {
		limit -= segment.HeaderBytes
	}
	n, ageLimit := 0, p.ageLimitLocked(w.active)
	for ; n < len(p.tail); n++ {
		b := &p.tail[n]
		size := int64(len(b.Body))
		if n > 0 && (b.MaxTimestamp() > ageLimit || w.bytes+size > min(chunkBytes, limit) || b.Base >= end) {
			break
		}
		w.bytes += size
	}
	w.batches = p.tail[:n:n]
	return w, f
}

// dropLocked takes batches below the log start off the tail without writing
// them: the next segment starts above a gap. An unfinished checkpoint that was
// captured before the log start moved still needs them.
func (p *part) dropLocked() (f freed) {
	if open := p.sh.open; open != 0 && p.startedAt >= open {
		return f
	}
	n := 0
	for n < len(p.tail) && p.tail[n].End() <= p.logStart {
		n++
	}
	if n == 0 {
		return f
	}
	return p.popLocked(n)
}

// lost reports whether an error says that a segment's file is gone, which nothing
// of this process has removed. That is damage of what it held: the next write goes
// to another segment.
func (p *part) lost(seg *segment.Segment, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	seg.Freeze()
	p.sh.met(p, seg, &segment.CorruptError{File: seg.Name(), Offset: seg.Base(), Position: -1, Err: err})
	return true
}

// dirLost does for all of p's segments what lost does for one: the directory that they
// were in is gone.
func (st *Store) dirLost(p *part, err error) {
	st.take(p)
	defer st.giveBack(p)
	p.sh.mu.Lock()
	segs := slices.Clone(p.segs)
	p.sh.mu.Unlock()
	for _, seg := range segs {
		p.lost(seg, err)
	}
}

// write appends a chunk to a segment and takes it off the tail, or does nothing
// because the segment's file is gone.
func (st *Store) write(p *part, w write) error {
	first := w.batches[0].Base
	if err := st.room(w.bytes + writeOverheadBytes); err != nil {
		return err
	}
	st.event(EventFlushStart, p, first, w.bytes)
	if w.sealed != nil {
		if err := w.sealed.Seal(); p.lost(w.sealed, err) {
			return nil
		} else if err != nil {
			return err
		}
		p.noteUnsynced(w.sealed)
	}
	if w.active == nil {
		seg, err := st.roll(p, first)
		if err != nil {
			return err
		}
		w.active = seg
	}
	start := st.opt.Now()
	if err := w.active.Append(w.batches); p.lost(w.active, err) {
		return nil
	} else if err != nil {
		return err
	}
	st.stats.flushTimes.ObserveDuration(st.opt.Now().Sub(start))
	p.sh.mu.Lock()
	if len(p.unsynced) == 0 || p.unsynced[len(p.unsynced)-1] != w.active {
		p.unsynced = append(p.unsynced, w.active)
	}
	// A Delete may have emptied the tail meanwhile.
	f := p.popLocked(min(len(w.batches), len(p.tail)))
	st.mu.Lock()
	st.stalled = nil
	st.mu.Unlock()
	p.sh.mu.Unlock()
	st.release(f)
	st.event(EventFlushEnd, p, first, w.bytes)
	if p.sh.onFlush != nil {
		p.sh.onFlush(p.topicID, p.index)
	}
	return nil
}

func (p *part) noteUnsynced(seg *segment.Segment) {
	p.sh.mu.Lock()
	defer p.sh.mu.Unlock()
	if !slices.Contains(p.unsynced, seg) {
		p.unsynced = append(p.unsynced, seg)
	}
}

// roll makes p's next segment, and its directory if need be.
func (st *Store) roll(p *part, base int64) (*segment.Segment, error) {
	p.sh.mu.Lock()
	made, stale := p.dirMade, p.stale
	p.sh.mu.Unlock()
	dir := p.dir()
	if stale {
		if err := st.fs.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("store: empty %s: %w", dir, err)
		}
	}
	if !made {
		if err := st.makeDir(dir); err != nil {
			return nil, err
		}
	}
	p.sh.mu.Lock()
	p.dirMade, p.stale = true, false
	p.sh.mu.Unlock()
	h := segment.Header{TopicID: p.topicID, Partition: p.index, Base: base, TombstoneHorizon: -1}
	seg, err := segment.Create(st.files, dir, h)
	if errors.Is(err, fs.ErrNotExist) { // the directory is gone: so is what is in it
		if err = st.makeDir(dir); err == nil {
			seg, err = segment.Create(st.files, dir, h)
		}
	}
	if err != nil {
		return nil, err
	}
	p.sh.mu.Lock()
	p.segs = append(p.segs, seg)
	p.dirUnsynced = true // not before the names are there: a checkpoint may sync beside this
	p.sh.mu.Unlock()
	st.event(EventRoll, p, base, 0)
	return seg, nil
}

// makeDir makes the directory of a partition, whose name is durable with the next
// syncRoot.
func (st *Store) makeDir(dir string) error {
	if err := st.fs.MkdirAll(dir); err != nil {
		return fmt.Errorf("store: make %s: %w", dir, err)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.rootMade++
	return nil
}
