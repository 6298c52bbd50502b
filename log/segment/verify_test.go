package segment

import (
	"errors"
	"fmt"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
	"github.com/flotilla-log/flotilla/log/batch"
)

// TestPrefixFlips flips a bit in each of the bytes of a segment that no batch's
// own checksum covers, under an intact index. No reader gets such a batch after
// the next Open; the writes before and after it are served.
func TestPrefixFlips(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed=%t", sealed), func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, 100)
			var writes []int // batches before each write
			for range 4 {
				writes = append(writes, len(fx.all))
				fx.append(3000, 50, 6000, 700)
			}
			writes = append(writes, len(fx.all))
			fx.append(markEvery) // a second interval
			fx.append(900, 20)
			if sealed {
				if err := fx.seg.Seal(); err != nil {
					t.Fatal(err)
				}
			}
			fx.sync()
			pos := int64(HeaderBytes)
			for i, b := range fx.all {
				w := 0
				for w+1 < len(writes) && writes[w+1] <= i {
					w++
				}
				for k := range int64(batch.PrefixBytes) {
					mem := fx.mem.KillClone()
					flip := func(b []byte) { b[0] ^= 1 << (k % 8) }
					if err := mem.Corrupt(testDir+"/"+DataName(100), pos+k, flip); err != nil {
						t.Fatal(err)
					}
					seg, err := reopen(mem, 100, fx.seg.End())
					if err != nil {
						t.Fatal(err)
					}
					good := fx.all
					for j, one := range good {
						got, err := seg.Range(one.Base, 1)
						switch {
						case j == i && !errors.Is(err, ErrCorrupt):
							t.Fatalf("batch %d, byte %d: Range = %v, want ErrCorrupt", i, k, err)
						case err == nil:
							raw := make([]byte, got.Bytes)
							if err := readFull(got.File, raw, got.Pos); err != nil || string(raw) != string(flat(good[j:j+1])) {
								t.Fatalf("batch %d, byte %d: batch %d differs, %v", i, k, j, err)
							}
							got.Release()
						case j < writes[w] && i < writes[4]: // of a write before
							t.Fatalf("batch %d, byte %d: Range of batch %d = %v", i, k, j, err)
						}
					}
					if k == 12 { // a whole read ends before the write with the wrong epoch
						got, err := seg.Range(100, fx.seg.Bytes())
						if w > 0 && (err != nil || got.End > fx.all[i].Base) {
							t.Fatalf("batch %d: Range of all = [%d, %d), %v", i, got.Start, got.End, err)
						}
						if err == nil {
							got.Release()
						}
					}
				}
				pos += int64(len(b.Body))
			}
		})
	}
}

// TestOwnWritesAreNotWalked: what this process wrote is served without a walk,
// and what it found is walked once.
func TestOwnWritesAreNotWalked(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, 0)
	for range 8 {
		fx.append(600, 600, 600, 600, 600, 600, 600, 600)
	}
	fx.sync()
	reads := func(mem *vfs.Mem) int64 { return mem.Stats().Ops[vfs.OpReadAt] }
	all := func(s *Segment) {
		t.Helper()
		r, err := s.Range(0, s.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
	before := reads(fx.mem)
	all(fx.seg)
	if n := reads(fx.mem) - before; n > 3 {
		t.Errorf("%d reads of a segment that this process wrote", n)
	}
	seg, err := reopen(fx.mem, 0, fx.seg.End())
	if err != nil {
		t.Fatal(err)
	}
	all(seg)
	before = reads(fx.mem)
	all(seg)
	if n := reads(fx.mem) - before; n > 3 {
		t.Errorf("%d reads the second time", n)
	}
}
