package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

const testDir = "p"

var testHeader = Header{TopicID: [16]byte{1, 2, 3, 15: 16}, Partition: 7, TombstoneHorizon: -1}

// makeBatch returns a batch of count records at base whose value is about size
// bytes and never zero.
func makeBatch(tb testing.TB, base int64, count, size int) Batch {
	tb.Helper()
	var w batch.Builder
	w.Reset()
	for i := range count {
		if err := w.Append(1000+base+int64(i), nil, bytes.Repeat([]byte{byte(base%250) + 1}, size/count), nil); err != nil {
			tb.Fatal(err)
		}
	}
	b, err := w.Build(nil, 0, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return Batch{Base: base, Body: b, Last: int32(count - 1), Epoch: 3}
}

// flat returns the bytes of batches as readers see them.
func flat(bs []Batch) []byte { return bytes.Join(Vectors(nil, bs), nil) }

// fixture is a segment on a Mem together with what it should hold.
type fixture struct {
	tb    testing.TB
	mem   *vfs.Mem
	files *Files
	seg   *Segment
	all   []Batch
}

func newFixture(tb testing.TB, base int64) *fixture {
	tb.Helper()
	mem := vfs.NewMem(1)
	if err := vfs.MkdirAllSync(mem, testDir); err != nil {
		tb.Fatal(err)
	}
	fx := &fixture{tb: tb, mem: mem, files: newFiles(mem)}
	h := testHeader
	h.Base = base
	seg, err := Create(fx.files, testDir, h)
	if err != nil {
		tb.Fatal(err)
	}
	fx.seg = seg
	return fx
}

func newFiles(fsys vfs.FS) *Files { return NewFiles(fsys, 4, slog.New(slog.DiscardHandler)) }

// append adds batches of the given sizes in one write.
func (fx *fixture) append(sizes ...int) {
	fx.tb.Helper()
	var bs []Batch
	next := fx.seg.End()
	for i, size := range sizes {
		b := makeBatch(fx.tb, next, 1+i%3, size)
		next = b.End()
		bs = append(bs, b)
	}
	if err := fx.seg.Append(bs); err != nil {
		fx.tb.Fatal(err)
	}
	fx.all = append(fx.all, bs...)
}

func (fx *fixture) sync() {
	fx.tb.Helper()
	if err := fx.seg.Sync(); err != nil {
		fx.tb.Fatal(err)
	}
	if err := fx.mem.SyncDir(testDir); err != nil {
		fx.tb.Fatal(err)
	}
}

// below returns the batches that end at or below end.
func (fx *fixture) below(end int64) []Batch {
	n := 0
	for n < len(fx.all) && fx.all[n].End() <= end {
		n++
	}
	return fx.all[:n]
}

func reopen(mem *vfs.Mem, base, end int64) (*Segment, error) {
	return Open(newFiles(mem), testDir, OpenOptions{TopicID: testHeader.TopicID, Partition: testHeader.Partition, Base: base, End: end})
}

// readAll reads the segment from offset on in steps of at most maxBytes.
func readAll(s *Segment, offset, maxBytes int64) ([]byte, error) {
	var out []byte
	for offset < s.End() {
		r, err := s.Range(offset, maxBytes)
		if err != nil {
			return out, err
		}
		b := make([]byte, r.Bytes)
		if _, err := r.File.ReadAt(b, r.Pos); err != nil && err != io.EOF {
			return out, err
		}
		if r.Bytes == 0 || r.End <= offset || r.Start > offset && r.Start != s.Base() {
			return out, fmt.Errorf("range at %d: [%d, %d) of %d bytes", offset, r.Start, r.End, r.Bytes)
		}
		out, offset = append(out, b...), r.End
		r.Release()
	}
	return out, nil
}

// check compares all of s, read in several ways, with the batches want.
func check(tb testing.TB, s *Segment, want []Batch) {
	tb.Helper()
	all := flat(want)
	for _, maxBytes := range []int64{1, 5000, 1 << 30} {
		got, err := readAll(s, s.Base(), maxBytes)
		if err != nil {
			tb.Fatalf("read by %d bytes: %v", maxBytes, err)
		}
		if !bytes.Equal(got, all) {
			tb.Fatalf("read by %d bytes: %d bytes differ from the %d appended", maxBytes, len(got), len(all))
		}
	}
}

func TestRangeFindsEveryOffset(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 100)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		sizes := make([]int, 1+rng.IntN(60))
		for i := range sizes {
			sizes[i] = 1 + rng.IntN(200)
			if rng.IntN(20) == 0 {
				sizes[i] = rng.IntN(200 << 10)
			}
		}
		fx.append(sizes...)
	}
	if len(fx.seg.index.marks) < 2 {
		t.Fatalf("%d marks, the test wants several", len(fx.seg.index.marks))
	}
	fx.sync()
	check(t, fx.seg, fx.all)

	if err := fx.seg.Seal(); err != nil {
		t.Fatal(err)
	}
	fx.sync()
	sealed, err := reopen(fx.mem, 100, fx.seg.End())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*Segment{"written": fx.seg, "by footer": sealed} {
		for i, b := range fx.all {
			for off := b.Base; off < b.End(); off++ {
				limit := rng.Int64N(300 << 10)
				r, err := s.Range(off, limit)
				if err != nil {
					t.Fatalf("%s: Range(%d): %v", name, off, err)
				}
				if r.Start != b.Base {
					t.Fatalf("%s: Range(%d).Start = %d, want %d", name, off, r.Start, b.Base)
				}
				n, end := int64(len(b.Body)), b.End()
				for _, more := range fx.all[i+1:] {
					if n+int64(len(more.Body)) > limit {
						break
					}
					n, end = n+int64(len(more.Body)), more.End()
				}
				if r.Bytes != n || r.End != end {
					t.Fatalf("%s: Range(%d, %d) = %d bytes to %d, want %d to %d", name, off, limit, r.Bytes, r.End, n, end)
				}
				r.Release()
			}
		}
		if err := s.Verify(); err != nil {
			t.Errorf("%s: Verify: %v", name, err)
		}
	}
	if len(fx.files.open) > 4 {
		t.Errorf("%d files open, limit 4", len(fx.files.open))
	}
}

