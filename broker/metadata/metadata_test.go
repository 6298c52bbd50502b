package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/section"
)

var update = flag.Bool("update", false, "write the golden files, and the list of topic configs in docs/kafka.md, anew")

// everyCommand holds one of each command, in an order in which all succeed.
var everyCommand = []Command{
	TermStart{},
	SetClusterID{"cluster"},
	RegisterNode{1, 11, 0, "rack", []Address{{"client", "host", 9092}, {"node", "host", 9192}}, 0},
	RegisterNode{2, 21, 0, "", []Address{{"client", "other", 9092}}, 0},
	CreateShard{7, []NodeID{1}},
	SetShardReplicas{7, []NodeID{1, 2}},
	CreateTopic{topicID("A"), "orders", []ShardID{7, 7}, []Config{{ConfigMaxMessageBytes, "4096"}, {ConfigSegmentBytes, "1048576"}}},
	AddPartitions{topicID("A"), 2, []ShardID{7}},
	SetTopicConfigs{topicID("A"), []Config{{ConfigMaxMessageBytes, "2048"}}},
	CreateTopic{topicID("B"), "gone", []ShardID{7}, nil},
	DeleteTopic{topicID("B")},
	CreateTopic{topicID("C"), "forgotten", []ShardID{7}, nil},
	DeleteTopic{topicID("C")},
	PurgeTombstone{topicID("C")},
	AllocateProducerIDs{1000},
	RegisterNode{1, 11, 0, "rack", []Address{{"client", "host", 9092}, {"node", "host", 9192}}, 2},
	RegisterNode{2, 21, 0, "", []Address{{"client", "other", 9092}}, 3},
	SetFeatureLevel{2},
	AddShards{8, []NewShard{{2, []NodeID{1, 2}}, {2, []NodeID{2}}}},
	FenceNode{1, 11, true},
	FenceNode{2, 21, true},
	FenceNode{2, 21, false},
}

func sample(t testing.TB) *machine {
	m := newMachine(t)
	for _, c := range everyCommand {
		if r := m.apply(c); r.Code != errcode.None {
			t.Fatalf("%T: %v", c, r.Err())
		}
	}
	return m
}

func TestCommandRoundTrip(t *testing.T) {
	t.Parallel()
	for _, c := range everyCommand {
		term, got, err := Decode(Append(nil, 9, c))
		if err != nil || term != 9 {
			t.Errorf("%T: term %d, error %v", c, term, err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Errorf("%T differs (-want +got):\n%s", c, d)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for _, c := range everyCommand {
		b := Append(nil, 1, c)
		for cut := range b {
			if _, _, err := Decode(b[:cut]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%T cut at %d: error = %v, want ErrDamaged", c, cut, err)
			}
		}
		if _, _, err := Decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%T and a byte more: error = %v, want ErrDamaged", c, err)
		}
	}
	set := func(i int, v byte) []byte {
		b := Append(nil, 1, TermStart{})
		b[i] = v
		return b
	}
	for _, b := range [][]byte{set(0, commandFormat+1), set(1, 0), set(1, 99), set(2, 1)} {
		s := New()
		if _, err := s.Apply(1, 1, b); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%x: error = %v, want ErrUnsupported", b, err)
		}
		if s.Image().Index() != 0 {
			t.Errorf("%x: the refused entry moved the index", b)
		}
	}
	none := Append(nil, 1, RegisterNode{ID: 1, Incarnation: 1, FeatureLevel: 1})
	none[len(none)-2] = 0
	if _, _, err := Decode(none); !errors.Is(err, ErrDamaged) {
		t.Errorf("a node of feature level 0, which is another kind: error = %v, want ErrDamaged", err)
	}
	swapped := appendString(appendString([]byte{2, 0, 0, 0}, "b"), "1")
	swapped = appendString(appendString(swapped, "a"), "1")
	b := append(Append(nil, 1, DeleteTopic{topicID("A")}), swapped...)
	b[1] = byte(KindSetTopicConfigs)
	if _, _, err := Decode(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("configs out of order: error = %v, want ErrDamaged", err)
	}
	lying := binary.LittleEndian.AppendUint32(Append(nil, 1, AddPartitions{})[:commandHeaderBytes+20], 1<<31)
	if _, _, err := Decode(lying); !errors.Is(err, ErrDamaged) {
		t.Errorf("a count that lies: error = %v, want ErrDamaged", err)
	}
}

func TestApplyOrder(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.index, m.term = 10, 5
	m.apply(TermStart{})
	for _, at := range [][2]uint64{{11, 5}, {10, 9}, {12, 4}} {
		if _, err := m.s.Apply(at[0], at[1], Append(nil, at[1], TermStart{})); !errors.Is(err, ErrOrder) {
			t.Errorf("Apply(%d, %d) = %v, want ErrOrder", at[0], at[1], err)
		}
	}
}

func TestCheckTopicName(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		ok   bool
	}{
		{"a", true}, {"...", true}, {"A-z_0.9", true}, {strings.Repeat("x", 249), true},
		{"", false}, {".", false}, {"..", false}, {"a b", false}, {"ä", false}, {"a\x00", false},
		{strings.Repeat("x", 250), false},
	}
	for _, tt := range tests {
		if err := CheckTopicName(tt.name); (err == nil) != tt.ok {
			t.Errorf("CheckTopicName(%q) = %v, want ok %t", tt.name, err, tt.ok)
		}
	}
}

