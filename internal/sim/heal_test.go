package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// The outcomes of damage of one node's directory, of three.
const (
	setAside = "set aside, and fetched from the others"

	nothingHurt = "nothing to damage"
)

// asideSaid is what a node's log says of damaged data.
const asideSaid = "the damaged data was set aside"

// healCells are the damages of a node's files beside its partitions', which TestMend
// has.
func healCells(all []hurt) (cells []cell) {
	seen := make(map[cell]bool)
	for _, h := range all {
		c := cell{kindOf(h.file), h.name}
		if skip := c.kind == "segment" || c.kind == "index" || c.kind == "partitions" || c.kind == "SPARE"; !skip && !seen[c] {
			seen[c] = true
			cells = append(cells, c)
		}
	}
	return cells
}

func (c cell) compare(d cell) int { return strings.Compare(c.kind+c.hurt, d.kind+d.hurt) }

// healStage is three nodes with records; the one that is returned is killed, and old
// is how its disk was one start before.
func (fl *fleet) healStage(keys []history.Key) (m *member, old *vfs.Mem, ok bool) {
	if !fl.startAll() || !fl.createTopics([]string{"stays0"}, int32(len(keys))) {
		return nil, nil, false
	}
	fl.flood(keys, 60)
	m = fl.members[fl.rng.IntN(fleetNodes)]
	fl.stopNode(m)
	old = m.disk.KillClone()
	if !fl.start(m) {
		return nil, nil, false
	}
	fl.flood(keys, 60)
	time.Sleep(time.Duration(fl.rng.IntN(3000)) * time.Millisecond)
	fl.end(m, killed)
	return m, old, true
}

// healHistory damages what one node has, between its end and its next start, while
// clients write and read. It has to have its place again by itself, and nobody else
// may notice.
func healHistory(t *testing.T, fl *fleet, c cell) (outcome string) {
	keys := []history.Key{{Topic: "stays0"}, {Topic: "stays0", Partition: 1}, {Topic: "stays0", Partition: 2}}
	m, old, ok := fl.healStage(keys)
	if !ok {
		return ""
	}
	writers := fl.employ(fleetPlan{
		keys: keys, topics: []string{"stays0"}, producers: 2, records: 60, maxBytes: 3000, events: 3, gap: 5 * time.Second,
	})
	all := slices.DeleteFunc(hurts(t, fl.rng, m.disk, old, 8), func(h hurt) bool { return kindOf(h.file) != c.kind || h.name != c.hurt })
	if len(all) == 0 {
		fl.stop() // an older copy, say, is like the present one
		return nothingHurt
	}
	h := all[fl.rng.IntN(len(all))]
	fl.trace.add(fmt.Sprintf("NODE %d DAMAGED: %s at %d of %s", m.id, h.name, h.at, h.file))
	if err := h.do(m.disk); err != nil {
		t.Fatal(err)
	}
	m.hurt = true
	fl.start(m)
	select {
	case <-m.joined:
	case <-time.After(rejoins):
		fl.problem("node %d waits for ever: %s at %d of %s", m.id, h.name, h.at, h.file)
		return ""
	}
	if !fl.adopt(m, time.Second) {
		return ""
	}
	outcome = byItself
	if fl.trace.saw(asideSaid) {
		outcome = setAside
	}
	writers.wait()
	if !fl.whole() {
		return outcome
	}
	fl.progress(keys)
	fl.stop()
	fl.clients.Wait()
	time.Sleep(settle)
	if !fl.healthy() {
		return outcome
	}
	fl.readAll()
	for _, m := range fl.members {
		fl.stopNode(m)
	}
	fl.equal(t)
	return outcome
}

const healBegins = "<!-- written by internal/sim TestHeal -update: begin -->\n"

