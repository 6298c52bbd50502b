package consumergroup

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/section"
)

var update = flag.Bool("update", false, "write the golden files")

func offsetRecord(group, topic string, partition int32, offset int64) record.Record {
	return (&record.OffsetCommit{Group: group, Topic: topic, Partition: partition, Value: &record.OffsetCommitValue{
		Offset: offset, LeaderEpoch: 3, Metadata: "m", CommitTimestampMS: 1000, ExpireTimestampMS: -1, TopicID: topicID("id"),
	}}).Encode()
}

func noOffset(group, topic string, partition int32) record.Record {
	return (&record.OffsetCommit{Group: group, Topic: topic, Partition: partition}).Encode()
}

func groupRecord(group string, generation int32) record.Record {
	return (&record.GroupMetadata{Group: group, Value: &record.GroupMetadataValue{
		ProtocolType: record.ConsumerProtocolType, Generation: generation, Protocol: optional("range"), Leader: optional("a-1"),
		CurrentStateTimestampMS: 2000, Members: []record.GroupMember{{
			MemberID: "a-1", InstanceID: optional("ia"), ClientID: "a", ClientHost: "/10.0.0.1", RebalanceTimeoutMS: 60000,
			SessionTimeoutMS: 10000, Subscription: []byte("s"), Assignment: []byte("x"),
		}},
	}}).Encode()
}

func noGroup(group string) record.Record { return (&record.GroupMetadata{Group: group}).Encode() }

// unknown is a record of a type that no build knows.
func unknown(name, value string) record.Record {
	return record.Record{Key: append([]byte{0x70, 0}, name...), Value: []byte(value)}
}

