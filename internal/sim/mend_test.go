package sim

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// harm is a way to damage the partitions of one node, as a disk or an operator
// would. It is given the files of a kind, ascending, and does something to one.
type harm struct {
	kind, name string
	do         func(rng *rand.Rand, disk *vfs.Mem, files []string) (what string, err error)
}

// The outcomes of damage on a minority.
const (
	fromOthers = "fetched from the others"
	byItself   = "mended by the node itself"
)

// outcomes are what may come of it, by where it is: an index is always made from its
// segment, and what a journal holds above the newest checkpoint is applied again.
func (h harm) outcomes() []string {
	if h.kind == "index" {
		return []string{byItself}
	}
	return []string{fromOthers, byItself}
}

// inPlace changes some bytes of a file behind everybody's back.
func inPlace(change func(rng *rand.Rand, b []byte)) func(*rand.Rand, *vfs.Mem, []string) (string, error) {
	return func(rng *rand.Rand, disk *vfs.Mem, files []string) (string, error) {
		file := files[rng.IntN(len(files))]
		b, err := vfs.ReadFile(disk, file)
		if err != nil {
			return file, err
		}
		// What is zero already is not damaged by zeros.
		for range 1000 {
			at := rng.IntN(len(b))
			after := bytes.Clone(b[at:])
			if change(rng, after); !bytes.Equal(after, b[at:]) {
				return fmt.Sprintf("%s at %d", file, at), disk.Corrupt(file, int64(at), func(b []byte) { copy(b, after) })
			}
		}
		return file, errors.New("sim: nothing to damage")
	}
}

// harms are the damages of the files of partitions.
func harms() (all []harm) {
	for _, kind := range []string{"segment", "index"} {
		all = append(all,
			harm{kind, "a flipped bit", inPlace(func(rng *rand.Rand, b []byte) { b[0] ^= 1 << rng.IntN(8) })},
			harm{kind, "a zeroed range", inPlace(func(_ *rand.Rand, b []byte) { clear(b[:min(len(b), 512)]) })},
			harm{kind, "cut off", func(rng *rand.Rand, disk *vfs.Mem, files []string) (string, error) {
				file := files[rng.IntN(len(files))]
				f, err := disk.Open(file)
				if err != nil {
					return file, err
				}
				size, err := f.Size()
				at := rng.Int64N(max(size, 1))
				return fmt.Sprintf("%s at %d", file, at), errors.Join(err, f.Truncate(at), f.Sync(), f.Close())
			}},
			harm{kind, "missing", func(rng *rand.Rand, disk *vfs.Mem, files []string) (string, error) {
				file := files[rng.IntN(len(files))]
				return file, disk.Lose(file)
			}},
			harm{kind, "swapped with another", func(rng *rand.Rand, disk *vfs.Mem, files []string) (string, error) {
				if len(files) < 2 {
					return "", errors.New("sim: nothing to swap")
				}
				i := rng.IntN(len(files) - 1)
				a, errA := vfs.ReadFile(disk, files[i])
				b, errB := vfs.ReadFile(disk, files[i+1])
				return files[i] + " with " + files[i+1], errors.Join(errA, errB, vfs.WriteFile(disk, files[i], b), vfs.WriteFile(disk, files[i+1], a))
			}},
		)
	}
	return append(all, harm{"segment", "all of a partition missing", func(rng *rand.Rand, disk *vfs.Mem, files []string) (string, error) {
		dir := path.Dir(files[rng.IntN(len(files))])
		return dir, disk.Lose(dir)
	}})
}

// segmentHeaderBytes is what precedes the batches in a segment (docs/formats.md).
const segmentHeaderBytes = 128

