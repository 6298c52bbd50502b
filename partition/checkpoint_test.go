package partition

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/section"
)

var update = flag.Bool("update", false, "write the golden files")

// sampleDeltas returns a state, and the base and deltas that led to it. They
// hold each kind of section.
func sampleDeltas(t testing.TB) (*State, [][]byte) {
	t.Helper()
	m := newMachine(t)
	var lists [][]byte
	capture := func() { lists = append(lists, delta(t, m.s.Capture())) }
	limits := DefaultLimits
	limits.MaxProducers, limits.ProducerIdleMS = 3, 0
	m.apply(setLimits(limits), create("a", 0, 1), create("b", 0, 2), create("c", 3, 3))
	m.apply(
		produce(1, testBatch{id: 7, count: 3}),
		produce(1, testBatch{id: 7, seq: 3, count: 2}),
		produce(2, testBatch{id: 8, epoch: 4, seq: 1<<31 - 1, count: 2}),
		produce(2, testBatch{id: 9, count: 1, attrs: attrLogAppendTime, maxTime: 77}),
	)
	capture()
	m.term, m.clock = 2, 2000
	m.apply(produce(1, testBatch{id: -1, count: 10}), remove("c", 3, 5), advance(2, 1))
	capture()
	m.term = 4
	m.apply(produce(1, testBatch{id: 10, count: 1}), create("d", 0, 6), remove("e", 0, 7)) // forgets producer 7
	capture()
	capture()
	return m.s, lists
}

// sampleDeltasOfVersion2 does the same for a shard that is raised to apply
// version 2 between the first list and the second, and holds what needs it.
func sampleDeltasOfVersion2(t testing.TB) (*State, [][]byte) {
	t.Helper()
	m := newMachine(t)
	m.apply(create("a", 0, 1), produce(1, testBatch{id: 7, count: 3}))
	lists := [][]byte{delta(t, m.s.Capture())}
	m.apply(
		func(b *EntryBuilder) { b.SetApplyVersion(2) },
		func(b *EntryBuilder) { b.CreatePartition(CreatePartition{topicID("b"), 4, 2, 7, secondConfig}) },
		func(b *EntryBuilder) { b.SetPartitionConfig(SetPartitionConfig{topicID("a"), 0, 3, secondConfig}) },
	)
	return m.s, append(lists, delta(t, m.s.Capture()))
}

func TestRestore(t *testing.T) {
	t.Parallel()
	for _, sample := range []func(testing.TB) (*State, [][]byte){sampleDeltas, sampleDeltasOfVersion2} {
		s, lists := sample(t)
		testRestore(t, s, lists)
	}
}

func testRestore(t *testing.T, s *State, lists [][]byte) {
	t.Helper()
	got := restore(t, lists...)
	if got.StateHash() != s.StateHash() {
		t.Error("the restored state differs")
	}
	if c := got.Capture(); len(c.parts)+len(c.producers)+len(c.deleted)+len(c.forgotten)+len(c.stamps) != 0 {
		t.Errorf("after Restore %+v is dirty, want nothing", c)
	}
	var folded bytes.Buffer
	var srcs []io.Reader
	for _, l := range lists {
		srcs = append(srcs, bytes.NewReader(l))
	}
	if err := Fold(&folded, srcs...); err != nil {
		t.Fatal(err)
	}
	if restore(t, folded.Bytes()).StateHash() != s.StateHash() {
		t.Error("the folded state differs")
	}
	// A state goes on after a fold as before it: deltas fit on top of the base.
	m := &machine{t: t, s: s, index: s.lastIndex, term: s.lastTerm}
	m.apply(produce(1, testBatch{id: -1, count: 1}))
	next := delta(t, s.Capture())
	if restore(t, folded.Bytes(), next).StateHash() != s.StateHash() {
		t.Error("the state differs with a delta behind the fold")
	}
}

// A capture holds what changed, not what there is.
func TestCaptureIsProportional(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for i := range 500 {
		m.apply(create("a", int32(i), 1), produce(Number(i+1), testBatch{id: 1, count: 1}), produce(Number(i+1), testBatch{id: 2, count: 1}))
	}
	if got := len(m.s.Capture().Dirty()); got != 500 {
		t.Errorf("%d dirty, want 500", got)
	}
	m.apply(produce(3, testBatch{id: 2, seq: 1, count: 5}), create("b", 0, 1))
	c := m.s.Capture()
	if d := cmp.Diff([]End{{3, 7}, {501, 0}}, c.Dirty()); d != "" {
		t.Errorf("dirty differs (-want +got):\n%s", d)
	}
	if len(c.producers) != 1 {
		t.Errorf("%d producers captured, want 1", len(c.producers))
	}
}

