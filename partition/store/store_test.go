package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
	"github.com/flotilla-log/flotilla/log/segment"
)

const testDir = "data/store"

var topic = [16]byte{0xaa, 15: 0xbb}

// rec is one batch of a test's history, as Append takes it and readers see it.
type rec struct {
	base, last int64
	epoch      int32
	body, seen []byte
}

// makeRec returns a batch of count records at base with values of size bytes.
func makeRec(tb testing.TB, base int64, count, size int) rec {
	tb.Helper()
	var w batch.Builder
	w.Reset()
	for i := range count {
		value := bytes.Repeat([]byte{byte((base+int64(i))%250) + 1}, size)
		if err := w.Append(base+int64(i), nil, value, nil); err != nil {
			tb.Fatal(err)
		}
	}
	body, err := w.Build(nil, 0, 0)
	if err != nil {
		tb.Fatal(err)
	}
	r := rec{base: base, last: base + int64(count) - 1, epoch: int32(1 + base/50), body: body}
	r.seen = bytes.Join(segment.Vectors(nil, []segment.Batch{{Base: base, Body: body, Last: int32(count - 1), Epoch: r.epoch}}), nil)
	return r
}

// log is the model of a partition: everything ever appended to it.
type log []rec

func (l log) end() int64 {
	if len(l) == 0 {
		return 0
	}
	return l[len(l)-1].last + 1
}

// grow returns l with one more batch.
func (l log) grow(tb testing.TB, count, size int) log {
	return append(l, makeRec(tb, l.end(), count, size))
}

// from returns the bytes of the batches from the one that contains offset up to end.
func (l log) bytes(offset, end int64) (b []byte) {
	for _, r := range l {
		if r.last >= offset && r.base < end {
			b = append(b, r.seen...)
		}
	}
	return b
}

func appendRec(sh *Shard, key uint32, r rec, pin *Pin) {
	sh.Append(key, r.base, r.last, r.epoch, r.body, pin)
}

// readFrom reads [offset, end of the log) in chunks of maxBytes.
func readFrom(sh *Shard, key uint32, offset int64, maxBytes int) (out []byte, err error) {
	for {
		c, err := sh.Read(key, offset, maxBytes, true)
		if err != nil {
			return out, err
		}
		if c.Bytes == 0 {
			if c.End != offset {
				return out, fmt.Errorf("empty chunk at %d ends at %d", offset, c.End)
			}
			c.Release()
			return out, nil
		}
		before := len(out)
		out, err = c.AppendTo(out)
		if err == nil && (int64(len(out)-before) != c.Bytes || c.End <= offset) {
			err = fmt.Errorf("chunk at %d: %d bytes to %d, got %d", offset, c.Bytes, c.End, len(out)-before)
		}
		offset = c.End
		c.Release()
		if err != nil {
			return out, err
		}
	}
}

// checkLog compares everything readable of a partition with the model.
func checkLog(tb testing.TB, sh *Shard, key uint32, l log) {
	tb.Helper()
	start, end, err := sh.Bounds(key)
	if err != nil || end != l.end() {
		tb.Fatalf("partition %d: bounds [%d, %d), %v; want end %d", key, start, end, err, l.end())
	}
	for _, maxBytes := range []int{1, 3000, 1 << 30} {
		got, err := readFrom(sh, key, start, maxBytes)
		if err != nil {
			tb.Fatalf("partition %d: read [%d, %d) by %d bytes: %v", key, start, end, maxBytes, err)
		}
		if !bytes.Equal(got, l.bytes(start, end)) {
			tb.Fatalf("partition %d: read [%d, %d) by %d bytes: not what was appended", key, start, end, maxBytes)
		}
	}
}

// manual are options under which nothing happens by itself.
func manual() Options {
	return Options{TailFlushBytes: 1 << 40, TailMaxAge: 1 << 60, Flushers: 1, SyncWorkers: 1, SegmentBytes: 4000}
}

