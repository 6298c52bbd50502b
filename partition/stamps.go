package partition

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
)

// stamped is the metadata index that deleted a partition.
type stamped struct {
	key   key
	stamp uint64
}

// compareStamped orders by metadata index first, so that a prefix is what was
// deleted longest ago.
func compareStamped(a, b stamped) int {
	return cmp.Or(cmp.Compare(a.stamp, b.stamp), compareKeys(a.key, b.key))
}

func compareKeys(a, b key) int {
	return cmp.Or(bytes.Compare(a.topic[:], b.topic[:]), cmp.Compare(a.index, b.index))
}

// remember keeps the metadata index that deleted k.
//
// Above the limit the older half goes, and the floor rises to the newest of
// them: commands that they would have refused stay refused, and so do some that
// nobody sends any more. Invariant: every stamp is above the floor.
func (s *State) remember(k key, stamp uint64) {
	if stamp <= s.stampFloor {
		return
	}
	s.stamps[k] = stamp
	s.dirty.stamps = append(s.dirty.stamps, stamped{k, stamp})
	if len(s.stamps) <= int(s.limits.MaxStamps) {
		return
	}
	all := s.sortedStamps()
	for _, old := range all[:(len(all)+1)/2] {
		delete(s.stamps, old.key)
		s.stampFloor = max(s.stampFloor, old.stamp)
	}
	s.dropStampsBelowFloor()
}

func (s *State) dropStampsBelowFloor() {
	maps.DeleteFunc(s.stamps, func(_ key, stamp uint64) bool { return stamp <= s.stampFloor })
}

func (s *State) sortedStamps() []stamped {
	all := make([]stamped, 0, len(s.stamps))
	for k, stamp := range s.stamps {
		all = append(all, stamped{k, stamp})
	}
	slices.SortFunc(all, compareStamped)
	return all
}
