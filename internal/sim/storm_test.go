package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// What each storm has at the least.
const (
	stormLasts    = time.Minute
	stormOps      = 2000
	stormTroubles = 5
)

// storm is a history of three nodes that goes on for a minute: clients of both
// protocols work, topics come and go, leaderships are handed over, and one thing
// after the other goes wrong, two at times.
type storm struct {
	*fleet
	keys     []history.Key
	topics   []string
	calm     transport.Faults
	until    time.Time // when the clients have done enough
	troubles []trouble
	counts   map[string]int // troubles that began, by name
	led      ledBy
	wipes    bool // the last trouble is that a node loses its directory
}

// newStorm draws what the seed decides of how things are before the storm.
func newStorm(fl *fleet) *storm {
	rng := fl.rng
	st := &storm{fleet: fl, counts: make(map[string]int)}
	fl.read = st.led.wrote
	st.meshed = rng.IntN(3) > 0
	st.wipes = rng.IntN(4) == 0
	if rng.IntN(3) == 0 && !st.wipes {
		st.ring = 2 * smallRing
	}
	st.calm = transport.Faults{MaxDelay: time.Duration(rng.IntN(2000)) * time.Microsecond}
	partitions := int32(1 + rng.IntN(3))
	for topic := range 1 + rng.IntN(2) {
		name := fmt.Sprintf("stays%d", topic)
		st.topics = append(st.topics, name)
		for p := range partitions {
			st.keys = append(st.keys, history.Key{Topic: name, Partition: p})
		}
	}
	for i, m := range st.members {
		usual := slowDisk(st.seed*fleetNodes+uint64(i), []time.Duration{0, time.Millisecond, 10 * time.Millisecond}[rng.IntN(3)])
		m.inject = func(op vfs.Op) vfs.Fault {
			if f := m.trouble.Load(); f != nil {
				return (*f)(op)
			}
			if usual == nil {
				return vfs.Fault{}
			}
			return usual(op)
		}
	}
	return st
}

// run is the history.
func (st *storm) run() {
	st.net.SetLatency("", "", 0, time.Duration(st.rng.IntN(1000))*time.Microsecond)
	st.faults(st.calm)
	if !st.startAll() || !st.createTopics(st.topics, int32(len(st.keys)/len(st.topics))) {
		return
	}
	st.until = time.Now().Add(stormLasts)
	if rand.New(rand.NewPCG(st.seed, 2)).IntN(3) == 0 {
		st.waning = askedTopic
	}
	producing := st.employ()
	writing, ok := st.wane(rand.New(rand.NewPCG(st.seed, 3)))
	if !ok || !st.rage() || !st.heal(st.calm) {
		return
	}
	producing.wait()
	writing.wait()
	st.progress(st.keys)
	if st.readAfterCut() {
		st.startsOfWaning()
		st.healthy()
	}
}

// rage lets one trouble begin after the other until the clients have done enough.
// Each seed begins with another kind of them.
func (st *storm) rage() bool {
	gap := stormLasts / time.Duration(stormTroubles+1+st.rng.IntN(6))
	for n := 0; n < stormTroubles || time.Now().Before(st.until); n++ {
		time.Sleep(gap/2 + time.Duration(st.rng.Int64N(int64(gap/2))))
		if !st.endTroubles(false) || !st.healthy() {
			return false
		}
		if len(st.troubles) > 0 && st.rng.IntN(4) > 0 && !st.endTroubles(true) {
			return false
		}
		well := st.well()
		if st.wipes && n >= stormTroubles && time.Until(st.until) < wipeTakes {
			return st.endTroubles(true) && st.wipeOne() && st.healthy()
		}
		if len(well) == 0 {
			continue
		}
		m := well[0]
		if st.rng.IntN(4) == 0 {
			m = well[len(well)-1]
		}
		kind := troubleKinds[st.rng.IntN(len(troubleKinds))]
		if n == 0 {
			kind = troubleKinds[int(st.seed)%len(troubleKinds)]
		}
		st.begin(kind, m, time.Duration(200+st.rng.IntN(5000))*time.Millisecond)
	}
	return st.endTroubles(true) && st.healthy()
}

// begun is how many troubles there were.
func (st *storm) begun() (n int) {
	for _, k := range st.counts {
		n += k
	}
	return n
}

// employ starts the clients, and returns the producers among them.
func (st *storm) employ() *crew {
	producers := new(crew)
	hire := func(f func(p *person)) {
		p := st.hire()
		st.clients.Go(func() {
			defer p.leave()
			f(p)
		})
	}
	produces := func(f func(p *person)) {
		done := make(chan struct{})
		hire(func(p *person) {
			defer close(done)
			f(p)
		})
		producers.done = append(producers.done, done)
	}
	l := load{
		keys: st.keys, maxBytes: []int{50, 300, 1000}[st.rng.IntN(3)], maxPause: time.Second,
		timeout: 2 * time.Minute, until: st.until,
	}
	for i := range 4 {
		l := l
		l.crashes = st.rng.IntN(4) == 0
		if i%2 == 0 {
			produces(func(p *person) { p.produce(l) })
		} else {
			produces(func(p *person) { p.produceKafka(l) })
		}
	}
	hire(func(p *person) { p.consume(st.keys, false) })
	hire(func(p *person) { p.consumeKafka(st.keys) })
	hire(func(p *person) { st.watch(p, st.topics) })
	hire(func(p *person) {
		for p.rest(300 * time.Millisecond) {
			st.led.ask(p, st.topics[p.rng.IntN(len(st.topics))])
		}
	})
	hire(func(p *person) {
		for p.rest(8 * time.Second) {
			_, _ = p.c.Admin().TransferShard(st.stopping, p.rng.Uint32N(1+fleetShards), client.AnyNode)
		}
	})
	if st.rng.IntN(3) == 0 {
		hire(func(p *person) {
			for p.rest(2 * time.Second) {
				if name := fmt.Sprintf("goes%d", p.rng.IntN(2)); p.rng.IntN(2) == 0 {
					p.createTopic(name, 1+p.rng.Int32N(2))
				} else {
					p.deleteTopic(name)
				}
			}
		})
	}
	return producers
}

