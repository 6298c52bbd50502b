package broker

import (
	"fmt"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/partition"
)

// folding is what the shards of a node fold their internal partitions with. Those of
// the same apply version fold alike (R4).
func folding(i partition.Internal) partition.Folded {
	if i != partition.InternalGroups {
		panic(fmt.Sprintf("broker: nothing folds internal partitions of kind %d", i))
	}
	return foldedGroups{consumergroup.NewGroups()}
}

// foldedGroups is what the records of a partition of __consumer_offsets say.
type foldedGroups struct{ *consumergroup.Groups }

var _ partition.Folded = foldedGroups{}

// Fold implements partition.Folded.
func (f foldedGroups) Fold(rs []partition.Record) error {
	return f.FoldAll(func(yield func(record.Record) bool) {
		for _, r := range rs {
			if !yield(record.Record(r)) {
				return
			}
		}
	})
}

// Changes implements partition.Folded.
func (f foldedGroups) Changes() (rs []partition.Record) {
	for _, r := range f.Groups.Changes() {
		rs = append(rs, partition.Record(r))
	}
	return rs
}

// Requeue implements partition.Folded.
func (f foldedGroups) Requeue(rs []partition.Record) {
	back := make([]record.Record, len(rs))
	for i, r := range rs {
		back[i] = record.Record(r)
	}
	f.Groups.Requeue(back)
}

// All implements partition.Folded.
func (f foldedGroups) All(yield func(partition.Record) bool) {
	f.Groups.All(func(r record.Record) bool { return yield(partition.Record(r)) })
}

// Clone implements partition.Folded.
func (f foldedGroups) Clone() partition.Folded { return foldedGroups{f.Groups.Clone()} }