// TestHeal damages every kind of file of one of three nodes in every way, but for the
// partitions': see TestMend. It holds what comes of it against the table in the docs.
func TestHeal(t *testing.T) {
	t.Parallel()
	page := readHealPage(t)
	cells := slices.Clone(page.cells)
	problems, tr, _ := runFleet(t, 1, func(fl *fleet) {
		m, old, ok := fl.healStage([]history.Key{{Topic: "stays0"}})
		if !ok {
			return
		}
		for _, c := range healCells(hurts(t, rand.New(rand.NewPCG(1, 2)), m.disk, old, 2)) {
			if !slices.Contains(cells, c) { // not every run has each kind of file
				cells = append(cells, c)
			}
		}
		slices.SortFunc(cells, cell.compare)
	})
	if len(problems) > 0 {
		report(t, 1, problems, tr)
		return
	}
	runs, step := 2, 1
	if testing.Short() {
		runs, step = 1, 6
	}
	var mu sync.Mutex
	outcomes := make(map[cell]map[string]int)
	t.Run("cases", func(t *testing.T) {
		for i := 0; i < len(cells); i += step {
			c := cells[i]
			for run := range runs {
				seed := uint64(i*runs+run) + 1
				t.Run(strings.ReplaceAll(fmt.Sprintf("%s,_%s,_seed=%d", c.kind, c.hurt, seed), " ", "_"), func(t *testing.T) {
					t.Parallel()
					outcome := ""
					problems, tr, _ := runFleet(t, seed, func(fl *fleet) { outcome = healHistory(t, fl, c) })
					if outcome != nothingHurt {
						problems = fleetVerdict(problems, tr.history)
					}
					report(t, seed, problems, tr)
					mu.Lock()
					defer mu.Unlock()
					if outcomes[c] == nil {
						outcomes[c] = make(map[string]int)
					}
					outcomes[c][outcome]++
				})
			}
		}
	})
	healed := 0
	for c, seen := range outcomes {
		for outcome, n := range seen {
			if outcome == setAside {
				healed += n
			}
			if outcome != nothingHurt && !slices.Contains(healOutcomes(c), outcome) && !t.Failed() {
				t.Errorf("%s, %s: it was %q, and may be %q", c.kind, c.hurt, outcome, healOutcomes(c))
			}
		}
	}
	t.Log(outcomes)
	if healed < len(outcomes)/2 {
		t.Errorf("only %d times damaged data was set aside, in %d kinds of damage", healed, len(outcomes))
	}
	page.check(t, cells)
}

// healOutcomes are what may come of a damage, by where it is.
func healOutcomes(c cell) []string {
	switch {
	case c == cell{"GENERATION", "swapped with another"}:
		return []string{byItself} // they all say the same
	}
	return []string{byItself, setAside}
}

// healPage is the page with the table of what is damaged, and what comes of it.
type healPage struct {
	before, table, after string
	cells                []cell // of the table
}

func readHealPage(t *testing.T) (p healPage) {
	t.Helper()
	text, err := os.ReadFile(damagePage)
	if err != nil {
		t.Fatal(err)
	}
	var rest string
	var begins, ends bool
	p.before, rest, begins = strings.Cut(string(text), healBegins)
	p.table, p.after, ends = strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", damagePage)
	}
	for i, line := range strings.Split(strings.TrimSuffix(p.table, "\n"), "\n") {
		if columns := strings.Split(line, " | "); i >= 2 && len(columns) == 3 {
			p.cells = append(p.cells, cell{strings.TrimPrefix(columns[0], "| "), columns[1]})
		}
	}
	return p
}

