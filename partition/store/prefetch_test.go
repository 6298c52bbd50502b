package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// away is a shard that has missed the end of a history: it has the first commands
// of the source's, all of them in a checkpoint.
type away struct {
	tb     testing.TB
	source *history
	own    checkpoint // the newest of its own
	target checkpoint // the source's, which it is to have
}

// newAway runs a history of everything that can have happened to a partition while
// its replica was away, and leaves the replica's disk at the first part.
func newAway(tb testing.TB, mem *vfs.Mem) (*away, *history) {
	h := newHistory(tb, mem)
	for key := range uint32(6) {
		h.create(key)
	}
	h.append(0, 100, 2000, 300, 60) // goes on
	h.append(1, 400, 500)           // its log start passes what is here
	h.append(2, 600, 700)           // is deleted
	h.append(3, 800)                // its log start moves within what is here
	h.append(3, 900, 2500)
	h.append(4, 150) // stays as it is; 5 was never written to
	for key := range uint32(6) {
		h.flush(key)
	}
	h.capture()
	h.persist()

	src := newHistory(tb, vfs.NewMem(99))
	for _, c := range h.commands {
		src.apply(c)
	}
	src.append(0, 1000, 2000, 3000, 400, 500, 6000, 70, 80)
	src.append(1, 100, 200, 3000, 4000, 500, 600)
	src.setLogStart(1, 2) // within a batch
	src.delete(2)
	src.append(3, 1000)
	src.setLogStart(3, 4)
	src.create(6)
	src.append(6, 100, 5000, 200)
	src.create(7) // stays empty
	for _, key := range []uint32{0, 1, 6} {
		src.flush(key)
	}
	a := &away{tb: tb, source: src, own: h.durable}
	a.target = checkpoint{applied: len(src.commands), state: maps.Clone(src.state)}
	return a, h
}

// pull has a shard pull all that it lacks of the target, a few batches at a time.
func (a *away) pull(sh *Shard) error {
	if err := sh.BeginPrefetch(); err != nil {
		return err
	}
	for _, r := range a.target.restored() {
		if err := a.pullOne(sh, r); err != nil {
			return err
		}
	}
	return sh.SyncPrefetch()
}

func (a *away) pullOne(sh *Shard, r Restored) error {
	p, err := sh.Prefetch(r)
	if err != nil {
		return err
	}
	defer p.Close()
	for !p.Done() {
		c, err := a.source.sh.Read(r.Key, p.Next(), 2500, true)
		var moved *RangeError
		if errors.As(err, &moved) || errors.Is(err, ErrUnknownPartition) {
			start := r.End
			if moved != nil {
				start = moved.Start
			}
			if err := p.Skip(start); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			a.tb.Fatal(err)
		}
		b, err := c.AppendTo(nil)
		c.Release()
		if err != nil {
			a.tb.Fatal(err)
		}
		if err := p.Append(b); err != nil {
			return err
		}
	}
	return p.Finish()
}

// replace puts the target in place, and checks all of it.
func (a *away) replace(h *history) {
	a.tb.Helper()
	damage, err := h.sh.Replace(a.target.restored())
	if err != nil || len(damage) > 0 {
		a.tb.Fatalf("Replace = %v, %v", damage, err)
	}
	h.state = maps.Clone(a.target.state)
	h.commands = slices.Clone(a.source.commands)
	h.durable = a.target
	h.check()
	if _, _, err := h.sh.Bounds(2); !errors.Is(err, ErrUnknownPartition) {
		a.tb.Errorf("the deleted partition is still there: %v", err)
	}
}

