package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// asked notes which nodes a Kafka client sends Produce and Metadata to, in order, as
// "Produce 2".
type asked struct {
	mu  sync.Mutex
	all []string
}

func (a *asked) OnBrokerWrite(meta kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if err != nil || key != int16(kmsg.Produce) && key != int16(kmsg.Metadata) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, fmt.Sprint(kmsg.NameForKey(key), " ", meta.NodeID))
}

// take returns what has been asked since the last call, from the first Produce on up
// to the last.
func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	produce := fmt.Sprint(kmsg.NameForKey(int16(kmsg.Produce)), " ")
	is := func(s string) bool { return len(s) > len(produce) && s[:len(produce)] == produce }
	for len(all) > 0 && !is(all[0]) {
		all = all[1:]
	}
	for len(all) > 0 && !is(all[len(all)-1]) {
		all = all[:len(all)-1]
	}
	return all
}

// TestLeaderHint: a producer whose partition has gone to another node is told which
// one with the refusal (KIP-951), and sends there next: it asks nobody for metadata
// in between. The leader epoch of the hint is above the one that it knows, or
// franz-go would pass it over.
func TestLeaderHint(t *testing.T) {
	t.Parallel()
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		all, ok := fl.muster()
		if !ok {
			return
		}
		const topic = "moves"
		if err := fl.createKafka(all[0], topic, nil); err != nil {
			fl.problem("CreateTopics: %v", err)
			return
		}
		time.Sleep(settle)
		p := fl.hire()
		defer p.leave()
		seen := new(asked)
		c := p.kafka(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.WithHooks(seen))
		defer c.Close()
		last := int32(0)
		for round, m := range []*member{all[0], all[1], all[2], all[0]} {
			for shard := range uint32(fleetShards) {
				if leader, err := p.c.Admin().TransferShard(context.Background(), shard+1, m.id); err != nil || leader != m.id {
					fl.problem("shard %d to node %d: %d, %v", shard+1, m.id, leader, err)
				}
			}
			time.Sleep(settle)
			if err := c.ProduceSync(fl.stopping, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
				fl.problem("round %d: %v", round, err)
			}
			got, want := seen.take(), []string{fmt.Sprint("Produce ", last), fmt.Sprint("Produce ", m.id)}
			if round == 0 {
				want = want[1:] // it knows nobody yet
			}
			if !slices.Equal(got, want) {
				fl.problem("round %d: asked %v, want %v", round, got, want)
			}
			last = m.id
		}
		fl.healthy()
	})
	report(t, 1, problems, tr)
}
