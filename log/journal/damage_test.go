package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"testing"
	"testing/synctest"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// disk is a journal directory as bytes.
type disk map[string][]byte

func diskOf(t testing.TB, fsys vfs.FS) disk {
	t.Helper()
	names, err := fsys.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	d := make(disk)
	for _, name := range names {
		d[name] = image(t, fsys, path.Join(testDir, name))
	}
	return d
}

func (d disk) mem(t testing.TB) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem(1)
	if err := vfs.MkdirAllSync(mem, testDir); err != nil {
		t.Fatal(err)
	}
	for name, b := range d {
		if err := vfs.WriteFile(mem, path.Join(testDir, name), b); err != nil {
			t.Fatal(err)
		}
	}
	return mem
}

// twoShards writes ten records into two logs, waits until the journal is idle,
// and leaves it to the caller to crash.
func twoShards(t *testing.T, mem *vfs.Mem) (*Journal, [2][]Record) {
	j := mustOpen(t, mem, small())
	var want [2][]Record
	for i := range uint64(5) {
		for id := range want {
			recs := []Record{newRecord(i+1, 1, 20, 100*i+uint64(id))}
			if err := j.Shard(ShardID(id), 1).Append(recs); err != nil {
				t.Fatal(err)
			}
			want[id] = append(want[id], recs...)
			synctest.Wait()
		}
	}
	return j, want
}

// TestFlipEveryByte flips a bit in every byte of a journal whose process was
// killed while it was idle. All that was acknowledged is either still there or
// Open says where it is damaged, and changes nothing.
func TestFlipEveryByte(t *testing.T) {
	t.Parallel()
	var dead *vfs.Mem
	var want [2][]Record
	var end int64
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		var j *Journal
		j, want = twoShards(t, mem)
		end = j.files[0].end
		dead = mem.KillClone()
		mustClose(t, j)
	})
	name := path.Join(testDir, fileName(0))
	corrupt := 0
	for off := int64(0); off < end; off++ {
		if off < headerBytes && off%blockBytes > 80 && off%257 != 0 {
			continue // the zeros of the headers: some will do
		}
		mem := dead.KillClone()
		if err := mem.Corrupt(name, off, func(b []byte) { b[0] ^= 1 << (off % 8) }); err != nil {
			t.Fatal(err)
		}
		before := diskOf(t, mem)
		j, err := Open(mem, testDir, small())
		if err != nil {
			corrupt++
			var ce *CorruptError
			if !errors.As(err, &ce) || ce.File != name || off < ce.Offset || off >= ce.Offset+recordHeaderBytes+40 {
				t.Fatalf("flip at %d: Open = %v", off, err)
			}
			if !sameDisk(before, diskOf(t, mem)) {
				t.Fatalf("flip at %d: Open changed a corrupt journal", off)
			}
			continue
		}
		if off < headerBytes && j.Recovery().RepairedHeaders != 1 {
			t.Fatalf("flip at %d: header not repaired", off)
		}
		if off >= headerBytes && off < end-recordHeaderBytes { // the last mark is the one exception
			t.Fatalf("flip at %d of %d went unnoticed", off, end)
		}
		for id := range want {
			wantLog(t, j.Shard(ShardID(id), 1), want[id])
		}
		mustClose(t, j)
		if off < headerBytes {
			if b := image(t, mem, name); !bytes.Equal(b[:blockBytes], b[blockBytes:headerBytes]) {
				t.Fatalf("flip at %d: the headers still differ", off)
			}
		}
	}
	if corrupt == 0 {
		t.Error("no flip was found")
	}
}

