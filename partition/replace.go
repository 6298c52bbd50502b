package partition

import "fmt"

// A replica of which a partition is in quarantine gets the state of another one (R5):
// that one's at some index, to which it applies the entries behind it, up to its own.
// What is in no partition has to come too: the order of the producers goes over the
// whole shard, and the commands that were refused here have a place in it.

// Index returns the index of the last entry that was applied.
func (s *State) Index() uint64 { return s.lastIndex }

// Succeed makes s, another replica's state brought up to the same index, ready to take
// the place of old. A later entry's quarantine stays: it is of a run that has not come
// to that entry again. The next Capture holds all of s: see Capture.Whole.
//
// An error says that s must not take the place, and old is as it was: s is of another
// index, or has a partition in quarantine itself, or a partition that is not in
// quarantine in old differs. That one's batches are here already, as old has it, and
// so its bounds and epochs would be wrong.
func (s *State) Succeed(old *State) error {
	if s.lastIndex != old.lastIndex || s.lastTerm != old.lastTerm {
		return fmt.Errorf("partition: the state is of index %d, term %d, want index %d, term %d", s.lastIndex, s.lastTerm, old.lastIndex, old.lastTerm)
	}
	if n := s.QuarantinedPartitions(); n > 0 {
		return fmt.Errorf("partition: %d partitions of the other state are in quarantine, after index %d at the latest", n, s.lastIndex)
	}
	for n := range old.parts {
		if _, in := old.Quarantined(n); s.parts[n] == nil && !in { // else its deletion panicked here
			return fmt.Errorf("partition: the other state has no number %d", n)
		}
	}
	for n, p := range s.parts {
		was := old.parts[n]
		_, in := old.Quarantined(n)
		switch {
		case was == nil || was.key != p.key:
			return fmt.Errorf("partition: the other state has %v-%d as number %d", p.key.topic, p.key.index, n)
		case in && (was.end > p.end || was.logStart > p.logStart):
			return fmt.Errorf("partition: number %d has offsets [%d, %d) here, and [%d, %d) in the other state", n, was.logStart, was.end, p.logStart, p.end)
		case !in && !was.agrees(p):
			return fmt.Errorf("partition: number %d is not in quarantine, and has offsets [%d, %d) here, [%d, %d) in the other state, or another configuration or epoch", n, was.logStart, was.end, p.logStart, p.end)
		}
	}
	for n, index := range old.quarantined {
		if index > old.lastIndex {
			s.setQuarantined(n, index)
		}
	}
	s.dirty.whole = true
	return nil
}

// agrees reports whether o has the same batches and the same configuration.
func (p *part) agrees(o *part) bool {
	if len(p.epochs) != len(o.epochs) {
		return false
	}
	for i := range p.epochs {
		if p.epochs[i] != o.epochs[i] {
			return false
		}
	}
	return p.logStart == o.logStart && p.end == o.end && p.stamp == o.stamp && p.baseEpoch == o.baseEpoch && p.config == o.config && p.decided == o.decided
}
