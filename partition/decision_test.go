package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

var internalConfig = Config{SegmentBytes: 1 << 20, MaxMessageBytes: 1 << 20, Internal: InternalGroups}

// recordsOf makes a batch of records: "k=v", or "k" for one without a value.
func recordsOf(t testing.TB, words ...string) []byte {
	t.Helper()
	var w batch.Builder
	w.Reset()
	for _, word := range words {
		k, v, ok := strings.Cut(word, "=")
		value := []byte(v)
		if !ok {
			value = nil
		}
		if err := w.Append(5, []byte(k), value, nil); err != nil {
			t.Fatal(err)
		}
	}
	b, err := w.Build(nil, batch.None, batch.DefaultLevel)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decision(n Number, term, seq uint64, batches ...[]byte) func(*EntryBuilder) {
	return func(b *EntryBuilder) {
		b.Decision(Decision{Number: n, Term: term, Seq: seq, Batches: slices.Concat(batches...)})
	}
}

func createInternal(topic string, index int32, stamp uint64) func(*EntryBuilder) {
	return func(b *EntryBuilder) {
		b.CreatePartition(CreatePartition{TopicID: topicID(topic), Index: index, MetadataIndex: stamp, Config: internalConfig})
	}
}

func setVersion(v uint16) func(*EntryBuilder) {
	return func(b *EntryBuilder) { b.SetApplyVersion(v) }
}

// foldedText returns what a partition has folded, as "k=v" in the order of All.
func foldedText(s *State, n Number) string {
	f := s.Folded(n)
	if f == nil {
		return "none"
	}
	var words []string
	for r := range f.All {
		words = append(words, fmt.Sprintf("%s=%s", r.Key, r.Value))
	}
	return strings.Join(words, " ")
}

// A decision that is not well made is refused, and changes nothing at all.
func TestDecisionRefuses(t *testing.T) {
	t.Parallel()
	change := func(at int, b byte) []byte {
		out := recordsOf(t, "a=2")
		out[at] ^= b
		return out
	}
	compressed, err := batch.Recompress(nil, recordsOf(t, "a=2"), batch.Gzip, batch.DefaultLevel, batch.Limits{MaxBatchBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	producer := recordsOf(t, "a=2")
	batch.SetProducer(producer, batch.Producer{ID: 7})
	good := recordsOf(t, "a=2")
	tests := []struct {
		name    string
		batches []byte
	}{
		{"nothing", nil},
		{"a batch cut off", good[:len(good)-1]},
		{"a second batch cut off", slices.Concat(good, good[:len(good)-1])},
		{"compressed", compressed},
		{"of a producer", producer},
		{"transactional", change(22, 0x10)},
		{"a marker", change(22, 0x20)},
		{"more offsets than records", change(26, 1)},
		{"more records than there are", change(60, 2)},
		{"a record that is longer than the batch", change(61, 0x40)},
	}
	m := newMachine(t)
	m.apply(setVersion(3), createInternal("groups", 0, 1), decision(1, 1, 1, recordsOf(t, "a=1")))
	before := m.s.StateHash()
	for _, tt := range tests {
		s := restore(t, delta(t, m.s.full()))
		var out Outcome
		m2 := &machine{t: t, s: s, index: m.index, term: m.term, clock: m.clock}
		r := m2.apply(decision(1, 1, 2, tt.batches))
		if r[0].Code != errcode.CorruptMessage || len(out.Effects) > 0 {
			t.Errorf("%s: %v, effects %v, want CORRUPT_MESSAGE and none", tt.name, r[0].Err(), out.Effects)
		}
		if s.lastIndex--; s.StateHash() != before {
			t.Errorf("%s: the state has changed", tt.name)
		}
	}
}

// A Decision says which it is, or the entry is not applied.
func TestDecisionNumberIsMandatory(t *testing.T) {
	t.Parallel()
	entry := newMachine(t).entry(decision(1, 1, 1, recordsOf(t, "a=1")))
	if _, err := Decode(entry); err != nil {
		t.Fatal(err)
	}
	frame := entryHeaderBytes
	tests := []struct {
		name   string
		change func(e []byte) []byte
		want   error
	}{
		{"of apply version 2", func(e []byte) []byte { e[2] = 2; return e }, ErrUnsupported},
		{"another mandatory TLV", func(e []byte) []byte { e[frame+12] = 4; return e }, ErrUnsupported},
		{"of another command", func(e []byte) []byte { e[frame] = byte(KindProduce); return e }, ErrUnsupported},
		{"one that may be skipped", func(e []byte) []byte { e[frame+13] = 0; return e }, ErrDamaged},
		{"too short", func(e []byte) []byte {
			e[frame+2] -= 8
			e[frame+14] = 8
			return slices.Delete(e, frame+24, frame+32)
		}, ErrDamaged},
		{"none", func(e []byte) []byte {
			e[frame+2] = frameHeaderBytes
			return slices.Delete(e, frame+12, frame+32)
		}, ErrDamaged},
	}
	for _, tt := range tests {
		if _, err := Decode(tt.change(bytes.Clone(entry))); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// brittle is a Folded that fails, or panics, at certain records.
type brittle struct{ latest }

func (f *brittle) Fold(rs []Record) error {
	for _, r := range rs {
		switch string(r.Value) {
		case "unreadable":
			return errors.New("no such record")
		case "poison":
			panic("poisoned")
		}
	}
	return f.latest.Fold(rs)
}

func (f *brittle) Clone() Folded { return f.latest.Clone() }

func brittleFolding(Internal) Folded { return &brittle{latest{byKey: make(map[string][]byte)}} }

// A decision that cannot be folded puts its partition into quarantine, whatever the
// store had done by then, and nothing of it is in the state (R5).
func TestQuarantineOfDecision(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"unreadable", "poison"} {
		m := newMachine(t)
		m.s = Folding(brittleFolding).New()
		followed := 0
		m.out.Follow = func(*Effect) { followed++ }
		m.apply(setVersion(3), createInternal("groups", 0, 1), createInternal("groups", 1, 1), decision(1, 1, 1, recordsOf(t, "a=1")))
		r := m.apply(decision(1, 1, 2, recordsOf(t, "b=1"), recordsOf(t, "c="+value)), decision(2, 1, 1, recordsOf(t, "d=1")))
		if r[0].Reason != ReasonQuarantined || r[1].Code != errcode.None || followed != 6 {
			t.Fatalf("%s: %v, %v, %d effects", value, r[0].Err(), r[1].Err(), followed)
		}
		v, _ := m.s.Partition(1)
		if v.End != 1 || v.DecisionSeq != 1 || foldedText(m.s, 1) != "a=1" || foldedText(m.s, 2) != "d=1" {
			t.Errorf("%s: %+v, folded %q and %q", value, v, foldedText(m.s, 1), foldedText(m.s, 2))
		}
		again, err := Folding(brittleFolding).Restore(bytes.NewReader(m.out.Quarantines[0].Before))
		if err != nil {
			t.Fatal(err)
		}
		if got := foldedText(again, 1); got != "a=1" {
			t.Errorf("%s: kept to repeat it: %q", value, got)
		}
		if r := m.apply(decision(1, 1, 2, recordsOf(t, "b=1"))); r[0].Reason != ReasonQuarantined {
			t.Errorf("%s: afterwards %v", value, r[0].Err())
		}
	}
}

// A capture that was not made durable is in the next one, with what came since; what
// was durable is not.
func TestFoldedChanges(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(setVersion(3), createInternal("groups", 0, 1), decision(1, 1, 1, recordsOf(t, "a=1", "b=1", "c=1")))
	base := delta(t, m.s.Capture())
	m.apply(decision(1, 1, 2, recordsOf(t, "a=2", "b")))
	m.s.Requeue(m.s.Capture())
	m.apply(decision(1, 1, 3, recordsOf(t, "a=3", "d=1")))
	c := m.s.Capture()
	if got := len(c.folded[0].changed); got != 3 {
		t.Errorf("%d records in the delta, want a, b and d", got)
	}
	after := restore(t, base, delta(t, c))
	if after.StateHash() != m.s.StateHash() || foldedText(after, 1) != "a=3 c=1 d=1" {
		t.Errorf("restored %q, want what was captured", foldedText(after, 1))
	}
	if c := after.Capture(); len(c.parts)+len(c.folded) > 0 {
		t.Errorf("after Restore %d partitions are dirty, %d folded", len(c.parts), len(c.folded))
	}
	mOld := *m
	m.s = after
	m.apply(decision(1, 1, 4, recordsOf(t, "e=1")))
	if c := after.Capture(); len(c.folded) != 1 || len(c.folded[0].changed) != 1 {
		t.Errorf("what is folded after a Restore is not captured: %+v", c.folded)
	}
	if f := mOld.s.Freeze(); true { // a copy stays as it is
		hash := f.Hash()
		mOld.apply(decision(1, 1, 4, recordsOf(t, "a=4")))
		if f.Hash() != hash {
			t.Error("what was frozen has changed")
		}
	}
}

// Decisions and what is folded are of intact sections, or are refused.
func TestRestoreRefusesDecisions(t *testing.T) {
	t.Parallel()
	good := func() *Capture {
		s, _ := sampleDeltasOfVersion3(t)
		return s.full()
	}
	tests := []struct {
		name   string
		change func(c *Capture)
	}{
		{"a timestamp of an apply version that knows none", func(c *Capture) { c.header.version = 2; c.parts, c.folded = c.parts[:1], nil }},
		{"a term that is to come", func(c *Capture) { c.parts[1].decided.term = c.header.lastTerm + 1 }},
		{"a term without a decision", func(c *Capture) { c.parts[1].decided.seq = 0 }},
		{"folded by a partition that is not internal", func(c *Capture) { c.folded[0].number = 2 }},
		{"folded by none", func(c *Capture) { c.folded[0].number = 99 }},
		{"a record without a key", func(c *Capture) { c.folded[0] = capturedFolded{number: 3, changed: []Record{{}}} }},
	}
	Folding(brittleFolding).mustRestore(t, delta(t, good()))
	for _, tt := range tests {
		c := good()
		tt.change(c)
		_, err := Folding(func(i Internal) Folded { return keyed{Folding(nil).make(i)} }).Restore(bytes.NewReader(delta(t, c)))
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error = %v, want ErrDamaged", tt.name, err)
		}
	}
	c := good()
	c.parts[1].config.Internal = lastInternal + 1
	if _, err := Restore(bytes.NewReader(delta(t, c))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an internal topic that is not known: error = %v, want ErrUnsupported", err)
	}
}

// keyed refuses records without a key.
type keyed struct{ Folded }

func (k keyed) Fold(rs []Record) error {
	for _, r := range rs {
		if len(r.Key) == 0 {
			return errors.New("no key")
		}
	}
	return k.Folded.Fold(rs)
}

func (f Folding) mustRestore(t *testing.T, b []byte) *State {
	t.Helper()
	s, err := f.Restore(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The newest timestamp of a producer's last batch is known from apply version 3 on:
// a replica that was restarted before would not have the older ones.
func TestProducerTimestamps(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	at := func() string {
		var words []string
		for _, p := range m.s.ProducersOf(1) {
			words = append(words, fmt.Sprint(p.ID, ":", p.LastTimestamp))
		}
		slices.Sort(words)
		return strings.Join(words, " ")
	}
	m.apply(create("a", 0, 1), produce(1, testBatch{id: 7, count: 1, maxTime: 70}), produce(1, testBatch{id: 8, count: 1, maxTime: 80}))
	if got := at(); got != "7:-1 8:-1" {
		t.Errorf("in version 1: %s", got)
	}
	m.apply(setVersion(3), produce(1, testBatch{id: 7, seq: 1, count: 1, maxTime: 71}))
	if got := at(); got != "7:71 8:-1" {
		t.Errorf("in version 3: %s", got)
	}
	m.apply(produce(1, testBatch{id: 7, seq: 1, count: 1, maxTime: 99})) // again
	hash := m.s.StateHash()
	m.s = restore(t, delta(t, m.s.full()))
	if got := at(); got != "7:71 8:-1" || m.s.StateHash() != hash {
		t.Errorf("restored: %s", got)
	}
}

// FuzzReadDecision gives any bytes as the batches of a decision: what passes has as
// many records as it takes offsets.
func FuzzReadDecision(f *testing.F) {
	f.Add(recordsOf(f, "a=1", "b"))
	f.Add(slices.Concat(recordsOf(f, "a="), recordsOf(f, "b=1", "c=2")))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := New()
		end, err := s.readDecision(in, 5)
		if err == nil && (end-5 != int64(len(s.records)) || end == 5) {
			t.Fatalf("%d records for [5, %d)", len(s.records), end)
		}
	})
}
