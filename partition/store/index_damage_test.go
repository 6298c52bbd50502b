package store

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

// indexed is a partition of several segments, its files, and what they hold.
type indexed struct {
	model   timeModel
	data    []byte // as readers see it
	indexes []string
}

func makeIndexed(t *testing.T, fsys *vfs.Mem) (x indexed) {
	t.Helper()
	st := mustOpen(t, fsys, manual())
	sh := st.Shard(1)
	sh.Create(1, [16]byte{1}, 0, Config{SegmentBytes: 30_000})
	for i := range int64(60) {
		x.model.stamps = append(x.model.stamps, i/2, (i*7)%50)
		sh.Append(1, 2*i, 2*i+1, 7, timedBatch(t, batch.None, x.model.stamps[2*i:]), nil)
		if i%4 == 3 { // several blocks
			if err := sh.FlushTo([]End{{Key: 1, End: 2*i + 2}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range sh.parts[1].segs {
		x.indexes = append(x.indexes, sh.parts[1].dir()+"/"+segment.IndexName(s.Base()))
	}
	var err error
	if x.data, err = readFrom(sh, 1, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if len(x.indexes) < 2 {
		t.Fatalf("%d segments, the test wants a sealed one too", len(x.indexes))
	}
	return x
}

// open restores the partition, and closes it with the test.
func (x *indexed) open(t *testing.T, fsys vfs.FS) *Shard {
	t.Helper()
	sh := mustOpen(t, fsys, manual()).Shard(1)
	damage, err := sh.Restore([]Restored{{Key: 1, TopicID: [16]byte{1}, End: int64(len(x.model.stamps)), Config: Config{SegmentBytes: 30_000}}})
	if err != nil || damage != nil {
		t.Fatal(err, damage)
	}
	return sh
}

// check wants every offset and every time to be found as if nothing had
// happened.
func (x *indexed) check(t *testing.T, sh *Shard, what string) {
	t.Helper()
	if got, err := readFrom(sh, 1, 0, 10_000); err != nil || !bytes.Equal(got, x.data) {
		t.Fatalf("%s: %d bytes, want %d: %v", what, len(got), len(x.data), err)
	}
	for off := int64(0); off < int64(len(x.model.stamps)); off += 11 {
		c, err := sh.Read(1, off, 1, true)
		if err != nil || off < c.End-2 || off >= c.End {
			t.Fatalf("%s: read at %d ends at %d: %v", what, off, c.End, err)
		}
		c.Release()
	}
	for _, ts := range []int64{0, 20, 31, 49, 50} {
		got, found, err := sh.OffsetForTime(1, ts, batch.Limits{})
		if want := x.model.forTime(ts); err != nil || found != (want >= 0) || found && got.Offset != int64(want) {
			t.Fatalf("%s: OffsetForTime(%d) = %+v, %t, %v; want %d", what, ts, got, found, err, want)
		}
	}
}

// TestIndexDamage deletes, cuts and flips each byte of every index, while the
// node is down and while it is up and has not, or has, used the index: reads
// and look-ups by time find the right records always.
func TestIndexDamage(t *testing.T) {
	t.Parallel()
	pristine := vfs.NewMem(1)
	x := makeIndexed(t, pristine)
	type harm struct {
		name string
		do   func(fsys *vfs.Mem) error
	}
	var harms []harm
	for _, name := range x.indexes {
		f, err := pristine.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		harms = append(harms, harm{"without " + name, func(m *vfs.Mem) error { return m.Remove(name) }})
		for at := range size {
			harms = append(harms, harm{"flipped " + name, func(m *vfs.Mem) error {
				return m.Corrupt(name, at, func(b []byte) { b[0] ^= 0x10 })
			}})
			if at%8 == 0 {
				harms = append(harms, harm{"cut " + name, func(m *vfs.Mem) error {
					f, err := m.Open(name)
					if err != nil {
						return err
					}
					return errors.Join(f.Truncate(at), f.Close())
				}})
			}
		}
	}
	for i, h := range harms {
		for _, when := range []string{"down", "before use", "after use"} {
			if testing.Short() && i%7 != 0 && when != "before use" {
				continue
			}
			fsys := vfs.NewMem(1)
			x := makeIndexed(t, fsys)
			if when == "down" {
				if err := h.do(fsys); err != nil {
					t.Fatal(h.name, err)
				}
			}
			sh := x.open(t, fsys)
			if when == "after use" {
				x.check(t, sh, "unharmed")
			}
			if when != "down" {
				if err := h.do(fsys); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(h.name, err)
				}
			}
			x.check(t, sh, h.name+" "+when)
			x.check(t, sh, h.name+" "+when+", again")
			if err := sh.st.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
