package client

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/wire/frame"
	"github.com/flotilla-log/flotilla/wire/pb"
)

// standStill makes a node answer nothing more, on connections that stay, and
// gives the topic's first partition to another one a second later.
func standStill(f *fakeCluster, node int32) {
	f.hook(func() { f.onAny = func(n int32, _ frame.Kind) bool { return n == node } })
	go func() {
		time.Sleep(time.Second)
		f.move("a", 0, (node+1)%3)
	}()
}

// acked sends a record and returns how long its acknowledgement took.
func acked(t *testing.T, p *Producer, value string) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := p.SendSync(t.Context(), Record{Value: []byte(value)}); err != nil {
		t.Fatalf("record %s: %v", value, err)
	}
	return time.Since(began)
}

// TestSilentLeader has a leader stand still, with its connections, while another
// node leads in its place: what is under way goes there, once and in order.
func TestSilentLeader(t *testing.T) {
	for name, cfg := range map[string]ProducerConfig{
		"idempotent":     {Topic: "a"},
		"not idempotent": {Topic: "a", NotIdempotent: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) {
				f.createTopic("a", 1)
				c := f.client()
				defer c.Close()
				p := newProducer(t, c, cfg)
				for i := range 3 {
					acked(t, p, numbered(3)[i])
				}
				standStill(f, 0)
				results := make(chan RecordResult, 10)
				for _, v := range numbered(8)[3:] {
					if err := p.Send(t.Context(), Record{Value: []byte(v)}, func(r RecordResult) { results <- r }); err != nil {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
				took := acked(t, p, "8")
				for range 5 {
					if r := <-results; r.Err != nil {
						t.Errorf("a record under way: %v", r.Err)
					}
				}
				if took > 3*time.Second {
					t.Errorf("acknowledged after %v, where another node leads after 1 s", took)
				}
				if diff := cmp.Diff(numbered(9), f.values("a", 0)); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestSilentLeaderIsRead has a leader stand still while it is read.
func TestSilentLeaderIsRead(t *testing.T) {
	bothWays(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		f.fill("a", 0, 0, 3, 3, batch.None)
		c := f.client()
		defer c.Close()
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, 0, time.Time{}}}})
		defer co.Close()
		read(t, co, 3)
		synctest.Wait()
		standStill(f, 0)
		began := time.Now()
		time.Sleep(1500 * time.Millisecond)
		f.fill("a", 0, 3, 6, 3, batch.None)
		if diff := cmp.Diff(map[int32][]string{0: numbered(6)[3:]}, read(t, co, 3)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("read after %v, where another node leads after 1 s", took)
		}
	})
}

// TestSlowLeader has a leader that answers pings, and nothing else for long: it
// is waited for, as nobody names another one, and nobody is asked all the time.
func TestSlowLeader(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		acked(t, p, "0")
		asked, pings := f.count(frame.KindMetadata), f.count(frame.KindPing)
		hangs := true
		f.hook(func() {
			f.onProduce = func(*pb.ProduceRequest) fault {
				if hangs {
					return hang
				}
				return noFault
			}
		})
		done := make(chan time.Duration, 1)
		go func() { done <- acked(t, p, "1") }()
		time.Sleep(DefaultRequestTimeout - time.Second)
		f.hook(func() { hangs = false })
		if n := f.count(frame.KindMetadata) - asked; n < 5 || n > 20 {
			t.Errorf("%d questions who leads in 29 s, want 5 to 20", n)
		}
		if n := f.count(frame.KindPing) - pings; n < 5 || n > 60 {
			t.Errorf("%d pings in 29 s, want 5 to 60", n)
		}
		f.mu.Lock()
		dials := f.dials["node0:9092"]
		f.mu.Unlock()
		if dials != 1 {
			t.Errorf("%d connections to the leader, want that one", dials)
		}
		if took := <-done; took < DefaultRequestTimeout {
			t.Errorf("given up after %v, without another leader", took)
		}
		if diff := cmp.Diff(numbered(2), f.values("a", 0)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

// TestDeposedLeader has a leader that answers pings and not what was produced
// before another node was elected: it gets the time to say so itself.
func TestDeposedLeader(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		acked(t, p, "0")
		first := true
		f.hook(func() {
			f.onProduce = func(*pb.ProduceRequest) fault {
				if first {
					first = false
					p := f.topics["a"].partitions[0]
					p.leader, p.epoch = 1, p.epoch+1
					return hang
				}
				return noFault
			}
		})
		took := acked(t, p, "1")
		if took < graceFactor*DefaultOverdueAfter || took > 2*graceFactor*DefaultOverdueAfter {
			t.Errorf("given up after %v, want %v at least and not much more", took, graceFactor*DefaultOverdueAfter)
		}
		if diff := cmp.Diff(numbered(2), f.values("a", 0)); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	})
}

