package sim

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/internal/history"
	"github.com/flotilla-log/flotilla/internal/vfs"
)

// moment is what there is to know at one side of one disk operation: what a
// power cut at that moment would leave, and what the clients were told by then.
type moment struct {
	name string
	disk *vfs.Mem
	told int // events of the history that had happened for certain
	sent int // events that may have: of these, only invocations count
}

// camera takes the moments of a run. Operations go on beside each other, so what
// the clients were told is read before the disk is copied, and what they asked
// for after it.
type camera struct {
	w     *world
	every uint64 // only operations whose number it divides

	mu       sync.Mutex
	moments  []moment
	underWay int
	settled  bool // nothing was under way since the last moment
}

func (c *camera) take(op vfs.Op, ph vfs.Phase) {
	if op.Kind == vfs.OpReadAt || op.Kind == vfs.OpReadDir || op.Kind == vfs.OpStat || op.Kind == vfs.OpOpen || op.Kind == vfs.OpFree {
		return // changes nothing: the same as the operation before it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	same := c.settled
	if ph == vfs.Before {
		c.underWay++
	} else {
		c.underWay--
	}
	c.settled = c.underWay == 0
	if op.Seq%c.every != 0 {
		return
	}
	if same && len(c.moments) > 0 && c.every == 1 {
		// The disk is as at the last moment, and the clients know more.
		c.moments = c.moments[:len(c.moments)-1]
	}
	m := moment{name: fmt.Sprintf("%v #%d %v %s", ph, op.Seq, op.Kind, op.Path), told: len(c.w.rec.History())}
	m.disk = c.w.disk.KillClone()
	m.sent = len(c.w.rec.History())
	c.moments = append(c.moments, m)
}

// until returns the history as the clients knew it at m.
func (m *moment) until(h history.History) history.History {
	out := slices.Clone(h[:m.told])
	for _, op := range h[m.told:m.sent] {
		if op.Type == history.Invoke {
			out = append(out, op)
		}
	}
	return out
}

// laterIDs is added to the ids of what happens after a moment.
const laterIDs = 1 << 32

func joined(before, after history.History) history.History {
	out := slices.Clip(before)
	for _, op := range after {
		op.ID += laterIDs
		op.Process += 1000
		out = append(out, op)
	}
	return out
}

// story is the fixed history whose every disk operation is cut: it creates a
// topic, wraps the journal's ring several times, flushes, rolls a segment, takes
// checkpoints, deletes a topic and goes on.
func story(w *world) {
	if !w.mustStart() {
		return
	}
	keys := []history.Key{{Topic: "kept"}, {Topic: "kept", Partition: 1}, {Topic: "kept", Partition: 2}}
	p := w.hire()
	defer p.leave()
	if !p.createTopic("kept", 3) || !p.createTopic("doomed", 2) {
		w.problem("topics could not be created")
		return
	}
	pr := p.producer(load{timeout: time.Minute})
	for range 2 {
		p.sendSync(pr, keys[0], 100)
		p.sendSync(pr, keys[1], 1000)
		p.sendSync(pr, keys[2], 3000)
		p.sendSync(pr, history.Key{Topic: "doomed"}, 500)
	}
	for range 180 { // more than a segment
		p.sendSync(pr, keys[0], 6000)
	}
	p.sendSync(pr, keys[1], 2000)
	p.deleteTopic("doomed")
	for range 12 {
		p.sendSync(pr, keys[2], 6000)
	}
	time.Sleep(200 * time.Millisecond) // flushes by age
	w.stop()
	if err := pr.Close(w.stopping); err == nil || w.healthy() {
		w.stopNode() // with a checkpoint
	}
	if w.mustStart() {
		w.stopNode()
	}
}

// sendSync sends one record and waits for its outcome.
func (p *person) sendSync(pr *client.Producer, key history.Key, bytes int) {
	done := make(chan struct{})
	value := p.w.value.Add(1)
	op := p.w.rec.Invoke(history.Op{Process: p.process, F: history.Send, Mops: []history.Mop{history.Values(key, value)}})
	err := pr.Send(p.w.stopping, record(key, value, bytes), func(r client.RecordResult) {
		p.settle(op, r.Offset, r.Err)
		close(done)
	})
	if err != nil {
		p.settle(op, -1, err)
		return
	}
	<-done
}

// afterwards starts a node on what was left, reads everything, loses the power
// again, whatever the node had promised meanwhile, reads again, goes on, and
// loses the power once more.
func afterwards(w *world, before history.History, left *vfs.Mem) {
	w.disk = left
	for _, op := range before {
		for _, m := range op.Mops {
			for _, r := range m.Records {
				w.value.Store(max(w.value.Load(), r.Value))
			}
		}
	}
	if !w.mustStart() {
		return
	}
	w.readAll()
	w.cut(vfs.CrashOptions{Unsynced: vfs.Lose})
	if !w.mustStart() {
		return
	}
	w.readAll()
	p := w.hire()
	defer p.leave()
	pr := p.producer(load{timeout: time.Minute})
	p.createTopic("kept", 3) // it may be there
	for i := range int32(3) {
		p.sendSync(pr, history.Key{Topic: "kept", Partition: i}, 2000)
	}
	_ = pr.Close(w.stopping)
	w.cut(vfs.CrashOptions{Unsynced: vfs.Lose})
	if w.mustStart() {
		w.readAll()
		w.healthy()
	}
}

// TestEveryOperationCut cuts the power before and after every disk operation of
// the story that changes something. It takes all the disks in one run and then
// looks at each, so no operation is missed for a schedule that differs.
func TestEveryOperationCut(t *testing.T) {
	t.Parallel()
	moments, h := film(t, every(20))
	t.Logf("%d moments of %d events", len(moments), len(h))
	inspect(t, moments, h, lose, keep, coin, killed)
}

// TestEveryRecoveryOperationCut starts the node on some of those disks, and cuts
// the power before and after every operation of that start.
func TestEveryRecoveryOperationCut(t *testing.T) {
	t.Parallel()
	const disks = 8
	moments, h := film(t, 1)
	for i := range disks {
		m := moments[(i+1)*len(moments)/disks-1]
		before := m.until(h)
		t.Run(fmt.Sprintf("disk=%d", i), func(t *testing.T) {
			t.Parallel()
			var cam *camera
			problems, tr := run(t, uint64(i), func(w *world) {
				w.disk = m.disk.CrashClone(vfs.CrashOptions{Seed: uint64(i), Unsynced: vfs.Unsynced(i % 3)})
				cam = &camera{w: w, every: every(20)}
				w.onOp = cam.take
				if w.mustStart() {
					w.stopNode()
				}
			})
			if report(t, uint64(i), problems, tr); t.Failed() {
				return
			}
			for j := range cam.moments {
				cam.moments[j].told, cam.moments[j].sent = len(before), len(before)
			}
			t.Logf("after %s: %d moments", m.name, len(cam.moments))
			inspect(t, cam.moments, before, lose, coin)
		})
	}
}

// every returns n in short mode, and else 1.
func every(n uint64) uint64 {
	if testing.Short() {
		return n
	}
	return 1
}

// film runs the story and returns its moments and its history.
func film(t *testing.T, every uint64) ([]moment, history.History) {
	var cam *camera
	problems, tr := run(t, 1, func(w *world) {
		cam = &camera{w: w, every: every}
		w.onOp = cam.take
		story(w)
	})
	if report(t, 1, problems, tr); t.Failed() {
		t.FailNow()
	}
	for _, phase := range []string{
		"recovery", "checkpoint", "topic deletion", "ring growth", "ring reuse", "flush", "segment roll",
	} {
		if tr.phases[phase] == 0 {
			t.Fatalf("the story has no %s, only %v", phase, tr.phases)
		}
	}
	return cam.moments, tr.history
}

// end is a way in which a node can come to its end, and what it leaves.
type end struct {
	name string
	left func(disk *vfs.Mem, seed uint64) *vfs.Mem
}

// A killed process leaves in the page cache what nobody has synced: what the
// next one finds there is not durable yet (R8).
var (
	lose   = cutEnd(vfs.Lose)
	keep   = cutEnd(vfs.Keep)
	coin   = cutEnd(vfs.Coin)
	killed = end{"killed", func(disk *vfs.Mem, _ uint64) *vfs.Mem { return disk.KillClone() }}
)

func cutEnd(u vfs.Unsynced) end {
	return end{"power cut, unsynced: " + u.String(), func(disk *vfs.Mem, seed uint64) *vfs.Mem {
		return disk.CrashClone(vfs.CrashOptions{Seed: seed, Unsynced: u})
	}}
}

// inspect looks at every moment after each of the ends.
func inspect(t *testing.T, moments []moment, h history.History, ends ...end) {
	groups := 4 * runtime.GOMAXPROCS(0)
	for g := range groups {
		t.Run(fmt.Sprintf("group=%d", g), func(t *testing.T) {
			t.Parallel()
			for i := g; i < len(moments) && !t.Failed(); i += groups {
				for _, e := range ends {
					look(t, &moments[i], uint64(i), h, e)
				}
				moments[i] = moment{} // a disk takes memory
			}
		})
	}
}

// look fails t if what an end at m leaves is not as the clients were told.
func look(t *testing.T, m *moment, seed uint64, h history.History, e end) {
	t.Helper()
	before := m.until(h)
	problems, tr := run(t, seed, func(w *world) { afterwards(w, before, e.left(m.disk, seed)) })
	tr.history = joined(before, tr.history)
	if problems = verdict(problems, tr.history); len(problems) > 0 {
		problems = append([]string{fmt.Sprintf("%s %s", e.name, m.name)}, problems...)
		report(t, seed, problems, tr)
	}
}
