package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// command is what the log of a test's shard holds.
type command struct {
	do       byte // c: create, a: append, s: set log start, d: delete
	key      uint32
	rec      rec
	logStart int64
}

// machine is the state that the commands make: the model of a shard.
type machine map[uint32]modelPart

type modelPart struct {
	log      log
	logStart int64
}

func (m machine) apply(c command) {
	p := m[c.key]
	switch c.do {
	case 'a':
		p.log = append(p.log, c.rec)
	case 's':
		p.logStart = c.logStart
	case 'd':
		delete(m, c.key)
		return
	}
	m[c.key] = p
}

func applyTo(sh *Shard, c command) {
	switch c.do {
	case 'c':
		sh.Create(c.key, topic, int32(c.key), Config{})
	case 'a':
		appendRec(sh, c.key, c.rec, nil)
	case 's':
		sh.SetLogStart(c.key, c.logStart)
	case 'd':
		sh.Delete(c.key)
	}
}

// checkpoint is what a test's checkpoint would hold: a state, and how many
// commands made it.
type checkpoint struct {
	applied int
	state   machine
}

func (cp checkpoint) ends() (ends []End) {
	for _, key := range slices.Sorted(maps.Keys(cp.state)) {
		ends = append(ends, End{Key: key, End: cp.state[key].log.end()})
	}
	return ends
}

func (cp checkpoint) restored() (rs []Restored) {
	for _, key := range slices.Sorted(maps.Keys(cp.state)) {
		p := cp.state[key]
		r := Restored{Key: key, TopicID: topic, Index: int32(key), LogStart: p.logStart, End: p.log.end()}
		for _, b := range p.log {
			if n := len(r.Epochs); n == 0 || r.Epochs[n-1].Epoch != b.epoch {
				r.Epochs = append(r.Epochs, Epoch{Epoch: b.epoch, Start: b.base})
			}
		}
		rs = append(rs, r)
	}
	return rs
}

// history runs a shard and its model side by side. Nothing flushes but what the
// test asks for, so the operations on the disk are the same in every run.
type history struct {
	tb       testing.TB
	st       *Store
	sh       *Shard
	state    machine
	commands []command
	captured checkpoint
	token    Token
	durable  checkpoint
}

func newHistory(tb testing.TB, fsys vfs.FS) *history {
	st := mustOpen(tb, fsys, manual())
	return &history{tb: tb, st: st, sh: st.Shard(1), state: machine{}}
}

func (h *history) apply(c command) {
	h.commands = append(h.commands, c)
	h.state.apply(c)
	applyTo(h.sh, c)
}

func (h *history) create(key uint32) { h.apply(command{do: 'c', key: key}) }
func (h *history) delete(key uint32) { h.apply(command{do: 'd', key: key}) }

func (h *history) append(key uint32, sizes ...int) {
	for i, size := range sizes {
		l := h.state[key].log
		h.apply(command{do: 'a', key: key, rec: makeRec(h.tb, l.end(), 1+i%3, size)})
	}
}

func (h *history) setLogStart(key uint32, back int64) {
	h.apply(command{do: 's', key: key, logStart: h.state[key].log.end() - back})
}

// flush does what a flusher does.
func (h *history) flush(key uint32) {
	p := h.sh.lookup(key)
	h.st.take(p)
	h.st.flushInBackground(p)
}

func (h *history) capture() {
	h.captured = checkpoint{applied: len(h.commands), state: maps.Clone(h.state)}
	h.token = h.sh.Capture()
}

// persist makes the captured checkpoint durable.
func (h *history) persist() {
	h.tb.Helper()
	if err := h.sh.FlushTo(h.captured.ends()); err != nil {
		h.tb.Fatal(err)
	}
	h.durable = h.captured
	if err := h.sh.Checkpointed(h.token); err != nil {
		h.tb.Fatal(err)
	}
}

// check looks at everything, while nothing is written in the background.
func (h *history) check() {
	h.tb.Helper()
	h.checkLogs()
	h.checkCounts()
}

func (h *history) checkLogs() {
	h.tb.Helper()
	for key, p := range h.state {
		checkLog(h.tb, h.sh, key, p.log)
	}
}

