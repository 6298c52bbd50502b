package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
)

// TestFullMajority fills the disks of the followers, or of all nodes, and has a client
// delete a topic. Nobody else frees anything: the deletion has to make the room in which
// the cluster goes on.
func TestFullMajority(t *testing.T) {
	t.Parallel()
	for _, full := range []string{"the followers", "all nodes"} {
		for _, reserve := range []int64{1, 200 << 10} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,reserve=%d,restart=%t", full, reserve, restart), func(t *testing.T) {
					t.Parallel()
					for _, seed := range seeds(t, 12, 2) {
						problems, tr, _ := runFleet(t, seed, func(fl *fleet) {
							fl.reserve = reserve
							fullMajority(fl, full == "all nodes", restart)
						})
						report(t, seed, fleetVerdict(problems, tr.history), tr)
					}
				})
			}
		}
	}
}

func fullMajority(fl *fleet, all, restart bool) {
	key, a, b, c, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.addrs = []string{a.addr(), b.addr(), c.addr()}
	const doomed = "doomed"
	if !fl.createTopics([]string{doomed}, fleetShards) { // in all shards
		return
	}
	p := fl.hire()
	defer p.leave()
	for i := range int32(fleetShards) {
		p.produce(load{keys: []history.Key{{Topic: doomed, Partition: i}}, records: 200, maxBytes: 6000, maxPause: 1, timeout: time.Minute})
	}
	time.Sleep(5 * time.Second) // flushes by age
	victims := []*member{b, c}
	if all {
		victims = append(victims, a)
	}
	for _, m := range victims {
		m.disk.SetCapacity(usedOn(m.disk) + fl.rng.Int64N(16<<10))
	}
	p.produce(load{keys: []history.Key{key}, records: 300, maxBytes: 6000, maxPause: 1, timeout: 5 * time.Second})
	if !fl.trace.saw("the disk is nearly full") {
		fl.problem("no disk was full")
	}
	if restart {
		for _, m := range victims {
			fl.cut(m)
			m.disk.SetCapacity(usedOn(m.disk))
		}
		for _, m := range victims {
			if !fl.start(m) {
				return
			}
		}
	}
	// A client may be told that it takes longer, and asks again.
	fl.await("the topic could not be deleted", func() bool {
		p.deleteTopicIn(fl.stopping, doomed)
		h := fl.rec.History()
		last := h[len(h)-1]
		return last.Type == history.OK || last.Saw == history.Absent
	})
	fl.conclude(key)
}