func TestTopicQueries(t *testing.T) {
	t.Parallel()
	im := sample(t).s.Image()
	topic := im.TopicByName("orders")
	if topic == nil || im.TopicByID(topicID("A")) != topic || im.TopicByName("gone") != nil {
		t.Fatalf("TopicByName = %+v", topic)
	}
	for i, want := range []uint64{7, 7, 8} {
		if got := topic.PartitionIndex(int32(i)); got != want {
			t.Errorf("PartitionIndex(%d) = %d, want %d", i, got, want)
		}
	}
	if v, ok := topic.Value(ConfigMaxMessageBytes); !ok || v != "2048" {
		t.Errorf("Value = %q %t", v, ok)
	}
	if _, ok := topic.Value(ConfigSegmentBytes); ok {
		t.Error("a config that was replaced is still set")
	}
	if ts := im.Tombstone(topicID("B")); ts == nil || ts.Partitions != 1 || ts.DeletedAt != 11 {
		t.Errorf("Tombstone = %+v", ts)
	}
}

// An image stays what it was, whatever is applied later; readers need no lock.
// The race detector watches.
func TestImageIsImmutable(t *testing.T) {
	t.Parallel()
	m := sample(t)
	im := m.s.Image()
	before := describe(im)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 50 {
				if got := describe(im); got != before {
					t.Errorf("the image changed:\n%s", cmp.Diff(before, got))
					return
				}
			}
		})
	}
	for i := range 300 {
		id := topicID(fmt.Sprint("x", i))
		m.apply(CreateTopic{id, fmt.Sprint("x", i), []ShardID{7}, nil})
		m.apply(AddPartitions{topicID("A"), int32(3 + i), []ShardID{7}})
		if i%2 == 0 {
			m.apply(DeleteTopic{id})
		}
		m.apply(RegisterNode{NodeID(i), 1, 11, "", []Address{{"client", "h", 1}}, 2})
	}
	wg.Wait()
	if got := m.s.Image().TopicCount(); got != 151 {
		t.Errorf("%d topics, want 151", got)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		got := table[string, int]{compare: compareStrings}
		want := map[string]int{}
		old, oldWant := got, map[string]int{}
		span := rapid.SampledFrom([]int{5, 2000}).Draw(t, "span")
		for i := range rapid.IntRange(0, 40).Draw(t, "steps") {
			from := rapid.IntRange(0, span).Draw(t, "from")
			add := rapid.IntRange(0, 2).Draw(t, "add") > 0
			for k := from; k < from+rapid.IntRange(1, 300).Draw(t, "run"); k++ {
				key := fmt.Sprint(k)
				if add {
					got, want[key] = got.put(key, i), i
				} else {
					got = got.remove(key)
					delete(want, key)
				}
			}
			if i == 7 {
				old, oldWant = got, maps.Clone(want)
			}
		}
		checkTable(t, got, want)
		checkTable(t, old, oldWant)
	})
}

