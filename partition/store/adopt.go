package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// What was pulled (see Prefetch) becomes a part of the shard: at once by Replace,
// and at the next start by Restore.

// SyncPrefetch makes durable what Finish left: a checkpoint whose every partition
// was finished can be put in place from then on.
func (sh *Shard) SyncPrefetch() error {
	if _, err := sh.st.fs.Stat(sh.prefetchRoot()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := sh.st.syncDir(sh.prefetchRoot()); err != nil {
		return err
	}
	return sh.st.syncDir(sh.st.dir)
}

// DropPrefetch removes what was pulled and is in no partition. It makes durable
// before that what Replace has moved.
func (sh *Shard) DropPrefetch() error {
	if !sh.mayHavePulled() {
		return nil
	}
	root := sh.prefetchRoot()
	names, err := vfs.ReadDirIfThere(sh.st.fs, root)
	if err != nil || len(names) == 0 {
		return err
	}
	if err := sh.syncMoved(); err != nil {
		return err
	}
	for _, name := range names {
		dir := path.Join(root, name)
		if err := sh.discardAll(dir); err != nil {
			return fmt.Errorf("store: prefetch: %w", err)
		}
	}
	if err := sh.st.fs.RemoveAll(root); err != nil {
		return fmt.Errorf("store: prefetch: %w", err)
	}
	return nil
}

// discardAll removes what is in a directory of the prefetch, so that no file of it
// stays open under its name.
func (sh *Shard) discardAll(dir string) error {
	bases, _, err := listPulled(sh.st.fs, dir)
	if err != nil {
		return err
	}
	for _, base := range slices.Backward(bases) {
		if err := segment.Discard(sh.st.files, dir, base); err != nil {
			return err
		}
	}
	return sh.st.fs.RemoveAll(dir)
}

// syncMoved makes the names durable that adopt has changed.
func (sh *Shard) syncMoved() error {
	sh.mu.Lock()
	parts := sh.adopted
	sh.adopted = nil
	sh.mu.Unlock()
	if len(parts) == 0 {
		return nil
	}
	err := sh.st.syncAll(parts)
	if err != nil {
		sh.mu.Lock()
		sh.adopted = append(sh.adopted, parts...)
		sh.mu.Unlock()
	}
	return err
}

// mayHavePulled reports whether there may be anything that was pulled.
func (sh *Shard) mayHavePulled() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, found := sh.st.pulled[path.Base(sh.prefetchRoot())]
	return found || sh.prefetches
}

// pulledParts lists the directories of partitions of which something was pulled.
func (sh *Shard) pulledParts() (map[string]bool, error) {
	if !sh.mayHavePulled() {
		return nil, nil
	}
	names, err := vfs.ReadDirIfThere(sh.st.fs, sh.prefetchRoot())
	if err != nil {
		return nil, err
	}
	pulled := make(map[string]bool, len(names))
	for _, name := range names {
		pulled[name] = true
	}
	return pulled, nil
}

// adopt moves into p's directory what was pulled of it below r's end, behind own,
// where p's segments end. It opens nothing, and syncs nothing: until DropPrefetch
// a power cut may take the moves back, and the next Restore makes them again. It
// returns the base offsets.
func (sh *Shard) adopt(p *part, r Restored, own int64) (bases []int64, moved bool, err error) {
	st, from := sh.st, sh.prefetchDir(r.TopicID, r.Index)
	pulled, dropped, err := listPulled(st.fs, from)
	if err != nil || len(pulled) == 0 && dropped == 0 {
		return nil, false, err
	}
	if own < r.End && dropped > r.LogStart {
		if err := st.makeDir(p.dir()); err != nil {
			return nil, false, err
		}
		if err := st.fs.Rename(path.Join(from, droppedName(dropped)), path.Join(p.dir(), droppedName(dropped))); err != nil {
			return nil, false, fmt.Errorf("store: move what was pulled: %w", err)
		}
		sh.mu.Lock()
		p.dropped = max(p.dropped, dropped)
		sh.mu.Unlock()
		moved = true
	}
	floor := max(r.LogStart, p.dropped)
	for i, base := range pulled {
		if base >= r.End || !follows(base, own, floor) {
			break
		}
		if err := st.makeDir(p.dir()); err != nil {
			return nil, false, err
		}
		if err := segment.Move(st.files, from, p.dir(), base); err != nil {
			return nil, false, err
		}
		bases = append(bases, base)
		// They follow each other, or Finish would not have been reached.
		if own = r.End; i+1 < len(pulled) {
			own = pulled[i+1]
		}
	}
	if moved = moved || len(bases) > 0; moved {
		sh.mu.Lock()
		defer sh.mu.Unlock()
		p.dirMade, p.dirUnsynced = true, true
		sh.adopted = append(sh.adopted, p)
	}
	return bases, moved, nil
}