// TestOpenCuts opens a synced segment with every batch boundary as its end, and
// appends again what was cut.
func TestOpenCuts(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(10, 5000, 20)
	fx.append(3000, 4000)
	fx.append(1, 2, 3)
	fx.sync()
	for _, sealed := range []bool{false, true} {
		if sealed {
			if err := fx.seg.Seal(); err != nil {
				t.Fatal(err)
			}
			fx.sync()
		}
		for i := range len(fx.all) + 1 {
			end := int64(0)
			if i > 0 {
				end = fx.all[i-1].End()
			}
			mem := fx.mem.CrashClone(vfs.CrashOptions{})
			s, err := reopen(mem, 0, end)
			if err != nil || s.Damage() != nil {
				t.Fatalf("end %d: %v, %v", end, err, s.Damage())
			}
			if s.End() != end || s.Sealed() != (sealed && i == len(fx.all)) {
				t.Fatalf("end %d: End %d, sealed %t", end, s.End(), s.Sealed())
			}
			check(t, s, fx.all[:i])
			if n := len(read(t, mem, s.Name())); int64(n) != s.Bytes() {
				t.Fatalf("end %d: %d bytes left in the file, want %d", end, n, s.Bytes())
			}
			if s.Sealed() {
				continue
			}
			if i < len(fx.all) {
				if err := s.Append(fx.all[i:]); err != nil {
					t.Fatal(err)
				}
			}
			check(t, s, fx.all)
			if err := errors.Join(s.Sync(), s.Verify()); err != nil {
				t.Fatal(err)
			}
			again, err := reopen(mem, 0, fx.seg.End())
			if err != nil || again.Damage() != nil {
				t.Fatalf("end %d: second open: %v, %v", end, err, again.Damage())
			}
			check(t, again, fx.all)
		}
	}
}

