package replication

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

var update = flag.Bool("update", false, "write testdata/golden/v1 anew: only for a format that was never released")

// What the files of testdata/golden/v1 hold. The configuration is of more than
// one server, with each kind of vote: its encoding is hashicorp/raft's, and a
// new version of it must go on writing and reading these bytes.
var (
	goldenConfig = raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "1-0123456789abcdef", Address: "1-0123456789abcdef"},
		{Suffrage: raft.Voter, ID: "2-00000000000000aa", Address: "2-00000000000000aa"},
		{Suffrage: raft.Nonvoter, ID: "2147483647-ffffffffffffffff", Address: "2147483647-ffffffffffffffff"},
	}}
	goldenNames = []string{"00000000000000001000-base.checkpoint", "00000000000000001042-delta.checkpoint"}
)

const (
	goldenBase  = "all of the state\n"
	goldenDelta = "what changed\n"
)

func writeGolden(t *testing.T, c *Checkpoints) {
	t.Helper()
	for _, g := range []struct {
		index, term, configIndex uint64
		body                     string
	}{{1000, 7, 3, goldenBase}, {1042, 9, 1041, goldenDelta}} {
		sink, err := c.Create(1, g.index, g.term, goldenConfig, g.configIndex, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write([]byte(g.body)); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden compares the checkpoint files as written now with those of format
// 1, and opens the old ones. A difference is a new format, and needs a new
// number.
func TestGolden(t *testing.T) {
	t.Parallel()
	now, old := vfs.NewMem(1), vfs.NewMem(2)
	c, err := openTest(now, "now")
	if err != nil {
		t.Fatal(err)
	}
	writeGolden(t, c)
	if err := vfs.MkdirAllSync(old, "old"); err != nil {
		t.Fatal(err)
	}
	for _, name := range goldenNames {
		got, err := vfs.ReadFile(now, "now/"+name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "golden", "v1", name)
		if *update {
			if err := vfs.MkdirAllSync(vfs.OS, filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
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
		if err := vfs.WriteFile(old, "old/"+name, want); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = openTest(old, "old"); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, c)
}

// checkGolden checks all that the golden files say.
func checkGolden(t *testing.T, c *Checkpoints) {
	t.Helper()
	list, err := c.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v, want one checkpoint", list, err)
	}
	want := &raft.SnapshotMeta{
		Version: 1, ID: "9-1042", Index: 1042, Term: 9, Configuration: goldenConfig, ConfigurationIndex: 1041,
		Size: int64(len(goldenBase + goldenDelta)),
	}
	if diff := cmp.Diff(want, list[0]); diff != "" {
		t.Errorf("newest checkpoint (-want +got):\n%s", diff)
	}
	_, r, err := c.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	if got := body.String(); got != goldenBase+goldenDelta {
		t.Errorf("bodies %q, want %q", got, goldenBase+goldenDelta)
	}
}
