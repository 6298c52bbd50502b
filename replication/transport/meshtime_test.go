package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowWire lets so many bytes a second through.
type slowWire struct {
	net.Conn
	bytesPerSecond int
}

func (s slowWire) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		m := 0
		piece := b[n:min(len(b), n+s.bytesPerSecond/100)]
		time.Sleep(time.Second * time.Duration(len(piece)) / time.Duration(s.bytesPerSecond))
		m, err = s.Conn.Write(piece)
		n += m
	}
	return n, err
}

// slowly has node 1 dial over a slow wire.
func slowly(bytesPerSecond int) func(*MeshOptions) {
	return func(opt *MeshOptions) {
		opt.MaxInFlightBytes = 8 << 20
		dial := opt.Dial
		opt.Dial = func(ctx context.Context, to string) (net.Conn, error) {
			conn, err := dial(ctx, to)
			if err == nil && opt.Node == 1 {
				conn = slowWire{conn, bytesPerSecond}
			}
			return conn, err
		}
	}
}

// replicas has nodes 1 and 2 with a replica of each of some shards.
func (ms *meshes) replicas(shards int) (a, b []*Member) {
	ms.connect(ms.node(1), ms.node(2))
	for s := range shards {
		a, b = append(a, ms.nodes[1].Join(ShardID(s), one)), append(b, ms.nodes[2].Join(ShardID(s), two))
	}
	ms.joined = slices.Concat(a, b)
	return a, b
}

func closeAll(t *testing.T, members ...[]*Member) {
	t.Helper()
	for _, ms := range members {
		for _, m := range ms {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func heartbeat(m *Member) error {
	return m.AppendEntries(name(two), "", &raft.AppendEntriesRequest{Term: 7}, new(raft.AppendEntriesResponse))
}

// TestMeshSlowWire: what moves does not time out, however long it takes.
func TestMeshSlowWire(t *testing.T) {
	bubble(t, slowly(256<<10), func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(1)
		answering(b[0], yes)
		began := time.Now()
		if err := a[0].AppendEntries(name(two), "", appendOf(1, 2<<20), new(raft.AppendEntriesResponse)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 8*time.Second || took > 9*time.Second {
			t.Errorf("2 MiB at 256 KiB/s took %v", took)
		}
		ms.cut(1, 2, true) // and what does not, does
		began = time.Now()
		if err := a[0].AppendEntries(name(two), "", appendOf(2, 2<<20), new(raft.AppendEntriesResponse)); !errors.Is(err, ErrTimeout) {
			t.Errorf("over a cut way: %v", err)
		}
		if took := time.Since(began); took > 3*conformanceTimeout {
			t.Errorf("over a cut way it took %v", took)
		}
		ms.sim.Heal()
	})
}

// TestMeshSlowReplica: a replica that answers one call after the other is not
// dead; one that hangs is, though others on its node answer.
func TestMeshSlowReplica(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(2)
		answering(b[0], func(rpc raft.RPC) (any, error) {
			time.Sleep(conformanceTimeout * 4 / 5)
			return yes(rpc)
		})
		pipe, err := a[0].AppendEntriesPipeline(name(two), "")
		if err != nil {
			t.Fatal(err)
		}
		const n = 10
		for i := range uint64(n) {
			if _, err := pipe.AppendEntries(appendOf(i+1, 2000), new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			select {
			case f := <-pipe.Consumer():
				if err := f.Error(); err != nil {
					t.Fatalf("answer %d: %v", i, err)
				}
			case <-time.After(conformanceTimeout):
				t.Fatalf("answer %d did not come", i)
			}
		}
		_ = pipe.Close()

		// Shard 1's replica takes nothing.
		ended := make(chan error, 1)
		began := time.Now()
		var took time.Duration
		go func() {
			err := a[1].AppendEntries(name(two), "", appendOf(1, 2000), new(raft.AppendEntriesResponse))
			took = time.Since(began)
			ended <- err
		}()
		for range 3 {
			if err := heartbeat(a[0]); err != nil {
				t.Error(err)
			}
		}
		if err := <-ended; !errors.Is(err, ErrTimeout) || took != conformanceTimeout {
			t.Errorf("a replica that hangs: %v after %v, want ErrTimeout after %v", err, took, conformanceTimeout)
		}
	})
}

// TestMeshLaterAnswersDoNotCount: a call whose answer never comes ends, though
// later ones are answered all the time.
func TestMeshLaterAnswersDoNotCount(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(1)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case rpc := <-b[0].Consumer():
					if _, vote := rpc.Command.(*raft.RequestVoteRequest); !vote {
						rpc.Respond(yes(rpc))
					}
				case <-stop:
					return
				}
			}
		}()
		began := time.Now()
		ended := make(chan error, 1)
		go func() {
			ended <- a[0].RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
		}()
		for range 15 {
			time.Sleep(conformanceTimeout / 10)
			if err := heartbeat(a[0]); err != nil {
				t.Error(err)
			}
		}
		if err := <-ended; !errors.Is(err, ErrTimeout) || time.Since(began) > 2*conformanceTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(stop)
	})
}

