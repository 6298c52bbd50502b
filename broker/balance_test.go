package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/replication"
)

// astray returns the data shards that are not led by the node that is to.
func (tr *trio) astray() (ids []replication.ShardID) {
	leads := tr.leads(nil)
	for id := range tr.rigs[0].carried() {
		if leads[id][0] != uint64(tr.rigs[0].wantedLeader(id)) {
			ids = append(ids, id)
		}
	}
	return ids
}

// wanted returns the broker that is to lead data shard 1, and the one that is to
// lead shard 2.
func (tr *trio) wanted() (one, two *rig) {
	one, two = tr.rigs[tr.rigs[0].wantedLeader(1)-1], tr.rigs[tr.rigs[0].wantedLeader(2)-1]
	if one == two {
		tr.t.Fatalf("node %d is to lead both shards", one.NodeID())
	}
	return one, two
}

const testBalanceInterval = 10 * time.Second

func inBalancedTrio(t *testing.T, test func(t *testing.T, tr *trio)) {
	inTunedTrio(t, func(o *Options) { o.BalanceInterval = testBalanceInterval }, func(t *testing.T, tr *trio) {
		tr.rest((balanceLooks + 1) * testBalanceInterval)
		if ids := tr.astray(); len(ids) > 0 {
			t.Fatalf("shards %v are led by %v, and not by who is to", ids, tr.leads(nil))
		}
		test(t, tr)
	})
}

// TestBalance: each node leads its share, also after it was away for a while; who
// leads the metadata stays.
func TestBalance(t *testing.T) {
	inBalancedTrio(t, func(t *testing.T, tr *trio) {
		one, _ := tr.wanted()
		tr.cutOff(one, true)
		tr.rest(20 * time.Second)
		if ids := tr.astray(); len(ids) == 0 {
			t.Fatalf("node %d leads although it is cut off: %v", one.NodeID(), tr.leads(nil))
		}
		controller := tr.controller().NodeID()
		tr.cutOff(one, false)
		tr.rest((balanceLooks - 1) * testBalanceInterval)
		if ids := tr.astray(); len(ids) == 0 {
			t.Errorf("node %d leads again after %d looks at most", one.NodeID(), balanceLooks-1)
		}
		tr.rest(4 * testBalanceInterval)
		if ids := tr.astray(); len(ids) > 0 {
			t.Errorf("shards %v are led by %v, and not by who is to, which was away", ids, tr.leads(nil))
		}
		before := tr.leads(nil)
		tr.rest(time.Minute)
		for shard, now := range tr.leads(nil) {
			if now != before[shard] {
				t.Errorf("shard %d went from %v to %v, and nothing happened", shard, before[shard], now)
			}
		}
		if now := tr.controller().NodeID(); now != controller {
			t.Errorf("the controller went from node %d to %d", controller, now)
		}
	})
}

// TestBalanceUnfit: a leadership goes to no node that says it would not lead, and
// it says so if its disk stood still a moment ago or is nearly full.
func TestBalanceUnfit(t *testing.T) {
	inBalancedTrio(t, func(t *testing.T, tr *trio) {
		one, two := tr.wanted()
		shard := one.carried()[1]
		one.watchdog.calm.Store(-1000) // ticks: for a while
		one.watchdog.unfit.Store(true)
		if _, err := one.Answer(t.Context(), two.NodeID(), methodFit, encodeMandate(mandate{shard: 1})); err == nil || !strings.Contains(err.Error(), errUnfit.Error()) {
			t.Errorf("asked whether it would lead: %v", err)
		}
		if err := shard.replica.TransferTo(t.Context(), two.NodeID(), maxLagEntries); err != nil {
			t.Fatal(err)
		}
		tr.rest(5 * testBalanceInterval)
		if term := shard.replica.Leading(); term != 0 {
			t.Errorf("node %d leads shard 1 in term %d although it said that it would not", one.NodeID(), term)
		}
		tr.rest(10 * testBalanceInterval)
		if shard.replica.Leading() == 0 {
			t.Errorf("node %d is fit again, and does not lead shard 1", one.NodeID())
		}
		tr.rest(diskInterval / 3) // nothing looks at the disk now
		one.disk.mu.Lock()
		one.disk.now.Low, one.disk.now.Cause = true, "a test says so"
		one.disk.mu.Unlock()
		if _, err := one.Answer(t.Context(), two.NodeID(), methodFit, encodeMandate(mandate{shard: 1})); err == nil || !strings.Contains(err.Error(), "a test says so") {
			t.Errorf("asked whether it would lead with a full disk: %v", err)
		}
		for name, payload := range map[string][]byte{"no shard of its own": encodeMandate(mandate{shard: 99}), "half a mandate": make([]byte, 7)} {
			if _, err := one.Answer(t.Context(), two.NodeID(), methodFit, payload); err == nil {
				t.Errorf("would lead %s", name)
			}
		}
	})
}

// TestStopperClaimsNothing: a node that has begun to stop takes no shard of a node
// that is lost then, and says so.
func TestStopperClaimsNothing(t *testing.T) {
	inBalancedTrio(t, func(t *testing.T, tr *trio) {
		one, two := tr.wanted()
		two.HandOver(t.Context())
		tr.rest(100 * time.Millisecond)
		if led := two.Leads(); len(led) > 0 {
			t.Fatalf("it leads %v after it has handed over", led)
		}
		if _, err := two.Answer(t.Context(), one.NodeID(), methodFit, encodeMandate(mandate{shard: 1})); err == nil || !strings.Contains(err.Error(), errLeaving.Error()) {
			t.Errorf("asked whether it would lead: %v", err)
		}
		for _, r := range tr.rigs { // of two shards in a row each of the others is the first to claim one
			for shard, held := range r.held() {
				if err := held.TransferTo(t.Context(), one.NodeID(), maxLagEntries); err != nil && !errors.Is(err, replication.ErrNotLeader) {
					t.Errorf("shard %d: %v", shard, err)
				}
			}
		}
		tr.rest(100 * time.Millisecond)
		before := tr.leads(nil)
		tr.lose(one)
		tr.rest(500 * time.Millisecond)
		if led := two.Leads(); len(led) > 0 {
			t.Errorf("it leads %v in place of the lost one", led)
		}
		if after := tr.leads(one); len(after) != len(before) {
			t.Errorf("led are %v, of %v", after, before)
		}
	})
}

// TestHandOverToTheLiving: a node that stops hands nothing to a voter that is gone,
// however much that has of the log.
func TestHandOverToTheLiving(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		old := tr.controller()
		var others []*rig
		for _, r := range tr.rigs {
			if r != old {
				others = append(others, r)
			}
		}
		gone, heir := others[0], others[1] // of two that have all of the log the first is furthest
		tr.lose(gone)
		began := time.Now()
		old.HandOver(t.Context())
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		tr.rest(100 * time.Millisecond)
		if led := old.Leads(); len(led) > 0 {
			t.Errorf("it leads %v still", led)
		}
		if heir.Broker.meta.Leading() == 0 {
			t.Errorf("node %d does not lead the metadata", heir.NodeID())
		}
	})
}
