package store

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/segment"
)

// segmentsOf returns the base offsets of a partition's data files on the disk.
func segmentsOf(tb testing.TB, fsys vfs.FS, index int32) (bases []int64) {
	for _, name := range files(tb, fsys, index) {
		if base, ok := segment.ParseName(name); ok {
			bases = append(bases, base)
		}
	}
	return bases
}

// TestUnlinkWaitsForCheckpoint (R13): a log start that moves unlinks nothing
// before a checkpoint that was captured after it is durable.
func TestUnlinkWaitsForCheckpoint(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 3000, 3000, 3000) // three segments: [0,1) [1,3) [3,6)
	h.capture()
	h.persist()
	all := segmentsOf(t, mem, 0)
	if len(all) != 3 {
		t.Fatalf("segments %v", all)
	}
	h.capture()
	h.setLogStart(0, 2) // offset 4, inside the last
	open := h.token
	h.persist() // a checkpoint that does not know of it
	if got := segmentsOf(t, mem, 0); !slices.Equal(got, all) {
		t.Fatalf("segments %v after a checkpoint captured before, want %v", got, all)
	}
	h.capture()
	h.sh.Abandon(h.token)
	if err := h.sh.Checkpointed(open); err != nil { // told twice
		t.Fatal(err)
	}
	if got := segmentsOf(t, mem, 0); !slices.Equal(got, all) {
		t.Fatalf("segments %v after an abandoned checkpoint, want %v", got, all)
	}
	h.capture()
	if err := h.sh.FlushTo(h.captured.ends()); err != nil {
		t.Fatal(err)
	}
	if got := segmentsOf(t, mem, 0); !slices.Equal(got, all) {
		t.Fatalf("segments %v before the checkpoint is durable, want %v", got, all)
	}
	h.persist()
	if got := segmentsOf(t, mem, 0); !slices.Equal(got, all[2:]) {
		t.Fatalf("segments %v, want %v", got, all[2:])
	}
	h.check()
}

// TestDeleteWaitsForCheckpoint (R13): the same for a deleted partition, whose
// unflushed tail is still flushed if an open checkpoint lists it.
func TestDeleteWaitsForCheckpoint(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100, 3000, 200)
	h.capture()
	h.delete(0)
	if _, err := h.sh.Read(0, 0, 1, true); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("Read of a deleted partition = %v", err)
	}
	if h.st.MemoryUsed() == 0 {
		t.Error("the tail that an open capture needs was dropped")
	}
	h.persist()
	restored := newHistory(t, mem.CrashClone(vfs.CrashOptions{}))
	restored.restore(h.durable)
	if h.st.MemoryUsed() != 0 {
		t.Errorf("MemoryUsed = %d after the capture ended", h.st.MemoryUsed())
	}
	h.capture()
	h.persist()
	if names := files(t, mem, 0); names != nil {
		t.Errorf("left: %v", names)
	}
	if names, err := mem.ReadDir(testDir); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if n := len(h.sh.dying) + len(h.sh.causes); n > 0 {
		t.Errorf("%d things to delete are left", n)
	}
}

// TestDeleteWithoutCaptureFreesMemory: nobody needs the tail then.
func TestDeleteWithoutCaptureFreesMemory(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100, 3000, 200)
	h.delete(0)
	if h.st.MemoryUsed() != 0 {
		t.Errorf("MemoryUsed = %d", h.st.MemoryUsed())
	}
	h.capture()
	h.persist()
	if stats := mem.Stats(); files(t, mem, 0) != nil {
		t.Errorf("files were made: %+v", stats)
	}
}

// TestLogStartPassesTheTail: what was never flushed and is below the log start
// is never written, unless an open capture lists it.
func TestLogStartPassesTheTail(t *testing.T) {
	t.Parallel()
	for _, captured := range []bool{false, true} {
		t.Run(fmt.Sprintf("captured=%t", captured), func(t *testing.T) {
			mem := vfs.NewMem(1)
			h := newHistory(t, mem)
			h.create(0)
			h.append(0, 100)
			h.flush(0)
			h.append(0, 100, 100, 100, 100) // [1,2) [2,4) [4,7) [7,8)
			if captured {
				h.capture()
			}
			h.setLogStart(0, 2) // 6, inside a batch
			want := []int64{0, 4}
			if captured {
				want = []int64{0, 1} // all of the first one is below
				h.persist()
			}
			h.flush(0)
			if got := segmentsOf(t, mem, 0); !slices.Equal(got, want) {
				t.Errorf("segments %v, want %v", got, want)
			}
			h.check()
			h.capture()
			h.persist()
			want = want[1:]
			if got := segmentsOf(t, mem, 0); !slices.Equal(got, want) {
				t.Errorf("segments %v after the checkpoint, want %v", got, want)
			}
			again := newHistory(t, mem.CrashClone(vfs.CrashOptions{}))
			again.restore(h.durable)
		})
	}
}