// TestMeshLargeCallHoldsNobodyUp sends 16 MiB over a wire that takes a minute for
// them, and heartbeats beside it.
func TestMeshLargeCallHoldsNobodyUp(t *testing.T) {
	bubble(t, slowly(256<<10), func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(1)
		answering(b[0], yes)
		ms.nodes[2].Serve(func(_ context.Context, _ int32, _ Method, p []byte) ([]byte, error) { return p[:1], nil })
		ended := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := ms.nodes[1].Call(t.Context(), 2, 1, make([]byte, MaxCallBytes))
			ended <- err
		}()
		var worst time.Duration
		for range 20 {
			time.Sleep(time.Second)
			at := time.Now()
			if err := heartbeat(a[0]); err != nil {
				t.Error(err)
			}
			worst = max(worst, time.Since(at))
		}
		if worst > 10*time.Millisecond {
			t.Errorf("a heartbeat took %v beside 16 MiB", worst)
		}
		if err := <-ended; err != nil || time.Since(began) < time.Minute {
			t.Errorf("the large call: %v after %v", err, time.Since(began))
		}
	})
}

// TestMeshShardsTakeTurns: 4 MiB of one shard do not hold up another's 20 KiB.
func TestMeshShardsTakeTurns(t *testing.T) {
	bubble(t, slowly(1<<20), func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(2)
		answering(b[0], yes)
		answering(b[1], yes)
		large := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			if err := a[0].AppendEntries(name(two), "", appendOf(1, 4<<20), new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
			large <- time.Since(began)
		}()
		time.Sleep(10 * time.Millisecond)
		if err := a[1].AppendEntries(name(two), "", appendOf(1, 20<<10), new(raft.AppendEntriesResponse)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 1200*time.Millisecond {
			t.Errorf("20 KiB took %v behind 4 MiB at 1 MiB/s", took)
		}
		if took := <-large; took < 4*time.Second {
			t.Errorf("4 MiB took %v", took)
		}
	})
}