// TestOpenAfterCrash cuts the data and the index at every byte, as a power cut
// may, and leaves the part cut off zeroed too. What was synced is always there.
func TestOpenAfterCrash(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(30, 40)
	fx.sync()
	durable, indexBytes := fx.seg.Bytes(), fx.seg.index.size
	end := fx.seg.End()
	fx.append(50)
	fx.append(60, 70)
	image := read(t, fx.mem, fx.seg.Name())
	index := read(t, fx.mem, fx.seg.indexName())

	for _, zeroed := range []bool{false, true} {
		for cut := durable; cut <= int64(len(image)); cut++ {
			// The index may be ahead of the data, or behind.
			for _, indexCut := range []int64{indexBytes, indexBytes + cut%7, int64(len(index))} {
				mem := place(t, torn(image, cut, zeroed), torn(index, min(indexCut, int64(len(index))), zeroed))
				s, err := reopen(mem, 0, end)
				if err != nil || s.Damage() != nil {
					t.Fatalf("cut %d, index %d: %v, %v", cut, indexCut, err, s.Damage())
				}
				check(t, s, fx.below(end))
				if err := s.Append(fx.all[2:]); err != nil {
					t.Fatal(err)
				}
				check(t, s, fx.all)
				if err := s.Verify(); err != nil {
					t.Fatalf("cut %d, index %d: Verify: %v", cut, indexCut, err)
				}
			}
		}
	}
	// What was promised and is not there is damage, at any byte.
	for cut := int64(HeaderBytes); cut < durable; cut++ {
		mem := place(t, image[:cut], index)
		s, err := reopen(mem, 0, end)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Damage(); d == nil || d.File != s.Name() || d.Offset != s.End() || s.End() >= end {
			t.Fatalf("cut %d: Damage = %v, end %d", cut, d, s.End())
		}
		check(t, s, fx.below(s.End()))
		if got := read(t, mem, s.Name()); !bytes.Equal(got, image[:cut]) {
			t.Fatalf("cut %d: Open changed a damaged segment", cut)
		}
	}
}

func torn(b []byte, cut int64, zeroed bool) []byte {
	out := bytes.Clone(b[:cut])
	if zeroed {
		out = append(out, make([]byte, int64(len(b))-cut)...)
	}
	return out
}

