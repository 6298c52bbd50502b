package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/netsim"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/kafka"
	"github.com/flotilla-log/flotilla/replication/transport"
	"github.com/flotilla-log/flotilla/wire/server"
)

const (
	fleetNodes  = 3
	fleetShards = 2

	fleetOffsets = 4 // partitions of __consumer_offsets

	scrubEvery = 5 * time.Second // of a fleet that scrubs
)

// fleet is a world of three nodes, each with a voter of every shard. Its
// clients are the world's.
type fleet struct {
	*world
	hub     *transport.Hub
	members [fleetNodes]*member

	// lie stands between a node's replica and the hub; nil: nothing does.
	lie func(transport.ShardID, transport.ReplicaID, transport.Transport) transport.Transport

	joiners int // nodes that came later; see newJoiner

	meshed bool  // nodes have connections, as real ones have
	reborn bool  // a wiped node takes its old place again, with its old identity
	ring   int64 // most bytes of a node's journal; 0: plenty
	scrub  int64 // bytes a second of segments that a node reads to look for damage; 0: none

	session   time.Duration // out of contact, before a node is fenced; 0: the default
	rackAware bool          // consumers may read from followers

	groups node.Groups                     // the settings of consumer groups; the zero value: the defaults
	tap    func(kafka.Groups) kafka.Groups // stands between a node's listener and its coordinators; nil: nothing does

	refuse bool // nodes refuse to start with damaged data, instead of being replaced

	hashes time.Duration // between two comparisons of replicas; 0: a history is too short for one

	mu    sync.Mutex
	acks  int
	floor map[history.Key]int64 // one more than the highest acknowledged offset

	sources map[history.Key]map[int32]int // batches that consumers with a rack got, by node
}

// member is one node of a fleet.
type member struct {
	id     int32
	disk   *vfs.Mem
	node   *node.Node // nil while it is down
	peers  meetings
	wiped  bool // it has lost its directory
	starts int
	inject vfs.Injector
	wrap   func(vfs.FS) vfs.FS
	clock  wallClock

	trouble atomic.Pointer[vfs.Injector] // of its disk, that a storm has made

	moved     bool          // to another port
	unserving func()        // ends a node without its directory; nil: there is none
	joined    chan struct{} // closed when it has its place again, or was ended
	late      *node.Node    // it, set before that
	hurt      bool          // it has its directory, which is damaged: it waits too, or is refused
	refused   error         // why, set before joined is closed
}

func (m *member) host() string { return fmt.Sprintf("node%d", m.id) }
func (m *member) addr() string {
	if m.moved {
		return m.host() + ":9094"
	}
	return m.host() + ":9092"
}

// runFleet is run with three nodes.
func runFleet(t *testing.T, seed uint64, f func(fl *fleet)) (problems []string, tr *trace, acks int) {
	watchdog := time.AfterFunc(hangTimeout, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("sim: %s seed %d: virtual time stands still", t.Name(), seed))
	})
	defer watchdog.Stop()
	tr = new(trace)
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), net: netsim.New(seed),
			rec: history.NewRecorder(time.Now), trace: tr,
		}
		w.stopping, w.stop = context.WithCancel(context.Background())
		fl := &fleet{world: w, hub: transport.NewHub(transport.HubOptions{Seed: seed}), floor: make(map[history.Key]int64)}
		w.acked = fl.acknowledged
		for i := range fl.members {
			fl.members[i] = &member{id: int32(i + 1), disk: vfs.NewMem(seed*fleetNodes + uint64(i))}
			w.addrs = append(w.addrs, fl.members[i].addr())
		}
		defer func() {
			w.stop()
			for _, m := range fl.members {
				fl.kill(m)
			}
			w.close()
			tr.history, problems, acks = w.rec.History(), w.problems, fl.acks
		}()
		f(fl)
	})
	return problems, tr, acks
}

// acknowledged notes an acknowledged record.
func (fl *fleet) acknowledged(key history.Key, offset int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.acks++
	fl.floor[key] = max(fl.floor[key], offset+1)
}

func (fl *fleet) ids() (ids []int32) {
	for _, m := range fl.members {
		ids = append(ids, m.id)
	}
	return ids
}

// startAll starts all nodes at once: fresh ones found the cluster together.
func (fl *fleet) startAll() bool {
	var group sync.WaitGroup
	var started [fleetNodes]bool
	for i, m := range fl.members {
		group.Go(func() { started[i] = fl.start(m) })
	}
	group.Wait()
	return !slices.Contains(started[:], false)
}

