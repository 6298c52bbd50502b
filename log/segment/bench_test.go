package segment

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/flotilla-log/flotilla/internal/vfs"
)

// benchSegment returns a segment in a temporary directory with n chunks of
// about 1 MiB of batches of that size, and one such chunk to write.
func benchSegment(b *testing.B, size, n int) (*Segment, []Batch) {
	b.Helper()
	files := NewFiles(vfs.OS, 16, slog.New(slog.DiscardHandler))
	s, err := Create(files, b.TempDir(), testHeader)
	if err != nil {
		b.Fatal(err)
	}
	chunk := func() (bs []Batch) {
		next := s.End()
		for bytes := 0; bytes < 1<<20; {
			one := makeBatch(b, next, 1, size)
			next, bytes = one.End(), bytes+len(one.Body)
			bs = append(bs, one)
		}
		return bs
	}
	for range n {
		if err := s.Append(chunk()); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = s.Sync() })
	return s, chunk()
}

// BenchmarkAppend gives the rate of writes to the page cache, 1 MiB at a time.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("batch=%dB", size), func(b *testing.B) {
			s, bs := benchSegment(b, size, 0)
			start := s.st
			n := int64(0)
			for i := range bs {
				n += int64(len(bs[i].Body))
			}
			b.SetBytes(n)
			b.ReportAllocs()
			for b.Loop() {
				if s.Bytes() > 64<<20 { // begin again, in the same file
					s.st, s.index = start, indexState{loaded: true, size: indexHeaderBytes, last: -1}
				}
				moved := s.End() - bs[0].Base
				for i := range bs {
					bs[i].Base += moved
				}
				if err := s.Append(bs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRange gives the cost of one look-up of 64 KiB, for a reader that
// goes on where it was and for one that jumps.
func BenchmarkRange(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10} {
		s, _ := benchSegment(b, size, 32)
		for name, step := range map[string]int64{"next": 0, "jump": 7919} {
			b.Run(fmt.Sprintf("batch=%dB/%s", size, name), func(b *testing.B) {
				b.ReportAllocs()
				off := int64(0)
				for b.Loop() {
					r, err := s.Range(off, 64<<10)
					if err != nil {
						b.Fatal(err)
					}
					off = (r.End + step) % s.End()
					r.Release()
				}
			})
		}
	}
}
