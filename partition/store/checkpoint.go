package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// Token names a Capture.
type Token uint64

// cause is a reason to unlink files: the log start of p moved to below, or p
// was deleted. It is covered by every capture after at.
type cause struct {
	p       *part
	at      Token
	below   int64
	deleted bool
}

// Capture marks the place of a checkpoint in the apply order: it covers all
// that was applied before. The FSM calls it where it captures its own state.
// Each capture is ended by Checkpointed or Abandon; one is open at a time, and a
// new one abandons the one before.
//
// While it is open, batches that it may need are flushed even if their
// partition was deleted, or its log start moved past them, since.
func (sh *Shard) Capture() Token {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.captures++
	sh.open, sh.openAge = sh.captures, sh.st.age()
	return sh.open
}

// End is how far a partition is to be durable.
type End struct {
	Key uint32
	End int64 // the end at the capture
}

// FlushTo makes the listed partitions durable up to their ends: batches,
// indexes, and the names of files and directories. Those that are durable that
// far cost nothing. An unknown key is ignored: the partition's deletion is
// durable already.
//
// A checkpoint is written after it returned nil. An error of Temporary may be
// tried again; after any other the store has failed (R9).
// One FlushTo per shard at a time; it may wait for disks.
func (sh *Shard) FlushTo(ends []End) error {
	st := sh.st
	var parts []*part
	// All are written before the first is synced, so that write-back of the
	// others goes on during each sync.
	for _, e := range ends {
		p := sh.lookup(e.Key)
		if p == nil {
			continue
		}
		parts = append(parts, p)
		if p.flushedTo(e.End) {
			continue
		}
		st.take(p)
		err := st.flush(p, e.End)
		if after := sh.captureAge(); err == nil && after.stamp > p.age.stamp {
			p.age = after
		}
		st.giveBack(p)
		if err != nil {
			return err
		}
	}
	return st.syncAll(parts)
}

// captureAge bounds the age of what the open capture does not cover.
func (sh *Shard) captureAge() age {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.open == 0 {
		return age{}
	}
	return sh.openAge
}

func (p *part) flushedTo(end int64) bool {
	p.sh.mu.Lock()
	defer p.sh.mu.Unlock()
	return p.flushed >= end
}

func (p *part) last() int64 {
	p.sh.mu.Lock()
	defer p.sh.mu.Unlock()
	return p.end
}

// syncAll syncs the partitions, a few at once, and then the root directory.
func (st *Store) syncAll(parts []*part) error {
	if err := st.usable(); err != nil {
		return err
	}
	work := make(chan *part)
	errs := make(chan error, st.opt.SyncWorkers)
	var wg sync.WaitGroup
	for range min(st.opt.SyncWorkers, len(parts)) {
		wg.Go(func() {
			var err error
			for p := range work {
				if err == nil {
					err = st.syncPart(p)
				}
			}
			errs <- err
		})
	}
	for _, p := range parts {
		work <- p
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return st.syncFailed(err)
		}
	}
	if err := st.syncRoot(); err != nil {
		return st.syncFailed(err)
	}
	return nil
}

// syncFailed latches an error of a sync. If a directory could not be opened for
// want of a free file, there was none.
func (st *Store) syncFailed(err error) error {
	if vfs.NoFiles(err) {
		return err
	}
	return st.fail(err)
}

// syncPart makes what p's segments hold durable, and their names.
func (st *Store) syncPart(p *part) error {
	p.sh.mu.Lock()
	segs, dir, flushed := p.unsynced, p.dirUnsynced, p.flushed
	p.unsynced, p.dirUnsynced = nil, false
	p.sh.mu.Unlock()
	for _, seg := range segs {
		if err := seg.Sync(); err != nil {
			return err
		}
	}
	if dir {
		if err := st.fs.SyncDir(p.dir()); errors.Is(err, fs.ErrNotExist) {
			st.dirLost(p, err)
		} else if err != nil {
			p.sh.mu.Lock()
			p.dirUnsynced = true
			p.sh.mu.Unlock()
			return fmt.Errorf("store: sync %s: %w", p.dir(), err)
		}
	}
	if dir || len(segs) > 0 {
		st.event(EventSync, p, flushed, 0)
	}
	return nil
}

