package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/partition/store"
	"github.com/flotilla-log/flotilla/replication"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// TestPullsShareARate: however many shards catch up, together they pull what the node
// may, and more while one of them is in a later round.
func TestPullsShareARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulls(&Options{CatchUpRate: 1 << 20, PullBytes: 1, Now: time.Now})
		pull := func(jobs int, round int) time.Duration {
			began := time.Now()
			var all sync.WaitGroup
			for i := range jobs {
				j := &pullJob{Pull: replication.Pull{Round: 1}}
				if i == 0 {
					j.Round = round
				}
				p.begin(j)
				all.Go(func() {
					for range 10 {
						if err := p.spend(t.Context(), 100<<10); err != nil {
							t.Error(err)
						}
					}
				})
				defer p.end(j)
			}
			all.Wait()
			return time.Since(began)
		}
		for _, tt := range []struct {
			jobs, round int
			want        time.Duration
		}{{1, 1, time.Second}, {8, 1, 8 * time.Second}, {8, 4, time.Second}, {3, 1, 3 * time.Second}, {2, 99, 0}} {
			took := pull(tt.jobs, tt.round)
			if low, high := tt.want*9/10, tt.want*11/10+10*time.Millisecond; took < low || took > high {
				t.Errorf("%d shards, one in round %d, pulled 1000 KiB each in %v, want about %v", tt.jobs, tt.round, took, tt.want)
			}
		}
		if got := p.rate(); got != 1<<20 {
			t.Errorf("the rate is %d when all are done", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.spend(ctx, 100<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that is given up ends with %v", err)
		}
	})
}

// TestPullsTakeTurns: two shards pull at a time, those in a late round first, then who
// came first, and one of them that stands still does not hold up the others for good.
func TestPullsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulls(&Options{CatchUpRate: 1 << 20, PullBytes: 1, Now: time.Now})
		began := time.Now()
		var mu sync.Mutex
		var order []string
		job := func(name string, round int) (end func()) {
			j := &pullJob{Pull: replication.Pull{Round: round}}
			p.begin(j)
			go func() {
				if err := p.turn(t.Context(), j); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprintf("%s %v", name, time.Since(began)))
			}()
			synctest.Wait()
			return func() { p.end(j) }
		}
		endA := job("a", 1)
		defer job("b", 1)()
		time.Sleep(time.Second)
		defer job("c", 1)()
		time.Sleep(time.Second)
		defer job("d", 2)()
		defer job("e", 1)()
		time.Sleep(time.Second)
		endA()
		time.Sleep(time.Minute)
		want := []string{"a 0s", "b 0s", "d 2s", "c 6s", "e 7s"}
		mu.Lock()
		defer mu.Unlock()
		if d := cmp.Diff(want, order); d != "" {
			t.Errorf("turns differ (-want +got):\n%s", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		waits := &pullJob{Pull: replication.Pull{Round: 1}}
		p.begin(waits)
		defer p.end(waits)
		if err := p.turn(ctx, waits); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a turn that is given up ends with %v", err)
		}
	})
}

// asked counts the calls for batches, none of which is answered, and what memory is
// taken at the time.
type asked struct {
	transport.Peers
	of *Budget

	mu    sync.Mutex
	calls int
	now   int
	most  int
	held  int64
}

func (a *asked) Call(ctx context.Context, node int32, _ transport.Method, _ []byte) ([]byte, error) {
	a.mu.Lock()
	a.calls++
	a.now++
	a.most, a.held = max(a.most, a.now), max(a.held, a.of.Used())
	a.mu.Unlock()
	time.Sleep(time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now--
	return nil, errors.New("a test answers nothing")
}

// TestPullMemory: what shards pull at the same time, and what a node answers to those
// who pull, has the memory that there is for it, and the others wait.
func TestPullMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRig(t, vfs.NewMem(1))
		defer func() { r.stop() }()
		largest := r.largestPull()
		if largest < pullBytes+pullAnswerBytes || largest < r.journal.MaxRecordBytes() {
			t.Errorf("a call is taken for %d bytes", largest)
		}
		r.pulls.taken, r.pulls.answered = NewBudget(2*largest), NewBudget(2*largest)
		peers := &asked{of: r.pulls.taken}
		asks := &Broker{opt: r.opt, pulls: r.pulls} // the one that runs looks at its own options meanwhile
		asks.opt.Cluster = &Cluster{Peers: peers}
		s := r.carried()[1]
		if err := s.store.BeginPrefetch(); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range uint32(7) {
			of := store.Restored{Key: 100 + i, TopicID: [16]byte{1, byte(i)}, Index: 0, End: 10}
			p, err := s.store.Prefetch(of)
			if err != nil {
				t.Fatal(err)
			}
			j := &pullJob{c: &catchUp{b: asks, shard: s}, Pull: replication.Pull{Round: 1, Sources: []replication.ReplicaID{{Node: 2}}}}
			all.Go(func() {
				if _, err := j.chunk(t.Context(), of, p); !errors.Is(err, errNoSource) {
					t.Errorf("chunk = %v", err)
				}
				_ = p.Close()
			})
		}
		all.Wait()
		if peers.calls != 7 || peers.most != 2 || peers.held != 2*largest {
			t.Errorf("%d calls, %d at a time, with %d bytes; want 7, at most 2 at a time, and %d", peers.calls, peers.most, peers.held, 2*largest)
		}
		if used := r.pulls.taken.Used(); used != 0 {
			t.Errorf("%d bytes are held when all is done", used)
		}
		if err := r.pulls.answered.Acquire(t.Context(), 2*largest); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		request := pullRequest{shard: 1, topic: [16]byte{1}, maxBytes: 1, end: 1}
		if _, err := r.answerPull(ctx, request.encode()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an answer without memory for it: %v", err)
		}
		r.pulls.answered.Release(2 * largest)
		if _, err := r.answerPull(t.Context(), request.encode()); err != nil {
			t.Errorf("an answer with memory for it: %v", err)
		}
		if used := r.pulls.answered.Used(); used != 0 {
			t.Errorf("%d bytes are held after the answers", used)
		}
	})
}
