package sim

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestVotersDirected runs the histories that are made for one situation.
func TestVotersDirected(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(fl *fleet){
		"wiped": wipedHistory, "deposed": deposedHistory, "deposed, asked to delete": deposedDeletesHistory,
		"full": fullHistory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 5; seed++ {
				problems, tr, _ := runFleet(t, seed, f)
				report(t, seed, fleetVerdict(problems, tr.history), tr)
			}
		})
	}
}

// stage starts three nodes with one partition, and returns its leader and the
// two others.
func (fl *fleet) stage(topic string) (key history.Key, a, b, c *member, ok bool) {
	key = history.Key{Topic: topic}
	if !fl.startAll() {
		return key, nil, nil, nil, false
	}
	if !fl.createTopics([]string{key.Topic}, 1) {
		return key, nil, nil, nil, false
	}
	p := fl.hire()
	defer p.leave()
	p.produce(load{keys: []history.Key{key}, records: 5, maxBytes: 10, maxPause: 1, timeout: time.Minute})
	at := -1
	told := fl.await("nobody is said to lead", func() bool { // who was asked may not have heard of it yet
		d, err := p.c.Admin().DescribeTopic(context.Background(), key.Topic)
		if err == nil && len(d.Partitions) == 1 {
			at = int(d.Partitions[0].Leader) - 1
		}
		return at >= 0
	})
	if !told {
		return key, nil, nil, nil, false
	}
	return key, fl.members[at], fl.members[(at+1)%fleetNodes], fl.members[(at+2)%fleetNodes], true
}

// wipedHistory wipes the one node that has, beside the leader, what was
// acknowledged while the third was cut off, and starts it with that one alone:
// the two are a majority by number, and must not be one.
func wipedHistory(fl *fleet) {
	key, a, b, c, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.isolate(b, true, true)
	p := fl.hire()
	p.produce(load{keys: []history.Key{key}, records: 20, maxBytes: 10, maxPause: 1, timeout: time.Minute})
	p.leave()
	fl.cut(a)
	fl.wipe(c)
	fl.isolate(b, false, false)
	if !fl.start(c) {
		return
	}
	time.Sleep(time.Minute)
	leads := len(b.node.Leads())
	if c.node != nil { // with the bug alone
		leads += len(c.node.Leads())
	}
	if leads > 0 {
		fl.problem("%d shards have a leader by the vote of a node that has forgotten everything", leads)
	}
	if !fl.start(a) {
		return
	}
	fl.progress([]history.Key{key})
	fl.stop()
	time.Sleep(settle)
	if fl.healthy() {
		fl.readAll()
	}
}

// deposedHistory asks a deposed leader where the log ends, and must not be
// answered. Where it starts may be what was: log starts never fall.
func deposedHistory(fl *fleet) {
	fl.depose("stays0", func(key history.Key, floor int64, asks *person) {
		ctx, cancel := context.WithTimeout(fl.stopping, 5*time.Second)
		defer cancel()
		if starts, err := asks.c.Admin().Offsets(ctx, key.Topic, client.Earliest); err != nil || starts[0] != 0 {
			fl.problem("log starts: %v, %v; want 0, whoever says so", starts, err)
		}
		ends, err := asks.c.Admin().Offsets(ctx, key.Topic, client.Latest)
		if err == nil && ends[0] < floor {
			fl.problem("stale read: the end is %d for one, and offset %d was acknowledged before it was asked", ends[0], floor-1)
		}
	})
}

// deposedDeletesHistory asks a deposed leader to delete records of which it knows
// nothing: it must not say that there are none (R19).
func deposedDeletesHistory(fl *fleet) {
	fl.depose(askedTopic, func(key history.Key, floor int64, asks *person) {
		op := fl.rec.Invoke(history.Op{Process: asks.process, F: history.DeleteRecords, Mops: []history.Mop{{Key: key, From: floor}}})
		ctx, cancel := context.WithTimeout(fl.stopping, 5*time.Second)
		defer cancel()
		starts, err := asks.c.Admin().DeleteRecords(ctx, key.Topic, map[int32]int64{0: floor})
		if code, _ := client.CodeOf(err); code == errcode.OffsetOutOfRange {
			fl.problem("a deposed leader refuses to delete below offset %d, up to which all was acknowledged: %v", floor, err)
		}
		if err != nil {
			op.Err = err.Error()
			fl.rec.Complete(op, history.Info)
			return
		}
		fl.deleted(op, starts[0])
	})
}

