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

// repairPrefix begins the name of the directory in which a shard's segments are
// written that replace damaged ones:
//
//	<dir>/repair-<shard>/<base>.seg, .index
//	<dir>/repair-<shard>/new/...
//
// Nothing in it survives a restart: what was damaged is still in its place then.
const repairPrefix = "repair-"

// ErrMoot reports a repair of what is not damaged any more: it was repaired, or
// the log start has passed it, or the partition is gone.
var ErrMoot = errors.New("store: nothing to repair")

// Repair writes anew a part of a partition of which some is damaged or missing:
// one segment, or what is missing up to the next one. What is intact is taken from
// the segment itself, the rest is given to Append. It is for one goroutine, and one
// Repair of a shard at a time.
type Repair struct {
	sh   *Shard
	p    *part
	old  *segment.Segment // nil: there is none that can be opened
	w    *Prefetch        // writes [from, to)
	bad  []Damage         // of [from, to), ascending: what is not taken from old
	from int64
	pace func(bytes int64) error

	whole        bool // everything is one segment: of a name that is taken
	local, given int64
	bytesMax     int64 // of what was given, unless whole
}

// BeginRepair looks at what is damaged around the beginning of d, of which the
// partition's epoch history is given, and removes what an earlier Repair has left.
// It reads the segment from the disk once, calling pace as Scrub does.
//
// ErrMoot, an error of pace or of the file system, or, after a sync that failed,
// the latched one.
func (sh *Shard) BeginRepair(d Damage, epochs []Epoch, pace func(int64) error) (*Repair, error) {
	root := sh.repairRoot()
	if err := sh.clearRepair(root); err != nil {
		return nil, err
	}
	r := &Repair{sh: sh, p: sh.lookup(d.Key), pace: pace}
	if r.p == nil || r.p.topicID != d.TopicID {
		return nil, ErrMoot
	}
	to, err := r.plan(d)
	if err != nil {
		return nil, err
	}
	if r.old != nil {
		if err := r.inspect(epochs, pace, to); err != nil {
			return nil, err
		}
	}
	sh.mu.Lock()
	logStart := r.p.logStart
	r.bytesMax = r.p.segmentBytes()
	sh.mu.Unlock()
	// Nobody has what is below the log start any more: if some of it is damaged,
	// the segment begins there.
	if r.from < logStart && (r.old == nil || len(r.bad) > 0 && r.bad[0].From < logStart) {
		r.from = logStart
	}
	if r.from >= to {
		return nil, ErrMoot
	}
	r.w = &Prefetch{
		sh: sh, check: checkEpochs(epochs), dir: root, newDir: path.Join(root, prefetchNew),
		want:  Restored{Key: d.Key, TopicID: d.TopicID, Index: d.Index, End: to, Epochs: epochs},
		floor: -1, at: r.from, next: r.from, bytesMax: r.bytesMax, finished: true,
	}
	if r.from == logStart { // its batch may begin below
		r.w.floor, r.w.at = logStart, 0
	}
	if r.whole {
		r.w.bytesMax = segment.MaxBytes
	}
	if err := sh.st.fs.MkdirAll(root); err != nil {
		return nil, fmt.Errorf("store: repair: %w", err)
	}
	return r, nil
}

func (sh *Shard) repairRoot() string {
	return path.Join(sh.st.dir, fmt.Sprintf("%s%d", repairPrefix, sh.id))
}

// clearRepair empties the directory that repairs are written in.
func (sh *Shard) clearRepair(root string) error {
	for _, dir := range []string{root, path.Join(root, prefetchNew)} {
		if err := sh.discardAll(dir); err != nil {
			return fmt.Errorf("store: repair: %w", err)
		}
	}
	return nil
}

