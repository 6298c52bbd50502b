package guard

import "testing"

// TestTables checks what the walker relies on: structs lie in each other without
// end nowhere, and each element of an array takes a byte at least, so that the
// walk is as long as the bytes.
func TestTables(t *testing.T) {
	t.Parallel()
	deepest := 0
	depth := make([]int, len(structures))
	for i := range structures {
		s := &structures[i]
		least := 0
		check := func(f *field) {
			switch f.kind {
			case fixed:
				if f.size == 0 {
					t.Errorf("%s.%s takes no bytes", s.name, f.name)
				}
			case scalars, texts:
				if f.size == 0 {
					t.Errorf("%s.%s has elements of no bytes", s.name, f.name)
				}
			case structs, nested:
				if int(f.elem) >= i { // each comes after those in it
					t.Fatalf("%s.%s: struct %d lies in %d", s.name, f.name, f.elem, i)
				}
				if structures[f.elem].min == 0 {
					t.Errorf("%s.%s has elements of no bytes", s.name, f.name)
				}
				depth[i] = max(depth[i], 1+depth[f.elem])
			}
		}
		for j := range s.fields {
			check(&s.fields[j])
			least += leastBytes(&s.fields[j])
		}
		for j := range s.tags {
			if s.tags[j].valid {
				check(&s.tags[j].field)
			}
		}
		// The old lengths take 2 and 4 bytes, the compact ones one.
		if int(s.min) < least {
			t.Errorf("%s: min %d, its fields take %d at least", s.name, s.min, least)
		}
		if s.memory == 0 {
			t.Errorf("%s takes no memory", s.name)
		}
		deepest = max(deepest, depth[i])
	}
	if deepest > 8 {
		t.Errorf("structs lie %d deep in each other: the walker's stack is as deep", deepest)
	}
}

// leastBytes returns the fewest bytes of a field in a flexible version.
func leastBytes(f *field) int {
	switch {
	case f.kind == fixed:
		return int(f.size)
	case f.kind == nested && !f.nullable:
		return int(structures[f.elem].min)
	}
	return 1
}
