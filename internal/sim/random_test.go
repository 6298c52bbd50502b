package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// plan is what the seed decides of a random history before it begins.
type plan struct {
	keys      []history.Key // of topics that stay
	producers int
	records   int // of each producer
	maxBytes  int
	churn     []string // names of topics that come and go
	events    int      // power cuts, kills and clean restarts
	gap       time.Duration
	slowest   time.Duration // of a disk operation
}

func draw(rng *rand.Rand) plan {
	pl := plan{
		producers: 1 + rng.IntN(3),
		records:   40 + rng.IntN(160),
		maxBytes:  []int{64, 1000, 5000}[rng.IntN(3)],
		events:    1 + rng.IntN(5),
		gap:       time.Duration(50+rng.IntN(1500)) * time.Millisecond,
		slowest:   []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}[rng.IntN(4)],
	}
	topics, partitions := 1+rng.IntN(2), 1+rng.IntN(3)
	if rng.IntN(8) == 0 { // enough for a segment to be full
		topics, partitions, pl.producers, pl.records, pl.maxBytes = 1, 1, 3, 200, maxRecordBytes
	}
	for topic := range topics {
		for p := range partitions {
			pl.keys = append(pl.keys, history.Key{Topic: fmt.Sprintf("stays%d", topic), Partition: int32(p)})
		}
	}
	for i := range rng.IntN(3) {
		pl.churn = append(pl.churn, fmt.Sprintf("goes%d", i))
	}
	return pl
}

// slowDisk delays disk operations, syncs most and some of them much longer.
func slowDisk(seed uint64, slowest time.Duration) vfs.Injector {
	if slowest == 0 {
		return nil
	}
	return func(op vfs.Op) vfs.Fault {
		rng := rand.New(rand.NewPCG(seed, op.Seq))
		most := slowest / 20
		switch op.Kind {
		case vfs.OpSync, vfs.OpSyncData, vfs.OpSyncDir:
			most = slowest
		}
		if rng.IntN(200) == 0 {
			most *= 20
		}
		return vfs.Fault{Delay: time.Duration(rng.Int64N(int64(most) + 1))}
	}
}

// randomHistory lets clients work while the node loses its power, is killed and
// restarted, and reads everything at the end, after one more power cut.
func randomHistory(w *world) {
	pl := draw(w.rng)
	waning := w.drawWaning()
	w.inject = slowDisk(w.seed, pl.slowest)
	w.net.SetLatency("", "", 0, time.Duration(w.rng.IntN(2000))*time.Microsecond)
	if !w.mustStart() {
		return
	}
	if !w.createAll(pl.keys) {
		w.problem("topics could not be created")
		return
	}
	producing := w.work(pl)
	writing, ok := w.wane(waning)
	if !ok {
		return
	}
	for range pl.events {
		time.Sleep(time.Duration(w.rng.Int64N(int64(pl.gap))))
		if !w.disturb() {
			return
		}
	}
	producing.wait()
	writing.wait()
	w.stop()
	w.clients.Wait()
	if !w.healthy() {
		return
	}
	w.keepWaning()
	w.cut(vfs.CrashOptions{Seed: w.rng.Uint64(), Unsynced: vfs.Unsynced(w.rng.IntN(3))})
	if w.mustStart() {
		w.readAll()
		w.startsOfWaning()
		w.healthy()
	}
}

// createAll creates the topics of keys, and reports whether it did.
func (w *world) createAll(keys []history.Key) bool {
	p := w.hire()
	defer p.leave()
	partitions := make(map[string]int32)
	for _, k := range keys {
		partitions[k.Topic] = max(partitions[k.Topic], k.Partition+1)
	}
	for _, k := range keys {
		if k.Partition == 0 && !p.createTopic(k.Topic, partitions[k.Topic]) {
			return false
		}
	}
	return true
}

// crew is a set of clients to wait for.
type crew struct{ done []chan struct{} }

func (c *crew) wait() {
	for _, d := range c.done {
		<-d
	}
}

// work starts the clients of pl, and returns the producers among them.
func (w *world) work(pl plan) *crew {
	producers := new(crew)
	employ := func(f func(p *person)) chan struct{} {
		p, done := w.hire(), make(chan struct{})
		w.clients.Go(func() {
			defer close(done)
			defer p.leave()
			f(p)
		})
		return done
	}
	var transient []history.Key
	for _, name := range pl.churn {
		transient = append(transient, history.Key{Topic: name})
	}
	for i := range pl.producers {
		l := load{
			keys: pl.keys, records: pl.records, maxBytes: pl.maxBytes, maxPause: 20 * time.Millisecond,
			timeout: 2 * time.Minute, crashes: w.rng.IntN(3) == 0,
		}
		if w.rng.IntN(3) == 0 {
			l.timeout = time.Duration(1+w.rng.IntN(3000)) * time.Millisecond
		}
		if i > 0 {
			l.keys = append(l.keys[:len(l.keys):len(l.keys)], transient...)
		}
		producers.done = append(producers.done, employ(func(p *person) { p.produce(l) }))
	}
	employ(func(p *person) { p.consume(pl.keys, false) })
	if len(pl.churn) > 0 {
		employ(func(p *person) { p.churn(pl.churn, 100*time.Millisecond) })
		employ(func(p *person) { p.churn(pl.churn, 100*time.Millisecond) })
		employ(func(p *person) { p.consume(transient, true) })
	}
	return producers
}