// goOn applies more, and takes a checkpoint of it that a power cut leaves whole.
func (a *away) goOn(h *history, mem *vfs.Mem) {
	a.tb.Helper()
	h.append(0, 30, 5000)
	h.append(1, 40)
	h.append(6, 50)
	h.append(7, 60)
	h.create(8)
	h.append(8, 70)
	h.check()
	h.capture()
	h.persist()
	h.check()
	last := newHistory(a.tb, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
	defer last.st.Close()
	last.restore(h.durable)
}

// TestPrefetch pulls what a shard lacks, puts it in place beside readers that
// wait, and goes on.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	defer h.st.Close()
	defer a.source.st.Close()
	var woken []uint32
	for _, key := range []uint32{0, 2, 4} {
		if _, _, err := h.sh.Watch(key, func(key uint32) { woken = append(woken, key) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.pull(h.sh); err != nil {
		t.Fatal(err)
	}
	h.check() // nothing has changed for readers
	a.replace(h)
	h.sh.AppliedBatch()
	if slices.Sort(woken); !slices.Equal(woken, []uint32{0, 2}) {
		t.Errorf("watchers of %v were woken, want those of 0 and 2, which have changed", woken)
	}
	if err := h.sh.DropPrefetch(); err != nil {
		t.Fatal(err)
	}
	if names, err := vfs.ReadDirIfThere(mem, h.sh.prefetchRoot()); err != nil || len(names) > 0 {
		t.Errorf("of the prefetch are left: %v, %v", names, err)
	}
	a.goOn(h, mem)
	if open, unused := h.st.files.Open(); open-unused > 0 {
		t.Errorf("%d files are in use after a checkpoint", open-unused)
	}
}

// TestPrefetchGoesOn pulls a second time after a restart, and to a newer
// checkpoint: what was finished is not pulled again.
func TestPrefetchGoesOn(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	if err := a.pull(h.sh); err != nil {
		t.Fatal(err)
	}
	mem = mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
	again := newHistory(t, mem)
	defer again.st.Close()
	again.restore(a.own)
	for _, r := range a.target.restored() {
		p, err := again.sh.Prefetch(r)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Done() {
			t.Errorf("partition %d: %d is wanted again, of %d", r.Key, p.Next(), r.End)
		}
	}
	a.source.append(0, 10, 20)
	a.source.append(6, 5000)
	a.target = checkpoint{applied: len(a.source.commands), state: maps.Clone(a.source.state)}
	if err := a.pull(again.sh); err != nil {
		t.Fatal(err)
	}
	a.replace(again)
	a.goOn(again, mem)
}

// TestPrefetchDropped: the source's log starts above what the checkpoint says, or
// the partition is gone there. What is missing is no damage: an entry that follows
// moves the log start past it.
func TestPrefetchDropped(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		mem := vfs.NewMem(1)
		a, h := newAway(t, mem)
		rs := a.target.restored()
		ends := map[uint32]int64{0: a.source.state[0].log.end(), 6: a.source.state[6].log.end()}
		a.source.sh.SetLogStart(0, ends[0]-2)
		a.source.sh.Delete(6)
		if err := a.pull(h.sh); err != nil {
			t.Fatal(err)
		}
		sh := h.sh
		var damage []Damage
		var err error
		if restart {
			mem = mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
			again := newHistory(t, mem)
			defer again.st.Close()
			sh = again.sh
			damage, err = sh.Restore(rs)
		} else {
			damage, err = sh.Replace(rs)
		}
		if err != nil || len(damage) > 0 {
			t.Fatalf("restart %t: %v, %v", restart, damage, err)
		}
		if _, err := readFrom(sh, 6, 0, 100); !errors.Is(err, ErrCorrupt) {
			t.Errorf("restart %t: a read of what the source had dropped: %v", restart, err)
		}
		sh.SetLogStart(0, ends[0]-2)
		got, err := readFrom(sh, 0, ends[0]-2, 1000)
		if want := a.target.state[0].log.bytes(ends[0]-2, ends[0]); err != nil || string(got) != string(want) {
			t.Errorf("restart %t: above the new log start are %d bytes, %v; want %d", restart, len(got), err, len(want))
		}
	}
}

// TestCrashInDroppedSwitch takes the power at each operation of the switch to a
// checkpoint of which the source had dropped a part: the next start has the rest.
func TestCrashInDroppedSwitch(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	rs := a.target.restored()
	end := a.source.state[0].log.end()
	a.source.sh.SetLogStart(0, end-2)
	if err := a.pull(h.sh); err != nil {
		t.Fatal(err)
	}
	var cuts []cut
	mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
			return
		}
		for _, left := range []vfs.Unsynced{vfs.Lose, vfs.Keep} {
			cuts = append(cuts, cut{
				name: fmt.Sprintf("op %d (%v %s), phase %v, unsynced %v", op.Seq, op.Kind, op.Path, phase, left),
				mem:  mem.CrashClone(vfs.CrashOptions{Unsynced: left}),
			})
		}
	})
	if _, err := h.sh.Replace(rs); err != nil {
		t.Fatal(err)
	}
	if err := h.sh.DropPrefetch(); err != nil {
		t.Fatal(err)
	}
	mem.OnOp(nil)
	if len(cuts) < 20 {
		t.Errorf("%d cuts, want more", len(cuts))
	}
	want := a.target.state[0].log.bytes(end-2, end)
	for _, c := range cuts {
		again := newHistory(t, c.mem)
		damage, err := again.sh.Restore(rs)
		if err != nil || len(damage) > 0 {
			t.Fatalf("%s: %v, %v", c.name, damage, err)
		}
		again.sh.SetLogStart(0, end-2)
		if got, err := readFrom(again.sh, 0, end-2, 1000); err != nil || string(got) != string(want) {
			t.Fatalf("%s: above the new log start are %d bytes, %v; want %d", c.name, len(got), err, len(want))
		}
		_ = again.st.Close()
	}
}

