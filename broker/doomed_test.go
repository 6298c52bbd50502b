package broker

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestDoomed: the metadata has deleted a topic, and the entry that deletes its
// partition does not come. A node whose disk is nearly full lets go of the files at
// once; nobody who catches up is given what may be gone; and other topics keep theirs.
func TestDoomed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		kept, doomed := r.create("kept", 1, nil), r.create("doomed", 1, nil)
		for _, topic := range []Topic{kept, doomed} {
			r.mustProduce(topic, buildOne(5000))
		}
		r.Checkpoint() // flushes
		pull := func(topic Topic) pullWhat {
			t.Helper()
			a, err := r.batchesFor(&pullRequest{shard: r.dir.find(topic.ID, 0).shard.id, topic: topic.ID, maxBytes: 1, end: 1})
			if err != nil {
				t.Error(err)
			}
			return a.what
		}
		if r.freeDoomed() != 0 {
			t.Error("files are removed where nothing is deleted")
		}
		r.fs.SetInjector(func(op vfs.Op) (ft vfs.Fault) {
			if op.Kind == vfs.OpSyncData && strings.HasPrefix(op.Path, "journal") {
				ft.Delay = 10 * time.Minute
			}
			return ft
		})
		deleted := make(chan error, 1)
		go func() { deleted <- r.DeleteTopic(t.Context(), doomed.ID) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if r.dir.find(doomed.ID, 0) == nil {
			t.Fatal("the partition is deleted already")
		}
		if what := pull(doomed); what != pullDeleted {
			t.Errorf("who catches up is answered %d, want %d", what, pullDeleted)
		}
		if r.freeDoomed() == 0 {
			t.Error("nothing is removed of a deleted topic")
		}
		if r.freeDoomed() != 0 {
			t.Error("it is removed twice")
		}
		if what := pull(kept); what != pullBatches {
			t.Errorf("of the other topic who catches up is answered %d", what)
		}
		r.fs.SetInjector(nil)
		if err := <-deleted; err != nil {
			t.Error(err)
		}
	})
}
