package broker

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/consumergroup/record"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestLag: a coordinator knows how far its groups are behind, also where they read what
// other nodes have.
func TestLag(t *testing.T) {
	inTunedTrio(t, func(o *Options) { o.OffsetsPartitions, o.Limits.MetricGroups = 1, 2 }, func(t *testing.T, tr *trio) {
		spread := tr.createWith("spread", 3, 1) // a partition on each node
		gone := tr.createWith("gone", 1, 3)
		for i := range int32(3) {
			leader := tr.leader(spread, i)
			for range 10 * (i + 1) {
				if res := leader.produce(spread, i, records(t, batch.NoProducer, "v")); res.Err != nil {
					t.Fatal(res.Err)
				}
			}
		}
		commit := func(group string, topic Topic, offsets ...int64) *rig {
			u := &groupUser{tr: tr, group: group}
			req := &consumergroup.CommitRequest{Group: group, Generation: -1, RetentionMS: -1}
			for i, offset := range offsets {
				req.Offsets = append(req.Offsets, consumergroup.CommitOffset{
					Topic: topic.Name, TopicID: record.TopicID(topic.ID), Partition: int32(i), Offset: offset, LeaderEpoch: -1,
				})
			}
			u.until("commit", func(ctx context.Context, r *rig) *errcode.Error { return r.CommitOffsets(ctx, req).Err })
			return u.coordinator()
		}
		commit("near", spread, 9, 20, 30)
		commit("far", spread, 0, 1)
		commit("ahead", spread, 10, 99) // as if this node were behind who leads the partition
		commit("mid", spread, 5, 15)
		at := commit("of a topic that goes", gone, 0)
		// What was deleted is nothing to catch up with.
		if r := tr.leader(spread, 0).DeleteRecords(t.Context(), []DeletePart{{Topic: spread.ID, Index: 0, Before: 4}})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
		if err := tr.controller().DeleteTopic(t.Context(), gone.ID); err != nil {
			t.Fatal(err)
		}
		check := func(when string, want LagStats) {
			t.Helper()
			got := at.Stats().Lag
			if d := cmp.Diff(want, got, cmpopts.IgnoreFields(LagStats{}, "At")); d != "" {
				t.Errorf("%s (-want +got):\n%s", when, d)
			}
			if age := time.Since(got.At); age > 2*defaultLagInterval {
				t.Errorf("%s: %v old", when, age)
			}
		}
		tr.rest(2 * defaultLagInterval)
		check("three nodes", LagStats{Groups: []GroupLag{{"far", 25, 19}, {"mid", 10, 5}, {"", 1, 1}}})
		for _, r := range tr.rigs {
			if got := r.Stats().Lag; r != at && !got.At.IsZero() {
				t.Errorf("node %d coordinates nothing, and tells of %+v", r.NodeID(), got)
			}
		}

		// The node with the second partition is silent: nobody knows that one's end. It
		// is not the coordinator, which has a partition itself.
		silent := int32(1)
		if tr.leader(spread, silent) == at {
			silent = 2
		}
		known := map[int32]LagStats{
			1: {Groups: []GroupLag{{"far", 6, 6}, {"mid", 5, 5}, {"", 1, 1}}, Unknown: 4},
			2: {Groups: []GroupLag{{"far", 25, 19}, {"mid", 10, 5}, {"", 1, 1}}, Unknown: 1},
		}
		tr.cutOff(tr.leader(spread, silent), true)
		tr.rest(2 * defaultLagInterval)
		check("a node is cut off", known[silent])
	})
}

// TestEndsOfNothing: what is no list of partitions is refused, and a partition that is
// not there has no end.
func TestEndsOfNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for _, n := range []int{1, endsCallBytes - 1, (maxEndsCall + 1) * endsCallBytes} {
			if _, err := r.Answer(t.Context(), 2, methodEnds, make([]byte, n)); err == nil {
				t.Errorf("%d bytes are answered", n)
			}
		}
		if got, err := r.Answer(t.Context(), 2, methodEnds, make([]byte, endsCallBytes)); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{0xff}, endsAnswerBytes)) {
			t.Errorf("an unknown partition: %x, %v", got, err)
		}
	})
}
