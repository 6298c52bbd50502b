package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

var faultKeys = []history.Key{{Topic: "a"}, {Topic: "a", Partition: 1}, {Topic: "b"}}

// script makes an injector that begins its counts with the next start.
func script(t *testing.T, text string) func() vfs.Injector {
	t.Helper()
	if _, err := vfs.ParseScript(text); err != nil {
		t.Fatal(err)
	}
	return func() vfs.Injector {
		inject, _ := vfs.ParseScript(text)
		return inject
	}
}

// TestSyncError fails one sync or write of one kind of file under load. The node
// must stop by itself and name the file (R9), and whatever its end leaves,
// nothing acknowledged may be lost: not what it acknowledged, and not what the
// next node found in the page cache and acknowledged (R8).
func TestSyncError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, rule, file string }{
		{"journal", "sync path=journal/*.journal nth=40 err=EIO", ".journal"},
		{"journal, having synced", "sync path=journal/*.journal nth=40 err=EIO applied", ".journal"},
		{"journal write", "write path=journal/*.journal nth=40 err=EIO", ".journal"},
		{"journal short write", "write path=journal/*.journal nth=40 short=700 err=EIO", ".journal"},
		{"journal being made", "sync path=journal/new.tmp err=EIO", "journal/"},
		{"journal directory", "syncdir path=data/journal err=EIO", "journal"},
		{"votes", "sync path=votes/* nth=2 err=EIO", "votes"},
		{"metadata", "sync path=metadata/* nth=9 err=EIO", "metadata"},
		{"metadata, later", "sync path=metadata/* nth=16 err=EIO", "metadata"},
		{"segment", "sync path=*.seg nth=3 err=EIO", ".seg"},
		{"segment write", "write path=*.seg nth=3 err=EIO", ".seg"},
		{"index", "sync path=*.index nth=1 err=EIO", ".index"},
		{"partition directory", "syncdir path=partitions/* nth=2 err=EIO", "partitions"},
		{"checkpoint", "sync path=*.checkpoint.tmp nth=3 err=EIO", ".checkpoint"},
		{"checkpoint directory", "syncdir path=shards/1 nth=3 err=EIO", "shards/1"},
		{"checkpoint rename", "rename path=*.checkpoint nth=3 err=EIO", ".checkpoint"},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			inject := script(t, tt.rule)
			for _, e := range []end{lose, keep, coin, killed} {
				problems, tr := run(t, 1, func(w *world) {
					w.inject = inject()
					syncError(w, tt.file, e)
				})
				report(t, 1, verdict(problems, tr.history), tr)
			}
		})
	}
}

func syncError(w *world, file string, e end) {
	producing := new(crew)
	err := w.start()
	if err == nil {
		if w.createAll(faultKeys) {
			producing = w.work(plan{keys: faultKeys, producers: 2, records: 400, maxBytes: 5000, churn: []string{"goes"}})
		}
		err = w.failure(time.Minute)
	}
	switch {
	case err == nil:
		w.problem("the node did not stop")
	case !strings.Contains(err.Error(), file) || !errors.Is(err, syscall.EIO):
		w.problem("the node stopped without naming %s and the cause: %v", file, err)
	}
	w.inject = nil
	w.end(e, w.seed)
	w.recover(producing)
}

// failure waits for the error for which the node wants to stop.
func (w *world) failure(most time.Duration) error {
	select {
	case err := <-w.node.Failed():
		return err
	case <-time.After(most):
		return nil
	}
}

// recover starts the node again, reads what stays, loses the power at once and
// starts once more, waits for the clients and reads everything.
func (w *world) recover(producing *crew) {
	if !w.mustStart() {
		return
	}
	w.readTopics(func(name string) bool { return name != "goes" })
	w.cut(vfs.CrashOptions{Unsynced: vfs.Lose})
	if !w.mustStart() {
		return
	}
	producing.wait()
	w.stop()
	w.clients.Wait()
	w.readAll()
	w.healthy()
}

// TestFullDisk fills the disk under load. Reads go on; produce waits, and fails
// in a way that can be retried; when there is space again the same node goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, spare := range []int64{0, 20 << 10, 100 << 10, 300 << 10} {
		t.Run(fmt.Sprintf("spare=%dKiB", spare>>10), func(t *testing.T) {
			t.Parallel()
			problems, tr := run(t, 1, func(w *world) { fullDisk(w, spare) })
			report(t, 1, verdict(problems, tr.history), tr)
		})
	}
}