// start starts a node on its disk as it is. One that has lost its directory is
// left waiting until it has its place again: see adopt.
func (fl *fleet) start(m *member) bool {
	if m.wiped || m.hurt {
		fl.startWiped(m)
		return true
	}
	m.starts++
	fl.trace.add(fmt.Sprintf("NODE %d START %d", m.id, m.starts))
	l, err := fl.net.Listen(m.addr())
	if err != nil {
		fl.problem("node %d: %v", m.id, err)
		return false
	}
	m.disk.SetInjector(asOS(m.inject))
	var disk vfs.FS = m.disk
	if m.wrap != nil {
		disk = m.wrap(disk)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	opt := fl.options(m, disk, l)
	if opt.Cluster, err = fl.meet(m); err == nil {
		if m.node, err = node.Start(ctx, opt); err != nil {
			_ = m.peers.Close()
		}
	}
	if err != nil {
		m.node = nil
		_ = l.Close()
		fl.problem("node %d, start %d: %v", m.id, m.starts, err)
		return false
	}
	return true
}

func (fl *fleet) options(m *member, disk vfs.FS, l net.Listener) node.Options {
	ring := fl.ring
	if ring == 0 {
		ring = 32 * 32 << 10
	}
	opt := node.Options{
		FS: disk, Dir: dataDir, NodeID: m.id, ClusterID: "sim", Version: "sim", Listener: l, Rack: fmt.Sprintf("r%d", m.id),
		SessionTimeout: fl.session, RackAware: fl.rackAware,
		Shards: fleetShards, JournalFileBytes: 32 << 10, JournalBytes: ring,
		MemoryBytes: 4 << 20, FlushAge: 50 * time.Millisecond, HashInterval: fl.hashes,
		ScrubRate: fl.scrub, ScrubInterval: scrubEvery,
		RefuseDamage:     fl.refuse,
		DiskReserveBytes: max(1, fl.reserve), Now: m.clock.now, Rand: newChance(fl.seed, uint64(m.starts)<<8|uint64(m.id)),
		Resolve: func(context.Context, string) error { return nil }, // no name is asked for outside
		Log:     slog.New(logHandler{fl.trace, fmt.Sprintf("node %d ", m.id)}),
		Groups:  fl.groups, OffsetsPartitions: fleetOffsets,
	}
	if fl.tap != nil {
		opt.KafkaGroups = func(b *broker.Broker) kafka.Groups { return fl.tap(b) }
		opt.NativeGroups = func(b *broker.Broker) server.Groups { return fl.tap(b) }
	}
	return opt
}

// startWiped starts a node that has lost its directory. It takes no clients: it waits
// until it is registered, or for kill, and must not start its replicas before.
func (fl *fleet) startWiped(m *member) {
	if m.unserving != nil {
		return // it waits already
	}
	m.starts++
	fl.trace.add(fmt.Sprintf("NODE %d START %d, WITHOUT A SOUND DIRECTORY", m.id, m.starts))
	l, err := fl.net.Listen(m.addr())
	if err != nil {
		fl.problem("node %d: %v", m.id, err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.joined = make(chan struct{})
	opt := fl.options(m, m.disk, l)
	if opt.Cluster, err = fl.meet(m); err != nil {
		cancel()
		_ = l.Close()
		fl.problem("node %d: %v", m.id, err)
		return
	}
	go func() {
		defer close(m.joined)
		n, err := node.Start(ctx, opt)
		if err != nil {
			_ = l.Close()
			if m.refused = err; ctx.Err() == nil && !m.hurt {
				fl.problem("node %d, without its directory: %v", m.id, err)
			}
			return
		}
		m.late = n
	}()
	m.unserving = func() {
		cancel()
		<-m.joined
		if m.late != nil {
			ended, end := context.WithCancel(context.Background())
			end()
			_ = m.late.Close(ended)
			m.late = nil
		}
		_ = m.peers.Close()
	}
}

// adopt waits until a node that lost its directory has its place in the cluster.
// patience is positive.
func (fl *fleet) adopt(m *member, patience time.Duration) bool {
	if m.unserving == nil {
		return true
	}
	select {
	case <-m.joined:
	case <-time.After(patience):
		fl.problem("node %d has not got its place back in %s", m.id, patience)
		return false
	}
	if m.late == nil {
		if m.hurt {
			fl.problem("node %d is refused: %v", m.id, m.refused)
		}
		return false // said already
	}
	m.node, m.late, m.unserving, m.wiped, m.hurt = m.late, nil, nil, false, false
	fl.trace.add(fmt.Sprintf("NODE %d HAS ITS PLACE AGAIN", m.id))
	return true
}

// kill ends a node without giving it time for anything.
func (fl *fleet) kill(m *member) {
	m.disk.SetInjector(nil)
	fl.net.Reset(m.host())
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if m.node != nil {
		fl.within(func() { _ = m.node.Close(ended) })
		_ = m.peers.Close()
	}
	if m.unserving != nil {
		fl.within(m.unserving)
		m.unserving = nil
	}
	m.node = nil
}

// end brings a node to its end, and leaves its disk to the next start.
func (fl *fleet) end(m *member, e end) {
	if m.node == nil && m.unserving == nil {
		return
	}
	seed := fl.rng.Uint64()
	m.disk.Freeze()
	fl.trace.add(fmt.Sprintf("NODE %d %s, seed %d", m.id, e.name, seed))
	next := e.left(m.disk, seed)
	fl.kill(m)
	m.disk = next
}

// cut takes a node's power away.
func (fl *fleet) cut(m *member) { fl.end(m, cutEnd(vfs.Unsynced(fl.rng.IntN(3)))) }

// stopNode stops a node in good order: it hands its leaderships over.
func (fl *fleet) stopNode(m *member) {
	if m.node == nil {
		return
	}
	fl.trace.add(fmt.Sprintf("NODE %d CLEAN STOP", m.id))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fl.within(func() {
		if err := m.node.Close(ctx); err != nil {
			fl.problem("node %d: clean stop: %v", m.id, err)
		}
	})
	_ = m.peers.Close()
	m.node = nil
}

// readAfterCut ends the clients' work, takes the power from all nodes at once, and
// reads everything when they are back. It returns false if that did not come about.
func (fl *fleet) readAfterCut() bool {
	fl.stop()
	fl.clients.Wait()
	if !fl.healthy() {
		return false
	}
	for _, m := range fl.members {
		m.disk.Freeze() // all at once
	}
	for _, m := range fl.members {
		fl.cut(m)
	}
	if !fl.startAll() {
		return false
	}
	time.Sleep(settle) // a node may list a topic whose deletion it has not applied yet
	fl.readAll()
	return fl.healthy()
}

// healthy takes it for a problem if a node wants to stop.
func (fl *fleet) healthy() bool {
	ok := true
	for _, m := range fl.members {
		if m.node == nil {
			continue
		}
		select {
		case err := <-m.node.Failed():
			fl.problem("node %d failed: %v", m.id, err)
			ok = false
		default:
		}
	}
	return ok
}

// leader returns a node that leads some shard, by the dice, or any node. One that has
// its place again is a node like the others from here on.
func (fl *fleet) leader() *member {
	for _, m := range fl.members {
		if m.unserving == nil {
			continue
		}
		select {
		case <-m.joined:
			fl.adopt(m, time.Second) // at once
		default:
		}
	}
	var leaders []*member
	for _, m := range fl.members {
		if m.node != nil && len(m.node.Leads()) > 0 {
			leaders = append(leaders, m)
		}
	}
	if len(leaders) == 0 {
		leaders = fl.members[:]
	}
	return leaders[fl.rng.IntN(len(leaders))]
}

// isolate cuts the ways between a node and the others, or heals them.
func (fl *fleet) isolate(m *member, from, to bool) {
	fl.trace.add(fmt.Sprintf("NODE %d CUT OFF from it: %t, to it: %t", m.id, from, to))
	for _, o := range fl.members {
		if o != m {
			fl.cutWay(m, o, from)
			fl.cutWay(o, m, to)
		}
	}
}

// watch asks for end offsets until the clients are to stop: none may be below
// what was acknowledged before it was asked for.
func (fl *fleet) watch(p *person, topics []string) {
	for p.rest(100 * time.Millisecond) {
		topic := topics[p.rng.IntN(len(topics))]
		fl.mu.Lock()
		floor := make(map[history.Key]int64, len(fl.floor))
		for k, v := range fl.floor {
			floor[k] = v
		}
		fl.mu.Unlock()
		ends, err := p.c.Admin().Offsets(fl.stopping, topic, 0)
		if err != nil {
			continue // nobody leads, perhaps
		}
		for i, end := range ends {
			key := history.Key{Topic: topic, Partition: int32(i)}
			if end < floor[key] {
				fl.problem("stale read: %s[%d] ends at %d, and offset %d was acknowledged before it was asked", topic, i, end, floor[key]-1)
			}
		}
	}
}
