package sim

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/doctor"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/node"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestFullDiskDeletion fills the disk to the last byte, the journal with it, and
// deletes a topic. Nobody else frees anything: the deletion has to make the room
// in which the node goes on. With and without a restart meanwhile, and whether
// the disk became full slowly, so that the reserve is left, or at once.
func TestFullDiskDeletion(t *testing.T) {
	t.Parallel()
	for _, reserve := range []int64{1, 200 << 10} {
		for _, restart := range []bool{false, true} {
			for _, power := range []vfs.Unsynced{vfs.Lose, vfs.Keep} {
				t.Run(fmt.Sprintf("reserve=%d,restart=%t,%v", reserve, restart, power), func(t *testing.T) {
					t.Parallel()
					problems, tr := run(t, 1, func(w *world) { fullDiskDeletion(w, reserve, restart, power, (*person).deleteTopic) })
					report(t, 1, verdict(problems, tr.history), tr)
				})
			}
		}
	}
}

// droppedSuffix ends the name of the file that says that files before it may be
// missing, as they were deleted (docs/formats.md).
const droppedSuffix = ".dropped"

// TestCheckFreedEarly takes the disk while a node on a full one unlinks what its
// newest checkpoint still knows: what is missing then was deleted, and flotilla
// check does not take it for damage.
func TestCheckFreedEarly(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(p *person, topic string){
		"topic": (*person).deleteTopic,
		"records": func(p *person, topic string) {
			p.deleteRecords(history.Key{Topic: topic}, client.BeforeEnd)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var disks []*vfs.Mem
			problems, tr := run(t, 1, func(w *world) {
				marked := make(map[string]bool)
				w.onOp = func(op vfs.Op, ph vfs.Phase) {
					mu.Lock()
					defer mu.Unlock()
					dir := path.Dir(op.Path)
					if op.Kind == vfs.OpRename && strings.HasSuffix(op.Path, droppedSuffix) {
						marked[dir] = true
					}
					if ph == vfs.After && op.Kind == vfs.OpRemove && strings.HasSuffix(op.Path, ".seg") && marked[dir] {
						disks = append(disks, w.disk.KillClone())
					}
				}
				fullDiskDeletion(w, 1, false, vfs.Lose, remove)
			})
			report(t, 1, verdict(problems, tr.history), tr)
			missing := 0
			for i, disk := range disks {
				rep, err := doctor.Check(disk, dataDir, doctor.Options{})
				if err != nil {
					t.Fatalf("check at unlinked segment %d: %v", i, err)
				}
				for _, f := range rep.Findings {
					if f.Harmful || strings.HasSuffix(f.File, droppedSuffix) {
						t.Errorf("check at unlinked segment %d: %+v", i, f)
					}
				}
				missing += mustBeMissed(t, disk)
			}
			if missing == 0 {
				t.Error("no disk had a mark, and segments missing for which it accounts")
			}
		})
	}
}

// mustBeMissed takes the marks away, as if there were none, and returns for how
// many segments check then complains.
func mustBeMissed(t *testing.T, disk *vfs.Mem) (n int) {
	t.Helper()
	parts := path.Join(dataDir, node.PartitionsDir)
	dirs, err := disk.ReadDir(parts)
	for _, dir := range dirs {
		names, _ := disk.ReadDir(path.Join(parts, dir))
		for _, name := range names {
			if strings.HasSuffix(name, droppedSuffix) {
				err = errors.Join(err, disk.Remove(path.Join(parts, dir, name)))
			}
		}
	}
	rep, cerr := doctor.Check(disk, dataDir, doctor.Options{})
	if err = errors.Join(err, cerr); err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		if f.Harmful && f.Kind == "segment" {
			n++
		}
	}
	return n
}