func checkTable(t *rapid.T, got table[string, int], want map[string]int) {
	keys := slices.Sorted(maps.Keys(want))
	var values []int
	for _, k := range keys {
		if v, ok := got.get(k); !ok || v != want[k] {
			t.Fatalf("get(%s) = %d %t, want %d", k, v, ok, want[k])
		}
		values = append(values, want[k])
	}
	if walked := slices.Collect(got.values()); !slices.Equal(walked, values) || got.rows != len(keys) {
		t.Fatalf("%d rows, values %v, want %v", got.rows, walked, values)
	}
	for _, c := range got.chunks {
		if len(c) == 0 || len(c) > chunkRows {
			t.Fatalf("a chunk of %d rows", len(c))
		}
	}
	if _, ok := got.get("none"); ok {
		t.Fatal("found what was never put")
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	loads := []Load{{1, 10}, {2, 0}, {3, 10}}
	tests := []struct {
		name     string
		loads    []Load
		existing []ShardID
		n        int
		want     []ShardID
	}{
		{"no shards", nil, nil, 3, nil},
		{"none wanted", loads, nil, 0, nil},
		{"least loaded, then lowest id", loads, nil, 1, []ShardID{2}},
		{"the topic is spread first", loads, nil, 4, []ShardID{2, 1, 3, 2}},
		{"over its old partitions too", loads, []ShardID{2, 2, 1}, 3, []ShardID{3, 1, 3}},
		{"shards that are gone do not count", loads, []ShardID{9, 9}, 1, []ShardID{2}},
		{"order of the loads is of no matter", []Load{{3, 10}, {1, 10}, {2, 0}}, nil, 4, []ShardID{2, 1, 3, 2}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, Place(tt.loads, tt.existing, tt.n)); d != "" {
			t.Errorf("%s: differs (-want +got):\n%s", tt.name, d)
		}
	}
	im := sample(t).s.Image()
	if d := cmp.Diff([]Load{{7, 3}, {8, 0}}, im.Loads(2)); d != "" {
		t.Errorf("Loads differ (-want +got):\n%s", d)
	}
	if got := im.Loads(3); got != nil {
		t.Errorf("Loads(3) = %v, want none", got)
	}
}

func TestSnapshotCutAndFlip(t *testing.T) {
	t.Parallel()
	whole := snapshot(t, sample(t).s.Image())
	for i := range whole {
		if _, err := Restore(bytes.NewReader(whole[:i])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: error = %v, want ErrDamaged", i, err)
		}
		hurt := bytes.Clone(whole)
		hurt[i] ^= 1 << (i % 8)
		if _, err := Restore(bytes.NewReader(hurt)); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d changed: error = %v, want ErrDamaged", i, err)
		}
	}
	if _, err := Restore(bytes.NewReader(slices.Concat(whole, whole))); !errors.Is(err, ErrDamaged) {
		t.Errorf("two snapshots: error = %v, want ErrDamaged", err)
	}
}

// An image of a level that this build does not know is refused, and says what to
// do.
func TestRestoreNewerFeatureLevel(t *testing.T) {
	t.Parallel()
	im := sample(t).s.Image()
	im.featureLevel = MaxFeatureLevel + 1
	_, err := Restore(bytes.NewReader(snapshot(t, im)))
	if want := fmt.Sprintf("feature level is %d, and this build knows up to %d; start the newer version", MaxFeatureLevel+1, MaxFeatureLevel); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want ErrUnsupported and %q", err, want)
	}
}

