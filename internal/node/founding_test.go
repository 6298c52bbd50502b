package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// party is nodes on their way to a cluster: their directories and their calls,
// and nothing of what comes after the founding.
type party struct {
	t   *testing.T
	hub *transport.Hub
	rng *rand.Rand

	mu      sync.Mutex
	started map[plan][]string // who started a plan, as node/directory
	said    []string          // what nodes waited for
	wiped   map[int32]bool    // since the party began

	seats [3]*seat
	group sync.WaitGroup // of all processes
}

// seat is a node and its directory.
type seat struct {
	id   int32
	disk *vfs.Mem
	stop func() // ends the process; nil: it is down
}

func newParty(t *testing.T, seed uint64) *party {
	p := &party{
		t: t, hub: transport.NewHub(transport.HubOptions{Seed: seed}), rng: rand.New(rand.NewPCG(seed, 0)),
		started: make(map[plan][]string), wiped: make(map[int32]bool),
	}
	for i := range p.seats {
		p.seats[i] = &seat{id: int32(i + 1), disk: vfs.NewMem(seed*3 + uint64(i))}
	}
	return p
}

// start starts a node on its disk: it stops by itself once it has a cluster,
// unless it cannot, and goes on answering.
func (p *party) start(s *seat, nodes ...int32) {
	ctx, cancel := context.WithCancel(context.Background())
	peers := p.hub.Node(s.id)
	if nodes == nil {
		nodes = []int32{1, 2, 3}
	}
	n := &Node{
		opt: Options{
			FS: s.disk, Dir: "d", NodeID: s.id, ClusterID: "c", Shards: 4 + uint32(s.id),
			Cluster: &Cluster{Nodes: nodes, Peers: peers},
			Rand:    rand.NewChaCha8([32]byte{byte(p.rng.Uint32()), byte(p.rng.Uint32()), byte(p.rng.Uint32())}), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
		idTurn: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	peers.Serve(n.answer)
	done := make(chan struct{})
	p.group.Go(func() {
		defer close(done)
		defer peers.Close()
		err := n.join(ctx)
		p.mu.Lock()
		if err == nil {
			pl := plan{n.id.ClusterID, n.id.Shards, n.id.Founders}
			if pl.founders.incarnation(s.id) != n.id.Incarnation {
				p.t.Errorf("node %d starts a plan in which its directory does not stand: %+v", s.id, n.id)
			}
			p.started[pl] = append(p.started[pl], fmt.Sprintf("%d/%016x", s.id, uint64(n.id.Incarnation)))
		} else if ctx.Err() == nil || strings.Contains(err.Error(), "not founded in time") {
			p.said = append(p.said, err.Error())
		}
		p.mu.Unlock()
		<-ctx.Done()
		if f := n.founding.Load(); f != nil {
			f.end()
		}
		if n.lock != nil {
			_ = n.lock.Close()
		}
	})
	s.stop = func() {
		cancel()
		<-done
	}
}

// down ends a node's process, if there is one.
func (s *seat) down() {
	if s.stop != nil {
		s.stop()
	}
	s.stop = nil
}

// join opens the directory as Start does.
func (n *Node) join(ctx context.Context) (err error) {
	n.id, _, n.lock, err = openDir(n.opt.FS, n.opt.Dir, identity{ClusterID: n.opt.ClusterID, NodeID: n.opt.NodeID, Shards: n.opt.Shards}, n.opt.Rand)
	if err != nil {
		return err
	}
	return n.found(ctx)
}

// crash ends a process and leaves its disk as a power cut does.
func (p *party) crash(s *seat, u vfs.Unsynced) {
	s.disk.Freeze()
	s.down()
	s.disk = s.disk.CrashClone(vfs.CrashOptions{Seed: p.rng.Uint64(), Unsynced: u})
}

// wipe takes a directory away.
func (p *party) wipe(s *seat) {
	s.down()
	s.disk = vfs.NewMem(p.rng.Uint64())
	p.wiped[s.id] = true
}

// end stops all nodes, and returns how many have started how many plans.
func (p *party) end() (plans, nodes int) {
	for _, s := range p.seats {
		s.down()
	}
	p.group.Wait()
	for _, who := range p.started {
		slices.Sort(who)
		nodes += len(slices.Compact(who))
	}
	return len(p.started), nodes
}

// onePlan fails the test if two plans were started, though some node kept its
// directory.
func (p *party) onePlan(what string) {
	p.t.Helper()
	if len(p.started) > 1 && len(p.wiped) < len(p.seats) {
		p.t.Errorf("%s: two clusters: %v", what, p.started)
	}
}

// TestFounding: three fresh directories found one cluster, whoever comes when,
// with the number of shards of the node that made the plan.
func TestFounding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 1)
		for _, i := range []int{2, 0, 1} {
			p.start(p.seats[i])
			time.Sleep(3 * time.Second)
			if i != 1 && len(p.started) > 0 {
				t.Errorf("a cluster was founded by %v", p.started)
			}
		}
		plans, nodes := p.end()
		if plans != 1 || nodes != 3 {
			t.Fatalf("%d nodes have started %d plans: %v; they waited for %v", nodes, plans, p.started, p.said)
		}
		for pl := range p.started {
			if pl.shards != 5 {
				t.Errorf("the cluster has %d shards, want those of node 1", pl.shards)
			}
		}
	})
}

