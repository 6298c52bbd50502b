package client

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/log/batch"
)

// TestProducerFollowsHint: a batch that was refused by a node which names the next leader
// is sent there at once.
func TestProducerFollowsHint(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		for i := range int32(6) {
			f.move("a", 0, i%3)
			if took := acked(t, p, "v"); i > 0 && took >= c.cfg.BackoffMin/2 {
				t.Errorf("a record for a leader that another one names was acknowledged after %v", took)
			}
		}
	})
}

// TestConsumerFollowsHint: a partition that the node which named the next leader does not
// lead any more is read there at once.
func TestConsumerFollowsHint(t *testing.T) {
	bothWays(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
		defer co.Close()
		for i := range 6 {
			f.move("a", 0, int32(i%3))
			f.fill("a", 0, 10*i, 10*i+10, 10, batch.None)
			began := time.Now()
			read(t, co, 10)
			if took := time.Since(began); i > 0 && took >= c.cfg.BackoffMin/2 {
				t.Errorf("what a leader has that another one names was read after %v", took)
			}
		}
	})
}
