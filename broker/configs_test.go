package broker

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/internal/config"
	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestAlterTopicLists changes lists element by element, and replaces all configs.
func TestAlterTopicLists(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const list = "leader.replication.throttled.replicas"
		topic := r.create("t", 1, map[string]string{"retention.ms": " +5"})
		set := func() map[string]string {
			all := make(map[string]string)
			for _, c := range r.TopicConfigs(topic.ID) {
				if !c.Default {
					all[c.Key] = c.Value
				}
			}
			return all
		}
		if diff := cmp.Diff(map[string]string{"retention.ms": "5"}, set()); diff != "" {
			t.Errorf("a value is kept in its one form: %s", diff)
		}
		for _, tt := range []struct {
			change TopicChange
			want   map[string]string
			err    errcode.Code
		}{
			{change: TopicChange{Append: map[string]string{list: "1:1,0:1"}}, want: map[string]string{"retention.ms": "5", list: "1:1,0:1"}},
			{change: TopicChange{Append: map[string]string{list: "2:1,1:1"}}, want: map[string]string{"retention.ms": "5", list: "1:1,0:1,2:1"}},
			{change: TopicChange{Subtract: map[string]string{list: "0:1,7:7"}, ValidateOnly: true}, want: map[string]string{"retention.ms": "5", list: "1:1,0:1,2:1"}},
			{change: TopicChange{Subtract: map[string]string{list: "0:1,7:7"}}, want: map[string]string{"retention.ms": "5", list: "1:1,2:1"}},
			{change: TopicChange{Append: map[string]string{list: "x"}}, want: map[string]string{"retention.ms": "5", list: "1:1,2:1"}, err: errcode.InvalidConfig},
			{change: TopicChange{Append: map[string]string{list: "3:1"}, Set: map[string]string{list: "4:1"}}, want: map[string]string{"retention.ms": "5", list: "1:1,2:1"}, err: errcode.InvalidRequest},
			{change: TopicChange{}, want: map[string]string{"retention.ms": "5", list: "1:1,2:1"}, err: errcode.InvalidRequest},
			{change: TopicChange{Replace: true, Set: map[string]string{"segment.ms": "7"}}, want: map[string]string{"segment.ms": "7"}},
			{change: TopicChange{Replace: true}, want: map[string]string{}},
		} {
			tt.change.Topic = topic.ID
			if _, err := r.AlterTopic(t.Context(), tt.change); errcode.Of(err) != tt.err {
				t.Errorf("%+v: %v, want %v", tt.change, err, tt.err)
			}
			if diff := cmp.Diff(tt.want, set()); diff != "" {
				t.Errorf("%+v: %s", tt.change, diff)
			}
		}
	})
}

// TestNoCleanup: with an empty cleanup.policy nothing expires, until it is set.
func TestNoCleanup(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, map[string]string{"retention.ms": "1000", "cleanup.policy": ""})
		r.mustProduce(topic, at(t, time.Now(), 10))
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := r.DescribePartition(topic.ID, 0); s.LogStart != 0 {
			t.Errorf("log start %d without a policy", s.LogStart)
		}
		r.alter(topic, map[string]string{"cleanup.policy": "delete"})
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := r.DescribePartition(topic.ID, 0); s.LogStart != 1 {
			t.Errorf("log start %d with one, want 1", s.LogStart)
		}
	})
}

// TestSmallestMessageLimit: Kafka lets a topic take nothing at all.
func TestSmallestMessageLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, map[string]string{"max.message.bytes": "0"})
		if res := r.produce(topic, 0, records(t, batch.NoProducer, "a")); res.Err == nil || res.Err.Code != errcode.MessageTooLarge {
			t.Errorf("%+v, want MESSAGE_TOO_LARGE", res)
		}
	})
}

func TestTopicDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1), func(o *Options) {
			o.DefaultPartitions = 3
			o.Settings = []config.KafkaSetting{
				{Name: "num.partitions", Kind: config.Int, Value: "3", Set: true}, {Name: "default.replication.factor", Kind: config.Int, Value: "-1"},
				{Name: "connections.max.idle.ms", Kind: config.Int, Long: true, Value: "600000"},
				{Name: "replica.selector.class", Kind: config.Text, Value: config.LeaderSelector, Null: true},
			}
		})
		defer r.stop()
		if topic := r.create("t", 0, nil); topic.Partitions != 3 {
			t.Errorf("%d partitions, want num.partitions", topic.Partitions)
		}
		have := make(map[string]NodeConfig)
		for _, c := range r.NodeConfigs() {
			have[c.Name] = c
		}
		if c := have["num.partitions"]; c.Value != "3" || c.Default || c.Type != metadata.ConfigInt {
			t.Errorf("%+v", c)
		}
		if c := have["default.replication.factor"]; c.Value != "1" || !c.Default {
			t.Errorf("%+v, want the number of nodes", c)
		}
		if c := have["connections.max.idle.ms"]; c.Value != "600000" || c.Type != metadata.ConfigLong {
			t.Errorf("%+v", c)
		}
		if c := have["replica.selector.class"]; c.Value != "" || !c.Null || !c.Default || c.Type != metadata.ConfigString {
			t.Errorf("%+v, want no value", c)
		}
		if names := slices.Sorted(maps.Keys(have)); len(names) != len(r.NodeConfigs()) {
			t.Errorf("a name stands twice: %s", strings.Join(names, " "))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1), func(o *Options) { o.DefaultReplication = 2 })
		defer r.stop()
		if _, err := r.CreateTopic(t.Context(), TopicSpec{Name: "t"}); errcode.Of(err) != errcode.InvalidReplicationFactor {
			t.Errorf("two replicas on one node: %v", err)
		}
	})
}
