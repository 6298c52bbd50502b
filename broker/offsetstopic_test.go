package broker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/consumergroup"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

func (r *rig) ensureOffsets() Topic {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	if err := r.EnsureOffsetsTopic(ctx); err != nil {
		r.t.Fatal(err)
	}
	topic, err := r.TopicByName(metadata.GroupsTopic)
	if err != nil {
		r.t.Fatal(err)
	}
	return topic
}

// TestOffsetsTopic has __consumer_offsets created, and what clients may not do to it
// refused.
func TestOffsetsTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := vfs.NewMem(1)
		r := startRig(t, fsys, func(o *Options) { o.OffsetsPartitions = 7 })
		defer func() { r.stop() }()
		topic := r.ensureOffsets()
		if topic.Partitions != 7 || r.ensureOffsets().ID != topic.ID {
			t.Errorf("topic %+v, want 7 partitions, once", topic)
		}
		configs := make(map[string]string)
		for _, c := range r.TopicConfigs(topic.ID) {
			configs[c.Key] = c.Value
		}
		if configs["cleanup.policy"] != "compact" || configs["segment.bytes"] != "104857600" {
			t.Errorf("configs %v", configs)
		}
		ctx := t.Context()
		alter := func(key, value string) error {
			_, err := r.AlterTopic(ctx, TopicChange{Topic: topic.ID, Set: map[string]string{key: value}})
			return err
		}
		_, created := r.CreateTopic(ctx, TopicSpec{Name: metadata.GroupsTopic, Partitions: 1})
		_, other := r.CreateTopic(ctx, TopicSpec{Name: "__transaction_state", Partitions: 1})
		_, compacted := r.CreateTopic(ctx, TopicSpec{Name: "t", Configs: map[string]string{"cleanup.policy": "compact"}})
		_, grown := r.AddPartitions(ctx, topic.ID, 9, nil, false)
		for _, tt := range []struct {
			name string
			err  error
			want errcode.Code
		}{
			{"to create it", created, errcode.InvalidRequest},
			{"to create another", other, errcode.InvalidRequest},
			{"to compact another topic", compacted, errcode.InvalidConfig},
			{"to add partitions", grown, errcode.InvalidTopic},
			{"to delete it", r.DeleteTopic(ctx, topic.ID), errcode.InvalidTopic},
			{"to delete records", asError(r.DeleteRecords(ctx, []DeletePart{{Topic: topic.ID, Before: -1}})[0].Err), errcode.InvalidTopic},
			{"to produce", asError(r.produce(topic, 0, records(t, batch.NoProducer, "x")).Err), errcode.InvalidTopic},
			{"to have it not compacted", alter("cleanup.policy", "delete"), errcode.InvalidConfig},
			{"to change its segments", alter("segment.bytes", "2000000"), errcode.None},
		} {
			if got := errcode.Of(tt.err); got != tt.want {
				t.Errorf("%s: %v, want %s", tt.name, tt.err, tt.want.Name())
			}
		}
		synctest.Wait()
		l, ok := r.internalLog(topic.ID, 3)
		if !ok || l.at.config.SegmentBytes != 2000000 {
			t.Fatalf("partition 3 is not internal, or did not follow its config: %+v", l)
		}
		if err := l.Propose(ctx, l.at.shard.replica.Leading(), 1, commits("a", 2, 5)); err != nil {
			t.Fatal(err)
		}
		r.Checkpoint()
		r.stop()
		r = startRig(t, fsys)
		l, _ = r.internalLog(topic.ID, 3)
		offsets := 0
		if err := l.Groups(func(g *consumergroup.Groups) { offsets = g.Offsets() }); err != nil || offsets != 2 {
			t.Errorf("after a restart %d offsets, %v", offsets, err)
		}
	})
}

// A cluster of an older feature level has no internal topic, until it is raised; what a
// client had created under its name is in the way.
func TestOffsetsTopicNeedsLevel(t *testing.T) {
	for _, squatted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fsys := vfs.NewMem(1)
			r := startRig(t, fsys, func(o *Options) { o.FeatureLevel = metadata.InternalLevel - 1 })
			refused := func() {
				t.Helper()
				if err := r.EnsureOffsetsTopic(t.Context()); err == nil || err.Code != errcode.CoordinatorNotAvailable {
					t.Errorf("%v, want COORDINATOR_NOT_AVAILABLE", err)
				}
			}
			refused()
			squatter := metadata.CreateTopic{ID: metadata.TopicID{7}, Name: metadata.GroupsTopic, Assignment: []metadata.ShardID{1}}
			if squatted {
				if _, err := r.proposeMeta(t.Context(), squatter); err != nil {
					t.Fatal(err)
				}
			}
			r.stop()
			r = startRig(t, fsys)
			defer func() { r.stop() }()
			refused()
			if _, _, err := r.UpgradeFeatures(t.Context(), 0, false); err != nil {
				t.Fatal(err)
			}
			if squatted {
				refused()
				topic := Topic{ID: TopicID(squatter.ID)}
				if got := r.produce(topic, 0, records(t, batch.NoProducer, "x")); got.Err != nil {
					t.Errorf("the client's topic takes nothing: %v", got.Err)
				}
				if err := r.DeleteTopic(t.Context(), TopicID(squatter.ID)); err != nil {
					t.Fatal(err)
				}
			}
			if topic := r.ensureOffsets(); topic.Partitions != 50 {
				t.Errorf("%d partitions, want 50", topic.Partitions)
			}
		})
	}
}

// Any node has the topic created, all at once: there is one, with as many replicas as
// nodes.
func TestOffsetsTopicFromAnyNode(t *testing.T) {
	inTrio(t, func(t *testing.T, tr *trio) {
		var all sync.WaitGroup
		var topics [3]Topic
		for i, r := range tr.rigs {
			all.Go(func() { topics[i] = r.ensureOffsets() })
		}
		all.Wait()
		if topics[0].ID != topics[1].ID || topics[0].ID != topics[2].ID {
			t.Errorf("topics %v", topics)
		}
		tr.rest(time.Second)
		for _, r := range tr.rigs {
			for i, l := range r.leaders(topics[0]) {
				if _, ok := r.internalLog(topics[0].ID, int32(i)); !ok || len(l.Replicas) != 3 {
					t.Errorf("node %d: partition %d is not internal, or has replicas %v", r.NodeID(), i, l.Replicas)
				}
			}
		}
	})
}
