package broker

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// slowSyncs has each sync of a disk take a while.
func slowSyncs(d time.Duration) func(vfs.Op) vfs.Fault {
	return func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData || op.Kind == vfs.OpSync {
			return vfs.Fault{Delay: d}
		}
		return vfs.Fault{}
	}
}

// elected has the leader of a topic's partition lost, on disks whose syncs take so
// long, and returns the one that is elected, before it serves.
func (tr *trio) elected(topic Topic, sync time.Duration) *rig {
	tr.t.Helper()
	lost := tr.leader(topic, 0)
	for _, r := range tr.rigs {
		r.fs.SetInjector(slowSyncs(sync))
	}
	tr.lose(lost)
	for began := time.Now(); time.Since(began) < 5*time.Second; tr.rest(time.Millisecond) {
		for _, r := range tr.rigs {
			if p := r.dir.find(topic.ID, 0); r != lost && p != nil && p.shard.replica.Opening() != nil {
				return r
			}
		}
	}
	tr.t.Fatal("nobody was elected")
	return nil
}

// TestProduceAwaitsOpening: a batch that comes to a leader that was elected and does
// not serve yet is appended once it does.
func TestProduceAwaitsOpening(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		leader := tr.elected(topic, 100*time.Millisecond)
		if got := leader.produce(topic, 0, records(t, batch.Producer{ID: -1}, "early")); got.Err != nil {
			t.Errorf("a batch for a leader that opens its term: %v", got.Err)
		}
		if p := leader.dir.find(topic.ID, 0); p.shard.replica.Opening() != nil {
			t.Error("the leader serves, and is said to open its term")
		}
	})
}

// TestProduceAwaitsOpeningInVain: a leader whose term does not open keeps a batch for
// openingPatience at the most, and no longer than the client waits.
func TestProduceAwaitsOpeningInVain(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		leader := tr.elected(topic, 100*time.Millisecond)
		tr.cutOff(leader, true)
		for _, timeout := range []time.Duration{50 * time.Millisecond, time.Minute} {
			began := time.Now()
			part := ProducePart{Topic: topic.ID, Batch: records(t, batch.Producer{ID: -1}, "early")}
			got := leader.produceParts(timeout, part)[0]
			if got.Err == nil || got.Err.Code != errcode.NotLeaderOrFollower {
				t.Errorf("a batch for a leader that nobody hears: %v, want NOT_LEADER_OR_FOLLOWER", got.Err)
			}
			if took, most := time.Since(began), min(timeout, openingPatience); took > most {
				t.Errorf("with a timeout of %v it was refused after %v, want at most %v", timeout, took, most)
			}
		}
	})
}