// TestFlipUnproven: damage to a last commit that nothing proves synced is a
// torn tail. All before it stays, and the journal goes on.
func TestFlipUnproven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j, want := twoShards(t, mem)
		begin := j.files[0].end
		last := newRecord(6, 1, 30, 77)
		var cut *vfs.Mem
		mem.OnOp(func(op vfs.Op, phase vfs.Phase) {
			if op.Kind == vfs.OpSyncData && phase == vfs.After && cut == nil {
				cut = mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
			}
		})
		if err := j.Shard(0, 1).Append([]Record{last}); err != nil {
			t.Fatal(err)
		}
		end := begin + RecordBytes(30, len(last.Extensions))
		mustClose(t, j)
		for off := begin; off < end; off++ {
			mem := cut.CrashClone(vfs.CrashOptions{})
			if err := mem.Corrupt(path.Join(testDir, fileName(0)), off, func(b []byte) { b[0] ^= 0x40 }); err != nil {
				t.Fatal(err)
			}
			for round := range 2 {
				j := mustOpen(t, mem, small())
				s := j.Shard(0, 1)
				if round == 0 {
					wantLog(t, s, want[0])
					if err := s.Append([]Record{newRecord(6, 9, 30, 78)}); err != nil {
						t.Fatal(err)
					}
				}
				wantLog(t, s, append(want[0][:5:5], newRecord(6, 9, 30, 78)))
				wantLog(t, j.Shard(1, 1), want[1])
				mustClose(t, j)
			}
		}
	})
}

// TestCloseProves: a closed journal is proven synced to its last entry, also
// after a power cut: nothing is left to mend, and damage there is corruption.
func TestCloseProves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j, want := twoShards(t, mem)
		last := j.files[0].end - recordHeaderBytes - 1
		mustClose(t, j)
		mem = mem.CrashClone(vfs.CrashOptions{Unsynced: vfs.Lose})
		j = mustOpen(t, mem, small())
		if r := j.Recovery(); r.RewrittenBytes != 0 || r.Torn {
			t.Errorf("a closed journal was mended: %+v", r)
		}
		wantLog(t, j.Shard(1, 1), want[1])
		mustClose(t, j)
		if err := mem.Corrupt(path.Join(testDir, fileName(0)), last, func(b []byte) { b[0]++ }); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(mem, testDir, small()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("damage to the last entry of a closed journal: Open = %v", err)
		}
	})
}

// TestUnsyncedMark: the mark that an idle journal leaves is not synced, and no
// later record may say that it is: a power cut can take the mark and leave the
// record.
func TestUnsyncedMark(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		j, want := twoShards(t, mem)
		killed := mem.KillClone()
		mustClose(t, j)

		j = mustOpen(t, killed, small())
		var cuts []*vfs.Mem
		killed.OnOp(func(op vfs.Op, phase vfs.Phase) {
			for seed := range uint64(64) {
				cuts = append(cuts, killed.CrashClone(vfs.CrashOptions{Unsynced: vfs.Coin, Seed: seed}))
			}
		})
		more := records(6, 3, 1000)
		if err := j.Shard(1, 1).Append(more); err != nil {
			t.Fatal(err)
		}
		killed.OnOp(nil)
		mustClose(t, j)
		for i, mem := range cuts {
			j := mustOpen(t, mem, small())
			got, err := contents(j.Shard(1, 1))
			if err != nil || len(got) < 5 {
				t.Fatalf("cut %d: %v, %v", i, indexes(got), err)
			}
			wantLog(t, j.Shard(1, 1), append(want[1][:5:5], more[:len(got)-5]...))
			mustClose(t, j)
		}
	})
}

// TestCutEveryByte leaves only the first bytes of a file, with zeros or other
// bytes behind them. What opens is a prefix of what was written, in
// both logs; a shorter file never opens.
func TestCutEveryByte(t *testing.T) {
	t.Parallel()
	var d disk
	var want [2][]Record
	var end int64
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem(1)
		var j *Journal
		j, want = twoShards(t, mem)
		end = j.files[0].end
		d = diskOf(t, mem)
		mustClose(t, j)
	})
	name := fileName(0)
	whole := d.mem(t)
	for cut := int64(headerBytes); cut <= end; cut++ {
		for _, fill := range []byte{0, 0xa5} {
			mem := whole.KillClone()
			if err := mem.Corrupt(path.Join(testDir, name), cut, func(b []byte) {
				for i := range b[:end-cut+recordHeaderBytes] {
					b[i] = fill
				}
			}); err != nil {
				t.Fatal(err)
			}
			b := image(t, mem, path.Join(testDir, name))
			j := mustOpen(t, mem, small())
			total := 0
			for id := range want {
				got, err := contents(j.Shard(ShardID(id), 1))
				if err != nil {
					t.Fatalf("cut %d: %v", cut, err)
				}
				total += len(got)
				wantLog(t, j.Shard(ShardID(id), 1), want[id][:len(got)])
			}
			mark := end - recordHeaderBytes // padding may be zeros already
			if whole := bytes.Equal(b[:mark], d[name][:mark]); whole != (total == 10) {
				t.Fatalf("cut at %d of %d: %d records", cut, end, total)
			}
			mustClose(t, j)
		}
		if cut%64 == 0 {
			short := maps.Clone(d)
			short[name] = d[name][:cut]
			if _, err := Open(short.mem(t), testDir, small()); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("file of %d bytes: Open = %v", cut, err)
			}
		}
	}
}

