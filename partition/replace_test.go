package partition

import (
	"slices"
	"strings"
	"testing"
)

// twins returns two machines to which the same entries were applied, the second of
// which met a panic at partition 1's offset 1, and the entries.
func twins(t *testing.T) (sound, hurt *machine, entries [][]byte) {
	t.Helper()
	sound, _ = poisoned(t, func(*Effect) bool { return false })
	hurt, _ = poisoned(t, atOffset(1, 1))
	for seq := range int32(4) {
		e := sound.entry(produce(1, testBatch{id: 7, seq: seq, count: 1}), produce(2, testBatch{id: 7, seq: seq, count: 1}), produce(2, testBatch{id: int64(10 + seq), count: 1}))
		for _, m := range []*machine{sound, hurt} {
			m.index++
			if err := m.s.Apply(m.index, m.term, e, &m.out); err != nil {
				t.Fatal(err)
			}
		}
		entries = append(entries, e)
	}
	return sound, hurt, entries
}

// A state of another replica, brought up to here, takes the place of one with a
// partition in quarantine: it is what the entries say, and the next checkpoint is all
// of it, also if the one before did not become durable.
func TestSucceed(t *testing.T) {
	t.Parallel()
	sound, hurt, _ := twins(t)
	if hurt.s.StateHash() == sound.s.StateHash() {
		t.Fatal("the panic made no difference")
	}
	old := hurt.s
	hurt.s = restore(t, delta(t, sound.s.full()))
	if err := hurt.s.Succeed(old); err != nil {
		t.Fatal(err)
	}
	if hurt.s.StateHash() != sound.s.StateHash() || !hurt.s.Whole() || hurt.s.Index() != sound.index {
		t.Error("the state is not the sound one")
	}
	for _, m := range []*machine{sound, hurt} { // changes before the capture
		m.apply(produce(1, testBatch{id: 7, seq: 4, count: 1}), create("c", 0, 2))
	}
	lost := hurt.s.Capture()
	if !lost.Whole() {
		t.Fatal("the first capture is a delta, of a checkpoint that had the quarantine")
	}
	hurt.s.Requeue(lost)
	for _, m := range []*machine{sound, hurt} {
		m.apply(produce(3, testBatch{id: 8, count: 1}))
	}
	c := hurt.s.Capture()
	if !c.Whole() || len(c.Dirty()) != 3 {
		t.Errorf("the second capture: whole %t, %d partitions", c.Whole(), len(c.Dirty()))
	}
	base := delta(t, c)
	if restore(t, base).StateHash() != sound.s.StateHash() {
		t.Error("the capture is not all of the state")
	}
	for _, m := range []*machine{sound, hurt} {
		m.apply(produce(1, testBatch{id: 7, seq: 5, count: 1}))
	}
	if next := hurt.s.Capture(); next.Whole() || len(next.Dirty()) != 1 {
		t.Errorf("behind it: whole %t, %d partitions", next.Whole(), len(next.Dirty()))
	} else if restore(t, base, delta(t, next)).StateHash() != sound.s.StateHash() {
		t.Error("the delta behind it does not go on from it")
	}
}

// What must not take the place does not, and says why.
func TestSucceedRefused(t *testing.T) {
	t.Parallel()
	sound, hurt, entries := twins(t)
	early := restore(t, delta(t, sound.s.full()))
	sound.apply(produce(2, testBatch{id: 99, count: 1}))
	tests := []struct {
		name string
		s    *State
		want string
	}{
		{"later", restore(t, delta(t, sound.s.full())), "is of index 6"},
		{"in quarantine itself", func() *State {
			s := restore(t, delta(t, early.full()))
			s.setQuarantined(2, s.lastIndex)
			return s
		}(), "1 partitions of the other state are in quarantine"},
		{"another partition differs", func() *State {
			s := restore(t, delta(t, early.full()))
			s.parts[2].end--
			return s
		}(), "number 2 is not in quarantine"},
		{"a partition is missing", func() *State {
			s := restore(t, delta(t, early.full()))
			delete(s.parts, 2)
			return s
		}(), "no number 2"},
		{"shorter", func() *State {
			s := restore(t, delta(t, early.full()))
			s.parts[1].end = 0
			return s
		}(), "number 1 has offsets [0, 1) here"},
	}
	before := hurt.s.StateHash()
	for _, tt := range tests {
		if err := tt.s.Succeed(hurt.s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if hurt.s.StateHash() != before {
		t.Error("the state has changed")
	}
	// The partition whose deletion panicked here may be gone there, and a quarantine
	// that is to come stays.
	gone := restore(t, delta(t, early.full()))
	for _, pr := range gone.parts[1].producers {
		gone.recent.remove(pr)
	}
	delete(gone.byKey, gone.parts[1].key)
	delete(gone.parts, 1)
	hurt.s.setQuarantined(2, hurt.s.lastIndex+1)
	if err := gone.Succeed(hurt.s); err != nil || !gone.Whole() {
		t.Errorf("deleted there: %v, whole %t", err, gone.Whole())
	}
	if err := gone.Apply(hurt.index+1, 1, slices.Clone(entries[0]), new(Outcome)); err != nil || gone.Whole() {
		t.Errorf("a quarantine that was to come: %v, whole %t", err, gone.Whole())
	}
}
