package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// truth is what was acknowledged: the value at each offset of a partition.
type truth map[history.Key][]int64

// story of a directory that has something of everything: topics, idempotent
// producers, sealed and open segments, bases and deltas, a journal that wrapped
// and holds entries above the checkpoints. The node is killed at its end.
func (w *world) everything() (told truth, old *vfs.Mem) {
	told = make(truth)
	keys := []history.Key{{Topic: "a"}, {Topic: "a", Partition: 1}, {Topic: "b"}}
	for round := range 3 {
		if !w.mustStart() {
			return nil, nil
		}
		p := w.hire()
		if round == 0 {
			p.createTopic("a", 2)
			p.createTopic("b", 1)
			p.createTopic("gone", 1)
			p.createTopic("wide", 24) // makes a base longer than the deltas that follow
		}
		pr := p.producer(load{timeout: time.Minute})
		for i := range 6 {
			for _, k := range keys {
				w.tell(pr, told, k, 200+100*i)
			}
		}
		if round == 0 {
			for range 190 { // more than a segment, and several times the ring
				w.tell(pr, told, keys[0], 6000)
			}
			p.deleteTopic("gone")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if err := pr.Close(ctx); err != nil {
			w.problem("producer: %v", err)
		}
		cancel()
		p.leave()
		if round < 2 {
			w.stopNode()
		}
		if round == 0 {
			old = w.disk.KillClone()
		}
	}
	w.end(killed, 0)
	return told, old
}

// tell sends a record, waits until it is acknowledged, and notes it.
func (w *world) tell(pr *client.Producer, told truth, key history.Key, bytes int) {
	value := w.value.Add(1)
	done := make(chan client.RecordResult, 1)
	if err := pr.Send(context.Background(), record(key, value, bytes), func(r client.RecordResult) { done <- r }); err != nil {
		w.problem("send: %v", err)
		return
	}
	if r := <-done; r.Err != nil || r.Offset != int64(len(told[key])) {
		w.problem("%v: offset %d, want %d: %v", key, r.Offset, len(told[key]), r.Err)
	}
	told[key] = append(told[key], value)
}

// read is what readers get of a partition.
type read struct {
	end    int64
	values map[int64]int64
	failed map[int64]error // offsets whose reads fail
}

// readEverything reads all partitions of told, around what cannot be read.
func (w *world) readEverything(told truth) map[history.Key]*read {
	p := w.hire()
	defer p.leave()
	all := make(map[history.Key]*read)
	for key := range told {
		r := &read{values: make(map[int64]int64), failed: make(map[int64]error)}
		all[key] = r
		ends, err := p.c.Admin().Offsets(context.Background(), key.Topic, client.Latest)
		if err != nil {
			r.failed[0], r.end = err, 0
			continue
		}
		r.end = ends[key.Partition]
		for at := int64(0); at < r.end; {
			next, err := p.readFrom(key, at, r)
			if at = next; err != nil {
				r.failed[at] = err
				at++
			}
		}
	}
	return all
}

// readFrom reads from an offset to the end, or to the first error, and returns
// where it stopped.
func (p *person) readFrom(key history.Key, from int64, r *read) (at int64, failed error) {
	co, err := p.c.NewConsumer(client.ConsumerConfig{
		MaxWait: 100 * time.Millisecond, MaxPartitionBytes: 64 << 10,
		Assignments: []client.Assignment{{Topic: key.Topic, Partition: key.Partition, Offset: from}},
	})
	if err != nil {
		return from, err
	}
	defer co.Close()
	for at = from; at < r.end; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		fetched, err := co.Poll(ctx)
		cancel()
		if err != nil {
			return at, err
		}
		for i := range fetched {
			if fetched[i].Err != nil {
				return at, fetched[i].Err
			}
			for rec, err := range fetched[i].Records() {
				if err != nil {
					return at, err
				}
				r.values[rec.Offset] = valueOf(rec.Value)
				at = rec.Offset + 1
			}
		}
	}
	return at, nil
}

