package transport

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/netsim"
)

const testCluster = "cluster-a"

// meshes is nodes on one network in memory, at "node-<id>:9192".
type meshes struct {
	t     *testing.T
	sim   *netsim.Network
	nodes map[int32]*Mesh
	edit  func(*MeshOptions) // or nil
	logs  *lines

	joined []*Member // by replicas
}

// lines is a log that a test looks at.
type lines struct {
	mu   sync.Mutex
	text string
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

func newMeshes(t *testing.T, edit func(*MeshOptions)) *meshes {
	return &meshes{t: t, sim: netsim.New(1), nodes: make(map[int32]*Mesh), edit: edit, logs: new(lines)}
}

func host(id int32) string { return fmt.Sprintf("node-%d", id) }
func addr(id int32) string { return host(id) + ":9192" }

// options are those of a node; nodes 1 to 9 have addresses.
func (ms *meshes) options(id int32) MeshOptions {
	ms.t.Helper()
	l, err := ms.sim.Listen(addr(id))
	if err != nil {
		ms.t.Fatal(err)
	}
	opt := MeshOptions{
		ClusterID: testCluster, Node: id, Listener: l,
		Dial:    func(ctx context.Context, to string) (net.Conn, error) { return ms.sim.Dial(ctx, host(id), to) },
		Address: func(node int32) (string, bool) { return addr(node), node < 10 },
		Rand:    rand.New(rand.NewPCG(uint64(id), 0)),
		Timeout: conformanceTimeout, MaxInFlightBytes: conformanceInFlight,
		Log: slog.New(slog.NewTextHandler(ms.logs, nil)),
	}
	if ms.edit != nil {
		ms.edit(&opt)
	}
	return opt
}

func (ms *meshes) node(id int32) *Mesh {
	ms.t.Helper()
	m, err := NewMesh(ms.options(id))
	if err != nil {
		ms.t.Fatal(err)
	}
	ms.nodes[id] = m
	return m
}

// connect has nodes know each other, so that ways that are cut from now on are
// those of connections.
func (ms *meshes) connect(a, b *Mesh) {
	_, _ = a.Call(context.Background(), b.opt.Node, 0, nil)
	_, _ = b.Call(context.Background(), a.opt.Node, 0, nil)
	synctest.Wait()
}

func (ms *meshes) cut(from, to int32, cut bool) {
	if cut {
		ms.sim.Cut(host(from), host(to))
	} else {
		ms.sim.Heal()
	}
}

func (ms *meshes) close() {
	for _, m := range ms.nodes {
		if err := m.Close(); err != nil {
			ms.t.Error(err)
		}
	}
}

func TestMeshConformance(t *testing.T) {
	for _, delay := range []time.Duration{0, 2 * time.Millisecond} {
		t.Run(fmt.Sprintf("delay=%v", delay), func(t *testing.T) {
			conformance(t, func() network {
				ms := newMeshes(t, nil)
				a, b := ms.node(1), ms.node(2)
				ms.connect(a, b)
				ms.sim.SetLatency("", "", delay, delay)
				return network{
					join:  func(s ShardID, id ReplicaID) Transport { return ms.nodes[id.Node].Join(s, id) },
					cut:   ms.cut,
					close: ms.close,
				}
			})
		})
	}
}

func TestMeshPeers(t *testing.T) {
	peersConformance(t, func() peerNetwork {
		ms := newMeshes(t, nil)
		return peerNetwork{node: func(id int32) closablePeers { return ms.node(id) }, cut: ms.cut}
	})
}
