package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/errcode"
	"github.com/flotilla-log/flotilla/wire/frame"
)

func TestAdmin(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		c := f.client()
		defer c.Close()
		a, ctx := c.Admin(), t.Context()
		id, err := a.CreateTopic(ctx, TopicSpec{Name: "a", Partitions: 5, Configs: map[string]string{"segment.bytes": "1"}})
		if err != nil || id == (TopicID{}) {
			t.Fatalf("CreateTopic = %v, %v", id, err)
		}
		_, err = a.CreateTopic(ctx, TopicSpec{Name: "a"})
		if code, _ := CodeOf(err); code != errcode.TopicAlreadyExists || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("second CreateTopic = %v, want TOPIC_ALREADY_EXISTS", err)
		}
		for _, name := range []string{"b", "c", "d", "e"} {
			if _, err := a.CreateTopic(ctx, TopicSpec{Name: name}); err != nil {
				t.Fatal(err)
			}
		}

		topics, err := a.ListTopics(ctx) // the fake answers two at a time
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, tp := range topics {
			names = append(names, tp.Name)
		}
		if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, names); diff != "" {
			t.Errorf("ListTopics (-want +got):\n%s", diff)
		}
		cluster, topics, err := a.Metadata(ctx, "e", "a", "none")
		if err != nil {
			t.Fatal(err)
		}
		if cluster.ID != "fake" || len(cluster.Nodes) != 3 || cluster.Nodes[1] != (Node{ID: 1, Address: "node1:9092"}) {
			t.Errorf("cluster %+v", cluster)
		}
		if topics[0].Name != "e" || topics[1].ID != id || len(topics[1].Leaders) != 5 || topics[2].Err == nil {
			t.Errorf("topics %+v", topics)
		}

		d, err := a.DescribeTopic(ctx, "a")
		if err != nil || d.ID != id || len(d.Partitions) != 5 || d.Partitions[4].Partition != 4 {
			t.Errorf("DescribeTopic = %+v, %v", d, err)
		}
		_, err = a.DescribeTopic(ctx, "none")
		if code, _ := CodeOf(err); code != errcode.UnknownTopicOrPartition {
			t.Errorf("DescribeTopic of none = %v", err)
		}

		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		for range 3 {
			if _, err := p.SendSync(ctx, Record{Partition: 2}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(ctx); err != nil {
			t.Fatal(err)
		}
		f.move("a", 2, 1)
		if got, err := a.Offsets(ctx, "a", Latest); err != nil || !cmp.Equal(got, []int64{0, 0, 3, 0, 0}) {
			t.Errorf("Offsets = %v, %v", got, err)
		}
		f.mu.Lock()
		f.topics["a"].partitions[2].start = 2
		f.mu.Unlock()
		if got, err := a.Offsets(ctx, "a", Earliest); err != nil || !cmp.Equal(got, []int64{0, 0, 2, 0, 0}) {
			t.Errorf("Offsets = %v, %v", got, err)
		}
		if err := a.DeleteTopic(ctx, "a"); err != nil {
			t.Error(err)
		}
		if got := a.DeleteTopic(canceled(ctx), "b"); !errors.Is(got, context.Canceled) {
			t.Errorf("with a context that has ended: %v", got)
		}
	})
}

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// TestAdminOutcome loses requests that change something.
func TestAdminOutcome(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) { cfg.RequestTimeout = 5 * time.Second })
		defer c.Close()
		a := c.Admin()
		if _, err := a.ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.hook(func() {
			f.onAny = func(_ int32, kind frame.Kind) bool { return kind == frame.KindCreateTopic }
		})
		_, err := a.CreateTopic(t.Context(), TopicSpec{Name: "a"})
		if !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without an answer: %v, want ErrUnknownOutcome", err)
		}
		if got := f.count(frame.KindCreateTopic); got != 1 {
			t.Errorf("sent %d times, want once", got)
		}
		f.hook(func() { f.onAny = nil })
		f.setDown("node0:9092", true)
		_, err = a.CreateTopic(t.Context(), TopicSpec{Name: "a"})
		if err == nil || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without a server: %v, want a known outcome", err)
		}
		f.setDown("node0:9092", false)
		if _, err := a.CreateTopic(t.Context(), TopicSpec{Name: "a"}); err != nil {
			t.Error(err)
		}
	})
}

