package sim

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// troubleKind is something that goes wrong. begin makes it go wrong with a node
// for some time, and returns what ends it; nil means that it is over already.
type troubleKind struct {
	name  string
	begin func(st *storm, m *member, lasts time.Duration) (end func() bool)
}

// troubleKinds are all, those that come often more than once.
var troubleKinds = []troubleKind{
	{"power cut", (*storm).powerCut},
	{"killed", (*storm).killed},
	{"cut off", (*storm).cutOff},
	{"failing disk", (*storm).failingDisk},
	{"one way", (*storm).oneWay},
	{"bridge", (*storm).bridge},
	{"pause", (*storm).pause},
	{"clean stop", (*storm).cleanStop},
	{"deposed", (*storm).deposed},
	{"rough network", (*storm).roughNetwork},
	{"clock step", (*storm).clockStep},
	{"clients cut off", (*storm).clientsCutOff},
	{"slow disk", (*storm).slowDisk},
	{"full disk", (*storm).fullDisk},
	{"all lose power", (*storm).allLosePower},
	{"flipped bit", (*storm).flippedBit},
	{"power cut", (*storm).powerCut},
	{"killed", (*storm).killed},
	{"cut off", (*storm).cutOff},
}

// trouble is one that has begun.
type trouble struct {
	m     *member
	until time.Time
	end   func() bool
}

// begin begins a trouble of a node that has none.
func (st *storm) begin(kind troubleKind, m *member, lasts time.Duration) {
	st.trace.add(fmt.Sprintf("TROUBLE %q of node %d for %v", kind.name, m.id, lasts))
	st.counts[kind.name]++
	if end := kind.begin(st, m, lasts); end != nil {
		st.troubles = append(st.troubles, trouble{m, time.Now().Add(lasts), end})
	}
}

// endTroubles ends those whose time has come, or all.
func (st *storm) endTroubles(all bool) bool {
	ok, left := true, st.troubles[:0]
	for _, tr := range st.troubles {
		if !all && tr.until.After(time.Now()) {
			left = append(left, tr)
			continue
		}
		st.trace.add(fmt.Sprintf("NODE %d OUT OF TROUBLE", tr.m.id))
		ok = tr.end() && ok
	}
	st.troubles = left
	return ok
}

// well returns the nodes without trouble, leaders first, otherwise by the dice.
func (st *storm) well() (all []*member) {
	for _, i := range st.rng.Perm(fleetNodes) {
		m := st.members[i]
		if m.node == nil || st.inTrouble(m) {
			continue
		}
		all = append(all, m)
		if len(m.node.Leads()) > 0 {
			all[0], all[len(all)-1] = m, all[0]
		}
	}
	return all
}

func (st *storm) inTrouble(m *member) bool {
	for _, tr := range st.troubles {
		if tr.m == m {
			return true
		}
	}
	return false
}

// restart returns what starts a node that is down.
func (st *storm) restart(m *member) func() bool {
	return func() bool { return st.start(m) }
}

func (st *storm) powerCut(m *member, _ time.Duration) func() bool {
	st.cut(m)
	return st.restart(m)
}

func (st *storm) killed(m *member, _ time.Duration) func() bool {
	st.end(m, killed)
	return st.restart(m)
}

func (st *storm) cleanStop(m *member, _ time.Duration) func() bool {
	st.stopNode(m)
	return st.restart(m)
}

func (st *storm) cutOff(m *member, _ time.Duration) func() bool {
	st.isolate(m, true, true)
	return st.joined(m)
}

func (st *storm) oneWay(m *member, _ time.Duration) func() bool {
	from := st.rng.IntN(2) == 0
	st.isolate(m, from, !from)
	return st.joined(m)
}

// joined returns what mends the ways of a node.
func (st *storm) joined(m *member) func() bool {
	return func() bool {
		st.isolate(m, false, false)
		return true
	}
}