// TestOverdueElsewhere has a node that owes an answer asked nothing that any other
// could answer as well.
func TestOverdueElsewhere(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		if _, err := c.Admin().ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		acked(t, p, "0")
		if got := c.nodeOf(t, c.anyLink().addr); got != 0 {
			t.Fatalf("node %d is asked next, the test is of the leader, 0", got)
		}
		f.hook(func() { f.onAny = func(n int32, _ frame.Kind) bool { return n == 0 } })
		if err := p.Send(t.Context(), Record{Value: []byte("1")}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultOverdueAfter + 100*time.Millisecond) // it owes the answer
		began := time.Now()
		if _, err := c.Admin().ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("a question took %v, with two nodes that answer at once", took)
		}
		f.hook(func() { f.onAny = nil })
	})
}

// TestOverdueAlone has one node that does not answer: an error in the end, as
// there is nobody to ask.
func TestOverdueAlone(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		defer c.Close()
		p := newProducer(t, c, ProducerConfig{Topic: "a", DeliveryTimeout: 10 * time.Second})
		acked(t, p, "0")
		asked := f.count(frame.KindMetadata)
		f.hook(func() { f.onAny = func(int32, frame.Kind) bool { return true } })
		_, err := p.SendSync(t.Context(), Record{Value: []byte("1")})
		if !errors.Is(err, ErrDeliveryTimeout) || !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("%v, want ErrDeliveryTimeout and ErrUnknownOutcome", err)
		}
		if n := f.count(frame.KindMetadata) - asked; n > 0 {
			t.Errorf("%d questions to the only node", n)
		}
	})
}

func TestElsewhere(t *testing.T) {
	id, other := TopicID{1}, TopicID{2}
	img := &image{
		nodes: map[int32]string{0: "a:1", 1: "b:1"},
		topics: map[string]*topic{
			"a":       {id: id, leaders: []leader{{1, 5}, {2, 5}, {-1, 5}}},
			"missing": {err: errors.New("none")},
		},
	}
	for name, tt := range map[string]struct {
		topic                  string
		id                     TopicID
		partition, node, epoch int32
		want                   bool
	}{
		"a newer leader":               {"a", id, 0, 0, 4, true},
		"the same epoch":               {"a", id, 0, 0, 5, false},
		"the same node, newer":         {"a", id, 0, 1, 4, false},
		"a node without address":       {"a", id, 1, 0, 4, false},
		"nobody":                       {"a", id, 2, 0, 4, false},
		"a partition that is unknown":  {"a", id, 3, 0, 4, false},
		"another topic of that name":   {"a", other, 0, 0, 4, false},
		"a topic with an error":        {"missing", TopicID{}, 0, 0, 4, false},
		"a topic that was never asked": {"b", id, 0, 0, 4, false},
	} {
		if got := img.elsewhere(tt.topic, tt.id, tt.partition, tt.node, tt.epoch); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

// nodeOf returns the node of an address.
func (c *Client) nodeOf(t *testing.T, addr string) int32 {
	t.Helper()
	for id, a := range c.meta.image.Load().nodes {
		if a == addr {
			return id
		}
	}
	t.Fatalf("no node has %s", addr)
	return -1
}