// depose holds the leader of a topic's partition in a write to a disk that hangs,
// so that it cannot step down, and cuts it off: the others elect a leader and
// acknowledge more, of which it knows nothing. Then it calls f, with a client that
// knows it for the leader, and what was acknowledged, and mends everything.
func (fl *fleet) depose(topic string, f func(key history.Key, floor int64, asks *person)) {
	key, a, b, c, ok := fl.stage(topic)
	if !ok {
		return
	}
	time.Sleep(time.Second)
	fl.addrs = []string{a.addr(), b.addr(), c.addr()}
	asks := fl.hire() // knows a for the leader
	defer asks.leave()
	if _, err := asks.c.Admin().Offsets(fl.stopping, key.Topic, 0); err != nil {
		fl.problem("end offsets of a healthy leader: %v", err)
	}
	a.disk.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSyncData {
			return vfs.Fault{Delay: 20 * time.Second}
		}
		return vfs.Fault{}
	})
	fl.isolate(a, true, true)
	fl.clients.Go(func() { // gives the leader something to write
		p := fl.hire()
		defer p.leave()
		p.produce(load{keys: []history.Key{key}, records: 1, maxBytes: 10, maxPause: 1, timeout: time.Second})
	})
	time.Sleep(8 * time.Second)
	fl.addrs = []string{b.addr(), c.addr()}
	writes := fl.hire()
	writes.produce(load{keys: []history.Key{key}, records: 5, maxBytes: 10, maxPause: 1, timeout: 5 * time.Second})
	writes.leave()
	fl.mu.Lock()
	floor := fl.floor[key]
	fl.mu.Unlock()
	f(key, floor, asks)
	a.disk.SetInjector(nil)
	fl.isolate(a, false, false)
	time.Sleep(30 * time.Second)
	fl.conclude(key)
}

// fullHistory fills the disk of the leader, to the last byte or nearly so: the others
// lead, and take more than the journal of the full one holds. It takes part again when
// it has room, whether it went on meanwhile or its power was cut.
func fullHistory(fl *fleet) {
	key, a, b, c, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.addrs = []string{a.addr(), b.addr(), c.addr()}
	a.disk.SetCapacity(usedOn(a.disk) + fl.rng.Int64N(16<<10))
	p := fl.hire()
	began := time.Now()
	p.produce(load{keys: []history.Key{key}, records: 400, maxBytes: 6000, maxPause: 1, timeout: time.Minute})
	p.leave()
	if took := time.Since(began); took > 30*time.Second {
		fl.problem("400 records took %v with two disks that have room", took)
	}
	fl.mu.Lock()
	floor := fl.floor[key]
	fl.mu.Unlock()
	if floor < 400 {
		fl.problem("with two disks that have room the log was acknowledged up to offset %d", floor)
	}
	if !fl.trace.saw("a leadership was handed over, as the disk is nearly full") {
		fl.problem("node %d did not hand over", a.id)
	}
	if led := a.node.Leads(); len(led) > 0 {
		fl.problem("node %d leads %v with a full disk", a.id, led)
	}
	again := fl.rng.IntN(2) == 0
	if again {
		fl.cut(a)
	}
	a.disk.SetCapacity(-1)
	if again && !fl.start(a) {
		return
	}
	time.Sleep(30 * time.Second)
	fl.isolate(b, true, true) // a is needed now
	fl.progress([]history.Key{key})
	fl.isolate(b, false, false)
	fl.stop()
	time.Sleep(settle)
	if fl.healthy() {
		fl.readAll()
	}
}
