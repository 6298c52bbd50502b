package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/partition"
)

// quarantines reads the files that keep partitions out of service (R5). A start
// fails with one that it cannot read: it would not know what to refuse.
func (x *exam) quarantines() error {
	names, err := x.fs.ReadDir(x.path(node.QuarantineDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("doctor: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".tmp") {
			x.quarantine(name)
		}
	}
	return nil
}

func (x *exam) quarantine(name string) {
	file := x.path(node.QuarantineDir, name)
	of, _, _ := strings.Cut(name, "-")
	id, err := strconv.ParseUint(of, 10, 32)
	s := x.shards[uint32(id)]
	if err != nil || !strings.HasSuffix(name, node.QuarantineSuffix) || id == 0 || s == nil {
		x.find(Finding{Kind: "directory", File: file, Offset: -1, What: "not a quarantine file of a shard that is here",
			Remedy: RemedyNone, Advice: "keep nothing else in a data directory"})
		return
	}
	_, q, err := node.ReadQuarantine(x.fs, file)
	if err != nil {
		x.find(Finding{Kind: "quarantine", File: file, Offset: -1, Harmful: true, What: err.Error(), Cause: rotCause + ", or a newer version wrote it",
			Loss: "no record; which partition is out of service, and why", Remedy: RemedyNone,
			Advice: "put the file back from a copy, or remove it: see the files' table in docs/formats.md for what that means"})
		return
	}
	x.reading(file)
	v := partition.View{TopicID: q.TopicID, Index: q.Index}
	if s.state != nil {
		if _, ok := s.state.Partition(q.Number); !ok {
			x.find(Finding{Kind: "quarantine", File: file, Offset: -1, What: fmt.Sprintf("%s is deleted", x.name(v)),
				Remedy: RemedyStart, Advice: "nothing to do: a start removes it once the deletion is in a checkpoint"})
			return
		}
	}
	x.find(Finding{Kind: "quarantine", File: file, Offset: -1, Harmful: true, served: true,
		What:  fmt.Sprintf("%s is in quarantine: handling entry %d of shard %d panicked", x.name(v), q.EntryIndex, id),
		Cause: "a fault of the program", Loss: fmt.Sprintf("%s is not served; its records are kept", x.name(v)), Remedy: RemedyNone,
		Advice: "with a version that does not panic, remove that file and start again, or delete the topic"})
}