// fullDiskDeletion has a topic, or all that is in it, removed.
func fullDiskDeletion(w *world, reserve int64, restart bool, power vfs.Unsynced, remove func(p *person, topic string)) {
	w.reserve = reserve
	if !w.mustStart() {
		return
	}
	p := w.hire()
	defer p.leave()
	doomed := history.Key{Topic: "doomed"}
	if !w.createAll(faultKeys) || !p.createTopic(doomed.Topic, 1) {
		w.problem("topics could not be created")
		return
	}
	pr := p.producer(load{timeout: time.Minute})
	for range 100 {
		p.sendSync(pr, doomed, 6000)
	}
	time.Sleep(200 * time.Millisecond) // flushes by age
	w.disk.SetCapacity(w.used())
	producing := w.work(plan{keys: faultKeys, producers: 3, records: 150, maxBytes: 6000})
	time.Sleep(20 * time.Second)
	if !w.healthy() {
		return
	}
	if restart {
		w.cut(vfs.CrashOptions{Unsynced: power})
		w.disk.SetCapacity(w.used())
		if !w.mustStart() {
			return
		}
	}
	w.readAll() // reads go on
	if w.disk.SetCapacity(w.used()); !w.trace.saw("the disk is nearly full") {
		w.problem("the disk was never full")
	}
	remove(p, doomed.Topic)
	if h := w.rec.History(); h[len(h)-1].Type != history.OK {
		w.problem("it could not be deleted: %s", h[len(h)-1].Err)
	}
	w.probe()
	// In the middle of it: what was unlinked before its checkpoint is no damage.
	w.cut(vfs.CrashOptions{Unsynced: power})
	if !w.mustStart() {
		return
	}
	if w.trace.saw("is damaged") {
		w.problem("what was deleted is taken for damage")
	}
	producing.wait()
	w.stop()
	w.clients.Wait()
	_ = pr.Close(w.stopping)
	if !w.healthy() {
		return
	}
	w.readAll()
	w.stopNode()
	if w.mustStart() {
		w.readAll()
		w.healthy()
	}
}

// needsSpace are the operations that a full disk can fail. A rename is none: all
// are within one directory, where the new name goes where the old one was.
var needsSpace = []vfs.OpKind{vfs.OpCreate, vfs.OpWriteAt, vfs.OpMkdirAll, vfs.OpPreallocate, vfs.OpFree}

// changesDisk are the operations whose error is final, whatever the file (R9).
var changesDisk = []vfs.OpKind{
	vfs.OpCreate, vfs.OpWriteAt, vfs.OpRename, vfs.OpMkdirAll, vfs.OpPreallocate, vfs.OpTruncate,
	vfs.OpSync, vfs.OpSyncData, vfs.OpSyncDir,
}

// tale is a shorter story, for runs that are made once for each operation. It
// returns the error for which the node stopped, or would not start again.
func tale(w *world, timeout time.Duration) error {
	p := w.hire()
	defer p.leave()
	keys := []history.Key{{Topic: "kept"}, {Topic: "kept", Partition: 1}}
	doomed := history.Key{Topic: "doomed"}
	create := func(name string, partitions int32) {
		if w.broken == nil {
			ctx, cancel := context.WithTimeout(w.stopping, timeout)
			defer cancel()
			p.createTopicIn(ctx, name, partitions)
		}
	}
	pr := p.producer(load{timeout: timeout})
	defer func() { _ = pr.Close(w.stopping) }()
	send := func(key history.Key, bytes int) {
		if w.hasFailed() == nil {
			p.sendSync(pr, key, bytes)
		}
	}
	create("kept", 2)
	create("doomed", 1)
	for i := range 12 {
		send(doomed, 6000)
		send(keys[i%2], 6000)
	}
	if w.hasFailed() == nil {
		ctx, cancel := context.WithTimeout(w.stopping, timeout)
		defer cancel()
		p.deleteTopicIn(ctx, "doomed")
	}
	for i := range 24 {
		send(keys[i%2], 6000)
	}
	time.Sleep(200 * time.Millisecond) // flushes by age
	if w.hasFailed() != nil {
		return w.broken
	}
	w.trace.add("CLEAN STOP")
	w.within(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err := w.node.Close(ctx)
		if w.hasFailed() == nil {
			w.broken = err
		}
	})
	if w.broken != nil {
		return w.broken
	}
	w.node = nil
	if w.broken = w.start(); w.broken != nil {
		return w.broken
	}
	for i := range 6 {
		send(keys[i%2], 3000)
	}
	return w.hasFailed()
}

// hasFailed returns the error for which the node wants to stop, or nil.
func (w *world) hasFailed() error {
	select {
	case w.broken = <-w.node.Failed():
	default:
	}
	return w.broken
}

// opsOf returns the numbers of the operations of tale that are of some kinds.
func opsOf(t *testing.T, kinds []vfs.OpKind) []vfs.Op {
	t.Helper()
	var mu sync.Mutex
	var ops []vfs.Op
	problems, tr := run(t, 1, func(w *world) {
		var from atomic.Uint64
		n := uint64(0)
		w.inject = func(op vfs.Op) vfs.Fault {
			mu.Lock()
			defer mu.Unlock()
			if from.Load() > 0 && slices.Contains(kinds, op.Kind) && path.Base(op.Path) != "SPARE" {
				n++
				op.Seq = n
				ops = append(ops, op)
			}
			return vfs.Fault{}
		}
		if w.mustStart() {
			from.Store(1)
			if err := tale(w, time.Minute); err != nil {
				w.problem("the tale itself fails: %v", err)
			}
		}
	})
	report(t, 1, problems, tr)
	return ops
}

