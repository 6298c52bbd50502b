package node

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
)

// olderDir is the data directory of a version that knew feature level 1, and that
// did not yet say which ones it knows.
const olderDir = "testdata/golden/directory-level1"

// startVersion starts a node on the older directory of a version that knows
// feature levels up to newest; 0: this one.
func startVersion(t *testing.T, fsys vfs.FS, newest uint16) (*Node, error) {
	t.Helper()
	return Start(t.Context(), Options{
		FS: fsys, Dir: "data", NodeID: 1, Version: "test", Listener: newQuietListener(), Shards: 2,
		JournalBytes: 4 * 32 << 10, JournalFileBytes: 32 << 10, HashInterval: 1000 * time.Hour,
		Now: time.Now, Rand: &lockedRand{r: rand.NewChaCha8([32]byte{9})}, Log: slog.New(slog.DiscardHandler),
		featureLevel: newest,
	})
}

// during runs do with a node of a version on the directory.
func during(t *testing.T, fsys vfs.FS, newest uint16, do func(n *Node)) {
	t.Helper()
	n, err := startVersion(t, fsys, newest)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	do(n)
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
}

// features describes what a node knows of levels, and which its directory says.
func features(t *testing.T, n *Node) string {
	t.Helper()
	f, err := n.broker.Features()
	id, err2 := ReadIdentity(n.opt.FS, n.opt.Dir)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("level %d, nodes %v, shards %v, directory %d", f.Level, f.Nodes, f.Shards, id.FeatureLevel)
}

// makeOlder makes a directory as the committed one is, with a topic whose records
// lie below and above the newest checkpoint.
func makeOlder(t *testing.T) *vfs.Mem {
	t.Helper()
	fsys := vfs.NewMem(1)
	var clone *vfs.Mem
	during(t, fsys, 1, func(n *Node) {
		topic, err := n.broker.CreateTopic(t.Context(), broker.TopicSpec{Name: "orders", Partitions: 2})
		if err != nil {
			t.Fatal(err)
		}
		takeProducerIDs(t, n) // those below 1000
		for i := range int32(2) {
			produceOne(t, n, topic, i, batch.Producer{ID: 100}, fmt.Sprintf("order %d", i))
		}
		n.broker.Checkpoint()
		for i := range int32(2) {
			produceOne(t, n, topic, i, batch.Producer{ID: 100, Sequence: 1}, "above the checkpoint")
		}
		synctest.Wait()
		clone = fsys.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
	})
	return clone
}

// TestUpgrade takes a directory of an older version through an upgrade: it stays
// at its level, and the version before can be started on it again, until the
// level is raised, which that version then refuses.
func TestUpgrade(t *testing.T) {
	for name, files := range map[string]func(t *testing.T) map[string][]byte{
		"golden": func(t *testing.T) map[string][]byte { return readGolden(t, olderDir) },
		"made":   func(t *testing.T) map[string][]byte { return filesOf(t, makeOlder(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { upgrade(t, loadGolden(t, files(t))) })
		})
	}
}

func upgrade(t *testing.T, fsys *vfs.Mem) {
	const newest = metadata.MaxFeatureLevel
	records := []string{"order 0", "order 1", "above the checkpoint"}
	holds := func(n *Node) {
		t.Helper()
		text := fmt.Sprint(describe(t, n).Topics)
		for _, r := range records {
			if !strings.Contains(text, r) {
				t.Errorf("%s does not hold %q", text, r)
			}
		}
	}
	refused := func(n *Node, level uint16, want string) {
		t.Helper()
		before := features(t, n)
		for _, dry := range []bool{true, false} {
			_, _, err := n.broker.UpgradeFeatures(t.Context(), level, dry)
			if errcode.Of(err) != errcode.InvalidUpdateVersion || !strings.Contains(err.Error(), want) {
				t.Errorf("level %d, dry run %t: %v, want INVALID_UPDATE_VERSION and %q", level, dry, err, want)
			}
		}
		synctest.Wait()
		if got := features(t, n); got != before {
			t.Errorf("after a refusal: %s, before: %s", got, before)
		}
	}
	accepted := func(n *Node, level uint16, dry bool, before, after uint16) {
		t.Helper()
		if from, to, err := n.broker.UpgradeFeatures(t.Context(), level, dry); err != nil || from != before || to != after {
			t.Errorf("level %d, dry run %t: %d to %d, %v; want %d to %d", level, dry, from, to, err, before, after)
		}
		synctest.Wait()
	}
	is := func(n *Node, want string) {
		t.Helper()
		if got := features(t, n); got != want {
			t.Errorf("features: %s\nwant:     %s", got, want)
		}
	}

	during(t, fsys, 0, func(n *Node) {
		is(n, fmt.Sprintf("level 1, nodes [{1 %d}], shards [{1 1} {2 1}], directory 1", newest))
		refused(n, newest+1, fmt.Sprintf("not known to node 1, which knows up to %d; start the version that has it", newest))
		accepted(n, 0, true, 1, newest)
		is(n, fmt.Sprintf("level 1, nodes [{1 %d}], shards [{1 1} {2 1}], directory 1", newest))
		holds(n)
	})
	// Back to the older version, which may still be started.
	during(t, fsys, 1, func(n *Node) {
		is(n, "level 1, nodes [{1 1}], shards [{1 1} {2 1}], directory 1")
		refused(n, 2, "not known to node 1, which knows up to 1")
		accepted(n, 0, false, 1, 1)
		holds(n)
	})
	raised := fmt.Sprintf("level %d, nodes [{1 %d}], shards [{1 %d} {2 %d}], directory %d",
		newest, newest, partition.MaxApplyVersion, partition.MaxApplyVersion, newest)
	during(t, fsys, 0, func(n *Node) {
		accepted(n, newest, false, 1, newest)
		is(n, raised)
		accepted(n, newest, false, newest, newest)
		refused(n, 1, fmt.Sprintf("the feature level is %d already, and is never lowered to 1", newest))
		holds(n)
		takeProducerIDs(t, n) // the committed directory is of when nobody asked for its id
		for topic := range n.broker.Topics("") {
			produceOne(t, n, topic, 0, batch.Producer{ID: 100, Sequence: 2}, "of the new version")
		}
	})
	records = append(records, "of the new version")

	before := filesOf(t, fsys)
	n, err := startVersion(t, fsys, 1)
	if want := fmt.Sprintf("feature level %d, this version knows up to 1; start the newer version", newest); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), want) {
		t.Errorf("the older version starts: %v; want ErrNewer and %q", err, want)
	}
	if err == nil {
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
	}
	if d := cmp.Diff(before, filesOf(t, fsys)); d != "" {
		t.Errorf("the older version changed the directory (-before +after):\n%s", d)
	}
	during(t, fsys, 0, func(n *Node) {
		is(n, raised)
		holds(n)
	})
}