// TestBootstrap finds the cluster by its second address, and again when the
// node that it used is gone.
func TestBootstrap(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 3)
		f.setDown("node0:9092", true)
		c := f.client(func(cfg *Config) { cfg.Bootstrap = []string{"node0:9092", "elsewhere:1", "node2:9092"} })
		defer c.Close()
		for _, addr := range []string{"node1:9092", "node2:9092"} {
			if _, err := c.Admin().ListTopics(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.setDown("node0:9092", false)
			f.setDown(addr, true)
		}
		if _, err := c.Admin().ListTopics(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) { cfg.KeepAlive, cfg.RequestTimeout = 10*time.Second, 4*time.Second })
		defer c.Close()
		if _, err := c.Admin().ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		if got := f.count(frame.KindPing); got != 6 {
			t.Errorf("%d pings in 61 s, want 6", got)
		}
		if got := f.dials["node0:9092"]; got != 1 {
			t.Errorf("%d connections, want 1", got)
		}
		f.hook(func() { f.onAny = func(int32, frame.Kind) bool { return true } }) // the server hangs
		time.Sleep(15 * time.Second)
		f.mu.Lock()
		left := len(f.conns)
		f.mu.Unlock()
		if left != 0 {
			t.Errorf("%d connections to a server that does not answer pings", left)
		}
	})
}

// TestBackoff counts attempts at a server that is down.
func TestBackoff(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.setDown("node0:9092", true)
		c := f.client(func(cfg *Config) { cfg.Rand = rand.NewPCG(1, 2) })
		defer c.Close()
		_, err := c.Admin().ListTopics(t.Context())
		if !errors.Is(err, ErrConnection) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want ErrConnection and a deadline", err)
		}
		// 50 ms doubling to 2 s, in 30 s: about 5 + 15/0.75.
		if got := f.dials["node0:9092"]; got < 15 || got > 30 {
			t.Errorf("%d attempts in 30 s", got)
		}
	})
}

// TestNotAServer connects to what speaks something else: an error at once.
func TestNotAServer(t *testing.T) {
	bubble(t, 0, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) {
			cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go func() {
					defer server.Close()
					go io.Copy(io.Discard, server)
					io.WriteString(server, "HTTP/1.1 400 Bad Request\r\n")
				}()
				return client, nil
			}
		})
		defer c.Close()
		start := time.Now()
		_, err := c.Admin().ListTopics(t.Context())
		if !errors.Is(err, frame.ErrForeign) || !strings.Contains(err.Error(), "HTTP") {
			t.Errorf("ListTopics = %v, want HTTP named", err)
		}
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		defer p.Close(t.Context())
		if err := p.Send(t.Context(), Record{}, nil); !errors.Is(err, frame.ErrForeign) {
			t.Errorf("Send = %v, want ErrForeign", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestWrongCluster(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		c := f.client(func(cfg *Config) { cfg.ClusterID = "mine" })
		defer c.Close()
		_, err := c.Admin().ListTopics(t.Context())
		if code, _ := CodeOf(err); code != errcode.InconsistentClusterID {
			t.Errorf("ListTopics = %v, want INCONSISTENT_CLUSTER_ID", err)
		}
	})
}

func TestClosedClient(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.createTopic("a", 1)
		c := f.client()
		p := newProducer(t, c, ProducerConfig{Topic: "a"})
		if _, err := p.SendSync(t.Context(), Record{}); err != nil {
			t.Fatal(err)
		}
		co := newConsumer(t, c, ConsumerConfig{Assignments: []Assignment{{"a", 0, End, time.Time{}}}})
		polled := make(chan error)
		go func() {
			_, err := co.Poll(t.Context())
			polled <- err
		}()
		synctest.Wait()
		c.Close() // before its producer and consumer, although it should not
		if err := <-polled; !errors.Is(err, ErrClosed) {
			t.Errorf("Poll = %v, want ErrClosed", err)
		}
		if _, err := c.Admin().ListTopics(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("ListTopics = %v, want ErrClosed", err)
		}
		if err := p.Send(t.Context(), Record{}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Send = %v, want ErrClosed", err)
		}
		p.Close(t.Context())
		co.Close()
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{}, {Bootstrap: []string{"no-port"}}, {Bootstrap: []string{"a:1"}, KeepAlive: -1}} {
		if c, err := New(cfg); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
			c.Close()
		}
	}
}
