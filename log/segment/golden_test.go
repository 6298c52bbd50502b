package segment

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/golden again")

// goldenSegment writes the segment that the golden files hold: two appends, one
// with a batch of several index entries' length, and a footer.
func goldenSegment(tb testing.TB) *fixture {
	tb.Helper()
	fx := newFixture(tb, 1000)
	fx.append(30, 5000, 20)
	fx.append(70)
	if err := fx.seg.Seal(); err != nil {
		tb.Fatal(err)
	}
	fx.sync()
	return fx
}

// TestGolden compares files as written now with those of format 1, and reads
// the old ones. A difference is a new format, and needs a new number.
func TestGolden(t *testing.T) {
	fx := goldenSegment(t)
	mem := vfs.NewMem(1)
	if err := mem.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fx.seg.Name(), fx.seg.indexName()} {
		file := filepath.Join("testdata", "golden", "v1", filepath.Base(name))
		got := read(t, fx.mem, name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the bytes written now differ from format %d", file, Format)
		}
		if err := vfs.WriteFile(mem, name, want); err != nil {
			t.Fatal(err)
		}
	}
	s, err := reopen(mem, 1000, fx.seg.End())
	if err != nil || !s.Sealed() {
		t.Fatalf("Open: %v", err)
	}
	check(t, s, fx.all)
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}
