package segment

import (
	"errors"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/log/batch"
)

// TestScrub changes a bit of each kind in the files of a segment that is open, and
// takes it back: a scrub names what is damaged, reads of that alone fail, and
// everything is read again once it is right.
func TestScrub(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 100)
	for range 3 {
		fx.append(3000, 50, 6000, 700)
	}
	fx.sync()
	start := make([]int64, len(fx.all)+1) // of each batch, in the file
	start[0] = HeaderBytes
	for i, b := range fx.all {
		start[i+1] = start[i] + int64(len(b.Body))
	}
	data, index := testDir+"/"+DataName(100), testDir+"/"+IndexName(100)
	tests := []struct {
		name     string
		file     string
		pos      int64
		from, to int // batches that are damaged
	}{
		{"a record", data, start[5] + batch.HeaderBytes + 3, 5, 6},
		{"a checksum", data, start[6] + 17, 6, 7},
		{"the last byte", data, start[12] - 1, 11, 12},
		{"a leader epoch", data, start[5] + 12, 4, 8},
		{"a length", data, start[9] + 11, 8, 12},
		{"a base offset", data, start[0] + 7, 0, 4},
		{"the header", data, 20, 0, 12},
		{"an entry of the index", index, indexHeaderBytes + blockBytes + 3, 0, 0},
	}
	for _, tt := range tests {
		flip := func() {
			t.Helper()
			if err := fx.mem.Corrupt(tt.file, tt.pos, func(b []byte) { b[0] ^= 2 }); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		paced := int64(0)
		bad, err := fx.seg.Scrub(func(n int64) error { paced += n; return nil }, nil)
		if tt.file == index {
			var ce *CorruptError
			if !errors.As(err, &ce) || ce.File != index || len(bad) > 0 {
				t.Errorf("%s: %v, %v, want damage of the index alone", tt.name, bad, err)
			}
			flip()
			continue
		}
		wantFrom, wantTo := fx.all[tt.from].Base, fx.all[tt.to-1].End()
		if err != nil || len(bad) != 1 || bad[0].From != wantFrom || bad[0].To != wantTo || !strings.Contains(bad[0].Err.Error(), data) {
			t.Errorf("%s: damaged are %+v, %v, want [%d, %d)", tt.name, bad, err, wantFrom, wantTo)
		}
		if tt.pos >= HeaderBytes && paced != start[12]-HeaderBytes {
			t.Errorf("%s: %d bytes were paced, of %d", tt.name, paced, start[12]-HeaderBytes)
		}
		for i, b := range fx.all {
			r, err := fx.seg.Range(b.Base, 1<<20)
			if damaged := i >= tt.from && i < tt.to; damaged != errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: Range of batch %d = %v, damaged %t", tt.name, i, err, damaged)
			}
			if err == nil {
				if i < tt.from && r.End > wantFrom {
					t.Errorf("%s: Range of batch %d ends at %d, within what is damaged", tt.name, i, r.End)
				}
				r.Release()
			}
		}
		flip()
		if bad, err := fx.seg.Scrub(func(int64) error { return nil }, nil); err != nil || len(bad) > 0 {
			t.Fatalf("%s: damaged are %+v, %v, after it was taken back", tt.name, bad, err)
		}
		if _, err := readAll(fx.seg, 100, 2000); err != nil {
			t.Fatalf("%s: %v, after it was taken back", tt.name, err)
		}
	}
}

// TestScrubLooksAtNames: a file that is open is scrubbed as it is on the disk, by
// its name.
func TestScrubLooksAtNames(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	fx.append(500, 600)
	fx.sync()
	stopped := errors.New("stopped")
	if _, err := fx.seg.Scrub(func(int64) error { return stopped }, nil); !errors.Is(err, stopped) {
		t.Errorf("a scrub that was stopped returns %v", err)
	}
	if err := fx.mem.Lose(testDir + "/" + DataName(0)); err != nil {
		t.Fatal(err)
	}
	bad, err := fx.seg.Scrub(func(int64) error { return nil }, nil)
	if err != nil || len(bad) != 1 || bad[0].From != 0 || bad[0].To != fx.seg.End() {
		t.Errorf("a lost file: %+v, %v", bad, err)
	}
	fx.seg.Retire()
	if _, err := fx.seg.Scrub(func(int64) error { return nil }, nil); !errors.Is(err, ErrGone) {
		t.Errorf("a retired segment: %v", err)
	}
}
