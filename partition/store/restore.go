package store

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// Restored is a partition as a checkpoint knows it.
type Restored struct {
	Key      uint32
	TopicID  [16]byte
	Index    int32
	LogStart int64
	End      int64
	Config   Config

	// Epochs is the partition's epoch history, ascending: what a rebuilt index
	// must agree with, since leader epochs lie outside the batches' checksums.
	// Nil: not checked.
	Epochs []Epoch
}

// Epoch says that a leader epoch begins at an offset.
type Epoch struct {
	Epoch int32
	Start int64
}

// Restore brings the shard to its newest durable checkpoint. It is called once,
// before anything else, on a shard without partitions.
//
// Each partition is cut to its End by offset (R14): what lies above was flushed
// and will be applied again. Files wholly above End or below LogStart are
// unlinked. What is left must cover [LogStart, End) without a gap, but for what
// FreeEarly has dropped: the log, applied again, moves the log start past it. What
// a catch-up has pulled is part of it if the checkpoint is the one that it was
// pulled for, and otherwise stays for the catch-up to go on with.
//
// Damage, or bytes that are missing, stop only the reads of that range, which
// fail with the same error: Restore returns all such ranges, keeps the files
// as they are, and the partition takes appends. Whether to repair, to serve, or
// to refuse is the caller's decision (R20). The error is the file system's, or
// matches segment.ErrVersion, and the shard cannot be used.
func (sh *Shard) Restore(rs []Restored) ([]Damage, error) {
	var damage []Damage
	if _, left := sh.st.pulled[path.Base(sh.repairRoot())]; left {
		if err := sh.clearRepair(sh.repairRoot()); err != nil {
			return nil, err
		}
	}
	pulled, err := sh.pulledParts()
	if err != nil {
		return nil, fmt.Errorf("store: restore: %w", err)
	}
	for _, r := range rs {
		d, err := sh.restore(r, pulled)
		if err != nil {
			return nil, fmt.Errorf("store: restore partition %d: %w", r.Key, err)
		}
		damage = append(damage, d...)
	}
	return damage, nil
}

func (sh *Shard) restore(r Restored, pulled map[string]bool) ([]Damage, error) {
	p := &part{
		sh: sh, key: r.Key, topicID: r.TopicID, index: r.Index, cfg: r.Config,
		logStart: r.LogStart, flushed: r.End, end: r.End,
	}
	var bases []int64
	moved := false
	if pulled[dirName(r.TopicID, r.Index)] {
		var err error
		if moved, err = sh.adoptAtRestart(p, r); err != nil {
			return nil, err
		}
	}
	if sh.st.claim(dirName(r.TopicID, r.Index)) || moved { // an idle partition has no directory
		// A name that comes back after a power cut would cut off what is written
		// over its offsets from here on: the next checkpoint syncs first.
		var unlinked bool
		var err error
		if bases, p.dropped, unlinked, err = sh.st.listSegments(p.dir(), r); err != nil {
			return nil, err
		}
		p.dirUnsynced = p.dirUnsynced || unlinked
	}
	var damaged []*segment.CorruptError
	for i, base := range bases {
		end := r.End
		if i+1 < len(bases) {
			end = bases[i+1]
		}
		if end <= max(r.LogStart, p.dropped) {
			if err := segment.Remove(sh.st.fs, p.dir(), base); err != nil {
				return nil, err
			}
			continue
		}
		seg, err := segment.Open(sh.st.files, p.dir(), segment.OpenOptions{
			TopicID: r.TopicID, Partition: r.Index, Base: base, End: end, Check: checkEpochs(r.Epochs),
		})
		var ce *segment.CorruptError
		switch {
		case errors.As(err, &ce):
			damaged = append(damaged, ce)
			continue
		case err != nil:
			return nil, err
		case seg.Damage() != nil:
			damaged = append(damaged, seg.Damage())
		case seg.End() <= r.LogStart:
			if err := seg.Remove(); err != nil {
				return nil, err
			}
			continue
		}
		// Only the last one is written on. A footer that was lost, with the
		// index that it ended, spares the next restart a walk.
		if i+1 < len(bases) && !seg.Sealed() {
			if err := seg.Seal(); err != nil && !vfs.NoSpace(err) {
				return nil, err
			}
			p.unsynced = append(p.unsynced, seg)
		}
		if !seg.Sealed() {
			// A header that cannot be read is the readers' to report: the segment
			// is then rolled by size alone.
			_ = seg.LoadFirstTimestamp()
		}
		p.segs = append(p.segs, seg)
		sh.st.stats.segments.Add(1)
		sh.st.stats.segmentBytes.Add(seg.Bytes())
	}
	p.dirMade = len(p.segs) > 0
	p.damage = p.holes(damaged)
	sh.mu.Lock()
	if sh.parts[r.Key] != nil {
		sh.mu.Unlock()
		panic(fmt.Sprintf("store: partition %d restored twice", r.Key))
	}
	sh.parts[r.Key] = p
	p.noteHarmLocked()
	sh.mu.Unlock()
	return p.damage, nil
}

