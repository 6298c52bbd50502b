package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/log/segment"
)

// droppedSuffix ends the name of the file that FreeEarly leaves in a partition's
// directory: `<offset>.dropped`, 20 digits, says that files below the offset may
// be missing because what they held was deleted. What is in it means nothing.
const droppedSuffix = ".dropped"

func droppedName(offset int64) string { return fmt.Sprintf("%020d%s", offset, droppedSuffix) }

// ParseDropped returns the offset in the name of a file that FreeEarly left in a
// partition's directory, and false for any other name.
func ParseDropped(name string) (offset int64, ok bool) {
	digits, ok := strings.CutSuffix(name, droppedSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	u, err := strconv.ParseUint(digits, 10, 63)
	return int64(u), err == nil
}

// Droppable reports whether files wait for a checkpoint to be unlinked.
func (sh *Shard) Droppable() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return len(sh.causes) > 0
}

// FreeEarly unlinks what only a checkpoint that cannot be written keeps, since a
// full disk has no room for it: files of deleted partitions, and segments wholly
// below a log start. It returns how many bytes of data files went.
//
// The newest durable checkpoint may still know them. So their absence is made
// durable first, in a name that takes no space, and Restore does not take it for
// damage: the deletion is committed, and applied again (R13, docs/adr/0005). It
// waits for disks, runs beside everything else, and does not run beside itself.
// An error of a sync has been latched (R9); others leave the files behind.
func (st *Store) FreeEarly() (bytes int64, err error) {
	var errs []error
	for _, sh := range st.all() {
		sh.mu.Lock()
		causes := append([]cause(nil), sh.causes...)
		sh.mu.Unlock()
		for _, c := range causes {
			below := c.below
			if c.deleted {
				below = math.MaxInt64
			}
			n, err := sh.freeEarly(c.p, below)
			bytes += n
			errs = append(errs, err)
		}
	}
	return bytes, errors.Join(errs...)
}

// FreeDoomed is FreeEarly for partitions of topics whose deletion is committed
// elsewhere, while their own Delete may not be: it may be behind entries for which the
// disk has no room. Nobody reads them any more, and their Delete comes some time, after
// a restart too. They stay known, and batches that come for them are kept.
func (st *Store) FreeDoomed(doomed func(topicID [16]byte) bool) (bytes int64, err error) {
	var errs []error
	for _, sh := range st.all() {
		var parts []*part
		sh.mu.Lock()
		for _, p := range sh.parts {
			if len(p.segs) > 0 && doomed(p.topicID) {
				parts = append(parts, p)
			}
		}
		sh.mu.Unlock()
		for _, p := range parts {
			n, err := sh.freeEarly(p, math.MaxInt64)
			bytes += n
			errs = append(errs, err)
		}
	}
	return bytes, errors.Join(errs...)
}

// all returns the shards.
func (st *Store) all() []*Shard {
	st.mu.Lock()
	defer st.mu.Unlock()
	shards := make([]*Shard, 0, len(st.shards))
	for _, sh := range st.shards {
		shards = append(shards, sh)
	}
	return shards
}

// freeEarly unlinks p's segments that end at or below an offset.
func (sh *Shard) freeEarly(p *part, below int64) (bytes int64, err error) {
	st := sh.st
	st.take(p)
	defer st.giveBack(p)
	if err := st.usable(); err != nil {
		return 0, err
	}
	sh.mu.Lock()
	n := 0
	for n < len(p.segs) && p.extentEndLocked(n) <= below {
		n++
	}
	segs, before := p.segs[:n:n], p.dropped
	sh.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	dir := p.dir()
	if before < below {
		if err := st.markDropped(dir, segs, before, below); err != nil {
			return 0, err
		}
	}
	sh.mu.Lock()
	p.dropped = max(p.dropped, below)
	p.segs = append([]*segment.Segment(nil), p.segs[n:]...)
	sh.mu.Unlock()
	for _, seg := range segs {
		bytes += seg.Bytes()
	}
	return bytes, st.unlink(p, segs)
}

// markDropped says durably that files below an offset may be missing. The mark
// is an index file that goes anyway, or the mark before, under a new name: that
// takes no space.
func (st *Store) markDropped(dir string, segs []*segment.Segment, before, below int64) error {
	names := make([]string, 0, len(segs)+1)
	if before > 0 {
		names = append(names, droppedName(before))
	}
	for _, seg := range segs {
		names = append(names, segment.IndexName(seg.Base()))
	}
	err := error(fs.ErrNotExist)
	for _, name := range names {
		if err = st.fs.Rename(path.Join(dir, name), path.Join(dir, droppedName(below))); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("store: free %s early: %w", dir, err)
	}
	if err := st.fs.SyncDir(dir); err != nil {
		return st.syncFailed(fmt.Errorf("store: sync %s: %w", dir, err))
	}
	return nil
}
