package broker

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/partition"
)

// giveProducer returns a producer's id.
func (r *rig) giveProducer() int64 {
	r.t.Helper()
	p, err := r.InitProducer(r.t.Context(), Producer{ID: -1})
	if err != nil {
		r.t.Fatal(err)
	}
	return p.ID
}

// producedBy produces a first record of a producer.
func (r *rig) producedBy(topic Topic, index int32, id int64) errcode.Code {
	r.t.Helper()
	return errcode.Of(asError(r.produce(topic, index, records(r.t, batch.Producer{ID: id}, "v")).Err))
}

// TestInventedProducer: ids that were never given are refused before anything is
// remembered of them, so they keep nobody else out.
func TestInventedProducer(t *testing.T) {
	limited(t, Limits{Producers: 3}, func(t *testing.T, r *rig) {
		topic, err := r.CreateTopic(t.Context(), TopicSpec{Name: "t", Partitions: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.producedBy(topic, 0, 0); got != errcode.InvalidProducerIDMapping {
			t.Errorf("before any id was given, 0: %v, want %v", got, errcode.InvalidProducerIDMapping)
		}
		id := r.giveProducer()
		invented := []int64{id + producerIDBlock, 1 << 40, 1<<63 - 1, id + producerIDBlock + 1, id + producerIDBlock + 2}
		for _, id := range invented {
			if got := r.producedBy(topic, 0, id); got != errcode.InvalidProducerIDMapping {
				t.Errorf("id %d: %v, want %v", id, got, errcode.InvalidProducerIDMapping)
			}
		}
		if got := r.producedBy(topic, 0, id); got != errcode.None {
			t.Errorf("the given id %d: %v", id, got)
		}
		for _, part := range []batch.Producer{batch.NoProducer, {ID: id, Sequence: 1}} { // in one request with an invented one
			res := r.produceParts(time.Minute,
				ProducePart{Topic: topic.ID, Batch: records(t, batch.Producer{ID: 1 << 40}, "invented")},
				ProducePart{Topic: topic.ID, Batch: records(t, part, "good")})
			if res[0].Err == nil || res[1].Err != nil {
				t.Errorf("beside an invented producer: %v, want none; it: %v", res[1].Err, res[0].Err)
			}
		}
		if n := r.ProducerCount(topic.ID, 0); n != 1 {
			t.Errorf("%d producers are remembered, want 1", n)
		}
		if got := len(r.read(topic, 0, 0)); got != 3 {
			t.Errorf("%d records, want 3", got)
		}
		r.restart(Limits{Producers: 3})
		if got := r.producedBy(topic, 0, 1<<40); got != errcode.InvalidProducerIDMapping {
			t.Errorf("after a restart: %v, want %v", got, errcode.InvalidProducerIDMapping)
		}
	})
}

// TestAbsentElsewhere: a node that does not lead the metadata may not have heard of
// a topic yet, as after a restart, and a consumer that is told that there is none
// gives it up. Of a topic that it saw deleted it knows.
func TestAbsentElsewhere(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 1, nil)
		tr.rest(time.Second)
		if err := tr.controller().DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		tr.rest(time.Second)
		for _, r := range tr.rigs {
			want := errcode.LeaderNotAvailable
			if r == tr.controller() {
				want = errcode.UnknownTopicID
			}
			if err := r.absent(partition.TopicID{1}, 0); err.Code != want {
				t.Errorf("node %d, of a topic that it does not know: %v, want %v", r.NodeID(), err, want)
			}
			if err := r.absent(topic.ID, 0); err.Code != errcode.UnknownTopicID {
				t.Errorf("node %d, of a topic that was deleted: %v, want %v", r.NodeID(), err, errcode.UnknownTopicID)
			}
		}
	})
}

// TestInventedProducerElsewhere: only who leads the metadata, for certain, can tell that
// an id was never given. Others, which may be behind, ask that one: an id that was given
// this moment is taken everywhere.
func TestInventedProducerElsewhere(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", 2, nil)
		tr.rest(time.Second)
		seen := make(map[bool]bool)
		own := int32(-1)        // a partition that the controller leads
		for turn := range 100 { // until there is one, and one that it does not lead was seen
			own = -1
			for i := range int32(2) {
				r := tr.leader(topic, i)
				if r == tr.controller() {
					own = i
				}
				seen[r == tr.controller()] = true
				if got := r.producedBy(topic, i, 1<<40); got != errcode.InvalidProducerIDMapping {
					t.Errorf("an invented id, of the controller: %t: %v, want %v", r == tr.controller(), got, errcode.InvalidProducerIDMapping)
				}
				ids := &tr.controller().producers
				ids.mu.Lock()
				ids.next = ids.end // so that the metadata gives the next block
				ids.mu.Unlock()
				id := tr.controller().giveProducer()
				if got := r.producedBy(topic, i, id); got != errcode.None {
					t.Errorf("the id that was given this moment, of the controller: %t: %v", r == tr.controller(), got)
				}
			}
			if len(seen) == 2 && own >= 0 {
				break
			}
			err := error(nil)
			if p := tr.leader(topic, 0).dir.find(topic.ID, 0); own >= 0 || turn%2 == 1 {
				err = p.shard.replica.Transfer(t.Context())
			} else {
				err = tr.controller().Broker.meta.Transfer(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			tr.rest(10 * time.Second)
		}
		if len(seen) != 2 || own < 0 {
			t.Fatalf("the leaderships did not come to lie as they were to: %v", seen)
		}

		// A controller that was deposed, perhaps, and does not know it.
		r := tr.controller()
		tr.cutOff(r, true)
		var parts []ProducePart
		for range 5 {
			parts = append(parts, ProducePart{Topic: topic.ID, Index: own, Batch: records(t, batch.Producer{ID: 1 << 40}, "v")})
		}
		start := time.Now()
		for i, res := range r.produceParts(time.Minute, parts...) {
			got := errcode.Of(asError(res.Err)) // the lease of the partition's shard may end meanwhile
			if got != errcode.LeaderNotAvailable && (i == 0 || got != errcode.NotLeaderOrFollower) {
				t.Errorf("part %d, cut off: %v, want %v", i, res.Err, errcode.LeaderNotAvailable)
			}
		}
		if took := time.Since(start); took > currentTimeout {
			t.Errorf("five parts waited %v, want at most %v", took, currentTimeout)
		}
		tr.cutOff(r, false)
	})
}
