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
	st.mu.Lock()
	shards := make([]*Shard, 0, len(st.shards))
	for _, sh := range st.shards {
		shards = append(shards, sh)
	}
	st.mu.Unlock()
	var errs []error
	for _, sh := range shards {
		sh.mu.Lock()
		causes := append([]cause(nil), sh.causes...)
		sh.mu.Unlock()
		for _, c := range causes {
			below := c.below
			if c.deleted {
				below = math.MaxInt64
			}
			st.take(c.p)
			n, err := sh.freeEarly(c.p, below)
			st.giveBack(c.p)
			bytes += n
			errs = append(errs, err)
		}
	}
	return bytes, errors.Join(errs...)
}

// freeEarly unlinks p's segments that end at or below an offset. The caller has
// made p busy.
func (sh *Shard) freeEarly(p *part, below int64) (bytes int64, err error) {
	st := sh.st
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