// partFiles are a node's files of a kind, ascending.
func partFiles(t *testing.T, disk *vfs.Mem, kind string) (files []string) {
	for _, file := range everyFile(t, disk, dataDir+"/partitions") {
		if kindOf(file) == kind {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

// mendPlan is one history of damage on a minority.
type mendPlan struct {
	harm    harm
	running bool // the node goes on while it is damaged
	leading bool // it leads, if it may be chosen
}

func (pl mendPlan) String() string {
	when, who := "stopped", "any node"
	if pl.running {
		when = "running"
	}
	if pl.leading {
		who = "a leader"
	}
	return fmt.Sprintf("%s, %s, %s, %s", pl.harm.kind, pl.harm.name, when, who)
}

// mendHistory damages one node while clients write and read. It has to become
// whole again by itself, and nobody else may notice.
func mendHistory(t *testing.T, fl *fleet, pl mendPlan) (outcome string) {
	fl.scrub = 4 << 20
	rng := rand.New(rand.NewPCG(fl.seed, 11))
	keys := []history.Key{{Topic: "stays0"}, {Topic: "stays0", Partition: 1}, {Topic: "stays0", Partition: 2}}
	if !fl.startAll() || !fl.createTopics([]string{"stays0"}, int32(len(keys))) {
		return ""
	}
	fl.flood(keys, 150)
	time.Sleep(2 * scrubEvery)
	m := fl.members[rng.IntN(fleetNodes)]
	if pl.leading {
		for len(m.node.Leads()) == 0 {
			m = fl.members[rng.IntN(fleetNodes)]
		}
	}
	if !pl.running {
		fl.end(m, killed)
	}
	// What a disk changes under a process that has looked at it is not noticed before
	// the next scrub: a consumer's own checksum refuses it, and it comes again.
	fl.rots = pl.running
	writers := fl.employ(fleetPlan{
		keys: keys, topics: []string{"stays0"}, producers: 2, records: 60, maxBytes: 3000, events: 3, gap: 5 * time.Second,
	})
	time.Sleep(time.Duration(rng.IntN(1000)) * time.Millisecond)
	what, err := pl.harm.do(rng, m.disk, partFiles(t, m.disk, pl.harm.kind))
	fl.trace.add(fmt.Sprintf("NODE %d DAMAGED: %s, %s", m.id, pl.harm.name, what))
	if err != nil {
		fl.problem("%s: %v", what, err)
		return ""
	}
	if !pl.running {
		time.Sleep(time.Second)
		if !fl.start(m) {
			return "refused"
		}
	}
	writers.wait()
	if !fl.undamaged(m) {
		return ""
	}
	outcome = byItself
	if s := m.node.Stats(); s.RepairPulledBytes > 0 {
		outcome = fromOthers
	}
	if !slices.Contains(pl.harm.outcomes(), outcome) {
		fl.problem("%s: it was %s, and may be %v", pl, outcome, pl.harm.outcomes())
	}
	fl.progress(keys)
	fl.stop()
	fl.clients.Wait()
	time.Sleep(settle) // what is in memory goes to files
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

// undamaged waits until a node has looked at everything twice and knows of no damage.
func (fl *fleet) undamaged(m *member) bool {
	passes := m.node.Stats().ScrubPasses
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		s := m.node.Stats()
		damaged := 0
		for _, sh := range s.Shards {
			damaged += sh.Damaged
		}
		if damaged == 0 && s.ScrubPasses >= passes+2 {
			return true
		}
		if !fl.healthy() {
			return false
		}
	}
	fl.problem("node %d is not whole a minute after it was damaged", m.id)
	return false
}

// equal holds the files of all nodes against each other: they are sound, and have
// the same batches.
func (fl *fleet) equal(t *testing.T) {
	logs := make([]map[string][]byte, fleetNodes)
	for i, m := range fl.members {
		rep, err := doctor.Check(m.disk, dataDir, doctor.Options{})
		if err != nil {
			fl.problem("node %d: check: %v", m.id, err)
			continue
		}
		for _, f := range rep.Findings {
			if f.Harmful {
				fl.problem("node %d: %s: %s", m.id, f.File, f.What)
			}
		}
		logs[i] = make(map[string][]byte)
		for _, file := range partFiles(t, m.disk, "segment") {
			b, err := vfs.ReadFile(m.disk, file)
			if err != nil || len(b) < segmentHeaderBytes {
				fl.problem("node %d: %s: %d bytes, %v", m.id, file, len(b), err)
				continue
			}
			part := path.Base(path.Dir(file))
			logs[i][part] = append(logs[i][part], b[segmentHeaderBytes:]...)
		}
	}
	for part, log := range logs[0] {
		for rest := log; len(rest) > 0; {
			one, more, err := batch.Split(rest)
			if err == nil {
				err = batch.CheckCRC(one)
			}
			if err != nil {
				fl.problem("node %d: %s: %v", fl.members[0].id, part, err)
				break
			}
			rest = more
		}
	}
	for i := range logs {
		for part, log := range logs[0] {
			if !bytes.Equal(logs[i][part], log) {
				fl.problem("nodes %d and %d have other batches of %s: %d and %d bytes", fl.members[0].id, fl.members[i].id, part, len(log), len(logs[i][part]))
			}
		}
		if len(logs[i]) != len(logs[0]) || len(logs[0]) == 0 {
			fl.problem("node %d has %d partitions, node %d %d", fl.members[i].id, len(logs[i]), fl.members[0].id, len(logs[0]))
		}
	}
}

// TestMend damages the files of partitions on one of three nodes in every way,
// while the node runs and while it is stopped.
func TestMend(t *testing.T) {
	t.Parallel()
	var plans []mendPlan
	for _, h := range harms() {
		for i := range 4 {
			plans = append(plans, mendPlan{harm: h, running: i%2 == 0, leading: i < 2})
		}
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	var mu sync.Mutex
	outcomes := make(map[string]int)
	t.Cleanup(func() {
		t.Log(outcomes)
		if step == 1 && (outcomes[fromOthers] < 8 || outcomes[byItself] < 8) {
			t.Error("too few of one outcome to show anything")
		}
	})
	for i := 0; i < len(plans); i += step {
		t.Run(strings.ReplaceAll(plans[i].String(), " ", "_"), func(t *testing.T) {
			t.Parallel()
			seed, outcome := uint64(i)+1, ""
			problems, tr, _ := runFleet(t, seed, func(fl *fleet) { outcome = mendHistory(t, fl, plans[i]) })
			report(t, seed, fleetVerdict(problems, tr.history), tr)
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome]++
		})
	}
}

const mendBegins = "<!-- written by internal/sim TestMendTable -update: begin -->\n"

// TestMendTable holds the table in the docs of what comes of damage on a minority
// against what TestMend checks.
func TestMendTable(t *testing.T) {
	page, err := os.ReadFile(damagePage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), mendBegins)
	table, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", damagePage)
	}
	want := "| file | damage | what comes of it, by where it is |\n|---|---|---|\n"
	for _, h := range harms() {
		want += fmt.Sprintf("| %s | %s | %s |\n", h.kind, h.name, strings.Join(h.outcomes(), "<br>"))
	}
	if *update {
		if err := os.WriteFile(damagePage, []byte(before+mendBegins+want+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want {
		t.Errorf("%s differs from what is tested; run go test ./internal/sim -run TestMendTable -update", damagePage)
	}
}
