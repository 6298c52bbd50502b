package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// What a catch-up has pulled and no checkpoint covers yet lies beside the
// partitions (R14):
//
//	<dir>/catchup-<shard>/<topic id>-<partition index>/<base>.seg, .index
//	<dir>/catchup-<shard>/<topic id>-<partition index>/<offset>.dropped
//	<dir>/catchup-<shard>/new/...
//
// A segment is in new while it is written, and takes its place when it is sealed
// and synced: what is there may be believed after a restart, and is pulled no
// more. The mark says that the source has nothing below the offset, as in a
// partition's own directory (see FreeEarly). Replace and Restore move segments
// into the partition's directory once a checkpoint covers them.
const (
	prefetchPrefix = "catchup-"
	prefetchNew    = "new"

	// maxPulledBytes bounds a segment that is pulled: that much at most is pulled
	// again after a restart.
	maxPulledBytes = 64 << 20
)

var (
	// ErrPulled matches the error of batches that are not those which a prefetch
	// wants: damaged, not the next ones, or of another leader epoch than the
	// checkpoint has on record. Another source may have the right ones.
	ErrPulled = errors.New("store: pulled batches are not the ones wanted")

	// ErrTail reports a prefetch of a partition whose own batches are not all in
	// files.
	ErrTail = errors.New("store: batches are still in memory")
)

// Prefetch takes the batches that a partition lacks of a checkpoint. It is for
// one goroutine.
type Prefetch struct {
	sh     *Shard
	want   Restored
	dir    string // where finished segments lie
	newDir string
	check  func(batch.Header) error

	floor    int64 // nothing below is needed: the log start, or where the source's begins
	at       int64 // where what is here ends
	next     int64 // at, or the floor if that is above
	finished bool  // the floor's mark and what Append was given are durable

	seg      *segment.Segment // takes appends; nil: none yet
	bytesMax int64
}

func (sh *Shard) prefetchRoot() string {
	return path.Join(sh.st.dir, fmt.Sprintf("%s%d", prefetchPrefix, sh.id))
}

func (sh *Shard) prefetchDir(topicID [16]byte, index int32) string {
	return path.Join(sh.prefetchRoot(), dirName(topicID, index))
}

// BeginPrefetch removes what was being written when a process ended. It comes
// before the first Prefetch of a shard.
func (sh *Shard) BeginPrefetch() error {
	sh.mu.Lock()
	sh.prefetches = true
	sh.mu.Unlock()
	if err := sh.st.fs.RemoveAll(path.Join(sh.prefetchRoot(), prefetchNew)); err != nil {
		return fmt.Errorf("store: prefetch: %w", err)
	}
	return nil
}

// Prefetch goes on with what a partition lacks of a checkpoint, of which r is what
// it says of the partition: its own batches, which are all in files, and those that
// were pulled before stay. The partition may be unknown. Nothing is appended to it
// until the checkpoint is in place or DropPrefetch was called.
//
// ErrTail, an error of the file system, or one matching segment.ErrVersion.
func (sh *Shard) Prefetch(r Restored) (*Prefetch, error) {
	own, known, err := sh.ownEnd(r)
	if err != nil {
		return nil, err
	}
	p := &Prefetch{
		sh: sh, want: r, check: checkEpochs(r.Epochs), floor: r.LogStart,
		dir:      sh.prefetchDir(r.TopicID, r.Index),
		newDir:   path.Join(sh.prefetchRoot(), prefetchNew, dirName(r.TopicID, r.Index)),
		bytesMax: min(sh.segmentBytes(r.Config), maxPulledBytes),
		finished: true,
	}
	if !known && own == 0 {
		// Files of an earlier life, which no checkpoint of this replica knows.
		if err := sh.clearUnknown(r); err != nil {
			return nil, err
		}
	}
	if err := p.resume(own); err != nil {
		return nil, fmt.Errorf("store: prefetch of %s: %w", p.dir, err)
	}
	return p, nil
}

// ownEnd returns where a partition's own batches end.
func (sh *Shard) ownEnd(r Restored) (end int64, known bool, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.parts[r.Key]
	switch {
	case p == nil:
		return 0, false, nil
	case p.topicID != r.TopicID || p.index != r.Index || p.end > r.End:
		return 0, true, fmt.Errorf("store: partition %d: the checkpoint has %x-%d up to %d, here is %x-%d up to %d", r.Key, r.TopicID, r.Index, r.End, p.topicID, p.index, p.end)
	case p.flushed < p.end || len(p.tail) > 0:
		return 0, true, fmt.Errorf("%w: partition %d, from %d on", ErrTail, r.Key, p.flushed)
	}
	return p.end, true, nil
}

// clearUnknown empties the directory of a partition that is not known here. The
// directory itself stays an orphan, if it was one, until the partition is.
func (sh *Shard) clearUnknown(r Restored) error {
	dir := path.Join(sh.st.dir, dirName(r.TopicID, r.Index))
	names, err := vfs.ReadDirIfThere(sh.st.fs, dir)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, name := range names {
		if err := sh.st.fs.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: empty %s: %w", dir, err)
		}
	}
	return sh.st.syncDir(dir)
}

