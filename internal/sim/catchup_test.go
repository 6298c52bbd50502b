package sim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

const (
	// smallRing is a journal of which a third of a second of load is kept for those
	// who are away.
	smallRing = 8 * 32 << 10

	// caughtUp is what a node's log says at the end of a catch-up.
	caughtUp = "INFO this replica has caught up shard"
)

// catchUpPlan is what the seed decides of a history with a node that was away for
// too long.
type catchUpPlan struct {
	keys   []history.Key
	events int
	gap    time.Duration
	stop   end
}

func (fl *fleet) drawCatchUp() catchUpPlan {
	rng := rand.New(rand.NewPCG(fl.seed, 9))
	pl := catchUpPlan{events: rng.IntN(5), gap: time.Duration(20+rng.IntN(1500)) * time.Millisecond}
	pl.stop = []end{killed, cutEnd(vfs.Lose), cutEnd(vfs.Keep), cutEnd(vfs.Coin)}[rng.IntN(4)]
	for p := range int32(2 + rng.IntN(3)) {
		pl.keys = append(pl.keys, history.Key{Topic: "stays0", Partition: p})
	}
	return pl
}

// flood writes more than the journals keep for a node that is away.
func (fl *fleet) flood(keys []history.Key, records int) {
	p := fl.hire()
	defer p.leave()
	p.produce(load{keys: keys, records: records, maxBytes: 4000, maxPause: 1, timeout: 2 * time.Minute})
}

// catchUpHistory keeps a node away for longer than the journals reach back, and has
// it come back while clients write. On the way either side loses its power, is
// killed, cut off or hears little. When everything is mended it has to have caught
// up, and to lead.
func catchUpHistory(fl *fleet) {
	fl.ring = smallRing
	pl := fl.drawCatchUp()
	rng := rand.New(rand.NewPCG(fl.seed, 10))
	calm := transport.Faults{MaxDelay: time.Duration(rng.IntN(1000)) * time.Microsecond}
	fl.faults(calm)
	if !fl.startAll() {
		return
	}
	if !fl.createTopics([]string{"stays0"}, int32(len(pl.keys))) {
		return
	}
	away := fl.members[rng.IntN(fleetNodes)]
	fl.flood(pl.keys, 30)
	fl.end(away, pl.stop)
	fl.flood(pl.keys, 200)
	if rng.IntN(2) == 0 && !fl.createTopics([]string{"stays1"}, 2) { // it has never heard of it
		return
	}
	writers := fl.employ(fleetPlan{
		keys: pl.keys, topics: []string{"stays0"}, producers: 2, records: 60, maxBytes: 4000,
		events: 3, gap: time.Second, churn: rng.IntN(3) == 0,
	})
	if !fl.start(away) {
		return
	}
	for range pl.events {
		time.Sleep(time.Duration(rng.Int64N(int64(pl.gap))))
		if !fl.disturbCatchUp(away, calm, rng) || !fl.healthy() {
			return
		}
	}
	if !fl.heal(calm) {
		return
	}
	writers.wait()
	fl.leadsAgain(away, pl.keys)
	fl.readAfterCut()
}

// disturbCatchUp does something to the node that catches up, or to another.
func (fl *fleet) disturbCatchUp(away *member, calm transport.Faults, rng *rand.Rand) bool {
	m := away
	if rng.IntN(3) == 0 {
		m = fl.leader()
	}
	pause := func(most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }
	switch rng.IntN(6) {
	case 0, 1, 2:
		fl.end(m, []end{killed, cutEnd(vfs.Lose), cutEnd(vfs.Coin)}[rng.IntN(3)])
		pause(2 * time.Second)
		return fl.start(m)
	case 3:
		fl.isolate(m, true, true)
		pause(5 * time.Second)
		fl.isolate(m, false, false)
	case 4:
		fl.faults(transport.Faults{MaxDelay: 50 * time.Millisecond, LossPercent: rng.IntN(30), DuplicatePercent: rng.IntN(30), Reorder: true})
		pause(5 * time.Second)
		fl.faults(calm)
	case 5:
		fl.stopNode(m)
		pause(time.Second)
		return fl.start(m)
	}
	return true
}

// leadsAgain has the others fall out, one after the other: the node that was away
// is a part of each majority then, and has to be able to lead.
func (fl *fleet) leadsAgain(away *member, keys []history.Key) {
	for _, m := range fl.members {
		if m == away || m.node == nil {
			continue
		}
		fl.progress(keys) // a majority has everything, and so has whoever is behind, soon
		if !fl.settled(away) {
			return
		}
		fl.end(m, killed)
		fl.progress(keys)
		if !fl.start(m) {
			return
		}
	}
}

// settled waits until a node has applied what the others have.
func (fl *fleet) settled(away *member) bool {
	for range 600 {
		behind := false
		for _, m := range fl.members {
			if m == away || m.node == nil || away.node == nil {
				continue
			}
			for i, s := range m.node.Stats().Shards {
				behind = behind || away.node.Stats().Shards[i].Applied < s.Applied
			}
		}
		if !behind {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	fl.problem("node %d has not caught up a minute after everything was mended", away.id)
	return false
}

// TestCatchUp also counts what came about: a history in which the node was not
// behind shows little.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	all := seeds(t, 100, 2)
	var mu sync.Mutex
	behind := 0
	t.Cleanup(func() {
		t.Logf("%d seeds: in %d the node was behind its leader's log", len(all), behind)
		if len(all) >= 4 && behind < len(all)/2 {
			t.Error("too few to show anything")
		}
	})
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, _ := runFleet(t, seed, catchUpHistory)
			report(t, seed, fleetVerdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			if tr.saw(caughtUp) {
				behind++
			}
		})
	}
}
