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
	// rejoins is how long a node may take that comes back without its directory, with
	// everything mended.
	rejoins = 2 * time.Minute

	// replacedOne is what a log says of the last step of a replacement.
	replacedOne = "a replica was replaced: the one of the fresh directory votes"
)

// replaceHistory takes a node's directory away while clients write. The node comes
// back with an empty one, while it or another loses its power, is killed or cut off.
// When everything is mended it has to have its place in every shard again: each of
// the others may fail then, and nothing is lost.
func replaceHistory(fl *fleet) {
	rng := rand.New(rand.NewPCG(fl.seed, 11))
	if rng.IntN(2) == 0 {
		fl.ring = smallRing // it has to catch up from records
	}
	calm := transport.Faults{MaxDelay: time.Duration(rng.IntN(1000)) * time.Microsecond}
	fl.faults(calm)
	if !fl.startAll() || !fl.createTopics([]string{"stays0"}, 2) {
		return
	}
	keys := []history.Key{{Topic: "stays0"}, {Topic: "stays0", Partition: 1}}
	fl.flood(keys, 100)
	writers := fl.employ(fleetPlan{
		keys: keys, topics: []string{"stays0"}, producers: 2, records: 60, maxBytes: 2000,
		events: 3, gap: 2 * time.Second, churn: rng.IntN(3) == 0,
	})
	away := fl.members[rng.IntN(fleetNodes)]
	fl.wipe(away)
	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
	if !fl.start(away) {
		return
	}
	for range rng.IntN(5) {
		time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
		if !fl.disturbCatchUp(away, calm, rng) || !fl.healthy() {
			return
		}
	}
	if !fl.heal(calm) || !fl.adopt(away, rejoins) {
		return
	}
	writers.wait()
	if !fl.whole() {
		return
	}
	fl.leadsAgain(away, keys)
	fl.readAfterCut()
}

// whole waits until every node's replica of every shard votes, and nobody else does.
func (fl *fleet) whole() bool {
	for range 1200 {
		whole := true
		for _, m := range fl.members {
			for _, s := range m.node.Stats().Shards {
				whole = whole && s.Votes && s.Voters == fleetNodes && s.Learners == 0
			}
		}
		if whole {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, m := range fl.members {
		for _, s := range m.node.Stats().Shards {
			fl.problem("node %d, shard %d, two minutes after everything was mended: votes %t, %d voters, %d learners", m.id, s.ID, s.Votes, s.Voters, s.Learners)
		}
	}
	return false
}

// TestReplaceNode also counts what came about.
func TestReplaceNode(t *testing.T) {
	t.Parallel()
	all := seeds(t, 60, 3)
	var mu sync.Mutex
	behind := 0
	t.Cleanup(func() {
		t.Logf("%d seeds: in %d a node had to catch up from records", len(all), behind)
	})
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, _ := runFleet(t, seed, replaceHistory)
			if len(problems) == 0 && !tr.saw(replacedOne) {
				problems = append(problems, "no replica was replaced")
			}
			report(t, seed, fleetVerdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			if tr.saw(caughtUp) {
				behind++
			}
		})
	}
}

// lostMajorityHistory takes the directories of two of three nodes away at once. The
// third knows the most, and is no majority: nobody is replaced, nothing is served,
// and both say what they wait for.
func lostMajorityHistory(fl *fleet) {
	_, a, b, c, ok := fl.stage("stays0")
	if !ok {
		return
	}
	for _, m := range []*member{b, c} {
		fl.wipe(m)
	}
	for _, m := range []*member{b, c} {
		if !fl.start(m) {
			return
		}
	}
	time.Sleep(2 * time.Minute)
	if leads := a.node.Leads(); len(leads) > 0 {
		fl.problem("node %d leads %v without a majority", a.id, leads)
	}
	for _, m := range []*member{b, c} {
		select {
		case <-m.joined:
			fl.problem("node %d has the place of a lost directory, by the word of a minority", m.id)
		default:
		}
		if !fl.trace.saw(fmt.Sprintf("node %d lost its directory, and its fresh one,", m.id)) {
			fl.problem("node %d does not say what it waits for", m.id)
		}
	}
	if !fl.trace.saw("no node leads the metadata, for which a majority of the nodes that have their directories has to be up") {
		fl.problem("nobody says that a majority is missing")
	}
	fl.stop()
}

// oldDirectoryHistory starts a directory whose place another one has taken: it is
// refused, for ever, and the cluster goes on.
func oldDirectoryHistory(fl *fleet) {
	key, _, b, _, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.end(b, killed)
	old := b.disk
	b.disk, b.wiped = vfs.NewMem(fl.rng.Uint64()), true
	if !fl.start(b) || !fl.adopt(b, rejoins) || !fl.whole() {
		return
	}
	for range 2 {
		fl.end(b, killed)
		kept := b.disk
		b.disk = old
		if !fl.start(b) {
			return
		}
		time.Sleep(30 * time.Second)
		select {
		case err := <-b.node.Failed():
			fl.trace.add(fmt.Sprintf("NODE %d REFUSED: %v", b.id, err))
		default:
			fl.problem("a directory whose place another one has taken goes on for 30 s")
		}
		fl.end(b, killed)
		old = b.disk
		b.disk = kept
		if !fl.start(b) {
			return
		}
	}
	if !fl.whole() {
		return
	}
	fl.progress([]history.Key{key})
	fl.stop()
	time.Sleep(settle)
	if fl.healthy() {
		fl.readAll()
	}
}

// TestReplaceDirected runs the histories about lost directories that are made for one
// situation.
func TestReplaceDirected(t *testing.T) {
	t.Parallel()
	t.Run("two of three at once", func(t *testing.T) { // nothing can be read afterwards
		t.Parallel()
		problems, tr, _ := runFleet(t, 1, lostMajorityHistory)
		report(t, 1, problems, tr)
	})
	t.Run("the old directory", func(t *testing.T) {
		t.Parallel()
		problems, tr, _ := runFleet(t, 1, oldDirectoryHistory)
		report(t, 1, fleetVerdict(problems, tr.history), tr)
	})
}
