package replication

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// trio is three voters of a shard, each with its own disk, by node 1 to 3.
type trio struct {
	t     *testing.T
	hub   *transport.Hub
	ids   []ReplicaID
	disks [4]vfs.FS
	mem   [4]*vfs.Mem
	rigs  [4]*rig // nil: down

	refuse ReplicaID // is installed nothing
}

// refusing is the transport of a replica that is installed nothing.
type refusing struct {
	Transport
	rpcs chan raft.RPC
	done chan struct{}
	end  sync.Once
}

// refuseInstalls answers the checkpoints that come in at to.
func refuseInstalls(to Transport) Transport {
	r := &refusing{Transport: to, rpcs: make(chan raft.RPC), done: make(chan struct{})}
	go func() {
		for {
			select {
			case rpc := <-to.Consumer():
				if _, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok {
					rpc.RespChan <- raft.RPCResponse{Error: errNoCatchUp}
					continue
				}
				select {
				case r.rpcs <- rpc:
				case <-r.done:
					return
				}
			case <-r.done:
				return
			}
		}
	}()
	return r
}

// Consumer implements raft.Transport.
func (r *refusing) Consumer() <-chan raft.RPC { return r.rpcs }

// Close implements raft.WithClose.
func (r *refusing) Close() error {
	r.end.Do(func() { close(r.done) })
	return r.Transport.Close()
}

// withTrio runs a test of three voters in virtual time.
func withTrio(t *testing.T, test func(t *testing.T, tr *trio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, hub: transport.NewHub(transport.HubOptions{Seed: 1})}
		for node := int32(1); node <= 3; node++ {
			tr.ids = append(tr.ids, ReplicaID{Node: node, Incarnation: 0xa0 + uint64(node)})
			tr.mem[node] = vfs.NewMem(uint64(node))
			tr.disks[node] = tr.mem[node]
		}
		for node := 1; node <= 3; node++ {
			tr.start(node)
		}
		defer func() {
			for node := 1; node <= 3; node++ {
				tr.kill(node)
			}
			time.Sleep(time.Minute)
		}()
		test(t, tr)
	})
}

func (tr *trio) start(node int) { tr.startAs(node, tr.ids[node-1]) }

func (tr *trio) startAs(node int, id ReplicaID) {
	tr.t.Helper()
	var to Transport = tr.hub.Join(1, id)
	if tr.refuse == id {
		to = refuseInstalls(to)
	}
	r, err := startVoter(tr.disks[node], id, to, tr.ids)
	if err != nil {
		tr.t.Fatalf("node %d: %v", node, err)
	}
	tr.rigs[node] = r
}

// kill closes a node without giving it time for anything.
func (tr *trio) kill(node int) {
	if r := tr.rigs[node]; r != nil {
		tr.rigs[node] = nil
		_ = r.replica.Close()
		_ = r.journal.Close()
		_ = r.votes.Close()
	}
}

// cutPower takes a node's power away, and with it what was not synced.
func (tr *trio) cutPower(node int) {
	tr.mem[node].Freeze()
	next := tr.mem[node].CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	tr.kill(node)
	tr.mem[node], tr.disks[node] = next, next
}

// isolate cuts a node off, or heals it.
func (tr *trio) isolate(node int32, cut bool) {
	for other := int32(1); other <= 3; other++ {
		if other != node {
			tr.hub.Cut(node, other, cut)
			tr.hub.Cut(other, node, cut)
		}
	}
}

// leader waits until one of nodes leads.
func (tr *trio) leader(nodes ...int) int {
	tr.t.Helper()
	for range 60_000 {
		for _, node := range nodes {
			if r := tr.rigs[node]; r != nil && r.replica.Leading() != 0 {
				return node
			}
		}
		time.Sleep(time.Millisecond)
	}
	tr.t.Fatalf("none of %v leads after a minute", nodes)
	return 0
}

func (tr *trio) others(node int) (others []int) {
	for n := 1; n <= 3; n++ {
		if n != node {
			others = append(others, n)
		}
	}
	return others
}

// write proposes lines at a node, one after the other, and returns how many
// were acknowledged before the first error.
func (tr *trio) write(node int, lines ...string) (int, error) {
	for i, line := range lines {
		got, err := tr.rigs[node].propose(line)
		if err != nil {
			return i, err
		}
		select {
		case a := <-got:
			if a.err != nil {
				return i, a.err
			}
		case <-time.After(time.Minute):
			return i, errors.New("no answer after a minute")
		}
	}
	return len(lines), nil
}

func (tr *trio) mustWrite(node int, lines ...string) {
	tr.t.Helper()
	if _, err := tr.write(node, lines...); err != nil {
		tr.t.Fatalf("node %d: %v", node, err)
	}
}

// rest lets virtual time pass.
func (tr *trio) rest(d time.Duration) { time.Sleep(d) }

// numbered makes lines that are told apart.
func numbered(prefix string, n, bytes int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("%s-%d-%s", prefix, i, strings.Repeat("x", bytes)))
	}
	return lines
}

// agree waits until the nodes have applied the same, and want is what they have.
func (tr *trio) agree(want []string, nodes ...int) {
	tr.t.Helper()
	for range 60_000 {
		if !slices.ContainsFunc(nodes, func(n int) bool { return len(tr.rigs[n].fsm.all()) < len(want) }) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for _, n := range nodes {
		if got := tr.rigs[n].fsm.all(); !slices.Equal(got, want) {
			tr.t.Errorf("node %d has %d lines, want %d, or other ones", n, len(got), len(want))
		}
	}
}

// wipe makes the situation in which a replica that has forgotten everything
// loses what was acknowledged (R11): a and c have it, b was cut off; a dies, c
// comes back empty, as id, and b and c are a majority.
func (tr *trio) wipe(as func(old ReplicaID) ReplicaID) (a, b, c int) {
	a = tr.leader(1, 2, 3)
	b, c = tr.others(a)[0], tr.others(a)[1]
	tr.isolate(int32(b), true)
	tr.mustWrite(a, numbered("acknowledged", 20, 10)...)
	tr.kill(a)
	tr.kill(c)
	tr.mem[c] = vfs.NewMem(99)
	tr.disks[c] = tr.mem[c]
	tr.isolate(int32(b), false)
	tr.startAs(c, as(tr.ids[c-1]))
	return a, b, c
}