// disturb takes the node down in some way and starts it again, in one case of
// four with more power cuts while it starts.
func (w *world) disturb() bool {
	if !w.healthy() {
		return false
	}
	switch w.rng.IntN(6) {
	case 0:
		w.stopNode()
	case 1:
		w.end(killed, 0)
	default:
		w.cut(w.crash())
	}
	time.Sleep(time.Duration(w.rng.Int64N(int64(500 * time.Millisecond))))
	for w.rng.IntN(4) == 0 {
		w.onOp = freezeAt(w.disk, 1+w.rng.Uint64N(150), vfs.Phase(1+w.rng.IntN(2)))
		err := w.start()
		w.onOp = nil
		if err == nil {
			time.Sleep(time.Duration(w.rng.Int64N(int64(50 * time.Millisecond))))
		}
		w.cut(w.crash())
	}
	return w.mustStart()
}

func (w *world) crash() vfs.CrashOptions {
	return vfs.CrashOptions{Seed: w.rng.Uint64(), Unsynced: vfs.Unsynced(w.rng.IntN(3))}
}

// freezeAt takes the power away at the nth operation from the disk's first on.
func freezeAt(disk *vfs.Mem, nth uint64, at vfs.Phase) func(vfs.Op, vfs.Phase) {
	return func(op vfs.Op, ph vfs.Phase) {
		if op.Seq == nth && ph == at {
			disk.Freeze()
		}
	}
}

// verdict is everything that is wrong with a run.
func verdict(problems []string, h history.History) []string {
	r := history.Check(h, history.Options{Idempotent: true, Assigned: true, Final: true, Keep: 3, Retention: retention})
	if r.Err() != nil {
		problems = append(problems, r.String())
	}
	if err := history.CheckTopics(h, 10*time.Second); err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

// report fails t with what is wrong, how to repeat it, and where its trace is.
func report(t *testing.T, seed uint64, problems []string, tr *trace) {
	t.Helper()
	if len(problems) == 0 {
		return
	}
	test, _, _ := strings.Cut(t.Name(), "/")
	again := fmt.Sprintf("go test -count=1%s -run '^%s$' ./internal/sim", buildTags, test)
	if test == "TestRandomHistories" || test == "TestVoters" || test == "TestClusterHistories" || test == "TestWaning" || test == "TestGroupHistories" {
		again = fmt.Sprintf("SIM_SEED=%d SIM_RUNS=20 %s", seed, again)
	}
	t.Errorf("seed %d:\n%s\nrepeat: %s\ntrace: %s", seed, strings.Join(problems, "\n"), again, tr.save(t.Name()))
}

// seeds returns the seeds to run: n from 1 on, or few in short mode. SIM_SEED
// runs one, SIM_RUNS times; SIM_FROM and SIM_COUNT choose others.
func seeds(t *testing.T, n, few int) []uint64 {
	t.Helper()
	setting := func(name string, otherwise uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return otherwise
		}
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return v
	}
	if testing.Short() {
		n = few
	}
	if seed := setting("SIM_SEED", 0); seed != 0 {
		return slices.Repeat([]uint64{seed}, int(setting("SIM_RUNS", 1)))
	}
	all := make([]uint64, setting("SIM_COUNT", uint64(n)))
	from := setting("SIM_FROM", 1)
	for i := range all {
		all[i] = from + uint64(i)
	}
	return all
}

// TestRandomHistories also counts what the nodes went through, as a history in
// which nothing is flushed shows little.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	all := seeds(t, 1000, 15)
	var mu sync.Mutex
	phases := make(map[string]int)
	t.Cleanup(func() {
		t.Logf("%d histories: %v", len(all), phases)
		for _, phase := range []string{
			"recovery", "checkpoint", "topic deletion", "ring growth", "ring reuse", "flush", "segment roll",
		} {
			if len(all) >= 300 && phases[phase] == 0 {
				t.Errorf("no history had a %s", phase)
			}
		}
	})
	for _, seed := range all {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr := run(t, seed, randomHistory)
			report(t, seed, verdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			for phase, n := range tr.phases {
				phases[phase] += n
			}
		})
	}
}
