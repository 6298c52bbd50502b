package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"

	"github.com/flotilla-log/flotilla/log/segment"
)

// chunkBytes is about how much one write to a segment holds.
const chunkBytes = 1 << 20

// flushInBackground flushes what p's tail holds now, for a flusher that made it
// busy. A full disk is tried again later; other errors are final.
func (st *Store) flushInBackground(p *part) {
	begun := st.age()
	if err := st.flush(p, p.last()); err == nil {
		p.age = begun
	}
	st.giveBack(p)
}

// flush writes p's tail, up to offset end at least, to segments; nothing is
// synced. The caller has made p busy. The error is ENOSPC's, after which the
// tail is as it was, or the latched one.
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

// writeFailed latches an error, unless it is a full disk.
func (st *Store) writeFailed(p *part, w write, err error) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return st.fail(err)
	}
	st.mu.Lock()
	st.retryAt = st.opt.Now().Add(st.opt.FullDiskRetry)
	st.mu.Unlock()
	st.opt.Logger.Warn("disk full, batches stay in memory", "partition", p.dir(), "err", err)
	st.event(EventFullDisk, p, w.batches[0].Base, w.bytes)
	return fmt.Errorf("store: flush %s: %w", p.dir(), err)
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

// write appends a chunk to a segment and takes it off the tail.
func (st *Store) write(p *part, w write) error {
	first := w.batches[0].Base
	st.event(EventFlushStart, p, first, w.bytes)
	if w.sealed != nil {
		if err := w.sealed.Seal(); err != nil {
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
	if err := w.active.Append(w.batches); err != nil {
		return err
	}
	p.sh.mu.Lock()
	if len(p.unsynced) == 0 || p.unsynced[len(p.unsynced)-1] != w.active {
		p.unsynced = append(p.unsynced, w.active)
	}
	// A Delete may have emptied the tail meanwhile.
	f := p.popLocked(min(len(w.batches), len(p.tail)))
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
		if err := st.fs.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("store: make %s: %w", dir, err)
		}
		st.mu.Lock()
		st.rootMade++
		st.mu.Unlock()
	}
	p.sh.mu.Lock()
	p.dirMade, p.stale, p.dirUnsynced = true, false, true
	p.sh.mu.Unlock()
	seg, err := segment.Create(st.files, dir, segment.Header{
		TopicID: p.topicID, Partition: p.index, Base: base, TombstoneHorizon: -1,
	})
	if err != nil {
		return nil, err
	}
	p.sh.mu.Lock()
	p.segs = append(p.segs, seg)
	p.sh.mu.Unlock()
	st.event(EventRoll, p, base, 0)
	return seg, nil
}
