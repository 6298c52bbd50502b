package partition

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

func TestApplyOrder(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.index, m.term = 10, 5
	m.apply(create("a", 0, 1))
	tests := []struct {
		index, term uint64
		want        error
	}{
		{11, 5, ErrOrder},
		{10, 6, ErrOrder},
		{12, 4, ErrOrder},
		{12, maxTerm + 1, ErrUnsupported},
		{13, 6, nil}, // Raft's own entries leave gaps
	}
	for _, tt := range tests {
		before := m.s.StateHash()
		err := m.s.Apply(tt.index, tt.term, m.entry(), &m.out)
		if !errors.Is(err, tt.want) {
			t.Errorf("Apply(%d, %d) = %v, want %v", tt.index, tt.term, err, tt.want)
		}
		if changed := m.s.StateHash() != before; changed != (tt.want == nil) {
			t.Errorf("Apply(%d, %d): state changed: %t", tt.index, tt.term, changed)
		}
	}
}

// The batch reaches the store uncopied, with its place beside it.
func TestEffectAliasesEntry(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(create("a", 0, 1))
	entry := m.entry(produce(1, testBatch{id: -1, count: 2, trailing: 9}))
	if err := m.s.Apply(m.index+1, 1, entry, &m.out); err != nil {
		t.Fatal(err)
	}
	e := m.out.Effects[0]
	if !bytes.Equal(e.Batch, testBatch{id: -1, count: 2, trailing: 9}.bytes()) {
		t.Errorf("batch = %x", e.Batch)
	}
	if &e.Batch[0] != &entry[EntryOverheadBytes+ProduceOverheadBytes] {
		t.Error("the batch was copied")
	}
}

// The last offset is never given twice, and never wraps.
func TestOffsetsUsedUp(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.apply(create("a", 0, 1))
	m.s.parts[1].end = math.MaxInt64 - 3
	got := m.apply(
		produce(1, testBatch{id: -1, count: 4}),
		produce(1, testBatch{id: -1, count: 3}),
		produce(1, testBatch{id: -1, count: 1}),
	)
	want := []errcode.Code{errcode.OffsetOutOfRange, errcode.None, errcode.OffsetOutOfRange}
	for i, r := range got {
		if r.Code != want[i] {
			t.Errorf("produce %d: %v, want %v", i, r.Code, want[i])
		}
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for i := range 20 {
		m.apply(create(fmt.Sprintf("t%d", 19-i), int32(i), 1))
	}
	m.apply(remove("t10", 9, 2))
	var numbers []Number
	for v := range m.s.Partitions() {
		numbers = append(numbers, v.Number)
		if n, ok := m.s.Lookup(v.TopicID, v.Index); !ok || n != v.Number {
			t.Errorf("Lookup = %d %t, want %d", n, ok, v.Number)
		}
		if got, ok := m.s.Partition(v.Number); !ok || got != v {
			t.Errorf("Partition = %+v %t, want %+v", got, ok, v)
		}
	}
	want := []Number{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	if d := cmp.Diff(want, numbers); d != "" {
		t.Errorf("numbers differ (-want +got):\n%s", d)
	}
	if _, ok := m.s.Lookup(topicID("t10"), 9); ok || m.s.Len() != 19 {
		t.Errorf("a deleted partition is found, or counted in %d", m.s.Len())
	}
	for range m.s.Partitions() {
		break
	}
}

// nextBatches returns an entry builder that fills buf with one batch of each
// producer, and moves their sequences on.
func nextBatches(seqs []int32) func(buf []byte) []byte {
	batch := testBatch{count: 3, trailing: 200}
	return func(buf []byte) []byte {
		var b EntryBuilder
		b.Reset(buf, EntryHeader{DecidedTerm: 1, WallClockMS: 1})
		for id := range seqs {
			batch.id, batch.seq = int64(id), seqs[id]
			b.Produce(1, batch.bytes())
			seqs[id] = addSequence(seqs[id], batch.count)
		}
		return b.Bytes()
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	m := newMachine(t)
	m.apply(create("a", 0, 1))
	next := nextBatches(make([]int32, 50))
	const runs = 100
	var entries [][]byte
	for range runs + 2 {
		entries = append(entries, next(nil))
	}
	apply := func() {
		m.index++
		if err := m.s.Apply(m.index, 1, entries[0], &m.out); err != nil {
			t.Fatal(err)
		}
		for i := range m.out.Results {
			if r := &m.out.Results[i]; r.Code != errcode.None || r.Duplicate {
				t.Fatal(r.Err())
			}
		}
		entries = entries[1:]
	}
	apply()
	if got := testing.AllocsPerRun(runs, apply); got != 0 {
		t.Errorf("%v allocations for an entry of 50 batches of known producers, want 0", got)
	}
}

// BenchmarkHash gives what a state hash costs: freeze is the part that holds up
// Apply.
func BenchmarkHash(b *testing.B) {
	for _, partitions := range []int{1000, 100_000} {
		m := newMachine(b)
		for i := range partitions {
			m.apply(create("a", int32(i), 1), produce(Number(i+1), testBatch{id: int64(i), count: 1}))
		}
		b.Run(fmt.Sprintf("freeze/partitions=%d", partitions), func(b *testing.B) {
			for b.Loop() {
				m.s.Freeze()
			}
		})
		b.Run(fmt.Sprintf("hash/partitions=%d", partitions), func(b *testing.B) {
			for b.Loop() {
				m.s.StateHash()
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, producers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("batches=%d", producers), func(b *testing.B) {
			m := newMachine(b)
			m.apply(create("a", 0, 1))
			next := nextBatches(make([]int32, producers))
			buf := next(nil)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				entry := buf
				buf = next(buf[:0])
				b.StartTimer()
				m.index++
				if err := m.s.Apply(m.index, 1, entry, &m.out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*producers), "ns/batch")
		})
	}
}
