package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/replication/transport"
)

// settle is longer than three nodes take to elect leaders and to apply what they
// have, when nothing is wrong.
const settle = 10 * time.Second

// fleetPlan is what the seed decides of a history of three nodes.
type fleetPlan struct {
	keys      []history.Key
	topics    []string
	producers int
	records   int // of each producer
	maxBytes  int
	churn     bool
	events    int
	gap       time.Duration
	slowest   time.Duration // of a disk operation
	wipe      bool
}

func (fl *fleet) draw() fleetPlan {
	rng := fl.rng
	pl := fleetPlan{
		producers: 1 + rng.IntN(2), records: 30 + rng.IntN(50), maxBytes: []int{50, 300, 1000}[rng.IntN(3)],
		churn: rng.IntN(4) == 0, events: 2 + rng.IntN(4), gap: time.Duration(200+rng.IntN(2000)) * time.Millisecond,
		slowest: []time.Duration{0, time.Millisecond, 10 * time.Millisecond}[rng.IntN(3)],
		wipe:    rng.IntN(8) == 0,
	}
	partitions := 1 + rng.IntN(3)
	for topic := range 1 + rng.IntN(2) {
		name := fmt.Sprintf("stays%d", topic)
		pl.topics = append(pl.topics, name)
		for p := range partitions {
			pl.keys = append(pl.keys, history.Key{Topic: name, Partition: int32(p)})
		}
	}
	return pl
}

// votersHistory lets clients work while leaders lose their power, are killed,
// cut off, paused or stopped, heals everything, and reads it all after the power
// has gone everywhere at once.
func votersHistory(fl *fleet) {
	pl := fl.draw()
	for i, m := range fl.members {
		m.inject = slowDisk(fl.seed*fleetNodes+uint64(i), pl.slowest)
	}
	fl.net.SetLatency("", "", 0, time.Duration(fl.rng.IntN(1000))*time.Microsecond)
	calm := transport.Faults{MaxDelay: time.Duration(fl.rng.IntN(2000)) * time.Microsecond}
	fl.faults(calm)
	if !fl.startAll() {
		return
	}
	if !fl.createTopics(pl.topics, int32(len(pl.keys)/len(pl.topics))) {
		return
	}
	if rand.New(rand.NewPCG(fl.seed, 2)).IntN(3) == 0 {
		fl.waning = askedTopic
	}
	producing := fl.employ(pl)
	writing, ok := fl.wane(rand.New(rand.NewPCG(fl.seed, 3)))
	if !ok {
		return
	}
	for range pl.events {
		time.Sleep(time.Duration(fl.rng.Int64N(int64(pl.gap))))
		if !fl.disturb(calm, &pl.wipe) || !fl.healthy() {
			return
		}
	}
	if !fl.heal(calm) {
		return
	}
	producing.wait()
	writing.wait()
	fl.progress(pl.keys)
	if fl.readAfterCut() {
		fl.startsOfWaning()
		fl.healthy()
	}
}