func TestRequeue(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	limits := DefaultLimits
	limits.MaxProducers, limits.ProducerIdleMS = 2, 0
	m.apply(setLimits(limits), create("a", 0, 1), create("b", 0, 1), create("c", 0, 1),
		produce(1, testBatch{id: 1, count: 1}), produce(1, testBatch{id: 2, count: 1}))
	base := delta(t, m.s.Capture())
	m.apply(produce(1, testBatch{id: 3, count: 1}), remove("b", 0, 2)) // forgets producer 1
	lost := m.s.Capture()
	m.apply(produce(3, testBatch{id: -1, count: 1}), remove("c", 0, 3), produce(1, testBatch{id: 4, count: 1}))
	m.s.Requeue(lost)
	next := m.s.Capture()
	if d := cmp.Diff([]End{{1, 4}}, next.Dirty()); d != "" {
		t.Errorf("dirty differs (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]Number{2, 3}, next.Deleted()); d != "" {
		t.Errorf("deleted differs (-want +got):\n%s", d)
	}
	if restore(t, base, delta(t, next)).StateHash() != m.s.StateHash() {
		t.Error("the state differs without the capture that was given back")
	}
	// Without Requeue the gap is found.
	late := delta(t, m.s.Capture())
	if _, err := Restore(bytes.NewReader(append(bytes.Clone(base), late...))); !errors.Is(err, ErrDamaged) {
		t.Errorf("Restore over a missing delta = %v, want ErrDamaged", err)
	}
}

// A capture stays what it was when later entries add to, prune and replace what
// it refers to.
func TestCaptureIsFrozen(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(create("a", 0, 1), produce(1, testBatch{id: 1, count: 1}))
	m.term++
	m.apply(produce(1, testBatch{id: 1, seq: 1, count: 1}))
	steps := []func(){
		func() { m.apply(produce(1, testBatch{id: 1, seq: 2, count: 1})) },
		func() { m.apply(advance(1, 3)) },
		func() { m.term++; m.apply(produce(1, testBatch{id: 1, seq: 3, count: 1})) },
		func() { m.term++; m.apply(produce(1, testBatch{id: 1, seq: 4, count: 1})) },
		func() { m.apply(remove("a", 0, 2)) },
	}
	var captures []*Capture
	var want [][]byte
	for _, step := range steps {
		c := m.s.Capture()
		captures, want = append(captures, c), append(want, delta(t, c))
		step()
	}
	for i, c := range captures {
		if got := delta(t, c); !bytes.Equal(got, want[i]) {
			t.Errorf("capture %d changed:\nnow %x\nwas %x", i, got, want[i])
		}
	}
}

// WriteDelta reads nothing that Apply writes. The race detector says so.
func TestWriteBesideApply(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(create("a", 0, 1))
	var wg sync.WaitGroup
	var lists [50][]byte
	seq := int32(0)
	for i := range lists {
		c := m.s.Capture()
		wg.Go(func() {
			var buf bytes.Buffer
			if err := c.WriteDelta(&buf); err != nil {
				t.Error(err)
			}
			lists[i] = buf.Bytes()
		})
		for range 20 {
			m.apply(produce(1, testBatch{id: 1, seq: seq, count: 1}))
			seq++
		}
		m.term++
		m.apply(advance(1, int64(seq)-2), produce(1, testBatch{id: int64(i) + 2, count: 1}))
	}
	wg.Wait()
	if err := Fold(io.Discard, bytes.NewReader(bytes.Join(lists[:], nil))); err != nil {
		t.Error(err)
	}
}

// TestRestoreCut cuts base and deltas at every byte. Only between two lists may
// the rest pass, as the older state that it then is.
func TestRestoreCut(t *testing.T) {
	t.Parallel()
	_, lists := sampleDeltas(t)
	whole := bytes.Join(lists, nil)
	between := map[int]bool{}
	for i, end := 0, 0; i < len(lists); i++ {
		end += len(lists[i])
		between[end] = true
	}
	for cut := range whole {
		_, err := Restore(bytes.NewReader(whole[:cut]))
		if between[cut] {
			if err != nil {
				t.Errorf("cut at %d, between lists: %v", cut, err)
			}
		} else if !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: error = %v, want ErrDamaged", cut, err)
		}
	}
}

