package broker

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// parked begins a fetch of the end of a partition, which nobody writes to, for who
// stands in rack.
func (r *rig) parked(topic Topic, index int32, rack string, epoch int32) chan []FetchResult {
	got := make(chan []FetchResult, 1)
	r.Fetch(FetchRequest{
		MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1 << 20, Rack: rack,
		Parts: []FetchPart{{Topic: topic.ID, Index: index, MaxBytes: 1 << 20, Epoch: epoch}},
	}, func(res []FetchResult) { got <- res })
	return got
}

// inRacks gives a test three brokers, each in a rack of its own, and a topic of two
// partitions on two shards, which one broker leads.
func inRacks(t *testing.T, reads func(*FetchPart), test func(t *testing.T, tr *trio, topic Topic, leader *rig)) {
	nodes := int32(0)
	tune := func(o *Options) {
		nodes++
		o.RackAware, o.Rack, o.reads = true, fmt.Sprintf("r%d", nodes), reads
	}
	inTunedTrio(t, tune, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 2, nil)
		tr.rest(5 * time.Second)
		leader := tr.leader(topic, 0)
		if other := tr.leader(topic, 1); other != leader {
			other.transfer(topic, 1, leader)
		}
		tr.rest(time.Second)
		if leader.dir.find(topic.ID, 0).shard == leader.dir.find(topic.ID, 1).shard {
			t.Fatal("both partitions are on one shard")
		}
		test(t, tr, topic, leader)
	})
}

// transfer has the broker that leads a partition's shard hand it over.
func (r *rig) transfer(topic Topic, index int32, to *rig) {
	r.t.Helper()
	shard := r.dir.find(topic.ID, index).shard.id
	if now, _, err := r.TransferShard(r.t.Context(), uint32(shard), to.NodeID()); err != nil || now != to.NodeID() {
		r.t.Fatalf("shard %d is led by node %d, want %d: %v", shard, now, to.NodeID(), err)
	}
}

// others returns the brokers beside one.
func (tr *trio) others(but *rig) (all []*rig) {
	for _, r := range tr.rigs {
		if r != but {
			all = append(all, r)
		}
	}
	return all
}

// toldWithin returns the code that a fetch which waits is answered with within d, or
// "it waits".
func toldWithin(got chan []FetchResult, d time.Duration) string {
	select {
	case res := <-got:
		defer releaseAll(res)
		for i := range res {
			if res[i].Err != nil {
				return res[i].Err.Code.String()
			}
		}
		return "<nil>"
	case <-time.After(d):
		return "it waits"
	}
}

// TestFetchIsToldOfLeaders: whoever waits for records of a partition is told at once
// that another node leads it, by who led it and by who leads it now, and by who
// follows when that has heard of it, instead of waiting for records that will come elsewhere. Who waits for another
// shard's records goes on with it. A leader that is cut off tells it when its lease
// is over.
func TestFetchIsToldOfLeaders(t *testing.T) {
	inRacks(t, func(*FetchPart) {}, func(t *testing.T, tr *trio, topic Topic, leader *rig) {
		others := tr.others(leader)
		next, follower := others[0], others[1]
		epoch := leader.dir.find(topic.ID, 0).epoch()
		const (
			none  = -1
			hears = time.Second // in which a follower hears what is committed
		)
		refused, fenced := errcode.NotLeaderOrFollower.String(), errcode.FencedLeaderEpoch.String()
		waiting := []struct {
			name   string
			got    chan []FetchResult
			within time.Duration
			want   []string
		}{
			{"the leader that was", leader.parked(topic, 0, "", none), handoverTick, []string{refused}},
			{"the leader that is to be", next.parked(topic, 0, next.opt.Rack, epoch), 0, []string{refused, fenced}},
			{"the follower", follower.parked(topic, 0, follower.opt.Rack, epoch), hears, []string{fenced}},
			{"the leader of another shard", leader.parked(topic, 1, "", none), hears, []string{"it waits"}},
		}
		synctest.Wait()
		for _, w := range waiting {
			if len(w.got) > 0 {
				t.Fatalf("%s has answered before", w.name)
			}
		}
		began := time.Now()
		leader.transfer(topic, 0, next)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("the shard was handed over in %v", took)
		}
		for _, w := range waiting {
			if got := toldWithin(w.got, w.within+time.Millisecond); !slices.Contains(w.want, got) {
				t.Errorf("%s: %s, want %v", w.name, got, w.want)
			}
		}

		got := next.parked(topic, 0, "", none)
		tr.cutOff(next, true)
		if code := toldWithin(got, 3*time.Second); code != refused {
			t.Errorf("cut off: %s, want %s", code, refused)
		}
		tr.cutOff(next, false)
		tr.rest(5 * time.Second)
	})
}

// TestFetchLosesItsLeaderBeforeItWaits: a leadership that is lost between the reading
// of a partition and the wait for it is not waited through.
func TestFetchLosesItsLeaderBeforeItWaits(t *testing.T) {
	var lose func()
	reads := func(p *FetchPart) {
		if p.Index == 1 && lose != nil { // when partition 0 has been read
			once := lose
			lose = nil
			once()
		}
	}
	inRacks(t, reads, func(t *testing.T, tr *trio, topic Topic, leader *rig) {
		lose = func() {
			leader.transfer(topic, 0, tr.others(leader)[0])
			tr.rest(time.Second) // it hears of the other's term, which is a turn of its own
		}
		got := make(chan []FetchResult, 1)
		leader.Fetch(FetchRequest{
			MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1 << 20,
			Parts: []FetchPart{{Topic: topic.ID, MaxBytes: 1 << 20, Epoch: -1}, {Topic: topic.ID, Index: 1, MaxBytes: 1 << 20, Epoch: -1}},
		}, func(res []FetchResult) { got <- res })
		if code := toldWithin(got, 100*time.Millisecond); code != errcode.NotLeaderOrFollower.String() {
			t.Errorf("lost while it was read: %s, want %v", code, errcode.NotLeaderOrFollower)
		}
	})
}
