package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// limited runs a test against a broker with limits, in a bubble.
func limited(t *testing.T, limits Limits, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, err := tryRig(t, vfs.NewMem(1), func(o *Options) { o.Limits = limits })
		defer func() { r.stop() }()
		if err != nil {
			t.Fatal(err)
		}
		test(t, r)
	})
}

// restart starts the broker again with other limits.
func (r *rig) restart(limits Limits) {
	r.t.Helper()
	r.stop()
	next, err := tryRig(r.t, r.fs, func(o *Options) { o.Limits = limits })
	*r = *next
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryCreate(name string, partitions int32, configs map[string]string) error {
	_, err := r.CreateTopic(r.t.Context(), TopicSpec{Name: name, Partitions: partitions, Configs: configs})
	return err
}

func wantCode(t *testing.T, err error, code errcode.Code, text string) {
	t.Helper()
	if errcode.Of(err) != code || code != errcode.None && !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want %v with %q", err, code, text)
	}
}

func TestPartitionsMax(t *testing.T) {
	limited(t, Limits{Partitions: 5, TopicPartitions: 3}, func(t *testing.T, r *rig) {
		wantCode(t, r.tryCreate("a", 4, nil), errcode.InvalidPartitions, "give 1 to 3 (topics.partitions.max)")
		wantCode(t, r.tryCreate("a", 3, nil), errcode.None, "")
		wantCode(t, r.tryCreate("b", 3, nil), errcode.PolicyViolation, "the cluster has 3, and may have 5 (partitions.max)")
		wantCode(t, r.tryCreate("b", 2, nil), errcode.None, "")
		wantCode(t, r.tryCreate("c", 1, nil), errcode.PolicyViolation, "partitions.max")
		b, _ := r.TopicByName("b")
		_, err := r.AddPartitions(t.Context(), b.ID, 3, nil, false)
		wantCode(t, err, errcode.PolicyViolation, "partitions.max")
		_, err = r.AddPartitions(t.Context(), b.ID, 4, nil, false)
		wantCode(t, err, errcode.InvalidPartitions, "topics.partitions.max")
		if s := r.Stats(); s.PartitionCount != 5 || s.TopicCount != 2 || s.Limits.Partitions != 5 {
			t.Errorf("%d partitions, %d topics, limits %+v", s.PartitionCount, s.TopicCount, s.Limits)
		}
		topic, _ := r.TopicByName("a")
		if err := r.DeleteTopic(t.Context(), topic.ID); err != nil {
			t.Fatal(err)
		}
		wantCode(t, r.tryCreate("c", 3, nil), errcode.None, "")

		// Lowered below what is there: that stays, and no more comes.
		r.restart(Limits{Partitions: 1})
		wantCode(t, r.tryCreate("d", 1, nil), errcode.PolicyViolation, "partitions.max")
		if s := r.Stats(); s.PartitionCount != 5 {
			t.Errorf("%d partitions", s.PartitionCount)
		}
	})
}

// TestPartitionsMaxAtOnce: topics that are created at the same time do not get
// past the limit together.
func TestPartitionsMaxAtOnce(t *testing.T) {
	limited(t, Limits{Partitions: 10}, func(t *testing.T, r *rig) {
		// The metadata's disk is slow: all of them ask before one is applied.
		r.fs.SetInjector(func(op vfs.Op) vfs.Fault {
			if (op.Kind == vfs.OpSyncData || op.Kind == vfs.OpSync) && strings.Contains(op.Path, "metadata") {
				return vfs.Fault{Delay: time.Second}
			}
			return vfs.Fault{}
		})
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() { _ = r.tryCreate(fmt.Sprint("t", i), 3, nil) })
		}
		group.Wait()
		if s := r.Stats(); s.PartitionCount > 10 || s.PartitionCount == 0 {
			t.Errorf("%d partitions, at most 10", s.PartitionCount)
		}
		if left := r.creating.Load(); left != 0 {
			t.Errorf("%d partitions are claimed after all answers", left)
		}
	})
}

func TestBatchBytesMax(t *testing.T) {
	limited(t, Limits{BatchBytes: 5000}, func(t *testing.T, r *rig) {
		wantCode(t, r.tryCreate("t", 1, map[string]string{"max.message.bytes": "6000"}), errcode.InvalidConfig, "batch.bytes.max")
		topic := r.create("t", 1, nil)
		if res := r.produce(topic, 0, records(t, batch.NoProducer, strings.Repeat("x", 4000))); res.Err != nil {
			t.Error(res.Err)
		}
		res := r.produce(topic, 0, records(t, batch.NoProducer, strings.Repeat("x", 5000)))
		if res.Err == nil || res.Err.Code != errcode.MessageTooLarge {
			t.Errorf("a batch above the limit: %+v", res)
		}
	})
}