// TestDamagedRing flips bits all over a ring that has wrapped, and takes each
// of its files away: nothing that was acknowledged is ever lost silently.
func TestDamagedRing(t *testing.T) {
	t.Parallel()
	var last *vfs.Mem
	var m *model
	history(t, 3, 80, small(), func(mem *vfs.Mem, now *model, _ string) {
		last, m = mem, now
	})
	d := diskOf(t, last.KillClone())
	rng := rand.New(rand.NewPCG(1, 1))
	found := 0
	for range 600 {
		file := fileName(uint32(rng.IntN(len(d) - 1)))
		off := rng.IntN(len(d[file]))
		mem := d.mem(t)
		if err := mem.Corrupt(path.Join(testDir, file), int64(off), func(b []byte) { b[0] ^= 1 << rng.IntN(8) }); err != nil {
			t.Fatal(err)
		}
		j, err := Open(mem, testDir, small())
		if err != nil {
			found++
			var ce *CorruptError
			if !errors.As(err, &ce) || path.Base(ce.File) != file || int64(off) < ce.Offset {
				t.Fatalf("flip in %s at %d: Open = %v", file, off, err)
			}
			continue
		}
		if err := m.clone().restart(j); err != nil {
			t.Fatalf("flip in %s at %d: %v", file, off, err)
		}
		mustClose(t, j)
	}
	if found < 100 {
		t.Errorf("only %d of 600 flips were found", found)
	}
	for name := range d {
		mem := d.mem(t)
		if err := mem.Lose(path.Join(testDir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(mem, testDir, small()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("without %s: Open = %v, want ErrCorrupt", name, err)
		}
	}
}

// TestRingFile damages the count of files, and takes away the last file of a
// ring that still grows, which only that count tells.
func TestRingFile(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	synctest.Test(t, func(t *testing.T) {
		j := mustOpen(t, mem, small())
		for i := uint64(1); len(j.slots) == startFiles || j.at == 0; i++ {
			if err := j.Shard(1, 1).Append([]Record{newRecord(i, 1, 4000, i)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		mustClose(t, j)
	})
	d := diskOf(t, mem)
	refused := func(name, file string, d disk) {
		t.Helper()
		mem := d.mem(t)
		_, err := Open(mem, testDir, small())
		var ce *CorruptError
		if !errors.As(err, &ce) || path.Base(ce.File) != file {
			t.Errorf("%s: Open = %v, want a CorruptError in %s", name, err, file)
		}
		if !sameDisk(d, diskOf(t, mem)) {
			t.Errorf("%s: Open changed a corrupt journal", name)
		}
	}
	last := fileName(uint32(len(d)) - 2)
	smaller := maps.Clone(d)
	delete(smaller, last)
	refused("without the last file", last, smaller)
	without := maps.Clone(d)
	delete(without, ringName)
	refused("without RING", ringName, without)
	opt := small()
	opt.Uncounted = true
	mem = without.mem(t)
	mustClose(t, mustOpen(t, mem, opt))
	if got := diskOf(t, mem)[ringName]; !bytes.Equal(got, d[ringName]) {
		t.Errorf("a journal from before there was a count gets %x, want %x", got, d[ringName])
	}
	for i := range d[ringName] {
		hurt := maps.Clone(d)
		hurt[ringName] = bytes.Clone(d[ringName])
		hurt[ringName][i] ^= 1 << (i % 8)
		refused("a flip in RING", ringName, hurt)
		hurt[ringName] = hurt[ringName][:i]
		refused("RING cut off", ringName, hurt)
	}
	// An older RING counts fewer files than hold records.
	older := maps.Clone(d)
	older[ringName] = ring{slots: 1, fileBytes: minFileBytes}.encode()
	refused("an older RING", ringName, older)

	newer := maps.Clone(d)
	newer[ringName] = bytes.Clone(d[ringName])
	newer[ringName][8]++
	binary.LittleEndian.PutUint32(newer[ringName][ringBytes-4:], crc32.Checksum(newer[ringName][:ringBytes-4], castagnoli))
	if _, err := Open(newer.mem(t), testDir, small()); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer RING: Open = %v, want ErrVersion", err)
	}

	// A file that was being added at a crash is adopted.
	if d[last][headerBytes+76] == 0 {
		added := maps.Clone(d)
		added[ringName] = ring{slots: uint32(len(d)) - 2, fileBytes: minFileBytes}.encode()
		mem := added.mem(t)
		mustClose(t, mustOpen(t, mem, small()))
		if got := diskOf(t, mem)[ringName]; !bytes.Equal(got, d[ringName]) {
			t.Errorf("RING is %x, want %x", got, d[ringName])
		}
	} else {
		t.Error("the test is to end with an empty last file")
	}
}

func TestReadCorrupt(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	j := mustOpen(t, mem, small())
	defer j.Close()
	s := j.Shard(1, 1)
	if err := s.Append(records(1, 3, 100)); err != nil {
		t.Fatal(err)
	}
	e := s.entries[1]
	name := path.Join(testDir, fileName(0))
	if err := mem.Corrupt(name, e.offset()+recordHeaderBytes+50, func(b []byte) { b[0]++ }); err != nil {
		t.Fatal(err)
	}
	var r Record
	err := s.Read(2, &r)
	var ce *CorruptError
	if !errors.As(err, &ce) || ce.File != name || ce.Offset != e.offset() || ce.LSN != e.order {
		t.Errorf("Read of a damaged record: %v", err)
	}
	if err := s.Read(3, &r); err != nil {
		t.Errorf("Read of its neighbour: %v", err)
	}
}

// TestNewerFormat: intact bytes of a newer build are named as such, and left
// alone.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	j := mustOpen(t, mem, small())
	f := j.files[0]
	mustClose(t, j)
	good := diskOf(t, mem)

	for _, h := range []recordHeader{
		{lsn: 1, order: 1, kind: kindEntry, placement: 1},
		{lsn: 1, order: 1, kind: kindEntry, flags: 2},
		{lsn: 1, order: 1, kind: kindMark + 1},
	} {
		mem := good.mem(t)
		h.payloadCRC = payloadCRC(nil, nil)
		if err := mem.Corrupt(f.path, headerBytes, func(b []byte) { copy(b, h.encode(nil, f.seed)) }); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(mem, testDir, small()); !errors.Is(err, ErrVersion) {
			t.Errorf("record %+v: Open = %v, want ErrVersion", h, err)
		}
	}
	for _, off := range []int{8, 12, 16} { // version, flags, key id
		mem := good.mem(t)
		b := append([]byte(nil), good[fileName(0)][:blockBytes]...)
		b[off] += 1
		sealBlock(b)
		if err := mem.Corrupt(f.path, 0, func(p []byte) { copy(p, b) }); err != nil {
			t.Fatal(err)
		}
		before := diskOf(t, mem)
		if _, err := Open(mem, testDir, small()); !errors.Is(err, ErrVersion) {
			t.Errorf("header byte %d: Open = %v, want ErrVersion", off, err)
		}
		if !sameDisk(before, diskOf(t, mem)) {
			t.Error("Open changed a newer journal")
		}
	}
}

// TestTempFile: the trace of a crash in growth goes away.
func TestTempFile(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	mustClose(t, mustOpen(t, mem, small()))
	temp := path.Join(testDir, tempName)
	if err := vfs.WriteFile(mem, temp, []byte("half")); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, mem, small()))
	if _, err := mem.Stat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat = %v", err)
	}
}

// sealBlock gives a header block its checksum.
func sealBlock(b []byte) {
	binary.LittleEndian.PutUint32(b[blockBytes-4:], crc32.Checksum(b[:blockBytes-4], castagnoli))
}

func sameDisk(a, b disk) bool {
	return maps.EqualFunc(a, b, bytes.Equal)
}