// checkCounts holds what the store counts against its segments. A write is counted
// when it has ended, so none may be under way.
func (h *history) checkCounts() {
	h.tb.Helper()
	h.sh.mu.Lock()
	defer h.sh.mu.Unlock()
	n, size := int64(0), int64(0)
	for _, parts := range []map[uint32]*part{h.sh.parts, h.sh.dying} {
		for _, p := range parts {
			for _, seg := range p.segs {
				n, size = n+1, size+seg.Bytes()
			}
		}
	}
	if s := &h.st.stats; s.segments.Load() != n || s.segmentBytes.Load() != size {
		h.tb.Errorf("%d segments of %d bytes; counted are %d of %d", n, size, s.segments.Load(), s.segmentBytes.Load())
	}
}

// cut is a disk as some power cut left it.
type cut struct {
	name    string
	mem     *vfs.Mem
	durable checkpoint
}

// TestCrashAtEveryOperation runs a history, cuts the power before and after
// each of its operations on the disk, and restores every disk that can result
// from the last checkpoint that was durable then. All below the checkpoint's
// ends must be there, byte by byte; with the rest of the log applied again
// reads must be as if nothing had happened, and the next checkpoint must hold.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(7)
	h := newHistory(t, mem)
	var cuts []cut
	modes := []vfs.CrashOptions{
		{Unsynced: vfs.Lose}, {Unsynced: vfs.Keep},
		{Unsynced: vfs.Coin, Seed: 1}, {Unsynced: vfs.Coin, Seed: 2},
	}
	mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
			return
		}
		for _, mode := range modes {
			mode.Seed += op.Seq << 8
			cuts = append(cuts, cut{
				name:    fmt.Sprintf("op %d (%v %s), phase %v, unsynced %v, seed %d", op.Seq, op.Kind, op.Path, phase, mode.Unsynced, mode.Seed),
				mem:     mem.CrashClone(mode),
				durable: h.durable,
			})
		}
	})
	runCrashHistory(h)
	mem.OnOp(nil)
	h.check()
	t.Logf("%d cuts", len(cuts))
	for _, c := range cuts {
		restoreAndGoOn(t, c, h)
	}
}

// runCrashHistory does everything that touches the disk at least once: flush,
// roll, sync, unlink below a log start, drop of an unflushed tail below one,
// delete, and each of the last three between a capture and its checkpoint.
func runCrashHistory(h *history) {
	h.create(0)
	h.append(0, 100, 2000, 300)
	h.flush(0)
	h.append(0, 400, 5000, 600)
	h.capture()
	h.append(0, 700)
	h.persist()

	h.create(1)
	h.append(1, 100, 200)
	h.append(0, 900, 1000, 3000)
	h.flush(0)
	h.flush(1)
	h.setLogStart(0, 4)
	h.create(2) // deleted before it was ever flushed
	h.append(2, 50)
	h.capture()
	h.append(0, 150, 250, 350)
	h.setLogStart(0, 1) // past what the capture needs
	h.append(1, 300)
	h.delete(1)
	h.delete(2)
	h.persist()

	h.append(0, 10, 20)
	h.setLogStart(0, 0) // nothing is left
	h.capture()
	h.persist()
	h.append(0, 30, 4000, 40)
	h.flush(0)
	h.capture()
	h.flush(0)
	h.sh.Abandon(h.token)
	h.append(0, 50)
	h.capture()
	h.persist()
	h.append(0, 60)
	h.flush(0)
}

// TestCrashAfterSyncBesideFlush lets a checkpoint that needs nothing of a flush sync
// its partition before and after each of the flush's operations on the disk. The
// next checkpoint must be durable all the same.
func TestCrashAfterSyncBesideFlush(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		mem := vfs.NewMem(9)
		h := newHistory(t, mem)
		h.create(0)
		h.append(0, 100)
		h.flush(0)
		h.append(0, 200)
		h.capture()
		h.persist()
		h.create(1)
		h.append(1, 300)
		h.append(0, 4000)                                     // in a new segment
		ends := append(h.durable.ends(), End{Key: 1, End: 0}) // captured when 1 was empty
		at, what := 0, ""
		mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
			if at++; at == n {
				what = fmt.Sprintf("synced at %v %s, phase %v", op.Kind, op.Path, phase)
				if err := h.sh.FlushTo(ends); err != nil {
					t.Error(err)
				}
			}
		})
		h.flush(0)
		h.flush(1)
		mem.OnOp(nil)
		if what == "" {
			t.Logf("%d places", n-1)
			h.st.Close()
			return
		}
		h.capture()
		h.persist()
		again := newHistory(t, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
		again.restore(h.durable)
		again.st.Close()
		h.st.Close()
		if t.Failed() {
			t.Fatal(what)
		}
	}
}

