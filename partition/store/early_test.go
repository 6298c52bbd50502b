package store

import (
	"fmt"
	"maps"
	"path"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// TestFreeEarly unlinks what was deleted, and what lies below a moved log start,
// before a checkpoint covers it, and loses the power before and after every
// operation of that. The checkpoint before is restored without damage, whatever
// is left, and when the log is applied again all is as it was. The next
// checkpoint leaves no trace.
func TestFreeEarly(t *testing.T) {
	t.Parallel()
	prepare := func(mem *vfs.Mem) (h *history) {
		h = newHistory(t, mem)
		h.create(0)
		h.create(1)
		for range 6 {
			h.append(0, 3000, 3000)
			h.append(1, 3000, 3000)
		}
		h.capture()
		h.persist() // the checkpoint that knows all of it
		return h
	}
	// apply is what the log says after that checkpoint.
	apply := func(h *history) {
		h.append(0, 500)
		h.setLogStart(0, 7)
		h.delete(1)
	}
	for cut := uint64(1); ; cut++ {
		reached := false
		for _, when := range []vfs.Phase{vfs.Before, vfs.After} {
			mem := vfs.NewMem(1)
			h := prepare(mem)
			apply(h)
			base := mem.Stats().Ops
			var from uint64
			for _, n := range base {
				from += uint64(n)
			}
			marked, synced := make(map[string]bool), make(map[string]bool)
			mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
				switch dir := path.Dir(op.Path); {
				case phase == vfs.Before:
				case op.Kind == vfs.OpRename:
					marked[dir] = true
				case op.Kind == vfs.OpSyncDir:
					synced[op.Path] = marked[op.Path]
				case op.Kind == vfs.OpRemove && !synced[dir]:
					t.Errorf("%s is unlinked before the mark is durable", op.Path)
				}
				if op.Seq == from+cut && phase == when {
					reached = true
					mem.Freeze()
				}
			})
			freed, err := h.st.FreeEarly()
			mem.OnOp(nil)
			if !reached && (err != nil || freed < 30_000) {
				t.Fatalf("FreeEarly = %d bytes, %v", freed, err)
			}
			for _, unsynced := range []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin} {
				what := fmt.Sprintf("cut %v operation %d, %v", when, cut, unsynced)
				again := newHistory(t, mem.CrashClone(vfs.CrashOptions{Seed: cut, Unsynced: unsynced}))
				damage, err := again.sh.Restore(h.durable.restored())
				if err != nil || len(damage) > 0 {
					t.Fatalf("%s: Restore = %+v, %v", what, damage, err)
				}
				maps.Copy(again.state, h.durable.state)
				apply(again)
				again.check()
				again.capture()
				again.persist()
				again.check()
				last := newHistory(t, again.st.fs.(*vfs.Mem).CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}))
				last.restore(again.durable)
				last.check()
				names, err := last.st.fs.ReadDir(testDir + "/" + dirName(topic, 0))
				if err != nil {
					t.Fatal(what, err)
				}
				for _, name := range names {
					if _, ok := ParseDropped(name); ok {
						t.Errorf("%s: %s is left", what, name)
					}
				}
				if _, err := last.st.fs.Stat(testDir + "/" + dirName(topic, 1)); err == nil {
					t.Errorf("%s: the deleted partition's directory is left", what)
				}
			}
		}
		if !reached {
			return
		}
	}
}

