package transport

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// states is what OnState told of a node, with the time since it was made.
type states struct {
	mu    sync.Mutex
	began time.Time
	told  []string
}

func (s *states) note(node int32, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprintf("%d %t %v", node, connected, time.Since(s.began)))
}

func (s *states) take() string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	told := strings.Join(s.told, ", ")
	s.told, s.began = nil, time.Now()
	return told
}

// watched is bubble with what node 1 is told of the other.
func watched(t *testing.T, tune func(opt *MeshOptions), test func(t *testing.T, ms *meshes, st *states)) {
	t.Helper()
	st := new(states)
	bubble(t, func(opt *MeshOptions) {
		tune(opt)
		if opt.Node == 1 {
			st.began = time.Now() // in the bubble: before any of its goroutines notes something
			opt.OnState = st.note
		}
	}, func(t *testing.T, ms *meshes) { test(t, ms, st) })
}

// TestMeshState: a broken connection is told of at once, and made again at once; a
// silent one after a while.
func TestMeshState(t *testing.T) {
	watched(t, func(*MeshOptions) {}, func(t *testing.T, ms *meshes, st *states) {
		a, _ := ms.replicas(1)
		if got := st.take(); got != "2 true 0s" {
			t.Errorf("connected: told %q", got)
		}
		time.Sleep(10 * time.Second) // nobody says anything
		if got := st.take(); got != "" {
			t.Errorf("idle: told %q", got)
		}
		waits := make(chan error, 1)
		go func() {
			waits <- a[0].RequestVote(name(two), "", &raft.RequestVoteRequest{Term: 1}, new(raft.RequestVoteResponse))
		}()
		synctest.Wait()
		began := time.Now()
		ms.sim.Reset(host(2))
		if err := <-waits; !errors.Is(err, ErrBroken) || time.Since(began) > 0 {
			t.Errorf("a call on its way: %v after %v", err, time.Since(began))
		}
		if got := st.take(); got != "2 false 0s, 2 true 0s" {
			t.Errorf("reset: told %q", got)
		}
		ms.sim.Cut(host(1), host(2))
		ms.sim.Cut(host(2), host(1))
		time.Sleep((silences + 1) * conformanceTimeout)
		if got := st.take(); got != "2 false 1s" && got != "2 false 1.25s" {
			t.Errorf("silent: told %q", got)
		}
		ms.sim.Heal()
		time.Sleep(lastBackoff)
		if got := st.take(); !strings.HasPrefix(got, "2 true ") {
			t.Errorf("healed: told %q", got)
		}
		ms.nodes[2].Close()
		if got := st.take(); !strings.HasPrefix(got, "2 false 0s") {
			t.Errorf("closed: told %q", got)
		}
	})
}

// TestMeshSilent: a node that has been silent for too long is not connected, and not
// only once that is looked at again.
func TestMeshSilent(t *testing.T) {
	watched(t, func(*MeshOptions) {}, func(t *testing.T, ms *meshes, st *states) {
		const trip = conformanceTimeout / 5 // what came last came so long after a look
		ms.sim.SetLatency("", "", trip/2, trip/2)
		ms.replicas(1)
		time.Sleep(10 * conformanceTimeout)
		st.take()
		ms.sim.Cut(host(1), host(2))
		ms.sim.Cut(host(2), host(1))
		began := time.Now()
		for ms.nodes[1].Connected(2) {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > silences*conformanceTimeout {
			t.Errorf("after %v of silence the node was still connected", took)
		}
		if got := st.take(); got != "" {
			t.Errorf("nobody was to look yet: told %q", got)
		}
		time.Sleep(conformanceTimeout / 2)
		if got := st.take(); !strings.HasPrefix(got, "2 false ") {
			t.Errorf("told %q", got)
		}
	})
}

// TestMeshWasStopped: a process that did not run for a while does not take what
// it did not hear for silence.
func TestMeshWasStopped(t *testing.T) {
	var asleep atomic.Int64
	slept := func(opt *MeshOptions) {
		opt.Clock = WallClock
		opt.Clock.Now = func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }
	}
	watched(t, slept, func(t *testing.T, ms *meshes, st *states) {
		ms.replicas(0)
		st.take()
		time.Sleep(conformanceTimeout / 2) // between two ticks
		asleep.Store(int64(time.Minute))
		time.Sleep(10 * conformanceTimeout)
		if got := st.take(); got != "" {
			t.Errorf("told %q", got)
		}
	})
}