// plan finds the segment that d begins in, or that there is none, and returns
// where what is to be written anew ends.
func (r *Repair) plan(d Damage) (to int64, err error) {
	sh, p := r.sh, r.p
	sh.st.take(p) // nothing is appended to the segment any more
	defer sh.st.giveBack(p)
	names, err := vfs.ReadDirIfThere(sh.st.fs, p.dir())
	if err != nil {
		return 0, fmt.Errorf("store: repair: %w", err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p.forgetDamageLocked(0, p.logStart)
	i := slices.IndexFunc(p.damage, func(o Damage) bool { return o.From < d.To && d.From < o.To })
	if i < 0 || sh.parts[p.key] != p {
		return 0, ErrMoot
	}
	from := max(d.From, p.logStart, p.damage[i].From)
	// What begins at the name of a file, or an open segment, is another's to write.
	to, stray := p.flushed, false
	for _, base := range p.basesLocked(names) {
		if base > from {
			to = min(to, base)
			break
		}
		stray = p.openLocked(base) == nil
		r.old = p.openLocked(base)
	}
	switch {
	case r.old != nil && (r.old.End() > from || r.old.Damage() != nil):
		r.from, r.whole = r.old.Base(), true
		r.old.Freeze()
		if r.old.Damage() == nil {
			to = min(to, r.old.End()) // what follows was below the log start
		}
	default:
		r.old, r.from, r.whole = nil, from, stray
	}
	if r.from >= to {
		return 0, ErrMoot
	}
	return to, nil
}

// basesLocked returns the base offsets of p's segments and of all files that are
// named like one, ascending.
func (p *part) basesLocked(names []string) (bases []int64) {
	for _, name := range names {
		if base, ok := segment.ParseName(name); ok {
			bases = append(bases, base)
		}
	}
	for _, seg := range p.segs {
		bases = append(bases, seg.Base())
	}
	slices.Sort(bases)
	return slices.Compact(bases)
}

// openLocked returns p's segment of that base offset, or nil.
func (p *part) openLocked(base int64) *segment.Segment {
	i := slices.IndexFunc(p.segs, func(s *segment.Segment) bool { return s.Base() == base })
	if i < 0 {
		return nil
	}
	return p.segs[i]
}

// inspect finds out what of the old segment is damaged.
func (r *Repair) inspect(epochs []Epoch, pace func(int64) error, to int64) error {
	bad, err := r.old.Scrub(pace, checkEpochs(epochs))
	var index *segment.CorruptError
	switch {
	case errors.Is(err, segment.ErrGone):
		return ErrMoot
	case err != nil && !errors.As(err, &index):
		return err
	}
	for _, b := range bad {
		r.bad = append(r.bad, r.p.damageOf(b.From, b.To, b.Err))
	}
	if end := r.old.End(); end < to {
		r.bad = append(r.bad, r.p.damageOf(end, to, r.old.Damage()))
	}
	if len(r.bad) > 0 || index != nil {
		return nil
	}
	// A read failed that succeeds now.
	r.sh.mu.Lock()
	r.p.forgetDamageLocked(r.from, to)
	r.sh.mu.Unlock()
	return ErrMoot
}

// Local returns how many bytes were taken from the damaged segment itself.
func (r *Repair) Local() int64 { return r.local }

// Wanted copies what is intact, up to the next range [from, to) that is not, and
// returns that; false says that nothing more is wanted. Append takes its batches.
func (r *Repair) Wanted() (from, to int64, more bool, err error) {
	for !r.w.Done() && (r.whole || r.given < r.bytesMax) {
		at := r.w.Next()
		if r.old == nil {
			return at, r.w.want.End, true, nil
		}
		for len(r.bad) > 0 && r.bad[0].To <= at {
			r.bad = r.bad[1:]
		}
		if len(r.bad) > 0 && r.bad[0].From <= at {
			return at, r.bad[0].To, true, nil
		}
		if err := r.copy(at); err != nil {
			return 0, 0, false, err
		}
	}
	return 0, 0, false, nil
}

// copy takes a run of batches from the old segment.
func (r *Repair) copy(at int64) error {
	rng, err := r.old.Range(at, chunkBytes)
	if errors.Is(err, segment.ErrGone) {
		return ErrMoot
	}
	var damage *segment.CorruptError
	if errors.As(err, &damage) { // since it was inspected
		r.insert(r.p.damageOf(at, at+1, damage))
		return nil
	}
	if err != nil {
		return err
	}
	defer rng.Release()
	if err := r.pace(rng.Bytes); err != nil {
		return err
	}
	b := make([]byte, rng.Bytes)
	if _, err := rng.File.ReadAt(b, rng.Pos); err != nil {
		return fmt.Errorf("store: repair: read %s: %w", r.old.Name(), err)
	}
	err = r.w.Append(b)
	if errors.Is(err, ErrPulled) {
		r.insert(r.p.damageOf(at, rng.End, &segment.CorruptError{File: r.old.Name(), Offset: at, Position: rng.Pos, Err: err}))
		return nil
	}
	if err == nil {
		r.local += rng.Bytes
	}
	return err
}

// insert adds a range to what is to come from others.
func (r *Repair) insert(d Damage) {
	r.bad = append(r.bad, d)
	slices.SortFunc(r.bad, func(a, b Damage) int { return cmp.Compare(a.From, b.From) })
}

// Append is Prefetch.Append, for the range that Wanted has returned.
func (r *Repair) Append(b []byte) error {
	err := r.w.Append(b)
	if err == nil {
		r.given += int64(len(b))
	}
	return err
}

// Next returns the offset from which on batches are wanted.
func (r *Repair) Next() int64 { return r.w.Next() }

// Finish puts in place what was written, once nothing more is wanted: it is synced
// first, takes the names of what was damaged one by one, and those are durable when
// Finish returns. A crash leaves the one or the other. Readers go on meanwhile.
//
// ErrMoot says that nothing was changed; after other errors that are not of
// Temporary the store has failed.
func (r *Repair) Finish() error {
	if err := r.w.finishSegment(); err != nil {
		return r.w.failed(err)
	}
	st, p := r.sh.st, r.p
	bases, _, err := listPulled(st.fs, r.w.dir)
	if err != nil || len(bases) == 0 {
		return errors.Join(err, ErrMoot)
	}
	st.take(p)
	defer st.giveBack(p)
	if !r.stands(bases) {
		return ErrMoot
	}
	if err := st.usable(); err != nil {
		return err
	}
	err = r.place(bases)
	if err != nil && !Temporary(err) {
		return st.fail(err)
	}
	return err
}

// stands reports whether what is to be replaced is as it was.
func (r *Repair) stands(bases []int64) bool {
	r.sh.mu.Lock()
	defer r.sh.mu.Unlock()
	p := r.p
	if r.sh.parts[p.key] != p {
		return false
	}
	if r.old != nil {
		return p.openLocked(r.old.Base()) == r.old
	}
	return !slices.ContainsFunc(p.segs, func(s *segment.Segment) bool {
		return s.End() > bases[0] && s.Base() < r.w.Next() && s.Base() != s.End()
	})
}

// place moves the new segments to where the old one is, and opens them.
func (r *Repair) place(bases []int64) error {
	sh, st, p, dir := r.sh, r.sh.st, r.p, r.p.dir()
	if err := st.makeDir(dir); err != nil {
		return err
	}
	for _, base := range bases {
		if err := segment.Move(st.files, r.w.dir, dir, base); err != nil {
			return err
		}
	}
	// Only now: what is removed is not needed.
	if err := st.syncDir(dir); err != nil {
		return err
	}
	if err := st.syncRoot(); err != nil {
		return st.syncFailed(err)
	}
	if err := r.removeStray(bases); err != nil {
		return err
	}
	var opened []*segment.Segment
	for i, base := range bases {
		end := r.w.Next()
		if i+1 < len(bases) {
			end = bases[i+1]
		}
		seg, err := sh.openSegment(p, r.w.want, base, end)
		if err != nil {
			return err
		}
		opened = append(opened, seg)
	}
	sh.mu.Lock()
	segs := slices.DeleteFunc(slices.Clone(p.segs), func(s *segment.Segment) bool { return s == r.old })
	p.segs = append(segs, opened...)
	slices.SortFunc(p.segs, func(a, b *segment.Segment) int { return cmp.Compare(a.Base(), b.Base()) })
	p.unsynced = slices.DeleteFunc(slices.Clone(p.unsynced), func(s *segment.Segment) bool { return s == r.old })
	p.dirMade = true
	p.forgetDamageLocked(min(r.from, bases[0]), r.w.Next())
	sh.mu.Unlock()
	if r.old != nil {
		st.stats.segments.Add(-1)
		st.stats.segmentBytes.Add(-r.old.Bytes())
		r.old.Retire() // those who still read it hold it
	}
	return nil
}

// removeStray removes files that are named like segments of the range and are not:
// what they held is in the new ones, or below the log start.
func (r *Repair) removeStray(bases []int64) error {
	p, st := r.p, r.sh.st
	names, err := st.fs.ReadDir(p.dir())
	if err != nil {
		return fmt.Errorf("store: repair: %w", err)
	}
	after := int64(math.MinInt64)
	r.sh.mu.Lock()
	for _, s := range p.segs {
		if s != r.old && s.Base() < r.from {
			after = max(after, s.Base())
		}
	}
	r.sh.mu.Unlock()
	for _, name := range names {
		base, ok := segment.ParseName(name)
		if !ok || base <= after || base >= r.w.Next() || slices.Contains(bases, base) {
			continue
		}
		if err := segment.Discard(st.files, p.dir(), base); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close lets go of what Finish has not put in place.
func (r *Repair) Close() error { return r.w.Close() }
