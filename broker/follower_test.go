package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestFollowerReads: who names the rack of a follower is sent there by the leader,
// and read to by it up to what it has applied; whoever is ahead of that waits, and is
// told that it is not there yet. Another leader epoch is refused as by the leader. A
// follower that is cut off refuses all, and sends them back; and nobody is sent there.
// Who names no rack, or the leader's, reads from the leader alone.
func TestFollowerReads(t *testing.T) {
	nodes := int32(0)
	tune := func(o *Options) {
		nodes++
		o.RackAware, o.Rack = true, fmt.Sprintf("r%d", nodes)
	}
	inTunedTrio(t, tune, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(5 * time.Second)
		leader := tr.leader(topic, 0)
		var near *rig
		for _, r := range tr.rigs {
			if r != leader {
				near = r
			}
		}
		rack := near.opt.Rack
		for range 3 {
			if res := leader.produce(topic, 0, records(t, batch.NoProducer, "x")); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		tr.rest(time.Second)
		epoch := leader.dir.find(topic.ID, 0).epoch()
		fetch := func(r *rig, rack string, offset int64, known int32, wait time.Duration) FetchResult {
			res := r.fetch(FetchRequest{
				MaxWait: wait, MinBytes: 1, MaxBytes: 1 << 20, Rack: rack,
				Parts: []FetchPart{{Topic: topic.ID, Offset: offset, MaxBytes: 1 << 20, Epoch: known}},
			})[0]
			res.Release()
			return res
		}
		code := func(r FetchResult) string {
			if r.Err == nil {
				return "<nil>"
			}
			return r.Err.Code.String()
		}
		refused := func(what string, r FetchResult, want errcode.Code, back bool) {
			t.Helper()
			if code(r) != want.String() {
				t.Errorf("%s: %s, want %v", what, code(r), want)
			} else if back && (!r.Elsewhere || r.ReadFrom != leader.NodeID()) {
				t.Errorf("%s: is not sent back: %+v", what, r)
			}
		}

		if r := fetch(leader, rack, 0, epoch, 0); r.Err != nil || !r.Elsewhere || r.ReadFrom != near.NodeID() || r.HighWatermark != 3 {
			t.Errorf("the leader sends who is in rack %s to %+v, want node %d", rack, r, near.NodeID())
		}
		for _, other := range []string{"", "nowhere", leader.opt.Rack} {
			if r := fetch(leader, other, 3, epoch, 0); r.Err != nil || r.Elsewhere || r.HighWatermark != 3 {
				t.Errorf("the leader sends who is in rack %q to %+v", other, r)
			}
		}
		refused("no rack, of a follower", fetch(near, "", 0, epoch, 0), errcode.NotLeaderOrFollower, false)
		if r := fetch(near, rack, 3, epoch, 0); r.Err != nil || r.Elsewhere || r.HighWatermark != 3 || r.LogStart != 0 {
			t.Errorf("the follower answers %+v", r)
		}
		refused("an old epoch", fetch(near, rack, 0, epoch-1, 0), errcode.FencedLeaderEpoch, false)
		refused("an epoch to come", fetch(near, rack, 0, epoch+1, 0), errcode.UnknownLeaderEpoch, true)
		began := time.Now()
		refused("ahead", fetch(near, rack, 5, epoch, time.Minute), errcode.OffsetNotAvailable, true)
		if time.Since(began) < time.Minute {
			t.Errorf("who is ahead did not wait: %v", time.Since(began))
		}
		refused("below the log start", fetch(near, rack, -1, epoch, 0), errcode.OffsetOutOfRange, true)

		got := make(chan FetchResult, 1)
		go func() { got <- fetch(near, rack, 4, epoch, time.Minute) }() // one record ahead
		tr.rest(time.Second)
		began = time.Now()
		for range 2 {
			if res := leader.produce(topic, 0, records(t, batch.NoProducer, "y")); res.Err != nil {
				t.Fatal(res.Err)
			}
		}
		if r := <-got; r.Err != nil || r.HighWatermark != 5 || time.Since(began) > time.Second {
			t.Errorf("who waits at a follower gets %+v after %v", r, time.Since(began))
		}

		tr.cutOff(near, true)
		tr.rest(nearerLag + time.Second)
		refused("cut off", fetch(near, rack, 0, epoch, 0), errcode.NotLeaderOrFollower, true)
		began = time.Now()
		refused("cut off, with time", fetch(near, rack, 0, epoch, time.Minute), errcode.NotLeaderOrFollower, true)
		if took := time.Since(began); took != sentBackWait {
			t.Errorf("who has time is sent to and fro: back after %v, want %v", took, sentBackWait)
		}
		if r := fetch(leader, rack, 0, epoch, 0); r.Elsewhere {
			t.Errorf("somebody is sent to a replica that is cut off: %+v", r)
		}
		tr.cutOff(near, false)
	})
}