// Feature levels are those of nodes that are there, one each.
func TestRestoreNodeLevels(t *testing.T) {
	t.Parallel()
	level := func(node NodeID, level uint16) []byte { return (&Node{ID: node, FeatureLevel: level}).appendLevel(nil) }
	for _, tt := range []struct {
		name   string
		levels []byte
		want   error
	}{
		{"of both", append(level(1, 2), level(2, 3)...), nil},
		{"of one", level(2, 3), nil},
		{"of none that is there", level(3, 2), ErrDamaged},
		{"twice", append(level(1, 2), level(1, 2)...), ErrDamaged},
		{"not said", level(1, 0), ErrDamaged},
		{"cut off", level(1, 2)[:5], ErrDamaged},
	} {
		var buf bytes.Buffer
		im := sample(t).s.Image()
		sw := snapshotWriter{w: section.NewWriter(&buf)}
		sw.item(sectionCluster, im.appendCluster)
		for n := range im.Nodes() {
			sw.item(sectionNodes, n.append)
		}
		sw.item(sectionNodeLevels, func(b []byte) []byte { return append(b, tt.levels...) })
		if err := sw.close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(&buf); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
	}
}

// What is said of added shards is of shards that are there, once each.
func TestRestoreAddedShards(t *testing.T) {
	t.Parallel()
	added := func(id ShardID, at uint64, founders ...Founder) []byte {
		return (&Shard{ID: id, CreatedAt: at, preferred: 1, Founders: founders}).appendAdded(nil)
	}
	one := Founder{1, 11}
	for _, tt := range []struct {
		name  string
		added []byte
		want  error
	}{
		{"of one", added(7, 5, one), nil},
		{"of none that is there", added(6, 5, one), ErrDamaged},
		{"twice", append(added(7, 5, one), added(7, 5, one)...), ErrDamaged},
		{"never created", added(7, 0, one), ErrDamaged},
		{"without founders", added(7, 5), ErrDamaged},
		{"cut off", added(7, 5, one)[:20], ErrDamaged},
	} {
		var buf bytes.Buffer
		im := sample(t).s.Image()
		sw := snapshotWriter{w: section.NewWriter(&buf)}
		sw.item(sectionCluster, im.appendCluster)
		sw.item(sectionShards, im.Shard(7).append)
		sw.item(sectionAddedShards, func(b []byte) []byte { return append(b, tt.added...) })
		if err := sw.close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(&buf); !errors.Is(err, tt.want) {
			t.Errorf("%s: error = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestRestoreUnknownSections(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	write := func(extra section.Section) error {
		buf.Reset()
		w := section.NewWriter(&buf)
		cluster := append(make([]byte, 26), appendString(nil, "c")...)
		first := section.Section{Kind: sectionCluster, Version: snapshotVersion, Mandatory: true, Payload: cluster}
		if err := errors.Join(w.Write(first), w.Write(extra), w.Close()); err != nil {
			t.Fatal(err)
		}
		_, err := Restore(&buf)
		return err
	}
	for _, s := range []section.Section{{Kind: 99, Version: 1}, {Kind: sectionTopics, Version: 2}} {
		if err := write(s); err != nil {
			t.Errorf("kind %d version %d, skippable: %v", s.Kind, s.Version, err)
		}
		s.Mandatory = true
		if err := write(s); !errors.Is(err, ErrUnsupported) {
			t.Errorf("kind %d version %d, mandatory: error = %v, want ErrUnsupported", s.Kind, s.Version, err)
		}
	}
}

// goldenBefore is what testdata/golden/snapshot-v1.bin holds, of when nodes
// did not say which feature levels they know.
const goldenBefore = `index=16 term=1 cluster="cluster" next producer=1000 feature level=2
node 1: incarnation=11 [{client host 9092} {node host 9192}] at 3
node 2: incarnation=21 [{client other 9092}] at 4
shard 7: replicas=[1 2] partitions=3 at 6
topic orders: on=[7 7 7] configs=[{max.message.bytes 2048}] created=7 updated=9 grown=[{2 8}]
tombstone gone: partitions=1 deleted=11
`

// goldenLevels is what testdata/golden/snapshot-v1-levels.bin holds, of when all
// shards were there from the begin.
const goldenLevels = `index=18 term=1 cluster="cluster" next producer=1000 feature level=2
node 1: incarnation=11 [{client host 9092} {node host 9192}] at 16 knows=2
node 2: incarnation=21 [{client other 9092}] at 17 knows=3
shard 7: replicas=[1 2] partitions=3 at 6
topic orders: on=[7 7 7] configs=[{max.message.bytes 2048}] created=7 updated=9 grown=[{2 8}]
tombstone gone: partitions=1 deleted=11
`

// TestGolden reads what the first version wrote, and writes it again.
func TestGolden(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"snapshot-v1-fenced.bin": snapshot(t, sample(t).s.Image())}
	for _, c := range everyCommand {
		files["commands-v1.txt"] = fmt.Appendf(files["commands-v1.txt"], "%x\n", Append(nil, 9, c))
	}
	for name, got := range files {
		path := filepath.Join("testdata", "golden", name)
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
			t.Errorf("%s: now %x, was %x", name, got, want)
		}
	}
	for name, want := range map[string]string{"snapshot-v1.bin": goldenBefore, "snapshot-v1-levels.bin": goldenLevels, "snapshot-v1-fenced.bin": describe(sample(t).s.Image())} {
		old, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(restore(t, old).Image()); got != want {
			t.Errorf("%s restores to:\n%s", name, cmp.Diff(want, got))
		}
	}
}

