package broker

import (
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestElectPreferred: whichever node is asked, the shard goes to the node that is to
// lead it; a second time there is nothing to do; and a node that would not lead, or
// is away, is told with the reason, while the leader stays.
func TestElectPreferred(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		one, two := tr.wanted()
		const shard = 1
		away := func() {
			t.Helper()
			if one.carried()[shard].replica.Leading() == 0 {
				return
			}
			if leader, _, err := one.TransferShard(t.Context(), shard, two.NodeID()); err != nil || leader != two.NodeID() {
				t.Fatalf("handed over to %d: %v", leader, err)
			}
			tr.rest(balanceTimeout) // everybody hears of it
		}
		for _, asked := range tr.rigs {
			away()
			if err := asked.ElectPreferred(t.Context(), shard); err != nil {
				t.Errorf("node %d was asked: %v", asked.NodeID(), err)
			}
			tr.rest(balanceTimeout) // its election is known before its TermStart is on disk
			if one.carried()[shard].replica.Leading() == 0 {
				t.Errorf("node %d was asked, and node %d does not lead", asked.NodeID(), one.NodeID())
			}
			if err := asked.ElectPreferred(t.Context(), shard); errcode.Of(err) != errcode.ElectionNotNeeded {
				t.Errorf("node %d was asked again: %v", asked.NodeID(), err)
			}
		}

		away()
		one.watchdog.unfit.Store(true)
		one.watchdog.calm.Store(-1000)
		for _, asked := range tr.rigs {
			if err := asked.ElectPreferred(t.Context(), shard); errcode.Of(err) != errcode.PreferredLeaderNotAvailable || !strings.Contains(err.Error(), errUnfit.Error()) {
				t.Errorf("node %d was asked for one that is unfit: %v", asked.NodeID(), err)
			}
		}
		tr.lose(one)
		for _, asked := range tr.rigs {
			if asked == one {
				continue
			}
			if err := asked.ElectPreferred(t.Context(), shard); errcode.Of(err) != errcode.PreferredLeaderNotAvailable || !strings.Contains(err.Error(), "not connected") {
				t.Errorf("node %d was asked for one that is away: %v", asked.NodeID(), err)
			}
		}
		if two.carried()[shard].replica.Leading() == 0 {
			t.Errorf("node %d does not lead any more", two.NodeID())
		}
		if err := two.ElectPreferred(t.Context(), 99); errcode.Of(err) != errcode.PreferredLeaderNotAvailable {
			t.Errorf("a shard that is not there: %v", err)
		}
		if _, err := two.Answer(t.Context(), one.NodeID(), methodElect, make([]byte, 7)); err == nil {
			t.Error("half a mandate was taken")
		}
	})
}
