package killtest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/proctest"
)

// defaultSeed is arbitrary and fixed: a failure is seen again by whoever runs
// the tests again.
const defaultSeed = 20260611

// topicsLimit bounds the check of the operations on one topic.
const topicsLimit = time.Minute

var rounds = []settings{
	{journalBytes: 2 << 20, journalFileBytes: 256 << 10, memoryBytes: 16 << 20, flushAge: 100 * time.Millisecond},
	{journalBytes: 3 << 19, journalFileBytes: 256 << 10, memoryBytes: 16 << 20, flushAge: 50 * time.Millisecond},
	{journalBytes: 4 << 20, journalFileBytes: 256 << 10, memoryBytes: 8 << 20, flushAge: 300 * time.Millisecond},
	{journalBytes: 4 << 20, journalFileBytes: 512 << 10, memoryBytes: 32 << 20, flushAge: 150 * time.Millisecond},
}

// build builds the server once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "flotilla-kill-binary-")
	if err != nil {
		return "", err
	}
	built = dir
	return proctest.Build("KILL_BINARY", filepath.Join(dir, "flotilla"))
})

// built is where build has built something; "" if it was not called.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// bench is what the rounds of one test share.
type bench struct {
	t      *testing.T
	binary string
	dir    string
	seed   uint64
	tally  *tally
	groups map[string][]string // what groups consume whole; see history.Options
}

// newBench prints the seed and how to use it again. The directory stays after a
// failure.
func newBench(t *testing.T) *bench {
	b := &bench{t: t, seed: defaultSeed, tally: newTally()}
	var err error
	if text := os.Getenv("KILL_SEED"); text != "" {
		if b.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KILL_SEED: %v", err)
		}
	}
	short := ""
	if testing.Short() {
		short = " -short"
	}
	t.Logf("seed %d; again: KILL_SEED=%d go test -count=1 -v%s -run '^%s$' ./internal/killtest", b.seed, b.seed, short, t.Name())
	if b.binary, err = build(); err != nil {
		t.Fatal(err)
	}
	if b.dir, err = os.MkdirTemp("", "flotilla-kill-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b.keep() {
			t.Logf("data, logs and histories stay in %s", b.dir)
			return
		}
		_ = os.RemoveAll(b.dir)
	})
	return b
}

// keep reports whether the files of a run are of interest after it.
func (b *bench) keep() bool { return b.t.Failed() || os.Getenv("KILL_KEEP") != "" }

// round runs one round: kills by plan, and then the verdict.
func (b *bench) round(i int, set settings, kills func(context.Context, *round) error) {
	b.t.Helper()
	ctx := b.t.Context()
	dir := filepath.Join(b.dir, fmt.Sprint("round-", i))
	r, err := newRound(ctx, b.binary, dir, set, b.seed+uint64(i))
	if err != nil {
		b.t.Fatalf("round %d: %v", i, err)
	}
	defer func() {
		r.close()
		if !b.keep() {
			_ = os.RemoveAll(dir)
			return
		}
		if r.load != nil {
			b.save(dir, r.load)
		}
	}()
	err = kills(ctx, r)
	if err == nil {
		err = r.finish(ctx)
	}
	if err != nil {
		b.t.Errorf("round %d, after %d kills of all: %v", i, b.tally.kills, err)
	}
	b.verdict(i, r.load.rec.History(), err == nil)
	b.topics(i, r.load.rec.History())
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// save writes the history of a load into dir, for a reader's eyes.
func (b *bench) save(dir string, l *load) {
	b.t.Helper()
	f, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err == nil {
		err = cmp.Or(history.Write(f, l.rec.History()), f.Close())
	}
	if err != nil {
		b.t.Error(err)
	}
}

// verdict checks a history. A final one ends with reads of everything.
func (b *bench) verdict(i int, h history.History, final bool) {
	b.t.Helper()
	report := history.Check(h, history.Options{Idempotent: true, Assigned: true, Final: final, Retention: retention, Groups: b.groups})
	b.tally.acked += report.Acked
	b.tally.reads += report.Reads
	for _, op := range h {
		if op.F == history.Send && op.Type == history.OK && op.Process >= kafkaProcess {
			b.tally.kafka++
		}
	}
	if report.Err() != nil {
		b.t.Errorf("round %d: %s", i, report)
	} else {
		b.t.Logf("round %d: %s", i, report)
	}
}

// topics checks what a history says of topics that come and go.
func (b *bench) topics(i int, h history.History) {
	b.t.Helper()
	if err := history.CheckTopics(h, topicsLimit); err != nil {
		b.t.Errorf("round %d: %v", i, err)
	}
}

// plan returns the targets of one round in the order of the kills. Growth comes
// first, as long as the ring is small.
func plan(chance *rand.Rand) []string {
	rest := []string{
		idle, appending, appending, ringReuse, flush, flush, segmentRoll, segmentRoll,
		checkpoint, checkpoint, recovery, recovery, topicDeletion, topicDeletion,
	}
	chance.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return append([]string{ringGrowth, ringGrowth}, rest...)
}

// tries is how many kills may miss one target in a row. A segment roll is over
// so soon that two of three do.
const tries = 40

// hit kills until one kill has hit the target. A ring that is full grows no
// more: such a target is passed over, and the tally tells if none was hit at all.
func (b *bench) hit(ctx context.Context, r *round, target string) error {
	for try := range tries {
		if target == ringGrowth && r.ringFull() {
			return nil
		}
		in, err := r.kill(ctx, target, try > 0)
		if err != nil {
			return fmt.Errorf("aimed at %s: %w", target, err)
		}
		b.tally.count(target, in)
		if slices.Contains(in, target) {
			return nil
		}
	}
	return fmt.Errorf("aimed at %s: none of %d kills hit it", target, tries)
}

func TestKill(t *testing.T) {
	b := newBench(t)
	defer func() { t.Logf("%s", b.tally) }()
	sets, least := rounds, 50
	targets := func(r *round) []string { return plan(r.chance) }
	if testing.Short() {
		sets, least = rounds[:1], 6
		targets = func(*round) []string {
			return []string{ringGrowth, appending, flush, checkpoint, recovery, topicDeletion}
		}
	}
	for i, set := range sets {
		b.round(i, set, func(ctx context.Context, r *round) error {
			for _, target := range targets(r) {
				if err := b.hit(ctx, r, target); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if b.tally.kills < least {
		t.Errorf("%d kills, want %d at least", b.tally.kills, least)
	}
	if b.tally.kafka < 100*len(sets) {
		t.Errorf("%d records were acknowledged by Kafka's protocol, want %d at least", b.tally.kafka, 100*len(sets))
	}
}

// TestKillWhileDraining kills a server that was asked to stop, at any moment
// until it has.
func TestKillWhileDraining(t *testing.T) {
	b := newBench(t)
	defer func() { t.Logf("%s", b.tally) }()
	n := 8
	if testing.Short() {
		n = 2
	}
	b.round(0, rounds[0], func(ctx context.Context, r *round) error {
		for range n {
			if err := b.hit(ctx, r, drain); err != nil {
				return err
			}
		}
		return nil
	})
}
