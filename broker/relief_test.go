package broker

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// inRoomyTrio gives a test three brokers that keep some of their disks free, and
// what they log.
func inRoomyTrio(t *testing.T, test func(t *testing.T, tr *trio, lines *logLines)) {
	t.Helper()
	lines := new(logLines)
	tune := func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(lines, nil))
		o.DiskDir, o.DiskReserveBytes, o.BalanceInterval = "/", 1<<20, testBalanceInterval
	}
	inTunedTrio(t, tune, func(t *testing.T, tr *trio) {
		tr.rest((balanceLooks + 1) * testBalanceInterval)
		test(t, tr, lines)
	})
}

// TestRelief fills the disk of a leader. Others lead all that it led within a
// second; what waited there is answered at once, and clients are sent on. It leads
// its share again when there is room, and not sooner than half a minute later.
func TestRelief(t *testing.T) {
	inRoomyTrio(t, func(t *testing.T, tr *trio, lines *logLines) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		old := tr.leader(topic, 0)
		before := tr.leads(nil)
		old.fs.SetCapacity(1) // full
		tr.rest(2 * time.Second)
		if led := old.Leads(); len(led) > 0 {
			t.Fatalf("node %d leads %v with a full disk: %s", old.NodeID(), led, lines.String())
		}
		after := tr.leads(nil)
		if len(after) != len(before) {
			t.Fatalf("led are %v, of %v", after, before)
		}
		for shard, was := range before {
			if was[0] != uint64(old.NodeID()) && after[shard] != was {
				t.Errorf("shard %d, led by a node with room, went from %v to %v", shard, was, after[shard])
			}
		}
		next := tr.leader(topic, 0)
		began := time.Now()
		for range 50 { // more than the full one takes
			if got := next.produce(topic, 0, records(t, batch.NoProducer, strings.Repeat("x", 50<<10))); got.Err != nil {
				t.Fatalf("the next leader: %v", got.Err)
			}
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := old.produce(topic, 0, records(t, batch.NoProducer, "too late")); errcode.Of(asError(got.Err)) != errcode.NotLeaderOrFollower {
			t.Errorf("the node with the full disk answers %v", got.Err)
		}
		if s := old.Stats().Leaderships; s.Relieved == 0 || !s.Unfit {
			t.Errorf("its numbers are %+v", s)
		}
		if n := strings.Count(lines.String(), "was handed over, as the disk is nearly full"); uint64(n) != old.Stats().Leaderships.Relieved {
			t.Errorf("%d lines say so", n)
		}
		tr.rest(time.Minute)
		if led := old.Leads(); len(led) > 0 {
			t.Errorf("it leads %v again with a full disk", led)
		}
		old.fs.SetCapacity(-1)
		tr.rest(roomTicks * reliefTick * 9 / 10)
		if led := old.Leads(); len(led) > 0 {
			t.Errorf("it leads %v again although there was no room a moment ago", led)
		}
		tr.rest(4 * testBalanceInterval)
		if ids := tr.astray(); len(ids) > 0 {
			t.Errorf("shards %v are still led by %v", ids, tr.leads(nil))
		}
		shard := old.dir.find(topic.ID, 0).shard.id
		if got, want := old.carried()[shard].replica.Applied(), next.carried()[shard].replica.Applied(); got != want {
			t.Errorf("node %d has applied %d entries when it has room again, and node %d %d", old.NodeID(), got, next.NodeID(), want)
		}
	})
}

// TestReliefOfWaiting: what waits on a leader with a full disk is told to go to the
// next one as soon as there is one.
func TestReliefOfWaiting(t *testing.T) {
	inRoomyTrio(t, func(t *testing.T, tr *trio, _ *logLines) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		old := tr.leader(topic, 0)
		old.fs.SetCapacity(1)
		for began := time.Now(); !old.DiskState().Low && time.Since(began) < time.Minute; {
			old.disk.look() // now, and not before the record comes
		}
		began := time.Now()
		if got := old.produce(topic, 0, records(t, batch.NoProducer, "waits")); errcode.Of(asError(got.Err)) != errcode.NotLeaderOrFollower {
			t.Errorf("what waited is answered %v", got.Err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

// TestReliefOfNobody: with too few voters that have room a leader stays, its records
// wait and fail retriably, and the deletion that makes room passes. When enough
// have room again, it hands over.
func TestReliefOfNobody(t *testing.T) {
	for _, full := range []int{2, 3} {
		inRoomyTrio(t, func(t *testing.T, tr *trio, lines *logLines) {
			topic, doomed := tr.controller().create("t", 1, nil), tr.controller().create("doomed", 1, nil)
			tr.rest(time.Second)
			old := tr.leader(topic, 0)
			disks := []*vfs.Mem{old.fs}
			for _, r := range tr.rigs {
				if r != old && len(disks) < full {
					disks = append(disks, r.fs)
				}
			}
			for _, disk := range disks[1:] {
				disk.SetCapacity(1)
			}
			for _, r := range tr.rigs {
				r.disk.look()
			}
			old.fs.SetCapacity(1)
			old.disk.look()
			tr.rest(10 * time.Second)
			if p := old.dir.find(topic.ID, 0); p.epoch() < 0 {
				t.Fatalf("%d full: its leadership was handed over to %v", full, tr.leads(nil))
			}
			got := old.produceParts(5*time.Second, ProducePart{Topic: topic.ID, Batch: records(t, batch.NoProducer, "never")})[0]
			if errcode.Of(asError(got.Err)) != errcode.KafkaStorageError || !got.Err.Code.Retriable() {
				t.Errorf("%d full: a record is answered %v", full, got.Err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := tr.controller().DeleteTopic(ctx, doomed.ID); err != nil {
				t.Errorf("%d full: DeleteTopic = %v", full, err)
			}
			if n := strings.Count(lines.String(), "a leadership stays although the disk is nearly full"); n == 0 || n > 2*len(tr.leads(nil)) {
				t.Errorf("%d full: %d lines say that it stays", full, n)
			}
			for _, disk := range disks[1:] {
				disk.SetCapacity(-1)
			}
			tr.rest(3 * time.Second)
			if led := old.Leads(); len(led) > 0 {
				t.Errorf("%d full: the others have room, and node %d leads %v", full, old.NodeID(), led)
			}
		})
	}
}