// TestPrefetchRefuses what is not the batches that are wanted.
func TestPrefetchRefuses(t *testing.T) {
	t.Parallel()
	a, h := newAway(t, vfs.NewMem(1))
	defer h.st.Close()
	r := a.target.restored()[0]
	log := a.target.state[0].log
	own := a.own.state[0].log.end()
	at := slices.IndexFunc(log, func(b rec) bool { return b.base == own })
	first, second := log[at].seen, log[at+1].seen
	changed := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i] ^= 1
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"a flipped bit in a record", changed(first, len(first)-1)},
		{"a flipped bit in the base offset", changed(first, 7)},
		{"a flipped bit in the leader epoch", changed(first, 15)},
		{"a batch left out", second},
		{"a batch twice", slices.Concat(first, first)},
		{"half a batch", first[:len(first)/2]},
		{"an older batch", log[at-1].seen},
		{"the second one damaged", slices.Concat(first, changed(second, len(second)-1))},
	} {
		p, err := h.sh.Prefetch(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Append(tt.b); !errors.Is(err, ErrPulled) {
			t.Errorf("%s: %v, want ErrPulled", tt.name, err)
		}
		if p.Next() != own {
			t.Errorf("%s: it goes on at %d, want %d", tt.name, p.Next(), own)
		}
		if err := p.Append(first); err != nil || p.Next() != log[at].last+1 {
			t.Errorf("%s, and then the right one: %v, goes on at %d", tt.name, err, p.Next())
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.End = log[at+1].last // not where a batch ends
	p, err := h.sh.Prefetch(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Append(slices.Concat(first, second)); !errors.Is(err, ErrPulled) {
		t.Errorf("a batch across the end: %v, want ErrPulled", err)
	}
}

// TestPrefetchWantsFiles: what is in memory alone would be cut off at a restart,
// and what is pulled goes on behind it.
func TestPrefetchWantsFiles(t *testing.T) {
	t.Parallel()
	a, h := newAway(t, vfs.NewMem(1))
	defer h.st.Close()
	h.apply(command{do: 'a', key: 0, rec: a.source.state[0].log[4]})
	if _, err := h.sh.Prefetch(a.target.restored()[0]); !errors.Is(err, ErrTail) {
		t.Errorf("Prefetch with batches in memory: %v, want ErrTail", err)
	}
}

// TestPrefetchOnAFullDisk waits: nothing is latched, and it goes on where it was.
func TestPrefetchOnAFullDisk(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	defer h.st.Close()
	errs := 0
	for room := int64(0); ; room += 5 << 10 {
		mem.SetCapacity(room)
		err := a.pull(h.sh)
		if err == nil {
			break
		}
		if !Temporary(err) || !errors.Is(err, syscall.ENOSPC) || h.st.Failed() != nil {
			t.Fatalf("with %d bytes on the disk: %v, latched %v", room, err, h.st.Failed())
		}
		errs++
	}
	if errs < 3 {
		t.Errorf("the disk was full %d times", errs)
	}
	mem.SetCapacity(-1)
	a.replace(h)
	a.goOn(h, mem)
}

// TestCrashInPrefetch cuts the power before and after each operation on the disk of a catch-up, of the switch, and of what follows. The
// next start has the checkpoint that was durable, whole, and a catch-up that had
// not ended goes on.
func TestCrashInPrefetch(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	a, h := newAway(t, mem)
	durable := a.own
	type end struct {
		cut
		switched bool
	}
	var ends []end
	mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
			return
		}
		modes := []vfs.CrashOptions{{Unsynced: vfs.Lose}, {Unsynced: vfs.Keep}, {Unsynced: vfs.Coin, Seed: op.Seq}}
		mode := modes[len(ends)%len(modes)]
		ends = append(ends, end{cut{
			name: fmt.Sprintf("op %d (%v %s), phase %v, unsynced %v", op.Seq, op.Kind, op.Path, phase, mode.Unsynced),
			mem:  mem.CrashClone(mode), durable: durable,
		}, durable.applied == a.target.applied})
	})
	if err := a.pull(h.sh); err != nil {
		t.Fatal(err)
	}
	durable = a.target // as the caller does it
	a.replace(h)
	if err := h.sh.DropPrefetch(); err != nil {
		t.Fatal(err)
	}
	mem.OnOp(nil)
	t.Logf("%d cuts", len(ends))
	switched := 0
	for _, e := range ends {
		again := newHistory(t, e.mem)
		again.restore(e.durable)
		if e.switched {
			switched++
			again.commands = slices.Clone(a.source.commands)
		} else {
			again.commands = slices.Clone(h.commands[:a.own.applied])
			if err := a.pull(again.sh); err != nil {
				t.Fatal(err)
			}
			a.replace(again)
		}
		if err := again.sh.DropPrefetch(); err != nil {
			t.Fatal(err)
		}
		a.goOn(again, e.mem)
		_ = again.st.Close()
		if t.Failed() {
			t.Fatalf("cut: %s", e.name)
		}
	}
	if switched == 0 || switched == len(ends) {
		t.Errorf("%d of %d cuts were behind the switch", switched, len(ends))
	}
}