// TestFreeDoomed unlinks the files of a partition whose topic is deleted, while it is
// still there itself, and loses the power before and after every operation of that and
// of what goes on then: a flush of what came since, a checkpoint. What is gone is no
// damage, before and after a restart, and the deletion that comes at last leaves nothing.
func TestFreeDoomed(t *testing.T) {
	t.Parallel()
	spared := [16]byte{1}
	for cut := uint64(1); ; cut++ {
		reached := false
		for _, when := range []vfs.Phase{vfs.Before, vfs.After} {
			mem := vfs.NewMem(1)
			h := newHistory(t, mem)
			h.sh.OnDamage(func(d Damage) { t.Errorf("taken for damage: %+v", d) })
			h.sh.Create(7, spared, 0, Config{})
			appendRec(h.sh, 7, makeRec(t, 0, 1, 5000), nil)
			h.create(0)
			for range 6 {
				h.append(0, 3000, 3000)
			}
			h.capture()
			h.persist()
			if err := h.sh.FlushTo([]End{{7, 1}}); err != nil {
				t.Fatal(err)
			}
			var from uint64
			for _, n := range mem.Stats().Ops {
				from += uint64(n)
			}
			durable := h.durable
			mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
				if op.Seq == from+cut && phase == when {
					reached = true
					durable = h.durable
					mem.Freeze()
				}
			})
			freed, err := h.st.FreeDoomed(func(id [16]byte) bool { return id == topic })
			if !reached && (err != nil || freed < 30_000) {
				t.Fatalf("FreeDoomed = %d bytes, %v", freed, err)
			}
			if !reached {
				if _, err := h.sh.Read(0, 0, 100, true); err == nil {
					t.Error("a record is read that is gone")
				}
				h.append(0, 3000, 3000)
				h.flush(0)
				h.capture()
				if err := h.sh.FlushTo(h.captured.ends()); err == nil {
					h.durable = h.captured
				} else if !reached {
					t.Fatal(err)
				}
			}
			mem.OnOp(nil)
			if !reached {
				h.scrub()
				durable = h.durable
			}
			for _, unsynced := range []vfs.Unsynced{vfs.Lose, vfs.Keep, vfs.Coin} {
				what := fmt.Sprintf("cut %v operation %d, %v", when, cut, unsynced)
				again := newHistory(t, mem.CrashClone(vfs.CrashOptions{Seed: cut, Unsynced: unsynced}))
				rs := append(durable.restored(), Restored{Key: 7, TopicID: spared, End: 1})
				damage, err := again.sh.Restore(rs)
				if err != nil || len(damage) > 0 {
					t.Fatalf("%s: Restore = %+v, %v", what, damage, err)
				}
				if _, err := again.sh.Read(7, 0, 100, true); err != nil {
					t.Errorf("%s: the other topic: %v", what, err)
				}
				again.sh.Delete(0)
				again.capture()
				again.persist()
				if _, err := again.st.fs.Stat(testDir + "/" + dirName(topic, 0)); err == nil {
					t.Errorf("%s: the deleted partition's directory is left", what)
				}
			}
			h.st.Close()
		}
		if !reached {
			t.Logf("%d operations", cut-1)
			return
		}
	}
}

// TestManyOpenFiles takes the process all its files but a few: idle ones are
// closed, and what still finds none is tried again, as on a full disk.
func TestManyOpenFiles(t *testing.T) {
	inBubble(t, Options{TailFlushBytes: 1000, SegmentBytes: 2500, Flushers: 1}, func(t *testing.T, r *rig) {
		r.create(1)
		r.put(0, 2000, nil)
		r.did("flush 0@0, roll 0@0")
		r.script("create err=EMFILE times=1") // closing idle files helps
		r.put(0, 2000, nil)
		r.did("flush 0@1, roll 0@1")
		if r.st.Stalled() != nil {
			t.Error("stalled:", r.st.Stalled())
		}
		r.script("create err=EMFILE\nopen err=EMFILE\nsyncdir err=EMFILE")
		r.put(0, 2000, nil)
		r.did("flush 0@2, full 0@2")
		if err := r.st.Stalled(); !vfs.NoFiles(err) {
			t.Errorf("Stalled = %v, want EMFILE", err)
		}
		if err := r.sh.FlushTo([]End{{0, 2}}); !Temporary(err) {
			t.Errorf("FlushTo = %v, want an error to try again after", err)
		}
		r.mem.SetInjector(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := r.sh.FlushTo([]End{{0, 3}}); err != nil || r.st.Stalled() != nil {
			t.Errorf("FlushTo = %v, stalled %v", err, r.st.Stalled())
		}
		if len(r.failed) > 0 {
			t.Error("latched:", r.failed)
		}
		again := mustOpen(t, r.mem.CrashClone(vfs.CrashOptions{}), manual())
		if d, err := again.Shard(1).Restore([]Restored{{Key: 0, TopicID: topic, End: 3}}); err != nil || len(d) > 0 {
			t.Errorf("after a power cut: %v, %v", d, err)
		}
	})
}

// TestKeepFree leaves on the disk what is to be left.
func TestKeepFree(t *testing.T) {
	inBubble(t, Options{TailFlushBytes: 1000, Flushers: 1, KeepFreeBytes: 100 << 10}, func(t *testing.T, r *rig) {
		r.create(1)
		r.mem.SetCapacity(100<<10 + writeOverheadBytes)
		r.put(0, 2000, nil)
		r.did("full 0@0")
		r.mem.SetCapacity(130 << 10)
		time.Sleep(time.Second)
		r.did("flush 0@0, roll 0@0")
	})
}