func read(tb testing.TB, fsys vfs.FS, name string) []byte {
	tb.Helper()
	b, err := vfs.ReadFile(fsys, name)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// place returns a Mem with one segment of base offset 0 made of these bytes; a
// nil index is missing.
func place(tb testing.TB, data, index []byte) *vfs.Mem {
	tb.Helper()
	mem := vfs.NewMem(1)
	err := mem.MkdirAll(testDir)
	if err == nil {
		err = vfs.WriteFile(mem, path.Join(testDir, DataName(0)), data)
	}
	if err == nil && index != nil {
		err = vfs.WriteFile(mem, path.Join(testDir, IndexName(0)), index)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return mem
}

// TestFlips changes every byte of both files. A flip is found by Open or by
// Verify, and a damaged index never costs a batch.
func TestFlips(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{false, true} {
		fx := newFixture(t, 0)
		fx.append(30, 40)
		fx.append(50, 5000)
		if sealed {
			if err := fx.seg.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		fx.sync()
		image, index := read(t, fx.mem, fx.seg.Name()), read(t, fx.mem, fx.seg.indexName())
		for i := range image {
			if i > 700 && i%101 != 0 { // inside the long batch
				continue
			}
			hurt := bytes.Clone(image)
			hurt[i] ^= 0x41
			s, err := reopen(place(t, hurt, index), 0, fx.seg.End())
			if i < HeaderBytes {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("sealed %t: header byte %d flipped: Open = %v", sealed, i, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			var ce *CorruptError
			if err := s.Verify(); !errors.As(err, &ce) || ce.File != s.Name() || ce.Position > int64(i) {
				t.Fatalf("sealed %t: byte %d flipped: Verify = %v", sealed, i, err)
			}
			// Without the index nothing vouches for the bytes. The leader
			// epoch alone is in no checksum then.
			s, err = reopen(place(t, hurt, nil), 0, fx.seg.End())
			if err != nil {
				t.Fatal(err)
			}
			if s.Damage() == nil && !isEpoch(fx.all, i) {
				t.Fatalf("sealed %t: byte %d flipped, no index: no damage", sealed, i)
			}
		}
		for i := range index {
			hurt := bytes.Clone(index)
			hurt[i] ^= 0x41
			mem := place(t, image, hurt)
			s, err := reopen(mem, 0, fx.seg.End())
			if err != nil || s.Damage() != nil {
				t.Fatalf("sealed %t: index byte %d flipped: %v, %v", sealed, i, err, s.Damage())
			}
			check(t, s, fx.all)
			// Rebuilt at once, or, if it was only found now, at the next start.
			s, err = reopen(mem, 0, fx.seg.End())
			if err != nil || s.Damage() != nil {
				t.Fatal(err, s.Damage())
			}
			check(t, s, fx.all)
			if err := s.Verify(); err != nil {
				t.Fatalf("sealed %t: index byte %d flipped: Verify after the rebuild: %v", sealed, i, err)
			}
		}
	}
}

func isEpoch(bs []Batch, at int) bool {
	pos := HeaderBytes
	for _, b := range bs {
		if at >= pos+12 && at < pos+16 {
			return true
		}
		pos += len(b.Body)
	}
	return false
}

func TestOpenChecksEpochsOfARebuiltIndex(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(30, 40, 50)
	fx.sync()
	second := fx.all[1].Base
	opt := OpenOptions{TopicID: testHeader.TopicID, Partition: testHeader.Partition, End: fx.seg.End()}
	opt.Check = func(h batch.Header) error {
		if h.BaseOffset >= second {
			return errors.New("another epoch")
		}
		return nil
	}
	s, err := Open(newFiles(fx.mem), testDir, opt)
	if err != nil || s.Damage() != nil {
		t.Fatalf("with an index: %v, %v", err, s.Damage())
	}
	if err := fx.mem.Remove(fx.seg.indexName()); err != nil {
		t.Fatal(err)
	}
	s, err = Open(newFiles(fx.mem), testDir, opt)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Damage(); d == nil || d.Offset != second {
		t.Errorf("Damage = %v, want one at %d", d, second)
	}
}

func TestOpenHeader(t *testing.T) {
	t.Parallel()
	edit := func(change func(b []byte)) []byte {
		b := testHeader.append(nil)
		change(b)
		binary.LittleEndian.PutUint32(b[headerCRCAt:], checksum(0, b[:headerCRCAt]))
		return b
	}
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{name: "intact", data: edit(func([]byte) {})},
		{name: "empty", want: ErrCorrupt},
		{name: "cut off", data: edit(func([]byte) {})[:HeaderBytes-1], want: ErrCorrupt},
		{name: "zeros", data: make([]byte, 4096), want: ErrCorrupt},
		{name: "newer format", data: edit(func(b []byte) { b[8]++ }), want: ErrVersion},
		{name: "unknown flag", data: edit(func(b []byte) { b[11] = 1 }), want: ErrVersion},
		{name: "encrypted", data: edit(func(b []byte) { b[12] = 1 }), want: ErrVersion},
		{name: "another topic", data: edit(func(b []byte) { b[16] ^= 1 }), want: ErrCorrupt},
		{name: "another partition", data: edit(func(b []byte) { b[32] ^= 1 }), want: ErrCorrupt},
		{name: "another base offset", data: edit(func(b []byte) { b[40] ^= 1 }), want: ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := reopen(place(t, tt.data, nil), 0, 10)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Open = %v, want %v", err, tt.want)
			}
			if err == nil && cmp.Diff(testHeader, s.Header()) != "" {
				t.Error(cmp.Diff(testHeader, s.Header()))
			}
		})
	}
}

func TestRemoveKeepsRangesReadable(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(100, 200)
	r, err := fx.seg.Range(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := fx.seg.Remove(); err != nil {
		t.Fatal(err)
	}
	if names, _ := fx.mem.ReadDir(testDir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if _, err := fx.seg.Range(0, 1); !errors.Is(err, ErrGone) {
		t.Errorf("Range after Remove = %v", err)
	}
	b := make([]byte, r.Bytes)
	if _, err := r.File.ReadAt(b, r.Pos); err != nil && err != io.EOF || !bytes.Equal(b, flat(fx.all)) {
		t.Errorf("range changed by Remove: %v", err)
	}
	r.Release()
	if len(fx.files.open) != 0 {
		t.Errorf("%d files still open", len(fx.files.open))
	}
}

// TestRangePanics: a read that panics holds no file.
func TestRangePanics(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(100, 200)
	refs := func() (n int) {
		for _, h := range fx.files.open {
			n += h.refs
		}
		return n
	}
	before := refs()
	fx.mem.SetInjector(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpReadAt {
			panic("planted in ReadAt")
		}
		return vfs.Fault{}
	})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = fx.seg.Range(0, 1<<20)
	}()
	if after := refs(); after != before {
		t.Errorf("files are held %d times, and %d times before", after, before)
	}
}

// TestSyncHoldsFiles: a file with unsynced writes is never closed, however many
// others are used, since a write error could go unseen.
func TestSyncHoldsFiles(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(10)
	for range 3 {
		for i := range 8 {
			h, err := fx.files.create(path.Join(testDir, fmt.Sprint("other", i)))
			if err != nil {
				t.Fatal(err)
			}
			h.release()
		}
		if fx.files.open[fx.seg.Name()] == nil || fx.files.open[fx.seg.indexName()] == nil {
			t.Fatal("an unsynced file was closed")
		}
		fx.append(10)
	}
	fx.sync()
	for i := range 8 {
		h, err := fx.files.acquire(path.Join(testDir, fmt.Sprint("other", i)))
		if err != nil {
			t.Fatal(err)
		}
		h.release()
	}
	if fx.files.open[fx.seg.Name()] != nil {
		t.Error("a synced file was kept open")
	}
}

func TestAppendAfterFullDisk(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(10)
	injector, err := vfs.ParseScript("write err=ENOSPC short=100 times=1")
	if err != nil {
		t.Fatal(err)
	}
	fx.mem.SetInjector(injector)
	b := makeBatch(t, fx.seg.End(), 2, 300)
	if err := fx.seg.Append([]Batch{b}); err == nil {
		t.Fatal("Append on a full disk succeeded")
	}
	check(t, fx.seg, fx.all)
	fx.mem.SetInjector(nil)
	if err := fx.seg.Append([]Batch{b}); err != nil {
		t.Fatal(err)
	}
	check(t, fx.seg, append(fx.all, b))
	if err := fx.seg.Verify(); err != nil {
		t.Error(err)
	}
}

func TestParseName(t *testing.T) {
	t.Parallel()
	for _, base := range []int64{0, 1, 1 << 62} {
		if got, ok := ParseName(DataName(base)); !ok || got != base {
			t.Errorf("ParseName(%q) = %d, %t", DataName(base), got, ok)
		}
	}
	for _, name := range []string{"", ".seg", "1.seg", IndexName(1), "-0000000000000000001.seg", "99999999999999999999.seg", DataName(1) + ".tmp"} {
		if _, ok := ParseName(name); ok {
			t.Errorf("ParseName(%q) is ok", name)
		}
	}
}