// TestFlushToWritesNothingTwice: what is durable costs no sync.
func TestFlushToWritesNothingTwice(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	for key := range uint32(5) {
		h.create(key)
		h.append(key, 100)
	}
	h.capture()
	h.persist()
	h.append(3, 100)
	h.capture()
	var ops []string
	mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
		switch op.Kind {
		case vfs.OpSyncData, vfs.OpSync, vfs.OpSyncDir, vfs.OpWriteAt, vfs.OpCreate:
			if phase == vfs.Before {
				ops = append(ops, op.Kind.String())
			}
		}
	})
	h.persist()
	mem.OnOp(nil)
	if diff := cmp.Diff([]string{"write", "write", "fdatasync", "fdatasync"}, ops); diff != "" {
		t.Error(diff)
	}
}

// TestCreateOverAnEarlierLife: files of a partition that the checkpoint did not
// know are not taken for the new one's.
func TestCreateOverAnEarlierLife(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100, 3000, 200)
	h.flush(0)
	again := newHistory(t, mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep}))
	again.create(0)
	if len(again.st.Orphans()) > 0 {
		t.Error("a created partition is an orphan")
	}
	again.append(0, 70)
	again.check()
	again.capture()
	again.persist()
	again.check()
	if got := segmentsOf(t, again.st.fs, 0); !slices.Equal(got, []int64{0}) {
		t.Errorf("segments %v", got)
	}
	last := newHistory(t, again.st.fs.(*vfs.Mem).CrashClone(vfs.CrashOptions{}))
	last.restore(again.durable)
}

// TestSegmentBytes: a segment is as long as configured, and one batch longer
// than that has its own.
func TestSegmentBytes(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 1000, 1000, 100, 9000, 100)
	h.flush(0)
	h.sh.Configure(0, Config{SegmentBytes: 20_000})
	h.append(0, 9000)
	h.flush(0)
	h.check()
	for _, s := range h.sh.parts[0].segs {
		if one := s.End()-s.Base() <= 3; s.Bytes() > 4000 && !one && !(s.Bytes() > 9000 && s.Bytes() <= 20_000) {
			t.Errorf("segment at %d has %d bytes", s.Base(), s.Bytes())
		}
	}
	if n := len(h.sh.parts[0].segs); n != 3 {
		t.Errorf("%d segments, want 3: small ones, the long one, and one that goes on", n)
	}
}

// TestDamage hurts each file of a checkpointed partition in turn. Restore says
// which offsets of which file are gone, everything else is readable, and the
// partition goes on.
func TestDamage(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 1000, 1000, 500, 3000, 1500, 100)
	h.capture()
	h.persist()
	bases := segmentsOf(t, mem, 0)
	if len(bases) < 3 {
		t.Fatalf("segments %v", bases)
	}
	dir := testDir + "/" + dirName(topic, 0) + "/"
	end := h.state[0].log.end()
	for i, base := range bases {
		to := end
		if i+1 < len(bases) {
			to = bases[i+1]
		}
		data, index := dir+segment.DataName(base), dir+segment.IndexName(base)
		tests := []struct {
			name string
			hurt func(m *vfs.Mem) error
			want bool // damage
		}{
			{"data lost", func(m *vfs.Mem) error { return m.Lose(data) }, true},
			{"index lost", func(m *vfs.Mem) error { return m.Lose(index) }, false},
			{"index flipped", func(m *vfs.Mem) error { return m.Corrupt(index, 80, flip) }, false},
			{"header flipped", func(m *vfs.Mem) error { return m.Corrupt(data, 20, flip) }, true},
			{"data and index flipped", func(m *vfs.Mem) error {
				return errors.Join(m.Corrupt(data, 300, flip), m.Lose(index))
			}, true},
			{"data cut", func(m *vfs.Mem) error { return truncate(m, data, 200) }, true},
			{"all lost", func(m *vfs.Mem) error { return errors.Join(m.Lose(data), m.Lose(index)) }, true},
		}
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s at %d", tt.name, base), func(t *testing.T) {
				hurt := mem.CrashClone(vfs.CrashOptions{})
				if err := tt.hurt(hurt); err != nil {
					t.Fatal(err)
				}
				again := newHistory(t, hurt)
				damage, err := again.sh.Restore(h.durable.restored())
				if err != nil {
					t.Fatal(err)
				}
				again.state[0] = h.state[0]
				if !tt.want {
					if len(damage) > 0 {
						t.Fatalf("Damage %+v, want none", damage)
					}
					again.check()
					return
				}
				if len(damage) != 1 || damage[0].From < base || damage[0].From >= to || damage[0].To != to {
					t.Fatalf("Damage %+v, want one that ends at %d", damage, to)
				}
				checkAroundDamage(t, again, damage[0])
			})
		}
	}
}

// TestRebuiltIndexMustAgreeWithEpochs: a leader epoch lies outside the batch's
// checksum, so without the index only the checkpoint's history can tell.
func TestRebuiltIndexMustAgreeWithEpochs(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 100, 100, 100)
	h.capture()
	h.persist()
	dir := testDir + "/" + dirName(topic, 0) + "/"
	at := int64(segment.HeaderBytes + len(h.state[0].log[0].body) + 12)
	err := errors.Join(
		mem.Lose(dir+segment.IndexName(0)),
		mem.Corrupt(dir+segment.DataName(0), at, func(b []byte) { b[3]++ }),
	)
	if err != nil {
		t.Fatal(err)
	}
	again := newHistory(t, mem.CrashClone(vfs.CrashOptions{}))
	damage, err := again.sh.Restore(h.durable.restored())
	if err != nil || len(damage) != 1 || damage[0].From != 1 || damage[0].To != 6 {
		t.Errorf("Restore = %+v, %v; want [1, 6) damaged", damage, err)
	}
}