// adoptAtRestart is adopt for a partition that is being restored, and reports
// whether it moved something.
func (sh *Shard) adoptAtRestart(p *part, r Restored) (moved bool, err error) {
	pulled, dropped, err := listPulled(sh.st.fs, sh.prefetchDir(r.TopicID, r.Index))
	if err != nil || (len(pulled) == 0 || pulled[0] >= r.End) && dropped == 0 {
		return false, err
	}
	// Where its own segments end says whether they were pulled for this checkpoint:
	// they go on behind the ones that its predecessor knew.
	own := int64(0)
	names, err := vfs.ReadDirIfThere(sh.st.fs, p.dir())
	if err != nil {
		return false, err
	}
	last := int64(-1)
	for _, name := range names {
		if base, ok := segment.ParseName(name); ok && base < r.End {
			last = max(last, base)
		}
		if below, ok := ParseDropped(name); ok { // moved here before a crash, by adopt
			p.dropped = max(p.dropped, below)
		}
	}
	if last >= 0 {
		seg, err := segment.Open(sh.st.files, p.dir(), segment.OpenOptions{
			TopicID: r.TopicID, Partition: r.Index, Base: last, End: math.MaxInt64, Check: checkEpochs(r.Epochs),
		})
		if errors.Is(err, segment.ErrCorrupt) {
			return false, nil // Restore reports it
		}
		if err != nil {
			return false, err
		}
		own = seg.End()
	}
	_, moved, err = sh.adopt(p, r, own)
	return moved, err
}

// Replace brings the shard to the checkpoint of another replica, for whose every
// partition a Prefetch was finished, and SyncPrefetch called. Nothing is appended
// meanwhile, and no Capture is open. Readers see a partition as it was or as it
// is; those that wait are woken by the next AppliedBatch. Partitions that the
// checkpoint does not have are deleted.
//
// It moves and opens files, reads no batch of those that Prefetch has finished, and
// syncs nothing: the checkpoint is durable already, and Restore would do the
// same. After an error the shard cannot be used.
func (sh *Shard) Replace(rs []Restored) ([]Damage, error) {
	var damage []Damage
	pulled, err := sh.pulledParts()
	if err != nil {
		return nil, fmt.Errorf("store: replace: %w", err)
	}
	stay := make(map[uint32]bool, len(rs))
	for _, r := range rs {
		stay[r.Key] = true
		sh.mu.Lock()
		p := sh.parts[r.Key]
		sh.mu.Unlock()
		var d []Damage
		var err error
		if p == nil {
			d, err = sh.restore(r, pulled)
		} else {
			d, err = sh.replace(p, r)
		}
		if err != nil {
			return nil, fmt.Errorf("store: replace partition %d: %w", r.Key, err)
		}
		damage = append(damage, d...)
	}
	sh.mu.Lock()
	var gone []uint32
	for key := range sh.parts {
		if !stay[key] {
			gone = append(gone, key)
		}
	}
	sh.mu.Unlock()
	slices.Sort(gone)
	for _, key := range gone {
		sh.Delete(key)
	}
	return damage, nil
}

// replace brings a partition to what another replica's checkpoint says of it.
func (sh *Shard) replace(p *part, r Restored) ([]Damage, error) {
	own, _, err := sh.ownEnd(r)
	if err != nil {
		return nil, err
	}
	sh.st.take(p)
	defer sh.st.giveBack(p)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	segs := slices.Clone(p.segs)
	var found []*segment.CorruptError
	if own < r.End {
		sh.mu.Unlock()
		segs, found, err = sh.openAdopted(p, r, own, segs)
		sh.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	for _, d := range p.damage {
		found = append(found, d.Err)
	}
	p.segs, p.cfg = segs, r.Config
	if r.LogStart > p.logStart {
		p.logStart, p.startedAt = r.LogStart, sh.captures
		sh.causes = append(sh.causes, cause{p: p, at: sh.captures, below: r.LogStart})
	}
	p.flushed, p.end = r.End, r.End
	known := p.damage
	p.damage = p.holes(found)
	for _, d := range known { // what is damaged within a segment is no hole
		if !slices.ContainsFunc(p.damage, func(o Damage) bool { return o.From <= d.From && d.From < o.To }) {
			p.damage = append(p.damage, d)
		}
	}
	p.noteHarmLocked()
	slices.SortFunc(p.damage, func(a, b Damage) int { return cmp.Compare(a.From, b.From) })
	if own < r.End {
		sh.noteMovedLocked(p)
	}
	return p.damage, nil
}

// openAdopted adopts what was pulled of p, and appends the segments to segs.
func (sh *Shard) openAdopted(p *part, r Restored, own int64, segs []*segment.Segment) ([]*segment.Segment, []*segment.CorruptError, error) {
	if n := len(segs); n > 0 && !segs[n-1].Sealed() {
		if err := segs[n-1].Seal(); err != nil && !vfs.NoSpace(err) {
			return nil, nil, err
		}
		p.noteUnsynced(segs[n-1])
	}
	bases, _, err := sh.adopt(p, r, own)
	if err != nil {
		return nil, nil, err
	}
	var damaged []*segment.CorruptError
	for i, base := range bases {
		end := r.End
		if i+1 < len(bases) {
			end = bases[i+1]
		}
		seg, err := sh.openSegment(p, r, base, end)
		var ce *segment.CorruptError
		if errors.As(err, &ce) {
			damaged = append(damaged, ce)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if seg.Damage() != nil {
			damaged = append(damaged, seg.Damage())
		}
		segs = append(segs, seg)
	}
	slices.SortFunc(segs, func(a, b *segment.Segment) int { return cmp.Compare(a.Base(), b.Base()) })
	return segs, damaged, nil
}

// openSegment opens one of p's segments, which ends at end at most.
func (sh *Shard) openSegment(p *part, r Restored, base, end int64) (*segment.Segment, error) {
	seg, err := segment.Open(sh.st.files, p.dir(), segment.OpenOptions{
		TopicID: r.TopicID, Partition: r.Index, Base: base, End: end, Check: checkEpochs(r.Epochs),
	})
	if err == nil {
		sh.st.stats.segments.Add(1)
		sh.st.stats.segmentBytes.Add(seg.Bytes())
	}
	return seg, err
}
