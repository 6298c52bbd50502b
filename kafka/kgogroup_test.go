package kafka_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/flotilla-log/flotilla/internal/node"
)

// consumed is what the members of a group have read.
type consumed struct {
	mu      sync.Mutex
	records map[string]int      // how often each value was seen
	last    map[string]int64    // the last offset of each partition
	by      map[string][]string // the members that had a partition's records
	more    chan struct{}
}

func newConsumed() *consumed {
	return &consumed{records: make(map[string]int), last: make(map[string]int64), by: make(map[string][]string), more: make(chan struct{}, 1)}
}

func (c *consumed) take(t *testing.T, member string, r *kgo.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	part := fmt.Sprint(r.Topic, r.Partition)
	if last, ok := c.last[part]; ok && r.Offset != last+1 {
		t.Errorf("partition %s: offset %d after %d", part, r.Offset, last)
	}
	c.last[part] = r.Offset
	c.records[string(r.Value)]++
	if !slices.Contains(c.by[part], member) {
		c.by[part] = append(c.by[part], member)
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// await waits until all of n records were seen.
func (c *consumed) await(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for {
		c.mu.Lock()
		seen := len(c.records)
		c.mu.Unlock()
		if seen >= n {
			return
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			t.Fatalf("%d of %d records were seen", seen, n)
		}
	}
}

// TestKgoGroups: two members of a franz-go group share a topic, in both protocols:
// each record is seen once, in order; what was committed is where the one that is left
// goes on after the other has left; and kadm sees the group, its lag, and its end.
func TestKgoGroups(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "consumer"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			n := startCore(t, func(opt *node.Options) {
				opt.Groups = node.DefaultGroups()
				opt.Groups.InitialRebalanceDelay, opt.Groups.ConsumerHeartbeatInterval = 0, 20*time.Millisecond
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			const parts, each = 4, 50
			admin, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("t"))
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			adm := kadm.NewClient(admin)
			must(adm.CreateTopic(ctx, parts, -1, nil, "t"))(t)
			produced := 0
			produce := func() {
				var rs []*kgo.Record
				for i := range parts * each {
					rs = append(rs, &kgo.Record{Partition: int32(i % parts), Value: fmt.Append(nil, produced)})
					produced++
				}
				if err := admin.ProduceSync(ctx, rs...).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			seen := newConsumed()
			var members sync.WaitGroup
			defer members.Wait()
			balancer := kgo.Balancers(kgo.CooperativeStickyBalancer())
			if kind == "consumer" {
				balancer = kgo.ServerSideBalancer()
			}
			join := func(name string) (leave func()) {
				assigned := make(chan struct{}, 100)
				c, err := kgo.NewClient(kgo.SeedBrokers(n.addr), kgo.ClientID(name), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), balancer,
					kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(20*time.Millisecond), kgo.BlockRebalanceOnPoll(), kgo.DisableAutoCommit(),
					kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
						if len(got["t"]) > 0 {
							assigned <- struct{}{}
						}
					}))
				if err != nil {
					t.Fatal(err)
				}
				polling, stop := context.WithCancel(ctx)
				members.Go(func() {
					for polling.Err() == nil {
						fs := c.PollFetches(polling)
						fs.EachRecord(func(r *kgo.Record) { seen.take(t, name, r) })
						if fs.NumRecords() > 0 {
							if err := c.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
								t.Errorf("%s: %v", name, err)
							}
						}
						c.AllowRebalance()
					}
					c.Close()
				})
				select {
				case <-assigned:
				case <-ctx.Done():
					t.Fatalf("%s has no partitions", name)
				}
				return stop
			}
			leaveA := join("a")
			leaveB := join("b")
			defer leaveB()
			produce()
			seen.await(ctx, t, produced)
			groups := must(adm.ListGroups(ctx))(t)
			if len(groups) != 1 || groups["g"].Coordinator != 7 || groups["g"].ProtocolType != "consumer" || groups["g"].GroupType != kind {
				t.Errorf("groups: %+v", groups)
			}
			leaveA()
			produce()
			seen.await(ctx, t, produced)
			for value, times := range seen.records {
				if times != 1 {
					t.Errorf("record %s was seen %d times", value, times)
				}
			}
			leaveB()
			members.Wait()
			produce() // which nobody has read
			committed, end := must(adm.FetchOffsets(ctx, "g"))(t), must(adm.ListEndOffsets(ctx, "t"))(t)
			lag := kadm.CalculateGroupLag(kadm.DescribedGroup{Group: "g", State: "Empty"}, committed, end)
			if lag.Total() != parts*each {
				t.Errorf("lag %d, want %d", lag.Total(), parts*each)
			}
			if kind == "classic" {
				if lag := must(adm.Lag(ctx, "g"))(t)["g"]; lag.Error() != nil || lag.Lag.Total() != parts*each || lag.State != "Empty" {
					t.Errorf("lag %d, state %s, %v", lag.Lag.Total(), lag.State, lag.Error())
				}
			} else if g := must(adm.DescribeConsumerGroups(ctx, "g"))(t)["g"]; g.Err != nil || g.State != "Empty" {
				t.Errorf("described: %+v", g)
			}
			if got := must(adm.DeleteGroups(ctx, "g", "none"))(t); got["g"].Err != nil || got["none"].Err != kerr.GroupIDNotFound {
				t.Errorf("deleted: %+v", got)
			}
		})
	}
}
