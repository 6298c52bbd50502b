package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// foldLines is a fold whose state is its bytes: a base that equals a base and
// its deltas is what they are, one after the other.
func foldLines(dst io.Writer, srcs ...io.Reader) error {
	_, err := io.Copy(dst, io.MultiReader(srcs...))
	return err
}

var testConfig = raft.Configuration{Servers: []raft.Server{{ID: "1-00000000000000aa", Address: "1-00000000000000aa"}}}

var testID = ReplicaID{Node: 1, Incarnation: 0xaa}

func openTest(fsys vfs.FS, dir string) (*Checkpoints, error) {
	return OpenCheckpoints(fsys, dir, 3, testID, foldLines)
}

func writeCheckpoint(c *Checkpoints, index uint64, body string) error {
	sink, err := c.Create(1, index, 2, testConfig, 1, nil)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(sink, body); err != nil {
		return err
	}
	return sink.Close()
}

func readNewest(t *testing.T, c *Checkpoints) (index uint64, body string) {
	t.Helper()
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		return 0, ""
	}
	if len(list) > 1 {
		t.Fatalf("List shows %d checkpoints, want the newest alone", len(list))
	}
	meta, r, err := c.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testConfig, meta.Configuration); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	return meta.Index, string(b)
}

// TestCheckpointsAfterCrash cuts the power before and after each operation of a
// run that writes deltas and folds them. Whatever the cut, the newest
// checkpoint that was durable is there, or the one that was being written.
func TestCheckpointsAfterCrash(t *testing.T) {
	t.Parallel()
	const rounds = maxDeltas + 5
	want := func(n uint64) (s string) {
		for i := range n {
			s += fmt.Sprintf("%d;", i+1)
		}
		return s
	}
	for _, unsynced := range []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin} {
		fsys := vfs.NewMem(1)
		durable := uint64(0)
		cuts := 0
		fsys.OnOp(func(op vfs.Op, phase vfs.Phase) {
			cuts++
			clone := fsys.CrashClone(vfs.CrashOptions{Seed: uint64(cuts), Unsynced: unsynced})
			c, err := openTest(clone, "d/c")
			if err != nil {
				t.Fatalf("%v: cut at %v %v: %v", unsynced, op, phase, err)
			}
			index, body := readNewest(t, c)
			if index != durable && index != durable+1 {
				t.Fatalf("%v: cut at %v %v: checkpoint at %d, want %d or the next", unsynced, op, phase, index, durable)
			}
			if body != want(index) {
				t.Fatalf("%v: cut at %v %v: index %d holds %q", unsynced, op, phase, index, body)
			}
			if err := writeCheckpoint(c, index+1, "x"); err != nil {
				t.Fatalf("%v: cut at %v %v: going on: %v", unsynced, op, phase, err)
			}
		})
		c, err := openTest(fsys, "d/c")
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(rounds) {
			if err := writeCheckpoint(c, i+1, fmt.Sprintf("%d;", i+1)); err != nil {
				t.Fatal(err)
			}
			durable = i + 1
		}
		fsys.OnOp(nil)
		names, err := fsys.ReadDir("d/c")
		if err != nil {
			t.Fatal(err)
		}
		if len(names) > maxDeltas+1 {
			t.Errorf("%d files left of %d checkpoints: they were not folded", len(names), rounds)
		}
		if cuts < 100 {
			t.Errorf("only %d cuts", cuts)
		}
	}
}

// TestCheckpointDamage flips each bit of each file of a chain: never a wrong
// state, always an error that names the file.
func TestCheckpointDamage(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	c, err := openTest(fsys, "c")
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range []string{"a long base, so that it is not folded;", "b;", "c;"} {
		if err := writeCheckpoint(c, uint64(10*i+10), body); err != nil {
			t.Fatal(err)
		}
	}
	names, err := fsys.ReadDir("c")
	if err != nil || len(names) != 3 {
		t.Fatalf("files %v, %v; want 3", names, err)
	}
	for _, name := range names {
		full := path.Join("c", name)
		intact, err := vfs.ReadFile(fsys, full)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(intact) {
			hurt := bytes.Clone(intact)
			hurt[bit/8] ^= 1 << (bit % 8)
			if err := vfs.WriteFile(fsys, full, hurt); err != nil {
				t.Fatal(err)
			}
			_, err := openTest(fsys, "c")
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("bit %d of %s flipped: Open = %v", bit, name, err)
			}
		}
		if err := vfs.WriteFile(fsys, full, intact); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []struct {
		shard ShardID
		id    ReplicaID
	}{{4, testID}, {3, ReplicaID{Node: 1, Incarnation: 0xab}}} {
		if _, err := OpenCheckpoints(fsys, "c", other.shard, other.id, foldLines); !errors.Is(err, ErrCorrupt) {
			t.Errorf("opened as shard %d of %v: %v, want ErrCorrupt", other.shard, other.id, err)
		}
	}
	if err := fsys.Rename(path.Join("c", names[2]), path.Join("c", "00000000000000000031-delta.checkpoint")); err != nil {
		t.Fatal(err)
	}
	if _, err := openTest(fsys, "c"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a file under another name: Open = %v, want ErrCorrupt", err)
	}
	if err := fsys.Rename(path.Join("c", "00000000000000000031-delta.checkpoint"), path.Join("c", names[2])); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Remove(path.Join("c", names[1])); err != nil {
		t.Fatal(err)
	}
	if _, err := openTest(fsys, "c"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a delta in the middle is missing: Open = %v, want ErrCorrupt", err)
	}
}

func TestCheckpointOlder(t *testing.T) {
	t.Parallel()
	c, err := openTest(vfs.NewMem(1), "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := writeCheckpoint(c, 10, "a"); err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{9, 10} {
		if err := writeCheckpoint(c, index, "b"); err == nil {
			t.Errorf("a checkpoint at %d replaced the one at 10", index)
		}
	}
}

// A capture of the whole state is a base, and the checkpoints before it go: what they
// say is not what it goes on from.
func TestCheckpointWhole(t *testing.T) {
	t.Parallel()
	fsys := vfs.NewMem(1)
	c, err := openTest(fsys, "c")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"longer than a delta", "longer than a delta+b", "all", "all+d"}
	for i, body := range []string{want[0], "+b", want[2], "+d"} {
		c.whole = i == 2
		if err := writeCheckpoint(c, uint64(10*i+10), body); err != nil {
			t.Fatal(err)
		}
		if _, got := readNewest(t, c); got != want[i] {
			t.Errorf("the checkpoints say %q, want %q", got, want[i])
		}
	}
	again, err := openTest(fsys, "c")
	if err != nil {
		t.Fatal(err)
	}
	if index, got := readNewest(t, again); index != 40 || got != want[3] || len(again.chain) != 2 {
		t.Errorf("after a restart: %q at %d in %d files", got, index, len(again.chain))
	}
}

func FuzzDecodeCheckpoint(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeCheckpoint(&checkpointFile{index: 7, term: 2, config: testConfig}, []byte("body")))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, body, err := decodeCheckpoint(in)
		if err != nil {
			return
		}
		again, bodyAgain, err := decodeCheckpoint(encodeCheckpoint(&file, body))
		if err != nil || again.index != file.index || !bytes.Equal(body, bodyAgain) {
			t.Fatalf("re-encoded: %+v %q %v, want %+v %q", again, bodyAgain, err, file, body)
		}
	})
}