// listSegments returns the base offsets of the segments that may hold some of
// [LogStart, End), ascending, and unlinks what lies above, and indexes that
// have no segment. unlinked says that it unlinked segments, which is not durable
// yet.
//
// Below dropped, files are missing because something freed their space early
// (see FreeEarly); it is not above r.LogStart otherwise.
func (st *Store) listSegments(dir string, r Restored) (bases []int64, dropped int64, unlinked bool, err error) {
	names, err := st.fs.ReadDir(dir)
	if err != nil {
		return nil, 0, false, err
	}
	for _, name := range names {
		offset, ok := ParseDropped(name)
		if ok && offset <= r.LogStart {
			if err := st.fs.Remove(path.Join(dir, name)); err != nil {
				return nil, 0, false, err
			}
		} else if ok {
			dropped = max(dropped, offset)
		}
		base, ok := segment.ParseName(name)
		if !ok {
			continue
		}
		if base < r.End {
			bases = append(bases, base)
			continue
		}
		unlinked = true
		if err := st.fs.Remove(path.Join(dir, name)); err != nil {
			return nil, 0, false, err
		}
	}
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, path.Ext(segment.IndexName(0)))
		base, isIndex := segment.ParseName(stem + path.Ext(segment.DataName(0)))
		if !ok || !isIndex || slices.Contains(bases, base) {
			continue
		}
		if err := st.fs.Remove(path.Join(dir, name)); err != nil {
			return nil, 0, false, err
		}
	}
	slices.Sort(bases)
	return bases, dropped, unlinked, nil
}

// holes returns the ranges of [logStart, end) that no segment holds, each with
// the damage that explains it, if one does.
func (p *part) holes(damaged []*segment.CorruptError) (ds []Damage) {
	hole := func(from, to int64) {
		err := p.missingLocked(from)
		for _, ce := range damaged {
			if ce.Offset == from || ce.Offset < from && from == p.logStart {
				err = ce
			}
		}
		ds = append(ds, p.damageOf(from, to, err))
	}
	at := max(p.logStart, min(p.dropped, p.end))
	for _, seg := range p.segs {
		if seg.Base() > at {
			hole(at, seg.Base())
		}
		at = max(at, seg.End())
	}
	if at < p.end {
		hole(at, p.end)
	}
	return ds
}

// checkEpochs returns a check that a batch's leader epoch is the one that the
// history has at its offset.
func checkEpochs(history []Epoch) func(batch.Header) error {
	if len(history) == 0 {
		return nil
	}
	return func(h batch.Header) error {
		i := sort.Search(len(history), func(i int) bool { return history[i].Start > h.BaseOffset })
		if i == 0 {
			return nil // forgotten: below the log start
		}
		if want := history[i-1].Epoch; h.LeaderEpoch != want {
			return fmt.Errorf("leader epoch %d, the checkpoint's history has %d", h.LeaderEpoch, want)
		}
		return nil
	}
}
