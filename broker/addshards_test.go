package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
)

// TestShardsForWhoComesBack: a node that was fenced when a factor's shards were made
// has none of them, and gets its share with the next topic of the factor, or with more
// partitions of one; then there are enough.
func TestShardsForWhoComesBack(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		var away *rig
		for _, r := range tr.rigs {
			if r != tr.controller() {
				away = r
			}
		}
		tr.cutOff(away, true)
		tr.rest(15 * time.Second) // its session is over
		first := tr.createWith("first", 2, 2)
		if n := len(tr.controller().image().Loads(2)); n != 2 {
			t.Errorf("%d shards of two replicas with a node away, want 2", n)
		}
		tr.cutOff(away, false)
		tr.rest(15 * time.Second)
		validated, err := tr.controller().AddPartitions(t.Context(), first.ID, 3, nil, true)
		if err != nil || validated.Partitions != 3 || len(tr.controller().image().Loads(2)) != 2 {
			t.Errorf("validate only: %+v, %v", validated, err)
		}
		grown, err := tr.controller().AddPartitions(t.Context(), first.ID, 3, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range tr.controller().Leaders(&grown, 2, 3) {
			if !slices.Contains(l.Replicas, away.NodeID()) {
				t.Errorf("a new partition is on nodes %v, want node %d among them, which has come back and carries nothing", l.Replicas, away.NodeID())
			}
		}
		second := tr.createWith("second", 3, 2)
		led := 0
		for i := range int32(3) {
			leader := tr.leader(second, i)
			if leader == away {
				led++
			}
			if res := leader.produce(second, i, records(t, batch.NoProducer, "a")); res.Err != nil {
				t.Errorf("partition %d: %v", i, res.Err)
			}
		}
		if led != 1 {
			t.Errorf("the node that has come back leads %d of 3 partitions, want 1", led)
		}
		if n := len(tr.controller().image().Loads(2)); n != 3 {
			t.Errorf("%d shards of two replicas, want 3", n)
		}
	})
}
