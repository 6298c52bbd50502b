package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// unpaced is no bound of a rate.
func unpaced(int64) error { return nil }

// newHurt makes a shard of several segments, of which the log start has passed
// some, all of it in a checkpoint.
func newHurt(tb testing.TB, mem *vfs.Mem) *history {
	h := newHistory(tb, mem)
	for key := range uint32(3) {
		h.create(key)
	}
	for range 3 { // some writes of a segment each
		h.append(0, 300, 500, 700)
		h.flush(0)
	}
	h.append(0, 3000, 200, 3000, 90)
	h.append(1, 100, 1200, 1300, 60)
	h.setLogStart(1, 5) // within a segment, and within a batch
	h.append(1, 2500, 2600, 70)
	h.append(2, 500)
	for key := range uint32(3) {
		h.flush(key)
	}
	h.capture()
	h.persist()
	return h
}

// epochsOf is the epoch history of a partition.
func (h *history) epochsOf(key uint32) []Epoch {
	for _, r := range (checkpoint{state: h.state}).restored() {
		if r.Key == key {
			return r.Epochs
		}
	}
	return nil
}

// mend repairs everything that is known to be damaged, from another shard.
func (h *history) mend(source *Shard) (local, given int64) {
	h.tb.Helper()
	for range 100 {
		all := h.sh.Damaged()
		if len(all) == 0 {
			return local, given
		}
		r, err := h.sh.BeginRepair(all[0], h.epochsOf(all[0].Key), unpaced)
		if errors.Is(err, ErrMoot) {
			continue
		}
		if err != nil {
			h.tb.Fatal(err)
		}
		n, err := give(r, all[0].Key, source)
		if err == nil {
			err = r.Finish()
		}
		local, given = local+r.Local(), given+n
		if err = errors.Join(err, r.Close()); err != nil {
			h.tb.Fatal(err)
		}
	}
	h.tb.Fatalf("there is no end of what is damaged: %+v", h.sh.Damaged())
	return 0, 0
}

// give reads from another shard what a repair wants.
func give(r *Repair, key uint32, source *Shard) (bytes int64, err error) {
	for {
		from, to, more, err := r.Wanted()
		if err != nil || !more {
			return bytes, err
		}
		c, err := source.Read(key, from, 700, true)
		if err != nil {
			return bytes, err
		}
		b, err := c.AppendTo(nil)
		c.Release()
		if err != nil {
			return bytes, err
		}
		var wanted []byte
		for len(b) > 0 && int64(be64(b)) < to {
			n := 12 + int(be32(b[8:]))
			wanted, b = append(wanted, b[:n]...), b[n:]
		}
		if err := r.Append(wanted); err != nil {
			return bytes, err
		}
		bytes += int64(len(wanted))
	}
}

func be64(b []byte) (n uint64) {
	for _, c := range b[:8] {
		n = n<<8 | uint64(c)
	}
	return n
}

func be32(b []byte) uint32 { return uint32(be64(append(make([]byte, 4, 8), b[:4]...))) }

// whole checks that nothing is damaged, here and after a restart, and goes on.
func (h *history) whole(mem *vfs.Mem) {
	h.tb.Helper()
	h.check()
	h.scrub()
	if all := h.sh.Damaged(); len(all) > 0 {
		h.tb.Fatalf("damaged after the repair: %+v", all)
	}
	h.append(0, 40)
	h.append(1, 50)
	h.append(2, 5000)
	h.capture()
	h.persist()
	h.check()
	last := newHistory(h.tb, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose}))
	defer last.st.Close()
	damage, err := last.sh.Restore(h.durable.restored())
	if err != nil || len(damage) > 0 {
		h.tb.Fatalf("after a restart: %v, %v", damage, err)
	}
	last.state = maps.Clone(h.durable.state)
	last.check()
	last.scrub()
	if all := last.sh.Damaged(); len(all) > 0 {
		h.tb.Fatalf("damaged after a restart: %+v", all)
	}
	names, err := mem.ReadDir(testDir)
	if err != nil {
		h.tb.Fatal(err)
	}
	for _, name := range names {
		if left, _ := vfs.ReadDirIfThere(mem, testDir+"/"+name); strings.HasPrefix(name, repairPrefix) && len(left) > 1 {
			h.tb.Errorf("a repair has left %v", left)
		}
	}
}

