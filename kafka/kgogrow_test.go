package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/node"
)

// TestPartitionsAddedToGroups: a topic gets partitions while a group of each protocol
// reads it: the groups get them, lose none that they had, and see every record once.
func TestPartitionsAddedToGroups(t *testing.T) {
	t.Parallel()
	n := startCore(t, func(opt *node.Options) {
		opt.Groups = node.DefaultGroups()
		opt.Groups.InitialRebalanceDelay, opt.Groups.ConsumerHeartbeatInterval = 0, 20*time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const first, then, each = 2, 5, 20
	client := func(opts ...kgo.Opt) *kgo.Client {
		t.Helper()
		c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(n.addr))...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	adm := kadm.NewClient(client())
	defer adm.Close()
	must(adm.CreateTopic(ctx, first, -1, nil, "t"))(t)
	produced := 0
	produce := func(parts int) {
		t.Helper()
		c := client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t")) // which knows the partitions that there are now
		defer c.Close()
		for i := range parts * each {
			r := &kgo.Record{Partition: int32(i % parts), Value: fmt.Append(nil, produced)}
			if err := c.ProduceSync(ctx, r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			produced++
		}
	}
	produce(first)

	groups := map[string]kgo.Opt{
		"eager": kgo.Balancers(kgo.RangeBalancer()), "cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()),
		"consumer": kgo.ServerSideBalancer(),
	}
	seen := make(map[string]*consumed)
	var members sync.WaitGroup
	defer members.Wait()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	for group, balancer := range groups {
		saw := newConsumed()
		seen[group] = saw
		for m := range 2 {
			name := fmt.Sprint(group, m)
			c := client(kgo.ClientID(name), kgo.ConsumerGroup(group), kgo.ConsumeTopics("t"), balancer,
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(20*time.Millisecond), kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(),
				kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond))
			members.Go(func() {
				defer c.Close()
				for reading.Err() == nil {
					fs := c.PollFetches(reading)
					fs.EachRecord(func(r *kgo.Record) { saw.take(t, name, r) })
					if fs.NumRecords() > 0 {
						if err := c.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
							t.Errorf("%s: %v", name, err)
						}
					}
					c.AllowRebalance()
				}
			})
		}
	}
	for _, saw := range seen {
		saw.await(ctx, t, produced)
	}
	must(adm.UpdatePartitions(ctx, then, "t"))(t)
	produce(then)
	for group, saw := range seen {
		saw.await(ctx, t, produced)
		saw.mu.Lock()
		for value, times := range saw.records {
			if times != 1 {
				t.Errorf("group %s saw record %s %d times", group, value, times)
			}
		}
		if len(saw.by) != then {
			t.Errorf("group %s read %d partitions, want %d", group, len(saw.by), then)
		}
		saw.mu.Unlock()
	}
	stop()
}