// syncRoot makes the names of all partition directories made so far durable.
// Shards share the root: one syncs it, and others that come meanwhile wait,
// since a name is not durable because somebody else's sync of it has begun.
func (st *Store) syncRoot() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	for want := st.rootMade; st.rootSynced < want; {
		if st.rootSyncing {
			st.notBusy.Wait()
			continue
		}
		if st.failed != nil {
			return st.failed
		}
		upTo := st.rootMade
		st.rootSyncing = true
		st.mu.Unlock()
		err := st.fs.SyncDir(st.dir)
		st.mu.Lock()
		st.rootSyncing = false
		st.notBusy.Broadcast()
		if err != nil {
			return fmt.Errorf("store: sync %s: %w", st.dir, err)
		}
		st.rootSynced = upTo
	}
	return nil
}

// Abandon ends a capture whose checkpoint was not written.
func (sh *Shard) Abandon(t Token) { sh.endCapture(t) }

// endCapture closes t, if it is open, and drops what was kept for it.
func (sh *Shard) endCapture(t Token) {
	sh.mu.Lock()
	var all []freed
	if sh.open == t {
		sh.open = 0
		for _, p := range sh.dying {
			all = append(all, p.popLocked(len(p.tail)))
		}
	}
	sh.mu.Unlock()
	for _, f := range all {
		sh.st.release(f)
	}
}

// Checkpointed is called when the checkpoint of a capture is durable. It
// unlinks what no checkpoint needs any more: files of partitions that had been
// deleted, and segments wholly below a log start that had been moved, before
// the capture. It may wait for disks, and runs beside everything else; one call
// per shard at a time. The unlinks are not synced: what comes back after a
// power cut is removed by Restore, or is an orphan.
//
// An error leaves those files behind, for the next Restore, and is no reason to
// stop.
func (sh *Shard) Checkpointed(t Token) error {
	sh.endCapture(t)
	sh.mu.Lock()
	var due, rest []cause
	for _, c := range sh.causes {
		if c.at < t {
			due = append(due, c)
		} else {
			rest = append(rest, c)
		}
	}
	sh.causes = rest
	sh.mu.Unlock()
	var errs []error
	for _, c := range due {
		sh.st.take(c.p)
		if c.deleted {
			errs = append(errs, sh.unlinkPart(c.p))
		} else {
			errs = append(errs, sh.unlinkBelow(c.p, c.below))
		}
		sh.st.giveBack(c.p)
	}
	return errors.Join(errs...)
}

// unlinkBelow removes p's segments that end at or below an offset.
func (sh *Shard) unlinkBelow(p *part, below int64) error {
	sh.mu.Lock()
	n := p.belowLocked(below)
	segs := p.segs[:n]
	p.segs = append([]*segment.Segment(nil), p.segs[n:]...)
	dropped := p.dropped
	if dropped <= below {
		p.dropped = 0
	}
	sh.mu.Unlock()
	err := sh.st.unlink(p, segs)
	if dropped > 0 && dropped <= below {
		if e := sh.st.fs.Remove(path.Join(p.dir(), droppedName(dropped))); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// belowLocked returns how many of p's segments lie wholly below an offset.
func (p *part) belowLocked(offset int64) (n int) {
	for n < len(p.segs) && p.extentEndLocked(n) <= offset {
		n++
	}
	return n
}

// extentEndLocked returns where the i-th segment ends, or would if it were not
// damaged.
func (p *part) extentEndLocked(i int) int64 {
	switch {
	case p.segs[i].Damage() == nil:
		return p.segs[i].End()
	case i+1 < len(p.segs):
		return p.segs[i+1].Base()
	}
	return p.flushed
}

// unlinkPart removes all files of a deleted partition, and its directory.
func (sh *Shard) unlinkPart(p *part) error {
	sh.mu.Lock()
	segs := p.segs
	p.segs, p.unsynced, p.dirUnsynced = nil, nil, false
	delete(sh.dying, p.key)
	made := p.dirMade || p.stale || p.dropped > 0
	sh.mu.Unlock()
	err := sh.st.unlink(p, segs)
	if !made {
		return err
	}
	if e := sh.st.fs.RemoveAll(p.dir()); e != nil {
		return errors.Join(err, fmt.Errorf("store: remove %s: %w", p.dir(), e))
	}
	sh.st.event(EventUnlink, p, -1, 0)
	return err
}

func (st *Store) unlink(p *part, segs []*segment.Segment) error {
	var errs []error
	for _, seg := range segs {
		if err := seg.Remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		st.event(EventUnlink, p, seg.Base(), seg.Bytes())
	}
	return errors.Join(errs...)
}
