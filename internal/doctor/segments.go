package doctor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/partition/store"
)

// segmentHarm is a segment with batches that cannot be read.
type segmentHarm struct {
	part partition.View
	opt  segment.InspectOptions
	in   *segment.Inspection
}

// name is a partition's for people: its topic's name, if that is known.
func (x *exam) name(v partition.View) string {
	id := hex.EncodeToString(v.TopicID[:])
	if x.meta != nil {
		for t := range x.meta.Image().Topics() {
			if [16]byte(t.ID) == [16]byte(v.TopicID) {
				return fmt.Sprintf("%s-%d", t.Name, v.Index)
			}
		}
	}
	return fmt.Sprintf("%s-%d", id, v.Index)
}

func folder(v partition.View) string {
	return hex.EncodeToString(v.TopicID[:]) + "-" + strconv.Itoa(int(v.Index))
}

// partitions reads the segments of every partition that a checkpoint knows.
func (x *exam) partitions() error {
	names, err := x.fs.ReadDir(x.path(node.PartitionsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("doctor: %w", err)
	}
	known, all := make(map[string]bool), true
	for _, s := range x.shards {
		if s.id != 0 && s.checkpoint == nil {
			all = false
		}
	}
	for _, id := range x.dataIDs() {
		s := x.shards[id]
		if s.checkpoint == nil {
			continue
		}
		for v := range s.checkpoint.Partitions() {
			known[folder(v)] = true
			x.report.Summary.Partitions++
			if err := x.partition(s, v); err != nil {
				return err
			}
		}
		for v := range s.state.Partitions() {
			known[folder(v)] = true
		}
	}
	for _, name := range names {
		if all && !known[name] {
			x.find(Finding{Kind: "directory", File: x.path(node.PartitionsDir, name), Offset: -1, What: "a partition that no shard knows",
				Cause:  "its topic was deleted and a crash left its files, or its creation is not in the logs any more",
				Remedy: RemedyNone, Advice: "the node removes it once the metadata says that its topic was deleted, and keeps it otherwise"})
		}
	}
	return nil
}

func (x *exam) dataIDs() []uint32 {
	var ids []uint32
	for id := range x.shards {
		if id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// partition reads what a start would keep of one partition: what lies below the
// checkpoint's end and above the log start.
func (x *exam) partition(s *shard, v partition.View) error {
	dir := x.path(node.PartitionsDir, folder(v))
	names, err := x.fs.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("doctor: %w", err)
	}
	var bases []int64
	dropped := int64(0) // files below may be missing: see store.FreeEarly
	for _, name := range names {
		if offset, ok := store.ParseDropped(name); ok {
			dropped = max(dropped, offset)
			continue
		}
		if base, ok := segment.ParseName(name); ok && base < v.End {
			bases = append(bases, base)
		} else if !ok && !strings.HasSuffix(name, ".index") {
			x.find(Finding{Kind: "directory", File: dir + "/" + name, Offset: -1, What: "not a segment", Remedy: RemedyNone, Advice: "keep nothing else in a data directory"})
		}
	}
	slices.Sort(bases)
	at := max(v.LogStart, min(dropped, v.End))
	for i, base := range bases {
		end := v.End
		if i+1 < len(bases) {
			end = bases[i+1]
		}
		if end <= max(v.LogStart, dropped) {
			continue // unlinked by the next start
		}
		if base > at {
			x.missing(v, dir, at, base)
		}
		opt := segment.InspectOptions{
			Dir: dir, Base: base, TopicID: v.TopicID, Partition: v.Index, End: end, Check: checkEpochs(s.checkpoint.Epochs(v.Number)),
		}
		if err := x.segment(v, opt); err != nil {
			return err
		}
		at = max(at, end)
	}
	if at < v.End {
		x.missing(v, dir, at, v.End)
	}
	return nil
}

// unreadable is what a range of a partition costs.
func (x *exam) unreadable(v partition.View, from, to int64) string {
	return fmt.Sprintf("offsets [%d, %d) of %s cannot be read", max(from, v.LogStart), to, x.name(v))
}

func (x *exam) missing(v partition.View, dir string, from, to int64) {
	x.find(Finding{Kind: "segment", File: dir, Offset: -1, Harmful: true, What: "a segment is missing", Cause: "somebody removed it",
		Loss: x.unreadable(v, from, to), Remedy: RemedyNone, Advice: "put the file back from a copy; else reads of that range go on to fail, and all else is served"})
}

func (x *exam) segment(v partition.View, opt segment.InspectOptions) error {
	in, err := segment.Inspect(x.fs, opt, nil)
	if err != nil {
		return err
	}
	x.reading(in.File)
	x.report.Summary.Batches += in.Batches
	f := Finding{Kind: "segment", File: in.File, Harmful: true, Cause: rotCause, Remedy: RemedyLoss, Advice: lossAdvice}
	if in.HeaderErr != nil {
		f.What, f.Loss = in.HeaderErr.Error(), x.unreadable(v, opt.Base, opt.End)
		f.Remedy, f.Advice = RemedyNone, "put the file back from a copy; else reads of that range go on to fail, and all else is served"
		if errors.Is(in.HeaderErr, segment.ErrVersion) {
			f.Cause, f.Advice = "a newer version wrote it", upgradeAdvice
		}
		x.find(f)
		return nil
	}
	for _, bad := range in.Bad {
		to := bad.Next
		if to < 0 {
			to = opt.End
		}
		f.Offset, f.What, f.Loss = bad.Pos, bad.Err.Error(), x.unreadable(v, bad.From, to)
		x.find(f)
	}
	short := in.End < opt.End && (len(in.Bad) == 0 || in.Bad[len(in.Bad)-1].Next >= 0)
	if short {
		f.Offset, f.What, f.Loss = in.Bytes, fmt.Sprintf("ends before offset %d, at %d", opt.End, in.End), x.unreadable(v, in.End, opt.End)
		f.Cause = "it was cut off, or exchanged with an older copy"
		f.Remedy, f.Advice = RemedyNone, "put the file back from a copy; else reads of that range go on to fail, and all else is served"
		x.find(f)
	}
	if len(in.Bad) > 0 {
		x.segments = append(x.segments, segmentHarm{part: v, opt: opt, in: in})
	}
	switch {
	case in.IndexErr == nil:
		x.reading(in.IndexFile)
	case errors.Is(in.IndexErr, fs.ErrNotExist):
		x.find(Finding{Kind: "index", File: in.IndexFile, Offset: -1, What: "missing", Cause: "a crash, or somebody removed it", Remedy: RemedyStart, Advice: startAdvice})
	default:
		x.indexes = append(x.indexes, in.IndexFile)
		x.find(Finding{Kind: "index", File: in.IndexFile, Offset: 0, What: in.IndexErr.Error(), Cause: "a crash, or the disk", Remedy: RemedyStart,
			Advice: "the next start or the next read makes it again; " + repairAdvice + " to have it done now"})
	}
	return nil
}

// checkEpochs holds a batch's leader epoch, which no checksum of its own covers,
// against the checkpoint's history.
func checkEpochs(history []partition.EpochStart) func(batch.Header) error {
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