func (st *Store) syncDir(dir string) error {
	if err := st.fs.SyncDir(dir); err != nil {
		return st.syncFailed(fmt.Errorf("store: sync %s: %w", dir, err))
	}
	return nil
}

// resume finds out how far an earlier prefetch came that goes on at own, and
// removes what is of no use.
func (p *Prefetch) resume(own int64) error {
	bases, dropped, err := listPulled(p.sh.st.fs, p.dir)
	if err != nil {
		return err
	}
	p.floor = max(p.floor, dropped)
	// The names may be those of a Finish that did not come to its end.
	p.finished = len(bases) == 0 && dropped == 0
	at := own
	for i, base := range bases {
		ok := follows(base, at, p.floor)
		if ok {
			if at, ok, err = p.adoptable(base, at); err != nil {
				return err
			}
		}
		if !ok {
			if err := p.removeFrom(bases[i:]); err != nil {
				return err
			}
			break
		}
	}
	p.at, p.next = at, max(at, p.floor)
	return nil
}

// follows reports whether a segment at base may come behind what ends at an
// offset: a gap is below the floor.
func follows(base, at, floor int64) bool { return base == at || base > at && base <= floor }

// adoptable opens a finished segment, and returns where it ends. One that ends
// below the floor is of no use, and neither is one that is not whole.
func (p *Prefetch) adoptable(base, at int64) (end int64, ok bool, err error) {
	if base >= p.want.End {
		return at, false, nil
	}
	seg, err := segment.Open(p.sh.st.files, p.dir, segment.OpenOptions{
		TopicID: p.want.TopicID, Partition: p.want.Index, Base: base, End: math.MaxInt64, Check: p.check,
	})
	switch {
	case errors.Is(err, segment.ErrCorrupt):
		return at, false, nil
	case err != nil:
		return at, false, err
	case !seg.Sealed() || seg.Damage() != nil || seg.End() == base || seg.End() > p.want.End:
		return at, false, nil
	}
	return seg.End(), true, nil
}

func (p *Prefetch) removeFrom(bases []int64) error {
	for _, base := range slices.Backward(bases) { // the first last: a crash leaves no gap
		if err := segment.Discard(p.sh.st.files, p.dir, base); err != nil {
			return err
		}
	}
	return nil
}