// TestFoundingAlone: a cluster of one node needs nobody.
func TestFoundingAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 1)
		p.start(p.seats[0], 1)
		time.Sleep(10 * time.Second)
		if plans, nodes := p.end(); plans != 1 || nodes != 1 {
			t.Errorf("%d nodes have started %d plans; waited for %v", nodes, plans, p.said)
		}
	})
}

// TestFoundingCrashes ends one node at each operation of its disk, in each way,
// and then every other set of nodes may lose its directories: whatever was left,
// no two plans start. Without a loss, the cluster is founded all the same.
func TestFoundingCrashes(t *testing.T) {
	t.Parallel()
	for victim := range 3 {
		t.Run(fmt.Sprintf("node=%d", victim+1), func(t *testing.T) {
			t.Parallel()
			for at := int64(1); ; at++ {
				reached := true
				for _, u := range []vfs.Unsynced{vfs.Lose, vfs.Keep} {
					for wiped := range 7 { // a bit for each node; never all of them
						if testing.Short() && wiped != 0 && wiped != int(at)%6+1 {
							continue
						}
						synctest.Test(t, func(t *testing.T) { reached = foundingCrash(t, victim, at, u, wiped) })
					}
				}
				if t.Failed() {
					return
				}
				if !reached {
					if at < 10 {
						t.Errorf("only %d operations", at)
					}
					return
				}
			}
		})
	}
}

// foundingCrash cuts the power of a node at an operation of its disk, and of all
// nodes soon after, takes directories away, and starts all again. It reports
// whether there was such an operation.
func foundingCrash(t *testing.T, victim int, at int64, u vfs.Unsynced, wiped int) (reached bool) {
	p := newParty(t, uint64(at))
	v := p.seats[victim]
	ops, hit := int64(0), make(chan struct{})
	v.disk.SetInjector(func(vfs.Op) vfs.Fault {
		if ops++; ops == at {
			v.disk.Freeze()
			close(hit)
		}
		return vfs.Fault{}
	})
	for _, s := range p.seats {
		p.start(s)
	}
	select {
	case <-hit:
		reached = true
	case <-time.After(20 * time.Second):
	}
	time.Sleep(time.Duration(p.rng.IntN(200)) * time.Millisecond)
	for i, s := range p.seats {
		if p.crash(s, u); wiped&(1<<i) != 0 {
			p.wipe(s)
		}
		p.start(s)
	}
	time.Sleep(15 * time.Second)
	plans, nodes := p.end()
	what := fmt.Sprintf("node %d at operation %d, unsynced %v, wiped %03b", v.id, at, u, wiped)
	p.onePlan(what)
	if wiped == 0 && (plans != 1 || nodes != 3) {
		t.Errorf("%s: %d nodes have started %d plans; they waited for %v", what, nodes, plans, p.said)
	}
	return reached
}

// TestFoundingChaos has nodes come, go, lose their directories, and run twice
// under one id, in a network that loses and doubles: no two plans start as long
// as one node keeps its directory.
func TestFoundingChaos(t *testing.T) {
	t.Parallel()
	founded, seeds := 0, uint64(300)
	if testing.Short() {
		seeds = 60
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			p := newParty(t, seed)
			keeps := p.rng.IntN(3)
			for _, a := range p.seats {
				for _, b := range p.seats {
					p.hub.SetFaults(a.id, b.id, transport.Faults{
						MaxDelay: time.Duration(p.rng.IntN(300)) * time.Millisecond, LossPercent: p.rng.IntN(30), DuplicatePercent: p.rng.IntN(30), Reorder: true,
					})
				}
			}
			var zombies []func()
			for range 2 + p.rng.IntN(8) {
				i := p.rng.IntN(3)
				s := p.seats[i]
				switch p.rng.IntN(6) {
				case 0:
					p.crash(s, vfs.Unsynced(p.rng.IntN(3)))
				case 1:
					if i != keeps {
						p.wipe(s)
					}
				case 2: // another process takes its address, with another directory
					if i != keeps && s.stop != nil {
						zombies = append(zombies, s.stop)
						s.stop, s.disk = nil, vfs.NewMem(p.rng.Uint64())
						p.wiped[s.id] = true
					}
				}
				if s.stop == nil {
					p.start(s)
				}
				time.Sleep(time.Duration(p.rng.IntN(700)) * time.Millisecond)
			}
			for _, s := range p.seats {
				if s.stop == nil {
					p.start(s)
				}
			}
			time.Sleep(30 * time.Second)
			for _, stop := range zombies {
				stop()
			}
			plans, _ := p.end()
			founded += plans
			p.onePlan(fmt.Sprintf("seed %d", seed))
		})
	}
	if uint64(founded) < seeds/3 {
		t.Errorf("only %d of %d seeds founded a cluster", founded, seeds)
	}
}

