package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// flip is a bit that changes in the middle of a file.
func flip(file string, at int) hurt {
	return hurt{"a flipped bit", file, at, rewrite(file, func(b []byte) []byte { b[at] ^= 4; return b })}
}

// damaged makes the directory of everything, and damages copies of it.
func damaged(t *testing.T) (disk *vfs.Mem, told truth, all map[string]hurt) {
	t.Helper()
	problems, tr := run(t, 1, func(w *world) {
		told, _ = w.everything()
		disk = w.disk
	})
	if len(problems) > 0 {
		t.Fatal(strings.Join(problems, "\n"), tr.save("damaged"))
	}
	all = make(map[string]hurt)
	for _, file := range everyFile(t, disk, dataDir) {
		kind := kindOf(file)
		if _, ok := all[kind]; ok || kind == "checkpoint, data" && !strings.Contains(file, "-delta") {
			continue
		}
		switch kind {
		case "journal":
			all[kind] = flip(file, 8192+90) // of the first record
		case "metadata log", "votes":
			all[kind] = flip(file, 40)
		case "segment":
			all[kind] = flip(file, 1000)
		case "IDENTITY", "RING", "GENERATION", "checkpoint, data":
			all[kind] = flip(file, 20)
		}
	}
	return disk, told, all
}

// TestRepairCut cuts the power at every operation of a repair. The node refuses
// to start from a repair that had begun to change anything, the next repair
// ends, and what can be read then is what an uninterrupted one leaves.
func TestRepairCut(t *testing.T) {
	t.Parallel()
	disk, told, all := damaged(t)
	step := uint64(1)
	if testing.Short() {
		step = 9
	}
	for kind, h := range all {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			hurtDisk := disk.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}) // all of it durable
			if err := h.do(hurtDisk); err != nil {
				t.Fatal(err)
			}
			fix := func(disk *vfs.Mem) (*doctor.Repaired, error) {
				return doctor.Repair(disk, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true, Now: epoch})
			}
			read := func(w *world, disk *vfs.Mem) string {
				w.disk = disk
				if !w.mustStart() {
					return ""
				}
				var lines []string
				for k, r := range w.readEverything(told) {
					lines = append(lines, fmt.Sprintf("%v: [0, %d) %d records, %d failed\n", k, r.end, len(r.values), len(r.failed)))
				}
				slices.Sort(lines)
				w.stopNode()
				return strings.Join(lines, "")
			}
			var mu sync.Mutex
			var cuts []*vfs.Mem
			work := hurtDisk.KillClone()
			work.OnOp(func(op vfs.Op, ph vfs.Phase) {
				mu.Lock()
				defer mu.Unlock()
				if changes(op) && ph == vfs.Before && op.Seq%step == 0 {
					cuts = append(cuts, work.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: op.Seq}))
				}
			})
			problems, tr := run(t, 7, func(w *world) {
				done, err := fix(work)
				if err != nil {
					w.problem("repair: %v", err)
					return
				}
				work.OnOp(nil)
				keptAll(w, hurtDisk, work, done)
				want := read(w, work)
				for i, cut := range cuts {
					before := contents(t, cut)
					unfinished, err := node.Unfinished(cut, dataDir)
					if err != nil {
						w.problem("cut %d: %v", i, err)
					}
					if unfinished != "" {
						w.disk = cut
						if err := w.start(); !errors.Is(err, node.ErrRepairing) {
							w.problem("cut %d: start = %v, want ErrRepairing", i, err)
						}
						if !maps.Equal(before, contents(t, cut)) {
							w.problem("cut %d: a refused start changed the directory", i)
						}
						if rep, err := doctor.Check(cut, dataDir, doctor.Options{}); err != nil || !rep.Harmed() {
							w.problem("cut %d: check finds nothing, %v", i, err)
						}
					} else if d := differ(mine(contents(t, hurtDisk)), mine(before)); d != "" && len(done.Plan.Actions) > 0 {
						// Before PLAN nothing has changed, after DONE all has.
						if rep, err := doctor.Check(cut, dataDir, doctor.Options{}); err != nil || rep.Harmed() && len(done.Left) == 0 {
							w.problem("cut %d: %s has changed, and the directory is neither as it was nor repaired: %v", i, d, err)
						}
					}
					if _, err := fix(cut); err != nil {
						w.problem("cut %d: repair: %v", i, err)
						continue
					}
					if got := read(w, cut); got != want {
						w.problem("cut %d: leaves\n%swant\n%s", i, got, want)
					}
				}
			})
			if len(cuts) < 3 {
				t.Errorf("only %d cuts", len(cuts))
			}
			if len(problems) > 0 {
				t.Error(strings.Join(problems, "\n"), tr.save("repair-cut"))
			}
		})
	}
}