func TestRestoreFlip(t *testing.T) {
	t.Parallel()
	_, lists := sampleDeltas(t)
	whole := bytes.Join(lists, nil)
	for i := range whole {
		hurt := bytes.Clone(whole)
		hurt[i] ^= 1 << (i % 8)
		_, err := Restore(bytes.NewReader(hurt))
		var ce *CheckpointError
		if !errors.Is(err, ErrDamaged) || !errors.As(err, &ce) || ce.At > int64(i) {
			t.Errorf("byte %d changed: error = %v, want a CheckpointError at or before it", i, err)
		}
	}
}

// TestRestoreRefuses gives Restore intact sections that cannot be a state.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	good := func() *Capture {
		s, _ := sampleDeltas(t)
		return s.full()
	}
	tests := []struct {
		name   string
		change func(c *Capture)
	}{
		{"delta without its base", func(c *Capture) { c.header.from = 1 }},
		{"log start behind the end", func(c *Capture) { c.parts[0].logStart = c.parts[0].end + 1 }},
		{"number not given yet", func(c *Capture) { c.header.lastNumber = 2 }},
		{"two partitions of one key", func(c *Capture) { c.parts[1].key = c.parts[0].key }},
		{"no segment size", func(c *Capture) { c.parts[0].config.SegmentBytes = 0 }},
		{"epochs out of order", func(c *Capture) { c.parts[0].epochs = epochHistory{{5, 0}, {4, 1}} }},
		{"epoch starts out of order", func(c *Capture) { c.parts[0].epochs = epochHistory{{4, 3}, {5, 3}} }},
		{"epoch behind the end", func(c *Capture) { c.parts[0].epochs = epochHistory{{4, c.parts[0].end + 1}} }},
		{"producer of no partition", func(c *Capture) { c.producers[0].number = 99 }},
		{"producer from the future", func(c *Capture) { c.producers[0].lastMS = c.header.clockMS + 1 }},
		{"stamp not given yet", func(c *Capture) { c.header.producerStamp = 1 }},
		{"two producers of one stamp", func(c *Capture) { c.producers[1].stamp = c.producers[0].stamp }},
		{"empty window", func(c *Capture) { c.producers[0].window.count = 0 }},
		{"window behind the end", func(c *Capture) { c.producers[0].window.ring[0].base = 1 << 40 }},
		{"term too high", func(c *Capture) { c.header.lastTerm = maxTerm + 1 }},
		{"limits of zero", func(c *Capture) { c.header.limits = Limits{} }},
	}
	if _, err := Restore(bytes.NewReader(delta(t, good()))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		c := good()
		tt.change(c)
		if _, err := Restore(bytes.NewReader(delta(t, c))); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error = %v, want ErrDamaged", tt.name, err)
		}
	}
	c := good()
	c.parts[0].config.SegmentMS = 1
	if _, err := Restore(bytes.NewReader(delta(t, c))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("config of version 2 in version 1: error = %v, want ErrUnsupported", err)
	}
	c.header.version = 2
	if _, err := Restore(bytes.NewReader(delta(t, c))); err != nil {
		t.Errorf("config of version 2 in version 2: error = %v", err)
	}
	c.header.version = 0
	if _, err := Restore(bytes.NewReader(delta(t, c))); !errors.Is(err, ErrDamaged) {
		t.Errorf("no apply version: error = %v, want ErrDamaged", err)
	}
	c = good()
	c.header.version = MaxApplyVersion + 1
	if _, err := Restore(bytes.NewReader(delta(t, c))); !errors.Is(err, ErrUnsupported) {
		t.Errorf("newer apply version: error = %v, want ErrUnsupported", err)
	}
	if _, err := Restore(bytes.NewReader(nil)); !errors.Is(err, ErrDamaged) {
		t.Errorf("empty: error = %v, want ErrDamaged", err)
	}
}

// sampleDeltasOfVersion3 is sampleDeltas with what apply version 3 has more: a base
// of version 2, and two deltas.
func sampleDeltasOfVersion3(t testing.TB) (*State, [][]byte) {
	m := newMachine(t)
	var lists [][]byte
	capture := func() { lists = append(lists, delta(t, m.s.Capture())) }
	m.apply(setVersion(2), create("a", 0, 1), produce(1, testBatch{id: 7, count: 2, maxTime: 70}))
	m.apply(remove("a", 0, 2), create("b", 0, 3), produce(2, testBatch{id: 8, count: 1, maxTime: 80}))
	capture()
	m.apply(setVersion(3), produce(2, testBatch{id: 7, count: 1, maxTime: 90}))
	m.apply(createInternal("groups", 0, 4), createInternal("groups", 1, 4), decision(3, 1, 1, recordsOf(t, "a=1", "b=", "c=1")))
	capture()
	m.term = 4
	m.apply(decision(3, 4, 1, recordsOf(t, "a=2"), recordsOf(t, "c")), decision(3, 4, 2, recordsOf(t, "d=1")))
	capture()
	return m.s, lists
}