// TestFoundingLost: a founder without its directory founds nothing, is told so,
// and the others start.
func TestFoundingLost(t *testing.T) {
	t.Parallel()
	for lostOne := range 3 {
		synctest.Test(t, func(t *testing.T) {
			p := newParty(t, 1)
			for _, s := range p.seats {
				p.start(s)
			}
			time.Sleep(10 * time.Second)
			p.wipe(p.seats[lostOne])
			p.start(p.seats[lostOne])
			time.Sleep(10 * time.Second)
			plans, nodes := p.end()
			want := fmt.Sprintf("node %d lost its directory, and its fresh one,", lostOne+1)
			if plans != 1 || nodes != 3 || len(p.said) != 1 || !strings.Contains(p.said[0], want) {
				t.Errorf("node %d lost its directory: %d plans by %d nodes, said %q", lostOne+1, plans, nodes, p.said)
			}
		})
	}
}

// TestFoundingFullDisk: a node that cannot record the plan that it is given stops.
func TestFoundingFullDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParty(t, 1)
		for _, s := range p.seats[:2] {
			p.start(s)
		}
		time.Sleep(time.Second)
		failing := errors.New("this disk is broken")
		p.seats[1].disk.SetInjector(func(op vfs.Op) vfs.Fault {
			if op.Kind == vfs.OpSync {
				return vfs.Fault{Err: failing}
			}
			return vfs.Fault{}
		})
		p.start(p.seats[2])
		time.Sleep(10 * time.Second)
		if plans, _ := p.end(); plans != 0 || len(p.said) == 0 || !strings.Contains(p.said[0], failing.Error()) {
			t.Errorf("%d plans were started; said %q", plans, p.said)
		}
	})
}

// TestMembersRefused lists directories that do not fit the cluster that they are
// started for.
func TestMembersRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		id    identity
		nodes []int32
		want  string
	}{
		{identity{NodeID: 1, Incarnation: 10, Founders: three}, []int32{1, 2, 3}, ""},
		{identity{NodeID: 1, Incarnation: 10, Founders: three, Started: true}, []int32{1, 2, 3}, ""},
		{identity{}, []int32{1, 2}, ""},
		{identity{}, nil, ""},
		{identity{Started: true}, nil, ""},
		{identity{Founders: three}, nil, "d is of a cluster of nodes 1, 2, 3; say with cluster.nodes where they are"},
		{identity{Started: true}, []int32{1, 2}, "served from by a node that was alone, and cannot become one of nodes 1, 2; give an empty directory"},
		{identity{Founders: three}, []int32{1, 2, 4}, "cluster.nodes lists nodes 1, 2, 4, and the cluster of d was founded with nodes 1, 2, 3"},
		{identity{NodeID: 1, Incarnation: 11, Founders: three}, []int32{1, 2, 3}, "d is of incarnation 000000000000000b, and the cluster was founded with 000000000000000a as node 1"},
		{identity{Joins: true, ClusterID: "c"}, nil, `d is of a node that was to join cluster "c", and has not yet; give join again`},
		{identity{Joins: true, ClusterID: "c"}, []int32{1, 2}, `d is of a node that was to join cluster "c", and has not yet; give join again`},
		{identity{Joins: true, NodeID: 4, Founders: three, Founded: true}, nil, "joined a cluster of nodes 1, 2, 3, and cannot serve alone"},
		{identity{Joins: true, NodeID: 4, Founders: three, Founded: true}, []int32{1, 2, 3, 4}, "leave cluster.nodes out"},
	} {
		err := tt.id.checkMembers(tt.nodes, "d")
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrMembers) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v with nodes %v: %v, want %q", tt.id, tt.nodes, err, tt.want)
		}
	}
}
