package partition

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// poisoned returns a machine with the partitions a-0 (1) and b-0 (2), whose
// Follow panics at the effects that poison picks. followed lists the others.
func poisoned(t testing.TB, poison func(*Effect) bool) (m *machine, followed *[]string) {
	m, followed = newMachine(t), new([]string)
	m.apply(create("a", 0, 1), create("b", 0, 1))
	m.out.Follow = func(e *Effect) {
		if poison(e) {
			panic("the store is broken")
		}
		*followed = append(*followed, strings.TrimSpace(formatEffect(*e)))
	}
	return m, followed
}

// atOffset picks appends to a partition that begin at an offset.
func atOffset(n Number, base int64) func(*Effect) bool {
	return func(e *Effect) bool { return e.Kind == EffectAppended && e.Number == n && e.BaseOffset == base }
}

func codes(rs []Result) (cs []string) {
	for i := range rs {
		cs = append(cs, rs[i].Code.Name())
	}
	return cs
}

// A command that panics takes its partition out, and nothing else: the commands
// before it and the other partitions are as if it had never come.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	m, followed := poisoned(t, atOffset(1, 3))
	one := func(id int64, seq int32) testBatch { return testBatch{id: id, seq: seq, count: 1} }
	got := m.apply(
		produce(1, testBatch{id: 7, count: 3}), produce(2, one(7, 0)),
		produce(1, one(7, 3)), // panics
		produce(1, one(8, 0)), advance(1, 1), produce(2, one(7, 1)),
	)
	const none, storage = "NONE", "KAFKA_STORAGE_ERROR"
	if d := cmp.Diff([]string{none, none, storage, storage, storage, none}, codes(got)); d != "" {
		t.Errorf("codes (-want +got):\n%s", d)
	}
	if got[2].Reason != ReasonQuarantined || got[2].Want != int64(m.index) || got[2].LogStart != 0 {
		t.Errorf("result %+v", got[2])
	}
	want := []string{
		"append n=1 [0, 2] epoch=1 bytes=61", "append n=2 [0, 0] epoch=1 bytes=61", "append n=2 [1, 1] epoch=1 bytes=61",
	}
	if d := cmp.Diff(want, *followed); d != "" {
		t.Errorf("followed (-want +got):\n%s", d)
	}
	if len(m.out.Effects) != len(want) {
		t.Errorf("effects %+v", m.out.Effects)
	}
	if index, ok := m.s.Quarantined(1); !ok || index != m.index || m.s.Whole() {
		t.Errorf("quarantined at %d %t, whole %t", index, ok, m.s.Whole())
	}
	if _, ok := m.s.Quarantined(2); ok {
		t.Error("the other partition is in quarantine")
	}

	// What is left is what a replica has to which only the rest was applied; the
	// producer that the command had moved on is forgotten.
	v, _ := m.s.Partition(1)
	if v.LogStart != 0 || v.End != 3 || v.Producers != 0 || m.s.Producers() != 1 {
		t.Errorf("partition %+v, %d producers", v, m.s.Producers())
	}
	// It checkpoints, as a delta and whole, and comes back.
	for _, s := range []*State{restore(t, delta(t, m.s.Capture())), restore(t, delta(t, m.s.full()))} {
		if s.StateHash() != m.s.StateHash() {
			t.Error("the restored state differs")
		}
	}

	q := m.out.Quarantines
	if len(q) != 1 || q[0].Number != 1 || q[0].TopicID != topicID("a") || q[0].EntryIndex != m.index || q[0].EntryTerm != 1 ||
		q[0].Command != 2 || q[0].Kind != KindProduce || q[0].Panic != "the store is broken" || len(q[0].Stack) == 0 {
		t.Fatalf("quarantines %+v", q)
	}
}

// The record is enough to repeat the panic.
func TestQuarantineRepeats(t *testing.T) {
	t.Parallel()
	m, _ := poisoned(t, atOffset(1, 3))
	m.apply(produce(1, testBatch{id: 7, count: 3}))
	entry := m.entry(produce(1, testBatch{id: -1, count: 1}))
	m.index++
	if err := m.s.Apply(m.index, m.term, entry, &m.out); err != nil {
		t.Fatal(err)
	}
	q := m.out.Quarantines[0]
	again := restore(t, q.Before)
	if err := again.Apply(q.EntryIndex, q.EntryTerm, entry, &m.out); err != nil {
		t.Fatal(err)
	}
	if len(m.out.Quarantines) != 1 || m.out.Quarantines[0].Panic != q.Panic {
		t.Errorf("again: %+v", m.out.Quarantines)
	}
}

