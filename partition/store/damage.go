package store

import (
	"cmp"
	"errors"
	"slices"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// What is known to be damaged of a partition is in part.damage: what Restore found,
// what a read met, and what Scrub found. Reads of such a range fail; a Repair takes
// it away.

// Damage is a range of a partition that cannot be read.
type Damage struct {
	Key      uint32
	TopicID  [16]byte
	Index    int32
	From, To int64 // half-open, within [LogStart, End)
	Err      *segment.CorruptError
}

// OnDamage has fn called, where it is found and without locks, with each damage
// that a read or Scrub finds; what Restore and Replace find, they return. It is for
// before the first partition.
func (sh *Shard) OnDamage(fn func(Damage)) { sh.onDamage = fn }

// Damaged lists what is known to be damaged at or above the log starts, by
// partition and offset.
func (sh *Shard) Damaged() (all []Damage) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for key := range sh.harmed {
		p := sh.parts[key]
		if p != nil {
			p.forgetDamageLocked(0, p.logStart)
		}
		if p == nil || len(p.damage) == 0 {
			delete(sh.harmed, key)
			continue
		}
		all = append(all, p.damage...)
	}
	slices.SortFunc(all, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.From, b.From))
	})
	return all
}

// damageOf is a Damage of p.
func (p *part) damageOf(from, to int64, err *segment.CorruptError) Damage {
	return Damage{Key: p.key, TopicID: p.topicID, Index: p.index, From: from, To: to, Err: err}
}

// met notes what a read of seg met, if it is damage.
func (sh *Shard) met(p *part, seg *segment.Segment, err error) {
	var ce *segment.CorruptError
	if !errors.As(err, &ce) {
		return
	}
	sh.mu.Lock()
	i := slices.Index(p.segs, seg)
	to := int64(0)
	if i >= 0 {
		to = p.extentEndLocked(i)
	}
	sh.mu.Unlock()
	if i >= 0 {
		sh.noteDamage(p, segment.BadOffsets{From: max(ce.Offset, seg.Base()), To: to, Err: ce})
	}
}

// noteDamage adds to what is known of p, and tells who asked to be told if that is
// new.
func (sh *Shard) noteDamage(p *part, bad segment.BadOffsets) {
	sh.mu.Lock()
	d := p.damageOf(max(bad.From, p.logStart), bad.To, bad.Err)
	known := d.From >= d.To || sh.parts[p.key] != p || slices.ContainsFunc(p.damage, func(o Damage) bool {
		return o.From <= d.From && d.From < o.To
	})
	if !known {
		p.damage = append(p.damage, d)
		p.noteHarmLocked()
		slices.SortFunc(p.damage, func(a, b Damage) int { return cmp.Compare(a.From, b.From) })
	}
	sh.mu.Unlock()
	if !known && sh.onDamage != nil {
		sh.onDamage(d)
	}
}

// noteHarmLocked has Damaged look at p, if it is damaged.
func (p *part) noteHarmLocked() {
	if len(p.damage) == 0 {
		return
	}
	if p.sh.harmed == nil {
		p.sh.harmed = make(map[uint32]struct{})
	}
	p.sh.harmed[p.key] = struct{}{}
}

// forgetDamageLocked takes [from, to) out of what is known to be damaged.
func (p *part) forgetDamageLocked(from, to int64) {
	var left []Damage
	for _, d := range p.damage {
		below, above := d, d
		below.To, above.From = min(d.To, from), max(d.From, to)
		if below.From < below.To {
			left = append(left, below)
		}
		if above.From < above.To {
			left = append(left, above)
		}
	}
	p.damage = left
}

// Scrubbed is what a Scrub has read.
type Scrubbed struct{ Segments, Bytes int64 }

// Scrub reads every segment of the shard as it is on the disk, and checks its
// batches and its index. What is damaged is known from then on: see Damaged. An
// index that alone is damaged counts as damage of its segment's range, which can
// be read meanwhile.
//
// epochs returns a partition's epoch history, or nil. pace is called before each
// read with how many bytes it takes, and ends Scrub with its error; other errors
// are the file system's. Partitions that come meanwhile are left to the next one.
func (sh *Shard) Scrub(epochs func(key uint32) []Epoch, pace func(bytes int64) error) (Scrubbed, error) {
	var done Scrubbed
	sh.mu.Lock()
	keys := make([]uint32, 0, len(sh.parts))
	for key := range sh.parts {
		keys = append(keys, key)
	}
	sh.mu.Unlock()
	slices.Sort(keys)
	counted := func(n int64) error {
		err := pace(n)
		if err == nil {
			done.Bytes += n
		}
		return err
	}
	for _, key := range keys {
		sh.mu.Lock()
		p := sh.parts[key]
		var segs []*segment.Segment
		if p != nil {
			segs = slices.Clone(p.segs)
		}
		sh.mu.Unlock()
		if len(segs) == 0 {
			continue
		}
		check := checkEpochs(epochs(key))
		for _, seg := range segs {
			if err := sh.scrub(p, seg, check, counted); err != nil {
				return done, err
			}
			done.Segments++
		}
	}
	return done, nil
}

// scrub reads one segment.
func (sh *Shard) scrub(p *part, seg *segment.Segment, check func(batch.Header) error, pace func(int64) error) error {
	bad, err := seg.Scrub(pace, check)
	for _, b := range bad {
		sh.noteDamage(p, b)
	}
	var index *segment.CorruptError
	switch {
	case errors.As(err, &index):
		sh.met(p, seg, err)
		return nil
	case errors.Is(err, segment.ErrGone): // its log start has moved, or it was repaired
		return nil
	}
	return err
}