// bridge cuts the two others from each other: both reach the node between them.
func (st *storm) bridge(m *member, _ time.Duration) func() bool {
	a, b := st.members[int(m.id)%fleetNodes], st.members[int(m.id+1)%fleetNodes]
	set := func(cut bool) bool {
		st.trace.add(fmt.Sprintf("NODES %d AND %d CUT FROM EACH OTHER: %t", a.id, b.id, cut))
		st.cutWay(a, b, cut)
		st.cutWay(b, a, cut)
		return true
	}
	set(true)
	return func() bool { return set(false) }
}

// clientsCutOff keeps all clients from a node which the others reach.
func (st *storm) clientsCutOff(m *member, _ time.Duration) func() bool {
	n := st.process.Load()
	each := func(f func(from, to string)) bool {
		for p := range n {
			f(clientHost(p+1), m.host())
			f(m.host(), clientHost(p+1))
		}
		return true
	}
	each(st.net.Cut)
	return func() bool { return each(st.net.Mend) }
}

// pause holds what a node hears, says, reads and writes until it goes on. Its
// timers are all that runs.
func (st *storm) pause(m *member, lasts time.Duration) func() bool {
	st.hang(m, lasts, func(vfs.Op) bool { return true })
	st.isolate(m, true, true)
	st.net.Cut(m.host(), "")
	st.net.Cut("", m.host())
	return func() bool {
		st.net.Mend(m.host(), "")
		st.net.Mend("", m.host())
		st.isolate(m, false, false)
		m.trouble.Store(nil)
		return true
	}
}

// deposed holds a node's disk, so that a leader cannot step down, and mostly cuts
// it off as well: the others elect another, of which it knows nothing. Its clients
// reach it.
func (st *storm) deposed(m *member, lasts time.Duration) func() bool {
	st.hang(m, 2*lasts, func(op vfs.Op) bool { return op.Kind == vfs.OpSyncData })
	if st.rng.IntN(4) > 0 {
		st.isolate(m, true, true)
	}
	return func() bool {
		m.trouble.Store(nil)
		st.isolate(m, false, false)
		return true
	}
}

// hang lets some of a node's disk operations end only when a time has passed.
func (st *storm) hang(m *member, lasts time.Duration, which func(vfs.Op) bool) {
	until := time.Now().Add(lasts)
	st.disk(m, func(op vfs.Op) vfs.Fault {
		if !which(op) {
			return vfs.Fault{}
		}
		return vfs.Fault{Delay: max(0, time.Until(until))}
	})
}

// disk has f decide what happens to a node's disk operations.
func (st *storm) disk(m *member, f vfs.Injector) { m.trouble.Store(&f) }

func (st *storm) slowDisk(m *member, _ time.Duration) func() bool {
	st.disk(m, slowDisk(st.rng.Uint64(), time.Duration(50+st.rng.IntN(500))*time.Millisecond))
	return func() bool {
		m.trouble.Store(nil)
		return true
	}
}

// fullDisk leaves a node little or no space. It goes on by itself when there is
// some again.
func (st *storm) fullDisk(m *member, _ time.Duration) func() bool {
	m.disk.SetCapacity(usedOn(m.disk) + st.rng.Int64N(64<<10))
	return func() bool {
		m.disk.SetCapacity(-1)
		return true
	}
}

// failingTime is within what time a node under load does some dozen writes.
const failingTime = 10 * time.Second

// failingDisk fails one write or sync of a node, which has to stop for it, and to
// name the cause (R9).
func (st *storm) failingDisk(m *member, _ time.Duration) func() bool {
	nth := 1 + st.rng.Int64N(40)
	var n atomic.Int64
	var hit atomic.Bool
	st.disk(m, func(op vfs.Op) vfs.Fault {
		switch op.Kind {
		case vfs.OpWriteAt, vfs.OpSync, vfs.OpSyncData, vfs.OpSyncDir:
			if path.Base(op.Path) == "SPARE" || n.Add(1) != nth {
				break
			}
			hit.Store(true)
			return vfs.Fault{Err: syscall.EIO, Short: 100}
		}
		return vfs.Fault{}
	})
	select {
	case err := <-m.node.Failed():
		st.trace.add(fmt.Sprintf("NODE %d STOPS: %v", m.id, err))
		if !errors.Is(err, syscall.EIO) {
			st.problem("node %d stops, and does not say that its disk failed: %v", m.id, err)
		}
	case <-time.After(failingTime):
		m.trouble.Store(nil)
		if !hit.Load() {
			return nil // it had nothing to write
		}
		st.problem("node %d goes on, though its disk failed", m.id)
	}
	m.trouble.Store(nil)
	st.end(m, []end{lose, keep, coin, killed}[st.rng.IntN(4)])
	return st.restart(m)
}