func TestRestoreUnknownSections(t *testing.T) {
	t.Parallel()
	s, _ := sampleDeltas(t)
	write := func(extra section.Section) []byte {
		var buf bytes.Buffer
		w := section.NewWriter(&buf)
		r := section.NewReader(bytes.NewReader(delta(t, s.full())))
		for {
			sec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err == nil {
				err = w.Write(sec)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Write(extra), w.Close()); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	for _, sec := range []section.Section{{Kind: 99, Version: 1}, {Kind: sectionStamps, Version: 2}} {
		sec.Payload = []byte("new")
		if got := restore(t, write(sec)); got.StateHash() != s.StateHash() {
			t.Errorf("kind %d version %d, skippable: the state differs", sec.Kind, sec.Version)
		}
		sec.Mandatory = true
		if _, err := Restore(bytes.NewReader(write(sec))); !errors.Is(err, ErrUnsupported) {
			t.Errorf("kind %d version %d, mandatory: error = %v, want ErrUnsupported", sec.Kind, sec.Version, err)
		}
	}
}

// TestGolden reads what the first version wrote, and writes it again.
func TestGolden(t *testing.T) {
	t.Parallel()
	s, lists := sampleDeltas(t)
	files := map[string][]byte{"entry-v1.bin": everyCommand(), "entry-apply-v2.bin": everyCommandOfVersion2()}
	s2, lists2 := sampleDeltasOfVersion2(t)
	for i, l := range lists2 {
		files[fmt.Sprintf("checkpoint-apply-v2.%d.bin", i)] = l
	}
	files["statehash-apply-v2.txt"] = fmt.Appendf(nil, "%v\n", s2.StateHash())
	for i, l := range lists {
		files[fmt.Sprintf("checkpoint-v1.%d.bin", i)] = l
	}
	s3, lists3 := sampleDeltasOfVersion3(t)
	for i, l := range lists3 {
		files[fmt.Sprintf("checkpoint-apply-v3.%d.bin", i)] = l
	}
	files["entry-apply-v3.bin"] = everyCommandOfVersion3(t)
	files["statehash-apply-v3.txt"] = fmt.Appendf(nil, "%v\n", s3.StateHash())
	files["statehash-v1.txt"] = fmt.Appendf(nil, "%v\n", s.StateHash())
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
}

func FuzzRestore(f *testing.F) {
	s, lists := sampleDeltas(f)
	f.Add(bytes.Join(lists, nil))
	_, lists2 := sampleDeltasOfVersion2(f)
	f.Add(bytes.Join(lists2, nil))
	_, lists3 := sampleDeltasOfVersion3(f)
	f.Add(bytes.Join(lists3, nil))
	f.Add(delta(f, s.full()))
	f.Add(delta(f, New().full()))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Restore(bytes.NewReader(resealed(in)))
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("Restore error = %v, want a sentinel", err)
			}
			return
		}
		again := restore(t, delta(t, s.full()))
		if again.StateHash() != s.StateHash() {
			t.Fatal("a restored state does not restore to itself")
		}
		m := &machine{t: t, s: s, index: s.lastIndex, term: s.lastTerm}
		if m.index < 1<<62 && m.term < maxTerm {
			m.term++
			m.apply(create("new", 0, 1<<62), produce(1, testBatch{id: 7, count: 1}), advance(1, 1))
		}
	})
}

// resealed gives the sections of in good CRCs, so that a fuzzer gets behind
// them.
func resealed(in []byte) []byte {
	var out bytes.Buffer
	w := section.NewWriter(&out)
	for len(in) >= section.HeaderBytes {
		kind, n := section.Kind(in[4]), int(in[12])|int(in[13])<<8
		version, mandatory := uint16(in[6]), in[8]&1 != 0
		in = in[section.HeaderBytes:]
		n = min(n, len(in))
		if kind == 0xff || kind == 0 {
			_ = w.Close() // a bytes.Buffer takes all bytes
			w = section.NewWriter(&out)
		} else {
			_ = w.Write(section.Section{Kind: kind, Version: version, Mandatory: mandatory, Payload: in[:n]})
		}
		in = in[n:]
	}
	return out.Bytes()
}
