package broker

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
)

// TestConfirmationIsShared asks a leader, and one that was cut off, for offsets
// above the end of many partitions: it asks the others once for all that lie in one
// shard, and not once for each.
func TestConfirmationIsShared(t *testing.T) {
	const partitions = 12
	tests := []struct {
		name        string
		well, alone errcode.Code // with the others, and without
		ask         func(r *rig, topic TopicID, led []int32) []error
	}{
		{"a fetch", errcode.OffsetOutOfRange, errcode.OffsetNotAvailable, func(r *rig, topic TopicID, led []int32) (errs []error) {
			req := FetchRequest{MaxBytes: 1 << 20}
			for _, i := range led {
				req.Parts = append(req.Parts, FetchPart{Topic: topic, Index: i, Offset: 9, MaxBytes: 1 << 20, Epoch: -1})
			}
			for _, res := range r.fetch(req) {
				errs = append(errs, asError(res.Err))
			}
			return errs
		}},
		{"a stream", errcode.OffsetOutOfRange, errcode.OffsetNotAvailable, func(r *rig, topic TopicID, led []int32) (errs []error) {
			s := r.NewStream(func() {})
			defer s.Close()
			var c StreamChange
			for _, i := range led {
				c.Set = append(c.Set, StreamPart{Topic: topic, Index: i, Offset: 9, Epoch: -1})
			}
			if err := s.Change(c, partitions); err != nil {
				r.t.Fatal(err)
			}
			for range 4 {
				results, _ := s.Next(1<<20, 1<<20)
				for _, res := range results {
					errs = append(errs, asError(res.Err))
				}
				if len(errs) == len(led) {
					break
				}
				<-time.After(handoverPatience / 2) // a leader of what a lease has ended of is waited for
			}
			return errs
		}},
		{"a divergence", errcode.None, errcode.OffsetNotAvailable, func(r *rig, topic TopicID, led []int32) (errs []error) {
			var confirmed Confirmed
			for _, i := range led {
				epoch := r.dir.find(topic, i).epoch()
				_, _, err := r.Diverges(FetchedPart{Topic: topic, Index: i, Offset: 9, Epoch: epoch, Current: -1}, &confirmed)
				errs = append(errs, asError(err))
			}
			return errs
		}},
		{"a deletion", errcode.OffsetOutOfRange, errcode.NotLeaderOrFollower, func(r *rig, topic TopicID, led []int32) (errs []error) {
			var parts []DeletePart
			for _, i := range led {
				parts = append(parts, DeletePart{Topic: topic, Index: i, Before: 9})
			}
			for _, res := range r.DeleteRecords(r.t.Context(), parts) {
				errs = append(errs, asError(res.Err))
			}
			return errs
		}},
	}
	inTrio(t, func(t *testing.T, tr *trio) {
		topic := tr.controller().create("t", partitions, nil)
		for _, tt := range tests {
			for _, cut := range []bool{false, true} {
				tr.rest(30 * time.Second) // there is a leader again
				r := tr.leader(topic, 0)
				led, shards := r.leads(topic)
				want := tt.well
				if cut {
					want = tt.alone
					tr.cutOff(r, true)
				}
				before, start := tr.probes[r.NodeID()].Load(), time.Now()
				errs := tt.ask(r, topic.ID, led)
				asked, took := tr.probes[r.NodeID()].Load()-before, time.Since(start)
				tr.cutOff(r, false)
				if len(led) < 3 || len(errs) != len(led) {
					t.Errorf("%s, cut off: %t: %d answers of %d partitions", tt.name, cut, len(errs), len(led))
				}
				for i, err := range errs {
					// A lease may end while the voters of another shard are asked.
					if got := errcode.Of(err); got != want && !(cut && got == errcode.NotLeaderOrFollower) {
						t.Errorf("%s, cut off: %t: partition %d: %v, want %v", tt.name, cut, led[i], err, want)
					}
				}
				within := confirmTimeout
				if cut {
					within += confirmTimeout + handoverPatience // a lease ends, and a leader is waited for
				}
				if most := int64(2 * shards); asked > most || took > within {
					t.Errorf("%s, cut off: %t: asked the others %d times, in %v, for %d partitions of %d shards; want at most %d times in %v",
						tt.name, cut, asked, took, len(led), shards, most, within)
				}
			}
		}
	})
}

// leads returns the partitions of a topic that the broker leads, and of how many
// shards they are.
func (r *rig) leads(topic Topic) (led []int32, shards int) {
	of := make(map[*dataShard]bool)
	for i := range topic.Partitions {
		if p := r.dir.find(topic.ID, int32(i)); p != nil && p.epoch() >= 0 {
			led = append(led, int32(i))
			of[p.shard] = true
		}
	}
	return led, len(of)
}