// TestRepairPlanFirst: nothing in a directory changes before the plan of its
// repair is durable. The repair is killed at each step of writing its plan, which
// may leave a plan that only the memory has; the next repair takes that one up,
// and the power is cut at each of its operations, so that all that was not synced
// is gone. The repair after that ends with the same files.
func TestRepairPlanFirst(t *testing.T) {
	t.Parallel()
	disk, _, all := damaged(t)
	for name, do := range map[string]func(*vfs.Mem) error{
		"files replaced": all["journal"].do,
		"a file added":   func(disk *vfs.Mem) error { return disk.Lose(dataDir + "/IDENTITY") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hurtDisk := disk.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
			if err := do(hurtDisk); err != nil {
				t.Fatal(err)
			}
			repairPlanFirst(t, hurtDisk)
		})
	}
}

func repairPlanFirst(t *testing.T, hurtDisk *vfs.Mem) {
	was := mine(contents(t, hurtDisk))
	fix := func(disk *vfs.Mem) (*doctor.Repaired, error) {
		return doctor.Repair(disk, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true, Now: epoch})
	}
	killed := map[string]*vfs.Mem{"nowhere": hurtDisk.KillClone()}
	work := hurtDisk.KillClone()
	work.OnOp(func(op vfs.Op, ph vfs.Phase) {
		if changes(op) && strings.HasPrefix(path.Base(op.Path), node.PlanName) {
			killed[fmt.Sprintf("%v %v %s", ph, op.Kind, path.Base(op.Path))] = work.KillClone()
		}
	})
	if _, err := fix(work); err != nil {
		t.Fatal(err)
	}
	work.OnOp(nil)
	type cut struct {
		op   vfs.Op
		disk *vfs.Mem
	}
	for at, again := range killed {
		var mu sync.Mutex
		var cuts []cut
		again.OnOp(func(op vfs.Op, ph vfs.Phase) {
			mu.Lock()
			defer mu.Unlock()
			if changes(op) && ph == vfs.Before {
				cuts = append(cuts, cut{op, again.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})})
			}
		})
		done, err := fix(again)
		if err != nil {
			t.Fatalf("killed %s: repair: %v", at, err)
		}
		again.OnOp(nil)
		want, begun := mine(contents(t, again)), 0
		for _, c := range cuts {
			unfinished, err := node.Unfinished(c.disk, dataDir)
			if err != nil {
				t.Fatal(err)
			}
			where := fmt.Sprintf("killed %s, then cut before %v %s", at, c.op.Kind, c.op.Path)
			if unfinished != "" {
				begun++
				if now, err := fix(c.disk); err != nil || now.Finished != unfinished {
					t.Fatalf("%s: repair: %+v, %v", where, now, err)
				} else if d := differ(want, mine(contents(t, c.disk))); d != "" {
					t.Fatalf("%s: repair: leaves another %s", where, d)
				}
				continue
			}
			if _, err := c.disk.Stat(path.Join(done.Kept+done.Finished, node.DoneName)); err == nil {
				continue
			}
			if d := differ(was, mine(contents(t, c.disk))); d != "" {
				t.Fatalf("%s: %s has changed, and there is no plan", where, d)
			}
		}
		if begun < 3 {
			t.Errorf("killed %s: only %d of %d cuts are behind the plan", at, begun, len(cuts))
		}
	}
	if len(killed) < 8 {
		t.Errorf("killed at %d places only", len(killed))
	}
}

func changes(op vfs.Op) bool {
	switch op.Kind {
	case vfs.OpReadAt, vfs.OpReadDir, vfs.OpStat, vfs.OpOpen, vfs.OpFree:
		return false
	}
	return true
}