// clockStep sets a node's clock, by less than what producers are remembered for.
func (st *storm) clockStep(m *member, _ time.Duration) func() bool {
	m.clock.seconds.Store(st.rng.Int64N(2*3600) - 3600)
	st.trace.add(fmt.Sprintf("NODE %d CLOCK IS OFF BY %d s", m.id, m.clock.seconds.Load()))
	return nil
}

// roughNetwork loses, doubles and reorders what nodes say, or breaks connections,
// those of clients too, and delays the rest.
func (st *storm) roughNetwork(m *member, _ time.Duration) func() bool {
	st.faults(transport.Faults{
		MaxDelay: time.Duration(1+st.rng.IntN(40)) * time.Millisecond, LossPercent: st.rng.IntN(20), DuplicatePercent: st.rng.IntN(30), Reorder: true,
	})
	for range st.rng.IntN(5) {
		st.net.Reset(m.host())
		time.Sleep(time.Duration(st.rng.IntN(400)) * time.Millisecond)
	}
	return func() bool {
		st.net.Reset(m.host())
		st.faults(st.calm)
		return true
	}
}

// allLosePower ends all other troubles, and takes the power from all at once.
func (st *storm) allLosePower(_ *member, _ time.Duration) func() bool {
	if !st.endTroubles(true) {
		return nil
	}
	for _, m := range st.members {
		m.disk.Freeze()
	}
	for _, m := range st.members {
		st.cut(m)
	}
	time.Sleep(time.Duration(st.rng.Int64N(int64(time.Second))))
	st.startAll()
	return nil
}

// heals are the kinds of files of which a node makes good a flipped bit, by itself
// or from the others.
var heals = []string{"index"}

// flippedBit ends a node, and flips a bit of a file on its disk before it starts
// again.
func (st *storm) flippedBit(m *member, _ time.Duration) func() bool {
	st.end(m, []end{killed, coin}[st.rng.IntN(2)])
	names, err := filesBelow(m.disk, dataDir)
	if err != nil {
		st.problem("node %d: %v", m.id, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(heals, kindOf(name)) })
	if len(names) == 0 {
		return st.restart(m)
	}
	name, bit := names[st.rng.IntN(len(names))], byte(1)<<st.rng.IntN(8)
	info, err := m.disk.Stat(name)
	if err == nil && info.Size() > 0 {
		at := st.rng.Int64N(info.Size())
		st.trace.add(fmt.Sprintf("NODE %d FLIP %#02x AT %d OF %s", m.id, bit, at, name))
		err = m.disk.Corrupt(name, at, func(b []byte) { b[0] ^= bit })
	}
	if err != nil {
		st.problem("node %d: %v", m.id, err)
	}
	return st.restart(m)
}

// wipeTakes is how long before the clients have done enough a node is wiped.
const wipeTakes = 15 * time.Second

// wipeOne wipes the one node that has, beside a leader, what is acknowledged while
// the third is cut off, takes the power from the leader, and starts the wiped one
// with the third alone: they are a majority by number, and must not be one.
func (st *storm) wipeOne() bool {
	a := st.leader()
	b, c := st.members[int(a.id)%fleetNodes], st.members[int(a.id+1)%fleetNodes]
	st.counts["wiped"]++
	st.isolate(b, true, true)
	time.Sleep(2 * time.Second)
	st.cut(a)
	st.wipe(c)
	st.isolate(b, false, false)
	if !st.start(c) {
		return false
	}
	time.Sleep(3 * time.Second)
	return st.start(a)
}
