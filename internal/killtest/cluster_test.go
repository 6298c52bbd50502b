package killtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// clusterPartitions is how many partitions the topic of a cluster has.
const clusterPartitions = 6

// processes are three nodes of a cluster, each a process.
type processes struct {
	t     *testing.T
	nodes [3]*server // nil: it is down
	logs  [3]*os.File
	host  [3]string   // the address that node i+1 has
	data  [3]string   // its directory
	run   [3][]string // the command to which its arguments are appended
	more  []string    // arguments beside those of every node
}

// startCluster starts three nodes with fresh directories, which found a cluster.
func startCluster(t *testing.T, b *bench) *processes {
	// An address of this machine that no other run has: the ports are known before
	// anybody listens, and nobody takes them in between.
	pid := os.Getpid()
	ps := &processes{t: t}
	for i := range ps.host {
		ps.host[i] = fmt.Sprintf("127.%d.%d.%d", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
		ps.data[i] = filepath.Join(b.dir, fmt.Sprint("node-", i+1))
		ps.run[i] = []string{b.binary}
	}
	ps.found(b.dir)
	return ps
}

// found starts the nodes, whose logs go to dir, and waits until they serve.
func (ps *processes) found(dir string) {
	t := ps.t
	for i := range ps.logs {
		var err error
		if ps.logs[i], err = os.Create(filepath.Join(dir, fmt.Sprintf("node-%d.log", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for i, s := range ps.nodes {
			if s != nil {
				s.signal(syscall.SIGKILL)
				<-s.gone
			}
			_ = ps.logs[i].Close()
		}
	})
	for i := range ps.nodes {
		ps.start(i)
	}
	for i := range ps.nodes {
		ps.serving(i)
	}
}

func (ps *processes) addr(i int) string { return fmt.Sprintf("%s:%d", ps.host[i], 19091+i) }

// start starts node i+1, and does not wait for it.
func (ps *processes) start(i int) {
	ps.t.Helper()
	list := ""
	for n := range ps.nodes {
		list += fmt.Sprintf(",%d@%s:%d", n+1, ps.host[n], 19191+n)
	}
	args := append(slices.Clip(ps.run[i][1:]),
		"serve", "--data.dir", ps.data[i], "--node.id", fmt.Sprint(i+1),
		"--cluster.id", "killed", "--cluster.nodes", list[1:], "--node.listen", fmt.Sprintf("%s:%d", ps.host[i], 19191+i),
		"--listen", ps.addr(i), "--admin.listen", "off", "--shards.per.node", "1",
		"--journal.bytes", "8MiB", "--journal.file.bytes", "1MiB", "--memory.bytes", "32MiB", "--log.level", "debug", "--log.format", "json",
	)
	s, err := startServer(ps.run[i][0], ps.logs[i], append(args, ps.more...), nil)
	if err != nil {
		ps.t.Fatal(err)
	}
	ps.nodes[i] = s
}

func (ps *processes) serving(i int) {
	ps.t.Helper()
	if _, err := ps.nodes[i].serving(ps.t.Context()); err != nil {
		ps.t.Fatalf("node %d: %v", i+1, err)
	}
}

// kill ends node i+1 by SIGKILL.
func (ps *processes) kill(i int) {
	s := ps.nodes[i]
	s.signal(syscall.SIGKILL)
	<-s.gone
	ps.nodes[i] = nil
}

// check fails the test if a running node has complained, or has ended.
func (ps *processes) check() {
	ps.t.Helper()
	for i, s := range ps.nodes {
		if s == nil {
			continue
		}
		select {
		case <-s.gone:
			ps.t.Fatalf("node %d: %v", i+1, s.died("it ended"))
		default:
		}
		if err := s.complaint(); err != nil {
			ps.t.Errorf("node %d: %v", i+1, err)
		}
	}
}

// written is what an idempotent producer got acknowledged.
type written struct {
	mu   sync.Mutex
	at   map[string]int // value by "partition/offset"
	more chan struct{}  // 1-buffered: there is more
	err  error          // the first record that was given up
}

func (w *written) done(value int, r client.RecordResult) {
	w.mu.Lock()
	if r.Err != nil && w.err == nil {
		w.err = fmt.Errorf("record %d was given up: %w", value, r.Err)
	}
	if r.Err == nil {
		w.at[fmt.Sprintf("%d/%d", r.Partition, r.Offset)] = value
	}
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *written) count() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.at), w.err
}

// await waits for n more records to be acknowledged.
func (w *written) await(t *testing.T, ps *processes, what string, n int) {
	t.Helper()
	had, _ := w.count()
	timeout := time.NewTimer(phaseTimeout)
	defer timeout.Stop()
	for {
		got, err := w.count()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got >= had+n {
			return
		}
		select {
		case <-w.more:
		case <-timeout.C:
			ps.check()
			t.Fatalf("%s: %d of %d records were acknowledged", what, got-had, n)
		}
	}
}

// TestKillCluster kills nodes of a cluster that lead what is written to: the
// others go on, the killed ones come back, and everything is there once.
func TestKillCluster(t *testing.T) {
	b := newBench(t)
	chance := rand.New(rand.NewPCG(b.seed, 0))
	ps := startCluster(t, b)
	c, err := client.New(client.Config{Bootstrap: []string{ps.addr(0)}}) // it learns of the others
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*phaseTimeout)
	defer cancel()
	if _, err := c.Admin().CreateTopic(ctx, client.TopicSpec{Name: "all", Partitions: clusterPartitions}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer(client.ProducerConfig{Topic: "all"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(context.WithoutCancel(ctx)) }()
	w := &written{at: make(map[string]int), more: make(chan struct{}, 1)}
	stop := make(chan struct{})
	var producing sync.WaitGroup
	producing.Go(func() {
		tokens := time.NewTicker(time.Millisecond)
		defer tokens.Stop()
		for n := 0; ; n++ {
			select {
			case <-tokens.C:
			case <-stop:
				return
			}
			r := client.Record{Partition: int32(n % clusterPartitions), Value: strconv.AppendInt(nil, int64(n), 10)}
			if err := p.Send(ctx, r, func(r client.RecordResult) { w.done(n, r) }); err != nil {
				w.done(n, client.RecordResult{Err: err})
				return
			}
		}
	})
	w.await(t, ps, "at first", 200)
	for range 2 {
		victim := ps.leader(ctx, c, w, chance)
		ps.kill(victim)
		w.await(t, ps, fmt.Sprintf("without node %d", victim+1), 300)
		ps.start(victim)
		ps.serving(victim)
		w.await(t, ps, fmt.Sprintf("with node %d again", victim+1), 300)
	}
	close(stop)
	producing.Wait()
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	ps.check()
	w.compare(t, readBack(ctx, t, c, w))
}

// leader returns a node that leads some partition, by the dice. Of one whose leader
// is just being elected there is none.
func (ps *processes) leader(ctx context.Context, c *client.Client, w *written, chance *rand.Rand) int {
	ps.t.Helper()
	for {
		d, err := c.Admin().DescribeTopic(ctx, "all")
		if err != nil {
			ps.t.Fatal(err)
		}
		var leaders []int
		for _, p := range d.Partitions {
			if p.Leader >= 1 {
				leaders = append(leaders, int(p.Leader)-1)
			}
		}
		if len(leaders) > 0 {
			return leaders[chance.IntN(len(leaders))]
		}
		w.await(ps.t, ps, "with no leader", 1)
	}
}

// readBack reads everything.
func readBack(ctx context.Context, t *testing.T, c *client.Client, w *written) map[string]int {
	t.Helper()
	ends, err := c.Admin().Offsets(ctx, "all", client.Latest)
	if err != nil {
		t.Fatal(err)
	}
	cfg := client.ConsumerConfig{}
	for i := range ends {
		cfg.Assignments = append(cfg.Assignments, client.Assignment{Topic: "all", Partition: int32(i), Offset: client.Beginning})
	}
	co, err := c.NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer co.Close()
	got := make(map[string]int)
	for {
		behind := slices.ContainsFunc(cfg.Assignments, func(a client.Assignment) bool {
			at, err := co.Position("all", a.Partition)
			return err != nil || ends[a.Partition] > 0 && at < ends[a.Partition]
		})
		if !behind {
			return got
		}
		all, err := co.Poll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.Err != nil {
				t.Fatal(f.Err)
			}
			for r, err := range f.Records() {
				if err != nil {
					t.Fatal(err)
				}
				value, err := strconv.Atoi(string(r.Value))
				if err != nil {
					t.Fatalf("partition %d, offset %d: %v", f.Partition, r.Offset, err)
				}
				got[fmt.Sprintf("%d/%d", f.Partition, r.Offset)] = value
			}
		}
	}
}

// compare compares what was read with what was acknowledged.
func (w *written) compare(t *testing.T, got map[string]int) {
	t.Helper()
	if err := w.err; err != nil {
		t.Error(err)
	}
	if len(got) != len(w.at) {
		t.Errorf("%d records were read, %d acknowledged", len(got), len(w.at))
	}
	lost := 0
	for at, value := range w.at {
		if is, ok := got[at]; !ok || is != value {
			if lost++; lost <= 3 {
				t.Errorf("at %s: record %d was acknowledged, and %d (there: %t) was read", at, value, is, ok)
			}
		}
	}
	times := make(map[int]int)
	for _, value := range got {
		times[value]++
	}
	for value, n := range times {
		if n > 1 {
			t.Errorf("record %d was read %d times", value, n)
		}
	}
	t.Logf("%d records, %d lost", len(got), lost)
}