// TestMeshWindow: what replicas hang on is bounded for the whole node, and taken
// back when nobody waits for it any more.
func TestMeshWindow(t *testing.T) {
	const shards, size = 8, 100 << 10
	bubble(t, func(opt *MeshOptions) { opt.MaxHeldBytes, opt.MaxInFlightBytes = 4*size+size/2, 1<<20 }, func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(shards)
		var group sync.WaitGroup
		for i := range shards {
			group.Go(func() {
				if err := a[i].AppendEntries(name(two), "", appendOf(1, size), new(raft.AppendEntriesResponse)); !errors.Is(err, ErrTimeout) {
					t.Error(err)
				}
			})
		}
		time.Sleep(conformanceTimeout / 2)
		held, _ := sessionFrom(ms.nodes[2], 1).load()
		if held < 3*size || held > 4*size+size/2 {
			t.Errorf("node 2 holds %d bytes, at most %d", held, 4*size+size/2)
		}
		if _, err := a[0].Probe(t.Context(), two); !errors.Is(err, ErrUnreachable) { // nobody answers probes
			t.Errorf("a probe behind them: %v", err)
		}
		group.Wait()
		synctest.Wait()
		if held, _ := sessionFrom(ms.nodes[2], 1).load(); held != 0 {
			t.Errorf("nobody waits any more, and node 2 holds %d bytes", held)
		}
		for i := range b {
			b[i].mu.Lock()
			if n := len(b[i].inbox); n != 0 {
				t.Errorf("nobody waits any more, and replica %d has %d requests before it", i, n)
			}
			b[i].mu.Unlock()
		}
		// And the window is as large as before.
		for i := range b {
			answering(b[i], yes)
			if err := a[i].AppendEntries(name(two), "", appendOf(1, 4*size), new(raft.AppendEntriesResponse)); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestMeshCancelHalfway gives up a call of which a part is sent: the rest is not,
// and nothing of it counts any more.
func TestMeshCancelHalfway(t *testing.T) {
	bubble(t, slowly(1<<20), func(t *testing.T, ms *meshes) {
		a, b := ms.node(1), ms.node(2)
		ms.connect(a, b)
		came := 0
		b.Serve(func(_ context.Context, _ int32, _ Method, p []byte) ([]byte, error) {
			came += len(p)
			return nil, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := a.Call(ctx, 2, 1, make([]byte, MaxCallBytes)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(4 * time.Second)
		if out := a.Stats()[0].BytesOut; out > 4<<20 {
			t.Errorf("%d bytes were sent of a call that nobody waits for after 2 MiB", out)
		}
		if to, from := a.Stats()[0].InFlightBytes, b.Stats()[0].HeldBytes; to != 0 || from != 0 {
			t.Errorf("%d bytes count at the caller and %d at the callee", to, from)
		}
		if _, err := a.Call(t.Context(), 2, 1, []byte("small")); err != nil || came != 5 {
			t.Errorf("%v, %d bytes came to who answers", err, came)
		}
	})
}

// TestMeshComesBack: who was away and dials is dialled, and called, at once.
func TestMeshComesBack(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a := ms.node(1)
		dials := func() int { return strings.Count(ms.logs.String(), "no way to another node") }
		if _, err := a.Call(t.Context(), 2, 0, nil); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := dials(); n != 1 {
			t.Errorf("%d lines in the log about one cause", n)
		}
		b := ms.node(2)
		b.Serve(func(context.Context, int32, Method, []byte) ([]byte, error) { return nil, nil })
		_, _ = b.Call(t.Context(), 1, 0, nil)
		began := time.Now()
		if _, err := a.Call(t.Context(), 2, 0, nil); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestMeshAddress: an address is asked for anew, and one that is not known yet
// later.
func TestMeshAddress(t *testing.T) {
	known := ""
	bubble(t, func(opt *MeshOptions) {
		opt.Address = func(int32) (string, bool) { return known, known != "" }
	}, func(t *testing.T, ms *meshes) {
		a, b := ms.node(1), ms.node(2)
		b.Serve(func(context.Context, int32, Method, []byte) ([]byte, error) { return nil, nil })
		if _, err := a.Call(t.Context(), 2, 0, nil); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "not known") {
			t.Error(err)
		}
		known = addr(2)
		began := time.Now()
		if _, err := a.Call(t.Context(), 2, 0, nil); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestMeshBackoff: a node that takes connections and breaks them is not dialled
// again and again without a pause.
func TestMeshBackoff(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		l, err := ms.sim.Listen(addr(8))
		if err != nil {
			t.Fatal(err)
		}
		n, done := 0, make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				n++
				if _, err = readHello(conn); err == nil {
					_, _ = conn.Write(welcome{min: 1, max: 1, version: 1, node: 8, window: 1, calls: 1, cluster: testCluster}.append(nil))
				}
				if n%2 == 0 {
					_ = conn.Close()
				}
			}
		}()
		_, _ = ms.node(1).Call(t.Context(), 8, 0, nil)
		time.Sleep(10 * time.Second)
		_ = l.Close()
		<-done
		if n < 2*10 || n > 2*40 {
			t.Errorf("%d connections in 10 s", n)
		}
	})
}

// TestMeshHome: a call to an earlier incarnation on this very node is refused, and
// a node that calls itself answers.
func TestMeshHome(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a := ms.node(2)
		r := a.Join(1, wiped)
		for call, err := range everyCall(r, two) {
			if !errors.Is(err, ErrOtherReplica) {
				t.Errorf("%s: %v, want ErrOtherReplica", call, err)
			}
		}
		a.Serve(func(_ context.Context, from int32, _ Method, p []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%d %s", from, bytes.ToUpper(p)), nil
		})
		if got, err := a.Call(t.Context(), 2, 1, []byte("x")); err != nil || string(got) != "2 X" {
			t.Errorf("%q, %v", got, err)
		}
		closeAll(t, []*Member{r})
	})
}

// TestMeshInstallTakesLonger: a checkpoint is answered when the state is restored.
func TestMeshInstallTakesLonger(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(1)
		slow := 30 * time.Second
		answering(b[0], func(rpc raft.RPC) (any, error) {
			time.Sleep(slow)
			return yes(rpc)
		})
		install := func() (resp raft.InstallSnapshotResponse, err error) {
			err = a[0].InstallSnapshot(name(two), "", &raft.InstallSnapshotRequest{Term: 1}, &resp, strings.NewReader("state"))
			return resp, err
		}
		if resp, err := install(); err != nil || !resp.Success {
			t.Errorf("after %v: %+v, %v", slow, resp, err)
		}
		slow = 2 * installTimeout
		began := time.Now()
		if _, err := install(); !errors.Is(err, ErrTimeout) || time.Since(began) != installTimeout+conformanceTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(slow) // the replica still does it
	})
}

func TestMeshStats(t *testing.T) {
	bubble(t, nil, func(t *testing.T, ms *meshes) {
		a, _ := ms.replicas(1)
		ms.sim.SetLatency("", "", 3*time.Millisecond, 3*time.Millisecond)
		go func() { _ = a[0].AppendEntries(name(two), "", appendOf(1, 40<<10), new(raft.AppendEntriesResponse)) }()
		time.Sleep(conformanceTimeout + conformanceTimeout/2)
		st := ms.nodes[1].Stats()
		if len(st) != 1 || st[0].Node != 2 || !st[0].Connected || st[0].BytesOut < 40<<10 || st[0].BytesIn == 0 || st[0].RoundTrip != 6*time.Millisecond {
			t.Errorf("%+v", st)
		}
		go func() { _ = a[0].AppendEntries(name(two), "", appendOf(1, 40<<10), new(raft.AppendEntriesResponse)) }()
		time.Sleep(conformanceTimeout / 2)
		if got := ms.nodes[1].Stats()[0].InFlightBytes; got < 40<<10 || got > 41<<10 {
			t.Errorf("%d bytes in flight", got)
		}
		if got := ms.nodes[2].Stats(); got[0].HeldBytes < 40<<10 || got[0].HeldBytes > 41<<10 || got[0].InFlightBytes != 0 {
			t.Errorf("the other end: %+v", got)
		}
	})
}

// TestMeshPipelineKeepsOrder: small and empty calls of a pipeline do not pass
// large ones before them.
func TestMeshPipelineKeepsOrder(t *testing.T) {
	bubble(t, slowly(1<<20), func(t *testing.T, ms *meshes) {
		a, b := ms.replicas(1)
		came := answering(b[0], yes)
		pipe, err := a[0].AppendEntriesPipeline(name(two), "")
		if err != nil {
			t.Fatal(err)
		}
		const n = 12
		for i := range uint64(n) {
			req := appendOf(i+1, []int{300 << 10, 8, 20 << 10}[i%3])
			if i%4 == 3 {
				req.Entries = nil
			}
			if _, err := pipe.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			if f := <-pipe.Consumer(); f.Error() != nil {
				t.Error(f.Error())
			}
		}
		for i, c := range came() {
			if got := c.(*raft.AppendEntriesRequest).PrevLogEntry; got != uint64(i) {
				t.Errorf("call %d came as number %d", got, i)
			}
		}
		_ = pipe.Close()
	})
}