// check holds the table against what is tested.
func (p *healPage) check(t *testing.T, cells []cell) {
	t.Helper()
	want := "| file | damage | what comes of it, by where it is |\n|---|---|---|\n"
	for _, c := range cells {
		want += fmt.Sprintf("| %s | %s | %s |\n", c.kind, c.hurt, strings.Join(healOutcomes(c), "<br>"))
	}
	if *update {
		if err := os.WriteFile(damagePage, []byte(p.before+healBegins+want+tableEnds+p.after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if p.table != want {
		t.Errorf("%s differs from what is tested; run go test ./internal/sim -run 'TestHeal$' -update", damagePage)
	}
}

// loseRing takes what counts the journal's files away from a node that is down.
func (fl *fleet) loseRing(m *member) {
	fl.trace.add(fmt.Sprintf("NODE %d LOSES ITS RING", m.id))
	if err := m.disk.Lose(dataDir + "/journal/RING"); err != nil {
		fl.problem("node %d: %v", m.id, err)
	}
	m.hurt = true
}

// setsAside counts what a node has set aside.
func setsAside(m *member) (sets int) {
	names, err := m.disk.ReadDir(dataDir)
	if err != nil {
		return -1
	}
	for _, name := range names {
		if strings.HasPrefix(name, node.AsidePrefix) {
			sets++
		}
	}
	return sets
}

// twoHurtHistory damages two of three nodes at once. Neither gives anything up, until a
// sound copy is put back in one of them: then the other one is replaced.
func twoHurtHistory(fl *fleet) {
	key, _, b, c, ok := fl.stage("stays0")
	if !ok {
		return
	}
	for _, m := range []*member{b, c} {
		fl.end(m, killed)
	}
	sound := b.disk.KillClone()
	for _, m := range []*member{b, c} {
		fl.loseRing(m)
	}
	before := [2]map[string]string{filesOf(fl, b.disk), filesOf(fl, c.disk)}
	for _, m := range []*member{b, c} {
		fl.start(m)
	}
	time.Sleep(2 * time.Minute)
	for i, m := range []*member{b, c} {
		fl.mustWait(m, before[i])
	}
	if !fl.trace.saw("it waits for the other nodes") || !fl.trace.saw("journal/RING") {
		fl.problem("nobody says what is damaged and what they wait for")
	}
	fl.end(b, killed)
	b.disk, b.hurt = sound, false
	if !fl.start(b) || !fl.adopt(c, rejoins) || !fl.whole() {
		return
	}
	if setsAside(b) != 0 || setsAside(c) != 1 {
		fl.problem("%d and %d sets are aside, want none and one", setsAside(b), setsAside(c))
	}
	fl.progress([]history.Key{key})
	fl.stop()
	fl.clients.Wait()
	if fl.healthy() {
		fl.readAll()
	}
}

// onlyCopyHistory damages a node that has the only replica of a shard. It gives nothing
// up, although the metadata and all other shards can do without it, and serves again
// when a sound copy is put back.
func onlyCopyHistory(fl *fleet) {
	all, ok := fl.muster()
	if !ok {
		return
	}
	fl.createFactor(all[0], 1)
	time.Sleep(settle)
	for p := range int32(factorPartitions) {
		fl.produceFactor("at first", all[0], 1, p, 0)
	}
	b := all[1]
	fl.end(b, killed)
	sound := b.disk.KillClone()
	fl.loseRing(b)
	before := filesOf(fl, b.disk)
	fl.start(b)
	time.Sleep(2 * time.Minute)
	fl.mustWait(b, before)
	if !fl.trace.saw("nobody else leads shard") {
		fl.problem("it does not say that nobody else has the shard")
	}
	fl.end(b, killed)
	b.disk, b.hurt = sound, false
	if !fl.start(b) {
		return
	}
	time.Sleep(settle)
	for p := range int32(factorPartitions) {
		fl.produceFactor("with the sound copy", all[0], 1, p, 1)
	}
	fl.healthy()
}

// mustWait wants a damaged node to wait for the others, with the files that it had.
func (fl *fleet) mustWait(m *member, before map[string]string) {
	select {
	case <-m.joined:
		fl.problem("node %d does not wait: %v", m.id, m.refused)
	default:
	}
	if d := differ(before, filesOf(fl, m.disk)); d != "" {
		fl.problem("node %d waits, and has changed %s", m.id, d)
	}
}

// filesOf are the files of a node's directory, with what they hold.
func filesOf(fl *fleet, disk *vfs.Mem) map[string]string {
	all := make(map[string]string)
	names, err := filesBelow(disk, dataDir)
	for _, name := range names {
		b, readErr := vfs.ReadFile(disk, name)
		all[name], err = string(b), errors.Join(err, readErr)
	}
	if err != nil {
		fl.problem("%v", err)
	}
	return all
}

// cutHealHistory cuts the power of a damaged node again and again while it sets its data
// aside and gets the others'.
func cutHealHistory(fl *fleet) {
	key, _, b, _, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.end(b, killed)
	fl.loseRing(b)
	for range 6 {
		fl.start(b)
		time.Sleep(time.Duration(fl.rng.IntN(9000)) * time.Millisecond)
		b.hurt = true // it may have its place already, and is started like one that has not
		fl.end(b, cutEnd(vfs.Unsynced(fl.rng.IntN(3))))
	}
	fl.start(b)
	if !fl.adopt(b, rejoins) || !fl.whole() {
		return
	}
	if n := setsAside(b); n != 1 {
		fl.problem("%d sets are aside, want one", n)
	}
	fl.conclude(key)
}

// refuseHistory damages a node that is told to refuse: it says why, and changes nothing.
func refuseHistory(fl *fleet) {
	fl.refuse = true
	_, _, b, _, ok := fl.stage("stays0")
	if !ok {
		return
	}
	fl.end(b, killed)
	fl.loseRing(b)
	before := filesOf(fl, b.disk)
	fl.start(b)
	<-b.joined
	if b.refused == nil || !strings.Contains(b.refused.Error(), "journal/RING") {
		fl.problem("node %d, told to refuse, starts, or does not name the file: %v", b.id, b.refused)
	}
	if d := differ(before, filesOf(fl, b.disk)); d != "" {
		fl.problem("node %d refuses, and has changed %s", b.id, d)
	}
	fl.stop()
}

// TestHealDirected runs the histories about damage of a node's own files that are made
// for one situation.
func TestHealDirected(t *testing.T) {
	t.Parallel()
	t.Run("two of three at once", func(t *testing.T) {
		t.Parallel()
		problems, tr, _ := runFleet(t, 1, twoHurtHistory)
		report(t, 1, fleetVerdict(problems, tr.history), tr)
	})
	t.Run("the only copy", func(t *testing.T) {
		t.Parallel()
		problems, tr, _ := runFleet(t, 1, onlyCopyHistory)
		report(t, 1, problems, tr)
	})
	t.Run("told to refuse", func(t *testing.T) {
		t.Parallel()
		problems, tr, _ := runFleet(t, 1, refuseHistory)
		report(t, 1, problems, tr)
	})
	for _, seed := range seeds(t, 20, 2) {
		t.Run(fmt.Sprintf("cut on the way, seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			problems, tr, _ := runFleet(t, seed, cutHealHistory)
			report(t, seed, fleetVerdict(problems, tr.history), tr)
		})
	}
}