// eachOp calls f for the number of every operation, or in short mode some of
// them, a few at once.
func eachOp(t *testing.T, ops []vfs.Op, some int, f func(t *testing.T, nth uint64)) {
	t.Helper()
	step := 1
	if testing.Short() {
		step = max(1, len(ops)/some)
	}
	t.Logf("%d operations, every %d", len(ops), step)
	groups := 2 * runtime.GOMAXPROCS(0)
	for g := range groups {
		t.Run(fmt.Sprintf("group=%d", g), func(t *testing.T) {
			t.Parallel()
			for i := g * step; i < len(ops) && !t.Failed(); i += groups * step {
				f(t, uint64(i+1))
			}
		})
	}
}

// fault decides the faults of a run from the first start on: f is given each
// operation of some kinds with its number, from 1.
func (w *world) fault(kinds []vfs.OpKind, f func(nth uint64, op vfs.Op) vfs.Fault) (begin func()) {
	var on atomic.Bool
	var n atomic.Uint64
	w.inject = func(op vfs.Op) vfs.Fault {
		if !on.Load() || !slices.Contains(kinds, op.Kind) || path.Base(op.Path) == "SPARE" {
			return vfs.Fault{}
		}
		return f(n.Add(1), op)
	}
	return func() { on.Store(true) }
}

// TestEveryOperationFull lets the disk be full from each operation on that needs
// space, for a while. The node never stops, a start included; what waited goes
// on by itself; nothing acknowledged is lost.
func TestEveryOperationFull(t *testing.T) {
	t.Parallel()
	const fullFor = 5 * time.Second
	eachOp(t, opsOf(t, needsSpace), 24, func(t *testing.T, nth uint64) {
		var at vfs.Op
		problems, tr := run(t, nth, func(w *world) {
			var until atomic.Int64 // virtual ns; 0: not yet full
			begin := w.fault(needsSpace, func(n uint64, op vfs.Op) vfs.Fault {
				now := time.Since(epoch).Nanoseconds()
				if n == nth {
					at = op
					until.Store(now + fullFor.Nanoseconds())
				}
				switch {
				case now >= until.Load():
					return vfs.Fault{}
				case op.Kind == vfs.OpWriteAt || op.Kind == vfs.OpPreallocate || op.Kind == vfs.OpFree:
					return vfs.Fault{Full: true}
				}
				return vfs.Fault{Err: syscall.ENOSPC}
			})
			if !w.mustStart() {
				return
			}
			begin()
			if err := tale(w, time.Minute); err != nil {
				w.problem("the node stopped: %v", err)
				return
			}
			w.probeOn(history.Key{Topic: "kept"})
			w.inject = nil
			if !w.healthy() {
				return
			}
			w.cut(vfs.CrashOptions{Seed: nth, Unsynced: vfs.Unsynced(nth % 3)})
			if w.mustStart() {
				w.stop()
				w.readAll()
				w.healthy()
			}
		})
		if problems = verdict(problems, tr.history); len(problems) > 0 {
			report(t, nth, append([]string{fmt.Sprintf("full from operation %d, %v %s, on", nth, at.Kind, at.Path)}, problems...), tr)
		}
	})
}

// TestEveryOperationFails fails each operation that changes the disk, once. The
// node stops and names the file and the cause, or its start does (R9), and what
// it leaves holds everything that was acknowledged.
func TestEveryOperationFails(t *testing.T) {
	t.Parallel()
	eachOp(t, opsOf(t, changesDisk), 40, func(t *testing.T, nth uint64) {
		var at vfs.Op
		problems, tr := run(t, nth, func(w *world) {
			var hit atomic.Bool
			begin := w.fault(changesDisk, func(n uint64, op vfs.Op) vfs.Fault {
				if n != nth {
					return vfs.Fault{}
				}
				at = op
				hit.Store(true)
				return vfs.Fault{Err: syscall.EIO, Short: 100}
			})
			if !w.mustStart() {
				return
			}
			begin()
			err := tale(w, 5*time.Second)
			switch {
			case !hit.Load():
			case err == nil:
				w.problem("the node goes on")
			case !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), path.Base(at.Path)):
				w.problem("the node stopped without naming %s and the cause: %v", at.Path, err)
			}
			w.inject = nil
			w.end([]end{lose, keep, coin, killed}[nth%4], nth)
			if w.mustStart() {
				w.readAll()
				w.healthy()
			}
		})
		if problems = verdict(problems, tr.history); len(problems) > 0 {
			report(t, nth, append([]string{fmt.Sprintf("EIO at operation %d, %v %s", nth, at.Kind, at.Path)}, problems...), tr)
		}
	})
}