// everyFile returns the names of all files below dir.
func everyFile(t *testing.T, fsys vfs.FS, dir string) (names []string) {
	t.Helper()
	names, err := filesBelow(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// filesBelow returns the names of all files below dir.
func filesBelow(fsys vfs.FS, dir string) (names []string, err error) {
	list, err := fsys.ReadDir(dir)
	for _, name := range list {
		full := path.Join(dir, name)
		info, serr := fsys.Stat(full)
		below := []string{full}
		if err = errors.Join(err, serr); serr == nil && info.IsDir() {
			if below, serr = filesBelow(fsys, full); serr != nil {
				return names, serr
			}
		}
		names = append(names, below...)
	}
	return names, err
}

// contents is a directory as bytes, without the lock.
func contents(t *testing.T, fsys vfs.FS) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, name := range everyFile(t, fsys, dataDir) {
		b, err := vfs.ReadFile(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		if path.Base(name) != "LOCK" {
			all[name] = string(b)
		}
	}
	return all
}

// differ names a file that is not the same in two directories, or is empty.
func differ(a, b map[string]string) string {
	for name := range b {
		if a[name] != b[name] {
			return name
		}
	}
	for name := range a {
		if _, ok := b[name]; !ok {
			return name
		}
	}
	return ""
}

// suffer damages a disk and sees what a start, check and repair make of it.
func suffer(t *testing.T, w *world, told truth, h hurt) (outcome string) {
	id := fmt.Sprintf("%s at %d of %s", h.name, h.at, h.file)
	bad := func(format string, args ...any) { w.problem("%s: %s", id, fmt.Sprintf(format, args...)) }
	if err := h.do(w.disk); err != nil {
		t.Fatal(id, err)
	}
	before := contents(t, w.disk)
	rep, err := doctor.Check(w.disk, dataDir, doctor.Options{})
	if err != nil {
		if errors.Is(err, node.ErrNotOurs) {
			return notMended
		}
		bad("check: %v", err)
		return ""
	}
	if !maps.Equal(before, contents(t, w.disk)) {
		bad("check changed the directory")
	}
	aside := w.disk.KillClone()
	if err := w.start(); err == nil {
		got := w.readEverything(told)
		excuse := h.name == "a zeroed range" && kindOf(h.file) == "journal"
		unread := compare(bad, told, got, false, excuse)
		w.healthy()
		w.stopNode()
		switch {
		case unread == 0:
			return mendedByStart
		case excuse && unread == 1:
			return undetected
		case !rep.Harmed():
			bad("check finds nothing, and %d records cannot be read", unread)
		}
		repaired(t, w, aside, told, bad, unread)
		return servedRest
	} else {
		first := err.Error()
		if !rep.Harmed() {
			bad("check finds nothing, and the start is refused: %v", err)
		}
		if name := path.Base(h.file); h.at >= 0 && !strings.Contains(first, name) && !strings.Contains(first, path.Base(path.Dir(h.file))) {
			bad("the start's error does not name the file: %v", err)
		}
		refused := contents(t, w.disk)
		if err := w.start(); err == nil || err.Error() != first {
			bad("the second start says %v, the first %s", err, first)
		}
		if d := differ(refused, contents(t, w.disk)); d != "" {
			bad("a start after a refused start changed %s: %v", d, err)
		}
		if d := differ(before, refused); d != "" && !strings.Contains(d, "/journal/") && !strings.Contains(d, "/votes/") && !strings.Contains(d, "/metadata/") {
			bad("a refused start changed %s: %v", d, err)
		}
	}
	return repaired(t, w, w.disk, told, bad, 0)
}

// newest is where the last record before the kill went. Its commit, and the mark
// behind it, are all that tells that it was synced: a range of zeros over both
// looks like a write that never got there.
var newest = history.Key{Topic: "b"}

// compare holds what was read against what was acknowledged. It returns how
// many records cannot be read. excuse lets the newest be missing.
func compare(bad func(string, ...any), told truth, got map[history.Key]*read, lossy, excuse bool) (unread int) {
	for key, want := range told {
		r := got[key]
		for offset, value := range r.values {
			if offset >= int64(len(want)) || want[offset] != value {
				bad("%v offset %d holds value %d, acknowledged was another", key, offset, value)
			}
		}
		for offset := range want {
			if _, ok := r.values[int64(offset)]; ok {
				continue
			}
			unread++
			if r.failed[int64(offset)] == nil && !lossy && !(excuse && key == newest && offset == len(want)-1) {
				bad("%v offset %d is gone without an error", key, offset)
			}
		}
	}
	return unread
}

// repaired repairs a disk, starts from it, and looks at what is left.
func repaired(t *testing.T, w *world, disk *vfs.Mem, told truth, bad func(string, ...any), unread int) string {
	before := contents(t, disk)
	now := time.Now()
	dry, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{Now: now})
	if !maps.Equal(before, contents(t, disk)) {
		bad("a dry run changed the directory")
	}
	switch {
	case errors.Is(err, doctor.ErrRefused):
		return notMended
	case err != nil:
		bad("dry run: %v", err)
		return ""
	}
	lossy := dry.Plan.Lossy()
	if lossy {
		if _, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{Execute: true, Now: now}); !errors.Is(err, doctor.ErrLoss) {
			bad("repair without accepting loss: %v", err)
		}
		if !maps.Equal(before, contents(t, disk)) {
			bad("a refused repair changed the directory")
		}
	}
	done, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: lossy, Now: now})
	if err != nil {
		bad("repair: %v", err)
		return ""
	}
	if again, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{Now: now}); err != nil || len(again.Plan.Actions) > 0 {
		bad("after a repair another is planned: %v, %v", again, err)
	}
	w.disk = disk
	if err := w.start(); err != nil {
		bad("start after repair %+v: %v", done.Plan.Actions, err)
		return ""
	}
	got := w.readEverything(told)
	left := compare(bad, told, got, lossy, false)
	w.healthy()
	w.stopNode()
	if !lossy && left > unread {
		bad("a repair without loss left %d records unread, %d were before; plan %+v", left, unread, done.Plan.Actions)
	}
	if lossy {
		return mendedAtLoss
	}
	return mendedByHand
}

