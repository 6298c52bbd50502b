package broker

import (
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/partition"
)

// TestReconcilesWhatChanged: in one term a pass looks at the topics that changed
// since the last one that found nothing missing; a new term looks at all.
func TestReconcilesWhatChanged(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		old := r.create("old", 1, nil)
		synctest.Wait()
		at := r.dir.find(old.ID, 0)
		s := at.shard
		if s.complete != r.image() {
			t.Error("a pass after which nothing is missing is not noted")
		}
		r.dir.remove(at.key) // what happened under another leader
		if got := r.missing(r.image(), s); got != nil {
			t.Errorf("a pass looked at a topic that has not changed, and found %v", got)
		}
		s.completeIn--
		got := r.missing(r.image(), s)
		if len(got) != 1 || got[0].(partition.CreatePartition).TopicID != old.ID {
			t.Errorf("missing in a new term: %v, want the partition of the old topic", got)
		}
		if s.completeIn == s.replica.Leading() {
			t.Error("a pass that found something missing counts as if it had not")
		}
		r.dir.put(at)
	})
}

// TestReconcilesAfterFailure: a pass whose proposals come to nothing is
// repeated, also for topics that have not changed since.
func TestReconcilesAfterFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		first := r.create("first", 2, nil)
		synctest.Wait()
		at := r.dir.find(first.ID, 0)
		_ = r.missing(r.image(), at.shard)
		r.create("second", 2, nil)
		synctest.Wait()
		second, missing := r.TopicByName("second")
		if missing != nil {
			t.Fatal(missing)
		}
		at = r.dir.find(second.ID, 0)
		at.shard.complete = nil
		r.dir.remove(at.key)
		for range 2 { // nothing is proposed by either
			if got := r.missing(r.image(), at.shard); len(got) != 1 {
				t.Errorf("missing %v, want one partition", got)
			}
		}
		r.dir.put(at)
		if got := r.missing(r.image(), at.shard); got != nil {
			t.Errorf("missing %v", got)
		}
	})
}