// createTopics creates topics, and takes it for a problem if that does not come
// about within a minute.
func (fl *fleet) createTopics(topics []string, partitions int32) bool {
	p := fl.hire()
	defer p.leave()
	for _, name := range topics {
		began := time.Now()
		for !p.createTopic(name, partitions) {
			if known, err := p.c.Admin().DescribeTopic(context.Background(), name); err == nil && len(known.Partitions) > 0 {
				break // an earlier try, of which nobody knew
			}
			if time.Since(began) > time.Minute {
				fl.problem("topic %s could not be created", name)
				return false
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return true
}

// employ starts the clients of pl, and returns the producers among them.
func (fl *fleet) employ(pl fleetPlan) *crew {
	producers := new(crew)
	hire := func(f func(p *person)) chan struct{} {
		p, done := fl.hire(), make(chan struct{})
		fl.clients.Go(func() {
			defer close(done)
			defer p.leave()
			f(p)
		})
		return done
	}
	for range pl.producers {
		l := load{
			keys: pl.keys, records: pl.records, maxBytes: pl.maxBytes,
			maxPause: time.Duration(pl.events) * pl.gap / time.Duration(pl.records/4),
			timeout:  2 * time.Minute, crashes: fl.rng.IntN(4) == 0,
		}
		producers.done = append(producers.done, hire(func(p *person) { p.produce(l) }))
	}
	hire(func(p *person) { p.consume(pl.keys, false) })
	if fl.rackAware {
		for _, m := range fl.members {
			hire(func(p *person) {
				p.rack, p.source = fmt.Sprintf("r%d", m.id), fl.readFrom
				p.consumeKafka(pl.keys)
			})
		}
	}
	hire(func(p *person) { fl.watch(p, pl.topics) })
	if pl.churn {
		hire(func(p *person) {
			for p.rest(time.Second) {
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

// disturb does something to a node, mostly one that leads.
func (fl *fleet) disturb(calm transport.Faults, wipe *bool) bool {
	m := fl.leader()
	pause := func(most time.Duration) { time.Sleep(time.Duration(fl.rng.Int64N(int64(most)))) }
	if *wipe && fl.rng.IntN(2) == 0 {
		*wipe = false
		fl.wipe(m)
		return fl.start(m)
	}
	switch fl.rng.IntN(9) {
	case 0, 1, 2:
		fl.cut(m)
		pause(5 * time.Second)
		return fl.start(m)
	case 3:
		fl.end(m, killed)
		pause(3 * time.Second)
		return fl.start(m)
	case 4:
		fl.isolate(m, true, true)
		pause(5 * time.Second)
		fl.isolate(m, false, false)
	case 5:
		from := fl.rng.IntN(2) == 0
		fl.isolate(m, from, !from)
		pause(5 * time.Second)
		fl.isolate(m, false, false)
	case 6: // a pause: it hears nobody, and nobody hears it
		fl.isolate(m, true, true)
		fl.net.Cut(m.host(), "")
		fl.net.Cut("", m.host())
		pause(4 * time.Second)
		fl.net.Heal()
		fl.isolate(m, false, false)
	case 7:
		fl.stopNode(m)
		pause(2 * time.Second)
		return fl.start(m)
	case 8:
		fl.faults(transport.Faults{
			MaxDelay: 20 * time.Millisecond, LossPercent: fl.rng.IntN(20), DuplicatePercent: fl.rng.IntN(30), Reorder: true,
		})
		pause(4 * time.Second)
		fl.faults(calm)
	}
	return true
}

// wipe takes a node's directory away: it comes back as a new incarnation, which
// is no member.
func (fl *fleet) wipe(m *member) {
	fl.trace.add(fmt.Sprintf("NODE %d WIPED", m.id))
	fl.kill(m)
	id, err := node.ReadIdentity(m.disk, dataDir)
	if err != nil {
		fl.problem("node %d: %v", m.id, err)
	}
	m.disk, m.wiped = vfs.NewMem(fl.rng.Uint64()), !fl.reborn
	if fl.reborn {
		id.Started, id.Generation, id.Next = false, 0, 0
		err := vfs.MkdirAllSync(m.disk, dataDir)
		if err = errors.Join(err, vfs.WriteFile(m.disk, path.Join(dataDir, node.IdentityName), id.Encode())); err != nil {
			fl.problem("node %d: %v", m.id, err)
		}
	}
}

// heal mends everything.
func (fl *fleet) heal(calm transport.Faults) bool {
	fl.trace.add("HEAL")
	fl.faults(calm)
	for _, m := range fl.members {
		fl.isolate(m, false, false)
		if m.node == nil && !fl.start(m) {
			return false
		}
	}
	return true
}

// progress writes a record to each partition: with everything mended it has to
// be acknowledged within a minute.
func (fl *fleet) progress(keys []history.Key) {
	p := fl.hire()
	defer p.leave()
	for _, key := range keys {
		fl.mu.Lock()
		before := fl.acks
		fl.mu.Unlock()
		p.produce(load{keys: []history.Key{key}, records: 1, maxBytes: 10, maxPause: 1, timeout: time.Minute})
		fl.mu.Lock()
		after := fl.acks
		fl.mu.Unlock()
		if after == before {
			fl.problem("no progress: nothing is acknowledged in %s[%d] a minute after everything was mended", key.Topic, key.Partition)
		}
	}
}

// conclude ends a history: what was mended makes progress, and when all clients have
// stopped everything is read.
func (fl *fleet) conclude(keys ...history.Key) {
	fl.progress(keys)
	fl.stop()
	fl.clients.Wait()
	time.Sleep(settle)
	if fl.healthy() {
		fl.readAll()
	}
}

// fleetVerdict is verdict with what topics clients saw left out: a node that is
// behind may say what was.
func fleetVerdict(problems []string, h history.History) []string {
	r := history.Check(h, history.Options{Idempotent: true, Assigned: true, Final: true, Keep: 3})
	if r.Err() != nil {
		problems = append(problems, r.String())
	}
	return problems
}

// TestVoters also counts what happened while clients wrote, as a history without
// acknowledgements or changes of leaders shows little.
func TestVoters(t *testing.T) {
	t.Parallel()
	all := seeds(t, 100, 4)
	var mu sync.Mutex
	acks, leaderships := 0, 0
	t.Cleanup(func() {
		t.Logf("%d seeds: %d records acknowledged, %d times a replica became a leader (%d at the first start of each seed)",
			len(all), acks, leaderships, len(all)*(fleetShards+1))
		if len(all) >= 100 && (acks < 20*len(all) || leaderships < 2*len(all)*(fleetShards+1)) {
			t.Error("too few to show anything")
		}
	})
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, n := runFleet(t, seed, votersHistory)
			report(t, seed, fleetVerdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			acks += n
			leaderships += tr.phases["leadership"]
		})
	}
}
