package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

const testDir = "data/journal"

// small are options for small files, deterministic salts and no log output.
func small() Options {
	return Options{
		FileBytes: minFileBytes,
		MaxBytes:  4 * minFileBytes,
		Rand:      rand.NewChaCha8([32]byte{1}),
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func mustOpen(t *testing.T, fs vfs.FS, opt Options) *Journal {
	t.Helper()
	j, err := Open(fs, testDir, opt)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return j
}

func mustClose(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// newRecord makes a record whose content tells its origin, without a zero byte.
func newRecord(index, term uint64, size int, nonce uint64) Record {
	data := make([]byte, size)
	src := rand.New(rand.NewPCG(nonce, index))
	for i := range data {
		data[i] = byte(1 + src.IntN(255))
	}
	r := Record{Index: index, Term: term, Type: uint8(nonce % 5), AppendedAt: int64(nonce), Extensions: []byte{}, Data: data}
	if nonce%3 == 0 {
		r.Extensions = binary.BigEndian.AppendUint64(nil, nonce|1<<63)
	}
	return r
}

func records(first uint64, n, size int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		recs[i] = newRecord(first+uint64(i), 1, size, first*1000+uint64(i))
	}
	return recs
}

// contents reads a whole log.
func contents(s *Shard) ([]Record, error) {
	var recs []Record
	if s.Last() == 0 {
		return nil, nil
	}
	for i := s.First(); i <= s.Last(); i++ {
		var r Record
		if err := s.Read(i, &r); err != nil {
			return nil, err
		}
		if term, kind, ok := s.Head(i); !ok || term != r.Term || kind != r.Type {
			return nil, fmt.Errorf("term of %d: %d, %t; the record says %d", i, term, ok, r.Term)
		}
		recs = append(recs, r)
	}
	return recs, nil
}

func wantLog(t *testing.T, s *Shard, want []Record) {
	t.Helper()
	got, err := contents(s)
	if err != nil {
		t.Fatalf("read shard %d: %v", s.key.id, err)
	}
	if !slices.EqualFunc(got, want, sameRecord) {
		t.Fatalf("shard %d: entries %v, want %v", s.key.id, indexes(got), indexes(want))
	}
}

func sameRecord(a, b Record) bool {
	return a.Index == b.Index && a.Term == b.Term && a.AppendedAt == b.AppendedAt && a.Type == b.Type &&
		bytes.Equal(a.Extensions, b.Extensions) && bytes.Equal(a.Data, b.Data)
}

func indexes(recs []Record) []string {
	var out []string
	for _, r := range recs {
		out = append(out, fmt.Sprintf("%d@%d/%d", r.Index, r.Term, r.AppendedAt))
	}
	return out
}

func TestAppendRead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 7, 8, inlineBytes - 1, inlineBytes, inlineBytes + 1, minFileBytes / 4} {
		t.Run(fmt.Sprintf("size=%dB", size), func(t *testing.T) {
			mem := vfs.NewMem(1)
			j := mustOpen(t, mem, small())
			s := j.Shard(3, 7)
			want := records(5, 3, size)
			for i := range want {
				if len(want[i].Extensions)+size > minFileBytes/4 {
					want[i].Extensions = []byte{}
				}
			}
			if err := s.Append(want[:2]); err != nil {
				t.Fatal(err)
			}
			if err := s.Append(want[2:]); err != nil {
				t.Fatal(err)
			}
			wantLog(t, s, want)
			mustClose(t, j)

			j = mustOpen(t, mem, small())
			defer j.Close()
			if r := j.Recovery(); r.RewrittenBytes != 0 || r.Torn {
				t.Errorf("recovery of a closed journal: %+v", r)
			}
			if _, err := j.Shard(3, 7), error(nil); err != nil {
				t.Fatal(err)
			}
			wantLog(t, j.Shard(3, 7), want)
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, vfs.NewMem(1), small())
	defer j.Close()
	s := j.Shard(1, 1)
	if err := s.Append(records(10, 2, 10)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		recs []Record
		want error
	}{
		{name: "gap before", recs: records(13, 1, 1), want: ErrGap},
		{name: "overlap", recs: records(11, 1, 1), want: ErrGap},
		{name: "gap within", recs: []Record{{Index: 12}, {Index: 14}}, want: ErrGap},
		{name: "index zero", recs: []Record{{}}, want: ErrGap},
		{name: "too large", recs: records(12, 1, minFileBytes/4+1), want: ErrTooLarge},
		{name: "none", recs: nil, want: nil},
	}
	before := j.Usage().NextLSN
	for _, tt := range tests {
		if err := s.Append(tt.recs); !errors.Is(err, tt.want) {
			t.Errorf("%s: Append = %v, want %v", tt.name, err, tt.want)
		}
	}
	if u := j.Usage(); u.Records != 2 || s.Last() != 11 || u.NextLSN > before+1 { // + 1: the mark
		t.Errorf("refused appends left %d records, last %d", u.Records, s.Last())
	}
}

func TestTruncateCompactDrop(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	j := mustOpen(t, mem, small())
	s, other := j.Shard(1, 1), j.Shard(2, 1)
	recs := records(1, 10, 100)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.Append(recs))
	check(other.Append(recs))
	check(s.TruncateFrom(11)) // above the last: nothing
	check(s.TruncateFrom(8))
	wantLog(t, s, recs[:7])
	again := []Record{newRecord(8, 2, 50, 99)}
	check(s.Append(again))
	s.Compact(3)
	want := append(slices.Clone(recs[3:7]), again...)
	wantLog(t, s, want)
	check(other.Drop())
	for _, err := range []error{other.Append(records(11, 1, 1)), other.TruncateFrom(1), other.Drop(), other.Read(1, new(Record))} {
		if !errors.Is(err, ErrDropped) {
			t.Errorf("after Drop: %v, want ErrDropped", err)
		}
	}
	if live := j.Usage().LiveBytes; live != s.infoLocked().Bytes {
		t.Errorf("live bytes %d, want %d", live, s.infoLocked().Bytes)
	}
	mustClose(t, j)

	j = mustOpen(t, mem, small())
	defer j.Close()
	if infos := j.Shards(); len(infos) != 1 || infos[0].ID != 1 || infos[0].Last != 8 {
		t.Fatalf("recovered %+v, want shard 1 only", infos)
	}
	s = j.Shard(1, 1)
	s.Compact(3) // it is not written
	wantLog(t, s, want)
	if err := s.Read(3, new(Record)); !errors.Is(err, ErrNotFound) {
		t.Errorf("Read of a compacted entry: %v", err)
	}
	s.Compact(100)
	wantLog(t, s, nil)
	if s.First() != 0 || s.Last() != 0 || j.Usage().LiveBytes != 0 {
		t.Errorf("empty log: [%d, %d], live %d", s.First(), s.Last(), j.Usage().LiveBytes)
	}
	check(s.Append(records(500, 1, 1))) // any index goes
	wantLog(t, s, records(500, 1, 1))
}

func TestIncarnations(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem(1)
	j := mustOpen(t, mem, small())
	old := j.Shard(1, 100)
	if err := old.Append(records(1, 5, 10)); err != nil {
		t.Fatal(err)
	}
	s := j.Shard(1, 200)
	if err := old.Append(records(6, 1, 10)); !errors.Is(err, ErrDropped) {
		t.Errorf("Append to the old incarnation: %v", err)
	}
	want := records(1, 2, 20)
	if err := s.Append(want); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)

	j = mustOpen(t, mem, small())
	defer j.Close()
	if n := len(j.Shards()); n != 2 {
		t.Errorf("recovered %d logs, want both incarnations", n)
	}
	wantLog(t, j.Shard(1, 200), want)
	if infos := j.Shards(); len(infos) != 1 || infos[0].Incarnation != 200 {
		t.Errorf("after Shard: %+v", infos)
	}
}