func fold(t testing.TB, g *Groups, rs ...record.Record) *Groups {
	t.Helper()
	for _, r := range rs {
		if err := g.Fold(r); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func snapshot(t testing.TB, g *Groups) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := g.WriteSnapshot(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sample has every kind of record that a snapshot holds.
func sample(t testing.TB) *Groups {
	expires := (&record.OffsetCommit{Group: "a", Topic: "t", Partition: 2, Value: &record.OffsetCommitValue{
		Offset: 9, LeaderEpoch: -1, CommitTimestampMS: 1000, ExpireTimestampMS: 5000,
	}}).Encode()
	return fold(t, NewGroups(), groupRecord("b", 7), offsetRecord("a", "t", 1, 5), offsetRecord("a", "t", 0, 4), expires,
		offsetRecord("b", "u", 0, 6), unknown("later", "value"), unknown("empty", ""))
}

func TestFold(t *testing.T) {
	t.Parallel()
	g := NewGroups()
	empty := g.Hash()
	counts := func(groups, offsets, records int) {
		t.Helper()
		if g.Len() != groups || g.Offsets() != offsets || g.records() != records {
			t.Fatalf("%d groups, %d offsets, %d records; want %d, %d, %d", g.Len(), g.Offsets(), g.records(), groups, offsets, records)
		}
	}
	fold(t, g, offsetRecord("a", "t", 0, 1), offsetRecord("a", "t", 0, 2), offsetRecord("a", "u", 0, 3), groupRecord("a", 1), groupRecord("a", 2))
	counts(1, 2, 3)
	if v := g.Offset("a", TopicPartition{"t", 0}); v == nil || v.Offset != 2 {
		t.Errorf("the offset is %+v, want the last", v)
	}
	if v := g.meta("a"); v == nil || v.Generation != 2 {
		t.Errorf("the group is %+v, want the last", v)
	}
	// Each tombstone deletes what it names and nothing else, once.
	fold(t, g, noOffset("a", "t", 0), noOffset("a", "t", 0), noOffset("x", "t", 0), noGroup("x"))
	counts(1, 1, 2)
	fold(t, g, noGroup("a"), noGroup("a"))
	counts(1, 1, 1)
	fold(t, g, unknown("k", "v"), unknown("k", "w"))
	counts(1, 1, 2)
	fold(t, g, noOffset("a", "u", 0), record.Record{Key: unknown("k", "").Key})
	counts(0, 0, 0)
	if g.Hash() != empty {
		t.Error("a state of which all was deleted has another hash than none")
	}
}

// What is folded as one is folded as a whole, or not at all.
func TestFoldAll(t *testing.T) {
	t.Parallel()
	g := NewGroups()
	g.Track()
	rs := slices.Collect(sample(t).All)
	bad := append(slices.Clone(rs), record.Record{Key: []byte{0}})
	if err := g.FoldAll(slices.Values(bad)); !errors.Is(err, record.ErrDamaged) {
		t.Errorf("a record that is damaged: %v", err)
	}
	if g.Hash() != NewGroups().Hash() || len(g.Changes()) > 0 {
		t.Error("what was refused has changed something")
	}
	if err := g.FoldAll(slices.Values(rs)); err != nil || g.Hash() != sample(t).Hash() {
		t.Errorf("folded to another state, or %v", err)
	}
}

func TestFoldRefuses(t *testing.T) {
	t.Parallel()
	r := offsetRecord("a", "t", 0, 1)
	newer := slices.Clone(r.Value)
	newer[1] = 99
	for _, tt := range []struct {
		name string
		in   record.Record
		want error
	}{
		{"no key", record.Record{}, record.ErrDamaged},
		{"key cut off", record.Record{Key: r.Key[:len(r.Key)-1], Value: r.Value}, record.ErrDamaged},
		{"value cut off", record.Record{Key: r.Key, Value: r.Value[:len(r.Value)-1]}, record.ErrDamaged},
		{"newer", record.Record{Key: r.Key, Value: newer}, record.ErrVersion},
	} {
		g := sample(t)
		before := g.Hash()
		if err := g.Fold(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if g.Hash() != before {
			t.Errorf("%s: it changed something", tt.name)
		}
	}
}

// TestClone: neither side sees what the other changes, and they share what is the same.
func TestClone(t *testing.T) {
	t.Parallel()
	g := sample(t)
	c := g.Clone()
	first := g.Hash()
	if c.Hash() != first || c.records() != g.records() {
		t.Fatal("a clone is not what it was cloned from")
	}
	if g.groups["a"] != c.groups["a"] {
		t.Error("a clone copies what has not changed")
	}
	fold(t, g, offsetRecord("a", "t", 0, 100), unknown("later", "other"), noGroup("b"))
	if c.Hash() != first {
		t.Error("the clone changes with the original")
	}
	second := g.Hash()
	fold(t, c, noOffset("a", "t", 1), groupRecord("a", 1), offsetRecord("b", "u", 0, 200))
	if g.Hash() != second {
		t.Error("the original changes with the clone")
	}
	// What a side owns it changes in place.
	before := g.groups["a"]
	if fold(t, g, offsetRecord("a", "t", 0, 101)); g.groups["a"] != before {
		t.Error("a group is copied twice")
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	id := topicID("id")
	want := []Topic{{Name: "t"}, {"t", id}, {"u", id}}
	if diff := cmp.Diff(want, sample(t).Topics()); diff != "" {
		t.Error(diff)
	}
}

// TestChanges: what has changed, folded into what was before, gives what is.
func TestChanges(t *testing.T) {
	t.Parallel()
	g := sample(t)
	base := g.Clone()
	g.Track()
	catchUp := func(want int) []record.Record {
		t.Helper()
		rs := g.Changes()
		if fold(t, base, rs...); len(rs) != want || base.Hash() != g.Hash() {
			t.Fatalf("%d changes, want %d, and the same state %t", len(rs), want, base.Hash() == g.Hash())
		}
		return rs
	}
	catchUp(0)
	fold(t, g, offsetRecord("a", "t", 0, 100), offsetRecord("a", "t", 0, 101), noOffset("a", "t", 1), groupRecord("b", 8),
		unknown("later", "other"), unknown("new", "v"), noGroup("none"), record.Record{Key: unknown("empty", "").Key})
	rs := catchUp(7)
	catchUp(0)
	// A capture that was not made durable comes again, as it is then.
	fold(t, g, offsetRecord("a", "t", 0, 102))
	g.Requeue(rs)
	catchUp(7)
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	g := sample(t)
	b := snapshot(t, g)
	back, err := Restore(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if back.Hash() != g.Hash() || !bytes.Equal(snapshot(t, back), b) || back.records() != g.records() {
		t.Error("a snapshot restores to something else")
	}
	// The order in which records came does not count, nor the version of a value.
	other := NewGroups()
	for _, r := range slices.Backward(slices.Collect(g.All)) {
		fold(t, other, r)
	}
	if !bytes.Equal(snapshot(t, other), b) {
		t.Error("the same state gives another snapshot")
	}
	// Many sections.
	for i := range int32(30000) {
		fold(t, g, offsetRecord("many", "topic", i, int64(i)))
	}
	if back, err = Restore(bytes.NewReader(snapshot(t, g))); err != nil || back.Hash() != g.Hash() {
		t.Errorf("a long snapshot: %v", err)
	}
}

func list(t testing.TB, sections ...section.Section) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := section.NewWriter(&buf)
	for _, s := range sections {
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func payload(rs ...record.Record) []byte {
	var sw snapshotWriter
	for _, r := range rs {
		sw.add(r)
	}
	return sw.buf
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	r := offsetRecord("a", "t", 0, 1)
	newer := slices.Clone(r.Value)
	newer[1] = 99
	records := func(b []byte) section.Section {
		return section.Section{Kind: sectionRecords, Version: snapshotVersion, Mandatory: true, Payload: b}
	}
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrDamaged},
		{"cut off", snapshot(t, sample(t))[:100], ErrDamaged},
		{"a record cut off", list(t, records(payload(r)[:20])), ErrDamaged},
		{"a length cut off", list(t, records(payload(r)[:3])), ErrDamaged},
		{"a key twice", list(t, records(payload(r)), records(payload(r))), ErrDamaged},
		{"a tombstone of an unknown type", list(t, records(payload(unknown("k", ""), unknown("k", "")))), ErrDamaged},
		{"a damaged record", list(t, records(payload(record.Record{Key: r.Key, Value: r.Value[:5]}))), ErrDamaged},
		{"a newer value", list(t, records(payload(record.Record{Key: r.Key, Value: newer}))), ErrUnsupported},
		{"a newer section", list(t, section.Section{Kind: sectionRecords, Version: snapshotVersion + 1, Mandatory: true}), ErrUnsupported},
		{"an unknown section", list(t, section.Section{Kind: 9, Version: 1, Mandatory: true}), ErrUnsupported},
	} {
		if _, err := Restore(bytes.NewReader(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	g, err := Restore(bytes.NewReader(list(t, section.Section{Kind: 9, Version: 1}, records(payload(r)))))
	if err != nil || g.Offsets() != 1 {
		t.Errorf("with a section that may be skipped: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Restore(io.MultiReader(bytes.NewReader(snapshot(t, sample(t))[:50]), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
	if err := sample(t).WriteSnapshot(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestGolden reads what the first version wrote, and writes it again.
func TestGolden(t *testing.T) {
	t.Parallel()
	got := snapshot(t, sample(t))
	path := filepath.Join("testdata", "golden", "snapshot-v1.bin")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("now %x, was %x", got, want)
	}
	g, err := Restore(bytes.NewReader(want))
	if err != nil || g.Hash() != sample(t).Hash() {
		t.Errorf("it restores to something else: %v", err)
	}
}

// FuzzFold checks, for any records, that Fold does not panic; that one which is
// refused changes nothing; that a replay of what there is gives the same; and that a
// coordinator takes it over.
func FuzzFold(f *testing.F) {
	for r := range sample(f).All {
		f.Add(r.Key, r.Value, false)
		f.Add(r.Key, []byte(nil), true)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, tombstone bool) {
		r := record.Record{Key: key, Value: value}
		if tombstone {
			r.Value = nil
		} else if value == nil {
			r.Value = []byte{}
		}
		g := sample(t)
		g.Track()
		base, before := g.Clone(), g.Hash()
		if err := g.Fold(r); err != nil {
			if g.Hash() != before || len(g.Changes()) > 0 {
				t.Fatalf("%v, and something changed", err)
			}
			return
		}
		again := NewGroups()
		for r := range g.All {
			fold(t, again, r)
		}
		if fold(t, base, g.Changes()...); again.Hash() != g.Hash() || base.Hash() != g.Hash() {
			t.Fatal("a replay gives another state")
		}
		opts := DefaultOptions()
		opts.NewID = func() string { return "1" }
		c, err := NewCoordinator(begins, g, opts)
		if err != nil {
			t.Fatal(err)
		}
		if why := audit(c); why != "" {
			t.Fatal(why)
		}
	})
}

// FuzzRestore checks, for any bytes, that Restore and restore do not panic, and that
// what is read is written again to the same state.
func FuzzRestore(f *testing.F) {
	f.Add(snapshot(f, sample(f)))
	f.Add(payload(slices.Collect(sample(f).All)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Restore(bytes.NewReader(b))
		if err != nil {
			g = NewGroups()
			if err := g.restore(b); err != nil {
				return
			}
		}
		back, err := Restore(bytes.NewReader(snapshot(t, g)))
		if err != nil || back.Hash() != g.Hash() {
			t.Fatalf("what was read is written as something else: %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	good := func() Options {
		o := DefaultOptions()
		o.NewID = func() string { return "" }
		return o
	}
	if err := good().Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no source of member ids": func(o *Options) { o.NewID = nil },
		"session timeouts":        func(o *Options) { o.MaxSessionTimeout = o.MinSessionTimeout - 1 },
		"initial rebalance delay": func(o *Options) { o.InitialRebalanceDelay = -1 },
		"new member timeout":      func(o *Options) { o.NewMemberTimeout = 0 },
		"offsets retention":       func(o *Options) { o.OffsetsRetention = 0 },
		"its check":               func(o *Options) { o.RetentionCheck = 0 },
		"size 0":                  func(o *Options) { o.MaxGroupSize = 0 },
		"protocols 0":             func(o *Options) { o.MaxProtocols = 0 },
		"bytes 0 of":              func(o *Options) { o.MaxGroupBytes = 0 },
		"of 0, groups":            func(o *Options) { o.MaxBytes = 0 },
		"groups 0":                func(o *Options) { o.MaxGroups = 0 },
		"offsets 0":               func(o *Options) { o.MaxOffsets = 0 },
		"offset metadata":         func(o *Options) { o.MaxOffsetMetadataBytes = record.MaxStringBytes + 1 },
	} {
		o := good()
		spoil(&o)
		_, err := NewCoordinator(begins, NewGroups(), o)
		if !errors.Is(err, ErrOptions) || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