func mustOpen(tb testing.TB, fsys vfs.FS, opt Options) *Store {
	tb.Helper()
	st, err := Open(fsys, testDir, opt)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil && !errors.Is(err, vfs.ErrCrashed) {
			tb.Error(err)
		}
	})
	return st
}

func files(tb testing.TB, fsys vfs.FS, index int32) []string {
	tb.Helper()
	names, err := fsys.ReadDir(testDir + "/" + dirName(topic, index))
	if err != nil {
		return nil
	}
	return names
}

func TestReadAcrossExtents(t *testing.T) {
	t.Parallel()
	st := mustOpen(t, vfs.NewMem(1), manual())
	sh := st.Shard(1)
	sh.Create(4, topic, 0, Config{})
	var l log
	for i := range 60 {
		l = l.grow(t, 1+i%3, 10+i*i*3)
		appendRec(sh, 4, l[i], nil)
		if i%7 == 6 {
			if err := sh.FlushTo([]End{{Key: 4, End: l[i-2].last + 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkLog(t, sh, 4, l)
	for off := range l.end() {
		c, err := sh.Read(4, off, 2000, true)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.AppendTo(nil)
		if err != nil || !bytes.Equal(got, l.bytes(off, c.End)) {
			t.Fatalf("read at %d to %d: %v", off, c.End, err)
		}
		c.Release()
	}
	if n := len(sh.parts[4].segs); n < 3 {
		t.Errorf("%d segments, the test wants several", n)
	}
	if n, unlink := sh.DiskBytes(4); n < int64(len(l.bytes(0, l[50].base))) || unlink != 0 {
		t.Errorf("DiskBytes = %d, %d", n, unlink)
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	st := mustOpen(t, vfs.NewMem(1), manual())
	sh := st.Shard(1)
	sh.Create(0, topic, 0, Config{})
	var l log
	for range 4 {
		l = l.grow(t, 2, 100)
		appendRec(sh, 0, l[len(l)-1], nil)
	}
	sh.SetLogStart(0, 3)
	tests := []struct {
		key    uint32
		offset int64
		want   error
	}{
		{key: 9, want: ErrUnknownPartition},
		{offset: 2, want: ErrOutOfRange},
		{offset: 9, want: ErrOutOfRange},
		{offset: -1, want: ErrOutOfRange},
		{offset: 3}, {offset: 8},
	}
	for range 2 { // from the tail, then from the file
		for _, tt := range tests {
			c, err := sh.Read(tt.key, tt.offset, 10, false)
			if !errors.Is(err, tt.want) {
				t.Errorf("Read(%d, %d) = %v, want %v", tt.key, tt.offset, err, tt.want)
			}
			var re *RangeError
			if errors.As(err, &re) && (re.Start != 3 || re.End != 8) {
				t.Errorf("%v, want [3, 8)", re)
			}
			if err == nil {
				if c.Bytes != 0 || c.End != tt.offset {
					t.Errorf("Read(%d) of 10 bytes gave %d", tt.offset, c.Bytes)
				}
				c.Release()
			}
		}
		if err := sh.FlushTo([]End{{Key: 0, End: 8}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	st := mustOpen(t, vfs.NewMem(1), manual())
	sh := st.Shard(1)
	var l log
	for range 5 {
		l = l.grow(t, 1, 10)
	}
	sh.Create(0, topic, 0, Config{})
	sh.Create(1, topic, 1, Config{})
	var fired []uint32
	note := func(key uint32) { fired = append(fired, key) }
	w, end, err := sh.Watch(0, note)
	if err != nil || end != 0 {
		t.Fatal(end, err)
	}
	if _, _, err := sh.Watch(7, note); !errors.Is(err, ErrUnknownPartition) {
		t.Errorf("Watch(7) = %v", err)
	}
	expect := func(want ...uint32) {
		t.Helper()
		sh.AppliedBatch()
		if fmt.Sprint(fired) != fmt.Sprint(want) {
			t.Errorf("fired %v, want %v", fired, want)
		}
		fired = nil
	}
	appendRec(sh, 0, l[0], nil)
	appendRec(sh, 0, l[1], nil)
	appendRec(sh, 1, l[0], nil)
	expect(0)
	expect()
	appendRec(sh, 0, l[2], nil)
	expect(0)
	sh.Delete(0)
	expect(0)
	w.Stop()
	w.Stop()
	w1, _, _ := sh.Watch(1, note)
	w1.Stop()
	appendRec(sh, 1, l[1], nil)
	expect()
}

// TestWatchStop ends registrations of one partition in all kinds of orders, where
// ^i makes the one of i anew: the others stay, and are told.
func TestWatchStop(t *testing.T) {
	t.Parallel()
	st := mustOpen(t, vfs.NewMem(1), manual())
	sh := st.Shard(1)
	sh.Create(0, topic, 0, Config{})
	const n = 9
	orders := [][]int{{0, ^0, 8, 0, 4}, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {8, 7, 6, 5, 4, 3, 2, 1, 0}, {0, 8, 0, 4, 8, 3, 7, 1, 4, 6, 2, 5}}
	var l log
	for _, order := range orders {
		var watches [n]*Watch
		var told [n]int
		register := func(i int) { watches[i], _, _ = sh.Watch(0, func(uint32) { told[i]++ }) }
		for i := range watches {
			register(i)
		}
		var stopped [n]bool
		for _, i := range order {
			if i >= 0 {
				watches[i].Stop()
				stopped[i] = true
			} else {
				register(^i)
				stopped[^i] = false
			}
			left := 0
			for _, s := range stopped {
				if !s {
					left++
				}
			}
			if got := st.Stats().Watches; got != left {
				t.Fatalf("order %v, after %d: %d watches, want %d", order, i, got, left)
			}
			before := told
			l = l.grow(t, 1, 10)
			appendRec(sh, 0, l[len(l)-1], nil)
			sh.AppliedBatch()
			for j := range told {
				if more := told[j] - before[j]; stopped[j] && more != 0 || !stopped[j] && more != 1 {
					t.Fatalf("order %v, after %d: watch %d was told %d times; it is stopped: %t", order, i, j, more, stopped[j])
				}
			}
		}
		for _, w := range watches {
			w.Stop()
		}
	}
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	st := mustOpen(t, mem, manual())
	sh := st.Shard(1)
	l := log{}.grow(t, 1, 10)
	for i := range uint32(4) {
		sh.Create(i, topic, int32(i), Config{})
		appendRec(sh, i, l[0], nil)
	}
	if err := sh.FlushTo([]End{{0, 1}, {1, 1}, {2, 1}, {3, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := mem.MkdirAll(testDir + "/not a partition"); err != nil {
		t.Fatal(err)
	}
	st = mustOpen(t, mem.CrashClone(vfs.CrashOptions{}), manual())
	sh = st.Shard(1)
	if d, err := sh.Restore([]Restored{{Key: 0, TopicID: topic, End: 1}}); err != nil || d != nil {
		t.Fatal(d, err)
	}
	sh.Create(2, topic, 2, Config{})
	if got := st.Orphans(); len(got) != 2 || got[0] != (Orphan{topic, 1}) || got[1] != (Orphan{topic, 3}) {
		t.Fatalf("Orphans = %v", got)
	}
	if err := st.RemoveOrphan(Orphan{topic, 1}); err != nil {
		t.Error(err)
	}
	if err := st.RemoveOrphan(Orphan{topic, 0}); err == nil {
		t.Error("a restored partition was removed as an orphan")
	}
	if got := st.Orphans(); len(got) != 1 {
		t.Errorf("Orphans = %v", got)
	}
	checkLog(t, sh, 0, l)
}