func (h *history) scrub() Scrubbed {
	h.tb.Helper()
	done, err := h.sh.Scrub(h.epochsOf, unpaced)
	if err != nil {
		h.tb.Fatal(err)
	}
	return done
}

// harms are damages of the files of a store: of each kind at several places.
func harms(tb testing.TB, mem *vfs.Mem) (all []harm) {
	var last [2]string
	for index := range int32(3) {
		dir := fmt.Sprintf("%s/%s/", testDir, dirName(topic, index))
		names := files(tb, mem, index)
		slices.Sort(names)
		for _, name := range names {
			file := dir + name
			b, err := vfs.ReadFile(mem, file)
			if err != nil {
				tb.Fatal(err)
			}
			of, kind := len(b), 0
			if strings.HasSuffix(name, ".index") {
				kind = 1
			}
			for _, at := range []int{0, 9, 40, 127, 128 + 12, 128 + 30, of / 2, of - 1} {
				if at < of {
					all = append(all, harm{fmt.Sprintf("flip %s at %d", file, at), func(m *vfs.Mem) error { return m.Corrupt(file, int64(at), flip) }})
				}
			}
			for _, at := range []int{0, 50, 140, of / 2, of - 1} {
				if at < of {
					all = append(all, harm{fmt.Sprintf("cut %s at %d", file, at), func(m *vfs.Mem) error { return truncate(m, file, int64(at)) }})
				}
				if at < of && len(bytes.Trim(b[at:], "\x00")) > 0 {
					all = append(all, harm{fmt.Sprintf("zero %s at %d", file, at), func(m *vfs.Mem) error {
						return m.Corrupt(file, int64(at), func(b []byte) { clear(b[:min(len(b), 300)]) })
					}})
				}
			}
			all = append(all, harm{"lose " + file, func(m *vfs.Mem) error { return m.Lose(file) }})
			if other := last[kind]; other != "" {
				all = append(all, harm{"swap " + file + " with " + other, func(m *vfs.Mem) error {
					was, err := vfs.ReadFile(m, other)
					return errors.Join(err, vfs.WriteFile(m, other, b), vfs.WriteFile(m, file, was))
				}})
			}
			last[kind] = file
		}
		all = append(all, harm{"lose " + dir, func(m *vfs.Mem) error { return m.Lose(strings.TrimSuffix(dir, "/")) }})
	}
	return all
}

type harm struct {
	name string
	do   func(*vfs.Mem) error
}

// TestRepair damages each file of a shard, while it is open and while it is not:
// a repair finds it, takes what is intact from the file itself and the rest from
// another replica, and leaves nothing of the damage.
func TestRepair(t *testing.T) {
	t.Parallel()
	intact := vfs.NewMem(1)
	source := newHurt(t, intact)
	defer source.st.Close()
	given, local := 0, 0
	for i, hm := range harms(t, intact) {
		for _, open := range []bool{true, false} {
			if testing.Short() && i%3 != 0 {
				continue
			}
			mem := vfs.NewMem(1)
			h := newHurt(t, mem)
			if open {
				if err := hm.do(mem); err != nil {
					t.Fatal(err)
				}
				h.scrub()
			} else {
				_ = h.st.Close()
				if err := hm.do(mem); err != nil {
					t.Fatal(err)
				}
				state, durable := h.state, h.durable
				h = newHistory(t, mem)
				if _, err := h.sh.Restore(durable.restored()); err != nil {
					t.Fatal(hm.name, err)
				}
				h.state, h.durable = maps.Clone(state), durable
				h.scrub() // what no start looks at
			}
			harmed := h.sh.Damaged()
			for _, d := range harmed {
				checkNoLie(t, h, d)
			}
			l, g := h.mend(source.sh)
			local, given = local+min(int(l), 1), given+min(int(g), 1)
			h.whole(mem)
			_ = h.st.Close()
			if t.Failed() {
				t.Fatalf("%s, open %t, damage %v", hm.name, open, harmed)
			}
			if open && len(harmed) == 0 {
				t.Errorf("%s: nobody noticed", hm.name)
			}
		}
	}
	if given < 10 || local < 10 {
		t.Errorf("%d repairs took something from others, and %d from the file: too few to show anything", given, local)
	}
}