// A broken state of the partition itself is contained as well.
func TestQuarantineOfBrokenState(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(create("a", 0, 1), create("b", 0, 1), produce(1, testBatch{id: 7, count: 3}), produce(2, testBatch{id: 7, count: 3}))
	m.s.parts[1].producers[8] = &producer{id: 8, part: m.s.parts[1]} // without a batch: cannot be
	got := m.apply(produce(1, testBatch{id: 8, count: 1}), produce(2, testBatch{id: 7, seq: 3, count: 1}))
	if got[0].Code != errcode.KafkaStorageError || got[1].Code != errcode.None || len(m.out.Quarantines) != 1 {
		t.Errorf("results %+v, quarantines %+v", got, m.out.Quarantines)
	}
	restore(t, delta(t, m.s.full()))
}

// A restart neither panics again nor loses what came before: from whatever
// checkpoint it starts, commands from the entry on are refused unseen.
func TestQuarantineReplayed(t *testing.T) {
	t.Parallel()
	m, _ := poisoned(t, atOffset(1, 1))
	before := delta(t, m.s.full())
	start := m.index
	entries := [][]byte{
		m.entry(produce(1, testBatch{id: 7, count: 1})),
		m.entry(produce(1, testBatch{id: 7, seq: 1, count: 1})), // panics
		m.entry(produce(1, testBatch{id: 9, count: 1}), produce(2, testBatch{id: 9, count: 1})),
	}
	for _, e := range entries {
		m.index++
		if err := m.s.Apply(m.index, m.term, e, &m.out); err != nil {
			t.Fatal(err)
		}
	}
	panicked, _ := m.s.Quarantined(1)

	replayed := restore(t, before)
	if !replayed.ReplayQuarantine(1, panicked) || !replayed.Whole() {
		t.Fatal("not taken, or in quarantine too early")
	}
	out := Outcome{Follow: func(e *Effect) {
		if atOffset(1, 1)(e) {
			t.Error("the command was tried again")
		}
	}}
	var answers [][]string
	for i, e := range entries {
		if err := replayed.Apply(start+uint64(i)+1, m.term, e, &out); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, codes(out.Results))
	}
	want := [][]string{{"NONE"}, {"KAFKA_STORAGE_ERROR"}, {"KAFKA_STORAGE_ERROR", "NONE"}}
	if d := cmp.Diff(want, answers); d != "" {
		t.Errorf("answers (-want +got):\n%s", d)
	}
	v, _ := replayed.Partition(1)
	if w, _ := m.s.Partition(1); v.End != w.End || v.End != 1 {
		t.Errorf("replayed to %d, first to %d, want 1", v.End, w.End)
	}

	later := restore(t, delta(t, m.s.full()))
	if !later.ReplayQuarantine(1, panicked) {
		t.Fatal("not taken behind the entry")
	}
	if _, ok := later.Quarantined(1); !ok {
		t.Error("a checkpoint ended the quarantine")
	}
	if later.ReplayQuarantine(3, 1) || !later.ReplayQuarantine(3, later.lastIndex+5) {
		t.Error("a record of a partition that is gone is taken, or one of a later partition is not")
	}
}

// Deleting the partition ends it; a deletion that panics does not.
func TestQuarantineEnds(t *testing.T) {
	t.Parallel()
	deletions := 0
	m, _ := poisoned(t, func(e *Effect) bool {
		if e.Kind == EffectDeleted {
			deletions++
		}
		return e.Kind == EffectDeleted && deletions == 1
	})
	m.apply(produce(1, testBatch{id: 7, count: 1}), produce(2, testBatch{id: 7, count: 1}))
	base := delta(t, m.s.Capture())
	if got := m.apply(remove("a", 0, 2), remove("a", 0, 3)); got[0].Code != errcode.KafkaStorageError || got[1].Code != errcode.KafkaStorageError {
		t.Errorf("a deletion that panics: %v", codes(got))
	}
	if _, ok := m.s.Quarantined(1); !ok {
		t.Error("no quarantine")
	}
	quarantined := delta(t, m.s.Capture())
	if restore(t, base, quarantined).StateHash() != m.s.StateHash() {
		t.Error("the state differs after a deletion that panicked")
	}
	if got := m.apply(remove("a", 0, 4)); got[0].Code != errcode.None {
		t.Errorf("a later deletion: %v", got[0].Err())
	}
	if _, ok := m.s.Lookup(topicID("a"), 0); ok || !m.s.Whole() {
		t.Error("the partition, or its quarantine, is still there")
	}
	if restore(t, base, quarantined, delta(t, m.s.Capture())).StateHash() != m.s.StateHash() {
		t.Error("the state differs after the deletion")
	}
}

