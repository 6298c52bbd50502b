package metadata

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSince compares the walk of what changed with a walk of everything, over
// seeded histories of tables.
func TestSince(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 0))
		tab := table[int, *int]{compare: cmp.Compare[int]}
		history := []table[int, *int]{tab}
		for range 3000 {
			k := r.IntN(2000)
			if r.IntN(4) == 0 {
				tab = tab.remove(k)
			} else {
				tab = tab.put(k, new(int))
			}
			history = append(history, tab)
		}
		for range 50 {
			i := r.IntN(len(history))
			j := i + r.IntN(len(history)-i)
			if r.IntN(2) == 0 {
				j = min(i+r.IntN(5), len(history)-1) // a few steps apart
			}
			old, now := history[i], history[j]
			var want []*int
			for _, c := range now.chunks {
				for _, row := range c {
					if v, ok := old.get(row.key); !ok || v != row.value {
						want = append(want, row.value)
					}
				}
			}
			if got := slices.Collect(since(now, old)); !slices.Equal(got, want) {
				t.Fatalf("seed %d: since(%d, %d) gives %d values, want %d", seed, j, i, len(got), len(want))
			}
		}
	}
}

// TestSinceCost: a change of one row of many is found without looking at the
// others.
func TestSinceCost(t *testing.T) {
	t.Parallel()
	compares := 0
	tab := table[int, *int]{compare: func(a, b int) int { compares++; return cmp.Compare(a, b) }}
	for k := range 100_000 {
		tab = tab.put(k, new(int))
	}
	now := tab.put(54_321, new(int))
	compares = 0
	if got := slices.Collect(since(now, tab)); len(got) != 1 {
		t.Errorf("%d values changed, want 1", len(got))
	}
	if most := chunkRows * 40; compares > most {
		t.Errorf("%d comparisons for one change, want at most %d", compares, most)
	}
	if got := slices.Collect(since(tab, tab)); got != nil {
		t.Errorf("nothing changed, and %d values did", len(got))
	}
	for range since(now, table[int, *int]{compare: cmp.Compare[int]}) {
		break // a walk may end early
	}
}