// TestRestoreOnAFullDisk: a restart needs no space, whatever it finds, and
// writes go on when there is some.
func TestRestoreOnAFullDisk(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 3000, 3000, 100)
	h.capture()
	h.append(0, 200)
	h.persist()
	h.flush(0)
	dir := testDir + "/" + dirName(topic, 0) + "/"
	for _, lost := range segmentsOf(t, mem, 0) {
		full := mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Keep})
		if err := full.Lose(dir + segment.IndexName(lost)); err != nil {
			t.Fatal(err)
		}
		again := newHistory(t, full)
		injector, err := vfs.ParseScript("write err=ENOSPC\ncreate err=ENOSPC")
		if err != nil {
			t.Fatal(err)
		}
		full.SetInjector(injector)
		again.restore(h.durable)
		again.append(0, 200)
		again.check()
		again.capture()
		if err := again.sh.FlushTo(again.captured.ends()); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("FlushTo = %v, want ENOSPC", err)
		}
		full.SetInjector(nil)
		again.persist()
		again.check()
		last := newHistory(t, full.CrashClone(vfs.CrashOptions{}))
		last.restore(again.durable)
	}
}

func flip(b []byte) { b[0] ^= 0x20 }

func truncate(m *vfs.Mem, name string, size int64) error {
	f, err := m.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// checkAroundDamage reads everything but d, appends, makes a checkpoint, and
// finds the same damage after a restart.
func checkAroundDamage(t *testing.T, h *history, d Damage) {
	t.Helper()
	h.append(0, 800, 900)
	h.capture()
	h.persist()
	again := newHistory(t, h.st.fs.(*vfs.Mem).CrashClone(vfs.CrashOptions{}))
	second, err := again.sh.Restore(h.durable.restored())
	if err != nil || len(second) != 1 || second[0].From != d.From || second[0].To != d.To {
		t.Fatalf("after another restart: damage %+v, %v; want %+v", second, err, d)
	}
	again.state = h.state
	for _, h := range []*history{h, again} {
		l := h.state[0].log
		for off := range l.end() {
			c, err := h.sh.Read(0, off, 1, true)
			var ce *segment.CorruptError
			if off >= d.From && off < d.To {
				if !errors.As(err, &ce) || !errors.Is(err, ErrCorrupt) || ce.File == "" {
					t.Fatalf("Read(%d) inside %+v = %v", off, d, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("Read(%d) outside %+v = %v", off, d, err)
			}
			got, err := c.AppendTo(nil)
			if err != nil || string(got) != string(l.bytes(off, off+1)) {
				t.Fatalf("Read(%d): wrong bytes, %v", off, err)
			}
			c.Release()
		}
	}
}

// TestDamageBelowLogStartIsNobodysLoss: those files are not even looked at.
func TestDamageBelowLogStartIsNobodysLoss(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	h := newHistory(t, mem)
	h.create(0)
	h.append(0, 3000, 3000, 3000)
	h.capture()
	h.persist()
	h.setLogStart(0, 2)
	h.capture()
	if err := h.sh.FlushTo(h.captured.ends()); err != nil {
		t.Fatal(err)
	}
	bases := segmentsOf(t, mem, 0)
	hurt := mem.CrashClone(vfs.CrashOptions{})
	if err := hurt.Corrupt(testDir+"/"+dirName(topic, 0)+"/"+segment.DataName(bases[0]), 3, flip); err != nil {
		t.Fatal(err)
	}
	again := newHistory(t, hurt)
	again.restore(h.captured)
	if got := segmentsOf(t, hurt, 0); !slices.Equal(got, bases[len(bases)-1:]) {
		t.Errorf("segments %v after Restore, of %v", got, bases)
	}
}

// countingFS counts the directories that are read.
type countingFS struct {
	vfs.FS
	dirsRead int
}

func (c *countingFS) ReadDir(name string) ([]string, error) {
	c.dirsRead++
	return c.FS.ReadDir(name)
}

// TestRestoreIdlePartitions: what was never written costs no file operation.
func TestRestoreIdlePartitions(t *testing.T) {
	t.Parallel()
	fsys := &countingFS{FS: vfs.NewMem(1)}
	st, err := Open(fsys, "d", Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	opened := fsys.dirsRead
	rs := make([]Restored, 1000)
	for i := range rs {
		rs[i] = Restored{Key: uint32(i + 1), TopicID: [16]byte{1}, Index: int32(i)}
	}
	if damage, err := st.Shard(1).Restore(rs); err != nil || damage != nil {
		t.Fatal(damage, err)
	}
	if n := fsys.dirsRead - opened; n > 0 {
		t.Errorf("%d directories were read for partitions that have none", n)
	}
}