// What cannot be put down to one partition stops the replica.
func TestQuarantineHasBounds(t *testing.T) {
	t.Parallel()
	t.Run("no partition", func(t *testing.T) {
		m, _ := poisoned(t, func(e *Effect) bool { return e.Kind == EffectCreated })
		m.index++
		err := m.s.Apply(m.index, m.term, m.entry(create("c", 0, 1)), &m.out)
		if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "entry 2, command 0 (CreatePartition): the store is broken") {
			t.Errorf("error = %v, want ErrBroken", err)
		}
	})
	t.Run("shared state", func(t *testing.T) {
		m, _ := poisoned(t, atOffset(1, 1))
		m.apply(produce(1, testBatch{id: 7, count: 1}), produce(2, testBatch{id: 7, count: 1}))
		m.s.recent.count++
		m.index++
		if err := m.s.Apply(m.index, m.term, m.entry(produce(1, testBatch{id: -1, count: 1})), &m.out); !errors.Is(err, ErrBroken) {
			t.Errorf("error = %v, want ErrBroken", err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		m, _ := poisoned(t, func(e *Effect) bool { return e.Kind == EffectAppended })
		var err error
		n := 0
		for ; err == nil && n < 100; n++ {
			m.apply(create("x", int32(n), 1))
			m.index++
			err = m.s.Apply(m.index, m.term, m.entry(produce(Number(n+3), testBatch{id: -1, count: 1})), &m.out)
		}
		if !errors.Is(err, ErrBroken) || n != MaxQuarantined+1 {
			t.Errorf("error = %v after %d, want ErrBroken after %d", err, n, MaxQuarantined+1)
		}
	})
}

// Each way in which a panic can leave the shared state is seen.
func TestDamageSeen(t *testing.T) {
	t.Parallel()
	tests := map[string]func(s *State){
		"key":    func(s *State) { delete(s.byKey, s.parts[1].key) },
		"other":  func(s *State) { s.byKey[s.parts[1].key] = s.parts[2] },
		"orphan": func(s *State) { delete(s.parts[1].producers, 7) },
		"count":  func(s *State) { s.recent.count-- },
		"tail":   func(s *State) { s.recent.tail = s.recent.head },
		"loop":   func(s *State) { s.recent.tail.next = s.recent.head },
		"link":   func(s *State) { s.recent.tail.prev = nil },
	}
	for name, hurt := range tests {
		m, _ := poisoned(t, func(*Effect) bool { return false })
		m.apply(produce(1, testBatch{id: 7, count: 1}), produce(2, testBatch{id: 8, count: 1}), produce(2, testBatch{id: 9, count: 1}))
		if why := m.s.damage(); why != "" {
			t.Fatal(why)
		}
		hurt(m.s)
		if m.s.damage() == "" {
			t.Errorf("%s: not seen", name)
		}
	}
}

// Whatever command panics, and wherever, the replica goes on, and its
// checkpoints restore.
func TestQuarantineAnywhere(t *testing.T) {
	t.Parallel()
	commands := map[string]func(*EntryBuilder){
		"produce, known":   produce(1, testBatch{id: 7, seq: 3, count: 1}),
		"produce, new":     produce(1, testBatch{id: 99, count: 1}),
		"produce, epoch":   produce(1, testBatch{id: 7, epoch: 1, count: 1}),
		"produce, nobody":  produce(1, testBatch{id: -1, count: 1}),
		"advance":          advance(1, 2),
		"delete":           remove("a", 0, 9),
		"config":           func(b *EntryBuilder) { b.SetPartitionConfig(SetPartitionConfig{topicID("a"), 0, 9, sampleConfig}) },
		"create, with new": func(b *EntryBuilder) { b.CreatePartition(CreatePartition{topicID("a"), 0, 9, 0, sampleConfig}) },
	}
	for name, command := range commands {
		m, _ := poisoned(t, func(e *Effect) bool { return e.Number == 1 && e.Command == 1 })
		follow := m.out.Follow
		m.out.Follow = nil
		m.apply(produce(1, testBatch{id: 7, count: 3}), produce(2, testBatch{id: 7, count: 3}))
		lists := [][]byte{delta(t, m.s.Capture())}
		m.term++
		before, _ := m.s.Partition(1)
		m.out.Follow = follow
		got := m.apply(produce(2, testBatch{id: 7, seq: 3, count: 1}), command, produce(2, testBatch{id: 7, seq: 4, count: 1}))
		if want := []string{"NONE", "KAFKA_STORAGE_ERROR", "NONE"}; !slices.Equal(codes(got), want) {
			t.Errorf("%s: codes %v", name, codes(got))
		}
		after, _ := m.s.Partition(1)
		before.LeaderEpoch, before.Producers, after.Producers = after.LeaderEpoch, 0, 0
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("%s: the partition (-before +after):\n%s", name, d)
		}
		c := m.s.Capture()
		if d := c.Deleted(); len(d) > 0 {
			t.Errorf("%s: %v deleted", name, d)
		}
		lists = append(lists, delta(t, c))
		s, err := Restore(bytes.NewReader(slices.Concat(lists...)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.StateHash() != m.s.StateHash() {
			t.Errorf("%s: the restored state differs", name)
		}
		if q := m.out.Quarantines; len(q) != 1 || q[0].Before == nil {
			t.Errorf("%s: quarantines %+v", name, q)
		}
	}
}