// mine leaves what repairs keep out of a directory.
func mine(all map[string]string) map[string]string {
	out := make(map[string]string)
	for name, b := range all {
		if !strings.HasPrefix(name, dataDir+"/"+node.RepairPrefix) {
			out[name] = b
		}
	}
	return out
}

// keptAll checks that a repair has kept each file that it changed or removed.
func keptAll(w *world, before, after *vfs.Mem, done *doctor.Repaired) {
	read := func(disk *vfs.Mem, name string) string {
		b, err := vfs.ReadFile(disk, name)
		if err != nil {
			return "error: " + err.Error()
		}
		return string(b)
	}
	for _, a := range done.Plan.Actions {
		for _, f := range a.Files {
			if read(before, dataDir+"/"+f) != read(after, done.Kept+"/old/"+f) {
				w.problem("%s is not kept in %s", f, done.Kept)
			}
		}
	}
}

// TestLossRaisesEpochs: after a repair that gives up acknowledged records, new
// ones take their offsets, in a leader epoch above all that were there.
func TestLossRaisesEpochs(t *testing.T) {
	t.Parallel()
	disk, told, _ := damaged(t)
	problems, tr := run(t, 3, func(w *world) {
		epochs := func() map[string]int32 {
			p := w.hire()
			defer p.leave()
			out := make(map[string]int32)
			for _, name := range []string{"a", "b"} {
				d, err := p.c.Admin().DescribeTopic(context.Background(), name)
				if err != nil {
					w.problem("describe: %v", err)
				}
				for _, part := range d.Partitions {
					out[fmt.Sprint(name, part.Partition)] = part.LeaderEpoch
				}
			}
			return out
		}
		w.disk = disk.KillClone()
		if !w.mustStart() {
			return
		}
		was := epochs()
		w.stopNode()

		w.disk = disk.KillClone()
		if err := w.disk.Lose(dataDir + "/journal"); err != nil {
			w.problem("lose: %v", err)
		}
		done, err := doctor.Repair(w.disk, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true, Now: epoch})
		if err != nil || !done.Plan.Lossy() {
			w.problem("repair: %v, %+v", err, done)
			return
		}
		if !w.mustStart() {
			return
		}
		for name, now := range epochs() {
			if now < was[name]+doctor.TermStep/2 {
				w.problem("partition %s is in epoch %d, and was in %d", name, now, was[name])
			}
		}
		got := w.readEverything(told)
		lost := 0
		p := w.hire()
		pr := p.producer(load{timeout: time.Minute})
		again := make(truth)
		for key, r := range got {
			lost += len(told[key]) - len(r.values)
			again[key] = told[key][:r.end]
			w.tell(pr, again, key, 100) // at the end of what is left
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := pr.Close(ctx); err != nil {
			w.problem("producer: %v", err)
		}
		p.leave()
		if lost == 0 {
			w.problem("nothing was lost with the journal: the test shows nothing")
		}
		w.stopNode()
		if rep, err := doctor.Check(w.disk, dataDir, doctor.Options{}); err != nil || rep.Harmed() {
			w.problem("check afterwards: %v, %+v", err, rep)
		}
	})
	if len(problems) > 0 {
		t.Error(strings.Join(problems, "\n"), tr.save("loss"))
	}
}

// TestRepairOfSoundDirectory plans nothing and changes nothing.
func TestRepairOfSoundDirectory(t *testing.T) {
	t.Parallel()
	disk, _, _ := damaged(t)
	before := contents(t, disk)
	done, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{Execute: true, AcceptLoss: true, Now: epoch})
	if err != nil || len(done.Plan.Actions) > 0 || done.Kept != "" {
		t.Errorf("Repair = %+v, %v", done, err)
	}
	if !maps.Equal(before, contents(t, disk)) {
		t.Error("a repair of a sound directory changed it")
	}
	lock, err := disk.Lock(dataDir + "/LOCK")
	if err != nil {
		t.Fatal("the lock is kept:", err)
	}
	if _, err := doctor.Check(disk, dataDir, doctor.Options{}); !errors.Is(err, node.ErrInUse) {
		t.Errorf("Check of a directory in use: %v", err)
	}
	if _, err := doctor.Repair(disk, dataDir, doctor.RepairOptions{}); !errors.Is(err, node.ErrInUse) {
		t.Errorf("Repair of a directory in use: %v", err)
	}
	_ = lock.Close()
}