// FuzzDecode checks, for any bytes, that Decode and Apply do not panic, and that
// what decodes re-encodes to the same bytes.
func FuzzDecode(f *testing.F) {
	for _, c := range everyCommand {
		f.Add(Append(nil, 1, c))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		term, c, err := Decode(in)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("Decode error = %v, want a sentinel", err)
			}
			return
		}
		if got := Append(nil, term, c); !bytes.Equal(got, in) {
			t.Fatalf("re-encoded %x, want %x", got, in)
		}
		m := sample(t)
		m.term = max(m.term, term)
		before := m.s.Image()
		was := describe(before)
		m.apply(c)
		if got := describe(before); got != was {
			t.Fatalf("the image before changed:\n%s", cmp.Diff(was, got))
		}
		now := snapshot(t, m.s.Image())
		if !bytes.Equal(snapshot(t, restore(t, now).Image()), now) {
			t.Fatal("the restored state differs")
		}
	})
}

// FuzzRestore gives the bytes to Restore as the payloads of good sections.
func FuzzRestore(f *testing.F) {
	r := section.NewReader(bytes.NewReader(snapshot(f, sample(f).s.Image())))
	var payloads [][]byte
	for range 8 {
		s, err := r.Next()
		if err != nil {
			f.Fatal(err)
		}
		payloads = append(payloads, bytes.Clone(s.Payload))
	}
	f.Add(payloads[0], payloads[1], payloads[2], payloads[3], payloads[4], payloads[5], payloads[6], payloads[7])
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i []byte) {
		var buf bytes.Buffer
		w := section.NewWriter(&buf)
		for kind, payload := range [][]byte{a, b, c, d, e, g, h, i} {
			s := section.Section{Kind: section.Kind(kind + 1), Version: snapshotVersion, Mandatory: true, Payload: payload}
			if err := w.Write(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Restore(&buf)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("Restore error = %v, want ErrDamaged or ErrUnsupported", err)
			}
			return
		}
		now := snapshot(t, s.Image())
		if !bytes.Equal(snapshot(t, restore(t, now).Image()), now) {
			t.Fatal("a restored state does not restore to itself")
		}
	})
}

func BenchmarkCreateTopic(b *testing.B) {
	for _, topics := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("topics=%d", topics), func(b *testing.B) {
			m := newMachine(b)
			m.apply(RegisterNode{1, 1, 0, "", []Address{{"client", "h", 1}}, 2})
			m.apply(CreateShard{1, []NodeID{1}})
			for i := range topics {
				m.apply(CreateTopic{topicID(fmt.Sprintf("%016d", i)), fmt.Sprintf("topic-%d", i), []ShardID{1}, nil})
			}
			id := topicID("another")
			b.ReportAllocs()
			for b.Loop() {
				m.apply(CreateTopic{id, "topic-5000x", []ShardID{1}, nil})
				m.apply(DeleteTopic{id})
				m.apply(PurgeTombstone{id})
			}
		})
	}
}