// TestDamage damages every kind of file in every way, and checks that no reader
// gets a wrong record, no start changes what it refuses, and that check and
// repair say and do what docs/robustness.md has in its table.
func TestDamage(t *testing.T) {
	t.Parallel()
	var disk, old *vfs.Mem
	var told truth
	problems, tr := run(t, 1, func(w *world) {
		told, old = w.everything()
		disk = w.disk
	})
	if len(problems) > 0 {
		t.Fatal(strings.Join(problems, "\n"), tr.save("damage"))
	}
	most := 60
	if testing.Short() {
		most = 4
	}
	all := hurts(t, rand.New(rand.NewPCG(1, 2)), disk, old, most)
	outcomes := make(map[cell]map[string]int)
	var mu sync.Mutex
	groups := 2 * runtime.GOMAXPROCS(0)
	t.Run("cases", func(t *testing.T) {
		for g := range groups {
			t.Run(fmt.Sprintf("group=%d", g), func(t *testing.T) {
				t.Parallel()
				for i := g; i < len(all); i += groups {
					h, outcome := all[i], ""
					problems, tr := run(t, uint64(i)+100, func(w *world) {
						w.disk = disk.KillClone()
						outcome = suffer(t, w, told, h)
					})
					if len(problems) > 0 {
						t.Error(strings.Join(problems, "\n"), tr.save(fmt.Sprintf("damage-%d", i)))
					}
					mu.Lock()
					c := cell{kindOf(h.file), h.name}
					if outcomes[c] == nil {
						outcomes[c] = make(map[string]int)
					}
					outcomes[c][outcome]++
					mu.Unlock()
				}
			})
		}
	})
	if !t.Failed() {
		checkTable(t, outcomes)
	}
}

// cell is a row of the table.
type cell struct{ kind, hurt string }

const (
	damagePage  = "../../docs/robustness.md"
	tableBegins = "<!-- written by internal/sim TestDamage -update: begin -->\n"
	tableEnds   = "<!-- end -->\n"
)

// checkTable holds what came of the damages against the table in the docs. A
// short run meets a part of it. -update writes it anew, from a long run.
func checkTable(t *testing.T, outcomes map[cell]map[string]int) {
	t.Helper()
	page, err := os.ReadFile(damagePage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), tableBegins)
	table, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", damagePage)
	}
	rows := make(map[cell][]string)
	for line := range strings.Lines(table) {
		if f := strings.Split(strings.TrimSpace(line), " | "); len(f) == 3 && !strings.HasPrefix(line, "| file |") {
			rows[cell{strings.TrimPrefix(f[0], "| "), f[1]}] = strings.Split(strings.TrimSuffix(f[2], " |"), "<br>")
		}
	}
	if *update {
		if testing.Short() {
			t.Fatal("-update wants a long run: without -short")
		}
		var out []string
		for c, seen := range outcomes {
			delete(seen, undetected) // what the page says of it stands below the table
			out = append(out, fmt.Sprintf("| %s | %s | %s |\n", c.kind, c.hurt, strings.Join(slices.Sorted(maps.Keys(seen)), "<br>")))
		}
		slices.Sort(out)
		table = "| file | damage | what comes of it, by where it is |\n|---|---|---|\n" + strings.Join(out, "")
		if err := os.WriteFile(damagePage, []byte(before+tableBegins+table+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for c, seen := range outcomes {
		for outcome, n := range seen {
			if outcome != undetected && !slices.Contains(rows[c], outcome) {
				t.Errorf("%s, %s: %d times %q, which %s does not say", c.kind, c.hurt, n, outcome, damagePage)
			}
		}
		for _, outcome := range rows[c] {
			if seen[outcome] == 0 && !testing.Short() {
				t.Errorf("%s, %s: never %q, which %s says", c.kind, c.hurt, outcome, damagePage)
			}
		}
	}
	if len(rows) != len(outcomes) {
		t.Errorf("%s has %d rows, there are %d", damagePage, len(rows), len(outcomes))
	}
}

var update = flag.Bool("update", false, "write the table of docs/robustness.md anew")
