package sim

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// silentWait is how long a producer may wait for a record after its leader has
// fallen silent: until the others take it for lost, their election, and until the
// client, which looks elsewhere every half second, asks next.
const silentWait = 2 * time.Second

// TestSilentLeader has the leader stand still, or cuts it off from everybody: its
// connections stay. The producer must have its next record acknowledged by
// another node long before its request's time is over.
func TestSilentLeader(t *testing.T) {
	t.Parallel()
	for name, standsStill := range map[string]bool{"stands still": true, "is cut off": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 5; seed++ {
				problems, tr, acks := runFleet(t, seed, func(fl *fleet) { silentHistory(fl, standsStill) })
				if acks < 30 {
					t.Errorf("seed %d: %d records are acknowledged, want 30", seed, acks)
				}
				report(t, seed, fleetVerdict(problems, tr.history), tr)
			}
		})
	}
}

func silentHistory(fl *fleet, standsStill bool) {
	key, a, _, _, ok := fl.stage("silent0")
	if !ok {
		return
	}
	p := fl.hire()
	defer p.leave()
	pr := p.producer(load{timeout: time.Minute})
	for range 5 {
		p.sendSync(pr, key, 100)
	}
	if standsStill {
		until := time.Now().Add(30 * time.Second)
		a.disk.SetInjector(func(vfs.Op) vfs.Fault { return vfs.Fault{Delay: max(0, time.Until(until))} })
	}
	fl.isolate(a, true, true)
	fl.net.Cut(a.host(), "")
	fl.net.Cut("", a.host())
	began := time.Now()
	for range 10 {
		p.send(pr, key, 100) // more than may be in flight
	}
	p.sendSync(pr, key, 100)
	if took := time.Since(began); took > silentWait {
		fl.problem("node %d is silent, and the next record was acknowledged after %v, want %v at most", a.id, took, silentWait)
	} else {
		fl.trace.add("acknowledged after " + took.String())
	}
	a.disk.SetInjector(asOS(a.inject))
	fl.net.Heal()
	fl.isolate(a, false, false)
	time.Sleep(10 * time.Second)
	for range 10 {
		p.sendSync(pr, key, 100)
	}
	if err := pr.Close(fl.stopping); err != nil {
		fl.problem("close: %v", err)
	}
	fl.readAll()
}