// TestProducersMax: the limit is each shard's state, follows the setting at a
// restart, and holds after one that did not change it.
func TestProducersMax(t *testing.T) {
	limited(t, Limits{Producers: 2}, func(t *testing.T, r *rig) {
		topic := r.create("t", 1, nil)
		id := int64(0)
		next := func() *errcode.Error {
			p, err := r.InitProducer(t.Context(), Producer{ID: -1})
			if err != nil {
				t.Fatal(err)
			}
			id = p.ID
			return r.produce(topic, 0, records(t, batch.Producer{ID: id}, "v")).Err
		}
		for range 2 {
			if err := next(); err != nil {
				t.Fatal(err)
			}
		}
		if err := next(); err == nil || err.Code != errcode.ThrottlingQuotaExceeded || !err.Code.Retriable() {
			t.Fatalf("a third producer: %v", err)
		}
		r.restart(Limits{Producers: 2})
		if err := next(); err == nil {
			t.Error("the limit is gone after a restart")
		}
		r.restart(Limits{Producers: 3})
		if err := next(); err != nil {
			t.Error("the raised limit does not hold:", err)
		}
		if err := next(); err == nil {
			t.Error("a fourth producer passed")
		}
		most := 0
		for _, s := range r.Stats().Shards[1:] {
			if most = max(most, s.Producers); s.ProducerLimit != 3 {
				t.Errorf("%+v", s)
			}
		}
		if most != 3 {
			t.Errorf("a shard remembers %d producers", most)
		}
	})
}

// TestMetricTopicsMax: so many topics have counters, the others share theirs,
// and what was counted is right.
func TestMetricTopicsMax(t *testing.T) {
	limited(t, Limits{MetricTopics: 2}, func(t *testing.T, r *rig) {
		var topics []Topic
		for i := range 4 {
			topics = append(topics, r.create(fmt.Sprint("t", i), 2, nil))
		}
		one := records(t, batch.Producer{ID: 5}, "a", "b")
		size := uint64(len(one))
		for _, topic := range topics {
			for range 2 { // the second is there already
				if res := r.produce(topic, 1, append([]byte(nil), one...)); res.Err != nil {
					t.Fatal(res.Err)
				}
			}
		}
		res := r.fetch(FetchRequest{MaxBytes: 1 << 20, Parts: []FetchPart{{Topic: topics[0].ID, Index: 1, MaxBytes: 1 << 20, Epoch: -1}}})
		res[0].Sent()
		res[0].Release()
		byName := make(map[string]TopicStats)
		for _, s := range r.Stats().Topics {
			byName[s.Name] = s
		}
		want := map[string]TopicStats{
			"t0": {Name: "t0", Partitions: 2, BatchesIn: 1, RecordsIn: 2, BytesIn: size, BytesOut: size},
			"t1": {Name: "t1", Partitions: 2, BatchesIn: 1, RecordsIn: 2, BytesIn: size},
			"":   {Partitions: 4, BatchesIn: 2, RecordsIn: 4, BytesIn: 2 * size},
		}
		if len(byName) != len(want) {
			t.Errorf("topics %v", byName)
		}
		for name, w := range want {
			if byName[name] != w {
				t.Errorf("topic %q: %+v, want %+v", name, byName[name], w)
			}
		}

		// A topic that goes makes a place, for one that comes.
		if err := r.DeleteTopic(t.Context(), topics[0].ID); err != nil {
			t.Fatal(err)
		}
		r.create("new", 1, nil)
		names := ""
		for _, s := range r.Stats().Topics {
			names += s.Name + ","
		}
		if !strings.Contains(names, "new,") || strings.Contains(names, "t0") {
			t.Errorf("topics %s", names)
		}
		if n := len(r.dir.topics); n != 2 {
			t.Errorf("%d topics have counters", n)
		}
	})
}

func TestCheckpointStats(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.create("t", 1, nil)
		time.Sleep(time.Second)
		r.Checkpoint()
		s := r.Stats()
		for _, c := range s.Checkpoints {
			if c.Times.Count() == 0 || c.Failed != 0 || !c.Last.Equal(time.Now()) {
				t.Errorf("%+v at %v", c, time.Now())
			}
		}
		for _, sh := range s.Shards {
			if !sh.Leading || sh.Applied == 0 || sh.Applied != sh.Checkpointed {
				t.Errorf("%+v", sh)
			}
		}
	})
}