// TestGapAfterCompaction: a log that was emptied by Compact goes on at any
// index, and what recovery brings back of the old entries gives way.
func TestGapAfterCompaction(t *testing.T) {
	t.Parallel()
	for _, next := range []uint64{3, 7, 500} {
		mem := vfs.NewMem(1)
		j := mustOpen(t, mem, small())
		s := j.Shard(1, 1)
		if err := s.Append(records(1, 5, 10)); err != nil {
			t.Fatal(err)
		}
		s.Compact(5)
		want := records(next, 2, 10)
		if err := s.Append(want); err != nil {
			t.Fatal(err)
		}
		mustClose(t, j)
		j = mustOpen(t, mem, small())
		wantLog(t, j.Shard(1, 1), want)
		mustClose(t, j)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, opt := range []Options{
		{FileBytes: 4096},
		{FileBytes: minFileBytes + 1},
		{FileBytes: 2 * maxFileBytes},
		{FileBytes: minFileBytes, MaxBytes: 3 * minFileBytes},
		{MaxBytes: 128 << 20},
	} {
		mem := vfs.NewMem(1)
		if j, err := Open(mem, testDir, opt); err == nil {
			j.Close()
			t.Errorf("Open accepts file bytes %d, max bytes %d", opt.FileBytes, opt.MaxBytes)
		}
		if names, _ := mem.ReadDir(testDir); len(names) > 0 {
			t.Errorf("refused options left %v", names)
		}
	}
	// The file size of an existing ring stays.
	mem := vfs.NewMem(1)
	mustClose(t, mustOpen(t, mem, small()))
	opt := small()
	opt.FileBytes, opt.MaxBytes = 2*minFileBytes, 8*minFileBytes
	j := mustOpen(t, mem, opt)
	defer j.Close()
	if u := j.Usage(); u.RingBytes != 2*minFileBytes || u.MaxFiles != 8 {
		t.Errorf("reopened with larger files: %+v", u)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, vfs.NewMem(1), small())
	s := j.Shard(1, 1)
	if err := s.Append(records(1, 1, 10)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
	_, rerr := j.Reserve(t.Context(), s, 10)
	for _, err := range []error{s.Append(records(2, 1, 10)), s.TruncateFrom(1), s.Drop(), s.Read(1, new(Record)), j.Close(), rerr} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}
}

func TestOldest(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, vfs.NewMem(1), small())
	defer j.Close()
	if _, _, ok := j.Oldest(); ok {
		t.Error("Oldest of an empty journal")
	}
	a, b := j.Shard(1, 1), j.Shard(2, 1)
	for i, s := range []*Shard{a, b, a, b} {
		if err := s.Append(records(uint64(i/2+1), 1, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if id, age, _ := j.Oldest(); id != 1 || age < 4 {
		t.Errorf("Oldest = %d, age %d", id, age)
	}
	a.Compact(1)
	if id, _, _ := j.Oldest(); id != 2 {
		t.Errorf("Oldest = %d after compaction, want 2", id)
	}
}

// image is a file's bytes.
func image(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	b, err := vfs.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}