// listPulled returns the base offsets of the finished segments in a directory,
// ascending, and the highest mark of what is dropped.
func listPulled(fsys vfs.FS, dir string) (bases []int64, dropped int64, err error) {
	names, err := vfs.ReadDirIfThere(fsys, dir)
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		if offset, ok := ParseDropped(name); ok {
			dropped = max(dropped, offset)
		}
		if base, ok := segment.ParseName(name); ok {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, dropped, nil
}

// Next returns the offset from which on batches are wanted.
func (p *Prefetch) Next() int64 { return p.next }

// Done reports whether nothing more is wanted.
func (p *Prefetch) Done() bool { return p.next >= p.want.End }

// Append takes whole batches, as readers see them, that begin with the one which
// contains Next. Each is checked: its CRC, that it is the next one, and that its
// leader epoch is the one on record. What is at or above the checkpoint's end is
// left alone. Nothing is durable before Finish. An error matching ErrPulled takes
// nothing of b; one of Temporary may be tried again.
func (p *Prefetch) Append(b []byte) error {
	var batches []segment.Batch
	next := p.next
	for len(b) > 0 {
		first, rest, err := batch.Split(b)
		if err != nil {
			return p.refuse(next, err)
		}
		b = rest
		h, err := p.judge(first, next)
		if err != nil {
			return p.refuse(next, err)
		}
		if h.BaseOffset >= p.want.End {
			break
		}
		batches = append(batches, segment.Batch{Base: h.BaseOffset, Body: first, Last: h.LastOffsetDelta, Epoch: h.LeaderEpoch})
		next = h.BaseOffset + int64(h.LastOffsetDelta) + 1
	}
	if len(batches) == 0 {
		return nil
	}
	if err := p.write(batches); err != nil {
		return p.failed(err)
	}
	return nil
}

func (p *Prefetch) refuse(at int64, err error) error {
	return fmt.Errorf("%w: at offset %d of %s: %w", ErrPulled, at, dirName(p.want.TopicID, p.want.Index), err)
}

// judge checks one batch that is to begin at next.
func (p *Prefetch) judge(b []byte, next int64) (batch.Header, error) {
	h, err := batch.ParseHeader(b)
	if err != nil {
		return h, err
	}
	end := h.BaseOffset + int64(h.LastOffsetDelta) + 1
	switch {
	case h.LastOffsetDelta < 0:
		return h, fmt.Errorf("last offset delta %d", h.LastOffsetDelta)
	case h.BaseOffset != next && !(next == p.floor && p.at <= h.BaseOffset && h.BaseOffset < next && next < end):
		return h, fmt.Errorf("batch of offsets [%d, %d)", h.BaseOffset, end)
	case h.BaseOffset < p.want.End && end > p.want.End:
		return h, fmt.Errorf("batch of offsets [%d, %d) across the checkpoint's end %d", h.BaseOffset, end, p.want.End)
	}
	if err := batch.CheckCRC(b); err != nil {
		return h, err
	}
	if p.check != nil && h.BaseOffset < p.want.End {
		return h, p.check(h)
	}
	return h, nil
}

// write appends checked batches, segment by segment.
func (p *Prefetch) write(bs []segment.Batch) error {
	for len(bs) > 0 {
		if p.seg != nil && (p.seg.End() != bs[0].Base || p.seg.Bytes()+int64(len(bs[0].Body)) > p.bytesMax ||
			bs[0].End()-p.seg.Base() > math.MaxInt32) {
			if err := p.finishSegment(); err != nil {
				return err
			}
		}
		n, bytes, have := 0, int64(0), int64(segment.HeaderBytes)
		if p.seg != nil {
			have = p.seg.Bytes()
		}
		for n < len(bs) && (n == 0 || have+bytes+int64(len(bs[n].Body)) <= p.bytesMax) {
			bytes += int64(len(bs[n].Body))
			n++
		}
		if err := p.sh.st.room(bytes + writeOverheadBytes); err != nil {
			return err
		}
		if p.seg == nil {
			if err := p.newSegment(bs[0].Base); err != nil {
				return err
			}
		}
		if err := p.seg.Append(bs[:n]); err != nil {
			return err
		}
		p.at, p.next, p.finished = bs[n-1].End(), bs[n-1].End(), false
		bs = bs[n:]
	}
	return nil
}

func (p *Prefetch) newSegment(base int64) error {
	if err := p.sh.st.usable(); err != nil {
		return err
	}
	if err := p.sh.st.fs.MkdirAll(p.newDir); err != nil {
		return fmt.Errorf("store: make %s: %w", p.newDir, err)
	}
	seg, err := segment.Create(p.sh.st.files, p.newDir, segment.Header{
		TopicID: p.want.TopicID, Partition: p.want.Index, Base: base, TombstoneHorizon: -1,
	})
	p.seg = seg
	return err
}

// finishSegment gives the segment that takes appends its place.
func (p *Prefetch) finishSegment() error {
	seg := p.seg
	if seg == nil {
		return nil
	}
	if seg.End() == seg.Base() { // a full disk came between
		p.seg = nil
		return seg.Remove()
	}
	if err := seg.Seal(); err != nil {
		return err
	}
	if err := seg.Sync(); err != nil {
		return p.sh.st.syncFailed(err)
	}
	if err := p.sh.st.fs.MkdirAll(p.dir); err != nil {
		return fmt.Errorf("store: make %s: %w", p.dir, err)
	}
	if err := segment.Move(p.sh.st.files, p.newDir, p.dir, seg.Base()); err != nil {
		return err
	}
	p.seg = nil
	return nil
}

// failed latches an error, unless it is temporary.
func (p *Prefetch) failed(err error) error {
	if Temporary(err) {
		return fmt.Errorf("store: prefetch of %s: %w", p.dir, err)
	}
	return p.sh.st.fail(err)
}

// Skip says that the source has nothing below an offset: its log start has moved
// past it, or the partition is deleted, by an entry behind the checkpoint. Until
// that entry is applied here, a read below fails.
func (p *Prefetch) Skip(below int64) error {
	below = min(below, p.want.End)
	if below <= p.floor {
		return nil
	}
	if err := p.sh.st.usable(); err != nil {
		return err
	}
	if err := p.sh.st.fs.MkdirAll(p.dir); err != nil {
		return p.failed(fmt.Errorf("store: make %s: %w", p.dir, err))
	}
	if err := vfs.WriteFile(p.sh.st.fs, path.Join(p.dir, droppedName(below)), nil); err != nil {
		return p.failed(fmt.Errorf("store: prefetch: %w", err))
	}
	p.floor, p.next, p.finished = below, max(p.next, below), false
	return nil
}

// Finish makes what was appended durable, but for the names above the
// partition's: see SyncPrefetch.
func (p *Prefetch) Finish() error {
	if p.finished {
		return nil
	}
	if err := p.finishSegment(); err != nil {
		return p.failed(err)
	}
	own := path.Join(p.sh.st.dir, dirName(p.want.TopicID, p.want.Index))
	if err := p.sh.st.fs.MkdirAll(own); err != nil { // where it is moved to
		return p.failed(fmt.Errorf("store: make %s: %w", own, err))
	}
	if err := p.sh.st.syncDir(p.dir); err != nil {
		return err
	}
	p.finished = true
	return nil
}

// Close lets go of what Finish has not made durable.
func (p *Prefetch) Close() error {
	seg := p.seg
	p.seg = nil
	if seg == nil {
		return nil
	}
	return seg.Remove()
}
