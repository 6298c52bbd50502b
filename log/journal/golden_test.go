package journal

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/golden again")

var goldenDir = filepath.Join("testdata", "golden", "v1")

// writeGolden writes a fixed journal: every kind of record, a file switch, and
// a copy of a record.
func writeGolden(t *testing.T) (d disk, want map[ShardID][]Record) {
	synctest.Test(t, func(t *testing.T) {
		mem, m := vfs.NewMem(1), newModel(3)
		// A header that is prepared beside a commit says what was synced before
		// it. A sync that takes time settles which of the two comes first.
		mem.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSyncData {
				return vfs.Fault{Delay: time.Millisecond}
			}
			return vfs.Fault{}
		})
		j := mustOpen(t, mem, small())
		step := func(id ShardID, s logStep) {
			t.Helper()
			if err := m.do(j, id, s); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		step(1, logStep{kind: kindEntry, recs: records(1, 3, 70)})
		step(3, logStep{kind: kindEntry, recs: records(1, 2, 30)})
		step(3, logStep{kind: kindDrop})
		for i := uint64(1); j.Usage().CopiedBytes == 0; i++ {
			step(2, logStep{kind: kindEntry, recs: []Record{newRecord(i, 2, 3000, i)}})
			m.compact(j, 2, i-1)
			synctest.Wait()
		}
		step(1, logStep{kind: kindTruncate, from: 3})
		step(1, logStep{kind: kindEntry, recs: []Record{newRecord(3, 4, inlineBytes, 5)}})
		mustClose(t, j)
		d = diskOf(t, mem)
		want = map[ShardID][]Record{1: m.log(1).recs, 2: m.log(2).recs}
	})
	return d, want
}

// trimmed is what is kept of a file.
func trimmed(name string, b []byte) []byte {
	if name == ringName {
		return b
	}
	return bytes.TrimRight(b, "\x00")
}

// TestGolden freezes the format: version 1 as it was first written opens and
// reads the same, and the same calls write the same bytes. The files are cut
// behind their last byte that is not zero.
func TestGolden(t *testing.T) {
	d, want := writeGolden(t)
	if *update {
		if err := os.MkdirAll(goldenDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range d {
			if err := os.WriteFile(filepath.Join(goldenDir, name), trimmed(name, b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	golden := make(disk)
	names, err := filepath.Glob(filepath.Join(goldenDir, "*"))
	if err != nil || len(names) != len(d) {
		t.Fatalf("golden files %v, %v; written now: %d", names, err, len(d))
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(name) != ringName {
			b = append(b, make([]byte, minFileBytes-len(b))...)
		}
		golden[filepath.Base(name)] = b
		if now := d[filepath.Base(name)]; !bytes.Equal(now, b) {
			i := 0
			for i < len(b) && b[i] == now[i] {
				i++
			}
			t.Errorf("%s differs from what is written now, from offset %d on", name, i)
		}
	}
	mem := golden.mem(t)
	j := mustOpen(t, mem, small())
	if n := len(j.Shards()); n != len(want) {
		t.Errorf("golden journal holds %d logs, want %d", n, len(want))
	}
	for id, recs := range want {
		s := j.Shard(id, 1)
		if len(recs) > 0 {
			s.Compact(recs[0].Index - 1)
		}
		wantLog(t, s, recs)
	}
	mustClose(t, j)
}
