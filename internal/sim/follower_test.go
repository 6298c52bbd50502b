package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/history"
)

// readFrom counts a batch that a consumer got from a node.
func (fl *fleet) readFrom(node int32, topic string, partition int32) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	key := history.Key{Topic: topic, Partition: partition}
	if fl.sources == nil {
		fl.sources = make(map[history.Key]map[int32]int)
	}
	if fl.sources[key] == nil {
		fl.sources[key] = make(map[int32]int)
	}
	fl.sources[key][node]++
}

// from returns how many batches of a partition consumers got from each node.
func (fl *fleet) from(key history.Key) map[int32]int {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return maps.Clone(fl.sources[key])
}

// follower is a consumer with a rack of one partition, from its first record on.
type follower struct {
	fl  *fleet
	key history.Key
	c   *kgo.Client

	mu   sync.Mutex
	next int64 // the offset that is to come
	late time.Duration
}

// run reads until the client is closed. Whatever happens to nodes, each record
// comes once, in order, and no error but that a node is out of reach.
func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := f.c.PollFetches(ctx)
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			var far *net.OpError
			if !errors.Is(err, context.Canceled) && !errors.As(err, &far) {
				f.fl.problem("a consumer of %s[%d] with a rack: %v", topic, partition, err)
			}
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, r := range p.Records {
				if r.Offset != f.next {
					f.fl.problem("offset %d came where %d was to", r.Offset, f.next)
				}
				f.next, f.late = r.Offset+1, max(f.late, time.Since(r.Timestamp))
			}
			if p.Err == nil && p.HighWatermark < f.next {
				f.fl.problem("the high watermark is %d for who has read %d records", p.HighWatermark, f.next)
			}
		})
	}
}

// reached waits until the consumer has read n records, and returns how late the
// latest of those was that have come since the last call.
func (f *follower) reached(n int64, within time.Duration) (late time.Duration) {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		next := f.next
		late = f.late
		if next >= n {
			f.late = 0
		}
		f.mu.Unlock()
		if next >= n {
			return late
		}
		if time.Since(began) > within {
			f.fl.problem("a consumer with a rack has read %d records of %d after %v", next, n, within)
			return late
		}
	}
}

// TestFollowerFetch: a consumer that says its rack reads from the follower there
// (KIP-392), and each record is there within what a follower takes to hear that it
// is committed. When that follower is cut off from the others the consumer goes back to the leader, and when it is
// back to the follower; when the leader's process ends, or the follower's, it goes on
// with who is left. It never meets an offset that is out of range, a record twice, or
// a gap.
func TestFollowerFetch(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		fl.rackAware = true
		all, ok := fl.muster()
		if !ok {
			return
		}
		key := history.Key{Topic: "near"}
		if err := fl.createKafka(all[0], key.Topic, nil); err != nil {
			fl.problem("CreateTopics: %v", err)
			return
		}
		time.Sleep(settle)
		known, ok := fl.kafkaTopic(all[0], key.Topic, false)
		if !ok || len(known.Partitions) != 1 || known.Partitions[0].Leader < 1 {
			fl.problem("nobody leads: %+v", known)
			return
		}
		leader := fl.members[known.Partitions[0].Leader-1]
		near := fl.members[leader.id%fleetNodes]

		writer, reader := fl.hire(), fl.hire()
		defer writer.leave()
		defer reader.leave()
		w := writer.kafka(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(time.Minute))
		defer w.Close()
		if _, _, err := w.ProducerID(fl.stopping); err != nil {
			fl.problem("no producer id: %v", err)
			return
		}
		f := &follower{fl: fl, key: key, c: reader.kafka(
			kgo.Rack(fmt.Sprintf("r%d", near.id)), kgo.RecheckPreferredReplicaInterval(2*time.Second), kgo.WithHooks(readFrom{fl.readFrom}),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{key.Topic: {0: kgo.NewOffset().At(0)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
			kgo.FetchMaxWait(500*time.Millisecond),
		)}
		ctx, cancel := context.WithCancel(fl.stopping)
		var running sync.WaitGroup
		running.Go(func() { f.run(ctx) })
		defer running.Wait()
		defer f.c.Close()
		defer cancel()

		written := int64(0)
		write := func(when string, n int, gap time.Duration) {
			for range n {
				time.Sleep(gap)
				if err := w.ProduceSync(fl.stopping, &kgo.Record{Topic: key.Topic, Value: []byte("x")}).FirstErr(); err != nil {
					fl.problem("%s: %v", when, err)
					return
				}
				written++
			}
		}
		read := func(when string, within time.Duration, want, not *member) {
			before := fl.from(key)
			write(when, 20, within/10)
			late := f.reached(written, within)
			after := fl.from(key)
			t.Logf("%s: at most %v late, from %v", when, late, after)
			if after[want.id] == before[want.id] {
				fl.problem("%s: nothing was read from node %d: %v, then %v", when, want.id, before, after)
			}
			if not != nil && after[not.id] != before[not.id] {
				fl.problem("%s: node %d was read from: %v, then %v", when, not.id, before, after)
			}
		}
		read("at rest", time.Second, near, leader)
		fl.isolate(near, true, true)
		read("the follower is cut off", 5*time.Second, leader, nil)
		fl.isolate(near, false, false)
		time.Sleep(settle)
		write("the follower is back", 1, 0) // which the leader may have been asked for before it knew
		f.reached(written, time.Second)
		read("the follower is back", time.Second, near, leader)
		fl.end(leader, killed)
		write("the leader is gone", 20, 500*time.Millisecond)
		f.reached(written, 5*time.Second)
		if !fl.start(leader) {
			return
		}
		time.Sleep(settle)
		write("the leader is back", 1, 0)
		f.reached(written, 5*time.Second)
		fl.end(near, killed)
		write("the follower is gone", 20, 500*time.Millisecond)
		f.reached(written, 10*time.Second)
		fl.healthy()
	})
	report(t, 1, problems, tr)
}

// TestFollowerHistories is TestVoters with consumers of each rack, which read from
// followers whatever happens to the nodes: the checker's rows hold for what they
// read.
func TestFollowerHistories(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	nodes := make(map[int32]int)
	t.Cleanup(func() { t.Logf("batches read, by node: %v", nodes) })
	for _, seed := range seeds(t, 30, 3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			var of *fleet
			problems, tr, _ := runFleet(t, seed, func(fl *fleet) {
				fl.rackAware, of = true, fl
				votersHistory(fl)
			})
			report(t, seed, fleetVerdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			for _, from := range of.sources {
				for id, n := range from {
					nodes[id] += n
				}
			}
		})
	}
}
