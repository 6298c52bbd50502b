package journal

import (
	"errors"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// agree inspects a journal and opens it: both say the same of it, Inspect
// changes nothing, and it has a name for what is wrong.
func agree(t *testing.T, what string, mem *vfs.Mem) *Inspection {
	t.Helper()
	before := diskOf(t, mem)
	in, err := Inspect(mem, testDir, InspectOptions{}, nil)
	if err != nil {
		t.Fatalf("%s: Inspect = %v", what, err)
	}
	in.Close()
	if !sameDisk(before, diskOf(t, mem)) {
		t.Fatalf("%s: Inspect changed the journal", what)
	}
	j, err := Open(mem, testDir, small())
	if (err == nil) != (in.OpenErr == nil) || err != nil && err.Error() != in.OpenErr.Error() {
		t.Fatalf("%s: Open = %v, Inspect says %v", what, err, in.OpenErr)
	}
	if err != nil {
		if len(in.Damage) == 0 && in.RingErr == nil && !errors.Is(err, ErrVersion) {
			t.Fatalf("%s: Open = %v, and Inspect names nothing", what, err)
		}
		return in
	}
	defer mustClose(t, j)
	for _, info := range j.Shards() {
		log := in.Log(info.ID, info.Incarnation)
		if n := len(log.Runs); n == 0 || log.Runs[n-1].First != info.First || log.Runs[n-1].Last != info.Last {
			t.Fatalf("%s: shard %d holds [%d, %d], Inspect found %+v", what, info.ID, info.First, info.Last, log.Runs)
		}
	}
	return in
}

// TestInspect damages a ring that has wrapped, in many ways, and compares what
// Inspect says with what Open does. What is intact behind the damage is found.
func TestInspect(t *testing.T) {
	t.Parallel()
	var last *vfs.Mem
	history(t, 3, 80, small(), func(mem *vfs.Mem, _ *model, _ string) { last = mem })
	d := diskOf(t, last.KillClone())
	whole := agree(t, "sound", d.mem(t))
	if whole.OpenErr != nil || whole.Records == 0 {
		t.Fatalf("a sound journal: %+v", whole)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	runs := 1200
	if testing.Short() {
		runs = 200
	}
	refused := 0
	for range runs {
		file := fileName(uint32(rng.IntN(len(d) - 1)))
		off, n := rng.IntN(len(d[file])), 1
		change := func(b []byte) { b[0] ^= 1 << rng.IntN(8) }
		if rng.IntN(3) == 0 {
			n = 1 + rng.IntN(700)
			change = func(b []byte) { clear(b[:min(n, len(b))]) }
		}
		mem := d.mem(t)
		if err := mem.Corrupt(path.Join(testDir, file), int64(off), change); err != nil {
			t.Fatal(err)
		}
		in := agree(t, file, mem)
		if in.OpenErr != nil {
			refused++
		}
		if off >= headerBytes && n == 1 && in.Records < whole.Records-1 {
			t.Fatalf("a flip at %d of %s: %d records are found, of %d", off, file, in.Records, whole.Records)
		}
	}
	if refused < runs/10 {
		t.Errorf("only %d of %d damages were refused: the test shows nothing", refused, runs)
	}
	for name := range d {
		mem := d.mem(t)
		if err := mem.Lose(path.Join(testDir, name)); err != nil {
			t.Fatal(err)
		}
		if in := agree(t, "without "+name, mem); in.OpenErr == nil {
			t.Errorf("without %s: nothing is wrong", name)
		}
	}
}
