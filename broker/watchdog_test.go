package broker

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/replication"
)

// standStill has every sync of a broker's journal take so long from now on, until
// it is told to go on.
func (r *rig) standStill(d time.Duration) (goOn func()) {
	var over atomic.Bool
	r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
		if over.Load() || op.Kind != vfs.OpSyncData || !strings.HasPrefix(op.Path, "journal") {
			return vfs.Fault{}
		}
		return vfs.Fault{Delay: d}
	})
	return func() { over.Store(true) }
}

// stuck has a partition's leader write to a disk that stands still, and returns
// what comes of it.
func (tr *trio) stuck(r *rig, topic Topic) <-chan ProduceResult {
	done := make(chan ProduceResult, 1)
	b := records(tr.t, batch.Producer{ID: -1}, "stuck")
	go func() { done <- r.produce(topic, 0, b) }()
	return done
}

// TestWatchdog lets the disk of a leader stand still: others lead all that it led
// within a few seconds, while its Raft waits for the disk. What it was given is
// answered, it sends clients to who leads, and it takes no leadership until its
// disk has gone on for a while.
func TestWatchdog(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		old := tr.leader(topic, 0)
		before := tr.leads(nil)
		goOn := old.standStill(time.Minute)
		done := tr.stuck(old, topic)
		began := time.Now()
		tr.rest(3 * time.Second)
		if led := old.Leads(); len(led) > 0 {
			t.Fatalf("node %d leads %v with a disk that has stood still for %v", old.NodeID(), led, time.Since(began))
		}
		after := tr.leads(nil)
		if len(after) != len(before) {
			t.Fatalf("led are %v, of %v", after, before)
		}
		for shard, was := range before {
			if was[0] != uint64(old.NodeID()) && after[shard] != was {
				t.Errorf("shard %d, led by another node, went from %v to %v", shard, was, after[shard])
			}
		}
		next := tr.leader(topic, 0)
		if got := next.produce(topic, 0, records(t, batch.Producer{ID: -1}, "goes on")); got.Err != nil {
			t.Errorf("the next leader: %v", got.Err)
		}
		select {
		case got := <-done:
			if got.Err == nil {
				t.Errorf("a record was acknowledged by a disk that stands still: %+v", got)
			}
		default:
			t.Error("what was given to the old leader was not answered")
		}
		if l, ok := old.PartitionLeader(ClientListener, topic.ID, 0); !ok || l.Node != next.NodeID() {
			t.Errorf("the old leader sends clients to %+v, %t, want to node %d", l, ok, next.NodeID())
		}
		if got := old.produce(topic, 0, records(t, batch.Producer{ID: -1}, "too late")); errcode.Of(asError(got.Err)) != errcode.NotLeaderOrFollower {
			t.Errorf("the old leader answers %v", got.Err)
		}
		goOn()
		tr.rest(time.Minute)
		shard := old.dir.find(topic.ID, 0).shard.id
		if got, want := old.carried()[shard].replica.Applied(), next.carried()[shard].replica.Applied(); got != want {
			t.Errorf("node %d has applied %d entries when its disk has gone on, its leader %d", old.NodeID(), got, want)
		}
	})
}

// TestWatchdogPatience: a disk whose writes take long, and end, keeps its leader.
func TestWatchdogPatience(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		leader := tr.leader(topic, 0)
		before := tr.leads(nil)
		// No multiple of a tick: or each write may end when it ticks, and be seen so.
		const slow = (stallTicks-2)*watchdogTick + watchdogTick*7/10
		goOn := leader.standStill(slow)
		for range 10 {
			began := time.Now()
			got := leader.produce(topic, 0, records(t, batch.Producer{ID: -1}, "slow"))
			if took := time.Since(began); got.Err != nil || took < slow {
				t.Errorf("a slow disk: %v after %v", got.Err, took)
			}
		}
		goOn()
		for shard, now := range tr.leads(nil) {
			if now != before[shard] {
				t.Errorf("shard %d went from %v to %v", shard, before[shard], now)
			}
		}
	})
}

// TestWatchdogHeir: a leadership goes to no node whose own disk stands still, or
// did a moment ago.
func TestWatchdogHeir(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		old := tr.leader(topic, 0)
		var heirs []*rig
		for _, r := range tr.rigs {
			if r != old {
				heirs = append(heirs, r)
			}
		}
		shard := old.dir.find(topic.ID, 0).shard.id
		m := mandate{shard: shard, replica: heirs[0].carried()[shard].replica.Progress().ID, term: old.carried()[shard].replica.Leading()}
		ask := func(from int32, m mandate) error {
			_, err := heirs[0].Answer(t.Context(), from, methodTakeOver, encodeMandate(m))
			return err
		}
		for name, edit := range map[string]func(*mandate){
			"another shard":       func(m *mandate) { m.shard = 99 },
			"another incarnation": func(m *mandate) { m.replica.Incarnation++ },
			"a later term":        func(m *mandate) { m.term++ },
		} {
			wrong := m
			edit(&wrong)
			if err := ask(old.NodeID(), wrong); err == nil {
				t.Errorf("took over for %s", name)
			}
		}
		if err := ask(heirs[1].NodeID(), m); err == nil {
			t.Error("took over from a node that does not lead")
		}
		heirs[0].watchdog.unfit.Store(true)
		if err := ask(old.NodeID(), m); err == nil || !strings.Contains(err.Error(), errUnfit.Error()) {
			t.Errorf("asked to lead with a disk that stands still: %v", err)
		}
		heirs[0].watchdog.unfit.Store(false)
		goOn := heirs[0].standStill(time.Minute)
		done := tr.stuck(old, topic) // reaches its log as well
		tr.rest(2 * time.Second)
		<-done // of the other's disk
		goOn()
		began := time.Now()
		for heirs[0].watchdog.unfit.Load() && time.Since(began) < time.Hour {
			tr.rest(watchdogTick)
		}
		if calm := time.Since(began); calm < calmTicks*watchdogTick || calm > 2*time.Minute {
			t.Errorf("fit again %v after its disk stood still", calm)
		}
	})
}

// FuzzDecodeMandate checks, for any bytes, that what decodeMandate reads is what is
// written from it again.
func FuzzDecodeMandate(f *testing.F) {
	f.Add(encodeMandate(mandate{shard: 1, replica: replication.ReplicaID{Node: 2, Incarnation: 3}, term: 4}))
	f.Add(make([]byte, mandateBytes+1))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := decodeMandate(in)
		if (err == nil) != (len(in) == mandateBytes) {
			t.Fatalf("%d bytes: %v", len(in), err)
		}
		if err == nil && !bytes.Equal(encodeMandate(m), in) {
			t.Fatalf("%x again as %x", in, encodeMandate(m))
		}
	})
}