func fullDisk(w *world, spare int64) {
	w.reserve = spare / 4
	if !w.mustStart() {
		return
	}
	if !w.createAll(faultKeys) {
		w.problem("topics could not be created")
		return
	}
	producing := w.work(plan{keys: faultKeys, producers: 3, records: 200, maxBytes: 6000})
	time.Sleep(100 * time.Millisecond)
	w.disk.SetCapacity(w.used() + spare)
	time.Sleep(20 * time.Second)
	if !w.healthy() {
		return
	}
	if !w.trace.saw("the disk is nearly full") {
		w.problem("the disk was never full")
	}
	w.readAll() // reads go on
	w.disk.SetCapacity(-1)
	producing.wait()
	w.stop()
	w.clients.Wait()
	if !w.healthy() {
		return
	}
	w.probe()
	w.cut(vfs.CrashOptions{Unsynced: vfs.Lose})
	if w.mustStart() {
		w.readAll()
	}
}

// used returns what the files on the disk take, in bytes.
func (w *world) used() int64 { return usedOn(w.disk) }

// usedOn returns what the files on a disk take, in bytes. It gets a capacity by it.
func usedOn(disk *vfs.Mem) int64 {
	const large = 1 << 40
	disk.SetCapacity(large)
	free, err := disk.Free(dataDir)
	if err != nil {
		panic("sim: " + err.Error()) // of a disk with a data directory
	}
	return large - free
}

// probe takes it for a problem if a record cannot be written now.
func (w *world) probe() { w.probeOn(faultKeys[0]) }

func (w *world) probeOn(key history.Key) {
	p := w.hire()
	defer p.leave()
	pr := p.producer(load{timeout: 5 * time.Minute})
	value := w.value.Add(1)
	op := w.rec.Invoke(history.Op{Process: p.process, F: history.Send, Mops: []history.Mop{history.Values(key, value)}})
	r, err := pr.SendSync(context.Background(), record(key, value, 100))
	p.settle(op, r.Offset, err)
	if err != nil {
		w.problem("a record could not be written: %v", err)
	}
	_ = pr.Close(context.Background())
}

// TestStalls lets the disk stand still for a long time now and then: everything
// waits, nothing fails, and the virtual clock goes on, so that nobody holds a
// mutex meanwhile.
func TestStalls(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{
		"sync path=journal/*.journal after=30 times=3 delay=40s",
		"write path=journal/*.journal after=30 times=3 delay=40s",
		"write path=*.seg after=2 times=3 delay=40s",
		"sync path=*.seg after=2 times=3 delay=40s",
		"sync path=*.checkpoint.tmp after=2 times=3 delay=40s",
		"syncdir after=40 times=3 delay=40s",
		"create after=20 times=3 delay=40s",
		"remove after=4 times=3 delay=40s",
		"rename after=4 times=3 delay=40s",
		"sync path=metadata/* after=9 times=3 delay=40s",
		"read after=20 times=10 delay=40s",
		"open after=20 times=3 delay=40s",
		"* delay=50ms",
	} {
		t.Run(strings.NewReplacer(" ", "_", "/", "-").Replace(rule), func(t *testing.T) {
			t.Parallel()
			inject := script(t, rule)
			problems, tr := run(t, 1, func(w *world) { stalls(w, inject()) })
			report(t, 1, verdict(problems, tr.history), tr)
		})
	}
}

func stalls(w *world, inject vfs.Injector) {
	if !w.mustStart() {
		return
	}
	if !w.createAll(faultKeys) {
		w.problem("topics could not be created")
		return
	}
	w.disk.SetInjector(inject)
	w.inject = inject
	producing := w.work(plan{keys: faultKeys, producers: 2, records: 250, maxBytes: 5000, churn: []string{"goes"}})
	producing.wait()
	w.stop()
	w.clients.Wait()
	if !w.healthy() {
		return
	}
	w.probe()
	w.stopNode()
	if w.mustStart() {
		w.readAll()
		w.healthy()
	}
}
