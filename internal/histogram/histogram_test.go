package histogram

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	h := New([]int64{10, 20})
	for _, v := range []int64{-1, 0, 10, 11, 20, 21, 1 << 62} {
		h.Observe(v)
	}
	s := h.Snapshot()
	if want := []uint64{3, 2, 2}; !slices.Equal(s.Counts, want) || s.Count() != 7 {
		t.Errorf("counts %v, want %v", s.Counts, want)
	}
	if want := int64(-1 + 10 + 11 + 20 + 21 + 1<<62); s.Sum != want {
		t.Errorf("sum %d, want %d", s.Sum, want)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	h := New(Disk)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 1000 {
				h.ObserveDuration(time.Duration(i) * time.Millisecond)
			}
		})
	}
	group.Wait()
	if n := h.Snapshot().Count(); n != 8000 {
		t.Errorf("%d observations, want 8000", n)
	}
}

func TestBoundsAscend(t *testing.T) {
	t.Parallel()
	for _, bounds := range [][]int64{Disk, Request, Long, Sizes} {
		if !slices.IsSorted(bounds) || len(slices.Compact(slices.Clone(bounds))) != len(bounds) {
			t.Errorf("bounds %v", bounds)
		}
	}
}

// BenchmarkObserve is what a hot path pays: it must not allocate.
func BenchmarkObserve(b *testing.B) {
	h := New(Request)
	b.ReportAllocs()
	for b.Loop() {
		h.Observe(int64(3 * time.Millisecond))
	}
}