func restoreAndGoOn(t *testing.T, c cut, h *history) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("cut: %s", c.name)
		}
	}()
	again := newHistory(t, c.mem)
	defer again.st.Close()
	again.restore(c.durable)
	for _, cmd := range h.commands[c.durable.applied:] {
		again.apply(cmd)
	}
	again.check()
	again.capture()
	again.persist()
	again.check()

	last := newHistory(t, c.mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
	defer last.st.Close()
	last.restore(again.durable)
}

// restore brings h to cp and checks that all of it is there.
func (h *history) restore(cp checkpoint) {
	h.tb.Helper()
	damage, err := h.sh.Restore(cp.restored())
	if err != nil || len(damage) > 0 {
		h.tb.Fatalf("Restore = %v, %v", damage, err)
	}
	h.state, h.durable = machine{}, cp
	maps.Copy(h.state, cp.state)
	h.check()
}

// TestCrashAgainDuringRestart cuts the power at every operation of a restart
// and of the appends after it.
func TestCrashAgainDuringRestart(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(8)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100, 200, 300)
	h.flush(0)
	h.capture()
	h.append(0, 400, 3000, 600)
	h.persist()
	h.flush(0)
	h.append(0, 700)
	h.flush(0)

	first := mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
	again := newHistory(t, first)
	again.durable = h.durable
	var cuts []cut
	first.OnOp(func(op vfs.Op, phase vfs.Phase) {
		for seed := range uint64(4) {
			mode := vfs.CrashOptions{Unsynced: vfs.Coin, Seed: op.Seq<<8 + seed}
			cuts = append(cuts, cut{
				name:    fmt.Sprintf("op %d (%v %s), phase %v, seed %d", op.Seq, op.Kind, op.Path, phase, mode.Seed),
				mem:     first.CrashClone(mode),
				durable: again.durable,
			})
		}
	})
	again.restore(h.durable)
	again.commands = slices.Clone(h.commands[:h.durable.applied])
	for _, cmd := range h.commands[h.durable.applied:] {
		again.apply(cmd)
	}
	again.flush(0)
	again.capture()
	again.persist()
	first.OnOp(nil)
	for _, c := range cuts {
		restoreAndGoOn(t, c, h)
	}
}

// TestUnlinkedSegmentStaysAway: a start unlinks the segment above its
// checkpoint, whose name is durable, and the segment before it then takes newer
// records of the same offsets, which are checkpointed and so acknowledged for
// good. After a power cut that forgets what was not synced, the old segment must
// not be back: the next start would take it for the end of the one before, and
// cut that one there.
func TestUnlinkedSegmentStaysAway(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(9)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100)
	h.capture()
	h.persist()
	h.append(0, 1000, 3000) // the second of them begins another segment
	above := h.state[0].log.end()
	h.flush(0)
	// The files and names are durable, and the power fails before a checkpoint is.
	if err := h.sh.FlushTo([]End{{Key: 0, End: above}}); err != nil {
		t.Fatal(err)
	}
	once := mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	first := newHistory(t, once)
	if n := len(files(t, once, 0)); n != 4 {
		t.Fatalf("%d files, want two segments and their indexes: %v", n, files(t, once, 0))
	}
	first.restore(h.durable)

	// Other records now, all of which fit into the first segment.
	first.append(0, 10, 20, 30, 40)
	first.capture()
	first.persist()
	if end := first.durable.state[0].log.end(); end <= above {
		t.Fatalf("the newer records end at %d, want above %d", end, above)
	}

	second := newHistory(t, once.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
	second.restore(first.durable)
	second.append(0, 50)
	second.check()
}