// checkNoLie reads a partition around what is known to be damaged of it: what can
// be read is right.
func checkNoLie(t *testing.T, h *history, d Damage) {
	t.Helper()
	l := h.state[d.Key].log
	for at := h.state[d.Key].logStart; at < l.end(); {
		c, err := h.sh.Read(d.Key, at, 1, true)
		if errors.Is(err, ErrCorrupt) {
			at++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.AppendTo(nil)
		c.Release()
		if err != nil || !bytes.Equal(b, l.bytes(at, at+1)) {
			t.Fatalf("partition %d at %d: a wrong batch, %v", d.Key, at, err)
		}
		at = c.End
	}
}

// TestRepairRefuses gives a repair what it does not want: nothing changes.
func TestRepairRefuses(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHurt(t, mem)
	p := h.sh.lookup(0)
	if err := mem.Corrupt(p.dir()+"/"+segment.DataName(0), 200, flip); err != nil {
		t.Fatal(err)
	}
	h.scrub()
	d := h.sh.Damaged()[0]
	r, err := h.sh.BeginRepair(d, h.epochsOf(0), unpaced)
	if err != nil {
		t.Fatal(err)
	}
	from, _, more, err := r.Wanted()
	if err != nil || !more || from != 0 {
		t.Fatalf("Wanted = %d, %t, %v", from, more, err)
	}
	right := h.state[0].log.bytes(0, 1)
	for name, change := range map[string]func(b []byte){
		"a flipped bit":          func(b []byte) { b[len(b)-1] ^= 1 },
		"another offset":         func(b []byte) { b[7]++ },
		"another leader's epoch": func(b []byte) { b[15]++ },
	} {
		b := bytes.Clone(right)
		change(b)
		if err := r.Append(b); !errors.Is(err, ErrPulled) {
			t.Errorf("%s: %v, want ErrPulled", name, err)
		}
	}
	if err := errors.Join(r.Close()); err != nil {
		t.Fatal(err)
	}
	if got := h.sh.Damaged(); len(got) != 1 || got[0].From != d.From || got[0].To != d.To {
		t.Errorf("damaged is now %+v, was %+v", got, d)
	}
	if _, err := h.sh.BeginRepair(Damage{Key: 2, TopicID: topic, Index: 2, To: 9}, nil, unpaced); !errors.Is(err, ErrMoot) {
		t.Errorf("repair of what is not damaged: %v, want ErrMoot", err)
	}
}

// TestRepairMoot has a partition deleted, and its log start moved past, while a
// repair is under way: it changes nothing.
func TestRepairMoot(t *testing.T) {
	t.Parallel()
	source := newHurt(t, vfs.NewMem(1))
	for _, what := range []string{"deleted", "log start"} {
		mem := vfs.NewMem(1)
		h := newHurt(t, mem)
		if err := mem.Corrupt(h.sh.lookup(0).dir()+"/"+segment.DataName(0), 200, flip); err != nil {
			t.Fatal(err)
		}
		h.scrub()
		r, err := h.sh.BeginRepair(h.sh.Damaged()[0], h.epochsOf(0), unpaced)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := give(r, 0, source.sh); err != nil {
			t.Fatal(err)
		}
		if what == "deleted" {
			h.delete(0)
		} else {
			h.setLogStart(0, 0)
		}
		h.capture()
		h.persist()
		before := files(t, mem, 0)
		if err := r.Finish(); !errors.Is(err, ErrMoot) {
			t.Errorf("%s: %v, want ErrMoot", what, err)
		}
		if after := files(t, mem, 0); !slices.Equal(before, after) {
			t.Errorf("%s: %v became %v", what, before, after)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		h.check()
	}
}

// TestWriteAfterLoss takes files away from under a partition that is written to: it
// goes on in new ones, and what was lost is known, and repaired.
func TestWriteAfterLoss(t *testing.T) {
	t.Parallel()
	const unsynced = "the directory before its sync"
	for _, what := range []string{"the active segment", "the directory", unsynced} {
		mem, other := vfs.NewMem(1), newHurt(t, vfs.NewMem(1))
		opt := manual()
		opt.IdleFiles = 1 // files are opened again
		st := mustOpen(t, mem, opt)
		h := &history{tb: t, st: st, sh: st.Shard(1), state: machine{}}
		for _, c := range other.commands {
			h.apply(c)
			h.flush(c.key)
		}
		h.capture()
		h.persist()
		if what == unsynced {
			for _, h := range []*history{h, other} {
				h.append(0, 4000)
				h.flush(0)
			}
		}
		dir := h.sh.lookup(0).dir()
		lost := dir
		if what == "the active segment" {
			lost += "/" + segment.DataName(segmentsOf(t, mem, 0)[len(segmentsOf(t, mem, 0))-1])
		}
		if err := mem.Lose(lost); err != nil {
			t.Fatal(err)
		}
		if what == unsynced {
			h.capture()
			h.persist()
		}
		for _, h := range []*history{h, other} {
			h.append(0, 70)
			h.flush(0)
			h.append(0, 2500, 2600)
			h.flush(0)
		}
		if err := st.Failed(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		h.scrub()
		if len(h.sh.Damaged()) == 0 {
			t.Errorf("%s: nobody noticed", what)
		}
		h.mend(other.sh)
		h.whole(mem)
	}
}

// TestCrashInRepair cuts the power at every operation of repairs. What is there
// after the restart is what was there before, or what was to be: nothing that was
// readable is lost, and a repair brings back the rest.
func TestCrashInRepair(t *testing.T) {
	t.Parallel()
	source := newHurt(t, vfs.NewMem(1))
	cuts := 0
	for _, hm := range []struct {
		name string
		do   func(m *vfs.Mem, dir string) error
	}{
		{"a flipped bit", func(m *vfs.Mem, dir string) error { return m.Corrupt(dir+segment.DataName(0), 1200, flip) }},
		{"a lost file", func(m *vfs.Mem, dir string) error { return m.Lose(dir + segment.DataName(0)) }},
		{"a bad header below the log start", func(m *vfs.Mem, dir string) error {
			return m.Corrupt(testDir+"/"+dirName(topic, 1)+"/"+segment.DataName(segmentsOf(t, m, 1)[0]), 3, flip)
		}},
	} {
		mem := vfs.NewMem(1)
		h := newHurt(t, mem)
		// A part of the last segment that is not in the checkpoint.
		h.append(0, 800)
		h.flush(0)
		if err := hm.do(mem, h.sh.lookup(0).dir()+"/"); err != nil {
			t.Fatal(err)
		}
		h.scrub()
		if len(h.sh.Damaged()) == 0 {
			t.Fatalf("%s is not noticed", hm.name)
		}
		var ends []cut
		mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
			switch op.Kind {
			case vfs.OpReadAt, vfs.OpOpen, vfs.OpStat, vfs.OpReadDir, vfs.OpWriteBack:
				return
			}
			modes := []vfs.CrashOptions{{Unsynced: vfs.Lose}, {Unsynced: vfs.Keep}, {Unsynced: vfs.Coin, Seed: op.Seq}}
			mode := modes[len(ends)%len(modes)]
			ends = append(ends, cut{
				name: fmt.Sprintf("%s: op %d (%v %s), phase %v, unsynced %v", hm.name, op.Seq, op.Kind, op.Path, phase, mode.Unsynced),
				mem:  mem.CrashClone(mode), durable: h.durable,
			})
		})
		h.mend(source.sh)
		mem.OnOp(nil)
		h.check()
		for _, e := range ends {
			again := newHistory(t, e.mem)
			if _, err := again.sh.Restore(e.durable.restored()); err != nil {
				t.Fatal(e.name, err)
			}
			again.state = maps.Clone(e.durable.state)
			again.durable = e.durable
			again.scrub()
			for _, d := range again.sh.Damaged() {
				checkNoLie(t, again, d)
			}
			again.mend(source.sh)
			again.whole(e.mem)
			_ = again.st.Close()
			if t.Failed() {
				t.Fatalf("cut: %s", e.name)
			}
		}
		cuts += len(ends)
		_ = h.st.Close()
	}
	t.Logf("%d cuts", cuts)
}