// ledBy is who led partitions when records were written that clients read.
type ledBy struct {
	mu      sync.Mutex
	written map[inEpoch]bool
	leaders map[inEpoch]int32
}

type inEpoch struct {
	key   history.Key
	epoch int32
}

// wrote notes that somebody read a record that was written in a leader epoch.
func (l *ledBy) wrote(key history.Key, epoch int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written == nil {
		l.written = make(map[inEpoch]bool)
	}
	l.written[inEpoch{key, epoch}] = true
}

// ask asks who leads a topic's partitions.
func (l *ledBy) ask(p *person, topic string) {
	d, err := p.c.Admin().DescribeTopic(p.w.stopping, topic)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaders == nil {
		l.leaders = make(map[inEpoch]int32)
	}
	for _, part := range d.Partitions {
		if part.Leader > 0 {
			l.leaders[inEpoch{history.Key{Topic: topic, Partition: part.Partition}, part.LeaderEpoch}] = part.Leader
		}
	}
}

// changes is how often another node than before led a partition when records were
// written to it.
func (l *ledBy) changes() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := make(map[history.Key]int32)
	epochs := slices.SortedFunc(maps.Keys(l.written), func(a, b inEpoch) int { return cmp.Compare(a.epoch, b.epoch) })
	for _, at := range epochs {
		leader, ok := l.leaders[at]
		if was := last[at.key]; ok && was != 0 && was != leader {
			n++
		}
		if ok {
			last[at.key] = leader
		}
	}
	return n
}

// outcomes are how many operations there were in a history, and how many of them
// were acknowledged.
func outcomes(h history.History) (ops, acked int) {
	for _, op := range h {
		switch op.Type {
		case history.Invoke:
			ops++
		case history.OK:
			acked++
		}
	}
	return ops, acked
}

// runStorm is runFleet of a storm.
func runStorm(t *testing.T, seed uint64, bug func(fl *fleet)) (problems []string, tr *trace, st *storm) {
	problems, tr, _ = runFleet(t, seed, func(fl *fleet) {
		st = newStorm(fl)
		fl.hashes = 5 * time.Second
		if bug != nil {
			fl.hashes = 0 // clients are to notice it
			bug(fl)
		}
		st.run()
	})
	return fleetVerdict(problems, tr.history), tr, st
}

// tally is what histories went through, all together.
type tally struct {
	mu                         sync.Mutex
	counts                     map[string]int // of troubles, by name
	runs, ops, acked, elective int            // elective: a leader changed while clients wrote
}

// history runs one storm.
func (ta *tally) history(t *testing.T, seed uint64) {
	problems, tr, st := runStorm(t, seed, nil)
	n, ok := outcomes(tr.history)
	if troubles := st.begun(); len(problems) == 0 && (n < stormOps || 2*ok < n || troubles < stormTroubles) {
		problems = append(problems, fmt.Sprintf("%d troubles, and %d of %d operations were acknowledged: too few to show anything", troubles, ok, n))
	}
	report(t, seed, problems, tr)
	ta.mu.Lock()
	defer ta.mu.Unlock()
	ta.runs, ta.ops, ta.acked = ta.runs+1, ta.ops+n, ta.acked+ok
	if st.led.changes() > 0 {
		ta.elective++
	}
	for kind, n := range st.counts {
		ta.counts[kind] += n
	}
}

// check holds what the histories went through against what they are to show
// something by.
func (ta *tally) check(t *testing.T) {
	t.Logf("%d histories: %d of %d operations acknowledged; a leader changed while clients wrote in %d; troubles: %v", ta.runs, ta.acked, ta.ops, ta.elective, ta.counts)
	if 2*ta.acked < ta.ops || 10*ta.elective < 9*ta.runs {
		t.Error("too few to show anything")
	}
	for _, kind := range troubleKinds {
		if ta.runs >= 100 && ta.counts[kind.name] == 0 {
			t.Errorf("no history had a %s", kind.name)
		}
	}
}

// TestClusterHistories runs storms: so many, or for as long as SIM_FOR says, from
// SIM_FROM on.
func TestClusterHistories(t *testing.T) {
	t.Parallel()
	ta := &tally{counts: make(map[string]int)}
	t.Cleanup(func() { ta.check(t) })
	each := func(t *testing.T, seed uint64, parallel bool) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			ta.history(t, seed)
		})
	}
	all := seeds(t, 140, 2)
	if text := os.Getenv("SIM_FOR"); text != "" {
		lasts, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("SIM_FOR: %v", err)
		}
		ends := time.Now().Add(lasts)
		var next atomic.Uint64
		next.Store(all[0])
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprintf("worker=%d", worker), func(t *testing.T) {
				t.Parallel()
				for time.Now().Before(ends) {
					each(t, next.Add(1)-1, false)
				}
			})
		}
		return
	}
	for _, seed := range all {
		each(t, seed, true)
	}
}
